//! A step of the call logic on the store: what it starts from is read and held, what it ends with is
//! written, and what has to be done besides is put into the outbox, all in one transaction.
//!
//! Rows are always held in the same order (session, lead call, household), so that two steps wait for
//! each other and never for ever.

use std::time::Duration;

use holdline_twilio::verbs::Response;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::{StoreError, Writing, callers, notices, now_ms, outbox, queue, rows};
use crate::core::documents;
use crate::core::links::Links;
use crate::core::state::{Answer, Campaign, Decision, LeadCall, Question, Session, Stage};
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

/// What is found, and held.
struct Found {
    session: Option<Session>,
    call: Option<LeadCall>,
}

/// What came of a step on the store.
pub(crate) struct Taken {
    /// What Twilio is told.
    pub(crate) document: Response,
    /// Whether Twilio has to be asked for something.
    pub(crate) to_do: bool,
    /// The state before.
    pub(crate) before: Option<State>,
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
            return Ok(Taken { document: documents::hang_up(), to_do: false, before: None });
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
        Ok(Taken { document: step.document, to_do, before: Some(before) })
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

    async fn state(&mut self, about: &About, event: &Event) -> Result<Option<State>, StoreError> {
        let found = match about {
            About::Session { id, call_sid } => {
                let session = self.session(*id, call_sid.as_deref()).await?;
                let named = match event {
                    Event::Keyed { call, .. } => *call,
                    _ => None,
                };
                let call = named.or(session.as_ref().and_then(|session| session.call));
                Found { call: self.lead_call(call).await?, session }
            }
            About::LeadCall { id, call_sid } => {
                self.found_by_call(*id, call_sid.as_deref()).await?
            }
        };
        let Found { session, call } = found;
        let campaign_id = match (&session, &call) {
            (Some(session), _) => session.campaign_id,
            (None, Some(call)) => call.campaign_id,
            (None, None) => return Ok(None),
        };
        // Who is called stays called for the campaign that the call was made for.
        let campaign_id = match about {
            About::Session { .. } => campaign_id,
            About::LeadCall { .. } => call.as_ref().map_or(campaign_id, |call| call.campaign_id),
        };
        let Some(campaign) = campaign(self, campaign_id).await? else { return Ok(None) };
        let moved_to = match (&session, event) {
            (Some(session), Event::Ready { .. } | Event::Menu(_)) => self.moved_to(session).await?,
            _ => None,
        };
        let household = match (&session, &call) {
            (_, Some(call)) => Some(call.household_id),
            (Some(session), None) => session.household,
            (None, None) => None,
        };
        let household = match household {
            Some(id) => queue::household(self, id).await?,
            None => None,
        };
        let talked = call.as_ref().filter(|call| call.decision == Some(Decision::Connect));
        let (questions, answers) = match talked {
            Some(call) => (questions(self, campaign.id).await?, answers(self, call.id).await?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(Some(State {
            session,
            call,
            household,
            household_before: None,
            campaign,
            moved_to,
            questions,
            answers,
        }))
    }

    /// The session of a request, held: by its id, else by the caller's leg.
    pub(crate) async fn session(
        &mut self,
        id: Option<i64>,
        call_sid: Option<&str>,
    ) -> Result<Option<Session>, StoreError> {
        let by_id = match id {
            Some(id) => self.held(rows::SESSION, "id", Key::Id(id)).await?,
            None => None,
        };
        let row = match (by_id, call_sid) {
            (None, Some(sid)) => self.held(rows::SESSION, "call_sid", Key::Sid(sid)).await?,
            (row, _) => row,
        };
        row.as_ref().map(rows::session).transpose()
    }

    pub(crate) async fn lead_call(
        &mut self,
        id: Option<i64>,
    ) -> Result<Option<LeadCall>, StoreError> {
        let Some(id) = id else { return Ok(None) };
        let row = self.held(rows::LEAD_CALL, "id", Key::Id(id)).await?;
        row.as_ref().map(rows::lead_call).transpose()
    }

    async fn session_of_call(
        &mut self,
        column: &'static str,
        key: Option<Key<'_>>,
    ) -> Result<Option<(i64, Option<i64>)>, StoreError> {
        let query = format!("SELECT id, session_id FROM lead_calls WHERE {column} = ?");
        let query = sqlx::query_as(AssertSqlSafe(query));
        let query = match key {
            Some(Key::Id(id)) => query.bind(id),
            Some(Key::Sid(sid)) => query.bind(sid.to_owned()),
            None => return Ok(None),
        };
        Ok(query.fetch_optional(self.connection()).await?)
    }

    /// A lead call and the session it is for; the session is held first.
    async fn found_by_call(
        &mut self,
        id: Option<i64>,
        call_sid: Option<&str>,
    ) -> Result<Found, StoreError> {
        // By the leg, if the name in the URL is not ours.
        let known = match (self.session_of_call("id", id.map(Key::Id)).await?, call_sid) {
            (None, Some(sid)) => self.session_of_call("call_sid", Some(Key::Sid(sid))).await?,
            (known, _) => known,
        };
        let Some((id, session_id)) = known else { return Ok(Found { session: None, call: None }) };
        let session = match session_id {
            Some(id) => self.session(Some(id), None).await?,
            None => None,
        };
        let call = self.lead_call(Some(id)).await?;
        // Another transaction has given it to a session meanwhile, which is to be held first.
        if call.as_ref().is_some_and(|call| call.session != session_id) {
            return Err(StoreError::Busy);
        }
        // It is another leg's report, and not to be believed of this one.
        let call = call.filter(|call| match (&call.call_sid, call_sid) {
            (Some(known), Some(given)) => known == given,
            _ => true,
        });
        Ok(Found { session: session.filter(|_| call.is_some()), call })
    }

    async fn held(
        &mut self,
        select: &'static str,
        column: &'static str,
        key: Key<'_>,
    ) -> Result<Option<AnyRow>, StoreError> {
        let lock = self.dialect.for_update();
        let query = sqlx::query(AssertSqlSafe(format!("{select} WHERE {column} = ?{lock}")));
        let query = match key {
            Key::Id(id) => query.bind(id),
            Key::Sid(sid) => query.bind(sid.to_owned()),
        };
        Ok(query.fetch_optional(self.connection()).await?)
    }

    /// The campaign that the caller was given meanwhile, if it is another one.
    async fn moved_to(&mut self, session: &Session) -> Result<Option<Campaign>, StoreError> {
        if matches!(session.stage, Stage::Offered | Stage::Dialing | Stage::Talking) {
            return Ok(None);
        }
        let query =
            sqlx::query_scalar::<_, Option<i64>>("SELECT campaign_id FROM callers WHERE id = ?");
        let now = query.bind(session.caller_id).fetch_optional(self.connection()).await?.flatten();
        match now.filter(|now| *now != session.campaign_id) {
            Some(id) => Ok(campaign(self, id).await?.filter(|campaign| campaign.active)),
            None => Ok(None),
        }
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

enum Key<'k> {
    Id(i64),
    Sid(&'k str),
}

/// A campaign with its account.
pub(crate) async fn campaign(
    writing: &mut Writing<'_>,
    id: i64,
) -> Result<Option<Campaign>, StoreError> {
    let query = format!("{} WHERE campaigns.id = ?", rows::CAMPAIGN);
    let row = sqlx::query(AssertSqlSafe(query)).bind(id).fetch_optional(writing.connection());
    row.await?.as_ref().map(rows::campaign).transpose()
}

/// A campaign's questions with what may be keyed, in order.
async fn questions(writing: &mut Writing<'_>, campaign: i64) -> Result<Vec<Question>, StoreError> {
    use crate::core::state::PossibleResponse;
    let query = "SELECT questions.id, questions.content, possible_responses.id AS response_id, \
                 possible_responses.keypad, possible_responses.value, possible_responses.retry \
                 FROM campaigns JOIN questions ON questions.script_id = campaigns.script_id \
                 LEFT JOIN possible_responses ON possible_responses.question_id = questions.id \
                 WHERE campaigns.id = ? ORDER BY questions.position, possible_responses.keypad";
    let rows = sqlx::query(query).bind(campaign).fetch_all(writing.connection()).await?;
    let mut questions: Vec<Question> = Vec::new();
    for row in &rows {
        let id = rows::number(row, "id")?;
        if questions.last().is_none_or(|last| last.id != id) {
            let text = rows::text(row, "content")?;
            questions.push(Question { id, text, responses: Vec::new() });
        }
        if let (Some(last), Some(response)) =
            (questions.last_mut(), rows::maybe_number(row, "response_id")?)
        {
            last.responses.push(PossibleResponse {
                id: response,
                keypad: rows::number(row, "keypad")?,
                value: rows::text(row, "value")?,
                retry: rows::flag(row, "retry")?,
            });
        }
    }
    Ok(questions)
}

async fn answers(writing: &mut Writing<'_>, call: i64) -> Result<Vec<Answer>, StoreError> {
    let query = "SELECT question_id, digits FROM answers WHERE lead_call_id = ?";
    let rows = sqlx::query(query).bind(call).fetch_all(writing.connection()).await?;
    let answer = |row: &AnyRow| {
        Ok(Answer {
            question_id: rows::number(row, "question_id")?,
            digits: rows::text(row, "digits")?,
        })
    };
    rows.iter().map(answer).collect()
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
        .bind(call.outcome.map(crate::core::state::Outcome::name))
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
