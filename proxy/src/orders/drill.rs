//! A drill: a failure made on purpose, for a share of the calls and for a time, to see that all this works.
//!
//! An attempt that takes part is not made: it comes to what was ordered, and counts nowhere but in the
//! drill's own report. A call takes part as a whole or not at all. Rows where a callee is on the phone
//! take part only if they are named.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdline_policy::{Ended, Outcome, Party, Row, Sent, Upstream};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::answer::AnsweredBy;
use crate::clock::{millis, unix_ms};

/// How long a drill lasts when nobody says for how long.
pub const DRILL_FOR: Duration = Duration::from_secs(120);
/// The longest a drill may last.
pub const LONGEST_DRILL: Duration = Duration::from_secs(30 * 60);
/// Parts of a whole, in which the share is counted: hundredths of a percent.
const WHOLE: u64 = 10_000;
/// Waits that are remembered for percentiles.
const MOST_WAITS: usize = 100_000;

/// How an upstream fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It refuses connections.
    Refuse,
    /// It takes the request and says nothing.
    Hang,
    /// It answers 500.
    #[serde(rename = "500")]
    Error,
    /// It answers 200 with an error page.
    Html,
}

/// What is ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillOrder {
    /// Who fails: `origin` or `monitor`.
    pub fail: String,
    /// How.
    pub mode: Mode,
    /// The share of calls that take part, in percent.
    pub share_percent: f64,
    /// The rows that take part; none: all where no callee is on the phone.
    #[serde(default)]
    pub rows: Vec<String>,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillEnd {
    /// Its time was over.
    Over,
    /// The operator stopped it.
    Stopped,
    /// A real failure coincided.
    RealFailure,
}

/// A drill under way.
#[derive(Debug)]
pub struct Drill {
    order: DrillOrder,
    upstream: Upstream,
    began_ms: u64,
    /// When it is over whatever the clock on the wall says.
    ends: Instant,
    seed: u64,
    over: CancellationToken,
    tally: Mutex<Tally>,
}

/// What callers got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    /// Visits, by row and by who answered.
    rows: BTreeMap<String, BTreeMap<String, u64>>,
    /// Answers that could not be handed over whole.
    lost: u64,
    /// How long visits took, in milliseconds.
    waits: Vec<u32>,
}

/// What a drill came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was ordered.
    pub order: DrillOrder,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// When it is over at the latest.
    pub until_ms: u64,
    /// How it ended; none while it lasts.
    pub end: Option<String>,
    /// Visits that took part.
    pub visits: u64,
    /// Of these, answered by origin or monitor.
    pub steered: u64,
    /// Held.
    pub held: u64,
    /// Answered by a final canned document.
    pub dropped: u64,
    /// Reports that were kept.
    pub kept: u64,
    /// Answered by nobody, or not handed over whole.
    pub lost: u64,
    /// Visits by row and by who answered.
    pub rows: BTreeMap<String, BTreeMap<String, u64>>,
    /// Half of the visits took no longer, in milliseconds.
    pub p50_ms: u32,
    /// 99 of 100 visits took no longer.
    pub p99_ms: u32,
    /// None took longer.
    pub longest_ms: u32,
    /// Answers that could not be handed over whole, among those lost.
    lost_on_the_way: u64,
    /// Tells calls that take part from others.
    seed: u64,
}

// === impl Mode ===

impl Mode {
    /// Its name in metrics and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Refuse => "refuse",
            Mode::Hang => "hang",
            Mode::Error => "500",
            Mode::Html => "html",
        }
    }

    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::Refuse, Mode::Hang, Mode::Error, Mode::Html];

    /// What an attempt comes to; none if it comes to nothing for as long as the drill lasts.
    pub fn ended(self) -> Option<Ended> {
        let (outcome, sent) = match self {
            Mode::Refuse => (Outcome::Refused, Sent::Nothing),
            Mode::Error => (Outcome::Status(500), Sent::Something),
            Mode::Html => (Outcome::NotTwiml, Sent::Something),
            Mode::Hang => return None,
        };
        Some(Ended { outcome, sent })
    }
}

// === impl DrillOrder ===

impl DrillOrder {
    /// What is wrong with it, all of it. `rows` are those there are.
    pub fn faults(&self, rows: &[Row]) -> Vec<String> {
        let mut faults = Vec::new();
        if Upstream::ALL.iter().all(|upstream| upstream.name() != self.fail) {
            faults.push(format!("fail: {:?} is neither origin nor monitor", self.fail));
        }
        if !(self.share_percent > 0.0 && self.share_percent <= 100.0) {
            faults.push("share_percent: must be above 0 and at most 100".to_owned());
        }
        if !(1..=millis(LONGEST_DRILL)).contains(&self.for_ms) {
            faults.push("for_ms: must be above 0 and at most 30 minutes".to_owned());
        }
        for name in &self.rows {
            if rows.iter().all(|row| row.name != *name) {
                faults.push(format!("rows: there is no row {name:?}"));
            }
        }
        faults
    }
}

// === impl DrillEnd ===

impl DrillEnd {
    /// Its name in metrics, logs and reports.
    pub const fn name(self) -> &'static str {
        match self {
            DrillEnd::Over => "over",
            DrillEnd::Stopped => "stopped",
            DrillEnd::RealFailure => "real_failure",
        }
    }

    /// Every name [`DrillEnd::name`] can give.
    pub const NAMES: [&'static str; 3] = ["over", "stopped", "real_failure"];
}

// === impl Drill ===

impl Drill {
    pub(super) fn begin(order: DrillOrder) -> Drill {
        let (began_ms, seed) = (unix_ms(), fastrand::u64(..));
        Drill::of(order, began_ms, seed, Tally::default())
    }

    /// The drill of a report that was made while it lasted, unless it is over.
    pub(super) fn go_on(report: Report) -> Option<Drill> {
        if report.end.is_some() || report.until_ms <= unix_ms() {
            return None;
        }
        let Report { order, began_ms, seed, rows, lost_on_the_way: lost, .. } = report;
        // How long visits took is counted anew.
        let tally = Tally { rows, lost, waits: Vec::new() };
        Some(Drill::of(order, began_ms, seed, tally))
    }

    fn of(order: DrillOrder, began_ms: u64, seed: u64, tally: Tally) -> Drill {
        let left = (began_ms + order.for_ms).saturating_sub(unix_ms());
        let left = Duration::from_millis(left.min(order.for_ms)).min(LONGEST_DRILL);
        let named = Upstream::ALL.into_iter().find(|upstream| upstream.name() == order.fail);
        Drill {
            upstream: named.unwrap_or(Upstream::Origin),
            order,
            began_ms,
            ends: Instant::now() + left,
            seed,
            over: CancellationToken::new(),
            tally: Mutex::new(tally),
        }
    }

    /// What was ordered.
    pub fn order(&self) -> &DrillOrder {
        &self.order
    }

    /// Who fails.
    pub fn upstream(&self) -> Upstream {
        self.upstream
    }

    /// How it fails.
    pub fn mode(&self) -> Mode {
        self.order.mode
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled() || Instant::now() >= self.ends || unix_ms() >= self.until_ms()
    }

    /// When it is over, in milliseconds since 1970.
    fn until_ms(&self) -> u64 {
        self.began_ms + self.order.for_ms
    }

    /// Waits until it is over.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    pub(super) fn end(&self) {
        self.over.cancel();
    }

    /// Whether visits of this call to this row take part.
    pub(super) fn concerns(&self, row: &Row, call: Option<u64>) -> bool {
        let named = self.order.rows.contains(&row.name);
        let usual = self.order.rows.is_empty() && !row.parties.contains(&Party::Callee);
        if !named && !usual {
            return false;
        }
        // What belongs to no call takes part as it comes.
        let call = call.unwrap_or_else(|| fastrand::u64(..));
        let drawn = holdline_policy::Chance::of(call ^ self.seed).below(WHOLE);
        (drawn as f64) < self.order.share_percent * (WHOLE as f64 / 100.0)
    }

    /// A visit that took part has ended.
    pub fn note(&self, row: &str, by: AnsweredBy, written: bool, took: Duration) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = tally.rows.entry(row.to_owned()).or_default();
        *answered.entry(by.name().to_owned()).or_default() += 1;
        tally.lost += u64::from(!written && by != AnsweredBy::Nobody);
        if tally.waits.len() < MOST_WAITS {
            tally.waits.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn report(&self, end: Option<DrillEnd>) -> Report {
        let Tally { rows, lost, mut waits } =
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let by = |names: &[AnsweredBy]| -> u64 {
            let counts = rows.values().flatten();
            let of_these = counts.filter(|(by, _)| names.iter().any(|name| name.name() == *by));
            of_these.map(|(_, count)| count).sum()
        };
        waits.sort_unstable();
        let share = |percent: usize| {
            let at = (waits.len() * percent).div_ceil(100).max(1) - 1;
            waits.get(at).copied().unwrap_or_default()
        };
        Report {
            order: self.order.clone(),
            began_ms: self.began_ms,
            until_ms: self.until_ms(),
            end: end.map(|end| end.name().to_owned()),
            visits: by(&AnsweredBy::ALL),
            steered: by(&[AnsweredBy::Origin, AnsweredBy::Monitor]),
            held: by(&[AnsweredBy::Hold]),
            dropped: by(&[AnsweredBy::Canned]),
            kept: by(&[AnsweredBy::Spool]),
            lost: by(&[AnsweredBy::Nobody]) + lost,
            lost_on_the_way: lost,
            p50_ms: share(50),
            p99_ms: share(99),
            longest_ms: share(100),
            seed: self.seed,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use holdline_policy::catalogue::RowSpec;

    use super::*;

    fn drill(share_percent: f64, rows: &[&str]) -> Drill {
        Drill::begin(DrillOrder {
            fail: "origin".into(),
            mode: Mode::Error,
            share_percent,
            rows: rows.iter().map(|row| (*row).to_owned()).collect(),
            for_ms: 60_000,
        })
    }

    #[test]
    fn a_share_of_the_calls_takes_part_each_as_a_whole() {
        let row = Row::new(RowSpec::example()).unwrap();
        let drill = drill(5.0, &[]);
        let takes_part = |call: &u64| drill.concerns(&row, Some(*call));
        let first: Vec<u64> = (0..20_000).filter(takes_part).collect();
        assert!((800..1200).contains(&first.len()), "{}", first.len());
        assert_eq!(first, (0..20_000).filter(takes_part).collect::<Vec<_>>());
    }

    #[test]
    fn callees_take_part_only_if_they_are_named() {
        let spec = RowSpec { parties: vec![Party::WebCaller, Party::Callee], ..RowSpec::example() };
        let row = Row::new(spec).unwrap();
        assert!(!drill(100.0, &[]).concerns(&row, Some(1)));
        assert!(!drill(100.0, &["other"]).concerns(&row, Some(1)));
        assert!(drill(100.0, &["example"]).concerns(&row, Some(1)));
    }

    #[test]
    fn every_fault_of_an_order_is_told() {
        let order = DrillOrder {
            fail: "edge".into(),
            mode: Mode::Hang,
            share_percent: 0.0,
            rows: vec!["nowhere".into()],
            for_ms: 0,
        };
        assert_eq!(order.faults(&[Row::new(RowSpec::example()).unwrap()]).len(), 4);
    }

    #[test]
    fn the_report_says_what_callers_got() {
        let drill = drill(100.0, &[]);
        for (by, ms) in
            [(AnsweredBy::Monitor, 3), (AnsweredBy::Monitor, 5), (AnsweredBy::Hold, 900)]
        {
            drill.note("callin_create", by, true, Duration::from_millis(ms));
        }
        drill.note("identify_caller", AnsweredBy::Canned, false, Duration::from_millis(1));
        let report = drill.report(Some(DrillEnd::Over));
        let counts = [report.visits, report.steered, report.held, report.dropped, report.lost];
        assert_eq!(counts, [4, 2, 1, 1, 1]);
        assert_eq!((report.p50_ms, report.p99_ms, report.longest_ms), (3, 900, 900));
        assert_eq!(report.rows["callin_create"]["monitor"], 2);
        assert_eq!(report.end.as_deref(), Some("over"));
        assert!(Drill::go_on(report).is_none());
        let going_on = Drill::go_on(drill.report(None)).unwrap();
        assert_eq!(going_on.report(None).visits, 4);
    }
}
