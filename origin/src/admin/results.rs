//! What came of a campaign, as CSV.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::arguments::Out;
use super::book;
use crate::store::{Store, StoreError};

/// A line for each call, with a column for each question of the script.
pub(super) async fn calls(store: &Store, campaign: i64, out: &Out) -> anyhow::Result<()> {
    let mut writing = store.begin().await?;
    book::is_there(&mut writing, "campaigns", campaign).await?;
    drop(writing);
    let mut connection = store.reading().await?;
    let questions: Vec<(i64, String)> = sqlx::query_as(
        "SELECT questions.id, questions.content FROM campaigns \
         JOIN questions ON questions.script_id = campaigns.script_id \
         WHERE campaigns.id = ? ORDER BY questions.position",
    )
    .bind(campaign)
    .fetch_all(&mut *connection)
    .await?;
    let answers = answers(&mut connection, campaign).await?;
    let rows = sqlx::query(
        "SELECT lead_calls.id, lead_calls.phone, leads.custom_id, leads.first_name, leads.last_name, \
         callers.name AS caller, lead_calls.outcome, lead_calls.twilio_status, lead_calls.answered_by, \
         lead_calls.duration_s, lead_calls.recording_url, lead_calls.dialed_ms, lead_calls.connected_ms, \
         lead_calls.ended_ms FROM lead_calls \
         LEFT JOIN leads ON leads.id = lead_calls.lead_id \
         LEFT JOIN caller_sessions ON caller_sessions.id = lead_calls.session_id \
         LEFT JOIN callers ON callers.id = caller_sessions.caller_id \
         WHERE lead_calls.campaign_id = ? ORDER BY lead_calls.id",
    )
    .bind(campaign)
    .fetch_all(&mut *connection)
    .await?;
    let mut csv = csv::Writer::from_writer(out.open()?);
    let columns = [
        "call",
        "phone",
        "custom_id",
        "first_name",
        "last_name",
        "caller",
        "outcome",
        "twilio_status",
        "answered_by",
        "seconds",
        "recording",
        "dialed",
        "connected",
        "ended",
    ];
    let asked = questions.iter().map(|(_, text)| plain(text.clone()));
    csv.write_record(columns.into_iter().map(str::to_owned).chain(asked))?;
    for row in &rows {
        let call: i64 = row.try_get("id")?;
        let mut record: Vec<String> = (0..11).map(|n| cell(row, n)).collect();
        for column in ["dialed_ms", "connected_ms", "ended_ms"] {
            record.push(time(row, column)?);
        }
        for (question, _) in &questions {
            record.push(plain(answers.get(&(call, *question)).cloned().unwrap_or_default()));
        }
        csv.write_record(record)?;
    }
    Ok(csv.flush()?)
}

/// What was answered, by call and question. What the script does not know is shown as it was keyed.
async fn answers(
    connection: &mut AnyConnection,
    campaign: i64,
) -> Result<HashMap<(i64, i64), String>, StoreError> {
    let answers: Vec<(i64, i64, String, Option<String>)> = sqlx::query_as(
        "SELECT answers.lead_call_id, answers.question_id, answers.digits, possible_responses.value \
         FROM answers JOIN lead_calls ON lead_calls.id = answers.lead_call_id \
         LEFT JOIN possible_responses ON possible_responses.id = answers.possible_response_id \
         WHERE lead_calls.campaign_id = ?",
    )
    .bind(campaign)
    .fetch_all(connection)
    .await?;
    let known = |(call, question, digits, value): (i64, i64, String, Option<String>)| {
        ((call, question), value.unwrap_or(digits))
    };
    Ok(answers.into_iter().map(known).collect())
}

/// A line for each person of a campaign.
pub(super) async fn people(store: &Store, campaign: i64, out: &Out) -> anyhow::Result<()> {
    let mut writing = store.begin().await?;
    book::is_there(&mut writing, "campaigns", campaign).await?;
    drop(writing);
    let mut connection = store.reading().await?;
    let rows = sqlx::query(
        "SELECT households.phone, households.place, households.status AS number_status, leads.custom_id, \
         leads.first_name, leads.last_name, leads.status, leads.completed, leads.call_back, leads.fields \
         FROM households JOIN leads ON leads.household_id = households.id \
         WHERE households.campaign_id = ? ORDER BY households.sequence, leads.sequence",
    )
    .bind(campaign)
    .fetch_all(&mut *connection)
    .await?;
    let mut csv = csv::Writer::from_writer(out.open()?);
    csv.write_record([
        "phone",
        "place",
        "number_status",
        "custom_id",
        "first_name",
        "last_name",
        "status",
        "completed",
        "call_back",
        "fields",
    ])?;
    for row in &rows {
        csv.write_record((0..row.len()).map(|n| cell(row, n)))?;
    }
    Ok(csv.flush()?)
}

/// A column as text; nothing where there is nothing.
pub(super) fn cell(row: &AnyRow, column: usize) -> String {
    let text = row.try_get::<Option<String>, _>(column).ok().flatten();
    let number = || row.try_get::<Option<i64>, _>(column).ok().flatten().map(|n| n.to_string());
    text.map(plain).or_else(number).unwrap_or_default()
}

/// Text that a spreadsheet does not take for a formula
/// (owasp.org/www-community/attacks/CSV_Injection): whoever wrote a list would run it with whoever opens
/// the results.
fn plain(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

fn time(row: &AnyRow, column: &str) -> Result<String, StoreError> {
    let ms: Option<i64> = row.try_get(column)?;
    let time = ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Ok(time.map(|time| time.to_string()).unwrap_or_default())
}
