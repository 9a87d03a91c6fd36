//! Asking: one upstream after the other, as the policy says, and two at once where one has taken longer
//! than it usually does.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use holdline_policy::{
    Access, Course, Deadline, Kind, Moment, Outcome, Phase, Row, Standing, Step, Stopped, Upstream,
};
use holdline_twilio::CallSid;
use http::HeaderValue;
use pingora_timeout::fast_timeout::fast_timeout;

use super::attempt::{Done, Errand, LONGEST, Race, Slot};
use super::judge::Judge;
use super::{HEAD_START, HOLD_AFTER, Question, Relay};
use crate::config::BaseUrl;
use crate::record::Record;

/// What asking came to.
pub(super) enum Asked<T> {
    /// A good answer.
    Good(Upstream, T),
    /// No answer, and nobody else to ask.
    Stopped(Stopped),
    /// No answer yet, and a caller who should hear something meanwhile.
    Overdue,
}

/// How the course of a visit is made.
pub(super) type Plan = fn(&Row, &Standing, Deadline) -> Course;

/// When somebody else is asked alongside.
struct Patience {
    /// When the upstream has taken longer than it usually does.
    hedge_at: Option<Moment>,
    /// When its share of the time is over.
    next_at: Option<Moment>,
}

// === impl Relay ===

impl Relay {
    /// Asks one upstream after the other, as the policy says, and two at once where one has taken
    /// longer than it usually does. What is still under way at the end is left in `race`.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: &mut Question<'_>,
        race: &mut Race<T>,
        record: &mut Record,
        judge: Judge<T>,
        plan: Plan,
    ) -> Asked<T> {
        let began = self.clock.now();
        let row = question.visit.row;
        let asked_before = record.origin_was_asked;
        let standing = self.standing_of(row);
        let mut course = plan(question.row, &standing, question.deadline);
        let drill = record.drill.clone().filter(|drill| !drill.is_over());
        let end = question.deadline.last_moment();
        let mut hold_at = question.pause().map(|_| began + HOLD_AFTER);
        self.hedges.earn();
        self.retries.earn();
        let mut slow_at = [None; Upstream::COUNT];
        let mut step = course.begin(began);
        let (mut skipped, mut tried) = (None, false);
        loop {
            let now = self.clock.now();
            let mut patience = Patience { hedge_at: None, next_at: None };
            let (errand, slice) = match (step, skipped) {
                (Step::Try { upstream, slice }, _) => {
                    let slot = match standing.of(upstream) {
                        Access::OnTrial | Access::Suspected => self.trial_slot(upstream),
                        _ => Slot::Free,
                    };
                    (Some((upstream, slot)), slice)
                }
                // Better a second visit to an upstream on trial than nobody at all.
                (Step::Stop(Stopped::NobodyLeft | Stopped::BudgetSpent), Some(upstream))
                    if race.is_empty() =>
                {
                    skipped = None;
                    match question.deadline.slice(now, 0) {
                        Some(slice) => (Some((upstream, Slot::BesideTheTrial)), slice),
                        None => return Asked::Stopped(Stopped::NoTime),
                    }
                }
                (Step::Stop(stopped), _) if race.is_empty() => return Asked::Stopped(stopped),
                (Step::Stop(_), _) => (None, Duration::ZERO),
            };
            if let Some((upstream, slot)) = errand {
                hold_at = hold_at.map(|at| at.max(now + HEAD_START));
                slow_at[upstream.index()] = Some(now + HOLD_AFTER);
                let drill = drill.clone().filter(|drill| drill.upstream() == upstream);
                let errand = self.errand(question, upstream, slot, slice, now, judge);
                record.origin_was_asked |= upstream == Upstream::Origin;
                race.begin(self, Errand { drill, ..errand });
                if course.may_ask_alongside() {
                    patience.next_at = Some(now + slice);
                    let after = match question.row.kind {
                        // None of these is any caller's to wait for.
                        _ if standing.of(upstream).is_tried() => Some(Duration::ZERO),
                        Kind::Synchronous => Some(self.latencies[row].hedge_after().min(slice)),
                        _ => None,
                    };
                    tried = standing.of(upstream).is_tried();
                    patience.hedge_at = after.map(|after| now + after);
                }
            }
            let mut now = now;
            let done = loop {
                let [slow_1, slow_2] = slow_at;
                let wake = [patience.hedge_at, patience.next_at, hold_at, slow_1, slow_2];
                let wake = wake.into_iter().flatten().min().unwrap_or(end).min(end);
                let left = wake.since(now);
                // The timer is coarse; what is due now is not made to wait for it.
                let done = match left {
                    Duration::ZERO => race.next().now_or_never(),
                    left => fast_timeout(left, race.next()).await.ok(),
                };
                if let Some(done) = done {
                    break done;
                }
                now = self.clock.now();
                if now >= end {
                    return Asked::Stopped(Stopped::NoTime);
                }
                // What turns slow says so when it is looked at.
                slow_at = slow_at.map(|at| at.filter(|at| *at > now));
                if patience.hedge_at.is_some_and(|at| at <= now) {
                    patience.hedge_at = None;
                    if tried || self.may_hedge(question) {
                        self.metrics.hedges.inc();
                        break None;
                    }
                }
                if patience.next_at.is_some_and(|at| at <= now) {
                    break None;
                }
                if hold_at.is_some_and(|at| at <= now) {
                    // Nobody is held while somebody else could still be asked, whatever that costs.
                    if patience.next_at.is_some() {
                        self.metrics.hedges.inc();
                        break None;
                    }
                    if question.pause().is_some() {
                        return Asked::Overdue;
                    }
                    hold_at = None;
                }
            };
            let now = self.clock.now();
            step = match done {
                None => course.another(now, &self.retries),
                Some(Done { slot, note, result }) => {
                    record.attempts.push(note);
                    match result {
                        Ok(value) => return Asked::Good(note.upstream, value),
                        Err(ended) => {
                            if ended.outcome == Outcome::Full && note.upstream == Upstream::Origin {
                                record.origin_was_asked = asked_before;
                            }
                            if ended.outcome == Outcome::Full && slot.is_one_at_a_time() {
                                skipped = Some(note.upstream);
                            }
                            question.note(ended);
                            course.after(ended, now, &self.retries)
                        }
                    }
                }
            };
        }
    }

    /// The access to each upstream at present for what belongs to no row.
    pub(crate) fn standing(&self) -> Standing {
        Standing::of_upstreams(self.watch.phases()).under(self.orders.stance(""))
    }

    /// The access that visits to a row have to each upstream at present.
    pub(crate) fn standing_of(&self, row: usize) -> Standing {
        let known = &self.catalogue.rows()[row];
        // Whom the operator bars serves nobody better.
        Standing::of_upstreams(self.watch.phases())
            .under(self.orders.stance(&known.name))
            .for_row(known, self.row_watches[row].access())
    }

    /// The slot of a visit that tries an upstream, or a row that fails alone there.
    fn trial_slot(&self, upstream: Upstream) -> Slot {
        let serves = matches!(self.watch.phases()[upstream.index()], Phase::Well | Phase::Doubtful);
        if serves { Slot::TryingTheRow } else { Slot::OneAtATime }
    }

    /// Whether another upstream may be asked alongside. While all are well that has a budget; one may
    /// have come into doubt since the visit began.
    fn may_hedge(&self, question: &Question<'_>) -> bool {
        let doubt = || self.watch.phases().iter().any(|phase| *phase != Phase::Well);
        question.is_with_callee() || doubt() || self.hedges.spend()
    }

    fn errand<T>(
        &self,
        question: &Question<'_>,
        upstream: Upstream,
        slot: Slot,
        slice: Duration,
        now: Moment,
        judge: Judge<T>,
    ) -> Errand<T> {
        Errand {
            upstream,
            slot,
            begun: now,
            limit: if slot == Slot::Free { LONGEST } else { slice },
            outgoing: question.outgoing.clone(),
            signature: self.signature(question, &self.targets[upstream.index()].config.public_url),
            call: question.visit.call.map_or(0, call_key),
            row: Some(question.visit.row),
            watched: self.row_watches[question.visit.row].clone(),
            drill: None,
            status_counts: true,
            judge,
            account: question.visit.account,
        }
    }

    /// The signature of what is sent, over the URL under which this upstream checks it. Where that is
    /// the URL that Twilio signed, and nothing else changed either, Twilio's own is the same.
    fn signature(&self, question: &Question<'_>, base: &BaseUrl) -> Option<HeaderValue> {
        let visit = &question.visit;
        if visit.signature_is_current && base.is(&self.public_url) {
            return visit.arrival.signature.clone();
        }
        let key = self.keys.signer(visit.account)?;
        let signature = key.sign(base.signed(), &question.outgoing.target, visit.content());
        HeaderValue::try_from(signature).ok()
    }
}

/// Tells calls apart for the verdict.
pub(crate) fn call_key(call: CallSid) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    call.hash(&mut hasher);
    hasher.finish()
}
