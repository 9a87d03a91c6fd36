//! A past, as the journal has it.
//!
//! What the journal holds of an upstream becomes visits and probes. Of visits that were answered by the
//! monitor while the upstream was left alone nobody knows what it would have said. Times in which no edge
//! was running are left out.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

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

/// What has been read.
struct Reading {
    upstream: String,
    visits: Vec<Visit>,
    probes: Vec<(Moment, Grade, Duration)>,
    rows: HashMap<String, RowId>,
    judging: Option<Judging>,
    began_ms: Option<u64>,
    last_ms: u64,
    left_out: u64,
    gaps: u32,
    /// Whether visits go to the upstream, by the verdict and by the operator's order.
    serves: bool,
    barred: bool,
    calls: u64,
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
            visits: Vec::new(),
            probes: Vec::new(),
            rows: HashMap::new(),
            judging: None,
            began_ms: None,
            last_ms: 0,
            left_out: 0,
            gaps: 0,
            serves: true,
            barred: false,
            calls: 0,
        };
        let unreadable = read(folder, range, |entry| reading.take(entry), progress)?;
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
        let at = self.pass_to(entry.at);
        let own = entry.what.upstream() == Some(self.upstream.as_str());
        match entry.what {
            What::Process { thresholds, .. } => {
                self.judging = Some(Judging::read_again(&thresholds));
            }
            What::Stance { stance, row: None, .. } => self.barred = stance != "automatic",
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
                self.visits.push(Visit { at: earlier(at, took), call, row, fate });
            }
            What::Change { row: None, to, .. } if own => {
                self.serves = matches!(to.as_ref(), "well" | "doubtful" | "stuck");
            }
            // Somebody else answered, because this one was not asked.
            What::Run { row, n, .. } if self.is_left_alone() => self.unknown(at, &row, n),
            What::Live { row, .. } if self.is_left_alone() => self.unknown(at, &row, 1),
            _ => {}
        }
    }

    fn is_left_alone(&self) -> bool {
        self.upstream == Upstream::Origin.name() && (!self.serves || self.barred)
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
            self.visits.push(Visit { at: earlier(at, before), call: self.calls, row, fate });
        }
    }

    fn unknown(&mut self, at: Moment, row: &str, n: u32) {
        let row = self.row(row);
        let visit = Visit { at, call: 0, row, fate: Fate::Unknown };
        self.visits.extend(std::iter::repeat_n(visit, n as usize));
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
        if self.last_ms > 0 && ms.saturating_sub(self.last_ms) > GAP {
            self.left_out += ms - self.last_ms;
            self.gaps += 1;
        }
        self.last_ms = self.last_ms.max(ms);
        Moment::at(Duration::from_millis(ms.saturating_sub(began + self.left_out)))
    }
}

fn earlier(at: Moment, by: Duration) -> Moment {
    Moment::at(at.since_start().saturating_sub(by))
}
