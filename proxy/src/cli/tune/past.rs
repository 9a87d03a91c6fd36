//! A past, as the journal has it.
//!
//! What the journal holds of an upstream becomes visits and probes. Of visits that were answered by the
//! monitor while the upstream was left alone nobody knows what it would have said. Times in which no edge
//! was running are left out.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use holdline_policy::tune::{Fate, Observed, Visit};
use holdline_policy::{Grade, Moment, RowId, Upstream};

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
    /// Before this only states are read, not what happened.
    since: u64,
    visits: Vec<Visit>,
    probes: Vec<(Moment, Grade, Duration)>,
    rows: HashMap<String, RowId>,
    judging: Option<Judging>,
    began_ms: Option<u64>,
    last_ms: u64,
    left_out: u64,
    gaps: u32,
    /// Whether the upstream as a whole is left alone, by the verdict.
    down: bool,
    /// Rows that are left alone by a verdict of their own.
    down_rows: HashSet<String>,
    /// Until when it is barred by the operator's order, by row; that for all under no name.
    barred: HashMap<String, u64>,
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
            down: false,
            down_rows: HashSet::new(),
            barred: HashMap::new(),
            calls: 0,
            too_many: false,
        };
        // What was believed and ordered when the time began was written before.
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
        self.take_state(&entry);
        if entry.at < self.since {
            return;
        }
        let at = self.pass_to(entry.at);
        let own = entry.what.upstream() == Some(self.upstream.as_str());
        match entry.what {
            What::Probe { result, ms, .. } if own => {
                let grade = if result == crate::probe::GOOD { Grade::Good } else { Grade::Bad };
                let took = Duration::from_millis(ms);
                self.probes.push((earlier(at, took), grade, took));
            }
            What::Run { row, n, ms, .. } if own => self.run(at, &row, n, ms),
            What::Live { row, outcome, call, ms, .. } if own => {
                let took = Duration::from_millis(ms);
                let fate = match outcome.as_ref() {
                    "good" => Fate::Ended(Grade::Good, took),
                    "status_4xx" => Fate::Rejected(took),
                    _ => Fate::Ended(Grade::Bad, took),
                };
                let call = u64::from_str_radix(&call, 16).unwrap_or_default();
                let row = self.row(&row);
                self.add(Visit { at: earlier(at, took), call, row, fate }, 1);
            }
            // What was broken off before it ended would have ended in some way.
            What::Dropped { row, ms, .. } if own => {
                self.unknown(earlier(at, Duration::from_millis(ms)), &row, 1);
            }
            // Somebody else answered, because this one was not asked.
            What::Run { row, n, .. } if self.is_left_alone(&row, entry.at) => {
                self.unknown(at, &row, n);
            }
            What::Live { row, .. } if self.is_left_alone(&row, entry.at) => {
                self.unknown(at, &row, 1);
            }
            _ => {}
        }
    }

    /// What is believed, ordered and in force, of this time and of that before.
    fn take_state(&mut self, entry: &Entry) {
        let own = entry.what.upstream() == Some(self.upstream.as_str());
        match &entry.what {
            What::Process { what, thresholds, .. } => {
                self.judging = Some(Judging::read_again(thresholds));
                if what == "started" {
                    // It says at once what it goes on with.
                    self.down = false;
                    self.down_rows.clear();
                    self.barred.clear();
                }
            }
            What::Stance { stance, row, until, .. } => {
                let row = row.as_deref().unwrap_or_default().to_owned();
                if stance == "automatic" {
                    self.barred.remove(&row);
                    if row.is_empty() {
                        self.barred.clear();
                    }
                } else {
                    self.barred.insert(row, until.unwrap_or(u64::MAX));
                }
            }
            What::Change { row: None, to, .. } if own => self.down = to == "down",
            What::Change { row: Some(row), to, .. } if own => {
                if to == "down" {
                    self.down_rows.insert(row.to_string());
                } else {
                    self.down_rows.remove(row.as_ref());
                }
            }
            _ => {}
        }
    }

    fn is_left_alone(&self, row: &str, at: u64) -> bool {
        let is_barred = |row: &str| self.barred.get(row).is_some_and(|until| at < *until);
        self.upstream == Upstream::Origin.name()
            && (self.down || self.down_rows.contains(row) || is_barred("") || is_barred(row))
    }

    /// Good answers, spread over the time in which they came.
    fn run(&mut self, at: Moment, row: &str, n: u32, ms: u64) {
        let row = self.row(row);
        let length = Duration::from_millis(ms);
        for number in 0..n {
            let before = length.mul_f64(f64::from(n - number) / f64::from(n));
            // Calls that end well are told from one another by nothing that matters.
            self.calls += 1;
            let fate = Fate::Ended(Grade::Good, Duration::ZERO);
            if !self.add(Visit { at: earlier(at, before), call: self.calls, row, fate }, 1) {
                return;
            }
        }
    }

    fn unknown(&mut self, at: Moment, row: &str, n: u32) {
        let row = self.row(row);
        self.add(Visit { at, call: 0, row, fate: Fate::Unknown }, n as usize);
    }

    /// Adds so many visits, unless there are too many.
    fn add(&mut self, visit: Visit, n: usize) -> bool {
        self.too_many |= self.visits.len().saturating_add(n) > MOST;
        if !self.too_many {
            self.visits.extend(std::iter::repeat_n(visit, n));
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
