//! What the edge decides, apart from how it does it.
//!
//! Everything here is a function of its arguments: the time is passed in, chance is passed in, and
//! nothing reads a file, a clock or a socket. That is what lets a simulation run years of failures
//! in seconds and a journal be replayed through the very code that runs in production.
//!
//! In the order in which a request meets it: the [`catalogue`] says what an endpoint needs, a
//! [`deadline`] how long there is, [`choice`] whom to ask next and when to stop asking, [`hedge`] when
//! to ask two at once, [`budget`] how often. Beside that way, [`verdict`] turns observations into what
//! is believed of an upstream, and [`backoff`] says how long to wait before trying again.

pub mod backoff;
pub mod budget;
pub mod catalogue;
pub mod chance;
pub mod choice;
pub mod deadline;
pub mod hedge;
pub mod moment;
pub mod outcome;
pub mod pace;
pub mod redelivery;
pub mod stance;
pub mod tune;
pub mod verdict;
pub mod window;

pub use budget::Budget;
pub use catalogue::{Catalogue, Found, Kind, Party, Replay, Row, RowSpec, Upstream};
pub use chance::Chance;
pub use choice::{Access, Course, Standing, Step, Stopped};
pub use deadline::Deadline;
pub use moment::Moment;
pub use outcome::{Ended, Outcome, Sent};
pub use pace::Pace;
pub use stance::Stance;
pub use verdict::{
    Belief, Cause, Change, Grade, Observation, Phase, Reason, RowId, Subject, Thresholds, Verdict,
};
