//! The handle to the watchman: what is believed is read here, and what is seen reported.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdline_policy::{
    Belief, Change, Grade, Moment, Observation, Phase, Reason, RowId, Thresholds, Upstream,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Health, RowWatch, Shared, Sight, Told, WatchedAttempt};
use crate::clock::Clock;
use crate::journal::{Journal, What};
use crate::telemetry::Metrics;

/// What is believed, as another process goes on with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Legacy {
    beliefs: [Belief; Upstream::COUNT],
    last_changes: [Option<(Moment, Change)>; Upstream::COUNT],
    /// The names of the rows in it.
    rows: Vec<(RowId, String)>,
}

/// Reads what is believed and reports what is seen.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

// === impl Watch ===

impl Watch {
    /// What is believed now.
    pub fn health(&self) -> Arc<Health> {
        self.shared.health.load_full()
    }

    /// What is believed now, in short: one phase an upstream.
    pub fn phases(&self) -> [Phase; Upstream::COUNT] {
        let health = self.shared.health.load();
        Upstream::ALL.map(|upstream| health.of(upstream).phase())
    }

    /// The numbers by which it is judged.
    pub fn thresholds(&self) -> Arc<Thresholds> {
        self.shared.thresholds.load_full()
    }

    /// The row of this name, as it is watched. One that was never heard of is watched from now on.
    pub fn row(&self, name: &str) -> Arc<RowWatch> {
        self.shared.rows.named(name)
    }

    /// The name of a row.
    pub fn name_of(&self, row: RowId) -> String {
        self.shared.rows.name_of(row)
    }

    /// Reports a probe that has ended. `result` is one of [`crate::probe::RESULTS`].
    pub fn probed(&self, upstream: Upstream, result: &'static str, took: Duration) {
        let grade = if result == crate::probe::GOOD { Grade::Good } else { Grade::Bad };
        self.see(upstream, Sight { seen: Observation::Probe(grade), what: result, took });
    }

    /// Begins to observe an attempt.
    pub fn attempt<'w>(
        &'w self,
        upstream: Upstream,
        row: &'w RowWatch,
        call: u64,
        begun: Moment,
    ) -> WatchedAttempt<'w> {
        WatchedAttempt { watch: self, upstream, row, call, begun, slow: false }
    }

    /// From now on an upstream is another host.
    pub fn replaced(&self, upstream: Upstream) {
        self.shared.replaced[upstream.index()].store(true, Ordering::Release);
    }

    /// What is believed, for another process.
    pub fn bequeath(&self) -> Legacy {
        let Health { beliefs, last_changes } = Health::clone(&self.shared.health.load());
        let rows = beliefs
            .iter()
            .flat_map(Belief::rows)
            .map(|(row, _)| (row, self.shared.rows.name_of(row)));
        Legacy { rows: rows.collect(), beliefs, last_changes }
    }

    /// Goes on with what another process believed; of an upstream that has become another host since, with
    /// nothing. Before the watchman runs.
    pub fn inherit(&self, legacy: Legacy, same_host: [bool; Upstream::COUNT]) {
        let now = self.clock.now();
        let name_of = |id: RowId| legacy.rows.iter().find(|(known, _)| *known == id);
        let renumbered = |id: RowId| Some(self.row(&name_of(id)?.1).id);
        let beliefs = legacy.beliefs.map(|belief| belief.inherited(now, renumbered));
        let mut health = Health { beliefs, last_changes: legacy.last_changes };
        for upstream in Upstream::ALL {
            if !same_host[upstream.index()] {
                health.forget(upstream, now);
            }
        }
        self.shared.health.store(Arc::new(health));
        self.show();
    }

    /// Writes down what it goes on with, for whoever reads only what this process writes.
    pub fn note_inherited(&self, journal: &Journal) {
        let (health, now) = (self.health(), self.clock.now());
        let thresholds = self.thresholds();
        for upstream in Upstream::ALL {
            let belief = &health.beliefs[upstream.index()];
            let upstreams = std::iter::once((None, belief.upstream()));
            let rows =
                belief.rows().map(|(row, verdict)| (Some(self.shared.rows.name_of(row)), verdict));
            for (row, verdict) in upstreams.chain(rows) {
                let (from, to) = (Phase::Well, verdict.phase());
                if to != Phase::Well {
                    let change = Change { from, to, reason: Reason::Inherited };
                    let row = row.as_deref();
                    journal.note(What::change(upstream, row, &change, verdict, now, &thresholds));
                }
            }
        }
    }

    /// Judges by these thresholds from now on.
    pub fn judge_by(&self, thresholds: Thresholds) {
        let slow_after = u64::try_from(thresholds.slow_after.as_micros()).unwrap_or(u64::MAX);
        self.shared.slow_after.store(slow_after, Ordering::Relaxed);
        self.shared.thresholds.store(Arc::new(thresholds));
    }

    /// Waits until the verdict of an upstream changes.
    pub async fn changed(&self, upstream: Upstream) {
        self.shared.changed[upstream.index()].notified().await;
    }

    /// Whether an attempt that ended well changes nothing, so that it is only counted.
    pub(super) fn only_counts(&self, attempt: &WatchedAttempt<'_>, took: Duration) -> bool {
        let slow_after = self.shared.slow_after.load(Ordering::Relaxed);
        !attempt.slow
            && took.as_micros() <= u128::from(slow_after)
            && attempt.row.only_counts(attempt.upstream)
            && self.shared.health.load().of(attempt.upstream).phase() == Phase::Well
    }

    /// Never waits: when the watchman cannot keep up, the newest are lost and counted, because those
    /// queued say the same.
    pub(super) fn see(&self, upstream: Upstream, sight: Sight) {
        let good_before = self.shared.rows.take_good(upstream);
        let told = Told { upstream, good_before, sight, at: self.clock.now() };
        if let Err(TrySendError::Full(told) | TrySendError::Closed(told)) = self.told.try_send(told)
        {
            self.shared.rows.put_back(upstream, &told.good_before);
            self.metrics.observations_lost.inc();
        }
    }

    /// Shows what is believed where it is read from elsewhere.
    pub(super) fn show(&self) {
        let health = self.shared.health.load();
        for upstream in Upstream::ALL {
            self.metrics.verdict(upstream, health.of(upstream).phase());
            for (row, verdict) in health.rows_of(upstream) {
                if let Some(row) = self.shared.rows.with_id(row) {
                    row.show(upstream, Some(verdict.phase()), true);
                    self.metrics.row_verdict(upstream, &row.name, verdict.phase());
                }
            }
        }
    }
}
