//! Reading the journal, of a process that runs or of one long gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;

use super::Entry;
use super::segments::{list, named};

/// What is read: from when on, and until when, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first moment.
    pub since: u64,
    /// The last.
    pub until: u64,
}

/// What one process wrote, segment by segment.
struct Stream {
    segments: VecDeque<PathBuf>,
    lines: Option<BufReader<File>>,
    /// Read, and not handed out yet.
    head: Option<Entry>,
}

/// How far it is read.
struct Count {
    done: u64,
    unreadable: u64,
}

/// Reads what is in a folder, and hands each entry to `take`: in the order in which a process wrote them,
/// and two processes that wrote side by side by their clocks. `progress` is told the share that was
/// read, from 0 to 1. Gives the number of lines that could not be read: cut off by a crash, or of another
/// version.
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
    let (mut streams, mut next) = streams(segments.into_iter().map(|(path, ..)| path));
    let (mut count, mut told) = (Count { done: 0, unreadable: 0 }, 0);
    while let Some(Reverse((_, place))) = next.pop() {
        let others = next.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let Some(stream) = streams.get_mut(place) else { continue };
        // Until another process has something older to say.
        loop {
            if let Some(entry) = stream.head.take()
                && (range.since..=range.until).contains(&entry.at)
            {
                take(entry);
            }
            let Some(entry) = stream.read(&mut count)? else { break };
            let at = entry.at;
            stream.head = Some(entry);
            if at > others {
                next.push(Reverse((at, place)));
                break;
            }
            if count.done - told >= 1 << 20 {
                told = count.done;
                progress(told as f64 / total.max(1) as f64);
            }
        }
    }
    progress(1.0);
    Ok(count.unreadable)
}

/// When each has something to say next, and which of them that is.
type Next = BinaryHeap<Reverse<(u64, usize)>>;

/// The segments by the process that wrote them, and when each process began.
fn streams(segments: impl Iterator<Item = PathBuf>) -> (Vec<Stream>, Next) {
    let mut by_process: BTreeMap<u64, (u64, VecDeque<PathBuf>)> = BTreeMap::new();
    for path in segments {
        let Some((began, process)) = named(&path) else { continue };
        by_process.entry(process).or_insert((began, VecDeque::new())).1.push_back(path);
    }
    let (mut streams, mut next) = (Vec::new(), BinaryHeap::new());
    for (began, segments) in by_process.into_values() {
        next.push(Reverse((began, streams.len())));
        streams.push(Stream { segments, lines: None, head: None });
    }
    (streams, next)
}

// === impl Stream ===

impl Stream {
    /// The next entry; none when all is read.
    fn read(&mut self, count: &mut Count) -> anyhow::Result<Option<Entry>> {
        let mut line = Vec::new();
        loop {
            let Some(lines) = &mut self.lines else {
                let Some(path) = self.segments.front() else { return Ok(None) };
                match File::open(path) {
                    Ok(file) => self.lines = Some(BufReader::new(file)),
                    // The edge has made room meanwhile.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        self.segments.pop_front();
                    }
                    Err(error) => {
                        return Err(error).with_context(|| format!("reading {}", path.display()));
                    }
                }
                continue;
            };
            line.clear();
            let read = lines.read_until(b'\n', &mut line);
            let place = || self.segments.front().map(|path| format!("reading {}", path.display()));
            if read.with_context(|| place().unwrap_or_default())? == 0 {
                self.lines = None;
                self.segments.pop_front();
                continue;
            }
            count.done += line.len() as u64;
            match serde_json::from_slice(&line) {
                Ok(entry) => return Ok(Some(entry)),
                // The last line of a segment that is being written may be only half there.
                Err(_) => count.unreadable += u64::from(line.ends_with(b"\n")),
            }
        }
    }
}
