//! What an observation leaves behind in the counts, whatever is made of it.

use std::time::Duration;

use super::Verdict;
use super::counts::Distinct;
use super::words::{Attempt, Grade, Observation, Thresholds};
use crate::moment::Moment;

// === impl Verdict ===

impl Verdict {
    pub(super) fn remember(&mut self, seen: Observation, now: Moment, limits: &Thresholds) {
        match seen {
            Observation::Probe(grade) => {
                self.probes.count(grade);
                self.tell_good_from_bad(grade, now);
            }
            Observation::Slow(attempt) => self.remember_slow(attempt, now),
            Observation::Live { grade, attempt, took, was_slow } => {
                self.live.count(grade);
                self.tell_good_from_bad(grade, now);
                self.remember_in_windows(grade, took, now, limits);
                match grade {
                    Grade::Good => self.remember_good(attempt, now),
                    Grade::Bad => self.remember_bad(attempt, now),
                }
                if was_slow {
                    self.no_longer_hangs(attempt.started);
                }
            }
            Observation::Rejected { attempt: Attempt { started, .. }, was_slow } => {
                if was_slow {
                    self.no_longer_hangs(started);
                }
            }
            Observation::Dropped(attempt) => self.no_longer_hangs(attempt.started),
            Observation::Tick => {}
        }
    }

    fn remember_slow(&mut self, Attempt { call, row, started }: Attempt, now: Moment) {
        self.good_since_bad = 0;
        self.last_slow = now;
        if started >= self.counted_from {
            self.hanging = self.hanging.saturating_add(1);
            self.last_hanging = self.last_hanging.max(started);
        }
        // What began before something that has ended well says nothing of the time after it.
        if started > self.last_good_start {
            if self.hanging_calls == Distinct::None {
                self.hanging_since = started;
            }
            self.hanging_calls.add(call);
            self.hanging_rows.add(row);
        }
    }

    fn remember_in_windows(
        &mut self,
        grade: Grade,
        took: Duration,
        now: Moment,
        limits: &Thresholds,
    ) {
        self.window.count(grade == Grade::Good, now, limits.window);
        self.slow.count(took <= limits.slow_after, now, limits.window);
    }

    fn remember_good(&mut self, Attempt { row, started, .. }: Attempt, now: Moment) {
        self.last_good_live = Some(now);
        self.last_good_start = self.last_good_start.max(started);
        self.bad_calls = Distinct::None;
        self.bad_rows = Distinct::None;
        self.hanging_calls = Distinct::None;
        self.hanging_rows = Distinct::None;
        self.good_rows.note(row, now);
    }

    fn remember_bad(&mut self, Attempt { call, row, .. }: Attempt, now: Moment) {
        self.last_bad_live = Some(now);
        self.bad_calls.add(call);
        self.bad_rows.add(row);
        self.window_calls.note(call, now);
        self.window_rows.note(row, now);
    }

    fn tell_good_from_bad(&mut self, grade: Grade, now: Moment) {
        self.good_since_bad = match grade {
            Grade::Good => {
                self.proven = Some(now);
                self.good_since_bad.saturating_add(1)
            }
            Grade::Bad => 0,
        };
    }

    /// Attempts begun before the count began anew were never in it.
    fn no_longer_hangs(&mut self, started: Moment) {
        if started >= self.counted_from {
            self.hanging = self.hanging.saturating_sub(1);
        }
    }
}
