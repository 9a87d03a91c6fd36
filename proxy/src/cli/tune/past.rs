//! A past, as the journal has it.
//!
//! What the journal holds of an upstream becomes visits and probes. Of visits for which it was not asked
//! nobody knows what it would have said. Times in which no edge was running are left out.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use holdline_policy::tune::{Fate, Observed, Visit};
use holdline_policy::{Grade, Moment, RowId};

use crate::config::Judging;
use crate::journal::{Entry, Range, What, read};

/// When nothing was written for so long, no edge was running.
const GAP: u64 = 60_000;

/// A past.
pub(super) struct Past {
    pub(super) observed: Observed,
    /// What was in force at its end, if the journal says so.
    pub(super) judging: Option<Judging>,
    /// Where its time begins, in milliseconds since 1970.
    pub(super) began_ms: u64,
    left_out: Duration,
    gaps: u32,
    unreadable: u64,
}

/// As many visits as may be lived through; a machine that also serves must keep its memory.
const MOST: usize = 10_000_000;

/// What has been read.
struct Reading {
    upstream: String,
    /// Before this only what is in force is read, not what happened.
    since: u64,
    visits: Vec<Visit>,
    probes: Vec<(Moment, Grade, Duration)>,
    rows: HashMap<String, RowId>,
    judging: Option<Judging>,
    began_ms: Option<u64>,
    last_ms: u64,
    left_out: u64,
    gaps: u32,
    calls: u64,
    too_many: bool,
}

// === impl Past ===

impl Past {
    /// Reads the journal in a folder.
    pub(super) fn read(
        folder: &Path,
        range: Range,
        upstream: &str,
        progress: impl FnMut(f64),
    ) -> anyhow::Result<Past> {
        let mut reading = Reading {
            upstream: upstream.to_owned(),
            since: range.since,
            visits: Vec::new(),
            probes: Vec::new(),
            rows: HashMap::new(),
            judging: None,
            began_ms: None,
            last_ms: 0,
            left_out: 0,
            gaps: 0,
            calls: 0,
            too_many: false,
        };
        // What was in force when the time began was written before.
        let whole = Range { since: 0, ..range };
        let unreadable = read(folder, whole, |entry| reading.take(entry), progress)?;
        ensure!(
            !reading.too_many,
            "the journal holds more than {MOST} visits: take less of it with --since and --until"
        );
        Ok(Past {
            observed: Observed::new(reading.visits, reading.probes),
            judging: reading.judging,
            began_ms: reading.began_ms.unwrap_or_default(),
            left_out: Duration::from_millis(reading.left_out),
            gaps: reading.gaps,
            unreadable,
        })
    }

    /// What it holds, in words.
    pub(super) fn what(&self) -> String {
        let mut what = format!("{} visits and probes", self.observed.len());
        if self.gaps > 0 {
            let left_out = humantime::format_duration(self.left_out);
            what.push_str(&format!(
                ", without {} times of {left_out} in all in which no edge ran",
                self.gaps
            ));
        }
        if self.unreadable > 0 {
            what.push_str(&format!("; {} lines could not be read", self.unreadable));
        }
        what
    }
}

// === impl Reading ===

impl Reading {
    fn take(&mut self, entry: Entry) {
        // Who leaves says what was in force for it.
        if let What::Process { what, thresholds, .. } = &entry.what
            && !matches!(what.as_ref(), "left" | "stopped")
        {
            self.judging = Some(Judging::read_again(thresholds));
        }
        if entry.at < self.since {
            return;
        }
        let at = self.pass_to(entry.at);
        if entry.what.upstream() != Some(self.upstream.as_str()) {
            return;
        }
        match entry.what {
            What::Probe { result, ms, .. } => {
                let grade = if result == crate::probe::GOOD { Grade::Good } else { Grade::Bad };
                let took = Duration::from_millis(ms);
                self.probes.push((earlier(at, took), grade, took));
            }
            // Calls that end well are told from one another by nothing that matters.
            What::Run { row, n, ms, .. } => {
                let good = Fate::Ended(Grade::Good, Duration::ZERO);
                self.run(at, &row, n, ms, good);
            }
            What::Unasked { row, n, ms, .. } => self.run(at, &row, n, ms, Fate::Unknown),
            What::Live { row, outcome, call, ms, .. } => {
                let took = Duration::from_millis(ms);
                let fate = match outcome.as_ref() {
                    "good" => Fate::Ended(Grade::Good, took),
                    "status_4xx" => Fate::Rejected(took),
                    _ => Fate::Ended(Grade::Bad, took),
                };
                let call = u64::from_str_radix(&call, 16).unwrap_or_default();
                self.add(&row, Visit { at: earlier(at, took), call, row: RowId::NONE, fate });
            }
            // What was broken off before it ended would have ended in some way.
            What::Dropped { row, ms, .. } => {
                self.run(earlier(at, Duration::from_millis(ms)), &row, 1, 0, Fate::Unknown);
            }
            _ => {}
        }
    }

    /// Visits that came to the same, spread over the time in which they ended.
    fn run(&mut self, at: Moment, row: &str, n: u32, ms: u64, fate: Fate) {
        let length = Duration::from_millis(ms);
        for number in 0..n {
            let at = earlier(at, length.mul_f64(f64::from(n - number) / f64::from(n)));
            self.calls += 1;
            if !self.add(row, Visit { at, call: self.calls, row: RowId::NONE, fate }) {
                return;
            }
        }
    }

    /// Adds a visit to this row, unless there are too many.
    fn add(&mut self, row: &str, visit: Visit) -> bool {
        self.too_many |= self.visits.len() >= MOST;
        if !self.too_many {
            let row = self.row(row);
            self.visits.push(Visit { row, ..visit });
        }
        !self.too_many
    }

    fn row(&mut self, name: &str) -> RowId {
        if let Some(row) = self.rows.get(name) {
            return *row;
        }
        let number = u16::try_from(self.rows.len() + 1).unwrap_or(u16::MAX);
        let row = if name.is_empty() { RowId::NONE } else { RowId(number) };
        self.rows.insert(name.to_owned(), row);
        row
    }

    /// Where in this past something stands that was written at `ms` since 1970.
    fn pass_to(&mut self, ms: u64) -> Moment {
        let began = *self.began_ms.get_or_insert(ms);
        let forward = ms.saturating_sub(self.last_ms);
        if self.last_ms > 0 && forward > GAP {
            self.left_out += forward;
            self.gaps += 1;
        }
        self.last_ms = self.last_ms.max(ms);
        if self.last_ms - ms > GAP {
            // The clock was put back: time goes on from where it was.
            let back = self.last_ms - ms;
            let more = back.saturating_sub(self.left_out);
            self.left_out = self.left_out.saturating_sub(back);
            self.began_ms = Some(began.saturating_sub(more));
            self.last_ms = ms;
        }
        let began = self.began_ms.unwrap_or(began);
        Moment::at(Duration::from_millis(ms.saturating_sub(began + self.left_out)))
    }
}

fn earlier(at: Moment, by: Duration) -> Moment {
    Moment::at(at.since_start().saturating_sub(by))
}

#[cfg(test)]
mod tests {
    use holdline_policy::tune::World as _;

    use super::*;

    /// A journal of two processes: each a list of lines.
    fn past(processes: [&[(u64, &str)]; 2]) -> Past {
        let folder = tempfile::tempdir().unwrap();
        for (process, lines) in processes.iter().enumerate() {
            let began = lines.first().map_or(0, |(at, _)| *at);
            let name = format!("{began:013}-{}-000001.jsonl", process + 1);
            let line = |(at, rest): &(u64, &str)| format!("{{\"at\":{at},{rest}}}\n");
            let text: String = lines.iter().map(line).collect();
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let whole = Range { since: 0, until: u64::MAX };
        Past::read(folder.path(), whole, "origin", |_| ()).unwrap()
    }

    fn length_of(past: &Past) -> Duration {
        let happened = past.observed.happened();
        happened.ends.since(happened.begins)
    }

    const PROBE: &str = r#""kind":"probe","upstream":"origin","result":"good","ms":1"#;
    const GOOD: &str = r#""kind":"run","upstream":"origin","row":"a","n":3,"ms":100"#;
    const OTHERS: &str = r#""kind":"run","upstream":"monitor","row":"a","n":7,"ms":100"#;
    const UNASKED: &str = r#""kind":"unasked","upstream":"origin","row":"b","n":5,"ms":100"#;
    const T: u64 = 1_790_000_000_000;

    #[test]
    fn what_nobody_was_asked_is_unknown_and_what_others_said_is_nothing() {
        let past =
            past([&[(T, PROBE), (T + 100, GOOD), (T + 200, UNASKED), (T + 300, OTHERS)], &[]]);
        assert_eq!(past.observed.len(), 1 + 3 + 5);
        let unknown = |visit: &&Visit| visit.fate == Fate::Unknown;
        assert_eq!(past.observed.happened().visits.iter().filter(unknown).count(), 5);
    }

    #[test]
    fn two_processes_beside_each_other_are_one_past() {
        // The old one lives on for longer than a time that would be left out.
        let old: Vec<(u64, &str)> = (0..300).map(|n| (T + n * 1000, PROBE)).collect();
        let new: Vec<(u64, &str)> = (100..400).map(|n| (T + 500 + n * 1000, PROBE)).collect();
        let past = past([&old, &new]);
        assert_eq!((past.gaps, past.left_out), (0, Duration::ZERO));
        assert_eq!(past.observed.len(), 600);
        let length = length_of(&past);
        assert!(length < Duration::from_secs(401), "{length:?}");
    }

    #[test]
    fn a_clock_that_is_put_back_puts_back_no_time() {
        let before = (0..100).map(|n| (T + n * 1000, PROBE));
        let after = (0..100).map(|n| (T - 3_600_000 + n * 1000, PROBE));
        let lines: Vec<(u64, &str)> = before.chain(after).collect();
        let past = past([&lines, &[]]);
        let length = length_of(&past);
        let about = Duration::from_secs(190)..Duration::from_secs(210);
        assert!(about.contains(&length), "{length:?}");
    }
}
