//! The one place where the edge looks at the clock.

use std::time::Instant;

use holdline_policy::Moment;

/// Monotonic time since the process started.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

// === impl Clock ===

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Now.
    pub fn now(self) -> Moment {
        Moment::at(self.0.elapsed())
    }
}
