//! What the edge says of itself: metrics and logs.

mod logs;
mod metrics;
mod spool;
mod visits;

pub use logs::{LogGuard, init};
pub use metrics::{InFlight, Metrics, RowCounts};
pub use visits::{Line, VisitLog, VisitLogGuard};
