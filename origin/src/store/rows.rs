//! Rows as values.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::StoreError;
use crate::core::fit::{Hours, Plan, Quota, may_record};
use crate::core::state::{
    CallStage, Campaign, Decision, Household, Lead, LeadCall, Mode, Outcome, Place, Session, Stage,
};

pub(super) const SESSION: &str = "SELECT id, caller_id, campaign_id, call_sid, session_key, \
    phones_only, stage, household_id, lead_call_id, turn, duration_s FROM caller_sessions";
pub(super) const LEAD_CALL: &str = "SELECT id, campaign_id, household_id, lead_id, session_id, phone, \
    call_sid, stage, decision, outcome, given_up, settled, twilio_status, answered_by, duration_s, \
    recording_url, recording_s, ended_ms FROM lead_calls";
pub(super) const HOUSEHOLD: &str = "SELECT id, phone, place, status, message_left FROM households";
pub(super) const LEAD: &str = "SELECT id, first_name, last_name, custom_id, status, completed, \
    dispositioned, call_back FROM leads";
pub(super) const CAMPAIGN: &str = "SELECT campaigns.id, campaigns.name, campaigns.mode, \
    campaigns.active, campaigns.start_hour, campaigns.end_hour, campaigns.time_zone, \
    campaigns.detect_machines, campaigns.use_recordings, campaigns.drop_by_hand, \
    campaigns.call_back_after_message, campaigns.caller_id, recordings.url AS recording_url, \
    accounts.plan, accounts.provider_status, accounts.minutes_allowed, accounts.minutes_used, \
    accounts.minutes_pending, accounts.callers_allowed, accounts.disable_calling, \
    accounts.disable_access, accounts.record_calls FROM campaigns \
    JOIN accounts ON accounts.id = campaigns.account_id \
    LEFT JOIN recordings ON recordings.id = campaigns.recording_id";

/// A column of a row.
pub(super) fn number(row: &AnyRow, name: &str) -> Result<i64, StoreError> {
    Ok(row.try_get(name)?)
}

pub(super) fn flag(row: &AnyRow, name: &str) -> Result<bool, StoreError> {
    Ok(number(row, name)? != 0)
}

pub(super) fn text(row: &AnyRow, name: &str) -> Result<String, StoreError> {
    Ok(row.try_get(name)?)
}

pub(super) fn maybe_number(row: &AnyRow, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(row.try_get(name)?)
}

pub(super) fn maybe_text(row: &AnyRow, name: &str) -> Result<Option<String>, StoreError> {
    Ok(row.try_get(name)?)
}

/// A name that this version does not know, of a row that a later one has written.
fn named<T>(
    row: &AnyRow,
    column: &str,
    value: fn(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let Some(name) = maybe_text(row, column)? else { return Ok(None) };
    let unknown = || {
        let source = format!("{name:?} is not known to this version").into();
        StoreError::Failed(sqlx::Error::ColumnDecode { index: column.into(), source })
    };
    value(&name).map(Some).ok_or_else(unknown)
}

fn always<T>(value: Option<T>, column: &str) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Failed(sqlx::Error::ColumnNotFound(column.into())))
}

pub(super) fn session(row: &AnyRow) -> Result<Session, StoreError> {
    Ok(Session {
        id: number(row, "id")?,
        caller_id: number(row, "caller_id")?,
        campaign_id: number(row, "campaign_id")?,
        call_sid: text(row, "call_sid")?,
        key: text(row, "session_key")?,
        phones_only: flag(row, "phones_only")?,
        stage: always(named(row, "stage", Stage::named)?, "stage")?,
        household: maybe_number(row, "household_id")?,
        call: maybe_number(row, "lead_call_id")?,
        turn: number(row, "turn")?,
        duration_s: maybe_number(row, "duration_s")?,
    })
}

pub(super) fn lead_call(row: &AnyRow) -> Result<LeadCall, StoreError> {
    let recording = maybe_text(row, "recording_url")?;
    let seconds = maybe_number(row, "recording_s")?.unwrap_or_default();
    Ok(LeadCall {
        id: number(row, "id")?,
        campaign_id: number(row, "campaign_id")?,
        household_id: number(row, "household_id")?,
        lead_id: number(row, "lead_id")?,
        session: maybe_number(row, "session_id")?,
        phone: text(row, "phone")?,
        call_sid: maybe_text(row, "call_sid")?,
        stage: always(named(row, "stage", CallStage::named)?, "stage")?,
        decision: named(row, "decision", Decision::named)?,
        outcome: named(row, "outcome", Outcome::named)?,
        given_up: flag(row, "given_up")?,
        settled: flag(row, "settled")?,
        twilio_status: maybe_text(row, "twilio_status")?,
        answered_by: maybe_text(row, "answered_by")?,
        duration_s: maybe_number(row, "duration_s")?,
        recording: recording.map(|url| (url, seconds)),
        ended: maybe_number(row, "ended_ms")?.is_some(),
    })
}

pub(super) fn household(row: &AnyRow, leads: Vec<Lead>) -> Result<Household, StoreError> {
    Ok(Household {
        id: number(row, "id")?,
        phone: text(row, "phone")?,
        place: always(named(row, "place", Place::named)?, "place")?,
        status: text(row, "status")?,
        message_left: flag(row, "message_left")?,
        leads,
    })
}

pub(super) fn lead(row: &AnyRow) -> Result<Lead, StoreError> {
    Ok(Lead {
        id: number(row, "id")?,
        first_name: maybe_text(row, "first_name")?,
        last_name: maybe_text(row, "last_name")?,
        custom_id: maybe_text(row, "custom_id")?,
        status: text(row, "status")?,
        completed: flag(row, "completed")?,
        dispositioned: flag(row, "dispositioned")?,
        call_back: flag(row, "call_back")?,
    })
}

pub(super) fn campaign(row: &AnyRow) -> Result<Campaign, StoreError> {
    let recording = maybe_text(row, "recording_url")?;
    let detect_machines = flag(row, "detect_machines")?;
    let automatic = detect_machines && flag(row, "use_recordings")?;
    let by_hand = flag(row, "drop_by_hand")?;
    Ok(Campaign {
        id: number(row, "id")?,
        name: text(row, "name")?,
        mode: always(named(row, "mode", Mode::named)?, "mode")?,
        active: flag(row, "active")?,
        hours: Hours {
            start: hour(row, "start_hour")?,
            end: hour(row, "end_hour")?,
            time_zone: text(row, "time_zone")?,
        },
        quota: Quota {
            plan: Plan::named(&text(row, "plan")?),
            provider_active: text(row, "provider_status")? == "active",
            minutes_left: number(row, "minutes_allowed")?
                - number(row, "minutes_used")?
                - number(row, "minutes_pending")?,
            callers_allowed: number(row, "callers_allowed")?,
            disable_calling: flag(row, "disable_calling")?,
            disable_access: flag(row, "disable_access")?,
        },
        record: flag(row, "record_calls")? && may_record(&text(row, "plan")?),
        detect_machines,
        message: recording.clone().filter(|_| automatic),
        manual_message: recording.filter(|_| by_hand),
        call_back_after_message: (automatic || by_hand) && flag(row, "call_back_after_message")?,
        caller_id: text(row, "caller_id")?,
    })
}

fn hour(row: &AnyRow, name: &str) -> Result<Option<i8>, StoreError> {
    Ok(maybe_number(row, name)?.and_then(|hour| i8::try_from(hour).ok()))
}
