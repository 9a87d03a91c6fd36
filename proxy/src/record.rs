//! What happened on one visit, as one log line and a handful of counts.
//!
//! A record is written when it is dropped: whatever becomes of the visit (the client goes away, the
//! task is cancelled, something panics) it is counted and its line appears. It holds no telephone
//! number, no body and no token.

use std::sync::Arc;
use std::time::Duration;

use holdline_policy::{Moment, Stopped, Upstream};
use holdline_twilio::{CallSid, Unproven};

use crate::answer::{Answer, AnsweredBy, Refusal};
use crate::clock::Clock;
use crate::relay::hold::TokenFate;
use crate::telemetry::Metrics;

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
#[derive(Debug)]
pub struct Record {
    metrics: Arc<Metrics>,
    clock: Clock,
    /// When it began.
    pub started: Moment,
    /// The row's index and name.
    pub row: Option<(usize, String)>,
    /// The call.
    pub call: Option<CallSid>,
    /// The attempts, in order.
    pub attempts: Vec<AttemptNote>,
    /// Why no further attempt was made.
    pub stopped: Option<Stopped>,
    /// What became of a hold token.
    pub token: Option<TokenFate>,
    /// A failed proof that was let through.
    pub reported: Option<Unproven>,
    /// Whether answering panicked.
    pub panicked: bool,
    answered: Option<(AnsweredBy, u16, Option<Refusal>)>,
    written: bool,
    passed: bool,
}

// === impl Record ===

impl Record {
    /// A record of a visit that begins now.
    pub fn begin(metrics: Arc<Metrics>, clock: Clock) -> Record {
        metrics.visits_in_flight.inc();
        Record {
            metrics,
            clock,
            started: clock.now(),
            row: None,
            call: None,
            attempts: Vec::new(),
            stopped: None,
            token: None,
            reported: None,
            panicked: false,
            answered: None,
            written: false,
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
    }

    /// Notes an attempt.
    pub fn attempt(&mut self, note: AttemptNote) {
        self.metrics.attempt(note.upstream, note.outcome, note.took);
        if let Some(reason) = note.judged {
            self.metrics.judgement_refusals.with_label_values(&[reason]).inc();
        }
        self.attempts.push(note);
    }

    fn count(&self, took: Duration) {
        self.metrics.visits_in_flight.dec();
        if self.panicked {
            self.metrics.panics.inc();
        }
        if let Some(fate) = self.token {
            self.metrics.hold_tokens.with_label_values(&[fate.name()]).inc();
        }
        match (&self.row, self.answered) {
            (_, Some((_, _, Some(refusal)))) => self.metrics.refusal(refusal),
            (Some((row, _)), Some((by, _, None))) if !self.passed => {
                self.metrics.visit(*row, by, self.written, took);
            }
            (Some((row, _)), None) if !self.passed => {
                self.metrics.visit(*row, AnsweredBy::Nobody, false, took)
            }
            _ => {}
        }
    }

    fn log(&self, took: Duration) {
        let by = self.answered.map_or("nobody", |(by, _, _)| by.name());
        let status = self.answered.map_or(0, |(_, status, _)| status);
        let refused = self.answered.and_then(|(_, _, refusal)| refusal).map(Refusal::name);
        tracing::info!(
            target: "visit",
            row = self.row.as_ref().map(|(_, name)| name.as_str()),
            call = self.call.as_ref().map(CallSid::as_str),
            by,
            status,
            us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            attempts = (!self.attempts.is_empty()).then(|| self.attempts_text()),
            stopped = self.stopped.map(Stopped::name),
            hold = self.token.map(TokenFate::name),
            refused,
            reported = self.reported.map(|unproven| Refusal::Unproven(unproven).name()),
            passed = self.passed.then_some(true),
            panicked = self.panicked.then_some(true),
            unwritten = (!self.written).then_some(true),
        );
    }

    fn attempts_text(&self) -> String {
        let mut text = String::new();
        for note in &self.attempts {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(note.upstream.name());
            text.push(':');
            text.push_str(note.outcome);
            if let Some(judged) = note.judged {
                text.push('/');
                text.push_str(judged);
            }
            text.push_str(&format!(":{}us", note.took.as_micros()));
        }
        text
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.clock.now().since(self.started);
        self.count(took);
        self.log(took);
    }
}
