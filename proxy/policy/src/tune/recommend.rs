//! Which set to take, and why.
//!
//! A failover that was not needed is forgiven less than a moment's delay of one that was: it takes the
//! application from callers who had it. So first come the sets with the fewest of those and with no
//! outage missed, then those whose callers met a failing origin least, then those that are back soonest.
//! Where the difference is small, what changes less is taken, and what is in force stays in force.

use std::cmp::Ordering;
use std::time::Duration;

use super::run::Score;

/// Above this share of unknowns nothing is recommended.
pub const MOST_UNKNOWN: f64 = 0.10;
/// So many needless failovers a day make no difference.
pub const FEW_A_DAY: f64 = 0.5;
/// What differs by less than this is not worth a change: a visit in a thousand; a moment, or a fifth of the time.
const SAME_SHARE: f64 = 0.001;
const SAME_TIME: Duration = Duration::from_millis(250);
const SAME_PART: f64 = 0.2;

/// A set's scores in all worlds, added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Which set, by its place among those that were tried.
    pub set: usize,
    /// The score in each world.
    pub scores: Vec<Score>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Advice {
    /// Take this set.
    Take(usize),
    /// Stay with what is in force.
    Stay,
    /// Nothing can be said.
    Nothing,
}

/// What to do, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// What.
    pub advice: Advice,
    /// Why.
    pub reason: String,
}

// === impl Ranked ===

impl Ranked {
    /// Needless failovers a day: in the worst of the worlds, because each is a world of its own.
    pub fn needless_a_day(&self) -> f64 {
        self.scores.iter().map(Score::needless_a_day).fold(0.0, f64::max)
    }

    /// Needless failovers in all worlds.
    pub fn needless_failovers(&self) -> u32 {
        self.scores.iter().map(|score| score.needless).sum()
    }

    /// Outages in all worlds.
    pub fn outages(&self) -> u32 {
        self.scores.iter().map(|score| score.outages).sum()
    }

    /// Outages that were missed.
    pub fn missed(&self) -> u32 {
        self.scores.iter().map(|score| score.missed).sum()
    }

    /// Outages after which the origin did not come back.
    pub fn not_back(&self) -> u32 {
        self.scores.iter().map(|score| score.not_back).sum()
    }

    /// Times that the origin came back too early.
    pub fn flaps(&self) -> u32 {
        self.scores.iter().map(|score| score.flaps).sum()
    }

    /// The share of visits that met a bad origin: the mean over the worlds.
    pub fn met_bad_share(&self) -> f64 {
        let sum: f64 = self.scores.iter().map(Score::met_bad_share).sum();
        sum / self.scores.len().max(1) as f64
    }

    /// The largest share of unknowns.
    pub fn unknown_share(&self) -> f64 {
        self.scores.iter().map(Score::unknown_share).fold(0.0, f64::max)
    }

    /// The mean time to detect.
    pub fn detect(&self) -> Option<Duration> {
        mean(self.scores.iter().filter_map(|score| score.detect))
    }

    /// The longest time to detect.
    pub fn detect_longest(&self) -> Option<Duration> {
        self.scores.iter().filter_map(|score| score.detect_longest).max()
    }

    /// The mean time to return.
    pub fn back(&self) -> Option<Duration> {
        mean(self.scores.iter().filter_map(|score| score.back))
    }

    /// Needless failovers, as far as they make a difference.
    fn needless(&self) -> u64 {
        let a_day = self.needless_a_day();
        if a_day <= FEW_A_DAY { 0 } else { a_day.ceil() as u64 }
    }

    /// Which comes first.
    fn compare(&self, other: &Ranked) -> Ordering {
        self.needless()
            .cmp(&other.needless())
            .then(self.missed().cmp(&other.missed()))
            .then(self.not_back().cmp(&other.not_back()))
            .then(self.met_bad_share().total_cmp(&other.met_bad_share()))
            .then(self.flaps().cmp(&other.flaps()))
            .then(self.back().cmp(&other.back()))
    }

    /// Whether it is better by so much that it is worth a change.
    fn is_worth_it_after(&self, in_force: &Ranked) -> bool {
        let (back, back_in_force) =
            (self.back().unwrap_or_default(), in_force.back().unwrap_or_default());
        let sooner = back + SAME_TIME.max(back_in_force.mul_f64(SAME_PART)) < back_in_force;
        let hurts_more = self.met_bad_share() - in_force.met_bad_share();
        let faults = |ranked: &Ranked| (ranked.needless(), ranked.missed(), ranked.not_back());
        match faults(self).cmp(&faults(in_force)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                hurts_more < -SAME_SHARE
                    || (hurts_more <= 0.0 && (self.flaps() < in_force.flaps() || sooner))
            }
        }
    }
}

fn mean(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let (sum, n) = times.fold((Duration::ZERO, 0), |(sum, n), time| (sum + time, n + 1));
    sum.checked_div(n)
}

/// Sorts the sets, the best first, and says which to take. Set 0 is what is in force; of any two, the one that
/// changes less of it has the smaller number.
pub fn recommend(ranked: &mut [Ranked]) -> Recommendation {
    let Some(in_force) = ranked.iter().find(|ranked| ranked.set == 0).cloned() else {
        let reason = "no set was tried".to_owned();
        return Recommendation { advice: Advice::Nothing, reason };
    };
    // Of equals those are first that were given first.
    ranked.sort_by(|a, b| a.compare(b).then(a.set.cmp(&b.set)));
    let nothing = |reason: String| Recommendation { advice: Advice::Nothing, reason };
    if in_force.unknown_share() > MOST_UNKNOWN {
        return nothing(format!(
            "{:.0} % of what the set in force would have asked was never asked; a past that is known \
             less than 90 % recommends nothing",
            in_force.unknown_share() * 100.0
        ));
    }
    if in_force.outages() == 0 && in_force.needless_failovers() == 0 {
        return nothing("there was no failure, and none was seen; nothing tells sets apart".into());
    }
    let known = || ranked.iter().filter(|ranked| ranked.unknown_share() <= MOST_UNKNOWN);
    let Some(best) = known().next() else { return nothing("of no set is enough known".into()) };
    let as_good = known().filter(|ranked| !best.is_worth_it_after(ranked));
    let best = as_good.min_by_key(|ranked| ranked.set).unwrap_or(best);
    if best.set == 0 {
        let reason = format!("no set does clearly better: {}", in_words(&in_force));
        return Recommendation { advice: Advice::Stay, reason };
    }
    let reason = format!("{}, instead of {}", in_words(best), in_words(&in_force));
    Recommendation { advice: Advice::Take(best.set), reason }
}

fn in_words(ranked: &Ranked) -> String {
    // What never happened took no time.
    let after = |what: &str, time: Option<Duration>| {
        time.map(|time| format!("{what} after {:.1} s", time.as_secs_f64())).unwrap_or_default()
    };
    format!(
        "{} of {} outages detected{}, {:.2} % of visits met a failing origin, {:.1} needless failovers \
         a day{}",
        ranked.outages() - ranked.missed(),
        ranked.outages(),
        after(", on average", ranked.detect()),
        ranked.met_bad_share() * 100.0,
        ranked.needless_a_day(),
        after(", back", ranked.back()),
    )
}
