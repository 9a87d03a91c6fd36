//! `holdline tune`: what other thresholds would have made of a past, or would make of a failure.
//!
//! A past is the journal of an edge, a failure one of the scenarios that are built in. Either is run
//! through the code that judges in production, once for each set of thresholds, and what came of it is
//! laid side by side. What the journal cannot know is shown as unknown; where that is much, nothing is
//! recommended.

mod html;
mod past;
mod progress;
mod sets;
mod svg;
mod text;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use holdline_policy::tune::{
    Happened, Ranked, Recommendation, Scenario, Score, World, recommend, run,
};

use super::when;
use crate::config::{Judging, Reach};
use past::Past;
use progress::Progress;
use sets::Sets;

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct TuneArguments {
    /// The edge's configuration: it says where its journal is, and what is in force.
    #[arg(long, value_name = "FILE", env = "HOLDLINE_CONFIG")]
    config: Option<PathBuf>,
    /// A journal's folder, where that is not what is configured.
    #[arg(long, value_name = "FOLDER", conflicts_with = "scenario")]
    journal: Option<PathBuf>,
    /// From when on: a time, or how long ago, such as 24h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until when.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of whom the journal is read.
    #[arg(long, default_value = "origin", value_parser = ["origin", "monitor"])]
    upstream: String,
    /// A scenario instead of a journal; may be given several times. "all" for all of them.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// A threshold, as KEY=VALUE, in place of the one in force. With any, only this one set is tried
    /// beside what is in force.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Values of a threshold to try, as KEY=VALUE,VALUE; of several, every combination.
    #[arg(long, value_name = "KEY=VALUES")]
    grid: Vec<String>,
    /// Decides about what is left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How it is told.
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// A report with pictures, in one file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The pictures by themselves, as SVG files in this folder.
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// How many sets are shown.
    #[arg(long, default_value_t = 12)]
    most: usize,
}

/// Everything that came of it.
pub(super) struct Tuned {
    sets: Sets,
    worlds: Vec<WorldNamed>,
    /// The best first; place 0 of the sets is what is in force.
    ranked: Vec<Ranked>,
    recommendation: Recommendation,
    observations: usize,
}

/// A world, for those who read of it.
pub(super) struct WorldNamed {
    name: String,
    what: String,
    kind: Kind,
}

enum Kind {
    Scenario(Box<Scenario>),
    Past(Box<Past>),
}

/// Tries all sets; gives what there is to say.
pub fn tune(arguments: &TuneArguments) -> anyhow::Result<String> {
    let reach = arguments.config.as_deref().map(Reach::load).transpose()?;
    let shown = std::io::stderr().is_terminal();
    let worlds = worlds(arguments, reach.as_ref(), &mut Progress::new("reading", shown))?;
    let written = worlds.iter().find_map(|world| match &world.kind {
        Kind::Past(past) => past.judging,
        Kind::Scenario(_) => None,
    });
    let in_force = reach.map(|reach| reach.judging).or(written).unwrap_or(Judging::SHIPPED);
    let sets = Sets::of(in_force, &arguments.set, &arguments.grid)?;
    for name in ["slow_after", "slow_percent"] {
        ensure!(
            !arguments.scenario.is_empty() || !sets.differ_in(name),
            "{name}: the journal does not say how long good answers took; try it on a --scenario"
        );
    }
    let tuned = tuned(sets, worlds, arguments.seed, Progress::new("trying", shown));
    if let Some(file) = &arguments.html {
        let report = html::report(&tuned, arguments.most);
        std::fs::write(file, report).with_context(|| format!("writing {}", file.display()))?;
    }
    if let Some(folder) = &arguments.pictures {
        draw(&tuned, folder).with_context(|| format!("writing to {}", folder.display()))?;
    }
    Ok(match arguments.format.as_str() {
        "json" => serde_json::to_string_pretty(&text::as_json(&tuned))?,
        _ => text::as_table(&tuned, arguments.most),
    })
}

/// Each picture of the report in a file of its own.
fn draw(tuned: &Tuned, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("trade-off.svg"), svg::trade_off(tuned))?;
    for (number, world) in tuned.worlds.iter().enumerate() {
        let name = format!("timeline-{}.svg", world.name.replace(' ', "-"));
        std::fs::write(folder.join(name), svg::timeline(tuned, number, html::DRAWN))?;
    }
    Ok(())
}

fn worlds(
    arguments: &TuneArguments,
    reach: Option<&Reach>,
    progress: &mut Progress,
) -> anyhow::Result<Vec<WorldNamed>> {
    if arguments.scenario.is_empty() {
        let configured = reach.map(|reach| reach.journal.clone());
        let folder = arguments.journal.clone().or(configured);
        let folder =
            folder.context("name a --scenario, a --journal, or the --config of an edge")?;
        let range = when::range(arguments.since.as_deref(), arguments.until.as_deref())?;
        let past = Past::read(&folder, range, &arguments.upstream, |share| progress.show(share))?;
        ensure!(!past.observed.is_empty(), "the journal holds nothing of {}", arguments.upstream);
        let name = format!("journal of {}", arguments.upstream);
        let what = past.what();
        return Ok(vec![WorldNamed { name, what, kind: Kind::Past(Box::new(past)) }]);
    }
    let all = arguments.scenario.iter().any(|name| name == "all");
    let names: Vec<&str> = match all {
        true => Scenario::NAMES.to_vec(),
        false => arguments.scenario.iter().map(String::as_str).collect(),
    };
    let mut worlds = Vec::new();
    for name in names {
        let Some(scenario) = Scenario::named(name, arguments.seed) else {
            bail!("there is no scenario {name:?}; there are {}, all", Scenario::NAMES.join(", "));
        };
        worlds.push(WorldNamed {
            name: scenario.name().to_owned(),
            what: scenario.what().to_owned(),
            kind: Kind::Scenario(Box::new(scenario)),
        });
    }
    Ok(worlds)
}

/// Runs every world under every set, on as many threads as there are cores.
fn tuned(sets: Sets, worlds: Vec<WorldNamed>, seed: u64, progress: Progress) -> Tuned {
    let jobs = sets.all.len() * worlds.len();
    let (next, done) = (AtomicUsize::new(0), Mutex::new((0, progress)));
    let scores: Vec<Mutex<Option<Score>>> = (0..jobs).map(|_| Mutex::default()).collect();
    let work = || {
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = scores.get(job) else { return };
            let (set, world) = (job / worlds.len(), job % worlds.len());
            let score = worlds[world].run(&sets, set, seed);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(score);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.0 += 1;
            let share = done.0 as f64 / jobs as f64;
            done.1.show(share);
        }
    };
    // An edge may be serving beside it.
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cores = cores.saturating_sub(usize::from(cores > 2)).max(1);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let scores = scores
        .into_iter()
        .filter_map(|score| score.into_inner().unwrap_or_else(PoisonError::into_inner));
    let scores: Vec<Score> = scores.collect();
    let by_set = scores.chunks(worlds.len()).enumerate();
    let mut ranked: Vec<Ranked> =
        by_set.map(|(set, scores)| Ranked { set, scores: scores.to_vec() }).collect();
    let recommendation = recommend(&mut ranked);
    let observations = worlds.iter().map(WorldNamed::observations).sum();
    Tuned { sets, worlds, ranked, recommendation, observations }
}

// === impl WorldNamed ===

impl WorldNamed {
    fn run(&self, sets: &Sets, set: usize, seed: u64) -> Score {
        let set = sets.set(set);
        match &self.kind {
            Kind::Scenario(scenario) => run(&mut Scenario::clone(scenario), set, seed),
            Kind::Past(past) => run(&mut past.observed.clone(), set, seed),
        }
    }

    fn happened(&self) -> &Happened {
        match &self.kind {
            Kind::Scenario(scenario) => scenario.happened(),
            Kind::Past(past) => past.observed.happened(),
        }
    }

    fn observations(&self) -> usize {
        match &self.kind {
            Kind::Scenario(scenario) => scenario.happened().visits.len(),
            Kind::Past(past) => past.observed.len(),
        }
    }
}
