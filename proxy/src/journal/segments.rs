//! The files of the journal: written one after the other, deleted when there are too many.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use prometheus::IntGauge;

use super::JournalConfig;
use crate::clock::unix_ms;

/// What the name of a segment ends with.
const ENDING: &str = ".jsonl";
/// So many segments make the journal, so that deleting one loses little.
const SEGMENTS: u64 = 16;
/// A segment of its own for each such time, so that what is too old can go.
const LONGEST: Duration = Duration::from_secs(3600);
/// How soon another segment is begun after one could not be written.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// Where lines are written.
pub(super) struct Segments {
    config: JournalConfig,
    bytes: IntGauge,
    current: Option<Segment>,
    /// How many there were.
    number: u64,
    /// When one was last begun.
    begun: Option<Instant>,
    /// Whether it was said that it cannot be written.
    failing: bool,
}

struct Segment {
    path: PathBuf,
    file: File,
    size: u64,
    began: SystemTime,
    /// Whether the last write was cut off, so that what it began must be ended first.
    torn: bool,
}

// === impl Segments ===

impl Segments {
    pub(super) fn new(config: JournalConfig, bytes: IntGauge) -> Segments {
        Segments { config, bytes, current: None, number: 0, begun: None, failing: false }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let longest = LONGEST.min(self.config.longest / 4).max(Duration::from_secs(1));
        let full = |segment: &Segment| {
            segment.size >= self.config.most_bytes / SEGMENTS
                || segment.began.elapsed().unwrap_or(longest) >= longest
        };
        // One that was taken away is written by nobody's leave.
        let gone = |segment: &Segment| !segment.path.exists();
        let over = |segment: &Segment| full(segment) || gone(segment);
        if self.current.as_ref().is_none_or(over) {
            let soon = self.begun.is_some_and(|begun| begun.elapsed() < BEGIN_AGAIN);
            if soon && self.failing {
                return Err(io::Error::other("the last segment could not be written"));
            }
            self.current = None;
            self.begun = Some(Instant::now());
            self.make_room();
            self.number += 1;
            self.current = Some(Segment::create(&self.config.folder, self.number)?);
        }
        let Some(segment) = &mut self.current else { return Ok(()) };
        // One that cannot be written now may be written later; another would fare no better.
        segment.append(lines)?;
        self.bytes.add(i64::try_from(lines.len()).unwrap_or_default());
        Ok(())
    }

    /// Deletes the oldest until there is room for another.
    fn make_room(&self) {
        let mut segments = list(&self.config.folder).unwrap_or_default();
        let mut total: u64 = segments.iter().map(|(_, size, _)| size).sum();
        let most = self.config.most_bytes / SEGMENTS * (SEGMENTS - 1);
        // What claims to be of the future was written by a clock that was wrong; it goes first.
        let now = SystemTime::now() + LONGEST;
        segments.sort_by_key(|(_, _, changed)| *changed <= now);
        segments.retain(|(path, size, changed)| {
            let age = changed.elapsed().unwrap_or_default();
            let stays = *size > 0 && total <= most && age <= self.config.longest;
            if !stays && std::fs::remove_file(path).is_ok() {
                total -= size;
            }
            stays
        });
        self.bytes.set(i64::try_from(total).unwrap_or(i64::MAX));
    }
}

impl Write for Segments {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let appended = self.append(lines);
        if let Err(error) = &appended
            && !self.failing
        {
            let folder = self.config.folder.display();
            tracing::error!(%folder, %error, "the journal cannot be written; what happens is not kept");
        }
        self.failing = appended.is_err();
        appended.map(|()| lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Segment ===

impl Segment {
    fn create(folder: &Path, number: u64) -> io::Result<Segment> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let process = std::process::id();
        let name = format!("{:013}-{process}-{number:06}{ENDING}", unix_ms());
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        Ok(Segment { path, file, size: 0, began: SystemTime::now(), torn: false })
    }

    fn append(&mut self, mut lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        while !lines.is_empty() {
            match self.file.write(lines) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = true;
                    self.size += written as u64;
                    lines = &lines[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.torn = false;
        Ok(())
    }
}

/// The segments in a folder, oldest first: where, how large, when last written.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(PathBuf, u64, SystemTime)>> {
    let mut segments = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if named(&file.path()).is_some() {
            let about = file.metadata()?;
            segments.push((file.path(), about.len(), about.modified()?));
        }
    }
    segments.sort();
    Ok(segments)
}

/// When a segment was begun, in milliseconds since 1970, and by which process; none if it is not ours.
pub(super) fn named(path: &Path) -> Option<(u64, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    let parts: Vec<&str> = name.split('-').collect();
    let [began, process, number] = parts.as_slice() else { return None };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let ours = began.len() >= 13 && [began, process, number].iter().all(|part| digits(part));
    number.parse::<u64>().ok().filter(|_| ours)?;
    Some((began.parse().ok()?, process.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(folder: &Path, most_bytes: u64, longest: Duration) -> Segments {
        let state_longest = Duration::ZERO;
        let folder = folder.join("journal");
        let config = JournalConfig { folder, most_bytes, longest, state_longest };
        Segments::new(config, IntGauge::new("b", "b").unwrap())
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(86_400);
        let mut segments = segments(folder.path(), 16_000, day);
        for number in 0..100 {
            segments.append(format!("{number:0999}\n").as_bytes()).unwrap();
            let listed = list(&segments.config.folder).unwrap();
            let total: u64 = listed.iter().map(|(_, size, _)| size).sum();
            assert!(total <= 16_000, "{total}");
            assert_eq!(segments.bytes.get(), i64::try_from(total).unwrap());
        }
        let listed = list(&segments.config.folder).unwrap();
        let newest = std::fs::read_to_string(&listed.last().unwrap().0).unwrap();
        assert!(listed.len() > 10 && newest.ends_with("99\n"), "{listed:?}");
    }

    #[test]
    fn what_was_cut_off_is_ended_before_anything_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = Segment::create(folder.path(), 1).unwrap();
        segment.append(b"{\"half").unwrap();
        segment.torn = true;
        segment.append(b"{}\n").unwrap();
        let listed = list(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&listed[0].0).unwrap(), "{\"half\n{}\n");
    }

    #[test]
    fn only_what_is_ours_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = segments(folder.path(), 16_000, Duration::from_secs(86_400));
        segments.append(b"{}\n").unwrap();
        let others = ["waiting.jsonl", "0-1-2.jsonl", "1790000000000-1-x.jsonl", "state.json"];
        for name in others {
            std::fs::write(segments.config.folder.join(name), [b'x'; 9000]).unwrap();
        }
        for _ in 0..40 {
            segments.append(&[b'\n'; 1000]).unwrap();
        }
        assert!(others.iter().all(|name| segments.config.folder.join(name).exists()));
    }

    #[test]
    fn what_a_wrong_clock_has_written_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = segments(folder.path(), 16_000, Duration::from_secs(86_400));
        segments.append(b"{}\n").unwrap();
        let future = segments.config.folder.join("9790000000000-1-000001.jsonl");
        std::fs::write(&future, [b'x'; 1000]).unwrap();
        let later = SystemTime::now() + Duration::from_secs(9 * 86_400);
        File::open(&future).unwrap().set_modified(later).unwrap();
        for _ in 0..20 {
            segments.append(&[b'\n'; 1000]).unwrap();
        }
        assert!(!future.exists());
    }

    #[test]
    fn a_folder_that_comes_back_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = segments(folder.path(), 16_000, Duration::from_secs(86_400));
        std::fs::write(&segments.config.folder, "in the way").unwrap();
        assert!(segments.write_all(b"{}\n").is_err());
        std::fs::remove_file(&segments.config.folder).unwrap();
        // Not at once: a disk that is full is not made fuller.
        assert!(segments.write_all(b"{}\n").is_err());
        segments.begun = None;
        segments.write_all(b"{}\n").unwrap();
        std::fs::remove_dir_all(&segments.config.folder).unwrap();
        segments.write_all(b"{}\n").unwrap();
        assert_eq!(list(&segments.config.folder).unwrap().len(), 1);
    }
}
