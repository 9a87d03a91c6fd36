//! Callers, their sessions, and what browsers are told.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use super::{StoreError, Writing, found, now_ms, rows};
use crate::core::callin::{Candidate, NewSession};
use crate::core::state::{Session, Stage};

/// How a caller is known who comes in.
pub(crate) enum Whoever<'w> {
    /// By a PIN: a caller's own first, then a browser page's.
    Pin(&'w str),
    /// By the key of a browser page.
    Page(&'w str),
}

/// Whoever that is, and what decides whether they may start.
pub(crate) async fn candidate(
    writing: &mut Writing<'_>,
    who: Whoever<'_>,
) -> Result<Option<Candidate>, StoreError> {
    const COLUMNS: &str =
        "callers.id, callers.account_id, callers.active, callers.phones_only, callers.campaign_id";
    let page = format!(
        "SELECT {COLUMNS}, caller_identities.session_key AS page_key, 1 AS preference \
         FROM caller_identities JOIN callers ON callers.id = caller_identities.caller_id"
    );
    let (query, key, twice) = match who {
        Whoever::Pin(pin) => {
            let own = format!(
                "SELECT {COLUMNS}, NULL AS page_key, 0 AS preference FROM callers WHERE pin = ?"
            );
            let both = format!(
                "{own} UNION ALL {page} WHERE caller_identities.pin = ? ORDER BY preference LIMIT 1"
            );
            (both, pin, true)
        }
        Whoever::Page(key) => {
            (format!("{page} WHERE caller_identities.session_key = ?"), key, false)
        }
    };
    let mut query = sqlx::query(AssertSqlSafe(query)).bind(key.to_owned());
    if twice {
        query = query.bind(key.to_owned());
    }
    let Some(row) = query.fetch_optional(writing.connection()).await? else { return Ok(None) };
    let campaign = match rows::maybe_number(&row, "campaign_id")? {
        Some(id) => found::campaign(writing, id).await?.filter(|campaign| campaign.active),
        None => None,
    };
    Ok(Some(Candidate {
        caller_id: rows::number(&row, "id")?,
        active: rows::flag(&row, "active")?,
        phones_only: rows::flag(&row, "phones_only")?,
        page_key: rows::maybe_text(&row, "page_key")?,
        campaign,
        on_call: on_call(writing, rows::number(&row, "account_id")?).await?,
    }))
}

/// How many seats of an account are taken. The account is held, so that two who come at once do not
/// both take the last one.
async fn on_call(writing: &mut Writing<'_>, account: i64) -> Result<i64, StoreError> {
    let lock = writing.dialect.for_update();
    let hold = format!("SELECT id FROM accounts WHERE id = ?{lock}");
    sqlx::query(AssertSqlSafe(hold)).bind(account).fetch_optional(writing.connection()).await?;
    let count = "SELECT COUNT(*) FROM caller_sessions WHERE account_id = ? AND on_call = 1";
    let row = sqlx::query(count).bind(account).fetch_one(writing.connection()).await?;
    Ok(row.try_get(0)?)
}

/// The sessions on call of a browser page, by its key.
pub(crate) async fn sessions_of_page(
    writing: &mut Writing<'_>,
    page: &str,
) -> Result<Vec<i64>, StoreError> {
    let query = "SELECT id FROM caller_sessions WHERE session_key = ? AND on_call = 1 ORDER BY id";
    let query = sqlx::query_scalar(query).bind(page.to_owned());
    Ok(query.fetch_all(writing.connection()).await?)
}

/// Opens a session for a caller's leg.
pub(crate) async fn open_session(
    writing: &mut Writing<'_>,
    new: &NewSession,
    call_sid: &str,
    caller_type: &str,
    fresh_key: &str,
) -> Result<i64, StoreError> {
    let insert = "INSERT INTO caller_sessions (id, account_id, caller_id, campaign_id, call_sid, session_key, \
                  phones_only, caller_type, on_call, stage, started_ms, changed_ms, checked_ms) \
                  SELECT ?, account_id, id, ?, ?, ?, ?, ?, 1, ?, ?, ?, ? FROM callers WHERE id = ?";
    let (id, now) = (writing.id(), now_ms());
    let stage = if new.phones_only { Stage::Menu } else { Stage::Idle };
    sqlx::query(insert)
        .bind(id)
        .bind(new.campaign_id)
        .bind(call_sid.to_owned())
        .bind(new.page_key.clone().unwrap_or_else(|| fresh_key.to_owned()))
        .bind(i64::from(new.phones_only))
        .bind(caller_type.to_owned())
        .bind(stage.name())
        .bind(now)
        .bind(now)
        .bind(now)
        .bind(new.caller_id)
        .execute(writing.connection())
        .await?;
    Ok(id)
}

/// Writes what has changed of a session.
pub(super) async fn save(
    writing: &mut Writing<'_>,
    before: Option<&Session>,
    session: &Session,
) -> Result<(), StoreError> {
    let now = now_ms();
    // Who goes on waiting keeps the place in the line.
    let waits = session.stage == Stage::Waiting;
    let waited =
        before.is_some_and(|before| before.id == session.id && before.stage == Stage::Waiting);
    let update = "UPDATE caller_sessions SET campaign_id = ?, stage = ?, household_id = ?, lead_call_id = ?, \
                  turn = ?, duration_s = ?, on_call = ?, changed_ms = ?, checked_ms = ?, \
                  waiting_since_ms = CASE WHEN ? = 0 THEN NULL WHEN ? = 1 THEN waiting_since_ms ELSE ? END, \
                  ended_ms = COALESCE(ended_ms, ?) WHERE id = ?";
    sqlx::query(update)
        .bind(session.campaign_id)
        .bind(session.stage.name())
        .bind(session.household)
        .bind(session.call)
        .bind(session.turn)
        .bind(session.duration_s)
        .bind(i64::from(session.on_call()))
        .bind(now)
        .bind(now)
        .bind(i64::from(waits))
        .bind(i64::from(waited))
        .bind(now)
        .bind((!session.on_call()).then_some(now))
        .bind(session.id)
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// The caller of a campaign who has waited longest, held.
pub(super) async fn longest_waiting(
    writing: &mut Writing<'_>,
    campaign: i64,
) -> Result<Option<Session>, StoreError> {
    let query = format!(
        "{} WHERE campaign_id = ? AND stage = 'waiting' ORDER BY waiting_since_ms, id LIMIT 1{}",
        rows::SESSION,
        writing.dialect.skip_locked()
    );
    let row = sqlx::query(AssertSqlSafe(query)).bind(campaign).fetch_optional(writing.connection());
    if let Some(row) = row.await? {
        return rows::session(&row).map(Some);
    }
    // Somebody who waits may be held for a moment by somebody else, and is not to be passed over.
    let count = "SELECT COUNT(*) FROM caller_sessions WHERE campaign_id = ? AND stage = 'waiting'";
    let row = sqlx::query(count).bind(campaign).fetch_one(writing.connection()).await?;
    if row.try_get::<i64, _>(0)? > 0 { Err(StoreError::Busy) } else { Ok(None) }
}

/// Tells a browser something, behind everything it was told before.
pub(crate) async fn tell_browser(
    writing: &mut Writing<'_>,
    channel: &str,
    name: &str,
    data: &Value,
) -> Result<(), StoreError> {
    let last = "SELECT COALESCE(MAX(sequence), 0) FROM browser_events WHERE channel = ?";
    let row = sqlx::query(last).bind(channel.to_owned()).fetch_one(writing.connection()).await?;
    let last: i64 = row.try_get(0)?;
    let insert = "INSERT INTO browser_events (id, channel, sequence, name, data, created_ms) \
                  VALUES (?, ?, ?, ?, ?, ?)";
    let id = writing.id();
    sqlx::query(insert)
        .bind(id)
        .bind(channel.to_owned())
        .bind(last + 1)
        .bind(name.to_owned())
        .bind(data.to_string())
        .bind(now_ms())
        .execute(writing.connection())
        .await?;
    Ok(())
}
