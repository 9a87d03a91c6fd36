//! What a step starts from: read, and held until the step is written.
//!
//! Rows are always held in the same order (session, lead call, household), so that two steps wait for
//! each other and never for ever.

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::scene::About;
use super::{StoreError, Writing, queue, rows};
use crate::core::state::{Answer, Campaign, Decision, LeadCall, Question, Session, Stage};
use crate::core::step::{Event, MovedTo, State};

/// What is found.
struct Found {
    session: Option<Session>,
    call: Option<LeadCall>,
}

enum Key<'k> {
    Id(i64),
    Sid(&'k str),
}

// === impl Writing ===

impl Writing<'_> {
    /// All that a step about somebody looks at; none if nobody knows them.
    pub(super) async fn state(
        &mut self,
        about: &About,
        event: &Event,
    ) -> Result<Option<State>, StoreError> {
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
            _ => MovedTo::Nobody,
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
            Some(call) => (questions(self, call.campaign_id).await?, answers(self, call.id).await?),
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

    /// The campaign that the caller was given meanwhile, if it is another one, or none.
    async fn moved_to(&mut self, session: &Session) -> Result<MovedTo, StoreError> {
        if matches!(session.stage, Stage::Offered | Stage::Dialing | Stage::Talking) {
            return Ok(MovedTo::Nobody);
        }
        let query = "SELECT campaign_id FROM callers WHERE id = ? AND active = 1";
        let query = sqlx::query_scalar::<_, Option<i64>>(query).bind(session.caller_id);
        match query.fetch_optional(self.connection()).await?.flatten() {
            Some(id) if id == session.campaign_id => Ok(MovedTo::Nobody),
            Some(id) => {
                let now = campaign(self, id).await?.filter(|campaign| campaign.active);
                Ok(now.map_or(MovedTo::Nothing, MovedTo::Campaign))
            }
            None => Ok(MovedTo::Nothing),
        }
    }
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
