//! One attempt as a thing of its own, and several of them at once.
//!
//! An attempt owns all it needs, so that it can outlive the visit it was made for: an answer that
//! comes after the caller was put on hold is given when they return, and an upstream that was left
//! behind still shows whether it is slow or dead.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use holdline_policy::{Ended, Moment, Outcome, Phase, Sent, Upstream};
use holdline_twilio::signature::Content;
use holdline_twilio::{AccountSid, Form};
use http::HeaderValue;

use super::exchange::{Outgoing, ended};
use super::judge::Judge;
use super::{HOLD_AFTER, Relay};
use crate::orders::Drill;
use crate::record::AttemptNote;
use crate::upstream::http1::Reply;
use crate::watchman::RowWatch;

/// The longest any attempt runs.
pub(super) const LONGEST: Duration = Duration::from_secs(45);

/// How an attempt stands to the trial of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// There is no trial.
    Free,
    /// It is the visit that tries the upstream, if no other is.
    OneAtATime,
    /// It is the visit that tries the row, which fails alone, if no other is.
    TryingTheRow,
    /// There is a trial, and nobody else is left.
    BesideTheTrial,
}

// === impl Slot ===

impl Slot {
    /// Whether there is one of them at a time.
    pub(super) fn is_one_at_a_time(self) -> bool {
        matches!(self, Slot::OneAtATime | Slot::TryingTheRow)
    }
}

/// What an attempt is to do.
pub(super) struct Errand<T> {
    pub(super) upstream: Upstream,
    pub(super) slot: Slot,
    pub(super) begun: Moment,
    /// For how long it may run at most. A trial is settled within its visit's time.
    pub(super) limit: Duration,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) signature: Option<HeaderValue>,
    /// Tells calls apart for the verdict.
    pub(super) call: u64,
    /// The row whose times are learned from.
    pub(super) row: Option<usize>,
    /// The row as it is watched.
    pub(super) watched: Arc<RowWatch>,
    /// The drill it takes part in.
    pub(super) drill: Option<Arc<Drill>>,
    /// Whether a status that is no success speaks against the upstream. It does not where it was refused
    /// before: then the request is to blame as much.
    pub(super) status_counts: bool,
    pub(super) judge: Judge<T>,
    /// The account whose key signs what is sent after a redirect.
    pub(super) account: Option<AccountSid>,
}

/// An attempt that is over.
pub(super) struct Done<T> {
    pub(super) slot: Slot,
    pub(super) note: AttemptNote,
    pub(super) result: Result<T, Ended>,
}

/// The attempts of one visit that are under way: none, one, or one at each upstream.
pub(super) struct Race<T> {
    running: [Option<BoxFuture<'static, Done<T>>>; Upstream::COUNT],
    /// Whether what runs there is not made at all, because a drill lets it fail.
    drilled: [bool; Upstream::COUNT],
}

// === impl Errand ===

impl<T: Send + 'static> Errand<T> {
    /// Runs the errand.
    async fn run(self, relay: Arc<Relay>) -> Done<T> {
        if let Some(drill) = &self.drill {
            return self.fail_on_purpose(drill, &relay).await;
        }
        let Errand { upstream, slot, .. } = self;
        let target = &relay.targets[upstream.index()];
        let begun = self.begun;
        let done = |outcome: Outcome, judged, result| {
            let took = relay.clock.now().since(begun);
            if let Some(row) = self.row
                && outcome == Outcome::Good
                && upstream == Upstream::Origin
            {
                relay.latencies[row].note(took);
            }
            relay.metrics.attempt(upstream, outcome.name(), took);
            if let Some(reason) = judged {
                relay.metrics.judgement_refusals.with_label_values(&[reason]).inc();
            }
            let note = AttemptNote { upstream, outcome: outcome.name(), took, judged };
            Done { slot, note, result }
        };
        let stuck = || relay.watch.phases()[upstream.index()] == Phase::Stuck;
        let trial = match slot {
            Slot::OneAtATime => Some(target.on_trial()),
            Slot::TryingTheRow => Some(self.watched.on_trial(upstream)),
            Slot::Free | Slot::BesideTheTrial => None,
        };
        let Some(_permit) = target.permit(trial, stuck) else {
            let ended = Ended { outcome: Outcome::Full, sent: Sent::Nothing };
            return done(Outcome::Full, None, Err(ended));
        };
        let mut watched = relay.watch.attempt(upstream, &self.watched, self.call, begun);
        let sent = AtomicBool::new(false);
        let (signature, fresh) = (self.signature.as_ref(), slot != Slot::Free);
        let asking = async {
            let reply = self.outgoing.ask(target, signature, fresh, relay.clock, &sent).await?;
            if (300..400).contains(&reply.status) && reply.location.is_some() {
                return Box::pin(self.follow(reply, &relay, fresh, &sent)).await;
            }
            Ok(reply)
        };
        let since = || relay.clock.now().since(begun);
        let exchanged = match bounded(since, self.limit, asking, || watched.turned_slow()).await {
            Some(exchanged) => exchanged,
            None => Err(ended(Outcome::TimedOut, &sent)),
        };
        let mut judged = None;
        let result = exchanged.and_then(|reply| {
            (self.judge)(reply, &relay.metrics).map_err(|unfit| {
                judged = unfit.judged;
                Ended { outcome: unfit.outcome, sent: Sent::Something }
            })
        });
        let outcome = result.as_ref().map_or_else(|ended| ended.outcome, |_| Outcome::Good);
        if outcome == Outcome::Good {
            target.ended_well(relay.clock.now());
        }
        if self.status_counts || !matches!(outcome, Outcome::Status(_)) {
            watched.ended(outcome);
        } else {
            watched.says_nothing();
        }
        done(outcome, judged, result)
    }
}

impl<T> Errand<T> {
    /// Comes to what the drill orders. Nobody is asked, and nothing is learned from it.
    async fn fail_on_purpose(&self, drill: &Drill, relay: &Relay) -> Done<T> {
        relay.metrics.drill_attempts.with_label_values(&[drill.mode().name()]).inc();
        let ended = match drill.mode().ended() {
            Some(ended) => ended,
            None => {
                let since = || relay.clock.now().since(self.begun);
                let hanging = bounded(since, self.limit, drill.over(), || {}).await;
                let outcome = if hanging.is_some() { Outcome::Broken } else { Outcome::TimedOut };
                Ended { outcome, sent: Sent::Something }
            }
        };
        let note = AttemptNote {
            upstream: self.upstream,
            outcome: ended.outcome.name(),
            took: relay.clock.now().since(self.begun),
            judged: Some("drill"),
        };
        Done { slot: self.slot, note, result: Err(ended) }
    }
}

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 3;

impl<T> Errand<T> {
    /// Follows a redirect to the same upstream. Twilio would follow it too, and lose what was keyed on
    /// the way.
    async fn follow(
        &self,
        mut reply: Reply,
        relay: &Relay,
        fresh: bool,
        sent: &AtomicBool,
    ) -> Result<Reply, Ended> {
        let target = &relay.targets[self.upstream.index()];
        let base = &target.config.public_url;
        let mut outgoing = Outgoing::clone(&self.outgoing);
        for _ in 0..MOST_REDIRECTS {
            let Some(next) = outgoing.redirected(&reply, &target.config) else { break };
            outgoing = next;
            let signature = relay.keys.signer(self.account).and_then(|key| {
                let form = Form::parse(&outgoing.body).unwrap_or_default();
                let content =
                    if outgoing.body.is_empty() { Content::Empty } else { Content::Form(&form) };
                let text = key.sign(base.signed(), &outgoing.target, content);
                HeaderValue::try_from(text).ok()
            });
            reply = outgoing.ask(target, signature.as_ref(), fresh, relay.clock, sent).await?;
            if !(300..400).contains(&reply.status) {
                break;
            }
        }
        Ok(reply)
    }
}

/// Bounds something by a time, and says when it has gone on for longer than an answer should take.
/// None if it takes too long. There is no timer here: whoever waits for an attempt has one, and looks
/// at it when that goes off.
async fn bounded<T>(
    since: impl Fn() -> Duration,
    limit: Duration,
    asking: impl Future<Output = T>,
    turned_slow: impl FnOnce(),
) -> Option<T> {
    let mut asking = std::pin::pin!(asking);
    let mut turned_slow = Some(turned_slow);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = asking.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        let took = since();
        if took >= HOLD_AFTER
            && let Some(turned_slow) = turned_slow.take()
        {
            turned_slow();
        }
        if took >= limit { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

// === impl Race ===

impl<T: Send + 'static> Race<T> {
    pub(super) fn new() -> Race<T> {
        Race { running: [const { None }; Upstream::COUNT], drilled: [false; Upstream::COUNT] }
    }

    /// Begins an attempt.
    pub(super) fn begin(&mut self, relay: &Arc<Relay>, errand: Errand<T>) {
        let place = errand.upstream.index();
        self.drilled[place] = errand.drill.is_some();
        self.running[place] = Some(Box::pin(errand.run(relay.clone())));
    }

    /// What is really under way, and where.
    pub(super) fn into_attempts(
        self,
    ) -> impl Iterator<Item = (Upstream, BoxFuture<'static, Done<T>>)> {
        let drilled = self.drilled;
        let running = Upstream::ALL.into_iter().zip(self.running);
        let running = running.filter(move |(upstream, _)| !drilled[upstream.index()]);
        running.filter_map(|(upstream, attempt)| Some((upstream, attempt?)))
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.running.iter().all(Option::is_none)
    }

    /// The next attempt to be over; none if none is under way. Nothing is lost when this is dropped
    /// before.
    pub(super) async fn next(&mut self) -> Option<Done<T>> {
        std::future::poll_fn(|cx| {
            let mut under_way = false;
            for place in &mut self.running {
                if let Some(attempt) = place {
                    if let Poll::Ready(done) = Pin::new(attempt).poll(cx) {
                        *place = None;
                        return Poll::Ready(Some(done));
                    }
                    under_way = true;
                }
            }
            if under_way { Poll::Pending } else { Poll::Ready(None) }
        })
        .await
    }
}
