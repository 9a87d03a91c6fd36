//! What the edge says of itself: metrics and logs.

mod logs;
mod metrics;

pub use logs::{LogGuard, init};
pub use metrics::Metrics;
