//! The log of visits: one line each, as cheap as it can be.
//!
//! A line is formatted where the visit ends and handed to a thread that writes what has gathered a
//! hundred times a second ([`Lines`]).

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use prometheus::IntCounter;

use super::lines::{Lines, LinesGuard};
use crate::config::LogFormat;

/// Lines that may wait: several seconds of a very busy edge.
const QUEUE: usize = 65_536;
/// How often what has gathered is written.
const GATHER: Duration = Duration::from_millis(10);

/// Takes the lines of visits.
#[derive(Debug, Clone)]
pub struct VisitLog {
    lines: Option<Lines>,
    format: LogFormat,
}

/// A line under construction.
#[derive(Debug)]
pub struct Line {
    text: String,
    format: LogFormat,
}

impl VisitLog {
    /// A log that goes to standard error.
    pub fn start(format: LogFormat, lost: IntCounter) -> std::io::Result<(VisitLog, LinesGuard)> {
        let out = std::io::stderr();
        let (lines, guard) = Lines::start("holdline-visits", out, GATHER, QUEUE, lost)?;
        Ok((VisitLog { lines: Some(lines), format }, guard))
    }

    /// A log beside this one that goes nowhere.
    pub fn silent(&self) -> VisitLog {
        VisitLog { lines: None, format: self.format }
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
        lines.push(text);
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;

    /// What is written can be read here.
    struct Pipe(SyncSender<String>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_json() {
        let (sender, receiver) = sync_channel(1);
        let lost = IntCounter::new("d", "d").unwrap();
        let (lines, _guard) = Lines::start("l", Pipe(sender), GATHER, 1, lost).unwrap();
        let log = VisitLog { lines: Some(lines), format: LogFormat::Json };
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
    }
}
