//! An upstream, and the rows of it that are judged by themselves.
//!
//! A row is watched from its first failure on, and forgotten when it has been well for a while. What it
//! does alone is its own: while another row serves, its failures do not take the upstream down
//! ([`Verdict`] sees to that), and once it is known to fail they say nothing new of the upstream. What
//! fails with the whole upstream is the upstream's: its rows begin anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::words::{Attempt, Change, Grade, Observation, Phase, Reason, RowId, Thresholds};
use crate::moment::Moment;

/// What is believed of an upstream and of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belief {
    upstream: Verdict,
    rows: BTreeMap<RowId, Verdict>,
    /// Since when rows are judged: what hung before is the upstream's, or another process's.
    rows_from: Moment,
    /// Since when it is this host: what began before tells of another.
    host_from: Moment,
}

/// Whom a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The upstream.
    Upstream,
    /// A row of it that is judged by itself.
    Row(RowId),
}

// === impl Belief ===

impl Belief {
    /// Nothing is known yet.
    pub fn new(now: Moment) -> Belief {
        let start = Moment::default();
        let upstream = Verdict::new(now);
        Belief { upstream, rows: BTreeMap::new(), rows_from: start, host_from: start }
    }

    /// The belief as another process goes on with it, in which rows have other numbers: `renumbered`
    /// gives the new one of each that there still is.
    #[must_use]
    pub fn inherited(self, now: Moment, renumbered: impl Fn(RowId) -> Option<RowId>) -> Belief {
        let inherited = |verdict: Verdict| verdict.inherited(now).renumbered(&renumbered);
        let rows = self.rows.into_iter();
        let rows = rows.filter_map(|(row, verdict)| Some((renumbered(row)?, inherited(verdict))));
        Belief {
            rows: rows.collect(),
            upstream: inherited(self.upstream),
            rows_from: now,
            host_from: self.host_from,
        }
    }

    /// The verdict on the upstream.
    pub fn upstream(&self) -> &Verdict {
        &self.upstream
    }

    /// The rows that are watched, with the verdict on each.
    pub fn rows(&self) -> impl Iterator<Item = (RowId, &Verdict)> {
        self.rows.iter().map(|(row, verdict)| (*row, verdict))
    }

    /// What is believed of one row, apart from what is believed of the upstream.
    pub fn phase_of(&self, row: RowId) -> Phase {
        self.rows.get(&row).map_or(Phase::Well, Verdict::phase)
    }

    /// Since when it is this host.
    pub fn host_from(&self) -> Moment {
        self.host_from
    }

    /// Whether what ends well at a row is more than counted.
    pub fn minds(&self, row: RowId, now: Moment, limits: &Thresholds) -> bool {
        self.rows.get(&row).is_some_and(|verdict| {
            verdict.phase() != Phase::Well
                || verdict.live_streak().1 > 0
                || verdict.hanging() > 0
                || verdict.window(now, limits).bad > 0
        })
    }

    /// Whether time alone can change nothing.
    pub fn is_at_rest(&self) -> bool {
        self.rows.is_empty() && self.upstream.phase() == Phase::Well && self.upstream.hanging() == 0
    }

    /// Takes in one observation, and tells of every change.
    pub fn step(
        &mut self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
        mut tell: impl FnMut(Subject, Change),
    ) {
        if seen.attempt().is_some_and(|attempt| attempt.started < self.host_from) {
            return;
        }
        let seen = self.upstream.without_what_is_outlived(seen);
        let known = |attempt: Attempt| self.fails_alone(attempt.row);
        let of_the_upstream = match seen {
            // Known already, and not the upstream's.
            Observation::Live { grade: Grade::Bad, attempt, was_slow, .. } if known(attempt) => {
                Observation::Rejected { attempt, was_slow }
            }
            seen => seen,
        };
        let (next, change) = self.upstream.step(of_the_upstream, now, limits);
        self.upstream = next;
        if let Some(change) = change {
            tell(Subject::Upstream, change);
        }
        if matches!(self.upstream.phase(), Phase::Stuck | Phase::Down { .. }) {
            self.forget_rows(Reason::UpstreamFails, now, tell);
        } else if seen == Observation::Tick {
            self.rows.retain(|row, verdict| {
                step_row(verdict, *row, seen, now, limits, &mut tell);
                let forgotten = is_quiet(verdict, now, limits);
                if forgotten && verdict.phase() != Phase::Well {
                    let (from, reason) = (verdict.phase(), Reason::Forgotten);
                    tell(Subject::Row(*row), Change { from, to: Phase::Well, reason });
                }
                !forgotten
            });
        } else if let Some(attempt) = seen.attempt() {
            self.step_row_of(attempt, seen, now, limits, tell);
        }
    }

    /// Takes in that it is another host from now on.
    pub fn replace(&mut self, now: Moment, mut tell: impl FnMut(Subject, Change)) {
        self.forget_rows(Reason::Replaced, now, &mut tell);
        self.host_from = now;
        let from = self.upstream.phase();
        self.upstream = Verdict::new(now);
        if from != Phase::Well {
            let change = Change { from, to: Phase::Well, reason: Reason::Replaced };
            tell(Subject::Upstream, change);
        }
    }

    fn fails_alone(&self, row: RowId) -> bool {
        !matches!(self.phase_of(row), Phase::Well | Phase::Doubtful)
    }

    fn forget_rows(&mut self, reason: Reason, now: Moment, mut tell: impl FnMut(Subject, Change)) {
        self.rows_from = now;
        for (row, verdict) in std::mem::take(&mut self.rows) {
            let from = verdict.phase();
            if from != Phase::Well {
                tell(Subject::Row(row), Change { from, to: Phase::Well, reason });
            }
        }
    }

    fn step_row_of(
        &mut self,
        attempt: Attempt,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
        mut tell: impl FnMut(Subject, Change),
    ) {
        let seen = match seen {
            // What says nothing of the upstream speaks against the row.
            Observation::Rejected { attempt, was_slow } => {
                let took = now.since(attempt.started);
                Observation::Live { grade: Grade::Bad, attempt, took, was_slow }
            }
            seen => seen,
        };
        let good = matches!(seen, Observation::Live { grade: Grade::Good, .. });
        let row = attempt.row;
        let says = !good && !matches!(seen, Observation::Dropped(_));
        if row == RowId::NONE || (!says && !self.rows.contains_key(&row)) {
            return;
        }
        let from = self.rows_from;
        let verdict = self.rows.entry(row).or_insert_with(|| Verdict::of_a_row(now, from));
        step_row(verdict, row, seen, now, limits, &mut tell);
    }
}

fn step_row(
    verdict: &mut Verdict,
    row: RowId,
    seen: Observation,
    now: Moment,
    limits: &Thresholds,
    tell: &mut impl FnMut(Subject, Change),
) {
    let (next, change) = verdict.step(seen, now, limits);
    *verdict = next;
    if let Some(change) = change {
        tell(Subject::Row(row), change);
    }
}

/// Whether nothing is left to be remembered of a row.
fn is_quiet(verdict: &Verdict, now: Moment, limits: &Thresholds) -> bool {
    let doubtless = matches!(verdict.phase(), Phase::Well)
        || (verdict.phase() == Phase::Doubtful && now.since(verdict.since()) >= limits.evidence);
    doubtless
        && verdict.hanging() == 0
        && verdict.flaps() == 0
        && verdict.window(now, limits).bad == 0
        && (verdict.live_streak().1 == 0 || now.since(verdict.since()) >= limits.decay)
}
