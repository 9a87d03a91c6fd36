//! What an origin did, as far as anybody knows.

use std::sync::Arc;
use std::time::Duration;

use crate::moment::Moment;
use crate::verdict::{Grade, RowId};

/// How an attempt at the origin ended, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Well or badly, after this long.
    Ended(Grade, Duration),
    /// With an answer in the 400s, after this long.
    Rejected(Duration),
    /// Nobody knows: the origin was not asked.
    Unknown,
}

/// A visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// When it came.
    pub at: Moment,
    /// Tells calls apart.
    pub call: u64,
    /// Its row.
    pub row: RowId,
    /// What the origin makes of it.
    pub fate: Fate,
}

/// How a probe ends that is made at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// Well or badly, after this long.
    Ended(Grade, Duration),
    /// The nearest that was made was given before: there is nothing new to tell.
    Again,
    /// Nobody knows: none was made near that moment.
    Unknown,
}

/// A time in which the origin was really failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Its beginning.
    pub from: Moment,
    /// Its end.
    pub to: Moment,
}

/// What happened to an origin.
#[derive(Debug, Clone)]
pub struct Happened {
    /// Where time begins.
    pub begins: Moment,
    /// Where it ends.
    pub ends: Moment,
    /// Visits, in the order of their coming.
    pub visits: Arc<[Visit]>,
    /// When it was failing, in order.
    pub outages: Arc<[Outage]>,
}

/// What happened to an origin, and what it says to probes.
pub trait World {
    /// What happened.
    fn happened(&self) -> &Happened;

    /// How a probe ends that is made at `at`. Asked in the order of time.
    fn probe(&mut self, at: Moment) -> Probed;
}

/// What was observed of an origin: a past that is read from a journal.
#[derive(Debug, Clone)]
pub struct Observed {
    happened: Happened,
    probes: Arc<[(Moment, Grade, Duration)]>,
    /// A probe stands for moments as far from it as this.
    reach: Duration,
    /// How far the probes were asked for.
    cursor: usize,
    /// The last that was given.
    used: Option<usize>,
}

/// So many good ones in a row end a failure, seen from afterwards.
const GOOD_IN_A_ROW: u32 = 3;
/// So many bad ones make one.
const BAD_AT_LEAST: u32 = 3;
/// What is further apart belongs to different failures.
const APART: Duration = Duration::from_secs(60);
/// Failures that are closer together are one.
const TOGETHER: Duration = Duration::from_secs(3);
/// What has not ended by then hangs.
const HANGS: Duration = Duration::from_millis(2500);
/// A probe stands for at least as long, and for so many of the usual waits between two.
const SHORTEST_REACH: Duration = Duration::from_secs(1);
const WAITS: u32 = 3;

// === impl Observed ===

impl Observed {
    /// The past in which these visits came and these probes ended (when each was made, how it ended, and
    /// after how long). Sorted here.
    pub fn new(mut visits: Vec<Visit>, mut probes: Vec<(Moment, Grade, Duration)>) -> Observed {
        visits.sort_by_key(|visit| visit.at);
        probes.sort_by_key(|probe| probe.0);
        let times = || {
            let visits = visits.iter().map(|visit| visit.at);
            visits.chain(probes.iter().map(|probe| probe.0))
        };
        let begins = times().min().unwrap_or_default();
        let ends = times().max().unwrap_or_default();
        let outages = joined(outages(&visits, &probes));
        let reach = reach_of(&probes);
        let (visits, outages) = (visits.into(), outages.into());
        let happened = Happened { begins, ends, visits, outages };
        Observed { happened, probes: probes.into(), reach, cursor: 0, used: None }
    }

    /// How many observations it holds.
    pub fn len(&self) -> usize {
        self.happened.visits.len() + self.probes.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl World for Observed {
    fn happened(&self) -> &Happened {
        &self.happened
    }

    fn probe(&mut self, at: Moment) -> Probed {
        let distance = |index: usize| {
            let (then, ..) = self.probes.get(index)?;
            Some(then.since(at).max(at.since(*then)))
        };
        while let (Some(here), Some(next)) = (distance(self.cursor), distance(self.cursor + 1)) {
            if next > here {
                break;
            }
            self.cursor += 1;
        }
        let far = distance(self.cursor);
        match self.probes.get(self.cursor) {
            Some((_, grade, took)) if far.is_some_and(|far| far <= self.reach) => {
                // One that was seen once does not become two by being asked for twice.
                let again = self.used.replace(self.cursor) == Some(self.cursor);
                if again { Probed::Again } else { Probed::Ended(*grade, *took) }
            }
            _ => Probed::Unknown,
        }
    }
}

/// When it was really failing, by the principles of the verdict: probes tell of it where no visit ended
/// well, and visits to one row alone do not where another row served.
fn outages(visits: &[Visit], probes: &[(Moment, Grade, Duration)]) -> Vec<Outage> {
    let ended = visits.iter().filter_map(|visit| match visit.fate {
        Fate::Ended(grade, took) => {
            Some((visit.at + took.min(HANGS), grade == Grade::Good, visit.row))
        }
        Fate::Rejected(_) | Fate::Unknown => None,
    });
    let mut ended: Vec<(Moment, bool, RowId)> = ended.collect();
    ended.sort_by_key(|(at, ..)| *at);
    let within = |outage: &Outage| {
        let from = ended.partition_point(|(at, ..)| *at < outage.from);
        let to = ended.partition_point(|(at, ..)| *at <= outage.to);
        &ended[from..to]
    };
    // The first good one behind it is its end, and no witness against it.
    let served = |outage: &Outage, row: Option<RowId>| {
        let mut seen = within(outage).iter().filter(|(at, ..)| *at < outage.to);
        seen.any(|(_, good, of)| *good && Some(*of) != row)
    };
    let is_real = |outage: &Outage| {
        let mut bad = within(outage).iter().filter(|(_, good, _)| !good).map(|(.., row)| *row);
        match bad.next() {
            None => !served(outage, None),
            Some(first) => !bad.all(|row| row == first) || !served(outage, Some(first)),
        }
    };
    let by_probes = failures(probes.iter().map(|(at, grade, _)| (*at, *grade == Grade::Good)));
    let by_visits = failures(ended.iter().map(|(at, good, _)| (*at, *good)));
    by_probes.into_iter().chain(by_visits).filter(is_real).collect()
}

/// How far from itself a probe tells something: some of the usual waits between two.
fn reach_of(probes: &[(Moment, Grade, Duration)]) -> Duration {
    let mut waits: Vec<Duration> =
        probes.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    waits.sort_unstable();
    let usual = waits.get(waits.len() / 2).copied().unwrap_or_default();
    usual.saturating_mul(WAITS).max(SHORTEST_REACH)
}

/// When it was failing, seen from afterwards: from a bad observation to the last before several good
/// ones in a row, if most between were bad and they were some.
fn failures(seen: impl Iterator<Item = (Moment, bool)>) -> Vec<Outage> {
    let mut seen: Vec<(Moment, bool)> = seen.collect();
    seen.sort_by_key(|(at, _)| *at);
    let mut found = Vec::new();
    let mut open: Option<Failure> = None;
    for (at, good) in seen {
        if open.as_ref().is_some_and(|failure| at.since(failure.last) > APART) {
            found.extend(open.take().and_then(Failure::outage));
        }
        match (&mut open, good) {
            (None, true) => {}
            (None, false) => open = Some(Failure::begin(at)),
            (Some(failure), good) => {
                failure.see(at, good);
                if failure.good_in_a_row >= GOOD_IN_A_ROW {
                    found.extend(open.take().and_then(Failure::outage));
                }
            }
        }
    }
    found.extend(open.and_then(Failure::outage));
    found
}

/// A failure that may be one.
struct Failure {
    from: Moment,
    /// The end, as far as is known: the first good one after the last bad one.
    to: Moment,
    last: Moment,
    bad: u32,
    good: u32,
    good_in_a_row: u32,
}

// === impl Failure ===

impl Failure {
    fn begin(at: Moment) -> Failure {
        Failure { from: at, to: at, last: at, bad: 1, good: 0, good_in_a_row: 0 }
    }

    fn see(&mut self, at: Moment, good: bool) {
        self.last = at;
        if !good {
            self.good += self.good_in_a_row;
            (self.bad, self.to, self.good_in_a_row) = (self.bad + 1, at, 0);
        } else {
            if self.good_in_a_row == 0 {
                self.to = at;
            }
            self.good_in_a_row += 1;
        }
    }

    fn outage(self) -> Option<Outage> {
        let counts = self.bad >= BAD_AT_LEAST && self.bad >= self.good;
        counts.then_some(Outage { from: self.from, to: self.to })
    }
}

/// Failures in order, those that touch joined.
fn joined(mut outages: Vec<Outage>) -> Vec<Outage> {
    outages.sort_by_key(|outage| outage.from);
    let mut joined: Vec<Outage> = Vec::new();
    for outage in outages {
        match joined.last_mut() {
            Some(last) if outage.from <= last.to + TOGETHER => last.to = last.to.max(outage.to),
            _ => joined.push(outage),
        }
    }
    joined
}
