//! A bar on the terminal, for what takes longer than a moment.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// What takes no longer needs no bar.
const AT_ONCE: Duration = Duration::from_millis(500);
/// How often it moves.
const EVERY: Duration = Duration::from_millis(100);
const WIDTH: usize = 40;

/// How far something has come.
pub(super) struct Progress {
    what: &'static str,
    shown: bool,
    began: Instant,
    moved: Instant,
    drawn: bool,
}

// === impl Progress ===

impl Progress {
    /// A bar for what has just begun; `shown` says whether anybody sees it.
    pub(super) fn new(what: &'static str, shown: bool) -> Progress {
        let now = Instant::now();
        Progress { what, shown, began: now, moved: now, drawn: false }
    }

    /// Shows how far it has come, from 0 to 1.
    pub(super) fn show(&mut self, share: f64) {
        let due = self.began.elapsed() >= AT_ONCE && self.moved.elapsed() >= EVERY;
        if !self.shown || !due {
            return;
        }
        self.moved = Instant::now();
        self.drawn = true;
        let full = ((share * WIDTH as f64) as usize).min(WIDTH);
        let (bar, rest) = ("#".repeat(full), " ".repeat(WIDTH - full));
        // Whether it can be seen matters to nobody else.
        let _ = write!(std::io::stderr(), "\r{} [{bar}{rest}] {:3.0} %", self.what, share * 100.0);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(std::io::stderr(), "\r{}\r", " ".repeat(WIDTH + self.what.len() + 12));
        }
    }
}
