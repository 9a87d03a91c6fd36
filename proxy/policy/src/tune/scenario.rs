//! Failures as they happen, made up: each a world in which everything is known.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Fate, Happened, Outage, Probed, Visit, World};
use crate::chance::Chance;
use crate::moment::Moment;
use crate::verdict::{Grade, RowId};

/// How an origin behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    /// As it should.
    Good,
    /// It takes no connections.
    Refuses,
    /// It takes everything and says nothing.
    Hangs,
    /// It answers visits with an error, and probes well.
    Gray,
    /// It answers well, but slowly: visits after some seconds, probes too late.
    Overloaded,
    /// It has just started: a share of visits fails, in percent, and the others are slow.
    Warming(u64),
}

/// A world that is made up.
#[derive(Debug, Clone)]
pub struct Scenario {
    name: &'static str,
    what: &'static str,
    /// Conditions, each with its beginning.
    conditions: Vec<(Moment, Condition)>,
    happened: Happened,
    /// One probe in so many is lost.
    lost_one_in: Option<u64>,
    chance: Chance,
}

/// What an attempt takes that is given up in the end.
const FOR_EVER: Duration = Duration::from_secs(45);
/// What a probe takes that is late.
const LATE: Duration = Duration::from_secs(1);
const ROWS: u64 = 6;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// === impl Scenario ===

impl Scenario {
    /// The names of all scenarios.
    pub const NAMES: [&'static str; 8] = [
        "crash",
        "deploy",
        "slow_start",
        "overload",
        "flapping_link",
        "gray_failure",
        "hang",
        "lost_probes",
    ];

    /// The scenario of a name. The seed decides about everything that is left to chance.
    pub fn named(name: &str, seed: u64) -> Option<Scenario> {
        use Condition::{Gray, Hangs, Overloaded, Refuses, Warming};
        let busy = Plan { minutes: 5, visits_a_minute: 600, lost_one_in: None };
        let one = |condition, length: u64| vec![(60, condition), (60 + length, Condition::Good)];
        let (name, what, plan, conditions) = match name {
            "crash" => ("crash", "no connections for 30 s", busy, one(Refuses, 30)),
            "deploy" => ("deploy", "no connections for 20 s", busy, one(Refuses, 20)),
            "slow_start" => (
                "slow_start",
                "no connections for 5 s, then 10 s of errors among slow answers, then 30 s of those",
                busy,
                vec![(60, Refuses), (65, Warming(60)), (75, Warming(0)), (105, Condition::Good)],
            ),
            "overload" => (
                "overload",
                "slow answers, all of them good, and probes that are late, for 2 minutes",
                busy,
                one(Overloaded, 120),
            ),
            "flapping_link" => {
                let flap = |n: u64| [(60 + 5 * n, Refuses), (62 + 5 * n, Condition::Good)];
                let flaps = (0..12).flat_map(flap).collect();
                ("flapping_link", "2 s without connections in every 5 s, for a minute", busy, flaps)
            }
            "gray_failure" => {
                ("gray_failure", "visits fail, probes do not, for a minute", busy, one(Gray, 60))
            }
            "hang" => ("hang", "everything hangs for 30 s", busy, one(Hangs, 30)),
            "lost_probes" => {
                let quiet = Plan { minutes: 24 * 60, visits_a_minute: 1, lost_one_in: Some(200) };
                let what = "one probe in 200 is lost, for a day with one visit a minute";
                ("lost_probes", what, quiet, Vec::new())
            }
            _ => return None,
        };
        Some(Scenario::planned(name, what, plan, &conditions, seed))
    }

    fn planned(
        name: &'static str,
        what: &'static str,
        plan: Plan,
        conditions: &[(u64, Condition)],
        seed: u64,
    ) -> Scenario {
        let at = |seconds: u64| Moment::at(s(seconds));
        let begins = (at(0), Condition::Good);
        let conditions = conditions.iter().map(|(from, condition)| (at(*from), *condition));
        let conditions: Vec<_> = std::iter::once(begins).chain(conditions).collect();
        let mut scenario = Scenario {
            name,
            what,
            happened: Happened {
                begins: at(0),
                ends: at(plan.minutes * 60),
                visits: Arc::default(),
                outages: outages(&conditions).into(),
            },
            conditions,
            lost_one_in: plan.lost_one_in,
            chance: Chance::of(seed),
        };
        let mut visits = Vec::new();
        let mean = 60_000 / plan.visits_a_minute;
        let mut now = 0;
        while now < plan.minutes * 60_000 {
            let when = Moment::at(Duration::from_millis(now));
            let (call, row) = (scenario.chance.below(40), scenario.chance.below(ROWS));
            let fate = scenario.fate(when);
            let row = RowId(u16::try_from(row + 1).unwrap_or(1));
            visits.push(Visit { at: when, call, row, fate });
            now += 1 + scenario.chance.below(2 * mean);
        }
        scenario.happened.visits = visits.into();
        scenario
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What happens in it.
    pub fn what(&self) -> &'static str {
        self.what
    }

    fn condition(&self, at: Moment) -> Condition {
        let behind = self.conditions.partition_point(|(from, _)| *from <= at);
        self.conditions.get(behind.saturating_sub(1)).map_or(Condition::Good, |(_, now)| *now)
    }

    fn fate(&mut self, at: Moment) -> Fate {
        let condition = self.condition(at);
        let mut ms =
            |least: u64, most: u64| Duration::from_millis(least + self.chance.below(most - least));
        match condition {
            Condition::Good => Fate::Ended(Grade::Good, ms(5, 200)),
            Condition::Refuses => Fate::Ended(Grade::Bad, ms(1, 3)),
            Condition::Hangs => Fate::Ended(Grade::Bad, FOR_EVER),
            Condition::Gray => Fate::Ended(Grade::Bad, ms(5, 200)),
            Condition::Overloaded => Fate::Ended(Grade::Good, ms(800, 4500)),
            Condition::Warming(failing) => {
                let took = ms(500, 2400);
                let bad = self.chance.below(100) < failing;
                Fate::Ended(if bad { Grade::Bad } else { Grade::Good }, took)
            }
        }
    }
}

impl World for Scenario {
    fn happened(&self) -> &Happened {
        &self.happened
    }

    fn probe(&mut self, at: Moment) -> Probed {
        let lost = self.lost_one_in.is_some_and(|n| self.chance.below(n) == 0);
        let quick = Duration::from_millis(3);
        match self.condition(at) {
            _ if lost => Probed::Ended(Grade::Bad, LATE),
            Condition::Good | Condition::Gray => Probed::Ended(Grade::Good, quick),
            Condition::Warming(_) => Probed::Ended(Grade::Good, LATE / 2),
            Condition::Refuses => Probed::Ended(Grade::Bad, quick),
            Condition::Hangs | Condition::Overloaded => Probed::Ended(Grade::Bad, LATE),
        }
    }
}

/// How long it is, and how much happens.
#[derive(Debug, Clone, Copy)]
struct Plan {
    minutes: u64,
    visits_a_minute: u64,
    lost_one_in: Option<u64>,
}

/// When the origin was really failing: slow is not, and what comes and goes within seconds is one.
fn outages(conditions: &[(Moment, Condition)]) -> Vec<Outage> {
    let fails = |condition: Condition| match condition {
        Condition::Refuses | Condition::Hangs | Condition::Gray => true,
        Condition::Warming(failing) => failing > 0,
        Condition::Good | Condition::Overloaded => false,
    };
    let mut outages: Vec<Outage> = Vec::new();
    for pair in conditions.windows(2) {
        let [(from, condition), (to, _)] = [pair[0], pair[1]];
        if !fails(condition) {
            continue;
        }
        match outages.last_mut() {
            Some(last) if from.since(last.to) < s(5) => last.to = to,
            _ => outages.push(Outage { from, to }),
        }
    }
    outages
}
