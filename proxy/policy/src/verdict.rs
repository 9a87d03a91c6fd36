//! What is believed of an upstream, as a pure step from one observation to the next belief.
//!
//! The states and rules are those of the design's section on health. Three principles run through
//! them. Traffic outranks probes: probes alone never take down an upstream that is serving. Slow is
//! not bad: an attempt that answers late and well counts as good. And nothing is condemned on the
//! word of one call: live evidence needs two.
//!
//! "Consecutive" means what it says: one good outcome in between starts the count again, for every
//! kind of failure alike.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::moment::Moment;
use crate::window::Window;

/// The numbers that steer the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Consecutive bad outcomes that take an upstream down.
    pub fall: u32,
    /// Consecutive good probes that bring it back on trial, or settle a doubt.
    pub rise: u32,
    /// How far back the share of bad attempts looks.
    pub window: Duration,
    /// The share of bad attempts in the window, in percent, that takes an upstream down.
    pub bad_percent: u32,
    /// How many attempts the window must hold before the share means anything.
    pub window_minimum: u32,
    /// For how long a live attempt that ended well outweighs bad probes.
    pub evidence: Duration,
    /// How long attempts may hang without any ending well.
    pub stuck: Duration,
    /// The hold-down after a flap: the first one has none, the second `first`, then doubling.
    pub hold_down: Backoff,
    /// How long an upstream must stay up for one flap to be forgotten.
    pub decay: Duration,
    /// Live visits that must end well, one at a time, to end a trial.
    pub trial_visits: u32,
    /// How long a trial waits for a visit before probes may end it.
    pub trial_patience: Duration,
}

/// Good, bad, or not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grade {
    /// Ended well.
    Good,
    /// Refused, reset, an error status, not TwiML, or out of time.
    Bad,
}

/// One fact about an upstream's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// A probe ended.
    Probe(Grade),
    /// A live attempt has taken longer than an answer should and goes on.
    Slow {
        /// The call it belongs to.
        call: u64,
        /// When the attempt began.
        started: Moment,
    },
    /// A live attempt ended.
    Live {
        /// How.
        grade: Grade,
        /// The call it belongs to.
        call: u64,
        /// When it began. A failure begun before a trial says nothing of the trial.
        started: Moment,
        /// Whether it had been observed as slow before.
        was_slow: bool,
    },
    /// A slow attempt ended in a way that says nothing of the upstream.
    Dropped {
        /// When it began.
        started: Moment,
    },
    /// Time passed.
    Tick,
}

/// Why an upstream was taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Live attempts failed.
    Traffic,
    /// Probes failed, and no live attempt said otherwise.
    Probes,
}

/// What is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing speaks against it.
    Well,
    /// Something does; traffic stays.
    Doubtful,
    /// It gets no traffic until `until` at the least.
    Down {
        /// Why.
        cause: Cause,
        /// The end of the hold-down.
        until: Moment,
    },
    /// It gets one visit at a time.
    Trial {
        /// Live visits that ended well so far.
        visits: u32,
        /// When the trial began, or the last visit ended.
        quiet_since: Moment,
    },
}

/// Why a verdict changed, with the numbers behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// One bad or slow observation.
    FirstDoubt,
    /// The doubt was not confirmed: this many good observations in a row.
    DoubtSettled(u32),
    /// This many bad live attempts in a row, from more than one call.
    BadAttempts(u32),
    /// This many bad ones among this many attempts in the window.
    BadShare {
        /// Bad attempts.
        bad: u32,
        /// All attempts.
        of: u32,
    },
    /// This many attempts hang, and none has ended well for this long.
    Stuck {
        /// Attempts that hang.
        hanging: u32,
        /// How long nothing has ended well.
        silent: Duration,
    },
    /// This many bad probes in a row, and no live attempt that speaks against them.
    BadProbes(u32),
    /// This many good probes in a row, and the hold-down is over.
    GoodProbes(u32),
    /// A live attempt ended well although probes had taken the upstream down.
    LiveEvidence,
    /// This many visits of the trial ended well.
    TrialPassed(u32),
    /// No visit came, and this many more probes were good.
    TrialPassedByProbes(u32),
    /// A visit or probe of the trial was bad.
    TrialFailed(Cause),
}

/// A change of verdict. No change, no noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What was believed.
    pub from: Phase,
    /// What is believed now.
    pub to: Phase,
    /// Why.
    pub reason: Reason,
}

/// The belief about one upstream, with all it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    phase: Phase,
    since: Moment,
    probes: Streak,
    live: Streak,
    good_since_bad: u32,
    bad_calls: Calls,
    window: Window,
    window_calls: Calls,
    last_good_live: Option<Moment>,
    hanging: u32,
    hanging_since: Moment,
    hanging_calls: Calls,
    counted_from: Moment,
    flaps: u32,
    flap_forgotten: Moment,
}

/// Truly consecutive outcomes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Streak {
    good: u32,
    bad: u32,
}

/// Whether one call or more than one was seen. Two are all that is ever asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Calls {
    #[default]
    None,
    One(u64),
    Several,
}

// === impl Streak ===

impl Streak {
    fn count(&mut self, grade: Grade) {
        *self = match grade {
            Grade::Good => Streak { good: self.good.saturating_add(1), bad: 0 },
            Grade::Bad => Streak { good: 0, bad: self.bad.saturating_add(1) },
        };
    }
}

// === impl Calls ===

impl Calls {
    fn add(&mut self, call: u64) {
        *self = match *self {
            Calls::None => Calls::One(call),
            Calls::One(known) if known == call => Calls::One(known),
            Calls::One(_) | Calls::Several => Calls::Several,
        };
    }
}

// === impl Verdict ===

impl Verdict {
    /// An upstream of which nothing is known yet: it gets traffic, and one bad probe is a doubt.
    pub fn new(now: Moment) -> Verdict {
        Verdict {
            phase: Phase::Well,
            since: now,
            probes: Streak::default(),
            live: Streak::default(),
            good_since_bad: 0,
            bad_calls: Calls::None,
            window: Window::default(),
            window_calls: Calls::None,
            last_good_live: None,
            hanging: 0,
            hanging_since: now,
            hanging_calls: Calls::None,
            counted_from: now,
            flaps: 0,
            flap_forgotten: now,
        }
    }

    /// What is believed.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Consecutive probes of the latest kind: (good, bad), one of which is zero.
    pub fn probe_streak(&self) -> (u32, u32) {
        (self.probes.good, self.probes.bad)
    }

    /// Consecutive live attempts of the latest kind: (good, bad), one of which is zero.
    pub fn live_streak(&self) -> (u32, u32) {
        (self.live.good, self.live.bad)
    }

    /// Attempts observed as slow that have not ended.
    pub fn hanging(&self) -> u32 {
        self.hanging
    }

    /// How often it went down lately.
    pub fn flaps(&self) -> u32 {
        self.flaps
    }

    /// Takes in one observation.
    #[must_use]
    pub fn step(
        mut self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> (Verdict, Option<Change>) {
        self.forget_flaps(now, limits);
        let seen =
            if self.is_a_failure_from_before_the_trial(seen) { Observation::Tick } else { seen };
        self.remember(seen, now, limits);
        let next = match self.phase {
            Phase::Well => self.when_well(seen, now, limits),
            Phase::Doubtful => self.when_doubtful(seen, now, limits),
            Phase::Down { cause, until } => self.when_down(seen, cause, until, now, limits),
            Phase::Trial { visits, quiet_since } => {
                self.when_on_trial(seen, visits, quiet_since, now, limits)
            }
        };
        let Some((to, reason)) = next else { return (self, None) };
        let change = Change { from: self.phase, to, reason };
        self.enter(to, now);
        (self, change.is_transition().then_some(change))
    }

    fn is_a_failure_from_before_the_trial(&self, seen: Observation) -> bool {
        let Phase::Trial { .. } = self.phase else { return false };
        // A late good answer is good; a late bad one tells of the time before.
        matches!(seen, Observation::Live { grade: Grade::Bad, started, .. } if started < self.since)
    }

    fn remember(&mut self, seen: Observation, now: Moment, limits: &Thresholds) {
        match seen {
            Observation::Probe(grade) => {
                self.probes.count(grade);
                self.tell_good_from_bad(grade);
            }
            Observation::Slow { call, started } => {
                self.good_since_bad = 0;
                if self.hanging == 0 {
                    self.hanging_since = started;
                    self.hanging_calls = Calls::None;
                }
                self.hanging = self.hanging.saturating_add(1);
                self.hanging_calls.add(call);
            }
            Observation::Live { grade, call, started, was_slow } => {
                self.live.count(grade);
                self.tell_good_from_bad(grade);
                if self.window.counts(now, limits.window).bad == 0 {
                    self.window_calls = Calls::None;
                }
                self.window.count(grade == Grade::Good, now, limits.window);
                match grade {
                    Grade::Good => {
                        self.last_good_live = Some(now);
                        self.bad_calls = Calls::None;
                    }
                    Grade::Bad => {
                        self.bad_calls.add(call);
                        self.window_calls.add(call);
                    }
                }
                if was_slow {
                    self.no_longer_hangs(started);
                }
            }
            Observation::Dropped { started } => self.no_longer_hangs(started),
            Observation::Tick => {}
        }
    }

    fn tell_good_from_bad(&mut self, grade: Grade) {
        self.good_since_bad = match grade {
            Grade::Good => self.good_since_bad.saturating_add(1),
            Grade::Bad => 0,
        };
    }

    /// Attempts begun before the count began anew were never in it.
    fn no_longer_hangs(&mut self, started: Moment) {
        if started >= self.counted_from {
            self.hanging = self.hanging.saturating_sub(1);
        }
    }

    fn when_well(
        &self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        if let Some(reason) = self.condemned_by_traffic(now, limits) {
            return Some((self.down(Cause::Traffic, now, limits), reason));
        }
        match seen {
            Observation::Probe(Grade::Bad)
            | Observation::Slow { .. }
            | Observation::Live { grade: Grade::Bad, .. } => {
                Some((Phase::Doubtful, Reason::FirstDoubt))
            }
            _ => None,
        }
    }

    fn when_doubtful(
        &self,
        seen: Observation,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        if let Some(reason) = self.condemned_by_traffic(now, limits) {
            return Some((self.down(Cause::Traffic, now, limits), reason));
        }
        if self.probes.bad >= limits.fall && !self.served_lately(now, limits) {
            let reason = Reason::BadProbes(self.probes.bad);
            return Some((self.down(Cause::Probes, now, limits), reason));
        }
        // Whatever was seen since the last bad thing was good. The counts of bad attempts stay: where
        // probes are well between bad visits, the visits must still add up.
        let good = matches!(
            seen,
            Observation::Probe(Grade::Good) | Observation::Live { grade: Grade::Good, .. }
        );
        let settled = good && self.good_since_bad >= limits.rise && self.hanging == 0;
        settled.then_some((Phase::Well, Reason::DoubtSettled(self.good_since_bad)))
    }

    fn when_down(
        &self,
        seen: Observation,
        cause: Cause,
        until: Moment,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        if cause == Cause::Probes {
            if let Some(reason) = self.condemned_by_traffic(now, limits) {
                return Some((Phase::Down { cause: Cause::Traffic, until }, reason));
            }
            if matches!(seen, Observation::Live { grade: Grade::Good, .. }) {
                return Some((Phase::Trial { visits: 1, quiet_since: now }, Reason::LiveEvidence));
            }
        }
        let recovered = self.probes.good >= limits.rise && now >= until;
        let trial = Phase::Trial { visits: 0, quiet_since: now };
        recovered.then_some((trial, Reason::GoodProbes(self.probes.good)))
    }

    fn when_on_trial(
        &self,
        seen: Observation,
        visits: u32,
        quiet_since: Moment,
        now: Moment,
        limits: &Thresholds,
    ) -> Option<(Phase, Reason)> {
        match seen {
            Observation::Live { grade: Grade::Bad, .. } => {
                let down = self.down(Cause::Traffic, now, limits);
                Some((down, Reason::TrialFailed(Cause::Traffic)))
            }
            Observation::Probe(Grade::Bad) if !self.served_lately(now, limits) => {
                let down = self.down(Cause::Probes, now, limits);
                Some((down, Reason::TrialFailed(Cause::Probes)))
            }
            Observation::Live { grade: Grade::Good, .. } => {
                let visits = visits + 1;
                if visits >= limits.trial_visits {
                    Some((Phase::Well, Reason::TrialPassed(visits)))
                } else {
                    // Progress inside the trial; not a change of what is believed.
                    Some((Phase::Trial { visits, quiet_since: now }, Reason::TrialPassed(visits)))
                }
            }
            Observation::Probe(Grade::Good) => {
                let patient = now.since(quiet_since) >= limits.trial_patience;
                let enough = self.probes.good >= limits.rise;
                let reason = Reason::TrialPassedByProbes(self.probes.good);
                (patient && enough).then_some((Phase::Well, reason))
            }
            _ => None,
        }
    }

    /// The live evidence against the upstream, if there is enough.
    fn condemned_by_traffic(&self, now: Moment, limits: &Thresholds) -> Option<Reason> {
        if self.live.bad >= limits.fall && self.bad_calls == Calls::Several {
            return Some(Reason::BadAttempts(self.live.bad));
        }
        let counts = self.window.counts(now, limits.window);
        let share_reached =
            counts.bad.saturating_mul(100) >= counts.total().saturating_mul(limits.bad_percent);
        if counts.bad > 0
            && counts.total() >= limits.window_minimum
            && share_reached
            && self.live.bad > 0
            && self.window_calls == Calls::Several
        {
            return Some(Reason::BadShare { bad: counts.bad, of: counts.total() });
        }
        let ended_well = self.last_good_live.unwrap_or_default().max(self.hanging_since);
        let silent = now.since(ended_well);
        (self.hanging > 0 && self.hanging_calls == Calls::Several && silent >= limits.stuck)
            .then_some(Reason::Stuck { hanging: self.hanging, silent })
    }

    fn served_lately(&self, now: Moment, limits: &Thresholds) -> bool {
        self.last_good_live.is_some_and(|at| now.since(at) <= limits.evidence)
    }

    fn down(&self, cause: Cause, now: Moment, limits: &Thresholds) -> Phase {
        let wait = match self.flaps.checked_sub(1) {
            None => Duration::ZERO,
            Some(earlier) => limits.hold_down.wait(earlier),
        };
        Phase::Down { cause, until: now + wait }
    }

    fn forget_flaps(&mut self, now: Moment, limits: &Thresholds) {
        if matches!(self.phase, Phase::Down { .. }) {
            self.flap_forgotten = now;
        }
        while self.flaps > 0 && now.since(self.flap_forgotten) >= limits.decay {
            self.flaps -= 1;
            self.flap_forgotten = self.flap_forgotten + limits.decay;
        }
    }

    fn enter(&mut self, to: Phase, now: Moment) {
        let same = std::mem::discriminant(&self.phase) == std::mem::discriminant(&to);
        match to {
            Phase::Down { .. } if !same => {
                self.flaps = self.flaps.saturating_add(1);
                self.flap_forgotten = now;
                self.probes.good = 0;
            }
            Phase::Trial { .. } if !same => {
                // The trial is judged on what happens in it.
                self.probes = Streak::default();
                self.live = Streak::default();
                self.bad_calls = Calls::None;
                self.hanging = 0;
                self.counted_from = now;
            }
            // A settled doubt leaves the counts alone; a passed trial begins anew.
            Phase::Well if matches!(self.phase, Phase::Trial { .. }) => {
                self.live = Streak::default();
                self.bad_calls = Calls::None;
                self.window = Window::default();
                self.window_calls = Calls::None;
            }
            _ => {}
        }
        if !same {
            self.since = now;
        }
        self.phase = to;
    }
}

// === impl Change ===

impl Change {
    /// Whether the belief itself changed, and not only a count inside it.
    fn is_transition(&self) -> bool {
        std::mem::discriminant(&self.from) != std::mem::discriminant(&self.to)
            || matches!((self.from, self.to), (Phase::Down { cause: a, .. }, Phase::Down { cause: b, .. }) if a != b)
    }
}

// === impl Phase ===

impl Phase {
    /// Its name in metrics, logs and on the status page.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Well => "well",
            Phase::Doubtful => "doubtful",
            Phase::Down { .. } => "down",
            Phase::Trial { .. } => "trial",
        }
    }

    /// Every name [`Phase::name`] can give.
    pub const NAMES: [&'static str; 4] = ["well", "doubtful", "down", "trial"];
}

// === impl Cause ===

impl Cause {
    /// Its name in logs and on the status page.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Traffic => "traffic",
            Cause::Probes => "probes",
        }
    }
}

// === impl Reason ===

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::FirstDoubt => write!(f, "one bad or slow observation"),
            Reason::DoubtSettled(n) => write!(f, "{n} good observations in a row"),
            Reason::BadAttempts(n) => write!(f, "{n} bad attempts in a row from several calls"),
            Reason::BadShare { bad, of } => {
                write!(f, "{bad} of {of} attempts in the window were bad")
            }
            Reason::Stuck { hanging, silent } => {
                write!(
                    f,
                    "{hanging} attempts hang and none ended well for {} ms",
                    silent.as_millis()
                )
            }
            Reason::BadProbes(n) => {
                write!(f, "{n} bad probes in a row and no live attempt ended well")
            }
            Reason::GoodProbes(n) => {
                write!(f, "{n} good probes in a row and the hold-down is over")
            }
            Reason::LiveEvidence => write!(f, "a live attempt ended well although probes fail"),
            Reason::TrialPassed(n) => write!(f, "{n} visits on trial ended well"),
            Reason::TrialPassedByProbes(n) => write!(f, "no visit came and {n} probes were good"),
            Reason::TrialFailed(cause) => write!(f, "the trial failed by {}", cause.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Grade::{Bad, Good};

    const LIMITS: Thresholds = Thresholds {
        fall: 3,
        rise: 2,
        window: Duration::from_secs(10),
        bad_percent: 50,
        window_minimum: 8,
        evidence: Duration::from_secs(10),
        stuck: Duration::from_secs(5),
        hold_down: Backoff { first: Duration::from_secs(2), cap: Duration::from_secs(60) },
        decay: Duration::from_secs(300),
        trial_visits: 3,
        trial_patience: Duration::from_secs(10),
    };

    /// A verdict under observation; time moves only when told to.
    struct Watched {
        verdict: Verdict,
        now: Moment,
    }

    impl Watched {
        fn new() -> Watched {
            let now = Moment::at(Duration::from_secs(100));
            Watched { verdict: Verdict::new(now), now }
        }

        fn wait(&mut self, ms: u64) -> &mut Watched {
            self.now = self.now + Duration::from_millis(ms);
            self
        }

        fn see(&mut self, seen: Observation) -> &mut Watched {
            self.verdict = self.verdict.step(seen, self.now, &LIMITS).0;
            self.wait(1)
        }

        fn probes(&mut self, grades: &[Grade]) -> &mut Watched {
            grades.iter().fold(self, |watched, grade| watched.see(Observation::Probe(*grade)))
        }

        fn live(&mut self, attempts: &[(Grade, u64)]) -> &mut Watched {
            attempts.iter().fold(self, |watched, &(grade, call)| {
                let started = watched.now;
                watched.see(Observation::Live { grade, call, started, was_slow: false })
            })
        }

        #[track_caller]
        fn is(&mut self, expect: &str) -> &mut Watched {
            let got = match self.verdict.phase() {
                Phase::Down { cause, .. } => format!("down by {}", cause.name()),
                phase => phase.name().to_owned(),
            };
            assert_eq!(got, expect);
            self
        }
    }

    #[test]
    fn one_bad_observation_is_a_doubt_and_two_good_ones_settle_it() {
        Watched::new()
            .probes(&[Bad])
            .is("doubtful")
            .probes(&[Good])
            .is("doubtful")
            .probes(&[Good])
            .is("well");
        Watched::new().live(&[(Bad, 1)]).is("doubtful").live(&[(Good, 1), (Good, 2)]).is("well");
    }

    #[test]
    fn three_bad_attempts_of_two_calls_take_it_down() {
        Watched::new()
            .live(&[(Bad, 1), (Bad, 2)])
            .is("doubtful")
            .live(&[(Bad, 1)])
            .is("down by traffic");
    }

    #[test]
    fn one_call_alone_condemns_nothing() {
        Watched::new().live(&[(Bad, 1); 40]).is("doubtful");
    }

    #[test]
    fn consecutive_means_consecutive() {
        Watched::new().live(&[(Bad, 1), (Bad, 2), (Good, 3), (Bad, 1), (Bad, 2)]).is("doubtful");
        Watched::new().probes(&[Bad, Bad, Good, Bad, Bad]).is("doubtful");
    }

    #[test]
    fn a_bad_share_takes_it_down_although_doubts_keep_being_settled() {
        let mut watched = Watched::new();
        let mixed = [(Good, 1), (Bad, 2), (Bad, 3), (Good, 4), (Bad, 5), (Good, 6), (Good, 7)];
        watched.live(&mixed).is("well").live(&[(Bad, 8)]).is("down by traffic");
    }

    #[test]
    fn probes_alone_take_down_only_what_does_not_serve() {
        Watched::new().probes(&[Bad, Bad, Bad]).is("down by probes");
        let mut serving = Watched::new();
        serving.live(&[(Good, 1)]).probes(&[Bad; 20]).is("doubtful");
        serving.wait(11_000).probes(&[Bad]).is("down by probes");
    }

    #[test]
    fn slow_alone_takes_nothing_down() {
        let mut watched = Watched::new();
        for call in 0..20 {
            let started = watched.now;
            watched.wait(3000).see(Observation::Slow { call, started }).is("doubtful");
            watched.wait(500).see(Observation::Live { grade: Good, call, started, was_slow: true });
            assert!(!matches!(watched.verdict.phase(), Phase::Down { .. }));
        }
    }

    #[test]
    fn attempts_that_hang_while_nothing_ends_well_take_it_down() {
        let mut watched = Watched::new();
        let started = watched.now;
        watched.wait(2500).see(Observation::Slow { call: 1, started });
        watched.see(Observation::Slow { call: 2, started }).is("doubtful");
        watched.wait(2400).see(Observation::Tick).is("doubtful");
        watched.wait(100).see(Observation::Tick).is("down by traffic");
    }

    #[test]
    fn one_hanging_call_takes_nothing_down() {
        let mut watched = Watched::new();
        let started = watched.now;
        watched
            .see(Observation::Slow { call: 1, started })
            .see(Observation::Slow { call: 1, started });
        watched.wait(60_000).see(Observation::Tick).is("doubtful");
    }

    #[test]
    fn it_returns_by_probes_then_by_visits() {
        let mut watched = Watched::new();
        watched.probes(&[Bad; 3]).is("down by probes").probes(&[Good]).is("down by probes");
        watched
            .probes(&[Good])
            .is("trial")
            .live(&[(Good, 1), (Good, 1)])
            .is("trial")
            .live(&[(Good, 1)])
            .is("well");
    }

    #[test]
    fn one_bad_visit_ends_a_trial() {
        Watched::new().probes(&[Bad, Bad, Bad, Good, Good]).live(&[(Bad, 1)]).is("down by traffic");
    }

    #[test]
    fn without_visits_probes_end_a_trial_after_a_while() {
        let mut watched = Watched::new();
        watched.probes(&[Bad, Bad, Bad, Good, Good]).is("trial").probes(&[Good, Good]).is("trial");
        watched.wait(10_000).probes(&[Good]).is("well");
    }

    #[test]
    fn a_good_visit_outweighs_the_probes_that_took_it_down() {
        let mut watched = Watched::new();
        watched.probes(&[Bad; 3]).is("down by probes").live(&[(Good, 1)]).is("trial");
        watched.probes(&[Bad; 5]).is("trial").live(&[(Good, 1), (Good, 1)]).is("well");
    }

    #[test]
    fn each_flap_doubles_the_hold_down_and_time_forgives() {
        let mut watched = Watched::new();
        let mut waits = Vec::new();
        for _ in 0..4 {
            watched.live(&[(Bad, 1), (Bad, 2), (Bad, 3)]).is("down by traffic");
            let Phase::Down { until, .. } = watched.verdict.phase() else { unreachable!() };
            waits.push(until.since(watched.verdict.since()).as_secs());
            watched
                .wait(10_000)
                .probes(&[Good, Good])
                .is("trial")
                .live(&[(Good, 1), (Good, 1), (Good, 1)])
                .is("well");
        }
        assert_eq!(waits, [0, 2, 4, 8]);
        watched.wait(1_200_000).see(Observation::Tick);
        assert_eq!(watched.verdict.flaps(), 0);
    }

    #[test]
    fn visits_add_up_although_probes_are_well_between_them() {
        let mut watched = Watched::new();
        watched.live(&[(Bad, 1)]).is("doubtful").probes(&[Good, Good]).is("well");
        watched.live(&[(Bad, 2)]).is("doubtful").probes(&[Good, Good]).is("well");
        watched.live(&[(Bad, 3)]).is("down by traffic");
    }

    #[test]
    fn a_visit_begun_before_the_trial_says_nothing_of_it() {
        let mut watched = Watched::new();
        let started = watched.now;
        watched.wait(2500).see(Observation::Slow { call: 1, started });
        watched.live(&[(Bad, 2), (Bad, 3), (Bad, 4)]).is("down by traffic");
        watched.probes(&[Good, Good]).is("trial");
        let begun = watched.now;
        watched.see(Observation::Slow { call: 5, started: begun });
        watched.see(Observation::Live { grade: Bad, call: 1, started, was_slow: true }).is("trial");
        assert_eq!(watched.verdict.hanging(), 1, "the new attempt still hangs");
        watched.see(Observation::Dropped { started: begun });
        assert_eq!(watched.verdict.hanging(), 0);
    }

    #[test]
    fn a_hold_down_is_served_in_full() {
        let mut watched = Watched::new();
        watched.live(&[(Bad, 1), (Bad, 2), (Bad, 3)]).probes(&[Good, Good]).is("trial");
        watched.live(&[(Bad, 1)]).is("down by traffic").probes(&[Good; 9]).is("down by traffic");
        watched.wait(2000).probes(&[Good]).is("trial");
    }
}
