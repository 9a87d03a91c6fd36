//! How often a visit may be more than one attempt.
//!
//! A second attempt helps its caller and burdens an upstream that may be the worse for it, so a share
//! of the visits is all that may have one. It is charged when the decision is made: what is counted
//! only when it has been sent escapes the count while it waits.

use std::sync::atomic::{AtomicU32, Ordering};

/// How many more visits may ask twice: a tenth of all, and twenty at once.
#[derive(Debug)]
pub struct Budget {
    tenths: AtomicU32,
}

// === impl Budget ===

impl Budget {
    /// What one visit asked twice costs, in tenths of a visit.
    const COST: u32 = 10;
    /// The most that is saved up: twenty visits.
    const MOST: u32 = 200;

    /// A visit has begun, which earns a tenth of another.
    pub fn earn(&self) {
        // It matters nothing if two threads earn only one tenth at the brim.
        if self.tenths.load(Ordering::Relaxed) < Budget::MOST {
            self.tenths.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a visit may ask twice; if so, that is charged.
    pub fn spend(&self) -> bool {
        let less = |left: u32| left.checked_sub(Budget::COST);
        self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { tenths: AtomicU32::new(Budget::MOST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_visits_may_ask_twice() {
        let budget = Budget::default();
        let saved = (0..).take_while(|_| budget.spend()).count();
        assert_eq!(saved, 20);
        let mut spent = 0;
        for _ in 0..1000 {
            budget.earn();
            spent += u32::from(budget.spend());
        }
        assert_eq!(spent, 100);
    }
}
