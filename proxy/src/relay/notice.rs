//! Notices: the application learns what was said in its name.
//!
//! Where a synchronous visit was answered without the origin, and something the caller said is lost by
//! that or a callee heard it, a notice is left in the spool. It is delivered to the origin like a callback:
//! after the older ones of the call, again and again until it is taken, signed as a form so that every
//! validator of Twilio's signatures can check it. While a caller is held nothing is decided yet: the
//! notice waits, in nobody's line, as long as the caller may come back, and is withdrawn when the origin
//! answers after all.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdline_policy::Row;
use holdline_twilio::Form;
use serde::{Deserialize, Serialize};

use super::{Question, Relay, delivery, hold};
use crate::answer::{Answer, AnsweredBy};
use crate::spool::{Delivery, Kind, State, unix_ms};
use crate::upstream::http1::push_field;

/// Where notices go, at the origin.
pub const PATH: &str = "/holdline/notices";
/// As much of an answer as is told.
const LONGEST_ANSWER: usize = 16 * 1024;

/// What a notice tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A visit was answered without the origin.
    AnsweredWithout,
    /// An upstream's answer came late, and nobody fetched it.
    NotFetched,
}

/// A visit that a notice may be about, once nobody asks any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Subject {
    row: String,
    /// Whether the application is told of an answer that nobody fetched.
    tells_what_was_not_fetched: bool,
    account: Option<String>,
    call: Option<String>,
    arrived: SystemTime,
    delivery: String,
    method: String,
    target: String,
    /// What was sent, as a notice tells it.
    sent: String,
}

// === impl Subject ===

impl Subject {
    /// How much memory it keeps.
    pub(super) fn bytes(&self) -> usize {
        self.target.len() + self.sent.len()
    }
}

#[cfg(test)]
impl Subject {
    /// One for tests in which it does not matter.
    pub(super) fn example() -> Subject {
        Subject {
            row: "a".into(),
            tells_what_was_not_fetched: false,
            account: None,
            call: None,
            arrived: SystemTime::UNIX_EPOCH,
            delivery: "d".into(),
            method: "POST".into(),
            target: "/x".into(),
            sent: String::new(),
        }
    }
}

// === impl What ===

impl What {
    const fn name(self) -> &'static str {
        match self {
            What::AnsweredWithout => "answered-without-origin",
            What::NotFetched => "late-answer-not-fetched",
        }
    }
}

// === impl Relay ===

impl Relay {
    /// Leaves a notice of what was answered, if the row wants that, or withdraws the one that was left
    /// when the caller was put on hold.
    pub(super) fn tell(&self, question: &Question<'_>, answer: &Answer) {
        if !question.row.tells_what_was_answered() {
            return;
        }
        let delivery = &question.outgoing.delivery;
        if question.held.is_some() && answer.by() != AnsweredBy::Hold {
            self.spool.withdraw(self.notice_id(delivery, What::AnsweredWithout));
        }
        let wait = match answer.by() {
            AnsweredBy::Monitor | AnsweredBy::Canned => Duration::ZERO,
            // The first hold says it for all that follow.
            AnsweredBy::Hold if question.held.is_none() => {
                question.row.hold.unwrap_or_default() + hold::GRACE
            }
            _ => return,
        };
        let subject = self.subject(question);
        self.spool.leave(self.notice(&subject, What::AnsweredWithout, answer, wait));
    }

    /// The origin has answered a visit whose caller is on hold; nothing of it is lost.
    pub(super) fn untell(&self, row: &Row, delivery: &str) {
        if row.tells_what_was_answered() {
            self.spool.withdraw(self.notice_id(delivery, What::AnsweredWithout));
        }
    }

    /// Forgets what nobody returns for any more, and leaves a notice of each answer that nobody fetched.
    pub fn sweep(&self) {
        self.recent.sweep(self.clock.now());
        for (subject, answer) in self.late.sweep(self.clock.now()) {
            tracing::warn!(row = subject.row, "nobody came for an answer that was late");
            if subject.tells_what_was_not_fetched {
                let notice = self.notice(&subject, What::NotFetched, &answer, Duration::ZERO);
                self.spool.leave(notice);
            }
        }
    }

    /// The visit as a notice tells of it.
    pub(super) fn subject(&self, question: &Question<'_>) -> Subject {
        let (visit, outgoing) = (&question.visit, &question.outgoing);
        let ago = self.clock.now().since(visit.arrival.at);
        Subject {
            row: question.row.name.clone(),
            tells_what_was_not_fetched: question.row.tells_what_was_not_fetched(),
            account: visit.account.map(|sid| sid.to_string()),
            call: visit.call.map(|sid| sid.to_string()),
            arrived: SystemTime::now() - ago,
            delivery: outgoing.delivery.clone(),
            method: outgoing.method.to_string(),
            target: outgoing.target.clone(),
            sent: String::from_utf8_lossy(&outgoing.body).into_owned(),
        }
    }

    fn notice_id(&self, delivery: &str, what: What) -> String {
        let public_url = self.public_url.as_twilio_signs();
        delivery::id(Some(delivery.as_bytes()), public_url, PATH, what.name().as_bytes())
    }

    fn notice(&self, subject: &Subject, what: What, answer: &Answer, wait: Duration) -> Delivery {
        let Subject { row, account, call, .. } = subject;
        let at = humantime::format_rfc3339_millis(subject.arrived).to_string();
        let document = match answer {
            Answer::Document { document, .. } => document.bytes().clone(),
            _ => Bytes::new(),
        };
        let answered = String::from_utf8_lossy(&document[..document.len().min(LONGEST_ANSWER)]);
        let mut form = Form::from_pairs([
            ("Notice", what.name()),
            ("Row", row),
            ("Delivery", &subject.delivery),
            ("At", &at),
            ("Method", &subject.method),
            ("Target", &subject.target),
            ("Sent", &subject.sent),
            ("AnsweredBy", answer.by().name()),
            ("Answer", &answered),
        ]);
        for (name, value) in [("CallSid", call), ("AccountSid", account)] {
            if let Some(value) = value {
                form.push(name, value);
            }
        }
        let mut fields = Vec::new();
        push_field(&mut fields, "content-type", b"application/x-www-form-urlencoded");
        let id = self.notice_id(&subject.delivery, what);
        Delivery {
            place: self.spool.next_place(),
            kind: Kind::Notice,
            // What waits for the end of a hold keeps nothing of its call waiting.
            order: call.clone().filter(|_| wait.is_zero()).unwrap_or_else(|| id.clone()),
            id,
            row: row.clone(),
            account: account.clone(),
            call: call.clone(),
            method: "POST".to_owned(),
            target: PATH.to_owned(),
            fields,
            body: Bytes::from(form.encode()),
            signature: None,
            client: None,
            state: State::Waiting,
            due_ms: unix_ms() + i64::try_from(wait.as_millis()).unwrap_or(0),
            tries: 0,
            setbacks: 0,
            last_outcome: None,
            tried_ms: None,
            revived_ms: None,
        }
    }
}
