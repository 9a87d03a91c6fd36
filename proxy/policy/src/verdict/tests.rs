//! The rules of the verdict, one by one; the simulation tries them together.

use std::time::Duration;

use super::*;
use Grade::{Bad, Good};

const LIMITS: Thresholds = Thresholds {
    window: Duration::from_secs(10),
    bad_percent: 50,
    window_minimum: 8,
    stuck: Duration::from_secs(5),
    slow_after: Duration::from_secs(4),
    ..Thresholds::SHIPPED
};

/// An attempt at a row that is like all others.
fn attempt(call: u64, started: Moment) -> Attempt {
    Attempt { call, row: RowId::NONE, started }
}

fn slow(call: u64, started: Moment) -> Observation {
    Observation::Slow(attempt(call, started))
}

fn late(grade: Grade, call: u64, started: Moment) -> Observation {
    let took = Duration::from_secs(5);
    Observation::Live { grade, attempt: attempt(call, started), took, was_slow: true }
}

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
            let (attempt, took) = (attempt(call, started), Duration::from_millis(5));
            watched.see(Observation::Live { grade, attempt, took, was_slow: false })
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
        watched.wait(3000).see(slow(call, started)).is("doubtful");
        watched.wait(500).see(late(Good, call, started));
        assert!(!matches!(watched.verdict.phase(), Phase::Down { .. }));
    }
}

#[test]
fn attempts_that_hang_while_nothing_ends_well_are_not_waited_for() {
    let mut watched = Watched::new();
    let started = watched.now;
    watched.wait(2500).see(slow(1, started));
    watched.see(slow(2, started)).is("doubtful");
    watched.wait(2400).see(Observation::Tick).is("doubtful");
    watched.wait(100).see(Observation::Tick).is("stuck");
    // Slow, then: it is not taken down, and the late answer ends it.
    watched.wait(5000).see(late(Good, 1, started));
    watched.is("doubtful");
    // Dead, then.
    let mut dead = Watched::new();
    let started = dead.now;
    (1..4).fold(dead.wait(2500), |dead, call| dead.see(slow(call, started)));
    dead.wait(2500).see(Observation::Tick).is("stuck");
    dead.wait(38_000).see(late(Bad, 1, started));
    dead.see(late(Bad, 2, started)).is("stuck");
    dead.see(late(Bad, 3, started));
    dead.is("down by traffic");
}

#[test]
fn a_frozen_upstream_is_stuck_first_and_taken_down_by_its_probes() {
    let mut watched = Watched::new();
    watched.live(&[(Good, 1)]);
    let started = watched.now;
    watched.wait(2500).see(slow(1, started));
    watched.see(slow(2, started)).probes(&[Bad; 3]).is("doubtful");
    watched.wait(2500).see(Observation::Tick).is("stuck");
    watched.wait(5000).see(Observation::Tick).is("down by probes");
}

#[test]
fn what_is_left_of_an_outage_takes_nothing_down_when_it_ends() {
    // Whether it lasted long enough to be seen as stuck, or not.
    for outage in [3000, 8000] {
        let mut watched = Watched::new();
        let started = watched.now;
        watched.wait(2500);
        (0..9).fold(&mut watched, |w, call| w.see(slow(call, started)));
        watched.wait(outage - 2500).see(Observation::Tick);
        watched.is(if outage > 5000 { "stuck" } else { "doubtful" });
        for call in 10..50 {
            watched.wait(200).live(&[(Good, call)]);
        }
        watched.is("well");
        watched.wait(30_000);
        (0..9).fold(&mut watched, |w, call| w.see(late(Bad, call, started)));
        watched.is("well");
        assert_eq!(watched.verdict.hanging(), 0);
    }
}

#[test]
fn an_upstream_that_only_hangs_is_condemned_however_seldom_it_is_asked() {
    let mut watched = Watched::new();
    let mut hung = std::collections::VecDeque::new();
    for call in 0..20 {
        let started = watched.now;
        hung.push_back((call, started));
        watched.wait(2500).see(slow(call, started));
        watched.probes(&[Good, Good, Good]).wait(2500).probes(&[Good, Good]);
        if call >= 9 {
            let Some((call, started)) = hung.pop_front() else { unreachable!() };
            watched.is("stuck");
            watched.see(late(Bad, call, started));
        }
        if matches!(watched.verdict.phase(), Phase::Down { .. }) {
            return;
        }
    }
    panic!("never condemned");
}

#[test]
fn a_few_good_answers_do_not_excuse_what_hangs() {
    // One visit in ten ends well, four seconds apart.
    let mut watched = Watched::new();
    let mut hung = std::collections::VecDeque::new();
    for call in 0..400 {
        let started = watched.now;
        if call % 10 == 0 {
            watched.live(&[(Good, call)]);
        } else {
            hung.push_back((call, started));
        }
        watched.wait(400);
        let turned = watched
            .now
            .since(Moment::at(Duration::ZERO))
            .saturating_sub(Duration::from_millis(2500));
        if let Some(&(call, started)) = hung.iter().rev().find(|(_, at)| at.since_start() <= turned)
        {
            watched.see(slow(call, started));
        }
        let old = |at: Moment, now: Moment| now.since(at) >= Duration::from_secs(45);
        while hung.front().is_some_and(|(_, at)| old(*at, watched.now)) {
            let (call, started) = hung.pop_front().unwrap();
            watched.see(late(Bad, call, started));
        }
        if matches!(watched.verdict.phase(), Phase::Down { .. }) {
            return;
        }
    }
    panic!("never condemned");
}

#[test]
fn one_call_among_those_that_ended_well_makes_nothing_stuck() {
    let mut watched = Watched::new();
    let started = watched.now;
    watched.wait(2500).see(slow(1, started));
    watched.see(slow(2, started));
    watched.see(late(Good, 1, started));
    watched.wait(10_000).see(Observation::Tick).is("doubtful");
}

#[test]
fn attempts_that_go_on_hanging_among_good_ones_count_when_they_end() {
    let mut watched = Watched::new();
    let mut hung = std::collections::VecDeque::new();
    for call in 0..100 {
        let started = watched.now;
        hung.push_back((call, started));
        watched.wait(500).live(&[(Good, call + 100)]);
        if let Some((call, started)) = (call > 5).then(|| hung[hung.len() - 6]) {
            watched.see(slow(call, started));
        }
        if call > 30
            && let Some((call, started)) = hung.pop_front()
        {
            watched.see(late(Bad, call, started));
        }
    }
    watched.is("down by traffic");
}

#[test]
fn one_hanging_call_takes_nothing_down() {
    let mut watched = Watched::new();
    let started = watched.now;
    watched.see(slow(1, started)).see(slow(1, started));
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
    watched.wait(2500).see(slow(1, started));
    watched.live(&[(Bad, 2), (Bad, 3), (Bad, 4)]).is("down by traffic");
    watched.probes(&[Good, Good]).is("trial");
    let begun = watched.now;
    watched.see(slow(5, begun));
    watched.see(late(Bad, 1, started)).is("trial");
    assert_eq!(watched.verdict.hanging(), 1, "the new attempt still hangs");
    watched.see(Observation::Dropped(attempt(5, begun)));
    assert_eq!(watched.verdict.hanging(), 0);
}

#[test]
fn a_hold_down_is_served_in_full() {
    let mut watched = Watched::new();
    watched.live(&[(Bad, 1), (Bad, 2), (Bad, 3)]).probes(&[Good, Good]).is("trial");
    watched.live(&[(Bad, 1)]).is("down by traffic").probes(&[Good; 9]).is("down by traffic");
    watched.wait(2000).probes(&[Good]).is("trial");
}

#[test]
fn failed_trials_are_one_outage_and_no_flaps() {
    let mut watched = Watched::new();
    watched.live(&[(Bad, 1), (Bad, 2), (Bad, 3)]).is("down by traffic");
    for _ in 0..10 {
        watched.wait(1000).probes(&[Good, Good]).is("trial").live(&[(Bad, 1)]);
        watched.probes(&[Good, Good]).is("down by traffic");
    }
    assert_eq!(watched.verdict.flaps(), 1);
    watched.wait(1000).probes(&[Good]).is("trial").live(&[(Good, 1); 3]).is("well");
    // The next one is a flap.
    watched.live(&[(Bad, 1), (Bad, 2), (Bad, 3)]);
    let Phase::Down { until, .. } = watched.verdict.phase() else { unreachable!() };
    assert_eq!((watched.verdict.flaps(), until.since(watched.verdict.since()).as_secs()), (2, 2));
}

#[test]
fn at_the_cap_a_failed_trial_is_held_down_as_long_as_its_outage() {
    let mut watched = Watched::new();
    let held = |watched: &Watched| {
        let Phase::Down { until, .. } = watched.verdict.phase() else { unreachable!() };
        until.since(watched.verdict.since()).as_secs()
    };
    for _ in 0..9 {
        watched.live(&[(Bad, 1), (Bad, 2), (Bad, 3)]).is("down by traffic");
        watched.wait(60_000).probes(&[Good, Good]).is("trial").live(&[(Good, 1); 3]).is("well");
    }
    watched.live(&[(Bad, 1), (Bad, 2), (Bad, 3)]);
    assert_eq!(held(&watched), 60);
    watched.wait(60_000).probes(&[Good, Good]).is("trial").live(&[(Bad, 1)]).is("down by traffic");
    assert_eq!(held(&watched), 60);
}

/// An upstream under observation with two rows.
struct WatchedRows {
    belief: Belief,
    now: Moment,
    changes: Vec<(Subject, Change)>,
}

const ROW: RowId = RowId(1);
const OTHER: RowId = RowId(2);

impl WatchedRows {
    fn new() -> WatchedRows {
        let now = Moment::at(Duration::from_secs(100));
        WatchedRows { belief: Belief::new(now), now, changes: Vec::new() }
    }

    fn see(&mut self, seen: Observation) -> &mut WatchedRows {
        let changes = &mut self.changes;
        let tell = |subject, change| changes.push((subject, change));
        self.belief.step(seen, self.now, &LIMITS, tell);
        self.now = self.now + Duration::from_millis(1);
        self
    }

    /// Attempts at a row, each of a call of its own, and time enough between them.
    fn live(&mut self, row: RowId, grades: &[Grade]) -> &mut WatchedRows {
        for (call, grade) in grades.iter().enumerate() {
            let attempt = Attempt { call: call as u64, row, started: self.now };
            let took = Duration::from_millis(5);
            self.see(Observation::Live { grade: *grade, attempt, took, was_slow: false });
        }
        self
    }

    fn wait(&mut self, ms: u64) -> &mut WatchedRows {
        for _ in 0..ms / 100 {
            self.now = self.now + Duration::from_millis(100);
            self.see(Observation::Tick);
        }
        self
    }

    #[track_caller]
    fn is(&mut self, upstream: &str, row: &str) -> &mut WatchedRows {
        let got = (self.belief.upstream().phase().name(), self.belief.phase_of(ROW).name());
        assert_eq!(got, (upstream, row), "{:#?}", self.changes);
        self
    }
}

#[test]
fn a_row_that_fails_alone_is_taken_down_alone() {
    let mut watched = WatchedRows::new();
    watched.live(OTHER, &[Good]).live(ROW, &[Bad, Bad]).is("doubtful", "doubtful");
    watched.live(ROW, &[Bad]).is("doubtful", "down");
    watched.live(OTHER, &[Good, Good]).is("well", "down");
    // It is tried after a second, and its failure then is nothing new.
    watched.wait(1000).is("well", "trial").live(ROW, &[Bad]).is("well", "down");
    watched.wait(1000).live(ROW, &[Good, Good]).is("well", "trial");
    watched.live(ROW, &[Good]).is("well", "well");
}

#[test]
fn what_fails_with_the_whole_upstream_is_the_upstreams() {
    // Nothing says that others serve.
    WatchedRows::new().live(ROW, &[Bad; 3]).is("down", "well");
    // They did, a while ago.
    WatchedRows::new().live(OTHER, &[Good]).wait(11_000).live(ROW, &[Bad; 3]).is("down", "well");
    // They fail too.
    let mut watched = WatchedRows::new();
    watched.live(OTHER, &[Good]).live(ROW, &[Bad, Bad]).live(OTHER, &[Bad]).is("down", "well");
    // A row that had failed alone begins anew when the upstream fails.
    let mut watched = WatchedRows::new();
    watched.live(OTHER, &[Good]).live(ROW, &[Bad; 3]).is("doubtful", "down");
    (0..3).fold(&mut watched, |watched, _| watched.see(Observation::Probe(Bad)));
    watched.live(OTHER, &[Bad, Bad, Bad]).is("down", "well");
}

#[test]
fn what_a_client_did_wrong_speaks_against_the_row_alone() {
    let mut watched = WatchedRows::new();
    for call in 0..3 {
        let attempt = Attempt { call, row: ROW, started: watched.now };
        watched.see(Observation::Rejected { attempt, was_slow: false });
    }
    watched.is("well", "down");
}

#[test]
fn a_row_that_hangs_alone_is_not_waited_for() {
    let mut watched = WatchedRows::new();
    let started = watched.now;
    watched.wait(2500);
    for call in 0..2 {
        watched.see(Observation::Slow(Attempt { call, row: ROW, started }));
        watched.live(OTHER, &[Good]);
    }
    watched.is("doubtful", "doubtful").wait(2500).is("doubtful", "stuck");
    for call in 0..2 {
        let attempt = Attempt { call, row: ROW, started };
        let took = watched.now.since(started);
        watched.see(Observation::Live { grade: Good, attempt, took, was_slow: true });
    }
    assert_eq!(watched.belief.upstream().hanging(), 0);
    watched.live(OTHER, &[Good, Good]).live(ROW, &[Good, Good]).is("well", "well");
}

#[test]
fn a_row_that_nobody_tried_is_out_again_after_one_failure() {
    let mut watched = WatchedRows::new();
    watched.live(OTHER, &[Good]).live(ROW, &[Bad; 3]).wait(1000).is("doubtful", "trial");
    watched.live(OTHER, &[Good, Good]).wait(10_000).is("well", "well");
    watched.live(OTHER, &[Good]).live(ROW, &[Bad]).is("doubtful", "down");
    // Each time it is left alone for longer.
    watched.wait(1900).is("doubtful", "down").wait(100).is("doubtful", "trial");
}

#[test]
fn a_row_is_forgotten_when_it_has_been_well_for_long() {
    let mut watched = WatchedRows::new();
    watched.live(OTHER, &[Good]).live(ROW, &[Bad; 3]).wait(1000).live(ROW, &[Good; 3]);
    assert_eq!(watched.belief.rows().count(), 1);
    watched.wait(301_000);
    assert_eq!(watched.belief.rows().count(), 0);
    // So is one that failed once and was not seen again.
    watched.live(ROW, &[Bad]).wait(301_000);
    assert_eq!(watched.belief.rows().count(), 0);
    watched.is("doubtful", "well");
}

#[test]
fn slow_answers_are_a_doubt_for_as_long_as_they_are_many() {
    let mut watched = Watched::new();
    let answers = |watched: &mut Watched, took: u64, n: u64| {
        for call in 0..n {
            let attempt = attempt(call, watched.now);
            let took = Duration::from_millis(took);
            watched.see(Observation::Live { grade: Good, attempt, took, was_slow: false });
        }
    };
    answers(&mut watched, 4001, 4);
    watched.is("well");
    answers(&mut watched, 100, 3);
    answers(&mut watched, 4001, 1);
    watched.is("doubtful");
    answers(&mut watched, 4001, 40);
    watched.is("doubtful");
    assert!(watched.verdict.slow_share(watched.now, &LIMITS) > 0.9);
    answers(&mut watched, 100, 43);
    watched.is("well");
}

#[test]
fn probes_and_traffic_may_disagree() {
    let says = |watched: &mut Watched| watched.verdict.disagreement(watched.now, &LIMITS);
    let mut watched = Watched::new();
    assert_eq!(says(watched.live(&[(Good, 1)]).probes(&[Good])), None);
    assert_eq!(says(watched.probes(&[Bad])), Some(Cause::Probes));
    assert_eq!(says(watched.live(&[(Bad, 1)])), None);
    assert_eq!(says(watched.probes(&[Good])), Some(Cause::Traffic));
    // For as long as the gray failure lasts, trials included.
    watched.live(&[(Bad, 2), (Bad, 3)]).is("down by traffic");
    assert_eq!(
        says(watched.probes(&[Good, Good]).is("trial").probes(&[Good])),
        Some(Cause::Traffic)
    );
    assert_eq!(says(watched.wait(11_000)), None);
}
