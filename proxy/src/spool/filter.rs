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
}

/// What a filter chooses, as a condition; the parameters are those of [`Filter::bind`].
pub(super) const CHOSEN: &str = "place > ?1 AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR state = ?3) \
     AND (?4 IS NULL OR row = ?4) AND (?5 IS NULL OR call = ?5) AND (?6 IS NULL OR account = ?6) \
     AND (?7 IS NULL OR place <= ?7) AND (?8 IS NULL OR place >= ?8)";

pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

// === impl Filter ===

impl Filter {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let state = self.state.as_deref()?;
        (!State::NAMES.contains(&state))
            .then(|| format!("state: {state:?} is not one of {}", State::NAMES.join(", ")))
    }

    pub(super) fn bind<'q>(&self, query: String, after: i64) -> Query<'q> {
        let code = |name: &str| State::NAMES.iter().position(|known| *known == name);
        let state = self.state.as_deref().map(|name| code(name).map_or(-1, |code| code as i64));
        let before = |seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            unix_ms().saturating_sub(seconds.saturating_mul(1000)).saturating_mul(1_000_000)
        };
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(after)
            .bind(self.id.clone())
            .bind(state)
            .bind(self.row.clone())
            .bind(self.call.clone())
            .bind(self.account.clone())
            .bind(self.older_than.map(before))
            .bind(self.newer_than.map(before))
    }
}
