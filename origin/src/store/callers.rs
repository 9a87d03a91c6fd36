//! Callers, their sessions, and what browsers are told.

use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{Store, StoreError, now_ms};
use crate::core::callin::{CampaignFacts, Candidate, NewSession};
use crate::core::fit::{Hours, Plan, Quota};

/// A caller's phone leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session.
    pub id: i64,
    /// Whose.
    pub caller_id: i64,
    /// Name of the conference and of the browser's channel.
    pub key: String,
    /// Whether there is a browser page.
    pub phones_only: bool,
    /// Whether the leg is up.
    pub on_call: bool,
}

/// Something a browser is told.
#[derive(Debug, Clone, PartialEq)]
pub struct BrowserEvent {
    /// Its place among those of its channel, from 1.
    pub sequence: i64,
    /// What happened.
    pub name: String,
    /// With what.
    pub data: Value,
}

const SESSION: &str =
    "SELECT id, caller_id, session_key, phones_only, on_call FROM caller_sessions";

// === impl Store ===

impl Store {
    /// The session of a request: by its id, else by the call.
    pub async fn session(
        &self,
        id: Option<i64>,
        call: Option<&str>,
    ) -> Result<Option<Session>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        if let Some(id) = id {
            let by_id = sqlx::query(sqlx::AssertSqlSafe(format!("{SESSION} WHERE id = ?")));
            if let Some(row) = by_id.bind(id).fetch_optional(&mut *connection).await? {
                return Ok(Some(session_of(&row)?));
            }
        }
        match call {
            Some(call) => session_of_call(&mut connection, call).await,
            None => Ok(None),
        }
    }

    /// How many callers of all accounts are on call.
    pub async fn callers_on_call(&self) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar("SELECT COUNT(*) FROM caller_sessions WHERE on_call = 1");
        Ok(query.fetch_one(&self.pool).await?)
    }

    /// What a channel was told, in order.
    pub async fn browser_events(&self, channel: &str) -> Result<Vec<BrowserEvent>, StoreError> {
        let query = sqlx::query(
            "SELECT sequence, name, data FROM browser_events WHERE channel = ? ORDER BY sequence",
        );
        let rows = query.bind(channel).fetch_all(&self.pool).await?;
        let event = |row: &SqliteRow| -> Result<BrowserEvent, StoreError> {
            let data: String = row.try_get("data")?;
            Ok(BrowserEvent {
                sequence: row.try_get("sequence")?,
                name: row.try_get("name")?,
                data: serde_json::from_str(&data).unwrap_or(Value::Null),
            })
        };
        rows.iter().map(event).collect()
    }
}

/// The session that a call opened.
pub(crate) async fn session_of_call(
    connection: &mut SqliteConnection,
    call: &str,
) -> Result<Option<Session>, StoreError> {
    let query = sqlx::query(sqlx::AssertSqlSafe(format!("{SESSION} WHERE call_sid = ?")));
    let row = query.bind(call).fetch_optional(connection).await?;
    row.as_ref().map(session_of).transpose()
}

/// Whoever has this PIN: a caller's own first, then a browser page's.
pub(crate) async fn candidate(
    connection: &mut SqliteConnection,
    pin: &str,
) -> Result<Option<Candidate>, StoreError> {
    let query = "SELECT callers.id, callers.active, callers.phones_only, callers.campaign_id, NULL AS page_key, 0 AS rank \
                 FROM callers WHERE pin = ?1 \
                 UNION ALL \
                 SELECT callers.id, callers.active, callers.phones_only, callers.campaign_id, caller_identities.session_key, 1 \
                 FROM caller_identities JOIN callers ON callers.id = caller_identities.caller_id \
                 WHERE caller_identities.pin = ?1 \
                 ORDER BY rank LIMIT 1";
    let Some(row) = sqlx::query(query).bind(pin).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    let campaign_id: Option<i64> = row.try_get("campaign_id")?;
    let campaign = match campaign_id {
        Some(id) => campaign_facts(connection, id).await?,
        None => None,
    };
    Ok(Some(Candidate {
        caller_id: row.try_get("id")?,
        active: row.try_get("active")?,
        phones_only: row.try_get("phones_only")?,
        page_key: row.try_get("page_key")?,
        campaign,
    }))
}

async fn campaign_facts(
    connection: &mut SqliteConnection,
    id: i64,
) -> Result<Option<CampaignFacts>, StoreError> {
    let query = "SELECT campaigns.mode, campaigns.start_hour, campaigns.end_hour, campaigns.time_zone, accounts.*, \
                 (SELECT COUNT(*) FROM caller_sessions \
                  JOIN callers ON callers.id = caller_sessions.caller_id \
                  WHERE callers.account_id = accounts.id AND caller_sessions.on_call = 1) AS on_call \
                 FROM campaigns JOIN accounts ON accounts.id = campaigns.account_id \
                 WHERE campaigns.id = ? AND campaigns.active = 1";
    let Some(row) = sqlx::query(query).bind(id).fetch_optional(connection).await? else {
        return Ok(None);
    };
    let minutes = |name: &str| row.try_get::<i64, _>(name);
    let plan: String = row.try_get("plan")?;
    let provider: String = row.try_get("provider_status")?;
    Ok(Some(CampaignFacts {
        id,
        mode: row.try_get("mode")?,
        hours: Hours {
            start: row.try_get("start_hour")?,
            end: row.try_get("end_hour")?,
            time_zone: row.try_get("time_zone")?,
        },
        quota: Quota {
            plan: Plan::named(&plan),
            provider_active: provider == "active",
            minutes_left: minutes("minutes_allowed")?
                - minutes("minutes_used")?
                - minutes("minutes_pending")?,
            callers_allowed: row.try_get("callers_allowed")?,
            disable_calling: row.try_get("disable_calling")?,
            disable_access: row.try_get("disable_access")?,
        },
        on_call: row.try_get("on_call")?,
    }))
}

/// Opens a session for a call.
pub(crate) async fn open_session(
    connection: &mut SqliteConnection,
    new: &NewSession,
    call: &str,
    fresh_key: &str,
) -> Result<Session, StoreError> {
    let key = new.page_key.clone().unwrap_or_else(|| fresh_key.to_owned());
    let insert = "INSERT INTO caller_sessions \
                  (caller_id, campaign_id, call_sid, session_key, phones_only, caller_type, on_call, status, started_ms) \
                  VALUES (?, ?, ?, ?, ?, 'Phone', 1, 'On hold', ?) RETURNING id";
    let row = sqlx::query(insert)
        .bind(new.caller_id)
        .bind(new.campaign_id)
        .bind(call)
        .bind(&key)
        .bind(new.phones_only)
        .bind(now_ms())
        .fetch_one(connection)
        .await?;
    Ok(Session {
        id: row.try_get("id")?,
        caller_id: new.caller_id,
        key,
        phones_only: new.phones_only,
        on_call: true,
    })
}

/// Ends a session; one that has ended stays as it is.
pub(crate) async fn end_session(
    connection: &mut SqliteConnection,
    id: i64,
) -> Result<(), StoreError> {
    let update = "UPDATE caller_sessions SET on_call = 0, status = '', ended_ms = ? WHERE id = ? AND on_call = 1";
    sqlx::query(update).bind(now_ms()).bind(id).execute(connection).await?;
    Ok(())
}

/// Tells a browser something, behind everything it was told before.
pub(crate) async fn tell_browser(
    connection: &mut SqliteConnection,
    channel: &str,
    name: &str,
    data: &Value,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO browser_events (channel, sequence, name, data, created_ms) \
                  SELECT ?1, COALESCE(MAX(sequence), 0) + 1, ?2, ?3, ?4 FROM browser_events WHERE channel = ?1";
    sqlx::query(insert)
        .bind(channel)
        .bind(name)
        .bind(data.to_string())
        .bind(now_ms())
        .execute(connection)
        .await?;
    Ok(())
}

fn session_of(row: &SqliteRow) -> Result<Session, StoreError> {
    Ok(Session {
        id: row.try_get("id")?,
        caller_id: row.try_get("caller_id")?,
        key: row.try_get("session_key")?,
        phones_only: row.try_get("phones_only")?,
        on_call: row.try_get("on_call")?,
    })
}
