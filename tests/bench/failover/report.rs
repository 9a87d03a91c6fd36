//! What came of all runs: tables, a chart, and what was promised of the edge.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::peers::Peer;
use crate::run::{Failure, Measured};
use crate::upstream::Manner;

/// All runs.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    rate: u32,
    name: &'static str,
    failure: Failure,
    peer: Peer,
    measured: Measured,
}

const HEAD: &str = "\
# Failover, beside others

Callers at a steady pace, and an origin that fails for 8 of 25 seconds. Half of the callers meet a row that may be repeated, the others one that must not; each is one question, and whoever is held comes back until there is an answer or an end. Made by `make bench-failover` (`QUICK=1` for a short form), which overwrites this page; the configurations of the proxies, with why each setting is there, are in `tests/bench/failover/peers`. Proxy, origin and standby are fresh processes for each run; at 20 callers a second all proxies run side by side, at 200 three at a time.

- **steered**: the origin's or the standby's document in the end. **held**: on the way to whatever end. **dropped**: a document that neither of them wrote. **lost**: no TwiML in Twilio's 15 seconds.
- **twice**: requests that ran more than once, on rows that must not / on rows that may.
- **p50**, **p99**: waits for an answer, over the whole run.
- **meets it until**: when callers stopped to wait for the failing origin (more than 100 ms) or, where it fails at once, to reach it; and how many had reached it by then.
- **back**: when all callers were answered by the origin again, after it was good again.
";

// === impl Report ===

impl Report {
    /// Adds a run.
    pub(crate) fn add(
        &mut self,
        rate: u32,
        name: &'static str,
        failure: Failure,
        peer: Peer,
        measured: Measured,
    ) {
        let entry = Entry { rate, name, failure, peer, measured };
        say(&format!("{:>3}/s {:<36} {}", rate, name, entry.row()));
        self.rows.push(entry);
    }

    /// Writes everything to `out` with `.md` and `.svg`, or to standard output.
    pub(crate) fn write(&self, out: Option<&Path>) -> anyhow::Result<()> {
        let Some(out) = out else {
            say(&self.tables());
            return Ok(());
        };
        let chart = out.with_extension("svg");
        let chart_name = chart.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let page = format!("{HEAD}\n![Callers not steered]({chart_name})\n{}", self.tables());
        std::fs::write(out.with_extension("md"), page)?;
        std::fs::write(chart, self.chart())?;
        Ok(())
    }

    fn rates(&self) -> Vec<u32> {
        let mut rates: Vec<u32> = self.rows.iter().map(|entry| entry.rate).collect();
        rates.dedup();
        rates
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for entry in &self.rows {
            if !names.contains(&entry.name) {
                names.push(entry.name);
            }
        }
        names
    }

    fn tables(&self) -> String {
        let mut text = self.promises();
        for rate in self.rates() {
            let _ = write!(text, "\n## {rate} callers a second\n");
            for name in self.names() {
                let _ = write!(
                    text,
                    "\n### The origin: {name}\n\n\
                     | proxy | steered | held | dropped | lost | twice | p50 | p99 | meets it until | back |\n\
                     |---|---|---|---|---|---|---|---|---|---|\n"
                );
                let of = |entry: &&Entry| entry.rate == rate && entry.name == name;
                for entry in self.rows.iter().filter(of) {
                    let _ = writeln!(text, "{}", entry.row());
                }
            }
        }
        text
    }

    /// What was promised of the edge, and what came of it.
    fn promises(&self) -> String {
        let ours: Vec<&Entry> =
            self.rows.iter().filter(|entry| entry.peer == Peer::Holdline).collect();
        let mut text = String::from(
            "\n## What is promised of the edge\n\n| promise | kept | worst |\n|---|---|---|\n",
        );
        for promise in PROMISES {
            let measured = ours.iter().filter_map(|entry| Some((entry, (promise.of)(entry)?)));
            let worst = measured.max_by(|a, b| a.1.total_cmp(&b.1));
            let (kept, worst) = match worst {
                None => ("not measured", String::new()),
                Some((entry, value)) => {
                    let kept = if value <= promise.most { "yes" } else { "**no**" };
                    (
                        kept,
                        format!(
                            "{} ({}, {}/s)",
                            number(value, promise.unit),
                            entry.name,
                            entry.rate
                        ),
                    )
                }
            };
            let _ = writeln!(text, "| {} | {kept} | {worst} |", promise.words);
        }
        text
    }

    /// One line a failure, one bar a proxy: the share of callers begun in the failure's time who were not
    /// steered, and those who waited.
    fn chart(&self) -> String {
        const ROW: usize = 15;
        const LEFT: usize = 330;
        const WIDTH: f64 = 420.0;
        let rate = self.rates().first().copied().unwrap_or_default();
        let mut body = String::new();
        let mut y = 60;
        for name in self.names() {
            let of = |entry: &&Entry| entry.rate == rate && entry.name == name;
            let entries: Vec<&Entry> = self.rows.iter().filter(of).collect();
            let middle = y + entries.len() * ROW / 2 + 4;
            let _ = writeln!(body, "<text x=\"8\" y=\"{middle}\">{name}</text>");
            for entry in entries {
                let _ = writeln!(
                    body,
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"peer\">{}</text>",
                    LEFT - 6,
                    y + 10,
                    entry.peer.name()
                );
                let failed = entry.rate as usize * 8;
                let mut x = LEFT as f64;
                let m = &entry.measured;
                for (class, count) in [("lost", m.lost), ("dropped", m.dropped)] {
                    let width = (count as f64 / failed as f64).min(1.0) * WIDTH;
                    if count > 0 {
                        let _ = writeln!(
                            body,
                            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\"/>",
                            width.max(1.0),
                            ROW - 4
                        );
                        x += width.max(1.0);
                    }
                }
                let label = format!("{} lost, {} dropped; p99 {}", m.lost, m.dropped, time(m.p99));
                let _ = writeln!(
                    body,
                    "<text x=\"{:.1}\" y=\"{}\" class=\"label\">{label}</text>",
                    x + 5.0,
                    y + 10
                );
                y += ROW;
            }
            y += 12;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <style>.lost{{fill:#b3261e}}.dropped{{fill:#e8a33d}}.label{{font-size:10px;fill:#555}}.peer{{font-size:10px}}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"8\" y=\"22\" font-size=\"15\">Callers who were not steered while the origin failed for 8 s, {rate} callers a second</text>\n\
             <rect class=\"lost\" x=\"8\" y=\"34\" width=\"12\" height=\"10\"/><text x=\"24\" y=\"43\">lost: no TwiML</text>\n\
             <rect class=\"dropped\" x=\"128\" y=\"34\" width=\"12\" height=\"10\"/><text x=\"144\" y=\"43\">dropped: a document that neither origin nor standby wrote; full width is all callers of those 8 s</text>\n\
             {body}</svg>\n",
            y + 8
        )
    }
}

// === impl Entry ===

impl Entry {
    fn row(&self) -> String {
        let m = &self.measured;
        let met = if m.met == 0 { String::new() } else { format!(" ({} calls)", m.met) };
        let detected = m.detected.map_or("the end".to_owned(), time);
        format!(
            "| {} | {} | {} | {} | {} | {} / {} | {} | {} | {detected}{met} | {} |",
            self.peer.name(),
            m.steered,
            m.held,
            m.dropped,
            m.lost,
            m.twice,
            m.twice_repeatable,
            time(m.p50),
            time(m.p99),
            m.back.map_or("never".to_owned(), time),
        )
    }

    fn is(&self, manner: Manner) -> bool {
        self.failure == Failure::Behaves(manner)
    }
}

/// Something promised of the edge: words, and what of a run must be at most this.
struct Promise {
    words: &'static str,
    most: f64,
    unit: Unit,
    of: fn(&Entry) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Unit {
    Calls,
    Seconds,
}

const NEVER: f64 = 99.0;

const PROMISES: [Promise; 10] = [
    Promise {
        words: "nobody is lost",
        most: 0.0,
        unit: Unit::Calls,
        of: |entry| Some(entry.measured.lost as f64),
    },
    Promise {
        words: "nothing runs twice that must not",
        most: 0.0,
        unit: Unit::Calls,
        of: |entry| Some(entry.measured.twice as f64),
    },
    Promise {
        words: "nobody is dropped on a row that may be repeated",
        most: 0.0,
        unit: Unit::Calls,
        of: |entry| Some(entry.measured.dropped_repeatable as f64),
    },
    Promise {
        words: "p99 of answers at most 2.7 s while a failure is undetected",
        most: 2.7,
        unit: Unit::Seconds,
        of: |entry| Some(entry.measured.p99_undetected?.as_secs_f64()),
    },
    Promise {
        words: "p99 at most 20 ms once it is detected",
        most: 0.02,
        unit: Unit::Seconds,
        of: |entry| Some(entry.measured.p99_detected?.as_secs_f64()),
    },
    Promise {
        words: "errors are detected within 3 visits while probes are well",
        most: 3.0,
        unit: Unit::Calls,
        of: |entry| {
            let gray = [Manner::Error, Manner::Page, Manner::Half];
            let met = entry.measured.met as f64;
            gray.iter().any(|manner| entry.is(*manner)).then_some(met)
        },
    },
    Promise {
        words: "hangs are detected within 6 s",
        most: 6.0,
        unit: Unit::Seconds,
        of: |entry| {
            let detected = entry.measured.detected.map_or(NEVER, |at| at.as_secs_f64());
            (entry.failure.shows_by_waiting() && !entry.is(Manner::Slow)).then_some(detected)
        },
    },
    Promise {
        words: "back on the origin at most 2 s after it is good again (first flap)",
        most: 2.0,
        unit: Unit::Seconds,
        of: |entry| {
            let back = entry.measured.back.map_or(NEVER, |at| at.as_secs_f64());
            // What comes and goes has flapped more than once.
            (!entry.is(Manner::Alternate)).then_some(back)
        },
    },
    Promise {
        words: "an origin that is only slow is not taken down",
        most: 0.0,
        unit: Unit::Calls,
        of: |entry| {
            let down = f64::from(u8::from(entry.measured.was_down?));
            entry.is(Manner::Slow).then_some(down)
        },
    },
    Promise {
        words: "whoever an origin that is only slow has kept waiting is steered in the end",
        most: 0.0,
        unit: Unit::Calls,
        of: |entry| entry.is(Manner::Slow).then_some(entry.measured.held_in_vain as f64),
    },
];

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Calls => format!("{value:.0}"),
        Unit::Seconds if value >= NEVER => "never".to_owned(),
        Unit::Seconds => time(Duration::from_secs_f64(value)),
    }
}

fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms >= 1000.0 { format!("{:.1} s", ms / 1000.0) } else { format!("{ms:.0} ms") }
}

#[expect(clippy::print_stdout, reason = "the report is the program's output")]
fn say(text: &str) {
    println!("{text}");
}
