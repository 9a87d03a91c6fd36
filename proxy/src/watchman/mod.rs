//! The sole owner of the verdicts.
//!
//! Observations come in through a channel, in the order in which they were made; every step is the
//! policy's. What is believed is published as one value that relay, prober and status page all read,
//! so that what the page says is what the relay does. What was seen, and what was made of it, is
//! written to the journal.

mod attempt;
mod rows;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use holdline_policy::verdict::Attempt;
use holdline_policy::{
    Belief, Change, Grade, Moment, Observation, Phase, RowId, Subject, Thresholds, Upstream,
    Verdict,
};
use tokio::sync::{Notify, mpsc};

use crate::clock::{Clock, millis};
use crate::journal::{Journal, Name, Runs, What};
use crate::telemetry::Metrics;
pub use attempt::WatchedAttempt;
pub use rows::RowWatch;
use rows::Rows;
pub use watch::{Legacy, Watch};

/// Observations that may wait. At 600 visits a second this is several seconds of them.
const QUEUE: usize = 8192;
/// How often time itself is an observation.
const TICK: Duration = Duration::from_millis(100);

/// What is believed of both upstreams.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    beliefs: [Belief; Upstream::COUNT],
    last_changes: [Option<(Moment, Change)>; Upstream::COUNT],
}

/// What both sides share: what is believed, and good attempts at upstreams that are well anyway. Those
/// are nearly all there are, and they change nothing; they are only counted, and taken in together
/// before the next observation that might, which carries their number, so that the order is kept.
#[derive(Debug)]
struct Shared {
    health: ArcSwap<Health>,
    thresholds: ArcSwap<Thresholds>,
    /// What took longer is more than counted, in microseconds.
    slow_after: AtomicU64,
    rows: Rows,
    changed: [Notify; Upstream::COUNT],
    /// Whether the upstream has become another host, and the watchman does not know yet.
    replaced: [AtomicBool; Upstream::COUNT],
}

/// Something seen, and what it is called in the journal.
#[derive(Debug, Clone, Copy)]
struct Sight {
    seen: Observation,
    what: &'static str,
    took: Duration,
}

/// What is told the watchman of an upstream: something seen, and how many attempts at each row had ended
/// well before.
#[derive(Debug)]
struct Told {
    upstream: Upstream,
    good_before: Vec<(RowId, u32)>,
    sight: Sight,
    at: Moment,
}

/// The task that owns the verdicts.
#[derive(Debug)]
pub struct Watchman {
    shared: Arc<Shared>,
    told: mpsc::Receiver<Told>,
    metrics: Arc<Metrics>,
    journal: Journal,
    runs: Runs,
    /// The same of visits that the origin was not asked for.
    unasked: Runs,
    clock: Clock,
}

/// A watchman and the handle to it. Nothing is believed to be wrong at the start.
pub fn appoint(
    thresholds: Thresholds,
    metrics: Arc<Metrics>,
    journal: Journal,
    clock: Clock,
) -> (Watchman, Watch) {
    let beliefs = Upstream::ALL.map(|_| Belief::new(clock.now()));
    let shared = Arc::new(Shared {
        health: ArcSwap::from_pointee(Health { beliefs, last_changes: [None; 2] }),
        thresholds: ArcSwap::from_pointee(thresholds),
        slow_after: AtomicU64::default(),
        rows: Rows::new(),
        changed: [Notify::new(), Notify::new()],
        replaced: Default::default(),
    });
    let (sender, told) = mpsc::channel(QUEUE);
    let watch = Watch { shared: shared.clone(), told: sender, metrics: metrics.clone(), clock };
    watch.judge_by(thresholds);
    watch.show();
    let (runs, unasked) = (Runs::default(), Runs::default());
    (Watchman { shared, told, metrics, journal, runs, unasked, clock }, watch)
}

// === impl Health ===

impl Health {
    /// What is believed of one upstream.
    pub fn of(&self, upstream: Upstream) -> &Verdict {
        self.beliefs[upstream.index()].upstream()
    }

    /// What is believed of its rows that are judged by themselves.
    pub fn rows_of(&self, upstream: Upstream) -> impl Iterator<Item = (RowId, &Verdict)> {
        self.beliefs[upstream.index()].rows()
    }

    /// When and why the verdict on an upstream last changed.
    pub fn last_change(&self, upstream: Upstream) -> Option<(Moment, Change)> {
        self.last_changes[upstream.index()]
    }

    /// Forgets what was believed of an upstream.
    pub fn forget(&mut self, upstream: Upstream, now: Moment) {
        self.beliefs[upstream.index()] = Belief::new(now);
        self.last_changes[upstream.index()] = None;
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
                told = self.told.recv() => match told {
                    Some(told) => self.take_in(told),
                    None => return,
                },
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn tick(&mut self) {
        let at = self.clock.now();
        for upstream in Upstream::ALL {
            let good_before = self.shared.rows.take_good(upstream);
            let seen = Observation::Tick;
            let sight = Sight { seen, what: "", took: Duration::ZERO };
            self.take_in(Told { upstream, good_before, sight, at });
        }
        for (upstream, row, n, time) in self.runs.ended(at) {
            self.journal.note(run(upstream, self.shared.rows.name_of(row), n, time));
        }
        for (row, n) in self.shared.rows.take_unasked() {
            self.unasked.add(Upstream::Origin, row, n, at);
        }
        for (upstream, row, n, time) in self.unasked.ended(at) {
            let (upstream, row) = (upstream.name().into(), self.shared.rows.name_of(row).into());
            self.journal.note(What::Unasked { upstream, row, n, ms: millis(time) });
        }
    }

    fn take_in(&mut self, told: Told) {
        let Told { upstream, good_before, sight, at } = told;
        let before = self.shared.health.load_full();
        let thresholds = self.shared.thresholds.load_full();
        let mut belief = before.beliefs[upstream.index()].clone();
        let mut changes: Vec<(Subject, Change)> = Vec::new();
        let mut note = |subject, change| changes.push((subject, change));
        if self.shared.replaced[upstream.index()].swap(false, Ordering::AcqRel) {
            belief.replace(at, &mut note);
        }
        for (row, n) in &good_before {
            self.runs.add(upstream, *row, *n, at);
            let attempt = Attempt { call: 0, row: *row, started: at };
            let (took, was_slow) = (Duration::ZERO, false);
            let good = Observation::Live { grade: Grade::Good, attempt, took, was_slow };
            (0..*n).for_each(|_| belief.step(good, at, &thresholds, &mut note));
        }
        let is_probe = matches!(sight.seen, Observation::Probe(_));
        let begun = Moment::at(at.since_start().saturating_sub(sight.took));
        // A probe that began at another host says nothing of this one.
        if !is_probe || begun >= belief.host_from() {
            belief.step(sight.seen, at, &thresholds, &mut note);
        }
        self.write_down(upstream, &sight, at);
        if belief == before.beliefs[upstream.index()] {
            return;
        }
        let mut after = Health::clone(&before);
        after.beliefs[upstream.index()] = belief;
        let mut of_the_upstream =
            changes.iter().filter(|(subject, _)| *subject == Subject::Upstream);
        if let Some((_, change)) = of_the_upstream.next_back() {
            after.last_changes[upstream.index()] = Some((at, *change));
        }
        let after = Arc::new(after);
        self.shared.health.store(after.clone());
        self.show_rows(upstream, &before, &after, at, &thresholds);
        for (subject, change) in &changes {
            self.announce(upstream, *subject, change, &after, at);
        }
        // The pace of probes is another one after a change, and after the first good one in an outage.
        let pace = |health: &Health| {
            let verdict = health.of(upstream);
            (verdict.phase(), verdict.probe_streak().0 > 0)
        };
        if pace(&after) != pace(&before) {
            self.shared.changed[upstream.index()].notify_waiters();
        }
    }

    /// Shows what is believed of rows to those on the way.
    fn show_rows(
        &self,
        upstream: Upstream,
        before: &Health,
        after: &Health,
        at: Moment,
        thresholds: &Thresholds,
    ) {
        let belief = &after.beliefs[upstream.index()];
        let gone = before.rows_of(upstream).map(|(row, _)| row);
        let gone = gone.filter(|row| !belief.rows().any(|(watched, _)| watched == *row));
        let shown = belief.rows().map(|(row, verdict)| (row, Some(verdict.phase())));
        for (row, phase) in shown.chain(gone.map(|row| (row, None))) {
            if let Some(shared) = self.shared.rows.with_id(row) {
                shared.show(upstream, phase, belief.minds(row, at, thresholds));
            }
        }
    }

    fn write_down(&mut self, upstream: Upstream, sight: &Sight, at: Moment) {
        match sight.seen {
            Observation::Tick => return,
            // There are many of these, whatever is believed.
            Observation::Live { grade: Grade::Good, attempt, was_slow: false, .. } => {
                self.runs.add(upstream, attempt.row, 1, at);
                return;
            }
            // Probes come between runs without ending them: they say nothing of attempts.
            Observation::Probe(_) => {}
            _ => {
                for (row, n, time) in self.runs.end_of(upstream, at) {
                    self.journal.note(run(upstream, self.shared.rows.name_of(row), n, time));
                }
            }
        }
        let mut what = what(upstream, sight, at);
        if let Some(attempt) = sight.seen.attempt() {
            what.name_row(self.shared.rows.name_of(attempt.row));
        }
        self.journal.note(what);
    }

    fn announce(
        &self,
        upstream: Upstream,
        subject: Subject,
        change: &Change,
        health: &Health,
        at: Moment,
    ) {
        let row = match subject {
            Subject::Upstream => None,
            Subject::Row(row) => Some((row, self.shared.rows.name_of(row))),
        };
        let name = row.as_ref().map(|(_, name)| name.as_str());
        let belief = &health.beliefs[upstream.index()];
        let of_row = row.as_ref().and_then(|(row, _)| belief.rows().find(|(id, _)| id == row));
        let verdict = of_row.map_or(belief.upstream(), |(_, verdict)| verdict);
        let thresholds = self.shared.thresholds.load();
        self.journal.note(What::change(upstream, name, change, verdict, at, &thresholds));
        match name {
            None => self.metrics.verdict_changed(upstream, change.to),
            Some(name) => self.metrics.row_verdict(upstream, name, change.to),
        }
        say(upstream, name, change);
    }
}

fn run(upstream: Upstream, row: String, n: u32, time: Duration) -> What {
    What::Run { upstream: upstream.name().into(), row: row.into(), n, ms: millis(time) }
}

/// What is written of something seen, but for the row's name.
fn what(upstream: Upstream, sight: &Sight, at: Moment) -> What {
    let upstream = upstream.name().into();
    let ms = |started| millis(at.since(started));
    let (row, call) = (Name::default(), |attempt: Attempt| format!("{:016x}", attempt.call).into());
    match sight.seen {
        Observation::Probe(_) | Observation::Tick => {
            What::Probe { upstream, result: sight.what.into(), ms: millis(sight.took) }
        }
        Observation::Slow(attempt) => {
            What::Slow { upstream, row, call: call(attempt), ms: ms(attempt.started) }
        }
        Observation::Live { attempt, was_slow, .. }
        | Observation::Rejected { attempt, was_slow } => What::Live {
            upstream,
            row,
            outcome: sight.what.into(),
            call: call(attempt),
            ms: ms(attempt.started),
            slow: was_slow,
        },
        Observation::Dropped(attempt) => {
            What::Dropped { upstream, row, call: call(attempt), ms: ms(attempt.started) }
        }
    }
}

fn say(upstream: Upstream, row: Option<&str>, change: &Change) {
    let (upstream, from, to) = (upstream.name(), change.from.name(), change.to.name());
    let reason = change.reason.to_string();
    let serves = matches!(change.to, Phase::Well | Phase::Trial { .. });
    match (change.to, row) {
        (Phase::Down { .. } | Phase::Stuck, None) => {
            tracing::error!(target: "health", upstream, from, to, reason, "verdict changed");
        }
        _ if serves => {
            tracing::info!(target: "health", upstream, row, from, to, reason, "verdict changed");
        }
        _ => tracing::warn!(target: "health", upstream, row, from, to, reason, "verdict changed"),
    }
}
