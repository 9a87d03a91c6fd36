//! What came of it, as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use holdline_policy::tune::{Advice, Ranked, Score};
use serde_json::{Value, json};

use super::Tuned;
use crate::clock::millis;

/// A table of the best sets, with the one in force among them, and what is recommended.
pub(super) fn as_table(tuned: &Tuned, most: usize) -> String {
    let mut text = String::new();
    for world in &tuned.worlds {
        line(&mut text, &format!("{}: {}", world.name, world.what));
    }
    line(&mut text, "");
    let widest = shown(tuned, most).map(|ranked| name(tuned, ranked).len()).max().unwrap_or(0);
    line(
        &mut text,
        &format!(
            "{:widest$}  {:>8} {:>8} {:>10} {:>6} {:>8} {:>8} {:>8}",
            "set", "detect", "longest", "needless/d", "flaps", "met bad", "back", "unknown"
        ),
    );
    for ranked in shown(tuned, most) {
        let mut missed = String::new();
        for (count, what) in
            [(ranked.missed(), "missed"), (ranked.not_back(), "never come back from")]
        {
            if count > 0 {
                missed.push_str(&format!("  {count} of {} outages {what}", ranked.outages()));
            }
        }
        line(
            &mut text,
            &format!(
                "{:widest$}  {:>8} {:>8} {:>10.1} {:>6} {:>8} {:>8} {:>8}{missed}",
                name(tuned, ranked),
                time(ranked.detect()),
                time(ranked.detect_longest()),
                ranked.needless_a_day(),
                ranked.flaps(),
                percent(ranked.met_bad_share()),
                time(ranked.back()),
                percent(ranked.unknown_share()),
            ),
        );
    }
    line(&mut text, "");
    line(&mut text, &recommended(tuned));
    let (sets, observations) = (tuned.sets.all.len(), tuned.observations);
    let _ = write!(text, "({sets} sets, {observations} visits and probes each)");
    text
}

/// The best, and behind them what is in force if it is not among them.
pub(super) fn shown(tuned: &Tuned, most: usize) -> impl Iterator<Item = &Ranked> {
    let most = most.max(1);
    let in_force = tuned.ranked.iter().skip(most).filter(|ranked| ranked.set == 0);
    tuned.ranked.iter().take(most).chain(in_force)
}

/// A set's name: its values, and whether it is in force.
pub(super) fn name(tuned: &Tuned, ranked: &Ranked) -> String {
    let words = tuned.sets.in_words(ranked.set);
    if ranked.set == 0 { format!("{words} (in force)") } else { words }
}

/// What is recommended, in a sentence.
pub(super) fn recommended(tuned: &Tuned) -> String {
    let reason = &tuned.recommendation.reason;
    match tuned.recommendation.advice {
        Advice::Take(set) => format!("Recommended: {}: {reason}.", tuned.sets.in_words(set)),
        Advice::Stay => format!("Recommended: what is in force: {reason}."),
        Advice::Nothing => format!("Nothing is recommended: {reason}."),
    }
}

/// Everything as JSON; times in milliseconds, shares from 0 to 1.
pub(super) fn as_json(tuned: &Tuned) -> Value {
    let recommended = match tuned.recommendation.advice {
        Advice::Take(set) => Some(set),
        Advice::Stay => Some(0),
        Advice::Nothing => None,
    };
    let worlds: Vec<Value> = tuned
        .worlds
        .iter()
        .map(|world| json!({ "name": world.name, "what": world.what }))
        .collect();
    let sets: Vec<Value> = tuned
        .ranked
        .iter()
        .map(|ranked| {
            json!({
                "set": tuned.sets.as_json(ranked.set),
                "in_force": ranked.set == 0,
                "recommended": Some(ranked.set) == recommended,
                "detect_ms": ranked.detect().map(millis),
                "detect_longest_ms": ranked.detect_longest().map(millis),
                "outages": ranked.outages(),
                "missed": ranked.missed(),
                "needless_failovers_a_day": ranked.needless_a_day(),
                "flaps": ranked.flaps(),
                "not_back": ranked.not_back(),
                "met_bad_share": ranked.met_bad_share(),
                "back_ms": ranked.back().map(millis),
                "unknown_share": ranked.unknown_share(),
                "worlds": ranked.scores.iter().map(score).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "worlds": worlds,
        "observations": tuned.observations,
        "recommendation": {
            "set": recommended.map(|set| tuned.sets.as_json(set)),
            "reason": tuned.recommendation.reason,
        },
        "sets": sets,
    })
}

fn score(score: &Score) -> Value {
    json!({
        "length_ms": millis(score.length),
        "outages": score.outages,
        "missed": score.missed,
        "detect_ms": score.detect.map(millis),
        "detect_longest_ms": score.detect_longest.map(millis),
        "back_ms": score.back.map(millis),
        "back_longest_ms": score.back_longest.map(millis),
        "needless_failovers": score.needless,
        "flaps": score.flaps,
        "not_back": score.not_back,
        "visits": score.visits,
        "met_bad": score.met_bad,
        "unknown_visits": score.unknown_visits,
        "probes": score.probes,
        "unknown_probes": score.unknown_probes,
    })
}

/// A time, as short as it can be said.
pub(super) fn time(time: Option<Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < Duration::from_secs(1) => format!("{} ms", time.as_millis()),
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}
