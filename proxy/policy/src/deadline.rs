//! How long a visit may take, and how much of that one attempt may use.
//!
//! Twilio gives up after 15 s; the budget is far below that, because a lost packet may already have
//! eaten 5 s before the first byte arrived. Whatever happens, the last part of the budget belongs to
//! the canned answer and to nothing else.

use std::time::Duration;

use crate::moment::Moment;

/// Kept back for choosing and writing a canned answer.
pub const RESERVE: Duration = Duration::from_millis(250);

/// An attempt with less time than this is not begun: it would end in a timeout and teach nothing.
pub const SHORTEST_ATTEMPT: Duration = Duration::from_millis(100);

/// The moment by which a visit must have been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    start: Moment,
    end: Moment,
}

// === impl Deadline ===

impl Deadline {
    /// The deadline of a visit whose first byte arrived at `start`.
    pub fn new(start: Moment, budget: Duration) -> Deadline {
        Deadline { start, end: start + budget }
    }

    /// When the visit began.
    pub fn start(self) -> Moment {
        self.start
    }

    /// When the visit must have been answered.
    pub fn end(self) -> Moment {
        self.end
    }

    /// The last moment at which an upstream's answer may come; what follows is for a canned one.
    pub fn last_moment(self) -> Moment {
        Moment::at(self.end.since_start().saturating_sub(RESERVE))
    }

    /// The time one attempt may take when up to `others` more may follow it: an even share of what
    /// is left beside the reserve. `None` when too little is left to begin.
    pub fn slice(self, now: Moment, others: usize) -> Option<Duration> {
        let spendable = self.end.since(now).saturating_sub(RESERVE);
        let sharers = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
        let slice = spendable / sharers;
        (slice >= SHORTEST_ATTEMPT).then_some(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn attempts_share_what_is_left_beside_the_reserve() {
        let deadline = Deadline::new(Moment::at(ms(1000)), ms(9000));
        assert_eq!(deadline.slice(Moment::at(ms(1000)), 1), Some(ms(4375)));
        assert_eq!(deadline.slice(Moment::at(ms(5375)), 0), Some(ms(4375)));
        assert_eq!(deadline.slice(Moment::at(ms(9649)), 0), Some(ms(101)));
        assert_eq!(deadline.slice(Moment::at(ms(9651)), 0), None);
        assert_eq!(deadline.slice(Moment::at(ms(99_000)), 0), None);
    }

    proptest! {
        #[test]
        fn a_slice_always_leaves_the_reserve(budget in 1u64..15_000, gone in 0u64..20_000, others in 0usize..4) {
            let deadline = Deadline::new(Moment::at(ms(0)), ms(budget));
            if let Some(slice) = deadline.slice(Moment::at(ms(gone)), others) {
                prop_assert!(ms(gone) + slice + RESERVE <= ms(budget));
            }
        }
    }
}
