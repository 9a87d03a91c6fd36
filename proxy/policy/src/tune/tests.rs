//! What is claimed of replays, on worlds whose truth is known.

use std::time::Duration;

use super::*;
use crate::moment::Moment;
use crate::verdict::{Grade, Phase, RowId};

const SHIPPED: Set = Set { thresholds: Thresholds::SHIPPED, pace: Pace::SHIPPED };

fn shipped(name: &str) -> Score {
    run(&mut Scenario::named(name, 1).unwrap(), SHIPPED, 1)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn every_scenario_that_fails_is_noticed_and_nothing_else() {
    for name in Scenario::NAMES {
        let score = shipped(name);
        let fails = !["overload", "lost_probes"].contains(&name);
        assert_eq!((score.outages, score.missed), (u32::from(fails), 0), "{name}: {score:?}");
        assert_eq!(score.needless, 0, "{name}: {score:?}");
        assert_eq!(score.unknown_share(), 0.0, "{name}");
        if fails {
            assert!(score.detect.unwrap() <= ms(6000), "{name}: {:?}", score.detect);
            // What comes and goes is left alone for longer each time; what warms up may be back before.
            let patience = match name {
                "flapping_link" => 60_000,
                "slow_start" => 8000,
                _ => 3500,
            };
            let back = score.back.unwrap_or_default();
            assert!(back <= ms(patience) && score.not_back == 0, "{name}: {back:?}");
        }
    }
    assert!(shipped("gray_failure").detect.unwrap() < ms(1000));
}

#[test]
fn the_same_seed_gives_the_same_score() {
    assert_eq!(shipped("flapping_link"), shipped("flapping_link"));
}

#[test]
fn one_bad_probe_would_be_too_few() {
    let nervous = Set { thresholds: Thresholds { fall: 1, ..Thresholds::SHIPPED }, ..SHIPPED };
    let score = run(&mut Scenario::named("lost_probes", 1).unwrap(), nervous, 1);
    assert!(score.needless_a_day() > 100.0, "{}", score.needless_a_day());
}

#[test]
fn more_patience_meets_more_of_the_failure() {
    let patient = Set { thresholds: Thresholds { fall: 20, ..Thresholds::SHIPPED }, ..SHIPPED };
    let patient = run(&mut Scenario::named("crash", 1).unwrap(), patient, 1);
    let shipped = shipped("crash");
    assert!(patient.met_bad > shipped.met_bad, "{} {}", patient.met_bad, shipped.met_bad);
    assert!(patient.detect > shipped.detect);
}

/// A past: visits ten a second, probes one a second, and a failure from 20 s to 40 s.
fn past(known: impl Fn(u64) -> bool) -> Observed {
    let at = |n: u64| Moment::at(ms(n));
    let bad = |now: u64| (20_000..40_000).contains(&now);
    let grade = |now: u64| if bad(now) { Grade::Bad } else { Grade::Good };
    let visits = (0..600).map(|n| {
        let now = n * 100;
        let fate = if known(now) { Fate::Ended(grade(now), ms(5)) } else { Fate::Unknown };
        Visit { at: at(now), call: n, row: RowId(1), fate }
    });
    let probes = (0..60).map(|n| (at(n * 1000), grade(n * 1000), ms(3)));
    Observed::new(visits.collect(), probes.collect())
}

#[test]
fn a_failure_is_found_in_a_past_from_afterwards() {
    let past = past(|_| true);
    let outage = Outage { from: Moment::at(ms(20_000)), to: Moment::at(ms(40_005)) };
    assert_eq!(past.happened().outages[..], [outage]);
    let score = run(&mut past.clone(), SHIPPED, 1);
    assert_eq!((score.outages, score.missed, score.needless), (1, 0, 0));
    assert!(score.detect.unwrap() < ms(500), "{:?}", score.detect);
    assert!(score.timeline.iter().any(|span| matches!(span.phase, Phase::Down { .. })));
}

#[test]
fn what_was_never_asked_is_unknown() {
    // The edge of the past had left the origin alone after a second; a more patient one would not have.
    let past = past(|now| !(21_000..41_000).contains(&now));
    let patient = Thresholds { fall: 60, window_minimum: 100_000, ..Thresholds::SHIPPED };
    let score = run(&mut past.clone(), Set { thresholds: patient, ..SHIPPED }, 1);
    assert!(score.unknown_share() > 0.2, "{}", score.unknown_share());
    let score = run(&mut past.clone(), SHIPPED, 1);
    assert!(score.unknown_share() < 0.05, "{}", score.unknown_share());
}

#[test]
fn probes_that_nobody_made_are_unknown() {
    let probes = (0..60).filter(|n| !(10..40).contains(n));
    let probes = probes.map(|n| (Moment::at(ms(n * 1000)), Grade::Good, ms(3))).collect();
    let score = run(&mut Observed::new(Vec::new(), probes), SHIPPED, 1);
    assert!((0.3..0.5).contains(&score.unknown_share()), "{}", score.unknown_share());
}

#[test]
fn nothing_is_recommended_from_a_past_that_is_not_known() {
    let past = past(|now| !(10_000..41_000).contains(&now));
    let score = |fall| {
        let thresholds = Thresholds { fall, ..Thresholds::SHIPPED };
        vec![run(&mut past.clone(), Set { thresholds, ..SHIPPED }, 1)]
    };
    let mut ranked =
        vec![Ranked { set: 0, scores: score(30) }, Ranked { set: 1, scores: score(3) }];
    let recommendation = recommend(&mut ranked);
    assert_eq!(recommendation.advice, Advice::Nothing, "{}", recommendation.reason);
    assert!(recommendation.reason.contains("never asked"), "{}", recommendation.reason);
}

#[test]
fn the_set_that_spares_callers_is_recommended_but_not_at_the_price_of_needless_failovers() {
    let worlds = ["crash", "lost_probes", "gray_failure"];
    let scores = |fall| -> Vec<Score> {
        let thresholds = Thresholds { fall, ..Thresholds::SHIPPED };
        let run = |name: &&str| {
            run(&mut Scenario::named(name, 1).unwrap(), Set { thresholds, ..SHIPPED }, 1)
        };
        worlds.iter().map(run).collect()
    };
    let mut ranked: Vec<Ranked> = [20, 1, 3]
        .into_iter()
        .enumerate()
        .map(|(set, fall)| Ranked { set, scores: scores(fall) })
        .collect();
    let recommendation = recommend(&mut ranked);
    assert_eq!(recommendation.advice, Advice::Take(2), "{}", recommendation.reason);
    assert_eq!(ranked.iter().map(|ranked| ranked.set).collect::<Vec<_>>(), [2, 0, 1]);
    // What is in force stays where nothing is better.
    let mut same = vec![Ranked { set: 0, scores: scores(3) }, Ranked { set: 1, scores: scores(3) }];
    assert_eq!(recommend(&mut same).advice, Advice::Stay);
}

#[test]
fn of_sets_that_are_as_good_the_one_that_changes_least_is_recommended() {
    let scores = |fall| {
        let thresholds = Thresholds { fall, ..Thresholds::SHIPPED };
        let scenario = &mut Scenario::named("crash", 1).unwrap();
        vec![run(scenario, Set { thresholds, ..SHIPPED }, 1)]
    };
    let least = scores(3);
    // A visit in some thousands fewer is no reason to change a second number.
    let mut more = least.clone();
    more[0].met_bad -= 1;
    let mut ranked = vec![
        Ranked { set: 0, scores: scores(20) },
        Ranked { set: 1, scores: least },
        Ranked { set: 2, scores: more },
    ];
    let recommendation = recommend(&mut ranked);
    assert_eq!(recommendation.advice, Advice::Take(1), "{}", recommendation.reason);
    assert_eq!(ranked.iter().map(|ranked| ranked.set).collect::<Vec<_>>(), [2, 1, 0]);
}

#[test]
fn a_set_that_never_comes_back_is_not_recommended_for_it() {
    let scores = |trial_again| {
        let thresholds = Thresholds { trial_again, ..Thresholds::SHIPPED };
        let scenario = &mut Scenario::named("gray_failure", 1).unwrap();
        vec![run(scenario, Set { thresholds, ..SHIPPED }, 1)]
    };
    let never = scores(Duration::from_secs(600));
    assert_eq!(never[0].not_back, 1, "{never:?}");
    let mut ranked = vec![
        Ranked { set: 0, scores: scores(Duration::from_secs(1)) },
        Ranked { set: 1, scores: never },
    ];
    assert_eq!(recommend(&mut ranked).advice, Advice::Stay);
    assert_eq!(ranked[0].set, 0);
}

#[test]
fn what_only_probes_or_only_one_row_say_is_no_outage_while_others_serve() {
    let at = |n: u64| Moment::at(ms(n));
    let good = |n: u64, row| {
        let fate = Fate::Ended(Grade::Good, ms(5));
        Visit { at: at(n * 100), call: n, row: RowId(row), fate }
    };
    let visits: Vec<Visit> = (0..600).map(|n| good(n, 1)).collect();
    let wrong = (0..60).map(|n| (at(n * 1000), Grade::Bad, ms(3))).collect();
    assert!(Observed::new(visits.clone(), wrong).happened().outages.is_empty());
    let fails = |n: u64| {
        let fate = Fate::Ended(Grade::Bad, ms(5));
        Visit { at: at(n * 700), call: n, row: RowId(2), fate }
    };
    let visits = visits.into_iter().chain((10..40).map(fails)).collect();
    assert!(Observed::new(visits, Vec::new()).happened().outages.is_empty());
}

#[test]
fn one_lost_probe_is_one_however_often_a_set_asks() {
    let at = |n: u64| Moment::at(ms(n));
    let grade = |n: u64| if n % 20 == 19 { Grade::Bad } else { Grade::Good };
    let probes = (0..600).map(|n| (at(n * 1000), grade(n), ms(3))).collect();
    let hasty = Thresholds { fall: 2, ..Thresholds::SHIPPED };
    let pace = Pace { interval: ms(250), quick: ms(100) };
    let score = run(&mut Observed::new(Vec::new(), probes), Set { thresholds: hasty, pace }, 1);
    assert_eq!(score.needless, 0, "{score:?}");
}
