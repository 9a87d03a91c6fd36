//! The rules: what each observation makes of what was believed.

use super::Verdict;
use super::counts::Distinct;
use super::words::{Cause, Grade, Observation, Phase, Reason, RowId, Thresholds};
use crate::moment::Moment;

/// What is believed next, and why.
type Next = Option<(Phase, Reason)>;

// === impl Verdict ===

impl Verdict {
    pub(super) fn when_well(&self, seen: Observation, now: Moment, limits: &Thresholds) -> Next {
        if let Some(next) = self.troubled_by_traffic(seen, now, limits) {
            return Some(next);
        }
        match seen {
            Observation::Probe(Grade::Bad)
            | Observation::Slow(_)
            | Observation::Live { grade: Grade::Bad, .. } => {
                Some((Phase::Doubtful, Reason::FirstDoubt))
            }
            Observation::Live { .. } => {
                self.slowed(now, limits).map(|reason| (Phase::Doubtful, reason))
            }
            _ => None,
        }
    }

    pub(super) fn when_doubtful(
        &self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> Next {
        if let Some(next) = self.troubled_by_traffic(seen, now, limits) {
            return Some(next);
        }
        if let Some(next) = self.down_by_probes(now, limits) {
            return Some(next);
        }
        // Whatever was seen since the last bad thing was good. The counts of bad attempts stay: where
        // probes are well between bad visits, the visits must still add up.
        let good = matches!(
            seen,
            Observation::Probe(Grade::Good) | Observation::Live { grade: Grade::Good, .. }
        );
        // What still hangs is what is left of an outage, if something begun after it has ended well and
        // nothing has turned slow for a while.
        let outlived =
            self.last_good_start >= self.last_hanging && now.since(self.last_slow) >= limits.stuck;
        let calm = (self.hanging == 0 || outlived) && self.slowed(now, limits).is_none();
        let settled = good && self.good_since_bad >= limits.rise && calm;
        settled.then_some((Phase::Well, Reason::DoubtSettled(self.good_since_bad)))
    }

    pub(super) fn when_stuck(&self, seen: Observation, now: Moment, limits: &Thresholds) -> Next {
        if let Some(reason) = self.condemned_by_traffic(seen, now, limits) {
            return Some((self.down(Cause::Traffic, now, limits), reason));
        }
        if let Some(next) = self.down_by_probes(now, limits) {
            return Some(next);
        }
        let ended_well = matches!(seen, Observation::Live { grade: Grade::Good, .. });
        (ended_well || self.hanging == 0).then_some((Phase::Doubtful, Reason::CameLoose))
    }

    pub(super) fn when_down(
        &self,
        seen: Observation,
        cause: Cause,
        until: Moment,
        now: Moment,
        limits: &Thresholds,
    ) -> Next {
        if cause == Cause::Probes {
            if let Some(reason) = self.condemned_by_traffic(seen, now, limits) {
                return Some((Phase::Down { cause: Cause::Traffic, until }, reason));
            }
            if matches!(seen, Observation::Live { grade: Grade::Good, .. }) {
                return Some((Phase::Trial { visits: 1, quiet_since: now }, Reason::LiveEvidence));
            }
        }
        if now < until {
            return None;
        }
        let trial = Phase::Trial { visits: 0, quiet_since: now };
        if !self.probed {
            return Some((trial, Reason::HoldDownOver));
        }
        let good = self.probes.good;
        (good >= limits.rise).then_some((trial, Reason::GoodProbes(good)))
    }

    pub(super) fn when_on_trial(
        &self,
        seen: Observation,
        visits: u32,
        quiet_since: Moment,
        now: Moment,
        limits: &Thresholds,
    ) -> Next {
        let patient = now.since(quiet_since) >= limits.trial_patience;
        match seen {
            // A row that fails alone fails no trial of the upstream's.
            Observation::Live { grade: Grade::Bad, attempt, .. }
                if !self.fails_alone(Distinct::One(attempt.row), now, limits) =>
            {
                let down = self.down(Cause::Traffic, now, limits);
                Some((down, Reason::TrialFailed(Cause::Traffic)))
            }
            Observation::Probe(Grade::Bad) if !self.served_lately(now, limits) => {
                let down = self.down(Cause::Probes, now, limits);
                Some((down, Reason::TrialFailed(Cause::Probes)))
            }
            Observation::Live { grade: Grade::Good, .. } => {
                let visits = visits + 1;
                if visits >= limits.trial_visits {
                    Some((Phase::Well, Reason::TrialPassed(visits)))
                } else {
                    // Progress inside the trial; not a change of what is believed.
                    Some((Phase::Trial { visits, quiet_since: now }, Reason::TrialPassed(visits)))
                }
            }
            Observation::Probe(Grade::Good) => {
                let enough = self.probes.good >= limits.rise;
                let reason = Reason::TrialPassedByProbes(self.probes.good);
                (patient && enough).then_some((Phase::Well, reason))
            }
            Observation::Tick if patient && !self.probed => Some((Phase::Well, Reason::Untested)),
            _ => None,
        }
    }

    /// What the traffic makes of an upstream that serves.
    fn troubled_by_traffic(&self, seen: Observation, now: Moment, limits: &Thresholds) -> Next {
        if let Some(reason) = self.condemned_by_traffic(seen, now, limits) {
            return Some((self.down(Cause::Traffic, now, limits), reason));
        }
        let ended_well = self.last_good_live.unwrap_or_default().max(self.hanging_since);
        let silent = now.since(ended_well);
        let stuck = self.hanging > 0
            && self.hanging_calls == Distinct::Several
            && silent >= limits.stuck
            && !self.fails_alone(self.hanging_rows, now, limits);
        stuck.then_some((Phase::Stuck, Reason::Stuck { hanging: self.hanging, silent }))
    }

    /// What the probes make of it, unless the traffic says otherwise.
    fn down_by_probes(&self, now: Moment, limits: &Thresholds) -> Next {
        let bad = self.probes.bad;
        let condemned = bad >= limits.fall && !self.served_lately(now, limits);
        condemned.then(|| (self.down(Cause::Probes, now, limits), Reason::BadProbes(bad)))
    }

    /// The live evidence against the upstream, if what was just seen is the last of enough. Time alone
    /// condemns nothing, and neither do other thresholds.
    fn condemned_by_traffic(
        &self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<Reason> {
        if !matches!(seen, Observation::Live { grade: Grade::Bad, .. }) {
            return None;
        }
        if self.live.bad >= limits.fall
            && self.bad_calls == Distinct::Several
            && !self.fails_alone(self.bad_rows, now, limits)
        {
            return Some(Reason::BadAttempts(self.live.bad));
        }
        let counts = self.window.counts(now, limits.window);
        let enough = counts.total() >= limits.window_minimum
            && reaches(counts.bad, counts.total(), limits.bad_percent);
        if counts.bad > 0
            && enough
            && self.live.bad > 0
            && self.window_calls.within(limits.window, now) == Distinct::Several
            && !self.fails_alone(self.window_rows.within(limits.window, now), now, limits)
        {
            return Some(Reason::BadShare { bad: counts.bad, of: counts.total() });
        }
        None
    }

    /// Whether failures are of one row, while another serves: then the upstream is not to blame.
    fn fails_alone(&self, rows: Distinct<RowId>, now: Moment, limits: &Thresholds) -> bool {
        let Distinct::One(row) = rows else { return false };
        row != RowId::NONE && self.good_rows.another(row, limits.evidence, now)
    }

    /// Whether too many attempts take longer than they should, though they end well.
    fn slowed(&self, now: Moment, limits: &Thresholds) -> Option<Reason> {
        let counts = self.slow.counts(now, limits.window);
        let (slow, of) = (counts.bad, counts.total());
        let too_many =
            slow > 0 && of >= limits.window_minimum && reaches(slow, of, limits.slow_percent);
        too_many.then_some(Reason::SlowShare { slow, of })
    }

    fn served_lately(&self, now: Moment, limits: &Thresholds) -> bool {
        self.last_good_live.is_some_and(|at| now.since(at) <= limits.evidence)
    }

    fn down(&self, cause: Cause, now: Moment, limits: &Thresholds) -> Phase {
        Phase::Down { cause, until: now + self.hold_down(limits) }
    }
}

/// Whether `part` is at least so many percent of `whole`.
fn reaches(part: u32, whole: u32, percent: u32) -> bool {
    u64::from(part) * 100 >= u64::from(whole) * u64::from(percent)
}
