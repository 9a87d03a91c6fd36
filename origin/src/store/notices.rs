//! What the edge told us, and answers that were keyed.

use sqlx::{AssertSqlSafe, Row as _};

use super::{StoreError, Writing, now_ms};
use crate::core::notice::Notice;

/// Keeps what was keyed about a call. With `newer`, it takes the place of what was keyed before;
/// otherwise what is there stays. What the question does not know is kept all the same.
pub(crate) async fn keep_answer(
    writing: &mut Writing<'_>,
    call: i64,
    question: i64,
    lead: i64,
    digits: &str,
    newer: bool,
) -> Result<(), StoreError> {
    let digits: String = digits.chars().take(32).collect();
    let keypad = digits.parse::<i64>().ok();
    let known = "SELECT id FROM possible_responses WHERE question_id = ? AND keypad = ?";
    let response: Option<i64> = sqlx::query_scalar(known)
        .bind(question)
        .bind(keypad)
        .fetch_optional(writing.connection())
        .await?;
    let insert = format!(
        "{} INTO answers (id, lead_call_id, question_id, lead_id, digits, possible_response_id, created_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        writing.dialect.insert_new()
    );
    let id = writing.id();
    let inserted = sqlx::query(AssertSqlSafe(insert))
        .bind(id)
        .bind(call)
        .bind(question)
        .bind(lead)
        .bind(digits.clone())
        .bind(response)
        .bind(now_ms())
        .execute(writing.connection())
        .await?;
    if inserted.rows_affected() == 0 && newer {
        let update = "UPDATE answers SET digits = ?, possible_response_id = ? \
                      WHERE lead_call_id = ? AND question_id = ?";
        sqlx::query(update)
            .bind(digits)
            .bind(response)
            .bind(call)
            .bind(question)
            .execute(writing.connection())
            .await?;
    }
    Ok(())
}

/// Whether a visit, by the edge's delivery id, was answered here.
pub(crate) async fn has_run(writing: &mut Writing<'_>, delivery: &str) -> Result<bool, StoreError> {
    let query = "SELECT COUNT(*) FROM deliveries WHERE id = ? AND answer IS NOT NULL";
    let row = sqlx::query(query).bind(delivery.to_owned()).fetch_one(writing.connection()).await?;
    Ok(row.try_get::<i64, _>(0)? > 0)
}

/// Keeps a notice.
pub(crate) async fn keep_notice(
    writing: &mut Writing<'_>,
    notice: &Notice,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO notices (id, what, catalogue_row, call_sid, delivery, visited_at, target, \
                  answered_by, answer, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let id = writing.id();
    sqlx::query(insert)
        .bind(id)
        .bind(notice.what.clone())
        .bind(notice.row.clone())
        .bind(notice.call.clone())
        .bind(notice.delivery.clone())
        .bind(notice.at.clone())
        .bind(notice.target.clone())
        .bind(notice.answered_by.clone())
        .bind(notice.answer.clone())
        .bind(now_ms())
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// The call that a caller's session was about, by the caller's leg: whoever left no name of the call.
pub(crate) async fn last_call_of(
    writing: &mut Writing<'_>,
    caller_leg: &str,
) -> Result<Option<i64>, StoreError> {
    let query = "SELECT lead_calls.id FROM lead_calls \
                 JOIN caller_sessions ON caller_sessions.id = lead_calls.session_id \
                 WHERE caller_sessions.call_sid = ? AND lead_calls.connected_ms IS NOT NULL \
                 ORDER BY lead_calls.connected_ms DESC LIMIT 1";
    let query = sqlx::query_scalar(query).bind(caller_leg.to_owned());
    Ok(query.fetch_optional(writing.connection()).await?)
}
