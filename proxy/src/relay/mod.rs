//! From a proven visit to an answer: whom to ask, what to make of what comes back, and what to say
//! when nothing does.
//!
//! The decisions are the policy's ([`Course`]); this module carries them out. Every way through it
//! ends in an [`Answer`], and none of them takes longer than the visit's deadline allows.

pub mod delivery;
pub mod exchange;
pub mod hold;
mod judge;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdline_policy::backoff::Backoff;
use holdline_policy::{
    Access, Catalogue, Cause, Course, Deadline, Ended, Kind, Moment, Observation, Outcome, Phase,
    Replay, Row, Sent, Standing, Step, Stopped, Upstream,
};
use holdline_twilio::{CallSid, Keyring, PublicUrl};
use http::HeaderValue;
use pingora_timeout::fast_timeout::fast_timeout;

use crate::answer::{Answer, AnsweredBy, CannedSet};
use crate::clock::Clock;
use crate::ingress::Visit;
use crate::proof::Proven;
use crate::record::{AttemptNote, Record};
use crate::telemetry::Metrics;
use crate::upstream::Target;
use crate::upstream::http1::Reply;
use crate::watchman::Watch;
use exchange::Outgoing;
use hold::{HoldKeys, Token, TokenFate};
use judge::{Judged, Unfit, judge_document, judge_receipt};

/// When an attempt counts as slow.
pub const HOLD_AFTER: Duration = Duration::from_millis(2500);
/// The pauses of successive holds of one visit.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(8) };
/// Stands between the last pause and the end of a hold, for the return itself.
const RETURN_TRIP: Duration = Duration::from_secs(1);

/// Everything a relay needs.
pub struct Relay {
    /// The endpoints.
    pub catalogue: Catalogue,
    /// The canned documents.
    pub canned: CannedSet,
    /// Origin and monitor.
    pub targets: Arc<[Target; 2]>,
    /// What is believed of them, and where observations go.
    pub watch: Watch,
    /// Keys that sign.
    pub keys: Keyring,
    /// Keys of hold tokens.
    pub hold_keys: HoldKeys,
    /// The URL Twilio was given.
    pub public_url: PublicUrl,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// A visit as it is asked, after a hold token was taken from it.
struct Question<'r> {
    row: &'r Row,
    visit: Visit,
    outgoing: Outgoing,
    deadline: Deadline,
    held: Option<Token>,
    since_ms: u64,
    may_have_run: bool,
}

/// How an attempt stands to the trial of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// There is no trial.
    Free,
    /// It is the trial's visit, if no other is.
    OneAtATime,
    /// There is a trial, and nobody else is left.
    BesideTheTrial,
}

// === impl Relay ===

impl Relay {
    /// Answers a visit.
    pub async fn answer(&self, visit: Proven<Visit>, record: &mut Record) -> Answer {
        let mut question = self.question(visit.into_inner(), record);
        match question.row.kind {
            Kind::Asynchronous => self.deliver(&mut question, record).await,
            Kind::Synchronous | Kind::Media => self.steer(&mut question, record).await,
        }
    }

    /// The final canned answer of a row.
    pub fn final_answer(&self, row: &Row) -> Answer {
        let name = row.canned.as_deref().unwrap_or_default();
        match (self.canned.document(name), self.canned.audio(name)) {
            (Some(document), _) => Answer::canned(document.clone()),
            (None, Some(audio)) => Answer::Audio(audio.clone()),
            // Only an asynchronous row has no canned answer; the check of the catalogue saw to it.
            (None, None) => Answer::CallbackLost,
        }
    }

    async fn steer(&self, question: &mut Question<'_>, record: &mut Record) -> Answer {
        if !question.row.has_required_query(question.visit.arrival.query()) {
            tracing::warn!(
                row = question.row.name,
                "a required query parameter is missing; answered canned"
            );
            return self.final_answer(question.row);
        }
        let must_not_repeat = question.held.as_ref().is_some_and(|token| token.may_have_run)
            && question.row.replay != Replay::Idempotent;
        if must_not_repeat {
            record.stopped = Some(Stopped::MayHaveRun);
            return self.final_answer(question.row);
        }
        match self.ask(question, record, judge_document).await {
            Ok((upstream, Judged { document, cookies, warnings })) => {
                self.metrics.twiml_warnings.inc_by(warnings.into());
                Answer::Document { document, by: upstream.into(), cookies }
            }
            Err(stopped) => {
                record.stopped = Some(stopped);
                self.hold(question).unwrap_or_else(|| self.final_answer(question.row))
            }
        }
    }

    async fn deliver(&self, question: &mut Question<'_>, record: &mut Record) -> Answer {
        match self.ask(question, record, judge_receipt).await {
            Ok((upstream, ())) => Answer::Receipt(upstream),
            Err(stopped) => {
                record.stopped = Some(stopped);
                self.metrics.callback_lost.inc();
                tracing::error!(
                    row = question.row.name,
                    "a callback was lost: no upstream took it"
                );
                Answer::CallbackLost
            }
        }
    }

    /// Asks one upstream after the other, as the policy says.
    async fn ask<T>(
        &self,
        question: &mut Question<'_>,
        record: &mut Record,
        judge: fn(Reply) -> Result<T, Unfit>,
    ) -> Result<(Upstream, T), Stopped> {
        let phases = self.watch.phases();
        let mut course = Course::new(question.row, &standing(phases), question.deadline);
        let mut step = course.begin(self.clock.now());
        let mut skipped = None;
        loop {
            let (upstream, slice, slot) = match (step, skipped.take()) {
                (Step::Try { upstream, slice }, earlier) => {
                    skipped = earlier;
                    let on_trial = matches!(phases[upstream.index()], Phase::Trial { .. });
                    (upstream, slice, if on_trial { Slot::OneAtATime } else { Slot::Free })
                }
                // Better a second visit to an upstream on trial than nobody at all.
                (Step::Stop(Stopped::NobodyLeft), Some(upstream)) => {
                    match question.deadline.slice(self.clock.now(), 0) {
                        Some(slice) => (upstream, slice, Slot::BesideTheTrial),
                        None => return Err(Stopped::NoTime),
                    }
                }
                (Step::Stop(stopped), _) => return Err(stopped),
            };
            let ended = match self.attempt(upstream, slot, slice, question, record, judge).await {
                Ok(value) => return Ok((upstream, value)),
                Err(ended) => ended,
            };
            if ended.outcome == Outcome::Full && slot == Slot::OneAtATime {
                skipped = Some(upstream);
            }
            // Where "not run" may not be believed, it may have run.
            let not_run = matches!(ended.outcome, Outcome::NotRun(_))
                && question.row.replay != Replay::Unsent;
            question.may_have_run |= ended.sent == Sent::Something && !not_run;
            step = course.after(ended, self.clock.now());
        }
    }

    async fn attempt<T>(
        &self,
        upstream: Upstream,
        slot: Slot,
        slice: Duration,
        question: &Question<'_>,
        record: &mut Record,
        judge: fn(Reply) -> Result<T, Unfit>,
    ) -> Result<T, Ended> {
        let target = &self.targets[upstream.index()];
        let begun = self.clock.now();
        let Some(_permit) = target.permit(slot == Slot::OneAtATime) else {
            let note = AttemptNote {
                upstream,
                outcome: Outcome::Full.name(),
                took: Duration::ZERO,
                judged: None,
            };
            record.attempt(note);
            return Err(Ended { outcome: Outcome::Full, sent: Sent::Nothing });
        };
        let call = question.visit.call.map_or(0, call_key);
        let mut watched = self.watch.attempt(upstream, call, begun);
        let exchanged = self
            .exchange(target, question, slice, slot != Slot::Free, || watched.turned_slow())
            .await;
        let mut judged = None;
        let result = exchanged.and_then(|reply| {
            judge(reply).map_err(|unfit| {
                judged = unfit.judged;
                Ended { outcome: unfit.outcome, sent: Sent::Something }
            })
        });
        let outcome = result.as_ref().map_or_else(|ended| ended.outcome, |_| Outcome::Good);
        watched.ended(outcome);
        let took = self.clock.now().since(begun);
        record.attempt(AttemptNote { upstream, outcome: outcome.name(), took, judged });
        result
    }

    async fn exchange(
        &self,
        target: &Target,
        question: &Question<'_>,
        slice: Duration,
        fresh: bool,
        turned_slow: impl FnOnce(),
    ) -> Result<Reply, Ended> {
        let signature = self.signature(question, &target.config.public_url);
        let exchange = question.outgoing.ask(target, signature.as_ref(), fresh, self.clock);
        let mut exchange = std::pin::pin!(exchange);
        let timed_out = Ended { outcome: Outcome::TimedOut, sent: Sent::Something };
        if slice <= HOLD_AFTER {
            return fast_timeout(slice, exchange).await.unwrap_or(Err(timed_out));
        }
        match fast_timeout(HOLD_AFTER, &mut exchange).await {
            Ok(result) => result,
            Err(_) => {
                turned_slow();
                fast_timeout(slice - HOLD_AFTER, exchange).await.unwrap_or(Err(timed_out))
            }
        }
    }

    /// The signature of what is sent, over the URL under which this upstream checks it. Where that is
    /// the URL that Twilio signed, and nothing else changed either, Twilio's own is the same.
    fn signature(&self, question: &Question<'_>, base: &PublicUrl) -> Option<HeaderValue> {
        let visit = &question.visit;
        if visit.signature_is_current && *base == self.public_url {
            return visit.arrival.signature.clone();
        }
        let key = self.keys.signer(visit.account)?;
        let signature =
            key.sign(base.as_twilio_signs(), &question.outgoing.target, visit.content());
        HeaderValue::try_from(signature).ok()
    }

    fn question(&self, mut visit: Visit, record: &mut Record) -> Question<'_> {
        let row = &self.catalogue.rows()[visit.row];
        let now_ms = hold::unix_ms();
        let held = self.take_token(&mut visit, row, now_ms, record);
        if let Some(token) = &held {
            let merged = hold::merge(&visit.form, &token.carried);
            if visit.arrival.is_form {
                visit.arrival.body = Bytes::from(merged.encode());
            }
            visit.form = merged;
        }
        let arrival = &mut visit.arrival;
        let delivery = match &held {
            Some(token) => token.delivery.clone(),
            None => delivery::id(
                arrival.idempotency_token.as_ref().map(HeaderValue::as_bytes),
                self.public_url.as_twilio_signs(),
                &arrival.target,
                &arrival.body,
            ),
        };
        let outgoing = Outgoing {
            method: arrival.method.clone(),
            target: arrival.target.clone(),
            fields: std::mem::take(&mut arrival.fields),
            body: arrival.body.clone(),
            delivery,
            evidence: arrival.signature.clone(),
            client: arrival.client,
            proto: if self.public_url.is_https() { "https" } else { "http" },
            repeatable: row.replay == Replay::Idempotent,
        };
        Question {
            row,
            outgoing,
            deadline: Deadline::new(visit.arrival.at, row.budget),
            since_ms: held.as_ref().map_or(now_ms, |token| token.since_ms),
            may_have_run: held.as_ref().is_some_and(|token| token.may_have_run),
            held,
            visit,
        }
    }

    /// Takes a hold token off the target. Only one that is good in every respect is given back; with
    /// any other the request is a visit like any without.
    fn take_token(
        &self,
        visit: &mut Visit,
        row: &Row,
        now_ms: u64,
        record: &mut Record,
    ) -> Option<Token> {
        let (target, text) = hold::strip(&visit.arrival.target)?;
        let token = self.hold_keys.open(text);
        let fate = match &token {
            None => TokenFate::Forged,
            Some(token) => {
                token.fate(&row.name, visit.call, &visit.form, now_ms, row.hold.unwrap_or_default())
            }
        };
        record.token = Some(fate);
        visit.arrival.target = target;
        visit.signature_is_current = false;
        token.filter(|_| fate == TokenFate::Good)
    }

    /// A hold document, if the row may hold and its time is not over.
    fn hold(&self, question: &Question<'_>) -> Option<Answer> {
        let limit = question.row.hold?;
        let call = question.visit.call?;
        if question.may_have_run && question.row.replay != Replay::Idempotent {
            // It could not be asked again; the return could only end the same way, later.
            return None;
        }
        let holds = question.held.as_ref().map_or(0, |token| token.holds);
        let pause = PAUSES.wait(holds);
        let held = hold::unix_ms().saturating_sub(question.since_ms);
        if Duration::from_millis(held) + pause + RETURN_TRIP > limit {
            return None;
        }
        let token = Token {
            delivery: question.outgoing.delivery.clone(),
            row: question.row.name.clone(),
            call: call.to_string(),
            since_ms: question.since_ms,
            holds: holds + 1,
            may_have_run: question.may_have_run,
            carried: match &question.held {
                Some(token) => token.carried.clone(),
                None if question.visit.arrival.is_form => {
                    hold::not_sent_again(&question.visit.form)
                }
                None => Vec::new(),
            },
        };
        let sealed = self.hold_keys.seal(&token)?;
        let back = hold::with_token(&question.outgoing.target, &sealed);
        let template = self.canned.hold(holds == 0);
        let method = question.outgoing.method.as_str();
        let document = template.fill(pause.as_secs(), method, &back).ok()?;
        Some(Answer::Document { document, by: AnsweredBy::Hold, cookies: Vec::new() })
    }
}

fn standing(phases: [Phase; 2]) -> Standing {
    let [origin, monitor] = phases.map(|phase| match phase {
        Phase::Well | Phase::Doubtful | Phase::Trial { .. } => Access::Serving,
        Phase::Down { cause: Cause::Probes, .. } => Access::Suspected,
        Phase::Down { cause: Cause::Traffic, .. } => Access::Out,
    });
    Standing { origin, monitor }
}

/// Tells calls apart for the verdict.
fn call_key(call: CallSid) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    call.hash(&mut hasher);
    hasher.finish()
}

/// The grade of an outcome, for whoever feeds the verdict.
pub fn observation(
    outcome: Outcome,
    call: u64,
    started: Moment,
    was_slow: bool,
) -> Option<Observation> {
    match outcome.grade() {
        Some(grade) => Some(Observation::Live { grade, call, started, was_slow }),
        None if was_slow => Some(Observation::Dropped { started }),
        None => None,
    }
}
