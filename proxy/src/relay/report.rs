//! What becomes of a report: it goes straight through to an upstream that serves, or it is kept.
//!
//! It is acknowledged when an upstream has taken it or when it is on disk, and never otherwise. Where it
//! can be neither, Twilio is told so; it may come again.

use std::sync::Arc;
use std::time::Duration;

use holdline_policy::backoff::jittered;
use holdline_policy::redelivery::{Fate, Tried, is_taken_for_a_stranger};
use holdline_policy::{Course, Deadline, Outcome, Stopped, Upstream};
use holdline_twilio::ConferenceSid;

use super::ask::Asked;
use super::attempt::Race;
use super::judge::judge_receipt;
use super::{Question, Relay};
use crate::answer::Answer;
use crate::record::Record;
use crate::spool::{Condition, Delivery, Kind, NotKept, State, unix_ms};

/// How long a report may take to be on disk. What is slower is no disk to rely on.
const COMMIT: Duration = Duration::from_secs(2);

// === impl Relay ===

impl Relay {
    /// Hands a report on, or keeps it.
    pub(super) async fn deliver(
        self: &Arc<Self>,
        question: &mut Question<'_>,
        record: &mut Record,
    ) -> Answer {
        let place = self.spool.next_place();
        // Held until the report was taken or is on disk: nothing of its call overtakes it.
        let turn = self.spool.line_up(order_of(question));
        let whole = question.deadline;
        let mut tried = None;
        if turn.is_first && !question.visit.arrival.shed && self.spool.allows_straight() {
            let confirm_within = self.spool.config().confirm_within;
            let budget = confirm_within.min(question.row.budget.saturating_sub(COMMIT));
            question.deadline =
                Deadline::new(whole.start(), budget + holdline_policy::deadline::RESERVE);
            match self.hand_on(question, record, Course::new).await {
                Ok(upstream) => return Answer::Receipt(upstream),
                // An attempt that goes on when the time is over is one.
                Err(Stopped::NoTime) => tried = Some(Outcome::TimedOut),
                Err(_) => tried = question.last_outcome,
            }
            question.deadline = whole;
        }
        let delivery = self.delivery(question, place, tried);
        let left = whole.last_moment().since(self.clock.now());
        // A large spool is being read through at the start; that ends.
        let opening = self.spool.condition() == Condition::Opening;
        let patience = if opening { left / 4 * 3 } else { COMMIT.min(left / 2) };
        let state = delivery.state;
        match self.spool.keep(delivery, patience).await {
            Ok(()) => {
                if let State::Dead(Some(death)) = state {
                    let delivery = &question.outgoing.delivery;
                    self.spool.note_dead(&question.row.name, delivery, death, tried);
                }
                Answer::Kept
            }
            Err(why) => self.at_any_price(question, why, record).await,
        }
    }

    /// Hands on what cannot be kept, even to an upstream that is left alone.
    async fn at_any_price(
        self: &Arc<Self>,
        question: &mut Question<'_>,
        why: NotKept,
        record: &mut Record,
    ) -> Answer {
        let row = &question.row.name;
        // What would be lost takes part in no exercise.
        let drill = record.drill.take();
        let handed_on = self.hand_on(question, record, Course::at_any_price).await;
        record.drill = drill;
        match handed_on {
            Ok(upstream) => {
                self.metrics.spool.passed_through.inc();
                tracing::warn!(row, %why, "a callback was handed on because it could not be kept");
                Answer::Receipt(upstream)
            }
            Err(stopped) => {
                record.stopped = Some(stopped);
                self.metrics.callback_lost.inc();
                tracing::error!(row, %why, "a callback was neither kept nor taken; Twilio is told so");
                Answer::CallbackLost
            }
        }
    }

    /// Asks upstreams to take a report.
    async fn hand_on(
        self: &Arc<Self>,
        question: &mut Question<'_>,
        record: &mut Record,
        course: super::ask::Plan,
    ) -> Result<Upstream, Stopped> {
        let mut race = Race::new();
        let asked = self.ask(question, &mut race, record, judge_receipt, course).await;
        self.leave(race);
        match asked {
            Asked::Good(upstream, ()) => {
                self.spool.note_taken();
                Ok(upstream)
            }
            Asked::Stopped(stopped) => Err(stopped),
            // A report is nobody's to hold.
            Asked::Overdue => Err(Stopped::Overdue),
        }
    }

    /// The report as it is kept. What the origin has just refused for good is a dead letter.
    fn delivery(&self, question: &Question<'_>, place: i64, tried: Option<Outcome>) -> Delivery {
        let visit = &question.visit;
        let outgoing = &question.outgoing;
        let patience = self.spool.config().patience;
        let fate = tried.map(|outcome| {
            self.note_try(outcome, &question.row.name);
            let (setbacks, age) = (0, Duration::ZERO);
            Tried { outcome, others_were_taken: false, setbacks, age }.fate(&patience)
        });
        let (state, wait) = match fate {
            Some(Fate::Dead(death)) => (State::Dead(Some(death)), Duration::ZERO),
            Some(_) => {
                let wait = jittered(patience.backoff.wait(0), 0.5, fastrand::f64());
                (State::Waiting, wait)
            }
            None => (State::Waiting, Duration::ZERO),
        };
        Delivery {
            place,
            kind: Kind::Callback,
            id: outgoing.delivery.clone(),
            order: order_of(question).to_owned(),
            row: question.row.name.clone(),
            account: visit.account.map(|account| account.to_string()),
            call: visit.call.map(|call| call.to_string()),
            method: outgoing.method.to_string(),
            target: outgoing.target.clone(),
            fields: outgoing.fields.clone(),
            body: outgoing.body.clone(),
            signature: outgoing.evidence.as_ref().map(|value| value.as_bytes().to_vec()),
            client: outgoing.client,
            state,
            due_ms: unix_ms() + i64::try_from(wait.as_millis()).unwrap_or(0),
            tries: u32::from(tried.is_some()),
            setbacks: 0,
            last_outcome: tried.map(|outcome| outcome.name().to_owned()),
            tried_ms: tried.map(|_| unix_ms()),
            revived_ms: None,
        }
    }

    /// Counts a try, and raises the alarm where the application takes us for somebody else.
    pub(crate) fn note_try(&self, outcome: Outcome, row: &str) {
        self.metrics.spool.tries.with_label_values(&[outcome.name()]).inc();
        if is_taken_for_a_stranger(outcome) {
            self.metrics.spool.strangers.inc();
            tracing::error!(
                row,
                "the application does not believe who sent a callback (401 or 403): \
                 compare its auth token and public URL with ours; the callback is kept"
            );
        }
    }
}

/// What is delivered one after the other with this report.
fn order_of<'q>(question: &'q Question<'_>) -> &'q str {
    if let Some(call) = &question.visit.call {
        return call.as_str();
    }
    let conference = question.visit.form.get("ConferenceSid");
    conference
        .filter(|text| text.parse::<ConferenceSid>().is_ok())
        .unwrap_or(&question.outgoing.delivery)
}
