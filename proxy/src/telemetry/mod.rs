//! What the edge says of itself: metrics and logs.

mod lines;
mod logs;
mod metrics;
mod spool;
mod visits;

pub use lines::{Lines, LinesGuard};
pub use logs::{LogGuard, init};
pub use metrics::{InFlight, Metrics, RowCounts, unix_seconds};
pub use visits::{Line, VisitLog};
