//! What came of all runs: tables, a chart, and what was promised of the edge.

mod chart;
mod promises;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::overload::{self, Borne, UNUSED};
use crate::peers::Contender;
use crate::run::{Failure, Measured};
use crate::upstream::Manner;

/// All runs.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Entry>,
    overload: Vec<(Contender, Borne)>,
}

/// A run in which the origin failed.
#[derive(Debug)]
struct Entry {
    rate: u32,
    name: &'static str,
    failure: Failure,
    contender: Contender,
    measured: Measured,
}

const HEAD: &str = "\
# Failover, beside others

Callers at a steady pace, and an origin that fails for 8 of 25 seconds. Half of the callers meet a row that may be repeated, the others one that must not; each is one question, and whoever is held comes back until there is an answer or an end. Made by `make bench-failover` (`QUICK=1` for a short form), which overwrites this page; the configurations of the proxies, with why each setting is there, are in `tests/bench/failover/peers`. Proxy, origin and standby are fresh processes for each run; at 20 callers a second all proxies run side by side, at 200 three at a time.

The edge is measured as it is shipped. Each of the others is there twice: in the best settings that its documentation allows, and, as **(defaults)**, with its health checks switched on and every interval, threshold, timeout and retry of theirs left at the documented default. At their defaults they are measured only at 20 callers a second: what decides there is time, not load. Whoever probes every 30 s by default may not notice 8 s at all, or may by chance; here he has probed at his start, 7.5 s before the failure.

- **steered**: the origin's or the standby's document in the end. **held**: on the way to whatever end. **dropped**: a document that neither of them wrote. **lost**: no TwiML in Twilio's 15 seconds.
- **twice**: requests that ran more than once, on rows that must not / on rows that may.
- **p50**, **p99**: waits for an answer, over the whole run.
- **meets it until**, **noticed**: when callers stopped to wait for the failing origin (more than 100 ms) or, where it fails at once, to reach it; and how many had reached it by then. **the end**: they never did.
- **back**: when all callers were answered by the origin again, after it was good again. **never**: not within the 12 s that were left. Who has not left it before the end is back at once.
";

// === impl Report ===

impl Report {
    /// Adds a run in which the origin failed.
    pub(crate) fn add(
        &mut self,
        rate: u32,
        name: &'static str,
        failure: Failure,
        contender: Contender,
        measured: Measured,
    ) {
        let entry = Entry { rate, name, failure, contender, measured };
        say(&format!("{:>3}/s {:<36} {}", rate, name, entry.row()));
        self.rows.push(entry);
    }

    /// Adds a run in which the origin was asked for more than it can do.
    pub(crate) fn add_overload(&mut self, contender: Contender, borne: Borne) {
        say(&format!(
            "{:>3}/s {:<36} {}",
            overload::offered(),
            "overload",
            bearing(contender, &borne)
        ));
        self.overload.push((contender, borne));
    }

    /// Writes everything to `out` with `.md` and `.svg`, or to standard output.
    pub(crate) fn write(&self, out: Option<&Path>) -> anyhow::Result<()> {
        let Some(out) = out else {
            say(&self.tables());
            return Ok(());
        };
        let mut page = HEAD.to_owned();
        if !self.rows.is_empty() {
            let chart = out.with_extension("svg");
            let name = chart.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let _ = writeln!(page, "\n![Callers not steered]({name})");
            std::fs::write(chart, chart::draw(self))?;
        }
        page.push_str(&self.tables());
        Ok(std::fs::write(out.with_extension("md"), page)?)
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

    /// Who was measured at a rate, in the order of the tables.
    fn contenders(&self, rate: u32) -> Vec<Contender> {
        let mut contenders = Vec::new();
        for entry in self.rows.iter().filter(|entry| entry.rate == rate) {
            if !contenders.contains(&entry.contender) {
                contenders.push(entry.contender);
            }
        }
        contenders
    }

    /// The runs at a rate with a failure.
    fn of(&self, rate: u32, name: &'static str) -> impl Iterator<Item = &Entry> {
        self.rows.iter().filter(move |entry| entry.rate == rate && entry.name == name)
    }

    fn tables(&self) -> String {
        let mut text = promises::table(self);
        text.push_str(&self.noticed());
        text.push_str(&self.overload());
        for rate in self.rates() {
            let _ = write!(text, "\n## {rate} callers a second\n");
            for name in self.names() {
                let _ = write!(
                    text,
                    "\n### The origin: {name}\n\n\
                     | proxy | steered | held | dropped | lost | twice | p50 | p99 | meets it until | back |\n\
                     |---|---|---|---|---|---|---|---|---|---|\n"
                );
                for entry in self.of(rate, name) {
                    let _ = writeln!(text, "{}", entry.row());
                }
            }
        }
        text
    }

    /// For each rate, all failures and all proxies at a glance.
    fn noticed(&self) -> String {
        let mut text = String::new();
        for rate in self.rates() {
            let contenders = self.contenders(rate);
            let heads: String = contenders.iter().map(|who| format!(" {} |", who.name())).collect();
            let rules = "---|".repeat(contenders.len());
            let _ = write!(
                text,
                "\n## Noticed / back, at {rate} callers a second\n\n| the origin |{heads}\n|---|{rules}\n"
            );
            for name in self.names() {
                let _ = write!(text, "| {name} |");
                for contender in &contenders {
                    let entry = self.of(rate, name).find(|entry| entry.contender == *contender);
                    let cell = entry.map(|entry| format!("{} / {}", entry.noticed(), entry.back()));
                    let _ = write!(text, " {} |", cell.unwrap_or_default());
                }
                text.push('\n');
            }
        }
        text
    }

    /// The runs in which the origin was asked for more than it can do.
    fn overload(&self) -> String {
        if self.overload.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "\n## Twice what the origin can do\n\n{}\n\n\
             - **goodput**: the origin's documents that callers had within 4 s, as a share of what it can do.\n\
             - **steered**: to the end, by the origin / by the standby, who answers whatever the origin does not.\n\
             - **without it**: the longest time in which nothing was sent to the origin, if longer than {}.\n\n\
             | proxy | goodput | steered | held | dropped | lost | p50 | p99 | without it |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            overload::words(),
            time(UNUSED),
        );
        for (contender, borne) in &self.overload {
            let _ = writeln!(text, "{}", bearing(*contender, borne));
        }
        text
    }
}

// === impl Entry ===

impl Entry {
    fn row(&self) -> String {
        let m = &self.measured;
        let met = if m.met == 0 { String::new() } else { format!(" ({} calls)", m.met) };
        format!(
            "| {} | {} | {} | {} | {} | {} / {} | {} | {} | {}{met} | {} |",
            self.contender.name(),
            m.steered,
            m.held,
            m.dropped,
            m.lost,
            m.twice,
            m.twice_repeatable,
            time(m.p50),
            time(m.p99),
            self.noticed(),
            self.back(),
        )
    }

    fn noticed(&self) -> String {
        self.measured.detected.map_or("the end".to_owned(), time)
    }

    fn back(&self) -> String {
        self.measured.back.map_or("never".to_owned(), time)
    }

    fn is(&self, manner: Manner) -> bool {
        self.failure == Failure::Behaves(manner)
    }
}

/// A row of the table of overload.
fn bearing(contender: Contender, borne: &Borne) -> String {
    format!(
        "| {} | {:.0} % | {} / {} | {} | {} | {} | {} | {} | {} |",
        contender.name(),
        borne.goodput * 100.0,
        borne.by_origin,
        borne.by_standby,
        borne.held,
        borne.dropped,
        borne.lost,
        time(borne.p50),
        time(borne.p99),
        if borne.pause < UNUSED { "-".to_owned() } else { time(borne.pause) },
    )
}

fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms >= 1000.0 { format!("{:.1} s", ms / 1000.0) } else { format!("{ms:.0} ms") }
}

#[expect(clippy::print_stdout, reason = "the report is the program's output")]
fn say(text: &str) {
    println!("{text}");
}
