//! The one place where the edge looks at the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdline_policy::Moment;

/// Monotonic time since the process, or the first of those whose beliefs it goes on with, was started.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

// === impl Clock ===

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// A clock that goes on where one of another process is, or was.
    pub fn continued(elapsed: Duration) -> Clock {
        let now = Instant::now();
        Clock(now.checked_sub(elapsed).unwrap_or(now))
    }

    /// Now.
    pub fn now(self) -> Moment {
        Moment::at(self.0.elapsed())
    }
}

/// Milliseconds since 1970, by the wall clock: the only clock that several edges share.
pub fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A time in whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
