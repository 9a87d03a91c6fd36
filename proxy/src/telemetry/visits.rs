//! The log of visits: one line each, as cheap as it can be.
//!
//! A line is formatted where the visit ends and handed to a thread that writes what has gathered a
//! hundred times a second. Handing over neither waits nor wakes anybody: a sleeping thread woken for
//! every visit would cost more than the visit's whole proof. When the thread cannot keep up (a full
//! disk, a stopped pipe), lines are dropped and counted.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use prometheus::IntCounter;

use crate::config::LogFormat;

/// Lines that may wait: several seconds of a very busy edge.
const QUEUE: usize = 65_536;
/// How long the end of the process waits for what was not written yet.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often what has gathered is written.
const GATHER: Duration = Duration::from_millis(10);

/// Takes the lines of visits.
#[derive(Debug, Clone)]
pub struct VisitLog {
    lines: Option<SyncSender<String>>,
    dropped: IntCounter,
    format: LogFormat,
}

/// Waits, when dropped, until everything handed over was written, but not for ever: a reader that has
/// stopped reading must not keep the process alive.
#[derive(Debug)]
pub struct VisitLogGuard {
    stop: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

/// A line under construction.
#[derive(Debug)]
pub struct Line {
    text: String,
    format: LogFormat,
}

impl VisitLog {
    /// A log that goes to standard error.
    pub fn start(
        format: LogFormat,
        dropped: IntCounter,
    ) -> std::io::Result<(VisitLog, VisitLogGuard)> {
        VisitLog::start_to(std::io::stderr(), format, dropped)
    }

    fn start_to(
        out: impl Write + Send + 'static,
        format: LogFormat,
        dropped: IntCounter,
    ) -> std::io::Result<(VisitLog, VisitLogGuard)> {
        let (lines, waiting) = sync_channel(QUEUE);
        let (stop, stopped) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        let lost = dropped.clone();
        std::thread::Builder::new().name("holdline-visits".into()).spawn(move || {
            write(out, &waiting, &stopped, &lost);
            drop(end);
        })?;
        let log = VisitLog { lines: Some(lines), dropped, format };
        Ok((log, VisitLogGuard { stop: Some(stop), ended }))
    }

    /// A log beside this one that goes nowhere.
    pub fn silent(&self) -> VisitLog {
        VisitLog { lines: None, dropped: self.dropped.clone(), format: self.format }
    }

    /// A line to fill; none when nobody would read it.
    pub fn line(&self) -> Option<Line> {
        self.lines.as_ref()?;
        let mut text = String::with_capacity(320);
        let (before, behind) = match self.format {
            LogFormat::Json => ("{\"timestamp\":\"", "\",\"level\":\"INFO\",\"target\":\"visit\""),
            LogFormat::Text => ("", "  INFO visit:"),
        };
        text.push_str(before);
        push_now(&mut text);
        text.push_str(behind);
        Some(Line { text, format: self.format })
    }

    /// Hands over a line.
    pub fn push(&self, line: Line) {
        let Some(lines) = &self.lines else { return };
        let Line { mut text, format } = line;
        text.push_str(if format == LogFormat::Json { "}\n" } else { "\n" });
        if lines.try_send(text).is_err() {
            self.dropped.inc();
        }
    }
}

/// Writes the time, as RFC 3339 in UTC. The calendar is asked once a second, not once a visit.
fn push_now(text: &mut String) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, shown)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            *shown = humantime::format_rfc3339_seconds(now).to_string();
            // The zone, behind the fraction.
            shown.pop();
        }
        text.push_str(shown);
    });
    // Writing to memory does not fail.
    let _ = write!(text, ".{:06}Z", since.subsec_micros());
}

// === impl Line ===

impl Line {
    /// A field whose text needs no escaping: names of ours, identifiers of digits and letters.
    pub fn word(&mut self, name: &str, value: &str) {
        self.pieces(name, |text| text.push_str(value));
    }

    /// A field that is written in pieces.
    pub fn pieces(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        let (before, behind) = match self.format {
            LogFormat::Json => ([",\"", name, "\":\""], "\""),
            LogFormat::Text => ([" ", name, "="], ""),
        };
        before.into_iter().for_each(|piece| self.text.push_str(piece));
        write(&mut self.text);
        self.text.push_str(behind);
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: u64) {
        let _ = match self.format {
            LogFormat::Json => write!(self.text, ",\"{name}\":{value}"),
            LogFormat::Text => write!(self.text, " {name}={value}"),
        };
    }

    /// A flag; written only when it is set.
    pub fn flag(&mut self, name: &str, set: bool) {
        if set {
            let _ = match self.format {
                LogFormat::Json => write!(self.text, ",\"{name}\":true"),
                LogFormat::Text => write!(self.text, " {name}"),
            };
        }
    }
}

impl Drop for VisitLogGuard {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Either way there is nothing more to be done.
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

fn write(
    mut out: impl Write,
    waiting: &Receiver<String>,
    stopped: &Receiver<()>,
    lost: &IntCounter,
) {
    let mut gathered = String::new();
    loop {
        let last =
            matches!(stopped.recv_timeout(GATHER), Ok(()) | Err(RecvTimeoutError::Disconnected));
        let mut count = 0;
        while let Ok(line) = waiting.try_recv() {
            gathered.push_str(&line);
            count += 1;
        }
        if !gathered.is_empty() {
            if out.write_all(gathered.as_bytes()).is_err() {
                lost.inc_by(count);
            }
            gathered.clear();
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe whose reader has stopped reading.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stopped_reading_does_not_keep_the_process_alive() {
        let (_never, stuck) = sync_channel(1);
        let lost = IntCounter::new("lost", "lost").unwrap();
        let (log, guard) = VisitLog::start_to(Stuck(stuck), LogFormat::Json, lost).unwrap();
        log.push(log.line().unwrap());
        let begun = std::time::Instant::now();
        drop(guard);
        assert!(begun.elapsed() < LAST_WORDS * 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (never, stuck) = sync_channel(1);
        drop(never);
        let lost = IntCounter::new("lost", "lost").unwrap();
        let (log, guard) = VisitLog::start_to(Stuck(stuck), LogFormat::Json, lost.clone()).unwrap();
        log.push(log.line().unwrap());
        drop(guard);
        assert_eq!(lost.get(), 1);
    }

    #[test]
    fn a_line_is_json() {
        let (sender, receiver) = sync_channel(1);
        let dropped = IntCounter::new("d", "d").unwrap();
        let log = VisitLog { lines: Some(sender), dropped, format: LogFormat::Json };
        let mut line = log.line().unwrap();
        line.word("row", "callin_create");
        line.number("us", 7);
        line.flag("panicked", false);
        line.flag("unwritten", true);
        log.push(line);
        let value: serde_json::Value = serde_json::from_str(&receiver.recv().unwrap()).unwrap();
        assert_eq!(
            (&value["row"], &value["us"], &value["unwritten"]),
            (&"callin_create".into(), &7.into(), &true.into())
        );
        let time = value["timestamp"].as_str().unwrap();
        let written = humantime::parse_rfc3339(time).unwrap();
        assert!(written.elapsed().unwrap() < Duration::from_secs(60), "{time}");
        assert!(value["panicked"].is_null());
        log.push(log.line().unwrap());
        log.push(log.line().unwrap());
        assert_eq!(log.dropped.get(), 1);
    }
}
