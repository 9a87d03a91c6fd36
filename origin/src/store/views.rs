//! What is shown of the store: to supervisors, operators and tests.

use serde_json::{Value, json};
use sqlx::Row as _;

use super::{Store, StoreError, now_ms, rows};
use crate::core::state::Stage;

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

// === impl Store ===

impl Store {
    /// Callers who are on call, with what supervisors are shown of them.
    pub async fn callers_on_call(&self) -> Result<Vec<Value>, StoreError> {
        let query = "SELECT caller_sessions.id, caller_sessions.caller_id, caller_sessions.campaign_id, \
                     caller_sessions.call_sid, caller_sessions.stage, caller_sessions.lead_call_id, \
                     caller_sessions.session_key, caller_sessions.changed_ms, callers.name \
                     FROM caller_sessions JOIN callers ON callers.id = caller_sessions.caller_id \
                     WHERE caller_sessions.on_call = 1 ORDER BY caller_sessions.id";
        let mut connection = self.reading().await?;
        let rows = sqlx::query(query).fetch_all(&mut *connection).await?;
        let shown = |row: &sqlx::any::AnyRow| {
            let stage = rows::text(row, "stage")?;
            Ok(json!({
                "session_id": rows::number(row, "id")?,
                "caller_id": rows::number(row, "caller_id")?,
                "campaign_id": rows::number(row, "campaign_id")?,
                "call_sid": rows::text(row, "call_sid")?,
                "session_key": rows::text(row, "session_key")?,
                "name": rows::text(row, "name")?,
                "status": Stage::named(&stage).map_or("", Stage::label),
                "stage": stage,
                "lead_call": rows::maybe_number(row, "lead_call_id")?,
                "time_in_status_ms": now_ms() - rows::number(row, "changed_ms")?,
            }))
        };
        rows.iter().map(shown).collect()
    }

    /// What goes on in each campaign, and where its numbers are.
    pub async fn campaigns(&self) -> Result<Vec<Value>, StoreError> {
        let counted = |what: &str| format!("(SELECT COUNT(*) FROM {what})");
        let lines = |stage: &str| {
            counted(&format!(
                "lead_calls WHERE lead_calls.campaign_id = campaigns.id AND lead_calls.stage IN ({stage})"
            ))
        };
        let numbers = |place: &str| {
            counted(&format!(
                "households WHERE households.campaign_id = campaigns.id AND households.place = '{place}'"
            ))
        };
        let callers = |stage: &str| {
            counted(&format!(
                "caller_sessions WHERE caller_sessions.campaign_id = campaigns.id \
                 AND caller_sessions.on_call = 1 AND caller_sessions.stage IN ({stage})"
            ))
        };
        let columns = [
            ("ringing_lines", lines("'placing', 'ringing'")),
            ("connected_lines", lines("'connected'")),
            ("available", numbers("available")),
            ("presented", numbers("presented")),
            ("bin", numbers("bin")),
            ("blocked", numbers("blocked")),
            ("completed", numbers("completed")),
            ("failed", numbers("failed")),
            ("on_hold", callers("'menu', 'idle', 'offered', 'dialing', 'waiting'")),
            ("on_call", callers("'talking'")),
            ("wrap_up", callers("'parting', 'survey', 'wrap_up'")),
        ];
        let selected: Vec<String> =
            columns.iter().map(|(name, count)| format!("{count} AS {name}")).collect();
        let query = format!(
            "SELECT id, name, mode, active, {} FROM campaigns ORDER BY id",
            selected.join(", ")
        );
        let mut connection = self.reading().await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
        let shown = |row: &sqlx::any::AnyRow| {
            let mut campaign = json!({
                "id": rows::number(row, "id")?,
                "name": rows::text(row, "name")?,
                "mode": rows::text(row, "mode")?,
                "active": rows::flag(row, "active")?,
            });
            for (name, _) in &columns {
                campaign[*name] = rows::number(row, name)?.into();
            }
            Ok(campaign)
        };
        rows.iter().map(shown).collect()
    }

    /// Whether somebody is on call in the conference of that name.
    pub async fn is_on_call(&self, key: &str) -> Result<bool, StoreError> {
        let query = "SELECT COUNT(*) FROM caller_sessions WHERE session_key = ? AND on_call = 1";
        let mut connection = self.reading().await?;
        let row = sqlx::query(query).bind(key.to_owned()).fetch_one(&mut *connection).await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// What a channel was told after a place in it, in order.
    pub async fn browser_events(
        &self,
        channel: &str,
        after: i64,
    ) -> Result<Vec<BrowserEvent>, StoreError> {
        let query = "SELECT sequence, name, data FROM browser_events \
                     WHERE channel = ? AND sequence > ? ORDER BY sequence";
        let mut connection = self.reading().await?;
        let query = sqlx::query(query).bind(channel.to_owned()).bind(after);
        let rows = query.fetch_all(&mut *connection).await?;
        let event = |row: &sqlx::any::AnyRow| -> Result<BrowserEvent, StoreError> {
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
