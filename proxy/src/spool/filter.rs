//! Which deliveries a tool is about.

use super::delivery::{State, unix_ms};

/// Which deliveries a tool is about. What is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The delivery id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `waiting`, `delivered` or `dead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The row's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// The CallSid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The AccountSid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// At least so old, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<u64>,
    /// At most so old, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_than: Option<u64>,
    /// Arrived no later than what has this place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to: Option<i64>,
}

pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

// === impl Filter ===

impl Filter {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let state = self.state.as_deref()?;
        (!State::NAMES.contains(&state))
            .then(|| format!("state: {state:?} is not one of {}", State::NAMES.join(", ")))
    }

    /// What is sent again where this is: what was delivered only if it is asked for.
    pub fn of_a_replay(&self) -> Vec<Filter> {
        if self.state.is_some() || self.id.is_some() {
            return vec![self.clone()];
        }
        let of = |state: State| Filter { state: Some(state.name().to_owned()), ..self.clone() };
        vec![of(State::Waiting), of(State::Dead(None))]
    }

    /// What it chooses behind a place, as a condition; the parameters are those of [`Filter::bind`]. What
    /// is not said is not asked for, so that an index can serve.
    pub(super) fn chosen(&self) -> String {
        let mut chosen = "place > ?1".to_owned();
        for (is_said, condition) in [
            (self.id.is_some(), " AND id = ?2"),
            (self.state.is_some(), " AND state = ?3"),
            (self.row.is_some(), " AND row = ?4"),
            (self.call.is_some(), " AND call = ?5"),
            (self.account.is_some(), " AND account = ?6"),
            (self.older_than.is_some() || self.up_to.is_some(), " AND place <= ?7"),
            (self.newer_than.is_some(), " AND place >= ?8"),
        ] {
            if is_said {
                chosen.push_str(condition);
            }
        }
        chosen
    }

    pub(super) fn bind<'q>(&self, query: String, after: i64) -> Query<'q> {
        let code = |name: &str| State::NAMES.iter().position(|known| *known == name);
        let state = self.state.as_deref().map(|name| code(name).map_or(-1, |code| code as i64));
        let before = |seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            unix_ms().saturating_sub(seconds.saturating_mul(1000)).saturating_mul(1_000_000)
        };
        let last = [self.older_than.map(before), self.up_to].into_iter().flatten().min();
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(after)
            .bind(self.id.clone())
            .bind(state)
            .bind(self.row.clone())
            .bind(self.call.clone())
            .bind(self.account.clone())
            .bind(last)
            .bind(self.newer_than.map(before))
    }
}
