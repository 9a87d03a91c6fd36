//! The URLs in documents and in what Twilio is asked for: all of them lead to the edge.

use super::state::Session;

/// Appended to the URLs of reports. By default Twilio sends a report once more only where no connection
/// could be made; this makes it try again after any failure, and on a host that does not answer soon.
const TRY_AGAIN: &str = "#rc=3&rp=all&ct=2000";

/// Where the URLs lead: the public URL of the edge, and the host for when that fails.
#[derive(Debug, Clone)]
pub struct Links {
    base: String,
    fallback: String,
}

/// A place in a survey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// The call that is asked about; none before anything was dialed.
    pub call: Option<i64>,
    /// The lead; none where one is chosen when it answers.
    pub lead: Option<i64>,
    /// The number of the question, from 0.
    pub question: usize,
    /// Whether nothing was keyed to any question before it.
    pub silent: bool,
}

// === impl Links ===

impl Links {
    /// Links below `base`, with fallback URLs below `fallback`; URLs without a trailing slash.
    pub fn new(base: &str, fallback: Option<&str>) -> Links {
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        Links { base: trimmed(base), fallback: trimmed(fallback.unwrap_or(base)) }
    }

    pub(super) fn identify(&self, attempt: u32) -> String {
        format!("{}/identify_caller?attempt={attempt}", self.base)
    }

    /// A step of a caller's session.
    pub fn step(&self, session: &Session, step: &str) -> String {
        let Session { id, caller_id, .. } = session;
        format!("{}/caller/{caller_id}/{step}?session_id={id}", self.base)
    }

    /// Where a web caller goes on who has left the conference, in this turn.
    pub(super) fn pause(&self, session: &Session) -> String {
        format!("{}&turn={}", self.step(session, "pause"), session.turn)
    }

    /// The step that calls the household that is offered.
    pub(super) fn dial(&self, session: &Session, step: &str, lead: i64, phone: &str) -> String {
        format!("{}&voter_id={lead}&phone={phone}", self.step(session, step))
    }

    /// Where a caller decides about the household that is offered, for the so manieth time.
    pub(super) fn decide(&self, session: &Session, lead: i64, phone: &str, asked: u32) -> String {
        let url = self.dial(session, "conference_started_phones_only_preview", lead, phone);
        if asked == 0 { url } else { format!("{url}&asked={asked}") }
    }

    /// A step of a survey.
    pub(super) fn survey(&self, session: &Session, step: &str, survey: &Survey) -> String {
        let mut url = format!("{}&question_number={}", self.step(session, step), survey.question);
        for (name, id) in [("voter_id", survey.lead), ("call_id", survey.call)] {
            if let Some(id) = id {
                url.push_str(&format!("&{name}={id}"));
            }
        }
        if survey.silent {
            url.push_str("&silent=1");
        }
        url
    }

    /// The first question about the call that a session is at.
    pub fn first_question(&self, session: &Session) -> String {
        self.survey(
            session,
            "gather_response",
            &Survey { call: session.call, lead: None, question: 0, silent: false },
        )
    }

    /// Where an answer to a question is posted.
    pub(super) fn answer(&self, session: &Session, survey: &Survey, question: i64) -> String {
        format!("{}&question_id={question}", self.survey(session, "submit_response", survey))
    }

    /// A step of a lead's leg.
    pub fn lead(&self, call: i64, step: &str) -> String {
        format!("{}/calls/{call}/{step}", self.base)
    }

    /// The same URL on the host for when the first fails.
    pub fn fallback_of(&self, url: &str) -> String {
        url.strip_prefix(&self.base)
            .map_or_else(|| url.to_owned(), |rest| format!("{}{rest}", self.fallback))
    }

    /// Where the end of a lead's leg is reported.
    pub fn lead_ended(&self, call: i64) -> String {
        format!("{}{TRY_AGAIN}", self.lead(call, "call_ended"))
    }

    /// The document for a caller for whom calling was closed.
    pub fn dialing_prohibited(&self, session: &Session) -> String {
        format!("{}/twiml/caller_sessions/{}/dialing_prohibited", self.base, session.id)
    }

    pub(super) fn hold_music(&self) -> String {
        format!("{}/media/hold-music", self.base)
    }
}
