//! Counts of good and bad over a sliding stretch of time, in a fixed number of buckets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

const BUCKETS: usize = 10;

/// A sliding window of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// What the buckets were filled for; those of another length tell nothing.
    length: Duration,
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Bucket {
    /// Which stretch of time the counts belong to; the bucket is stale when it is another one.
    turn: u64,
    good: u32,
    bad: u32,
}

/// What a window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attempts that ended well.
    pub good: u32,
    /// Attempts that did not.
    pub bad: u32,
}

// === impl Window ===

impl Window {
    /// Counts one outcome at `now` in a window of `length`.
    pub fn count(&mut self, good: bool, now: Moment, length: Duration) {
        if self.length != length {
            *self = Window { length, ..Window::default() };
        }
        let turn = turn(now, length);
        let bucket = &mut self.buckets[(turn % BUCKETS as u64) as usize];
        if bucket.turn != turn {
            *bucket = Bucket { turn, ..Bucket::default() };
        }
        let counter = if good { &mut bucket.good } else { &mut bucket.bad };
        *counter = counter.saturating_add(1);
    }

    /// The counts of the last `length` before `now`.
    pub fn counts(&self, now: Moment, length: Duration) -> Counts {
        if self.length != length {
            return Counts::default();
        }
        let newest = turn(now, length);
        let fresh = |b: &&Bucket| b.turn <= newest && newest - b.turn < BUCKETS as u64;
        self.buckets.iter().filter(fresh).fold(Counts::default(), |sum, bucket| Counts {
            good: sum.good.saturating_add(bucket.good),
            bad: sum.bad.saturating_add(bucket.bad),
        })
    }
}

// === impl Counts ===

impl Counts {
    /// Good and bad together.
    pub fn total(self) -> u32 {
        self.good.saturating_add(self.bad)
    }
}

/// Turns count from one, so that an untouched bucket (turn zero) is never taken for a fresh one.
fn turn(now: Moment, length: Duration) -> u64 {
    let width = (length / BUCKETS as u32).as_nanos().max(1);
    u64::try_from(now.since_start().as_nanos() / width).unwrap_or(u64::MAX - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_outcomes_fall_out() {
        let length = Duration::from_secs(10);
        let at = |s| Moment::at(Duration::from_secs(s));
        let mut window = Window::default();
        window.count(true, at(0), length);
        window.count(false, at(5), length);
        assert_eq!(window.counts(at(5), length), Counts { good: 1, bad: 1 });
        assert_eq!(window.counts(at(10), length), Counts { good: 0, bad: 1 });
        assert_eq!(window.counts(at(30), length), Counts::default());
        // What was counted for another length is not taken for something it is not.
        window.count(false, at(30), length);
        let other = Duration::from_millis(10_010);
        assert_eq!(window.counts(at(30), other), Counts::default());
        window.count(true, at(30), other);
        assert_eq!(window.counts(at(30), other), Counts { good: 1, bad: 0 });
    }
}
