//! What happened on one visit, as one log line and a handful of counts.
//!
//! A record is written when it is dropped: whatever becomes of the visit (the client goes away, the
//! task is cancelled, something panics) it is counted and its line appears. It holds no telephone
//! number, no body and no token.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use holdline_policy::{Moment, Stopped, Upstream};
use holdline_twilio::{CallSid, Unproven};

use crate::Holdline;
use crate::answer::{Answer, AnsweredBy, Refusal};
use crate::orders::Drill;
use crate::relay::hold::TokenFate;

/// One attempt, for the log.
#[derive(Debug, Clone, Copy)]
pub struct AttemptNote {
    /// Whom.
    pub upstream: Upstream,
    /// What came of it.
    pub outcome: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The judge's reason, where a document was refused.
    pub judged: Option<&'static str>,
}

/// What happened on one visit.
pub struct Record {
    /// What it was answered by.
    pub holdline: Arc<Holdline>,
    /// When it began.
    pub started: Moment,
    /// The row's index in the catalogue.
    pub row: Option<usize>,
    /// The call.
    pub call: Option<CallSid>,
    /// Cloudflare's name for the request.
    pub ray: Option<String>,
    /// The attempts that have ended, in order.
    pub attempts: Vec<AttemptNote>,
    /// Whether the origin was asked, however that ended.
    pub origin_was_asked: bool,
    /// Why no further attempt was made.
    pub stopped: Option<Stopped>,
    /// What became of a hold token.
    pub token: Option<TokenFate>,
    /// A failed proof that was let through.
    pub reported: Option<Unproven>,
    /// The drill it took part in.
    pub drill: Option<Arc<Drill>>,
    /// Whether answering panicked.
    pub panicked: bool,
    /// Whether it leaves no line: somebody only looks whether the edge is there.
    pub is_a_look: bool,
    answered: Option<(AnsweredBy, u16, Option<Refusal>)>,
    written: bool,
    /// When the answer was handed over whole; what follows is the connection's.
    ended: Option<Moment>,
    passed: bool,
}

// === impl Record ===

impl Record {
    /// A record of a visit that begins now.
    pub fn begin(holdline: Arc<Holdline>) -> Record {
        holdline.relay.metrics.visits_in_flight.inc();
        Record {
            started: holdline.relay.clock.now(),
            holdline,
            row: None,
            call: None,
            ray: None,
            attempts: Vec::new(),
            origin_was_asked: false,
            stopped: None,
            token: None,
            reported: None,
            drill: None,
            panicked: false,
            is_a_look: false,
            answered: None,
            written: false,
            ended: None,
            passed: false,
        }
    }

    /// Notes what was answered.
    pub fn answered(&mut self, answer: &Answer) {
        let refusal = match answer {
            Answer::Refusal(refusal) => Some(*refusal),
            _ => None,
        };
        self.answered = Some((answer.by(), answer.status(), refusal));
    }

    /// Whether an answer was noted.
    pub fn is_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Notes that the request was streamed from the origin, and how that ended.
    pub fn streamed(&mut self, status: Option<u16>, whole: bool, counted: bool) {
        self.passed = !counted;
        self.answered = status.map(|status| (AnsweredBy::Origin, status, None));
        self.written = whole && status.is_some();
    }

    /// Notes that the answer was handed to the connection whole.
    pub fn written(&mut self) {
        self.written = true;
        self.ended = Some(self.holdline.relay.clock.now());
    }

    fn count(&self, took: Duration) {
        let relay = &self.holdline.relay;
        let (metrics, rows) = (&relay.metrics, &relay.row_counts);
        metrics.visits_in_flight.dec();
        if self.panicked {
            metrics.panics.inc();
        }
        if self.reported.is_some() {
            metrics.let_through.inc();
        }
        if let Some(fate) = self.token {
            metrics.hold_tokens.with_label_values(&[fate.name()]).inc();
        }
        if let Some(stopped) = self.stopped {
            metrics.stopped.with_label_values(&[stopped.name()]).inc();
        }
        if let (Some(drill), Some(row)) = (&self.drill, self.row) {
            let by = self.answered.map_or(AnsweredBy::Nobody, |(by, _, _)| by);
            drill.note(&relay.catalogue.rows()[row].name, by, self.written, took);
        }
        match (self.row, self.answered) {
            (_, Some((_, _, Some(refusal)))) => metrics.refusal(refusal),
            (Some(row), Some((by, _, None))) if !self.passed => {
                rows.visit(row, by, self.written, took);
            }
            (Some(row), None) if !self.passed => rows.visit(row, AnsweredBy::Nobody, false, took),
            _ => {}
        }
    }

    fn write_line(&self, took: Duration) {
        let Some(mut line) = self.holdline.visits.line() else { return };
        if let Some(row) = self.row.and_then(|row| self.holdline.relay.catalogue.rows().get(row)) {
            line.word("row", &row.name);
        }
        if let Some(call) = &self.call {
            line.word("call", call.as_str());
        }
        if let Some(ray) = &self.ray {
            line.word("ray", ray);
        }
        line.word("by", self.answered.map_or("nobody", |(by, _, _)| by.name()));
        line.number("status", self.answered.map_or(0, |(_, status, _)| status).into());
        line.number("us", u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if !self.attempts.is_empty() {
            line.pieces("attempts", |text| self.write_attempts(text));
        }
        for (name, value) in [
            ("stopped", self.stopped.map(Stopped::name)),
            ("hold", self.token.map(TokenFate::name)),
            ("refused", self.answered.and_then(|(_, _, refusal)| refusal).map(Refusal::name)),
            ("reported", self.reported.map(|unproven| Refusal::Unproven(unproven).name())),
        ] {
            if let Some(value) = value {
                line.word(name, value);
            }
        }
        line.flag("drill", self.drill.is_some());
        line.flag("passed", self.passed);
        line.flag("panicked", self.panicked);
        line.flag("unwritten", !self.written);
        self.holdline.visits.push(line);
    }

    fn write_attempts(&self, text: &mut String) {
        for (number, note) in self.attempts.iter().enumerate() {
            if number > 0 {
                text.push(' ');
            }
            text.push_str(note.upstream.name());
            text.push(':');
            text.push_str(note.outcome);
            if let Some(judged) = note.judged {
                text.push('/');
                text.push_str(judged);
            }
            // Writing to memory does not fail.
            let _ = write!(text, ":{}us", note.took.as_micros());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ended = self.ended.unwrap_or_else(|| self.holdline.relay.clock.now());
        let took = ended.since(self.started);
        self.count(took);
        if !self.is_a_look {
            self.write_line(took);
        }
    }
}
