//! Reading the journal, of a process that runs or of one long gone.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;

use super::Entry;
use super::segments::list;

/// What is read: from when on, and until when, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first moment.
    pub since: u64,
    /// The last.
    pub until: u64,
}

/// Reads what is in a folder, segment by segment, and hands each entry to `take`; nearly in order, because
/// two processes may have written side by side. `progress` is told the share that was read, from 0
/// to 1. Gives the number of lines that could not be read: cut off by a crash, or of another version.
pub fn read(
    folder: &Path,
    range: Range,
    mut take: impl FnMut(Entry),
    mut progress: impl FnMut(f64),
) -> anyhow::Result<u64> {
    let mut segments =
        list(folder).with_context(|| format!("there is no journal in {}", folder.display()))?;
    // What was last written before the range begins holds nothing of it.
    let since = UNIX_EPOCH + Duration::from_millis(range.since);
    segments.retain(|(_, _, changed)| *changed >= since);
    let total: u64 = segments.iter().map(|(_, size, _)| size).sum();
    let (mut done, mut unreadable) = (0, 0);
    for (path, ..) in segments {
        let place = || format!("reading {}", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            // The edge has made room meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(place),
        };
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        let mut told = done;
        while lines.read_until(b'\n', &mut line).with_context(place)? > 0 {
            done += line.len() as u64;
            match serde_json::from_slice::<Entry>(&line) {
                Ok(entry) if (range.since..=range.until).contains(&entry.at) => take(entry),
                Ok(_) => {}
                // The last line of a segment that is being written may be only half there.
                Err(_) if line.ends_with(b"\n") => unreadable += 1,
                Err(_) => {}
            }
            line.clear();
            if done - told >= 1 << 20 {
                told = done;
                progress(done as f64 / total.max(1) as f64);
            }
        }
    }
    progress(1.0);
    Ok(unreadable)
}
