//! The sole owner of the verdicts.
//!
//! Observations come in through a channel, in the order in which they were made; every step is the
//! policy's. What is believed is published as one value that relay, prober and status page all read,
//! so that what the page says is what the relay does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use holdline_policy::{
    Change, Grade, Moment, Observation, Outcome, Phase, Thresholds, Upstream, Verdict,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::relay;
use crate::telemetry::Metrics;

/// Observations that may wait. At 600 visits a second this is several seconds of them.
const QUEUE: usize = 8192;
/// How often time itself is an observation.
const TICK: Duration = Duration::from_millis(100);

/// What is believed of both upstreams.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Health {
    verdicts: [Verdict; 2],
    last_changes: [Option<(Moment, Change)>; 2],
}

/// What both sides share: what is believed, and good attempts at upstreams that are well anyway. Those
/// are nearly all there are, and they change nothing; they are only counted, and taken in together
/// before the next observation that might, which carries their number, so that the order is kept.
#[derive(Debug)]
struct Shared {
    health: ArcSwap<Health>,
    thresholds: ArcSwap<Thresholds>,
    good: [AtomicU32; 2],
    changed: [Notify; 2],
}

/// An observation on its way, and how many good attempts came before it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    upstream: Upstream,
    good_before: u32,
    observation: Observation,
    at: Moment,
}

/// Reads what is believed and reports what is seen.
#[derive(Debug, Clone)]
pub struct Watch {
    shared: Arc<Shared>,
    observations: mpsc::Sender<Seen>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// The task that owns the verdicts.
#[derive(Debug)]
pub struct Watchman {
    shared: Arc<Shared>,
    observations: mpsc::Receiver<Seen>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// One live attempt under observation. One that is broken off before it ended says nothing.
#[derive(Debug)]
pub struct WatchedAttempt<'w> {
    watch: &'w Watch,
    upstream: Upstream,
    call: u64,
    begun: Moment,
    slow: bool,
}

/// A watchman and the handle to it. Nothing is believed to be wrong at the start.
pub fn appoint(thresholds: Thresholds, metrics: Arc<Metrics>, clock: Clock) -> (Watchman, Watch) {
    let verdicts = [Verdict::new(clock.now()); 2];
    let health = ArcSwap::from_pointee(Health { verdicts, last_changes: [None; 2] });
    let shared = Arc::new(Shared {
        health,
        thresholds: ArcSwap::from_pointee(thresholds),
        good: [AtomicU32::new(0), AtomicU32::new(0)],
        changed: [Notify::new(), Notify::new()],
    });
    let (sender, receiver) = mpsc::channel(QUEUE);
    for upstream in Upstream::ALL {
        metrics.verdict(upstream, verdicts[upstream.index()].phase());
    }
    let watch =
        Watch { shared: shared.clone(), observations: sender, metrics: metrics.clone(), clock };
    (Watchman { shared, observations: receiver, metrics, clock }, watch)
}

// === impl Health ===

impl Health {
    /// What is believed of one upstream.
    pub fn of(&self, upstream: Upstream) -> &Verdict {
        &self.verdicts[upstream.index()]
    }

    /// When and why that last changed.
    pub fn last_change(&self, upstream: Upstream) -> Option<(Moment, Change)> {
        self.last_changes[upstream.index()]
    }
}

// === impl Shared ===

impl Shared {
    fn take_good(&self, upstream: Upstream) -> u32 {
        self.good[upstream.index()].swap(0, Ordering::Relaxed)
    }
}

// === impl Watch ===

impl Watch {
    /// What is believed now.
    pub fn health(&self) -> Health {
        **self.shared.health.load()
    }

    /// What is believed now, in short: one phase an upstream.
    pub fn phases(&self) -> [Phase; 2] {
        let health = self.shared.health.load();
        Upstream::ALL.map(|upstream| health.of(upstream).phase())
    }

    /// Reports an observation. Never waits: when the watchman cannot keep up, the newest are lost
    /// and counted, because those queued say the same.
    pub fn observe(&self, upstream: Upstream, seen: Observation) {
        let good = matches!(seen, Observation::Live { grade: Grade::Good, was_slow: false, .. });
        if good && self.shared.health.load().of(upstream).phase() == Phase::Well {
            self.shared.good[upstream.index()].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let good_before = self.shared.take_good(upstream);
        let seen = Seen { upstream, good_before, observation: seen, at: self.clock.now() };
        if self.observations.try_send(seen).is_err() {
            self.metrics.observations_lost.inc();
        }
    }

    /// Goes on with what another process believed. Before the watchman runs.
    pub fn inherit(&self, mut health: Health) {
        for upstream in Upstream::ALL {
            let verdict = &mut health.verdicts[upstream.index()];
            *verdict = verdict.inherited(self.clock.now());
            self.metrics.verdict(upstream, verdict.phase());
        }
        self.shared.health.store(Arc::new(health));
    }

    /// Judges by these thresholds from now on.
    pub fn judge_by(&self, thresholds: Thresholds) {
        self.shared.thresholds.store(Arc::new(thresholds));
    }

    /// Waits until the verdict of an upstream changes.
    pub async fn changed(&self, upstream: Upstream) {
        self.shared.changed[upstream.index()].notified().await;
    }

    /// Begins to observe an attempt.
    pub fn attempt(&self, upstream: Upstream, call: u64, begun: Moment) -> WatchedAttempt<'_> {
        WatchedAttempt { watch: self, upstream, call, begun, slow: false }
    }
}

// === impl WatchedAttempt ===

impl WatchedAttempt<'_> {
    /// The attempt has taken longer than an answer should, and goes on.
    pub fn turned_slow(&mut self) {
        self.slow = true;
        self.watch
            .observe(self.upstream, Observation::Slow { call: self.call, started: self.begun });
    }

    /// The attempt is over, and says nothing of the upstream.
    pub fn says_nothing(self) {
        if self.slow {
            self.watch.observe(self.upstream, Observation::Dropped { started: self.begun });
        }
    }

    /// The attempt is over.
    pub fn ended(self, outcome: Outcome) {
        if let Some(seen) = relay::observation(outcome, self.call, self.begun, self.slow) {
            self.watch.observe(self.upstream, seen);
        }
    }
}

// === impl Watchman ===

impl Watchman {
    /// Watches until every handle is gone.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                // Time passes only behind everything that was seen before.
                biased;
                seen = self.observations.recv() => match seen {
                    Some(seen) => self.step(seen),
                    None => return,
                },
                _ = tick.tick() => {
                    let at = self.clock.now();
                    for upstream in Upstream::ALL {
                        let good_before = self.shared.take_good(upstream);
                        self.step(Seen { upstream, good_before, observation: Observation::Tick, at });
                    }
                }
            }
        }
    }

    fn step(&self, Seen { upstream, good_before, observation, at }: Seen) {
        let good = Observation::Live { grade: Grade::Good, call: 0, started: at, was_slow: false };
        let before = **self.shared.health.load();
        let thresholds = self.shared.thresholds.load();
        let mut health = before;
        let goods = std::iter::repeat_n(good, good_before as usize);
        for observation in goods.chain(std::iter::once(observation)) {
            let verdict = &mut health.verdicts[upstream.index()];
            let (next, change) = verdict.step(observation, at, &thresholds);
            *verdict = next;
            if let Some(change) = change {
                health.last_changes[upstream.index()] = Some((at, change));
                self.announce(upstream, change);
            }
        }
        if health.of(upstream) != before.of(upstream) {
            self.shared.health.store(Arc::new(health));
        }
        if health.of(upstream).phase() != before.of(upstream).phase() {
            self.shared.changed[upstream.index()].notify_waiters();
        }
    }

    fn announce(&self, upstream: Upstream, change: Change) {
        let (from, to, reason) = (change.from.name(), change.to.name(), change.reason.to_string());
        self.metrics.verdict(upstream, change.to);
        self.metrics.verdict_changes.with_label_values(&[upstream.name(), to]).inc();
        let upstream = upstream.name();
        match change.to {
            Phase::Down { .. } | Phase::Stuck => {
                tracing::error!(target: "health", upstream, from, to, reason, "verdict changed")
            }
            Phase::Doubtful => {
                tracing::warn!(target: "health", upstream, from, to, reason, "verdict changed")
            }
            _ => tracing::info!(target: "health", upstream, from, to, reason, "verdict changed"),
        }
    }
}
