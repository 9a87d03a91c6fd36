//! What the verdict counts: outcomes in a row, and calls that speak.

use serde::{Deserialize, Serialize};

use super::words::Grade;

/// Truly consecutive outcomes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Streak {
    pub(super) good: u32,
    pub(super) bad: u32,
}

/// Whether one call or more than one was seen. Two are all that is ever asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Calls {
    #[default]
    None,
    One(u64),
    Several,
}

// === impl Streak ===

impl Streak {
    pub(super) fn count(&mut self, grade: Grade) {
        *self = match grade {
            Grade::Good => Streak { good: self.good.saturating_add(1), bad: 0 },
            Grade::Bad => Streak { good: 0, bad: self.bad.saturating_add(1) },
        };
    }
}

// === impl Calls ===

impl Calls {
    pub(super) fn add(&mut self, call: u64) {
        *self = match *self {
            Calls::None => Calls::One(call),
            Calls::One(known) if known == call => Calls::One(known),
            Calls::One(_) | Calls::Several => Calls::Several,
        };
    }
}
