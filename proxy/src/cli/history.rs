//! `holdline history`: what the journal says, for people and for programs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::when;
use crate::config::Reach;
use crate::journal::{Entry, What, read};

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct HistoryArguments {
    /// The edge's configuration: it says where its journal is.
    #[arg(long, value_name = "FILE", env = "HOLDLINE_CONFIG")]
    config: Option<PathBuf>,
    /// The journal's folder, where that is not what is configured.
    #[arg(long, value_name = "FOLDER")]
    journal: Option<PathBuf>,
    /// From when on: a time, or how long ago, such as 24h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until when.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what is about this upstream.
    #[arg(long, value_parser = ["origin", "monitor"])]
    upstream: Option<String>,
    /// Only what is about this row.
    #[arg(long, value_name = "NAME")]
    row: Option<String>,
    /// Only these kinds: probe, run, unasked, live, slow, dropped, change, stance, drill, process. Without it, what
    /// people look for first: change (without the mere doubts of rows), stance, drill, process. "all" for
    /// all.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kind: Vec<String>,
    /// Only probes and attempts that did not end well.
    #[arg(long)]
    bad: bool,
    /// The latest so many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 200)]
    limit: usize,
    /// One JSON object a line, as the journal has it.
    #[arg(long)]
    json: bool,
}

/// What people look for first.
const USUAL: [&str; 4] = ["change", "stance", "drill", "process"];

/// Reads the journal; gives what there is to say.
pub fn run(arguments: &HistoryArguments) -> anyhow::Result<String> {
    let folder = match (&arguments.journal, &arguments.config) {
        (Some(folder), _) => folder.clone(),
        (None, Some(config)) => Reach::load(config)?.journal,
        (None, None) => bail!("name the --config of an edge, or its --journal"),
    };
    let kinds = kinds(&arguments.kind)?;
    let range = when::range(arguments.since.as_deref(), arguments.until.as_deref())?;
    // The oldest on top: two processes may have written side by side.
    let mut chosen: BinaryHeap<Reverse<(u64, usize, String)>> = BinaryHeap::new();
    let (mut left_out, mut number) = (0u64, 0);
    let take = |entry: Entry| {
        if !kinds.contains(&entry.what.kind()) || !arguments.concerns(&entry.what) {
            return;
        }
        let line = match arguments.json {
            // What was read can be written.
            true => serde_json::to_string(&entry).unwrap_or_default(),
            false => in_words(&entry),
        };
        number += 1;
        chosen.push(Reverse((entry.at, number, line)));
        if arguments.limit > 0 && chosen.len() > arguments.limit {
            chosen.pop();
            left_out += 1;
        }
    };
    let unreadable = read(&folder, range, take, |_| ())?;
    let mut text = String::new();
    while let Some(Reverse((_, _, line))) = chosen.pop() {
        text.push_str(&line);
        text.push('\n');
    }
    if !arguments.json {
        for (count, what) in
            [(left_out, "older entries; --limit 0 shows them"), (unreadable, "unreadable lines")]
        {
            if count > 0 {
                let _ = writeln!(text, "({count} {what})");
            }
        }
    }
    Ok(text.trim_end().to_owned())
}

fn kinds(asked: &[String]) -> anyhow::Result<Vec<&'static str>> {
    if asked.is_empty() {
        return Ok(USUAL.to_vec());
    }
    if asked.iter().any(|kind| kind == "all") {
        return Ok(What::KINDS.to_vec());
    }
    let known = |kind: &String| {
        let known = What::KINDS.into_iter().find(|known| known == kind);
        known.with_context(|| format!("{kind:?} is not one of {}, all", What::KINDS.join(", ")))
    };
    asked.iter().map(known).collect()
}

// === impl HistoryArguments ===

impl HistoryArguments {
    fn concerns(&self, what: &What) -> bool {
        let is = |asked: &Option<String>, named: Option<&str>| {
            asked.as_deref().is_none_or(|asked| named == Some(asked))
        };
        let good = match what {
            What::Probe { result, .. } => *result == crate::probe::GOOD,
            What::Live { outcome, .. } => outcome == "good",
            What::Run { .. } => true,
            _ => false,
        };
        // In every outage each row doubts for itself.
        let unasked = self.kind.is_empty() && self.row.is_none() && is_a_rows_doubt(what);
        let concerns = is(&self.upstream, what.upstream()) && is(&self.row, what.row());
        concerns && !unasked && !(self.bad && good)
    }
}

/// Whether a row fell in doubt or was well again, and nothing worse.
fn is_a_rows_doubt(what: &What) -> bool {
    let mild = |verdict: &str| ["well", "doubtful"].contains(&verdict);
    matches!(what, What::Change { row: Some(_), from, to, .. } if mild(from) && mild(to))
}

/// One entry, as a line of a table: when, what, of whom, and the rest in words.
fn in_words(entry: &Entry) -> String {
    let at = when::shown(entry.at);
    let (kind, upstream) = (entry.what.kind(), entry.what.upstream().unwrap_or("-"));
    let row = entry.what.row().filter(|row| !row.is_empty()).unwrap_or("-");
    let rest = match &entry.what {
        What::Probe { result, ms, .. } => format!("{result}, {ms} ms"),
        What::Run { n, ms, .. } => format!("{n} good in {ms} ms"),
        What::Unasked { n, ms, .. } => format!("{n} not asked in {ms} ms"),
        What::Live { outcome, call, ms, slow, .. } => {
            let slow = if *slow { ", slow" } else { "" };
            format!("{outcome}, {ms} ms{slow}, call {call}")
        }
        What::Slow { call, ms, .. } => format!("goes on after {ms} ms, call {call}"),
        What::Dropped { ms, call, .. } => format!("says nothing, after {ms} ms, call {call}"),
        What::Change { from, to, cause, reason, numbers, .. } => {
            let by = cause.as_ref().map_or_else(String::new, |cause| format!(" by {cause}"));
            let hold_down = match numbers.hold_down_ms {
                0 => String::new(),
                ms => format!(", held down for {ms} ms"),
            };
            format!(
                "{from} -> {to}{by}: {reason} (probes {} good {} bad, attempts {} good {} bad, window {} \
                 bad of {}, {} hang, {} flaps{hold_down})",
                numbers.good_probes,
                numbers.bad_probes,
                numbers.good_attempts,
                numbers.bad_attempts,
                numbers.window_bad,
                numbers.window_of,
                numbers.hanging,
                numbers.flaps,
            )
        }
        What::Stance { stance, until, why, .. } => match until {
            Some(until) => format!("{stance} until {} ({why})", when::shown(*until)),
            None => format!("{stance} ({why})"),
        },
        What::Drill { what, drill } => {
            let order = &drill["order"];
            format!(
                "{what}: {} fails by {}, {} % of calls; {} visits: {} steered, {} held, {} dropped, {} \
                 kept, {} lost",
                order["fail"].as_str().unwrap_or("?"),
                order["mode"].as_str().unwrap_or("?"),
                order["share_percent"],
                drill["visits"],
                drill["steered"],
                drill["held"],
                drill["dropped"],
                drill["kept"],
                drill["lost"],
            )
        }
        What::Process { what, pid, version, .. } => {
            format!("{what}, process {pid}, version {version}")
        }
    };
    format!("{at}  {kind:7}  {upstream:7}  {row:24}  {rest}")
}
