//! What is promised of the edge, and the worst that came of it.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Entry, Report, time};
use crate::overload::Borne;
use crate::peers::Peer;
use crate::upstream::Manner;

/// Something promised of the edge: words, and what of a run must be at most this.
struct Promise {
    words: &'static str,
    most: f64,
    unit: Unit,
    of: Of,
}

/// Of which runs it is promised; none of a run that it says nothing about.
enum Of {
    /// Of those in which the origin failed.
    Failures(fn(&Entry) -> Option<f64>),
    /// Of those in which it was asked for more than it can do.
    Overload(fn(&Borne) -> Option<f64>),
}

#[derive(Clone, Copy)]
enum Unit {
    Calls,
    Seconds,
    /// The share that is missing; shown is what is there.
    Missing,
}

const NEVER: f64 = 99.0;

const PROMISES: [Promise; 15] = [
    Promise {
        words: "nobody is lost",
        most: 0.0,
        unit: Unit::Calls,
        of: Of::Failures(|entry| Some(entry.measured.lost as f64)),
    },
    Promise {
        words: "nothing runs twice that must not",
        most: 0.0,
        unit: Unit::Calls,
        of: Of::Failures(|entry| Some(entry.measured.twice as f64)),
    },
    Promise {
        words: "nobody is dropped on a row that may be repeated",
        most: 0.0,
        unit: Unit::Calls,
        of: Of::Failures(|entry| Some(entry.measured.dropped_repeatable as f64)),
    },
    Promise {
        words: "p99 of answers at most 2.7 s while a failure is undetected",
        most: 2.7,
        unit: Unit::Seconds,
        of: Of::Failures(|entry| Some(entry.measured.p99_undetected?.as_secs_f64())),
    },
    Promise {
        words: "p99 at most 20 ms once it is detected",
        most: 0.02,
        unit: Unit::Seconds,
        of: Of::Failures(|entry| Some(entry.measured.p99_detected?.as_secs_f64())),
    },
    Promise {
        words: "errors are detected within 3 visits while probes are well",
        most: 3.0,
        unit: Unit::Calls,
        of: Of::Failures(|entry| {
            let gray = [Manner::Error, Manner::Page, Manner::Half];
            let met = entry.measured.met as f64;
            gray.iter().any(|manner| entry.is(*manner)).then_some(met)
        }),
    },
    Promise {
        words: "and of the repeatable requests of the 8 s at most 24 run twice then: a failing origin is \
                tried now and then, and not by everybody",
        most: 24.0,
        unit: Unit::Calls,
        of: Of::Failures(|entry| {
            let gray = [Manner::Error, Manner::Page, Manner::Half];
            let twice = entry.measured.twice_repeatable as f64;
            gray.iter().any(|manner| entry.is(*manner)).then_some(twice)
        }),
    },
    Promise {
        words: "hangs are detected within 6 s",
        most: 6.0,
        unit: Unit::Seconds,
        of: Of::Failures(|entry| {
            let detected = entry.measured.detected.map_or(NEVER, |at| at.as_secs_f64());
            (entry.failure.shows_by_waiting() && !entry.is(Manner::Slow)).then_some(detected)
        }),
    },
    Promise {
        words: "back on the origin at most 2 s after it is good again (first flap)",
        most: 2.0,
        unit: Unit::Seconds,
        of: Of::Failures(|entry| {
            let back = entry.measured.back.map_or(NEVER, |at| at.as_secs_f64());
            // What comes and goes has flapped more than once.
            (!entry.is(Manner::Alternate)).then_some(back)
        }),
    },
    Promise {
        words: "an origin that is only slow is not taken down",
        most: 0.0,
        unit: Unit::Calls,
        of: Of::Failures(|entry| {
            let down = f64::from(u8::from(entry.measured.was_down?));
            entry.is(Manner::Slow).then_some(down)
        }),
    },
    Promise {
        words: "whoever an origin that is only slow has kept waiting is steered in the end",
        most: 0.0,
        unit: Unit::Calls,
        of: Of::Failures(|entry| {
            entry.is(Manner::Slow).then_some(entry.measured.held_in_vain as f64)
        }),
    },
    Promise {
        words: "an origin that is asked for twice what it can do answers probes too late, and is doubted",
        most: 0.0,
        unit: Unit::Missing,
        of: Of::Overload(|borne| Some(f64::from(u8::from(!borne.was_doubted?)))),
    },
    Promise {
        words: "it is not taken down",
        most: 0.0,
        unit: Unit::Calls,
        of: Of::Overload(|borne| Some(f64::from(u8::from(borne.was_down?)))),
    },
    Promise {
        words: "its goodput then is at least 90 % of what it can do",
        most: 0.1,
        unit: Unit::Missing,
        of: Of::Overload(|borne| Some(1.0 - borne.goodput)),
    },
    Promise {
        words: "nobody is dropped or lost then",
        most: 0.0,
        unit: Unit::Calls,
        of: Of::Overload(|borne| Some((borne.dropped + borne.lost) as f64)),
    },
];

/// All promises, and what came of each.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::from(
        "\n## What is promised of the edge\n\n| promise | kept | worst |\n|---|---|---|\n",
    );
    for promise in PROMISES {
        let (kept, worst) = match promise.worst(report) {
            None => ("not measured", String::new()),
            Some((value, run)) => {
                let kept = if value <= promise.most { "yes" } else { "**no**" };
                (kept, format!("{} ({run})", number(value, promise.unit)))
            }
        };
        let _ = writeln!(text, "| {} | {kept} | {worst} |", promise.words);
    }
    text
}

// === impl Promise ===

impl Promise {
    /// The worst of the edge's runs, and which it was.
    fn worst(&self, report: &Report) -> Option<(f64, String)> {
        let is_ours = |peer: Peer| peer == Peer::Holdline;
        let measured: Vec<_> = match self.of {
            Of::Failures(of) => {
                let ours = report.rows.iter().filter(|entry| is_ours(entry.contender.peer));
                let run = |entry: &Entry| format!("{}, {}/s", entry.name, entry.rate);
                ours.filter_map(|entry| Some((of(entry)?, run(entry)))).collect()
            }
            Of::Overload(of) => {
                let ours = report.overload.iter().filter(|(who, _)| is_ours(who.peer));
                ours.filter_map(|(_, borne)| Some((of(borne)?, "twice the load".to_owned())))
                    .collect()
            }
        };
        measured.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Calls => format!("{value:.0}"),
        Unit::Seconds if value >= NEVER => "never".to_owned(),
        Unit::Seconds => time(Duration::from_secs_f64(value)),
        Unit::Missing => format!("{:.0} %", (1.0 - value) * 100.0),
    }
}
