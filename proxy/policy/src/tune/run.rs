//! One edge, one set of thresholds, one world.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Set;
use super::world::{Fate, Happened, Outage, Probed, Visit, World};
use crate::backoff::jittered;
use crate::catalogue::Upstream;
use crate::chance::Chance;
use crate::choice::Access;
use crate::moment::Moment;
use crate::verdict::{Attempt, Belief, Grade, Observation, Phase, Subject};

/// When an attempt counts as slow; and when it is given up.
const SLOW: Duration = Duration::from_millis(2500);
const LONGEST: Duration = Duration::from_secs(45);
/// How long a visit has for an upstream beside which another is asked.
const SLICE: Duration = Duration::from_millis(4375);
/// How often time itself is an observation.
const TICK: Duration = Duration::from_millis(100);
/// The share of a wait between probes that chance may take off.
const JITTER: f64 = 0.2;
/// How long after the end of an outage what it leaves behind may still take an origin down.
const AFTERMATH: Duration = Duration::from_secs(3);

/// What an edge with one set of thresholds made of a world.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// How long the world lasts.
    pub length: Duration,
    /// Outages there were.
    pub outages: u32,
    /// Those that were never noticed.
    pub missed: u32,
    /// From the beginning of an outage until visits were spared it: the mean, and the longest.
    pub detect: Option<Duration>,
    /// The longest.
    pub detect_longest: Option<Duration>,
    /// From the end of an outage until visits went to the origin again: the mean.
    pub back: Option<Duration>,
    /// The longest.
    pub back_longest: Option<Duration>,
    /// Outages after which the origin was not asked again for as long as the world lasted. They count in
    /// `back` with that time.
    pub not_back: u32,
    /// Times that the origin was taken down while it did not fail.
    pub needless: u32,
    /// Times that it came back in the middle of an outage and was taken down again.
    pub flaps: u32,
    /// Visits there were.
    pub visits: u64,
    /// Those that were sent to the origin and met a failure, or waited for an answer for too long.
    pub met_bad: u64,
    /// Those that the set would have sent to the origin, and of which nobody knows what it would have
    /// said.
    pub unknown_visits: u64,
    /// Probes that were made.
    pub probes: u64,
    /// Those of which nobody knows how they would have ended.
    pub unknown_probes: u64,
    /// What was believed, one after the other.
    pub timeline: Vec<Span>,
}

/// Something that was believed for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From when on.
    pub from: Moment,
    /// What.
    pub phase: Phase,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    TurnsSlow(usize),
    Ends(usize),
    ProbeEnds { good: bool },
    Probe,
    Tick,
}

struct Edge<'w, W> {
    world: &'w mut W,
    set: Set,
    chance: Chance,
    now: Moment,
    belief: Belief,
    queue: BinaryHeap<Reverse<(Moment, Due)>>,
    next_visit: usize,
    ticking: bool,
    /// The visit that is trying the origin, or a row of it.
    trying: Option<usize>,
    /// The outage at hand, or the next, and when it was noticed.
    outage: usize,
    noticed: Option<Moment>,
    downs_in_outage: u32,
    /// The end of the last outage that was noticed, while the origin is not back.
    away_since: Option<Moment>,
    detects: Vec<Duration>,
    backs: Vec<Duration>,
    score: Score,
}

/// Lets an edge that judges by `set` live through `world`. Chance decides about jitter alone.
pub fn run<W: World>(world: &mut W, set: Set, seed: u64) -> Score {
    let Happened { begins, ends, visits, outages } = world.happened();
    let begins = *begins;
    let score = Score {
        length: ends.since(begins),
        outages: u32::try_from(outages.len()).unwrap_or(u32::MAX),
        missed: 0,
        detect: None,
        detect_longest: None,
        back: None,
        back_longest: None,
        not_back: 0,
        needless: 0,
        flaps: 0,
        visits: visits.len() as u64,
        met_bad: 0,
        unknown_visits: 0,
        probes: 0,
        unknown_probes: 0,
        timeline: vec![Span { from: begins, phase: Phase::Well }],
    };
    let mut edge = Edge {
        world,
        set,
        chance: Chance::of(seed),
        now: begins,
        belief: Belief::new(begins),
        queue: BinaryHeap::new(),
        next_visit: 0,
        ticking: false,
        trying: None,
        outage: 0,
        noticed: None,
        downs_in_outage: 0,
        away_since: None,
        detects: Vec::new(),
        backs: Vec::new(),
        score,
    };
    edge.queue.push(Reverse((begins, Due::Probe)));
    edge.live();
    edge.ends()
}

// === impl Score ===

impl Score {
    /// Needless failovers, for a day.
    pub fn needless_a_day(&self) -> f64 {
        let days = self.length.as_secs_f64() / 86_400.0;
        if days > 0.0 { f64::from(self.needless) / days } else { 0.0 }
    }

    /// The share of visits that met a bad origin, from 0 to 1.
    pub fn met_bad_share(&self) -> f64 {
        share(self.met_bad, self.visits)
    }

    /// The share of what would have been asked of which nobody knows the answer: of visits or of probes,
    /// whichever is larger.
    pub fn unknown_share(&self) -> f64 {
        share(self.unknown_visits, self.visits).max(share(self.unknown_probes, self.probes))
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

// === impl Edge ===

impl<W: World> Edge<'_, W> {
    fn live(&mut self) {
        loop {
            let visit = self.world.happened().visits.get(self.next_visit).copied();
            let due = self.queue.peek().map(|Reverse((at, _))| *at);
            match (visit, due) {
                (Some(visit), due) if due.is_none_or(|due| visit.at <= due) => {
                    self.next_visit += 1;
                    self.pass_to(visit.at);
                    self.arrives(self.next_visit - 1, visit);
                }
                (_, Some(_)) => {
                    let Some(Reverse((at, due))) = self.queue.pop() else { return };
                    if at > self.world.happened().ends && visit.is_none() {
                        return;
                    }
                    self.pass_to(at);
                    self.meet(due);
                }
                _ => return,
            }
        }
    }

    fn after(&mut self, wait: Duration, due: Due) {
        self.queue.push(Reverse((self.now + wait, due)));
    }

    fn meet(&mut self, due: Due) {
        match due {
            Due::Probe => self.probe(),
            Due::ProbeEnds { good } => {
                self.observe(Observation::Probe(if good { Grade::Good } else { Grade::Bad }));
                self.wait_for_the_next_probe();
            }
            Due::TurnsSlow(index) => {
                let attempt = self.attempt(index);
                self.observe(Observation::Slow(attempt));
            }
            Due::Ends(index) => self.attempt_ends(index),
            Due::Tick => {
                self.ticking = false;
                self.observe(Observation::Tick);
            }
        }
    }

    fn probe(&mut self) {
        self.score.probes += 1;
        match self.world.probe(self.now) {
            Probed::Ended(grade, took) => {
                self.after(took, Due::ProbeEnds { good: grade == Grade::Good });
            }
            Probed::Again => self.wait_for_the_next_probe(),
            Probed::Unknown => {
                self.score.unknown_probes += 1;
                self.wait_for_the_next_probe();
            }
        }
    }

    fn wait_for_the_next_probe(&mut self) {
        let rise = self.set.thresholds.rise;
        let wait = self.set.pace.wait(self.belief.upstream(), rise, self.now);
        let wait = jittered(wait, JITTER, self.chance.unit());
        self.after(wait, Due::Probe);
    }

    fn access(&self, visit: &Visit) -> Access {
        let upstream = Access::to(Upstream::Origin, self.belief.upstream().phase());
        match upstream {
            Access::Serving => Access::to_row(self.belief.phase_of(visit.row)),
            access => access,
        }
    }

    fn arrives(&mut self, index: usize, visit: Visit) {
        // Whoever asks another at the same moment meets nothing.
        let (spared, tries) = match self.access(&visit) {
            Access::Serving => (false, false),
            Access::Stuck => (true, false),
            Access::OnTrial | Access::Suspected if self.trying.is_none() => (true, true),
            _ => return,
        };
        let longest = if tries { SLICE } else { LONGEST };
        let took = match visit.fate {
            Fate::Unknown => {
                self.score.unknown_visits += 1;
                return;
            }
            Fate::Ended(_, took) | Fate::Rejected(took) => took.min(longest),
        };
        if tries {
            self.trying = Some(index);
        }
        let bad = matches!(visit.fate, Fate::Ended(Grade::Bad, _)) || took > SLOW;
        self.score.met_bad += u64::from(bad && !spared);
        if took >= SLOW {
            self.after(SLOW, Due::TurnsSlow(index));
        }
        self.after(took, Due::Ends(index));
    }

    fn attempt(&self, index: usize) -> Attempt {
        let Visit { at, call, row, .. } = self.world.happened().visits[index];
        Attempt { call, row, started: at }
    }

    fn attempt_ends(&mut self, index: usize) {
        let attempt = self.attempt(index);
        let tried = self.trying == Some(index);
        if tried {
            self.trying = None;
        }
        let longest = if tried { SLICE } else { LONGEST };
        let seen = match self.world.happened().visits[index].fate {
            Fate::Ended(grade, took) => {
                let was_slow = took >= SLOW;
                // What takes for ever is given up, and a trial is settled within its visit's time.
                let grade = if took >= longest { Grade::Bad } else { grade };
                Observation::Live { grade, attempt, took, was_slow }
            }
            Fate::Rejected(took) => Observation::Rejected { attempt, was_slow: took >= SLOW },
            Fate::Unknown => return,
        };
        self.observe(seen);
    }

    fn observe(&mut self, seen: Observation) {
        let before = self.belief.upstream().phase();
        let mut of_the_upstream = None;
        self.belief.step(seen, self.now, &self.set.thresholds, |subject, change| {
            if subject == Subject::Upstream {
                of_the_upstream = Some(change.to);
            }
        });
        if let Some(to) = of_the_upstream {
            self.score.timeline.push(Span { from: self.now, phase: to });
            self.changed(before, to);
        }
        if !self.ticking && !self.belief.is_at_rest() {
            self.ticking = true;
            self.after(TICK, Due::Tick);
        }
    }

    fn changed(&mut self, from: Phase, to: Phase) {
        let failing = self.failing();
        if serves(from) && !serves(to) && failing && self.noticed.is_none() {
            self.noticed = Some(self.now);
        }
        let went_down = matches!(to, Phase::Down { .. })
            && !matches!(from, Phase::Down { .. } | Phase::Trial { .. });
        if went_down && failing {
            self.downs_in_outage += 1;
            self.score.flaps += u32::from(self.downs_in_outage > 1);
        } else if went_down && !self.in_aftermath() {
            self.score.needless += 1;
        }
        if serves(to)
            && let Some(since) = self.away_since.take()
        {
            self.backs.push(self.now.since(since));
        }
    }

    fn failing(&self) -> bool {
        self.outage_at_hand().is_some_and(|outage| outage.from <= self.now)
    }

    fn in_aftermath(&self) -> bool {
        let last =
            self.outage.checked_sub(1).and_then(|last| self.world.happened().outages.get(last));
        last.is_some_and(|last| self.now.since(last.to) <= AFTERMATH)
    }

    fn outage_at_hand(&self) -> Option<Outage> {
        self.world.happened().outages.get(self.outage).copied()
    }

    /// Time goes on, past beginnings and ends of outages.
    fn pass_to(&mut self, at: Moment) {
        while let Some(outage) = self.outage_at_hand() {
            let away = !serves(self.belief.upstream().phase());
            if at >= outage.from && self.noticed.is_none() && away {
                // It was still away from before.
                self.noticed = Some(self.now.max(outage.from));
            }
            // What ends it may be what takes the origin down.
            if at <= outage.to {
                break;
            }
            match (self.noticed.take(), away) {
                (Some(noticed), true) => {
                    self.detects.push(noticed.since(outage.from));
                    self.away_since = Some(outage.to);
                }
                // It was back too early.
                (Some(noticed), false) => {
                    self.detects.push(noticed.since(outage.from));
                    self.score.flaps += 1;
                }
                (None, _) => self.score.missed += 1,
            }
            self.downs_in_outage = 0;
            self.outage += 1;
        }
        self.now = at;
    }

    fn ends(mut self) -> Score {
        self.pass_to(self.world.happened().ends);
        // An outage that lasts until the end.
        if let (Some(outage), Some(noticed)) = (self.outage_at_hand(), self.noticed) {
            self.detects.push(noticed.since(outage.from));
        } else if self.failing() {
            self.score.missed += 1;
        }
        if let Some(since) = self.away_since {
            self.backs.push(self.now.since(since));
            self.score.not_back += 1;
        }
        let mean = |times: &[Duration]| {
            let sum: Duration = times.iter().sum();
            u32::try_from(times.len()).ok().and_then(|n| sum.checked_div(n))
        };
        self.score.detect = mean(&self.detects);
        self.score.detect_longest = self.detects.iter().max().copied();
        self.score.back = mean(&self.backs);
        self.score.back_longest = self.backs.iter().max().copied();
        self.score
    }
}

/// Whether visits go to an origin of which this is believed, and wait for it.
fn serves(phase: Phase) -> bool {
    matches!(phase, Phase::Well | Phase::Doubtful)
}
