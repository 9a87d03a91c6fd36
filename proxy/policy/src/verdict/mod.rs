//! What is believed of an upstream, as a pure step from one observation to the next belief.
//!
//! The states and rules are those of the design's section on health. Three principles run through
//! them. Traffic outranks probes: probes alone never take down an upstream that is serving. Slow is
//! not bad: an attempt that answers late and well counts as good, and one that has not ended yet
//! condemns nothing, though callers need not wait for it. And nothing is condemned on the word of one
//! call: live evidence needs two.
//!
//! "Consecutive" means what it says: one good outcome in between starts the count again, for every
//! kind of failure alike.

mod counts;
mod words;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::window::Window;
use counts::{Calls, Streak};
pub use words::{Cause, Change, Grade, Observation, Phase, Reason, Thresholds};

/// The belief about one upstream, with all it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    phase: Phase,
    since: Moment,
    probes: Streak,
    live: Streak,
    good_since_bad: u32,
    bad_calls: Calls,
    window: Window,
    window_calls: Calls,
    last_good_live: Option<Moment>,
    hanging: u32,
    hanging_since: Moment,
    hanging_calls: Calls,
    /// When the latest of the attempts that hang began.
    last_hanging: Moment,
    /// When the latest of the attempts that ended well began.
    last_good_start: Moment,
    /// When the latest attempt turned slow.
    last_slow: Moment,
    /// Slow attempts begun before tell of a time that is over, however they end.
    counted_from: Moment,
    flaps: u32,
    flap_forgotten: Moment,
}

// === impl Verdict ===

impl Verdict {
    /// An upstream of which nothing is known yet: it gets traffic, and one bad probe is a doubt.
    pub fn new(now: Moment) -> Verdict {
        Verdict {
            phase: Phase::Well,
            since: now,
            probes: Streak::default(),
            live: Streak::default(),
            good_since_bad: 0,
            bad_calls: Calls::None,
            window: Window::default(),
            window_calls: Calls::None,
            last_good_live: None,
            hanging: 0,
            hanging_since: now,
            hanging_calls: Calls::None,
            last_hanging: now,
            last_good_start: Moment::default(),
            last_slow: now,
            counted_from: now,
            flaps: 0,
            flap_forgotten: now,
        }
    }

    /// The belief as another process goes on with it that made none of the attempts it rests on: those
    /// that hang end elsewhere, and none of them is heard of again.
    #[must_use]
    pub fn inherited(self, now: Moment) -> Verdict {
        let phase = if self.phase == Phase::Stuck { Phase::Doubtful } else { self.phase };
        Verdict { phase, hanging: 0, hanging_calls: Calls::None, counted_from: now, ..self }
    }

    /// What is believed.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Consecutive probes of the latest kind: (good, bad), one of which is zero.
    pub fn probe_streak(&self) -> (u32, u32) {
        (self.probes.good, self.probes.bad)
    }

    /// Consecutive live attempts of the latest kind: (good, bad), one of which is zero.
    pub fn live_streak(&self) -> (u32, u32) {
        (self.live.good, self.live.bad)
    }

    /// Attempts observed as slow that have not ended.
    pub fn hanging(&self) -> u32 {
        self.hanging
    }

    /// How often it went down lately.
    pub fn flaps(&self) -> u32 {
        self.flaps
    }

    /// Takes in one observation.
    #[must_use]
    pub fn step(
        mut self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> (Verdict, Option<Change>) {
        self.forget_flaps(now, limits);
        let seen = self.without_what_is_outlived(seen);
        self.remember(seen, now, limits);
        let next = match self.phase {
            Phase::Well => self.when_well(seen, now, limits),
            Phase::Doubtful => self.when_doubtful(seen, now, limits),
            Phase::Stuck => self.when_stuck(seen, now, limits),
            Phase::Down { cause, until } => self.when_down(seen, cause, until, now, limits),
            Phase::Trial { visits, quiet_since } => {
                self.when_on_trial(seen, visits, quiet_since, now, limits)
            }
        };
        let Some((to, reason)) = next else { return (self, None) };
        let change = Change { from: self.phase, to, reason };
        self.enter(to, now);
        (self, change.is_transition().then_some(change))
    }

    /// A late good answer is good. A late bad one may tell of a time that is over: of one before the
    /// trial, or of an outage that has long ended well.
    fn without_what_is_outlived(&self, seen: Observation) -> Observation {
        let Observation::Live { grade: Grade::Bad, started, was_slow, .. } = seen else {
            return seen;
        };
        let before_the_trial = matches!(self.phase, Phase::Trial { .. }) && started < self.since;
        let outlived = was_slow && started < self.counted_from;
        if before_the_trial || outlived { Observation::Dropped { started } } else { seen }
    }

    fn remember(&mut self, seen: Observation, now: Moment, limits: &Thresholds) {
        match seen {
            Observation::Probe(grade) => {
                self.probes.count(grade);
                self.tell_good_from_bad(grade);
            }
            Observation::Slow { call, started } => {
                self.good_since_bad = 0;
                self.last_slow = now;
                if started >= self.counted_from {
                    self.hanging = self.hanging.saturating_add(1);
                    self.last_hanging = self.last_hanging.max(started);
                }
                // What began before something that has ended well says nothing of the time after it.
                if started > self.last_good_start {
                    if self.hanging_calls == Calls::None {
                        self.hanging_since = started;
                    }
                    self.hanging_calls.add(call);
                }
            }
            Observation::Live { grade, call, started, was_slow } => {
                self.live.count(grade);
                self.tell_good_from_bad(grade);
                if self.window.counts(now, limits.window).bad == 0 {
                    self.window_calls = Calls::None;
                }
                self.window.count(grade == Grade::Good, now, limits.window);
                match grade {
                    Grade::Good => {
                        self.last_good_live = Some(now);
                        self.last_good_start = self.last_good_start.max(started);
                        self.bad_calls = Calls::None;
                        self.hanging_calls = Calls::None;
                    }
                    Grade::Bad => {
                        self.bad_calls.add(call);
                        self.window_calls.add(call);
                    }
                }
                if was_slow {
                    self.no_longer_hangs(started);
                }
            }
            Observation::Dropped { started } => self.no_longer_hangs(started),
            Observation::Tick => {}
        }
    }

    fn tell_good_from_bad(&mut self, grade: Grade) {
        self.good_since_bad = match grade {
            Grade::Good => self.good_since_bad.saturating_add(1),
            Grade::Bad => 0,
        };
    }

    /// Attempts begun before the count began anew were never in it.
    fn no_longer_hangs(&mut self, started: Moment) {
        if started >= self.counted_from {
            self.hanging = self.hanging.saturating_sub(1);
        }
    }

    fn when_well(
        &self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        if let Some(next) = self.troubled_by_traffic(now, limits) {
            return Some(next);
        }
        match seen {
            Observation::Probe(Grade::Bad)
            | Observation::Slow { .. }
            | Observation::Live { grade: Grade::Bad, .. } => {
                Some((Phase::Doubtful, Reason::FirstDoubt))
            }
            _ => None,
        }
    }

    fn when_doubtful(
        &self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        if let Some(next) = self.troubled_by_traffic(now, limits) {
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
        let calm = self.hanging == 0 || outlived;
        let settled = good && self.good_since_bad >= limits.rise && calm;
        settled.then_some((Phase::Well, Reason::DoubtSettled(self.good_since_bad)))
    }

    fn when_stuck(
        &self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        if let Some(reason) = self.condemned_by_traffic(now, limits) {
            return Some((self.down(Cause::Traffic, now, limits), reason));
        }
        if let Some(next) = self.down_by_probes(now, limits) {
            return Some(next);
        }
        let ended_well = matches!(seen, Observation::Live { grade: Grade::Good, .. });
        (ended_well || self.hanging == 0).then_some((Phase::Doubtful, Reason::CameLoose))
    }

    fn when_down(
        &self,
        seen: Observation,
        cause: Cause,
        until: Moment,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        if cause == Cause::Probes {
            if let Some(reason) = self.condemned_by_traffic(now, limits) {
                return Some((Phase::Down { cause: Cause::Traffic, until }, reason));
            }
            if matches!(seen, Observation::Live { grade: Grade::Good, .. }) {
                return Some((Phase::Trial { visits: 1, quiet_since: now }, Reason::LiveEvidence));
            }
        }
        let recovered = self.probes.good >= limits.rise && now >= until;
        let trial = Phase::Trial { visits: 0, quiet_since: now };
        recovered.then_some((trial, Reason::GoodProbes(self.probes.good)))
    }

    fn when_on_trial(
        &self,
        seen: Observation,
        visits: u32,
        quiet_since: Moment,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        match seen {
            Observation::Live { grade: Grade::Bad, .. } => {
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
                let patient = now.since(quiet_since) >= limits.trial_patience;
                let enough = self.probes.good >= limits.rise;
                let reason = Reason::TrialPassedByProbes(self.probes.good);
                (patient && enough).then_some((Phase::Well, reason))
            }
            _ => None,
        }
    }

    /// What the traffic makes of an upstream that serves.
    fn troubled_by_traffic(&self, now: Moment, limits: &Thresholds) -> Option<(Phase, Reason)> {
        if let Some(reason) = self.condemned_by_traffic(now, limits) {
            return Some((self.down(Cause::Traffic, now, limits), reason));
        }
        let ended_well = self.last_good_live.unwrap_or_default().max(self.hanging_since);
        let silent = now.since(ended_well);
        let stuck =
            self.hanging > 0 && self.hanging_calls == Calls::Several && silent >= limits.stuck;
        stuck.then_some((Phase::Stuck, Reason::Stuck { hanging: self.hanging, silent }))
    }

    /// What the probes make of it, unless the traffic says otherwise.
    fn down_by_probes(&self, now: Moment, limits: &Thresholds) -> Option<(Phase, Reason)> {
        let bad = self.probes.bad;
        let condemned = bad >= limits.fall && !self.served_lately(now, limits);
        condemned.then(|| (self.down(Cause::Probes, now, limits), Reason::BadProbes(bad)))
    }

    /// The live evidence against the upstream, if there is enough.
    fn condemned_by_traffic(&self, now: Moment, limits: &Thresholds) -> Option<Reason> {
        if self.live.bad >= limits.fall && self.bad_calls == Calls::Several {
            return Some(Reason::BadAttempts(self.live.bad));
        }
        let counts = self.window.counts(now, limits.window);
        let share_reached =
            counts.bad.saturating_mul(100) >= counts.total().saturating_mul(limits.bad_percent);
        if counts.bad > 0
            && counts.total() >= limits.window_minimum
            && share_reached
            && self.live.bad > 0
            && self.window_calls == Calls::Several
        {
            return Some(Reason::BadShare { bad: counts.bad, of: counts.total() });
        }
        None
    }

    fn served_lately(&self, now: Moment, limits: &Thresholds) -> bool {
        self.last_good_live.is_some_and(|at| now.since(at) <= limits.evidence)
    }

    fn down(&self, cause: Cause, now: Moment, limits: &Thresholds) -> Phase {
        let after = |flaps: u32| match flaps.checked_sub(1) {
            None => Duration::ZERO,
            Some(earlier) => limits.hold_down.wait(earlier),
        };
        let wait = if matches!(self.phase, Phase::Trial { .. }) {
            // Still the same outage. What tries costs nobody anything, so that it may come soon.
            after(self.flaps.saturating_sub(1)).max(limits.trial_again)
        } else {
            after(self.flaps)
        };
        Phase::Down { cause, until: now + wait }
    }

    fn forget_flaps(&mut self, now: Moment, limits: &Thresholds) {
        if matches!(self.phase, Phase::Down { .. }) {
            self.flap_forgotten = now;
        }
        while self.flaps > 0 && now.since(self.flap_forgotten) >= limits.decay {
            self.flaps -= 1;
            self.flap_forgotten = self.flap_forgotten + limits.decay;
        }
    }

    fn enter(&mut self, to: Phase, now: Moment) {
        let same = std::mem::discriminant(&self.phase) == std::mem::discriminant(&to);
        match to {
            Phase::Down { .. } if !same => {
                let came_back = !matches!(self.phase, Phase::Trial { .. });
                self.flaps = self.flaps.saturating_add(u32::from(came_back));
                self.flap_forgotten = now;
                self.probes.good = 0;
            }
            Phase::Trial { .. } if !same => {
                // The trial is judged on what happens in it.
                self.probes = Streak::default();
                self.live = Streak::default();
                self.bad_calls = Calls::None;
                self.hanging = 0;
                self.hanging_calls = Calls::None;
                self.counted_from = now;
            }
            // A settled doubt leaves the counts of failures alone; a passed trial begins anew.
            Phase::Well => {
                if self.hanging > 0 {
                    self.hanging = 0;
                    self.counted_from = self.last_good_start;
                }
                if matches!(self.phase, Phase::Trial { .. }) {
                    self.live = Streak::default();
                    self.bad_calls = Calls::None;
                    self.window = Window::default();
                    self.window_calls = Calls::None;
                }
            }
            _ => {}
        }
        if !same {
            self.since = now;
        }
        self.phase = to;
    }
}
