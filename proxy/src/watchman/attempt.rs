//! One live attempt under observation.

use holdline_policy::verdict::Attempt;
use holdline_policy::{Grade, Moment, Observation, Outcome, Upstream};

use super::{RowWatch, Sight, Watch};

/// One live attempt under observation. One that is broken off before it ended says nothing, but that it does
/// not hang any longer.
#[derive(Debug)]
pub struct WatchedAttempt<'w> {
    pub(super) watch: &'w Watch,
    pub(super) upstream: Upstream,
    pub(super) row: &'w RowWatch,
    pub(super) call: u64,
    pub(super) begun: Moment,
    /// Whether it has turned slow, and its end was not told.
    pub(super) slow: bool,
}

// === impl WatchedAttempt ===

impl WatchedAttempt<'_> {
    /// The attempt has taken longer than an answer should, and goes on.
    pub fn turned_slow(&mut self) {
        self.slow = true;
        self.see(Observation::Slow(self.attempt()), "slow");
    }

    /// The attempt is over, and says nothing of the upstream.
    pub fn says_nothing(self) {}

    /// The attempt is over.
    pub fn ended(mut self, outcome: Outcome) {
        let (attempt, was_slow) = (self.attempt(), self.slow);
        let seen = match outcome.grade() {
            Some(grade) => {
                let took = self.watch.clock.now().since(self.begun);
                if grade == Grade::Good && self.watch.only_counts(&self, took) {
                    return self.row.count_good(self.upstream);
                }
                Observation::Live { grade, attempt, took, was_slow }
            }
            None if matches!(outcome, Outcome::Status(400..500)) => {
                Observation::Rejected { attempt, was_slow }
            }
            None => return,
        };
        self.slow = false;
        self.see(seen, outcome.name());
    }

    fn attempt(&self) -> Attempt {
        Attempt { call: self.call, row: self.row.id, started: self.begun }
    }

    fn see(&self, seen: Observation, what: &'static str) {
        let took = self.watch.clock.now().since(self.begun);
        self.watch.see(self.upstream, Sight { seen, what, took });
    }
}

impl Drop for WatchedAttempt<'_> {
    fn drop(&mut self) {
        if self.slow {
            self.see(Observation::Dropped(self.attempt()), "dropped");
        }
    }
}
