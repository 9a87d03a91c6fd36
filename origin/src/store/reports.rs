//! What is reported of calls, and what the edge told us.

use sqlx::SqliteConnection;

use super::{StoreError, now_ms};
use crate::core::notice::{Keyed, Notice};

/// What Twilio says of a leg that has ended.
pub(crate) struct Ended<'r> {
    /// The leg.
    pub(crate) call: &'r str,
    /// Our own name of it, from the URL.
    pub(crate) id: &'r str,
    /// Twilio's status.
    pub(crate) status: &'r str,
    /// Who answered, where that was detected.
    pub(crate) answered_by: Option<&'r str>,
    /// How long it lasted, in seconds.
    pub(crate) duration_s: Option<i64>,
}

/// A lead's leg has ended. What our own logic decided stays.
pub(crate) async fn lead_call_ended(
    connection: &mut SqliteConnection,
    ended: &Ended<'_>,
) -> Result<(), StoreError> {
    let upsert = "INSERT INTO lead_calls \
                  (call_sid, call_id, twilio_status, answered_by, duration_s, created_ms, ended_ms) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) \
                  ON CONFLICT (call_sid) DO UPDATE SET call_id = excluded.call_id, \
                  twilio_status = excluded.twilio_status, answered_by = excluded.answered_by, \
                  duration_s = excluded.duration_s, ended_ms = excluded.ended_ms";
    let query = sqlx::query(upsert)
        .bind(ended.call)
        .bind(ended.id)
        .bind(ended.status)
        .bind(ended.answered_by)
        .bind(ended.duration_s)
        .bind(now_ms());
    query.execute(connection).await?;
    Ok(())
}

/// A lead who picked up was hung up on. What was decided before stays.
pub(crate) async fn lead_abandoned(
    connection: &mut SqliteConnection,
    call: &str,
) -> Result<(), StoreError> {
    let upsert = "INSERT INTO lead_calls (call_sid, mapped_status, created_ms) VALUES (?, 'abandoned', ?) \
                  ON CONFLICT (call_sid) DO UPDATE SET mapped_status = 'abandoned' \
                  WHERE mapped_status IS NULL";
    sqlx::query(upsert).bind(call).bind(now_ms()).execute(connection).await?;
    Ok(())
}

/// A transfer target's leg has ended.
pub(crate) async fn transfer_ended(
    connection: &mut SqliteConnection,
    ended: &Ended<'_>,
) -> Result<(), StoreError> {
    let upsert = "INSERT INTO transfer_calls (call_sid, transfer_id, twilio_status, created_ms, ended_ms) \
                  VALUES (?1, ?2, ?3, ?4, ?4) ON CONFLICT (call_sid) DO UPDATE SET \
                  twilio_status = excluded.twilio_status, ended_ms = excluded.ended_ms";
    let query =
        sqlx::query(upsert).bind(ended.call).bind(ended.id).bind(ended.status).bind(now_ms());
    query.execute(connection).await?;
    Ok(())
}

/// Stores what was keyed, unless the question has been answered for this lead in this call.
pub(crate) async fn store_answer(
    connection: &mut SqliteConnection,
    call: &str,
    keyed: &Keyed,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO answers \
                  (call_sid, session_id, question_id, voter_id, digits, possible_response_id, created_ms) \
                  VALUES (?1, ?2, ?3, ?4, ?5, \
                  (SELECT id FROM possible_responses WHERE question_id = ?3 AND keypad = CAST(?5 AS INTEGER)), ?6) \
                  ON CONFLICT DO NOTHING";
    sqlx::query(insert)
        .bind(call)
        .bind(keyed.session_id)
        .bind(keyed.question_id)
        .bind(&keyed.voter_id)
        .bind(&keyed.digits)
        .bind(now_ms())
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether a visit, by the edge's delivery id, was answered here.
pub(crate) async fn has_run(
    connection: &mut SqliteConnection,
    delivery: &str,
) -> Result<bool, StoreError> {
    let query = "SELECT COUNT(*) FROM deliveries WHERE id = ? AND answer IS NOT NULL";
    let count: i64 = sqlx::query_scalar(query).bind(delivery).fetch_one(connection).await?;
    Ok(count > 0)
}

/// Keeps a notice.
pub(crate) async fn keep_notice(
    connection: &mut SqliteConnection,
    notice: &Notice,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO notices (what, catalogue_row, call_sid, delivery, visited_at, target, \
                  answered_by, answer, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(insert)
        .bind(&notice.what)
        .bind(&notice.row)
        .bind(&notice.call)
        .bind(&notice.delivery)
        .bind(&notice.at)
        .bind(&notice.target)
        .bind(&notice.answered_by)
        .bind(&notice.answer)
        .bind(now_ms())
        .execute(connection)
        .await?;
    Ok(())
}
