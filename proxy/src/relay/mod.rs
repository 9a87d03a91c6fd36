//! From a proven visit to an answer: whom to ask, what to make of what comes back, and what to say
//! when nothing does.
//!
//! The decisions are the policy's ([`holdline_policy::Course`]); this module carries them out. Every way through it
//! ends in an [`Answer`], and none of them takes longer than the visit's deadline allows.

mod ask;
mod attempt;
pub mod delivery;
pub mod exchange;
mod going_on;
pub mod hold;
mod judge;
pub mod late;
pub mod mend;
pub mod notice;
mod redeliver;
mod report;
pub mod twice;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdline_policy::backoff::Backoff;
use holdline_policy::hedge::Latency;
use holdline_policy::{
    Access, Budget, Catalogue, Course, Deadline, Ended, Kind, Outcome, Party, Replay, Row, Stance,
    Stopped, Upstream,
};
use holdline_twilio::{Keyring, PublicUrl};
use http::HeaderValue;

use crate::answer::{Answer, AnsweredBy, CannedSet};
use crate::clock::{self, Clock};
use crate::ingress::Visit;
use crate::orders::Orders;
use crate::proof::Proven;
use crate::record::Record;
use crate::spool::Spool;
use crate::telemetry::{Metrics, RowCounts};
use crate::upstream::Target;
use crate::upstream::http1::push_field;
use crate::watchman::{RowWatch, Watch};
use ask::Asked;
use attempt::Race;
use exchange::Outgoing;
use hold::{HoldKeys, Token, TokenFate};
use judge::{Judged, judge_document};
use late::LateAnswers;
use twice::{Earlier, First, Place, Recent};

/// When an attempt counts as slow.
pub const HOLD_AFTER: Duration = Duration::from_millis(2500);
/// How long one that was asked alongside has to answer before the caller is held after all.
const HEAD_START: Duration = Duration::from_millis(200);
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
    pub targets: [Arc<Target>; 2],
    /// What is believed of them, and where observations go.
    pub watch: Watch,
    /// The rows of the catalogue as they are watched.
    pub row_watches: Vec<Arc<RowWatch>>,
    /// What belongs to no row, as it is watched.
    pub no_row: Arc<RowWatch>,
    /// What the operator orders.
    pub orders: Arc<Orders>,
    /// Keys that sign.
    pub keys: Keyring,
    /// Keys of hold tokens.
    pub hold_keys: HoldKeys,
    /// The URL Twilio was given.
    pub public_url: PublicUrl,
    /// What came after callers were put on hold.
    pub late: Arc<LateAnswers>,
    /// What was asked a short time ago.
    pub recent: Arc<Recent>,
    /// What only brings news, and waits.
    pub spool: Arc<Spool>,
    /// How long each row's good answers take.
    pub latencies: Vec<Arc<Latency>>,
    /// How many more visits may ask two upstreams at once.
    pub hedges: Arc<Budget>,
    /// How many more may turn to one that is down after another has failed.
    pub retries: Arc<Budget>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What visits to each row count.
    pub row_counts: RowCounts,
    /// The time.
    pub clock: Clock,
}

/// A visit as it is asked, after a hold token was taken from it.
struct Question<'r> {
    row: &'r Row,
    visit: Visit,
    outgoing: Arc<Outgoing>,
    deadline: Deadline,
    held: Option<Token>,
    since_ms: u64,
    may_have_run: bool,
    /// What the last attempt that failed came to.
    last_outcome: Option<Outcome>,
}

// === impl Question ===

impl Question<'_> {
    /// How long the next hold pauses; none if the caller may not be held, or not any longer.
    fn pause(&self) -> Option<Duration> {
        let limit = self.row.hold.filter(|_| self.visit.call.is_some())?;
        let pause = PAUSES.wait(self.held.as_ref().map_or(0, |token| token.holds));
        let held = Duration::from_millis(clock::unix_ms().saturating_sub(self.since_ms));
        (held + pause + RETURN_TRIP <= limit).then_some(pause)
    }

    fn is_with_callee(&self) -> bool {
        self.row.parties.contains(&Party::Callee)
    }

    /// Notes an attempt that failed.
    fn note(&mut self, ended: Ended) {
        self.may_have_run |= ended.may_have_run(self.row.replay);
        self.last_outcome = Some(ended.outcome);
    }
}

// === impl Relay ===

impl Relay {
    /// Answers a visit.
    pub async fn answer(self: &Arc<Self>, visit: Proven<Visit>, record: &mut Record) -> Answer {
        let mut question = self.question(visit.into_inner(), record);
        record.drill = self.orders.drill(question.row, || question.visit.call.map(ask::call_key));
        if let Some(answer) = self.after_an_error(&mut question) {
            self.tell(&question, &answer);
            return answer;
        }
        let first = match self.first_of_its_kind(&question).await {
            Ok(first) => first,
            Err(answer) => return answer,
        };
        let answer = match question.row.kind {
            Kind::Asynchronous => self.deliver(&mut question, record).await,
            Kind::Synchronous | Kind::Media => self.steer(&mut question, record).await,
        };
        if !record.origin_was_asked && self.would_ask_the_origin(&question) {
            // What it would have said nobody knows.
            self.row_watches[question.visit.row].count_unasked();
        }
        self.tell(&question, &answer);
        // Who is told that a report was not taken may come again, and is not told the same from memory.
        if let Some(first) = first.filter(|_| !matches!(answer, Answer::CallbackLost)) {
            first.answered(&answer);
        }
        answer
    }

    /// Whether the origin is the first to be asked by such a visit, were it believed in and not barred. A
    /// report that only waits for its turn is seen when it is delivered.
    fn would_ask_the_origin(&self, question: &Question<'_>) -> bool {
        let comes_first = question.row.chain.first() == Some(&Upstream::Origin);
        comes_first
            && match question.row.kind {
                Kind::Asynchronous => {
                    let standing = self.standing_of(question.visit.row);
                    standing.of(Upstream::Origin) != Access::Serving
                }
                Kind::Synchronous | Kind::Media => {
                    question.held.is_none()
                        && question.row.has_required_query(question.visit.arrival.query())
                }
            }
    }

    /// Whether nobody asks, or has asked, the same; otherwise the answer to both. By Twilio's token
    /// alone: without one every arrival is new.
    async fn first_of_its_kind(&self, question: &Question<'_>) -> Result<Option<First>, Answer> {
        let arrival = &question.visit.arrival;
        if arrival.idempotency_token.is_none() || question.held.is_some() {
            return Ok(None);
        }
        let outgoing = &question.outgoing;
        loop {
            let now = self.clock.now();
            let (call, delivery) = (question.visit.call, &outgoing.delivery);
            match self.recent.place(delivery, call, &outgoing.target, now) {
                Place::First(first) => return Ok(Some(first)),
                Place::Again(answer) => {
                    self.metrics.repeats.with_label_values(&["again"]).inc();
                    return Err(answer);
                }
                Place::Second(second) => {
                    self.metrics.repeats.with_label_values(&["waited"]).inc();
                    let patience = question.deadline.last_moment().since(now);
                    match second.answer(patience).await {
                        Ok(Some(answer)) => return Err(answer),
                        // The first was broken off: this one takes its place.
                        Ok(None) => {}
                        Err(()) => {
                            let held = self.hold(question, true);
                            return Err(held.unwrap_or_else(|| self.final_answer(question.row)));
                        }
                    }
                }
            }
        }
    }

    /// A request to a fallback URL. Where Twilio could not have the answer, it is given the one there
    /// is, or the application is told what is known of the first request; where Twilio choked on an
    /// answer, it must not be given the same again.
    fn after_an_error(&self, question: &mut Question<'_>) -> Option<Answer> {
        let form = &question.visit.form;
        let (code, url) = (form.filled("ErrorCode")?, form.filled("ErrorUrl")?);
        if question.row.kind != Kind::Synchronous {
            return None;
        }
        let count = |what: &str| self.metrics.repeats.with_label_values(&[what]).inc();
        if matches!(code.parse(), Ok(12_000..14_000)) {
            count("fallback_refused");
            let row = &question.row.name;
            tracing::error!(row, code, "an answer was judged good, and refused by Twilio");
            return Some(self.final_answer(question.row));
        }
        let target = url.strip_prefix(self.public_url.as_twilio_signs()).unwrap_or(url);
        let known = match self.recent.earlier(question.visit.call, target, self.clock.now()) {
            Earlier::Answered(answer) => {
                count("fallback_answered");
                return Some(answer);
            }
            Earlier::Delivered => "delivered",
            Earlier::Unknown => "never-arrived",
        };
        count(if known == "delivered" { "fallback_delivered" } else { "fallback_unknown" });
        let outgoing = Arc::make_mut(&mut question.outgoing);
        push_field(&mut outgoing.fields, exchange::EARLIER, known.as_bytes());
        None
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

    async fn steer(self: &Arc<Self>, question: &mut Question<'_>, record: &mut Record) -> Answer {
        if !question.row.has_required_query(question.visit.arrival.query()) {
            tracing::warn!(
                row = question.row.name,
                "a required query parameter is missing; answered canned"
            );
            return self.final_answer(question.row);
        }
        let nobody_answers = self.orders.stance(&question.row.name) == Stance::Canned;
        if let Some(answer) = self.take_up(question, nobody_answers, record) {
            return answer;
        }
        if nobody_answers {
            // There is nothing to be held for.
            return self.final_answer(question.row);
        }
        let mut race = Race::new();
        let asked = self.ask(question, &mut race, record, judge_document, Course::new).await;
        match asked {
            Asked::Good(upstream, judged) => {
                self.leave(race);
                self.steered(upstream, judged)
            }
            Asked::Stopped(stopped) => self.hold_or_end(question, race, stopped, record),
            Asked::Overdue => self.hold_or_end(question, race, Stopped::Overdue, record),
        }
    }

    /// Holds the caller, while what is still being asked goes on; if they may not be held, this is the
    /// end.
    fn hold_or_end(
        self: &Arc<Self>,
        question: &Question<'_>,
        race: Race<Judged>,
        stopped: Stopped,
        record: &mut Record,
    ) -> Answer {
        record.stopped = Some(stopped);
        let running = !race.is_empty();
        match self.hold(question, running) {
            Some(answer) => {
                if running {
                    self.remember(question, race);
                }
                answer
            }
            None => {
                self.leave(race);
                self.final_answer(question.row)
            }
        }
    }

    fn steered(&self, upstream: Upstream, judged: Judged) -> Answer {
        let Judged { document, cookies, warnings } = judged;
        self.metrics.twiml_warnings.inc_by(warnings.into());
        Answer::Document { document, by: upstream.into(), cookies }
    }

    fn question(&self, mut visit: Visit, record: &mut Record) -> Question<'_> {
        let row = &self.catalogue.rows()[visit.row];
        let now_ms = clock::unix_ms();
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
            outgoing: Arc::new(outgoing),
            deadline: Deadline::new(visit.arrival.at, row.budget),
            since_ms: held.as_ref().map_or(now_ms, |token| token.since_ms),
            may_have_run: held.as_ref().is_some_and(|token| token.may_have_run),
            last_outcome: None,
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

    /// A hold document, if the row may hold and its time is not over. `running` says that an upstream
    /// is still being asked.
    fn hold(&self, question: &Question<'_>, running: bool) -> Option<Answer> {
        let pause = question.pause()?;
        let call = question.visit.call?;
        if !running && question.may_have_run && question.row.replay != Replay::Idempotent {
            // It could not be asked again; the return could only end the same way, later.
            return None;
        }
        let holds = question.held.as_ref().map_or(0, |token| token.holds);
        let token = Token {
            delivery: question.outgoing.delivery.clone(),
            row: question.row.name.clone(),
            call: call.to_string(),
            since_ms: question.since_ms,
            holds: holds + 1,
            may_have_run: question.may_have_run || running,
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
