//! The rules of the verdict, one by one; the simulation tries them together.

use std::time::Duration;

use super::*;
use crate::backoff::Backoff;
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
    trial_again: Duration::from_secs(1),
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
fn attempts_that_hang_while_nothing_ends_well_are_not_waited_for() {
    let mut watched = Watched::new();
    let started = watched.now;
    watched.wait(2500).see(Observation::Slow { call: 1, started });
    watched.see(Observation::Slow { call: 2, started }).is("doubtful");
    watched.wait(2400).see(Observation::Tick).is("doubtful");
    watched.wait(100).see(Observation::Tick).is("stuck");
    // Slow, then: it is not taken down, and the late answer ends it.
    watched.wait(5000).see(Observation::Live { grade: Good, call: 1, started, was_slow: true });
    watched.is("doubtful");
    // Dead, then.
    let mut dead = Watched::new();
    let started = dead.now;
    (1..4).fold(dead.wait(2500), |dead, call| dead.see(Observation::Slow { call, started }));
    dead.wait(2500).see(Observation::Tick).is("stuck");
    dead.wait(38_000).see(Observation::Live { grade: Bad, call: 1, started, was_slow: true });
    dead.see(Observation::Live { grade: Bad, call: 2, started, was_slow: true }).is("stuck");
    dead.see(Observation::Live { grade: Bad, call: 3, started, was_slow: true });
    dead.is("down by traffic");
}

#[test]
fn a_frozen_upstream_is_stuck_first_and_taken_down_by_its_probes() {
    let mut watched = Watched::new();
    watched.live(&[(Good, 1)]);
    let started = watched.now;
    watched.wait(2500).see(Observation::Slow { call: 1, started });
    watched.see(Observation::Slow { call: 2, started }).probes(&[Bad; 3]).is("doubtful");
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
        (0..9).fold(&mut watched, |w, call| w.see(Observation::Slow { call, started }));
        watched.wait(outage - 2500).see(Observation::Tick);
        watched.is(if outage > 5000 { "stuck" } else { "doubtful" });
        for call in 10..50 {
            watched.wait(200).live(&[(Good, call)]);
        }
        watched.is("well");
        watched.wait(30_000);
        (0..9).fold(&mut watched, |w, call| {
            w.see(Observation::Live { grade: Bad, call, started, was_slow: true })
        });
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
        watched.wait(2500).see(Observation::Slow { call, started });
        watched.probes(&[Good, Good, Good]).wait(2500).probes(&[Good, Good]);
        if call >= 9 {
            let Some((call, started)) = hung.pop_front() else { unreachable!() };
            watched.is("stuck");
            watched.see(Observation::Live { grade: Bad, call, started, was_slow: true });
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
            watched.see(Observation::Slow { call, started });
        }
        let old = |at: Moment, now: Moment| now.since(at) >= Duration::from_secs(45);
        while hung.front().is_some_and(|(_, at)| old(*at, watched.now)) {
            let (call, started) = hung.pop_front().unwrap();
            watched.see(Observation::Live { grade: Bad, call, started, was_slow: true });
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
    watched.wait(2500).see(Observation::Slow { call: 1, started });
    watched.see(Observation::Slow { call: 2, started });
    watched.see(Observation::Live { grade: Good, call: 1, started, was_slow: true });
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
            watched.see(Observation::Slow { call, started });
        }
        if call > 30
            && let Some((call, started)) = hung.pop_front()
        {
            watched.see(Observation::Live { grade: Bad, call, started, was_slow: true });
        }
    }
    watched.is("down by traffic");
}

#[test]
fn one_hanging_call_takes_nothing_down() {
    let mut watched = Watched::new();
    let started = watched.now;
    watched.see(Observation::Slow { call: 1, started }).see(Observation::Slow { call: 1, started });
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
