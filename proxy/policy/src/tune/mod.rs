//! What other thresholds would have made of it: a past, or a scenario, run through the very code that
//! judges in production.
//!
//! A [`World`] says what an origin did: how it would have answered each probe and each visit, as far as
//! anybody knows, and when it was really failing. [`run`] lets an edge with given thresholds live
//! through it, with a monitor that always answers, and gives a [`Score`]. What the world does not know
//! is not made up: it is counted as unknown, and the edge sees nothing.

mod recommend;
mod run;
mod scenario;
mod world;

pub use recommend::{Advice, FEW_A_DAY, MOST_UNKNOWN, Ranked, Recommendation, recommend};
pub use run::{Score, Span, run};
pub use scenario::Scenario;
pub use world::{Fate, Happened, Observed, Outage, Probed, Visit, World};

use crate::pace::Pace;
use crate::verdict::Thresholds;

/// One set of numbers to judge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// The pace of the probes.
    pub pace: Pace,
}

#[cfg(test)]
mod tests;
