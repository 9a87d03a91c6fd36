//! The journal of health: what was seen of the upstreams, what was believed and why, and what the
//! operator ordered, on disk.
//!
//! It is there to be read: by people (`holdline history`), and by `holdline tune`, which judges what was
//! seen by other thresholds. So it holds every probe, every attempt that did not end well, the others
//! as runs, and every change with the numbers behind it; no telephone number, no CallSid, no body.
//! It is written beside the way, a few times a second, and nobody waits for it: what cannot be written
//! is lost and counted. A crash loses the last moments at the most, and nothing acknowledged.
//!
//! It consists of segments, each a file of one JSON object a line, named after the time of its beginning
//! and the process that writes it; the oldest are deleted when there is too much or they are too old.

mod entry;
mod reader;
mod runs;
mod segments;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use entry::{Entry, Name, Numbers, What};
pub use reader::{Range, read};
pub use runs::Runs;
use segments::Segments;

use crate::clock::unix_ms;
use crate::telemetry::{Lines, LinesGuard, Metrics};

/// Entries that may wait to be written.
const QUEUE: usize = 16_384;
/// How often what has gathered is written.
const GATHER: Duration = Duration::from_millis(100);

/// What was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The folder of its segments, and of the state that outlives the process.
    pub folder: PathBuf,
    /// How large it may become, in bytes.
    pub most_bytes: u64,
    /// How old its entries may become.
    pub longest: Duration,
    /// How old a state may be that a new process goes on with.
    pub state_longest: Duration,
}

/// Takes entries.
#[derive(Debug, Clone)]
pub struct Journal {
    lines: Lines,
    metrics: Arc<Metrics>,
}

// === impl Journal ===

impl Journal {
    /// Opens it for this process. The guard is dropped last.
    pub fn start(
        config: &JournalConfig,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<(Journal, LinesGuard)> {
        let segments = Segments::new(config.clone(), metrics.journal_bytes.clone());
        let lost = metrics.journal_lost.clone();
        let (lines, guard) = Lines::start("holdline-journal", segments, GATHER, QUEUE, lost)?;
        Ok((Journal { lines, metrics: metrics.clone() }, guard))
    }

    /// Writes down what happens now.
    pub fn note(&self, what: What) {
        let Ok(mut line) = serde_json::to_string(&Entry { at: unix_ms(), what }) else { return };
        line.push('\n');
        self.metrics.journal_entries.inc();
        self.lines.push(line);
    }
}
