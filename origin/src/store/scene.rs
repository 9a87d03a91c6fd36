//! A step of the call logic on the store: what it starts from is read and held, what it ends with is
//! written, and what has to be done besides is put into the outbox, all in one transaction.

use std::time::Duration;

use holdline_twilio::verbs::Response;
use jiff::Timestamp;

use super::{StoreError, Writing, callers, notices, now_ms, outbox, queue};
use crate::core::documents;
use crate::core::links::Links;
use crate::core::state::{Decision, LeadCall, Outcome};
use crate::core::step::{self, Context, Effect, Event, State, Step, Supply, Want};

/// How long a caller may take from the conference to the next document.
const PARTING: Duration = Duration::from_secs(5);

/// Whom a step is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum About {
    /// A session, by its id, else by the caller's leg.
    Session {
        /// The id.
        id: Option<i64>,
        /// The leg.
        call_sid: Option<String>,
    },
    /// A call to a lead, by our own name of it, else by its leg.
    LeadCall {
        /// The id.
        id: Option<i64>,
        /// The leg.
        call_sid: Option<String>,
    },
}

/// What came of a step on the store.
pub(crate) struct Taken {
    /// What Twilio is told.
    pub(crate) document: Response,
    /// Whether Twilio has to be asked for something.
    pub(crate) to_do: bool,
    /// Whether they were known whom the step is about.
    pub(crate) known: bool,
}

// === impl Writing ===

impl Writing<'_> {
    /// Takes a step. Whoever is not known is hung up on, and nothing changes.
    pub(crate) async fn step(
        &mut self,
        about: &About,
        event: &Event,
        links: &Links,
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        let Some(before) = self.state(about, event).await? else {
            return Ok(Taken { document: documents::hang_up(), to_do: false, known: false });
        };
        let context = Context { links, now, fresh_id: self.id() };
        let mut supply = Supply::NotAsked;
        let step = loop {
            match step::step(before.clone(), event, supply, context) {
                Ok(step) => break step,
                Err(want) => supply = self.supply(want).await?,
            }
        };
        let to_do = self.keep(&before, &step).await?;
        Ok(Taken { document: step.document, to_do, known: true })
    }

    async fn supply(&mut self, want: Want) -> Result<Supply, StoreError> {
        let household = match want {
            Want::AnyNumber(campaign) => queue::hand_out(self, campaign, false).await?,
            Want::GoodNumber(campaign) => queue::hand_out(self, campaign, true).await?,
            Want::Caller(campaign) => {
                let caller = callers::longest_waiting(self, campaign).await?;
                return Ok(caller.map_or(Supply::None, Supply::Caller));
            }
        };
        Ok(household.map_or(Supply::None, Supply::Number))
    }

    /// Writes what a step has changed; whether Twilio has to be asked for something.
    async fn keep(&mut self, before: &State, step: &Step) -> Result<bool, StoreError> {
        let after = &step.state;
        if let Some(session) = &after.session
            && before.session.as_ref() != Some(session)
        {
            callers::save(self, before.session.as_ref(), session).await?;
        }
        if let Some(call) = &after.call
            && before.call.as_ref() != Some(call)
        {
            let is_new = before.call.as_ref().is_none_or(|before| before.id != call.id);
            save_call(self, call, is_new).await?;
        }
        for household in [&after.household_before, &after.household].into_iter().flatten() {
            if before.household.as_ref() != Some(household) {
                let known = before.household.as_ref().filter(|known| known.id == household.id);
                queue::save(self, known, household).await?;
            }
        }
        let mut to_do = false;
        for effect in &step.effects {
            to_do |= self.put(after, effect).await?;
        }
        Ok(to_do)
    }

    /// Writes an effect; whether Twilio has to be asked for it.
    async fn put(&mut self, state: &State, effect: &Effect) -> Result<bool, StoreError> {
        use outbox::Kind;
        let (kind, subject) = match effect {
            Effect::Dial(call) => (Kind::Dial, *call),
            Effect::HangUp(call) => (Kind::HangUp, *call),
            Effect::LetGo(call) => (Kind::LetGo, *call),
            Effect::EndCaller(session) => (Kind::EndCaller, *session),
            Effect::PlayMessage(call) => (Kind::PlayMessage, *call),
            Effect::MoveOn(session) => (Kind::MoveOn, *session),
            Effect::Part(session) => (Kind::Part, *session),
            Effect::SayMessageFailed(session) => (Kind::SayMessageFailed, *session),
            Effect::Tell { channel, name, data } => {
                callers::tell_browser(self, channel, name, data).await?;
                return Ok(false);
            }
            Effect::Keep { call, question_id, digits } => {
                let lead = state.call.as_ref().filter(|known| known.id == *call);
                let lead = lead.map_or(0, |known| known.lead_id);
                notices::keep_answer(self, *call, *question_id, lead, digits, true).await?;
                return Ok(false);
            }
        };
        let waits = matches!(kind, Kind::Part | Kind::LetGo);
        let after = if waits { PARTING } else { Duration::ZERO };
        outbox::put(self, kind, subject, after).await?;
        Ok(true)
    }
}

async fn save_call(
    writing: &mut Writing<'_>,
    call: &LeadCall,
    is_new: bool,
) -> Result<(), StoreError> {
    let now = now_ms();
    if is_new {
        let insert = "INSERT INTO lead_calls (id, campaign_id, household_id, lead_id, phone, stage, \
                      created_ms, checked_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(insert)
            .bind(call.id)
            .bind(call.campaign_id)
            .bind(call.household_id)
            .bind(call.lead_id)
            .bind(call.phone.clone())
            .bind(call.stage.name())
            .bind(now)
            .bind(now)
            .execute(writing.connection())
            .await?;
    }
    // A time is kept once, when what it belongs to first is so.
    let update = "UPDATE lead_calls SET session_id = ?, call_sid = ?, stage = ?, decision = ?, outcome = ?, \
                  given_up = ?, settled = ?, twilio_status = ?, answered_by = ?, duration_s = ?, \
                  recording_url = ?, recording_s = ?, answered_ms = COALESCE(answered_ms, ?), \
                  connected_ms = COALESCE(connected_ms, ?), ended_ms = COALESCE(ended_ms, ?) WHERE id = ?";
    let when = |so: bool| so.then_some(now);
    sqlx::query(update)
        .bind(call.session)
        .bind(call.call_sid.clone())
        .bind(call.stage.name())
        .bind(call.decision.map(Decision::name))
        .bind(call.outcome.map(Outcome::name))
        .bind(i64::from(call.given_up))
        .bind(i64::from(call.settled))
        .bind(call.twilio_status.clone())
        .bind(call.answered_by.clone())
        .bind(call.duration_s)
        .bind(call.recording.as_ref().map(|(url, _)| url.clone()))
        .bind(call.recording.as_ref().map(|(_, seconds)| *seconds))
        .bind(when(call.decision.is_some()))
        .bind(when(call.decision == Some(Decision::Connect)))
        .bind(when(call.ended))
        .bind(call.id)
        .execute(writing.connection())
        .await?;
    Ok(())
}
