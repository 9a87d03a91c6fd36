//! The verdict against a second opinion: thousands of seeded lives of an upstream, each a random mixture
//! of probes, attempts that end, hang and are given up, pauses, jumps of the clock, other thresholds,
//! processes that take over, and orders that keep all traffic away. A plain record of what was seen
//! says after each step whether a change of verdict was justified.
//!
//! What is asserted:
//! - a change is told if and only if the phase changed, and it starts where the last one ended;
//! - slow attempts and time alone take nothing down, and nothing goes down on the word of one call;
//! - traffic takes it down only after `fall` bad attempts in a row or a bad share of the window;
//! - probes take it down only after `fall` bad ones in a row with nothing that ended well within
//!   `evidence`;
//! - it comes on trial only after `rise` good probes in a row and its whole hold-down, or after a visit
//!   that ended well although probes failed;
//! - no hold-down is longer than the cap, the first is none, no more flaps are remembered than lengthen
//!   it, and they are forgotten in time;
//! - nothing counts as stuck on the word of one call;
//! - a row goes down only after `fall` bad attempts at it in a row, refusals among them, of two calls;
//! - no more attempts hang than do, at the upstream and at each row;
//! - a row that was out comes back when it does not fail any longer, be it asked or not, and whatever was
//!   never heard of again;
//! - whatever was seen before: if all is good from now on, it ends well, and if all fails, it ends down.
//!
//! A failure prints the seed; `SIM_SEED=<seed> cargo test -p holdline-policy --test verdict_model` runs
//! that one alone.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdline_policy::backoff::Backoff;
use holdline_policy::verdict::Attempt;
use holdline_policy::{
    Belief, Cause, Chance, Change, Grade, Moment, Observation, Phase, Reason, RowId, Subject,
    Thresholds,
};

const LIVES: u64 = 4000;
const STEPS: u64 = 500;
const ROWS: u64 = 4;

/// What was seen, as plainly as it can be written down.
#[derive(Default)]
struct Seen {
    /// Every attempt that ended: when, how, which call.
    live: Vec<(Moment, Grade, u64)>,
    /// The same by row, with refusals, which are the row's alone.
    rows: BTreeMap<RowId, Vec<(Grade, u64)>>,
    /// Rows that came back for want of visits, and have not been seen to work since.
    untested: BTreeSet<RowId>,
    /// Every probe since the last change to trial.
    probes: Vec<Grade>,
    /// Since when attempts count: a trial begins the count of those in a row anew.
    live_counts_from: usize,
}

struct Life {
    seed: u64,
    chance: Chance,
    now: Moment,
    limits: Thresholds,
    belief: Belief,
    seen: Seen,
    slow: Vec<Attempt>,
    /// The calls that turned slow since anything ended well.
    slow_calls: BTreeSet<u64>,
    barred: bool,
    host_from: Moment,
    /// Whether attempts hang that are heard of no more.
    unheard: bool,
    /// Whether the present trial began with a visit that ended well.
    began_by_evidence: bool,
    phase: Phase,
    told: BTreeMap<&'static str, u64>,
    longest_hold_down: Duration,
    /// As many flaps as may be remembered.
    most_flaps: u32,
}

/// How many flaps are remembered: those that lengthen the hold-down, and one more.
fn flaps_that_count(limits: &Thresholds) -> u32 {
    2 + (0..).find(|tries| limits.hold_down.is_longest(*tries)).expect("it doubles up to the cap")
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn thresholds(chance: &mut Chance) -> Thresholds {
    let mut number = |least: u64, most: u64| (least + chance.below(most - least + 1)) as u32;
    Thresholds {
        fall: number(1, 6),
        rise: number(1, 5),
        window: ms(number(1000, 20_000).into()),
        bad_percent: number(10, 100),
        window_minimum: number(2, 30),
        evidence: ms(number(500, 20_000).into()),
        stuck: ms(number(1000, 10_000).into()),
        hold_down: Backoff {
            first: ms(number(1, 3000).into()),
            cap: ms(number(3000, 90_000).into()),
        },
        decay: ms(number(5000, 300_000).into()),
        trial_visits: number(1, 5),
        trial_again: ms(number(100, 3000).into()),
        trial_patience: ms(number(500, 20_000).into()),
        slow_after: ms(number(100, 5000).into()),
        slow_percent: number(10, 100),
    }
}

// === impl Life ===

impl Life {
    fn begin(seed: u64) -> Life {
        let mut chance = Chance::of(seed);
        let limits = thresholds(&mut chance);
        let now = Moment::at(ms(chance.below(1_000_000)));
        Life {
            seed,
            limits,
            now,
            belief: Belief::new(now),
            seen: Seen::default(),
            slow: Vec::new(),
            slow_calls: BTreeSet::new(),
            barred: false,
            host_from: Moment::default(),
            unheard: false,
            began_by_evidence: false,
            phase: Phase::Well,
            told: BTreeMap::new(),
            longest_hold_down: limits.hold_down.cap,
            most_flaps: flaps_that_count(&limits),
            chance,
        }
    }

    fn live(&mut self) {
        for _ in 0..STEPS {
            let pause = self.chance.below(400);
            self.pass(ms(pause));
            match self.chance.below(100) {
                0..25 => {
                    let bad = self.chance.below(3) == 0;
                    self.see(Observation::Probe(if bad { Grade::Bad } else { Grade::Good }));
                }
                25..60 if !self.barred => self.attempt_ends(),
                60..70 if !self.barred => self.attempt_turns_slow(),
                70..85 => self.slow_one_ends(),
                85..88 => self.barred = !self.barred,
                // A suspended machine, or a clock that was put right while the process was down.
                88..90 => {
                    let pause = self.chance.below(600_000);
                    self.pass(ms(pause));
                }
                90 => self.reload(),
                91 => self.is_taken_over(),
                92 => self.is_replaced(),
                _ => self.see(Observation::Tick),
            }
        }
    }

    /// Time passes, in ticks, of which a long pause has none.
    fn pass(&mut self, time: Duration) {
        let ticks = if time > ms(5000) { 0 } else { time.as_millis() / 100 };
        for _ in 0..ticks {
            self.now = self.now + ms(100);
            self.see(Observation::Tick);
        }
        self.now = self.now + time.saturating_sub(ms(100) * ticks as u32);
    }

    fn attempt(&mut self, ago: u64) -> Attempt {
        let started = Moment::at(self.now.since_start().saturating_sub(ms(ago)));
        let row = RowId(self.chance.below(ROWS) as u16);
        Attempt { call: self.chance.below(6), row, started }
    }

    fn attempt_ends(&mut self) {
        let took = self.chance.below(2500);
        let attempt = self.attempt(took);
        let mood = self.chance.below(10);
        self.see(match mood {
            0 => Observation::Rejected { attempt, was_slow: false },
            1..5 => live(Grade::Bad, attempt, ms(took), false),
            _ => live(Grade::Good, attempt, ms(took), false),
        });
    }

    fn attempt_turns_slow(&mut self) {
        let attempt = self.attempt(2500);
        self.slow.push(attempt);
        self.slow_calls.insert(attempt.call);
        self.see(Observation::Slow(attempt));
    }

    fn slow_one_ends(&mut self) {
        if self.slow.is_empty() {
            return;
        }
        let which = self.chance.below(self.slow.len() as u64) as usize;
        let attempt = self.slow.swap_remove(which);
        let took = self.now.since(attempt.started);
        let seen = match self.chance.below(4) {
            0 => Observation::Dropped(attempt),
            1 => live(Grade::Bad, attempt, took, true),
            2 => Observation::Rejected { attempt, was_slow: true },
            _ => live(Grade::Good, attempt, took, true),
        };
        self.see(seen);
    }

    fn reload(&mut self) {
        self.limits = thresholds(&mut self.chance);
        self.longest_hold_down = self.longest_hold_down.max(self.limits.hold_down.cap);
        self.most_flaps = self.most_flaps.max(flaps_that_count(&self.limits));
    }

    fn is_taken_over(&mut self) {
        let renumbered = |RowId(row): RowId| (row != 1).then_some(RowId(row + 10));
        let back = |RowId(row): RowId| Some(RowId(row.saturating_sub(10)));
        let written = serde_json::to_string(&self.belief.clone().inherited(self.now, renumbered));
        let read: Belief = serde_json::from_str(&written.expect("it can be written"))
            .expect("what was written can be read");
        self.belief = read.inherited(self.now, back);
        // The other process's attempts are heard of no more.
        self.slow.clear();
        self.phase = self.belief.upstream().phase();
        assert_eq!(self.belief.upstream().hanging(), 0, "seed {:#x}", self.seed);
    }

    fn is_replaced(&mut self) {
        let mut told = Vec::new();
        self.belief.replace(self.now, |subject, change| told.push((subject, change)));
        self.check_told(&told);
        self.seen = Seen::default();
        self.host_from = self.now;
        // What was begun at the other host is not this one's.
        self.slow.clear();
    }

    fn see(&mut self, seen: Observation) {
        match seen {
            Observation::Probe(grade) => self.seen.probes.push(grade),
            // What began at another host says nothing of this one.
            Observation::Live { attempt, .. } if attempt.started < self.host_from => {}
            Observation::Live { grade, attempt, .. } => {
                self.seen.live.push((self.now, grade, attempt.call));
                if grade == Grade::Good {
                    self.slow_calls.clear();
                    self.seen.untested.remove(&attempt.row);
                }
                self.seen.rows.entry(attempt.row).or_default().push((grade, attempt.call));
            }
            Observation::Rejected { attempt, .. } if attempt.started >= self.host_from => {
                self.seen.rows.entry(attempt.row).or_default().push((Grade::Bad, attempt.call));
            }
            _ => {}
        }
        let mut told = Vec::new();
        self.belief
            .step(seen, self.now, &self.limits, |subject, change| told.push((subject, change)));
        for (subject, change) in &told {
            match subject {
                Subject::Upstream => self.is_justified(*change, seen),
                Subject::Row(row) => {
                    self.is_justified_of_row(*row, *change);
                    if change.reason == Reason::Untested {
                        self.seen.untested.insert(*row);
                    }
                }
            }
        }
        self.check_told(&told);
        self.check_bounds();
    }

    fn check_told(&mut self, told: &[(Subject, Change)]) {
        let mut phase = self.phase;
        for (subject, change) in told {
            if *subject == Subject::Upstream {
                assert!(
                    same(change.from, phase),
                    "seed {:#x}: {change:?}, was {phase:?}",
                    self.seed
                );
                phase = change.to;
                *self.told.entry(change.to.name()).or_default() += 1;
            } else {
                assert!(!same(change.from, change.to), "seed {:#x}: {change:?}", self.seed);
            }
        }
        let now = self.belief.upstream().phase();
        assert!(same(phase, now), "seed {:#x}: {phase:?} was told, it is {now:?}", self.seed);
        self.phase = now;
    }

    fn check_bounds(&self) {
        let (seed, verdict) = (self.seed, self.belief.upstream());
        self.check_what_hangs();
        if let Phase::Down { until, .. } = verdict.phase() {
            let hold_down = until.since(verdict.since());
            let most = self.longest_hold_down.max(ms(3000));
            assert!(hold_down <= most, "seed {seed:#x}: {hold_down:?}");
        }
        assert!(verdict.flaps() <= self.most_flaps, "seed {seed:#x}: {}", verdict.flaps());
        let out = matches!(verdict.phase(), Phase::Stuck | Phase::Down { .. });
        assert!(
            !out || self.belief.rows().count() == 0,
            "seed {seed:#x}: rows outlive their upstream"
        );
    }

    fn check_what_hangs(&self) {
        if self.unheard {
            return;
        }
        let (seed, verdict) = (self.seed, self.belief.upstream());
        let (hang, hanging) = (self.slow.len() as u32, verdict.hanging());
        assert!(hanging <= hang, "seed {seed:#x}: {hanging} of {hang}");
        for (row, verdict) in self.belief.rows() {
            let hang = self.slow.iter().filter(|attempt| attempt.row == row).count() as u32;
            let hanging = verdict.hanging();
            assert!(hanging <= hang, "seed {seed:#x}: {hanging} of {hang} at {row:?}");
        }
    }

    /// Whether a change follows from what was seen.
    fn is_justified(&mut self, change: Change, seen: Observation) {
        let seed = self.seed;
        match change.to {
            Phase::Down { cause: Cause::Traffic, until } => {
                let bad = matches!(seen, Observation::Live { grade: Grade::Bad, .. });
                assert!(bad, "seed {seed:#x}: {seen:?} took it down");
                self.is_condemned(change.reason);
                self.goes_down(change, until);
            }
            Phase::Down { cause: Cause::Probes, until } => {
                let bad = self.probes_in_a_row(Grade::Bad);
                let trial = matches!(change.reason, Reason::TrialFailed(Cause::Probes));
                let enough = bad >= self.limits.fall || (trial && bad >= 1);
                assert!(enough, "seed {seed:#x}: {bad} bad probes");
                assert!(!self.served_lately(), "seed {seed:#x}: probes took down what serves");
                self.goes_down(change, until);
            }
            Phase::Trial { .. } => {
                self.began_by_evidence = change.reason == Reason::LiveEvidence;
                if self.began_by_evidence {
                    let good = matches!(seen, Observation::Live { grade: Grade::Good, .. });
                    assert!(good, "seed {seed:#x}");
                } else {
                    let good = self.probes_in_a_row(Grade::Good);
                    assert!(good >= self.limits.rise, "seed {seed:#x}: {good} good probes");
                    let Phase::Down { until, .. } = change.from else {
                        unreachable!("seed {seed:#x}: on trial from {:?}", change.from)
                    };
                    assert!(self.now >= until, "seed {seed:#x}: the hold-down is not over");
                }
                self.seen.probes.clear();
                self.seen.live_counts_from = self.seen.live.len();
            }
            Phase::Stuck => {
                assert!(self.slow_calls.len() >= 2, "seed {seed:#x}: one call's word");
            }
            Phase::Well if matches!(change.from, Phase::Trial { .. }) => {
                // What a row does that fails alone is not the trial's.
                let live = &self.seen.live[self.seen.live_counts_from..];
                let good = live.iter().filter(|(_, grade, _)| *grade == Grade::Good).count() as u32;
                let passed = good + u32::from(self.began_by_evidence) >= self.limits.trial_visits
                    || self.probes_in_a_row(Grade::Good) >= self.limits.rise;
                assert!(passed, "seed {seed:#x}: {change:?}");
                self.seen.live_counts_from = self.seen.live.len();
            }
            _ => {}
        }
    }

    fn is_justified_of_row(&self, row: RowId, change: Change) {
        let (Phase::Down { .. }, Reason::BadAttempts(n)) = (change.to, change.reason) else {
            return;
        };
        let seed = self.seed;
        let of_row = self.seen.rows.get(&row).map_or(&[][..], Vec::as_slice);
        let bad: Vec<u64> = of_row
            .iter()
            .rev()
            .take_while(|(grade, _)| *grade == Grade::Bad)
            .map(|(_, call)| *call)
            .collect();
        assert!(n >= self.limits.fall, "seed {seed:#x}: {row:?}");
        // What nobody has seen work since it came back goes again at the first failure.
        if self.seen.untested.contains(&row) {
            assert!(!bad.is_empty(), "seed {seed:#x}: {row:?}");
            return;
        }
        assert!(bad.len() as u32 >= n, "seed {seed:#x}: {row:?} {bad:?}");
        let one = bad.iter().all(|call| *call == bad[0]);
        assert!(!one, "seed {seed:#x}: {row:?} is down on one call's word");
    }

    fn goes_down(&mut self, change: Change, until: Moment) {
        let flaps = self.belief.upstream().flaps();
        let hold_down = until.since(self.now);
        let was_down = matches!(change.from, Phase::Down { .. } | Phase::Trial { .. });
        if flaps == 1 && !was_down {
            assert_eq!(hold_down, Duration::ZERO, "seed {:#x}: the first flap", self.seed);
        }
    }

    fn is_condemned(&self, reason: Reason) {
        let seed = self.seed;
        let calls = |attempts: &[(Moment, Grade, u64)]| {
            let mut bad: Vec<u64> = attempts
                .iter()
                .filter(|(_, grade, _)| *grade == Grade::Bad)
                .map(|(_, _, call)| *call)
                .collect();
            bad.sort_unstable();
            bad.dedup();
            bad.len()
        };
        match reason {
            Reason::BadAttempts(n) => {
                let bad = self.live_in_a_row(Grade::Bad);
                assert!(n >= self.limits.fall, "seed {seed:#x}");
                // Of rows known to fail alone the upstream is not told, so that there may be more.
                assert!(bad.len() as u32 >= n, "seed {seed:#x}: {} in a row, not {n}", bad.len());
                assert!(calls(bad) >= 2, "seed {seed:#x}: one call's word");
            }
            Reason::BadShare { bad, of } => {
                let window = self.limits.window;
                let recent: Vec<_> = self
                    .seen
                    .live
                    .iter()
                    // A window is a tenth longer than it says, at the most.
                    .filter(|(at, ..)| self.now.since(*at) <= window.mul_f64(1.1))
                    .copied()
                    .collect();
                let really = recent.iter().filter(|(_, grade, _)| *grade == Grade::Bad).count();
                assert!(of >= self.limits.window_minimum && really as u32 >= bad, "seed {seed:#x}");
                assert!(bad * 100 >= of * self.limits.bad_percent, "seed {seed:#x}");
                assert!(calls(&recent) >= 2, "seed {seed:#x}: one call's word");
            }
            Reason::TrialFailed(Cause::Traffic) => {
                let last = self.seen.live.last();
                assert!(
                    matches!(last, Some((at, Grade::Bad, _)) if *at == self.now),
                    "seed {seed:#x}"
                );
            }
            other => unreachable!("seed {seed:#x}: down by traffic because {other:?}"),
        }
    }

    fn probes_in_a_row(&self, grade: Grade) -> u32 {
        self.seen.probes.iter().rev().take_while(|seen| **seen == grade).count() as u32
    }

    /// The latest attempts that ended like this, with none between them that ended otherwise.
    fn live_in_a_row(&self, grade: Grade) -> &[(Moment, Grade, u64)] {
        let live = &self.seen.live[self.seen.live_counts_from..];
        let length = live.iter().rev().take_while(|(_, seen, _)| *seen == grade).count();
        &live[live.len() - length..]
    }

    fn served_lately(&self) -> bool {
        let mut good = self.seen.live.iter().rev().filter(|(_, grade, _)| *grade == Grade::Good);
        good.next().is_some_and(|(at, ..)| self.now.since(*at) <= self.limits.evidence)
    }

    /// Rows that fail alone come back when they do not fail any longer, be they asked again or not.
    fn rows_return(&mut self) {
        let patience = self.longest_hold_down + self.limits.trial_patience + ms(90_000);
        let begun = self.now;
        let asked = self.chance.below(2) == 0;
        let out = |belief: &Belief| {
            let serves = |phase| matches!(phase, Phase::Well | Phase::Doubtful);
            belief.rows().any(|(_, verdict)| !serves(verdict.phase()))
        };
        while out(&self.belief) {
            let took = self.now.since(begun);
            assert!(took < patience, "seed {:#x}: {:?}", self.seed, self.belief);
            self.pass(ms(250));
            self.see(Observation::Probe(Grade::Good));
            if asked {
                let attempt = self.attempt(1);
                self.see(live(Grade::Good, attempt, ms(1), false));
            }
        }
    }

    /// From now on all is as it should be, and then all fails.
    fn ends(&mut self) {
        let seed = self.seed;
        // Some of those that hang are never heard of again.
        self.slow.truncate(self.slow.len() / 2);
        self.unheard = true;
        while let Some(attempt) = self.slow.pop() {
            let took = self.now.since(attempt.started);
            self.see(live(Grade::Good, attempt, took, true));
        }
        for grade in [Grade::Good, Grade::Bad] {
            let all = |phase: Phase| match grade {
                Grade::Good => phase == Phase::Well,
                Grade::Bad => matches!(phase, Phase::Down { .. }),
            };
            let patience = self.longest_hold_down + self.limits.window + ms(60_000);
            let begun = self.now;
            while !all(self.belief.upstream().phase()) {
                let took = self.now.since(begun);
                let phase = self.belief.upstream().phase();
                assert!(took < patience, "seed {seed:#x}: {phase:?} after {took:?} of {grade:?}");
                self.pass(ms(250));
                self.see(Observation::Probe(grade));
                if !matches!(self.belief.upstream().phase(), Phase::Down { .. }) {
                    let attempt = self.attempt(1);
                    self.see(live(grade, attempt, ms(1), false));
                }
            }
            if grade == Grade::Good {
                self.rows_return();
            }
        }
        // And what went down is forgotten in the end.
        let forgiven = self.limits.decay * self.belief.upstream().flaps() + ms(1000);
        while !matches!(self.belief.upstream().phase(), Phase::Trial { .. }) {
            self.pass(ms(250));
            self.see(Observation::Probe(Grade::Good));
        }
        self.now = self.now + forgiven;
        self.see(Observation::Tick);
        assert_eq!(self.belief.upstream().flaps(), 0, "seed {seed:#x}");
    }
}

fn live(grade: Grade, attempt: Attempt, took: Duration, was_slow: bool) -> Observation {
    Observation::Live { grade, attempt, took, was_slow }
}

/// Whether two phases are the same belief, whatever they count.
fn same(a: Phase, b: Phase) -> bool {
    match (a, b) {
        (Phase::Down { cause: a, .. }, Phase::Down { cause: b, .. }) => a == b,
        _ => std::mem::discriminant(&a) == std::mem::discriminant(&b),
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut life = Life::begin(seed);
    life.live();
    life.ends();
    life.told
}

#[test]
fn every_change_of_verdict_follows_from_what_was_seen() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = u64::from_str_radix(seed.trim_start_matches("0x"), 16);
        run(seed.expect("SIM_SEED is hexadecimal"));
        return;
    }
    let mut told: BTreeMap<&str, u64> = BTreeMap::new();
    for (to, times) in (0..LIVES).flat_map(run) {
        *told.entry(to).or_default() += times;
    }
    // A model in which little happens would prove little.
    let often = |to: &&str| told.get(*to).is_some_and(|times| *times > 500);
    assert!(Phase::NAMES.iter().all(often), "{told:?}");
}
