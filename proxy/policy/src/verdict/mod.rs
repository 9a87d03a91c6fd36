//! What is believed of an upstream, as a pure step from one observation to the next belief.
//!
//! Three principles run through its states and rules. Traffic outranks probes: probes alone never take down an upstream that is serving. Slow is
//! not bad: an attempt that answers late and well counts as good, and one that has not ended yet
//! condemns nothing, though callers need not wait for it. And nothing is condemned on the word of one
//! call: live evidence needs two.
//!
//! "Consecutive" means what it says: one good outcome in between starts the count again, for every
//! kind of failure alike.
//!
//! A [`Verdict`] is about an upstream, or about one row of it that is judged by itself because it fails
//! alone; a [`Belief`] holds both together, and says which of them an observation speaks of.

mod belief;
mod counts;
mod remember;
mod rules;
mod words;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::window::{Counts, Window};
pub use belief::{Belief, Subject};
use counts::{Distinct, Latest, Streak};
pub use words::{Attempt, Cause, Change, Grade, Observation, Phase, Reason, RowId, Thresholds};

/// Whatever has not ended so long after the last attempt turned slow has ended without a word: attempts
/// are given up after 45 s.
const NOTHING_HANGS_LONGER: Duration = Duration::from_secs(60);

/// The belief about one upstream or row, with all it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether probes speak of it. They do not of a row: what brings it back is time, and visits.
    probed: bool,
    phase: Phase,
    since: Moment,
    probes: Streak,
    live: Streak,
    good_since_bad: u32,
    bad_calls: Distinct<u64>,
    bad_rows: Distinct<RowId>,
    window: Window,
    window_calls: Latest<u64>,
    window_rows: Latest<RowId>,
    /// Attempts that took longer than they should, among all; the former are counted as bad.
    slow: Window,
    /// When anything last ended well, a probe or an attempt.
    proven: Option<Moment>,
    last_good_live: Option<Moment>,
    last_bad_live: Option<Moment>,
    good_rows: Latest<RowId>,
    hanging: u32,
    hanging_since: Moment,
    hanging_calls: Distinct<u64>,
    hanging_rows: Distinct<RowId>,
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
            probed: true,
            phase: Phase::Well,
            since: now,
            probes: Streak::default(),
            live: Streak::default(),
            good_since_bad: 0,
            bad_calls: Distinct::None,
            bad_rows: Distinct::None,
            window: Window::default(),
            window_calls: Latest::default(),
            window_rows: Latest::default(),
            slow: Window::default(),
            proven: None,
            last_good_live: None,
            last_bad_live: None,
            good_rows: Latest::default(),
            hanging: 0,
            hanging_since: now,
            hanging_calls: Distinct::None,
            hanging_rows: Distinct::None,
            last_hanging: now,
            last_good_start: Moment::default(),
            last_slow: now,
            counted_from: now,
            flaps: 0,
            flap_forgotten: now,
        }
    }

    /// A row of which nothing is known yet, but that something of it fails or hangs that began after
    /// `counted_from`.
    fn of_a_row(now: Moment, counted_from: Moment) -> Verdict {
        Verdict { probed: false, counted_from, ..Verdict::new(now) }
    }

    /// The belief as another process goes on with it that made none of the attempts it rests on: those
    /// that hang end elsewhere, and none of them is heard of again.
    #[must_use]
    pub fn inherited(self, now: Moment) -> Verdict {
        let phase = if self.phase == Phase::Stuck { Phase::Doubtful } else { self.phase };
        let mut inherited = Verdict { phase, ..self };
        inherited.forget_what_hangs(now);
        inherited
    }

    /// The same, where rows have other numbers.
    fn renumbered(self, number: impl Fn(RowId) -> Option<RowId>) -> Verdict {
        Verdict {
            bad_rows: self.bad_rows.renumbered(&number),
            window_rows: self.window_rows.renumbered(&number),
            good_rows: self.good_rows.renumbered(&number),
            ..self
        }
    }

    fn forget_what_hangs(&mut self, now: Moment) {
        self.hanging = 0;
        self.hanging_calls = Distinct::None;
        self.hanging_rows = Distinct::None;
        self.counted_from = now;
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

    /// Good and bad attempts in the window.
    pub fn window(&self, now: Moment, limits: &Thresholds) -> Counts {
        self.window.counts(now, limits.window)
    }

    /// The share of attempts in the window that took longer than they should, from 0 to 1.
    pub fn slow_share(&self, now: Moment, limits: &Thresholds) -> f64 {
        let counts = self.slow.counts(now, limits.window);
        if counts.total() == 0 { 0.0 } else { f64::from(counts.bad) / f64::from(counts.total()) }
    }

    /// Attempts observed as slow that have not ended.
    pub fn hanging(&self) -> u32 {
        self.hanging
    }

    /// When a probe or an attempt last ended well.
    pub fn proven(&self) -> Option<Moment> {
        self.proven
    }

    /// How often it went down lately, up to as often as makes a difference.
    pub fn flaps(&self) -> u32 {
        self.flaps
    }

    /// Which kind of evidence says that the upstream fails, where the other kind says that it does not.
    /// Attempts speak for as long as `evidence`, probes until the next one.
    pub fn disagreement(&self, now: Moment, limits: &Thresholds) -> Option<Cause> {
        let lately = |at: Option<Moment>| at.filter(|at| now.since(*at) <= limits.evidence);
        let (good, bad) = (lately(self.last_good_live), lately(self.last_bad_live));
        if self.probes.bad > 0 && good > bad {
            Some(Cause::Probes)
        } else if self.probes.good > 0 && bad > good {
            Some(Cause::Traffic)
        } else {
            None
        }
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
        if self.hanging > 0 && now.since(self.last_slow) >= NOTHING_HANGS_LONGER {
            // An end that was never told of keeps nobody waiting for ever.
            self.forget_what_hangs(now);
        }
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
        self.enter(to, reason, now, limits);
        (self, change.is_transition().then_some(change))
    }

    /// What an observation says after the time it tells of is over, if it is: nothing. A late good answer
    /// is good. A late bad one may tell of a time that is over: of one before the
    /// trial, or of an outage that has long ended well.
    fn without_what_is_outlived(&self, seen: Observation) -> Observation {
        let Observation::Live { grade: Grade::Bad, attempt, was_slow, .. } = seen else {
            return seen;
        };
        let started = attempt.started;
        let before_the_trial = matches!(self.phase, Phase::Trial { .. }) && started < self.since;
        let outlived = was_slow && started < self.counted_from;
        if !before_the_trial && !outlived {
            seen
        } else if was_slow {
            Observation::Dropped(attempt)
        } else {
            Observation::Tick
        }
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

    fn enter(&mut self, to: Phase, reason: Reason, now: Moment, limits: &Thresholds) {
        let same = std::mem::discriminant(&self.phase) == std::mem::discriminant(&to);
        match to {
            Phase::Down { .. } if !same => {
                let came_back = !matches!(self.phase, Phase::Trial { .. });
                // What can be held down no longer for it would only be remembered longer. One more than that
                // counts: a trial that fails is held down for as long as its outage was.
                let counts = self.flaps < 2 || !limits.hold_down.is_longest(self.flaps - 2);
                self.flaps += u32::from(came_back && counts);
                self.flap_forgotten = now;
                self.probes.good = 0;
                // What served before is no witness of what comes.
                self.good_rows = Latest::default();
            }
            Phase::Trial { .. } if !same => {
                // The trial is judged on what happens in it.
                self.probes = Streak::default();
                self.begin_anew();
                self.slow = Window::default();
                self.forget_what_hangs(now);
            }
            // A settled doubt leaves the counts of failures alone; a passed trial begins anew.
            Phase::Well => {
                if self.hanging > 0 {
                    self.hanging = 0;
                    self.counted_from = self.last_good_start;
                }
                if matches!(self.phase, Phase::Trial { .. }) {
                    self.begin_anew();
                    self.window = Window::default();
                    self.window_calls = Latest::default();
                    self.window_rows = Latest::default();
                }
                if reason == Reason::Untested {
                    // Nobody has seen it work: one more failure takes it out again.
                    self.live.bad = limits.fall.saturating_sub(1);
                    self.bad_calls = Distinct::Several;
                }
            }
            _ => {}
        }
        if !same {
            self.since = now;
        }
        self.phase = to;
    }

    fn begin_anew(&mut self) {
        self.live = Streak::default();
        self.bad_calls = Distinct::None;
        self.bad_rows = Distinct::None;
    }

    /// How long it stays down now.
    fn hold_down(&self, limits: &Thresholds) -> Duration {
        let after = |flaps: u32| match flaps.checked_sub(1) {
            None => Duration::ZERO,
            Some(earlier) => limits.hold_down.wait(earlier),
        };
        if matches!(self.phase, Phase::Trial { .. }) {
            // Still the same outage. What tries costs nobody anything, so that it may come soon.
            return after(self.flaps.saturating_sub(1)).max(limits.trial_again);
        }
        // Probes say when to try an upstream again; for a row only time does.
        let least = if self.probed { Duration::ZERO } else { limits.trial_again };
        after(self.flaps).max(least)
    }
}
