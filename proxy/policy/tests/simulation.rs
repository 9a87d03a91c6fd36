//! Days of failures in seconds: visits, probes and upstreams that come, go, hang and lie, all from one
//! seed, through the very code that runs in production.
//!
//! Asserted on every visit: it is answered before its deadline (promise 1), and it does not run twice
//! unless its row is marked idempotent (promise 2). Asserted on every verdict: slow alone takes
//! nothing down, and an upstream that serves is never taken down by probes.
//!
//! A failure prints the seed; `SIM_SEED=<seed> cargo test -p holdline-policy --test simulation` runs
//! that one alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails"
)]

use std::collections::BinaryHeap;
use std::time::Duration;

use holdline_policy::backoff::jittered;
use holdline_policy::catalogue::RowSpec;
use holdline_policy::deadline::RESERVE;
use holdline_policy::verdict::Attempt;
use holdline_policy::{
    Access, Budget, Cause, Chance, Change, Course, Deadline, Ended, Grade, Moment, Observation,
    Outcome, Pace, Phase, Replay, Row, RowId, Sent, Standing, Step, Thresholds, Upstream, Verdict,
};

const LIMITS: Thresholds = Thresholds {
    window: Duration::from_secs(10),
    bad_percent: 50,
    stuck: Duration::from_secs(5),
    ..Thresholds::SHIPPED
};
const PACE: Pace = Pace::SHIPPED;
const SLOW: Duration = Duration::from_millis(2500);
const CONNECT: Duration = Duration::from_secs(1);
/// An attempt that hangs is given up after this long.
const LONGEST: Duration = Duration::from_secs(45);

/// What an upstream does with whatever reaches it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Serves,
    Slow,
    Refuses,
    Hangs,
    Errs,
    Lies,
    ServesButFailsProbes,
    Drops,
}

const MOODS: [Mood; 8] = [
    Mood::Serves,
    Mood::Slow,
    Mood::Refuses,
    Mood::Hangs,
    Mood::Errs,
    Mood::Lies,
    Mood::ServesButFailsProbes,
    Mood::Drops,
];

impl Mood {
    /// What an attempt comes to, after how long, and whether the upstream ran it.
    fn meets(self, chance: &mut Chance) -> (Ended, Duration, bool) {
        let ms = |n: u64| Duration::from_millis(n);
        let quick = ms(5 + chance.below(200));
        let ended = |outcome, sent| Ended { outcome, sent };
        match self {
            Mood::Serves | Mood::ServesButFailsProbes => {
                (ended(Outcome::Good, Sent::Something), quick, true)
            }
            Mood::Slow => {
                (ended(Outcome::Good, Sent::Something), ms(2000 + chance.below(1500)), true)
            }
            Mood::Refuses => (ended(Outcome::Refused, Sent::Nothing), ms(1), false),
            Mood::Hangs if chance.below(2) == 0 => {
                (ended(Outcome::ConnectTimedOut, Sent::Nothing), CONNECT, false)
            }
            Mood::Hangs => (ended(Outcome::TimedOut, Sent::Something), LONGEST, true),
            Mood::Errs if chance.below(3) == 0 => {
                (ended(Outcome::NotRun(503), Sent::Something), quick, false)
            }
            Mood::Errs => (ended(Outcome::Status(500), Sent::Something), quick, true),
            Mood::Lies => (ended(Outcome::NotTwiml, Sent::Something), quick, true),
            Mood::Drops => (ended(Outcome::Broken, Sent::Something), quick, true),
        }
    }

    fn probe(self) -> (Grade, Duration) {
        match self {
            Mood::Serves | Mood::Lies | Mood::Drops => (Grade::Good, Duration::from_millis(3)),
            Mood::Slow => (Grade::Good, Duration::from_millis(900)),
            Mood::Refuses | Mood::Errs | Mood::ServesButFailsProbes => {
                (Grade::Bad, Duration::from_millis(2))
            }
            Mood::Hangs => (Grade::Bad, Duration::from_secs(1)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    MoodChanges(usize),
    Probe(usize),
    ProbeEnds(usize, bool),
    Arrives,
    TurnsSlow { attempt: usize },
    AttemptEnds { attempt: usize },
    SliceEnds { attempt: usize },
    Tick,
}

struct Visit {
    call: u64,
    replay: Replay,
    deadline: Deadline,
    course: Course,
    ran: u32,
    /// The attempt it waits for.
    attempt: Option<usize>,
    answered: Option<Moment>,
}

/// An attempt goes on when its visit does not wait for it any longer.
struct Going {
    visit: usize,
    upstream: Upstream,
    started: Moment,
    ended: Ended,
    was_slow: bool,
    over: bool,
}

struct World {
    seed: u64,
    chance: Chance,
    now: Moment,
    queue: BinaryHeap<std::cmp::Reverse<(Moment, u64, Event)>>,
    order: u64,
    moods: [Mood; 2],
    verdicts: [Verdict; 2],
    on_trial: [bool; 2],
    bad_seen: [bool; 2],
    down_by_traffic: [bool; 2],
    last_good: [Option<Moment>; 2],
    visits: Vec<Visit>,
    attempts: Vec<Going>,
    retries: Budget,
    steered: u64,
    canned: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let now = Moment::at(Duration::ZERO);
        let mut world = World {
            seed,
            chance: Chance::of(seed),
            now,
            queue: BinaryHeap::new(),
            order: 0,
            moods: [Mood::Serves; 2],
            verdicts: [Verdict::new(now); 2],
            on_trial: [false; 2],
            bad_seen: [false; 2],
            down_by_traffic: [false; 2],
            last_good: [None; 2],
            visits: Vec::new(),
            attempts: Vec::new(),
            retries: Budget::default(),
            steered: 0,
            canned: 0,
        };
        for upstream in 0..2 {
            world.after(Duration::ZERO, Event::Probe(upstream));
            world.after(Duration::from_secs(5), Event::MoodChanges(upstream));
        }
        world.after(Duration::ZERO, Event::Arrives);
        world.after(Duration::ZERO, Event::Tick);
        world
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.order += 1;
        self.queue.push(std::cmp::Reverse((self.now + wait, self.order, event)));
    }

    fn run(&mut self, length: Duration) {
        while let Some(std::cmp::Reverse((at, _, event))) = self.queue.pop() {
            self.now = at;
            let over = at.since_start() > length;
            match event {
                Event::AttemptEnds { attempt } => self.attempt_ends(attempt),
                Event::SliceEnds { attempt } => self.slice_ends(attempt),
                Event::TurnsSlow { attempt } => self.turns_slow(attempt),
                _ if over => {}
                Event::Arrives => self.arrives(),
                Event::MoodChanges(upstream) => self.mood_changes(upstream),
                Event::Probe(upstream) => {
                    let (grade, takes) = self.moods[upstream].probe();
                    self.after(takes, Event::ProbeEnds(upstream, grade == Grade::Good));
                }
                Event::ProbeEnds(upstream, good) => {
                    let grade = if good { Grade::Good } else { Grade::Bad };
                    self.observe(upstream, Observation::Probe(grade));
                    let wait = PACE.wait(&self.verdicts[upstream], LIMITS.rise, self.now);
                    let wait = jittered(wait, 0.2, self.chance.unit());
                    self.after(wait, Event::Probe(upstream));
                }
                Event::Tick => {
                    (0..2).for_each(|upstream| self.observe(upstream, Observation::Tick));
                    self.after(Duration::from_millis(100), Event::Tick);
                }
            }
        }
    }

    fn mood_changes(&mut self, upstream: usize) {
        self.moods[upstream] = MOODS[self.chance.below(MOODS.len() as u64) as usize];
        let wait = Duration::from_millis(500 + self.chance.below(60_000));
        self.after(wait, Event::MoodChanges(upstream));
    }

    fn arrives(&mut self) {
        let wait = Duration::from_millis(self.chance.below(400));
        self.after(wait, Event::Arrives);
        let replay =
            [Replay::Unsent, Replay::Refused, Replay::Idempotent][self.chance.below(3) as usize];
        let budget = Duration::from_secs([4, 9][self.chance.below(2) as usize]);
        let row = Row::new(RowSpec { replay, budget, ..RowSpec::example() }).unwrap();
        let standing = Standing { origin: self.access(0), monitor: self.access(1) };
        let deadline = Deadline::new(self.now, budget);
        let course = Course::new(&row, &standing, deadline);
        let call = self.chance.below(50);
        self.retries.earn();
        self.visits.push(Visit {
            call,
            replay,
            deadline,
            course,
            ran: 0,
            attempt: None,
            answered: None,
        });
        let visit = self.visits.len() - 1;
        let step = self.visits[visit].course.begin(self.now);
        self.carry_out(visit, step);
    }

    fn access(&self, upstream: usize) -> Access {
        let busy = self.on_trial[upstream];
        match Access::to(Upstream::ALL[upstream], self.verdicts[upstream].phase()) {
            Access::OnTrial | Access::Suspected if busy => Access::Out,
            access => access,
        }
    }

    fn carry_out(&mut self, visit: usize, step: Step) {
        match step {
            Step::Stop(_) => {
                self.canned += 1;
                self.answer(visit);
            }
            Step::Try { upstream, slice } => {
                let on_trial =
                    matches!(self.access(upstream.index()), Access::OnTrial | Access::Suspected);
                self.on_trial[upstream.index()] |= on_trial;
                let (mut ended, mut takes, ran) =
                    self.moods[upstream.index()].meets(&mut self.chance);
                if on_trial && takes > slice {
                    // A trial is settled within its visit's time.
                    (ended.outcome, takes) = (Outcome::TimedOut, slice);
                }
                self.visits[visit].ran += u32::from(ran);
                let attempt = self.attempts.len();
                self.visits[visit].attempt = Some(attempt);
                let (started, was_slow, over) = (self.now, false, false);
                self.attempts.push(Going { visit, upstream, started, ended, was_slow, over });
                if takes > SLOW {
                    self.after(SLOW, Event::TurnsSlow { attempt });
                }
                self.after(takes, Event::AttemptEnds { attempt });
                if takes > slice {
                    self.after(slice, Event::SliceEnds { attempt });
                }
            }
        }
    }

    fn turns_slow(&mut self, attempt: usize) {
        let going = &mut self.attempts[attempt];
        if going.over {
            return;
        }
        going.was_slow = true;
        let (upstream, started) = (going.upstream, going.started);
        let call = self.visits[going.visit].call;
        self.observe(upstream.index(), Observation::Slow(seen_as(call, started)));
    }

    fn attempt_ends(&mut self, attempt: usize) {
        let going = &mut self.attempts[attempt];
        going.over = true;
        let Going { visit, upstream, started, ended, was_slow, .. } = *going;
        let call = self.visits[visit].call;
        let seen = match ended.outcome.grade() {
            Some(grade) => {
                let (attempt, took) = (seen_as(call, started), self.now.since(started));
                Observation::Live { grade, attempt, took, was_slow }
            }
            None if was_slow => Observation::Dropped(seen_as(call, started)),
            None => Observation::Tick,
        };
        self.on_trial[upstream.index()] = false;
        self.observe(upstream.index(), seen);
        if self.visits[visit].attempt == Some(attempt) {
            self.goes_on(visit, ended);
        }
    }

    fn slice_ends(&mut self, attempt: usize) {
        let visit = self.attempts[attempt].visit;
        if self.visits[visit].attempt == Some(attempt) {
            self.goes_on(visit, Ended { outcome: Outcome::TimedOut, sent: Sent::Something });
        }
    }

    fn goes_on(&mut self, visit: usize, ended: Ended) {
        self.visits[visit].attempt = None;
        if ended.outcome == Outcome::Good {
            self.steered += 1;
            self.answer(visit);
        } else {
            let step = self.visits[visit].course.after(ended, self.now, &self.retries);
            self.carry_out(visit, step);
        }
    }

    fn answer(&mut self, visit: usize) {
        let (seed, now) = (self.seed, self.now);
        let visit = &mut self.visits[visit];
        assert!(visit.answered.is_none(), "seed {seed:#x}: answered twice");
        assert!(
            now + RESERVE <= visit.deadline.end(),
            "seed {seed:#x}: answered too late, at {now:?}"
        );
        assert!(
            visit.replay == Replay::Idempotent || visit.ran <= 1,
            "seed {seed:#x}: ran {} times",
            visit.ran
        );
        visit.answered = Some(now);
    }

    fn observe(&mut self, upstream: usize, seen: Observation) {
        let before = self.verdicts[upstream];
        let (after, change) = before.step(seen, self.now, &LIMITS);
        self.verdicts[upstream] = after;
        match seen {
            Observation::Live { grade: Grade::Good, .. } => {
                self.last_good[upstream] = Some(self.now)
            }
            Observation::Live { grade: Grade::Bad, .. } | Observation::Probe(Grade::Bad) => {
                self.bad_seen[upstream] = true;
            }
            _ => {}
        }
        assert_eq!(
            change.is_some(),
            phase_differs(before.phase(), after.phase()),
            "seed {:#x}",
            self.seed
        );
        if let Some(change) = change {
            self.check(upstream, change);
            self.bad_seen[upstream] &= change.to != Phase::Well;
            self.down_by_traffic[upstream] |=
                matches!(change.to, Phase::Down { cause: Cause::Traffic, .. });
        }
    }

    fn check(&self, upstream: usize, change: Change) {
        let seed = self.seed;
        let Phase::Down { cause, .. } = change.to else { return };
        let served =
            self.last_good[upstream].is_some_and(|at| self.now.since(at) <= LIMITS.evidence);
        assert!(cause == Cause::Traffic || !served, "seed {seed:#x}: probes took down what serves");
        let seen = self.bad_seen[upstream];
        assert!(seen, "seed {seed:#x}: taken down without a bad outcome");
    }
}

fn seen_as(call: u64, started: Moment) -> Attempt {
    Attempt { call, row: RowId::NONE, started }
}

fn phase_differs(a: Phase, b: Phase) -> bool {
    match (a, b) {
        (Phase::Down { cause: a, .. }, Phase::Down { cause: b, .. }) => a != b,
        _ => std::mem::discriminant(&a) != std::mem::discriminant(&b),
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.run(Duration::from_secs(600));
    let unanswered = world.visits.iter().filter(|visit| visit.answered.is_none()).count();
    assert_eq!(unanswered, 0, "seed {seed:#x}: visits without an answer");
    world
}

#[test]
fn every_visit_is_answered_in_time_and_nothing_runs_twice_that_must_not() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = u64::from_str_radix(seed.trim_start_matches("0x"), 16)
            .expect("SIM_SEED is hexadecimal");
        run(seed);
        return;
    }
    let (mut steered, mut canned) = (0, 0);
    for seed in 0..300 {
        let world = run(seed);
        steered += world.steered;
        canned += world.canned;
    }
    // A simulation in which nothing failed, or nothing served, would prove nothing.
    assert!(steered > 100_000 && canned > 10_000, "steered {steered}, canned {canned}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let tally = |world: World| (world.steered, world.canned, world.verdicts);
    assert_eq!(tally(run(7)), tally(run(7)));
}

#[test]
fn an_upstream_that_only_ever_serves_is_never_taken_down() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let monitor_only =
            |e: &std::cmp::Reverse<(Moment, u64, Event)>| e.0.2 != Event::MoodChanges(0);
        world.queue = world.queue.into_iter().filter(monitor_only).collect();
        world.moods[0] = if seed % 2 == 0 { Mood::ServesButFailsProbes } else { Mood::Slow };
        world.run(Duration::from_secs(300));
        assert!(!world.down_by_traffic[0], "seed {seed:#x}");
    }
}
