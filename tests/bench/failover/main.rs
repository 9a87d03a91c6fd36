//! Callers at a steady pace, and an origin that fails for eight seconds in twelve ways or is asked for more
//! than it can do, before the edge and before proxies that are tuned as well as their documentation allows,
//! or left at their defaults.
//!
//! Proxy, origin and standby are fresh processes for each run. Half of the callers meet a row that may
//! be repeated, half one that must not; the proxies are told which is which, as far as they can be.

mod callers;
mod capacity;
mod overload;
mod peers;
mod process;
mod report;
mod run;
mod upstream;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use peers::{Contender, Peer, Settings};
use report::Report;
use run::FAILURES;

/// So few callers a second disturb nobody: all proxies run side by side, those at their defaults among
/// them.
const FEW: u32 = 20;
/// Of proxies before many callers, so many run side by side; more must not share the machine.
const SIDE_BY_SIDE: usize = 3;

/// Compares what callers get while an origin fails, or is asked for more than it can do.
#[derive(Debug, Parser)]
struct Arguments {
    /// What else this program is.
    #[command(subcommand)]
    role: Option<Role>,
    /// Callers a second; may be given several times.
    #[arg(long, default_values_t = [20, 200])]
    rate: Vec<u32>,
    /// Proxies; all, unless some are given.
    #[arg(long, value_enum)]
    peer: Vec<Peer>,
    /// Settings of the other proxies. Unless some are given, both; but failures are measured at the defaults
    /// only before 20 callers a second or fewer.
    #[arg(long, value_enum)]
    settings: Vec<Settings>,
    /// Failures whose name holds this; all, unless some are given or `--overload` is.
    #[arg(long)]
    failure: Vec<String>,
    /// Overload, which is measured too unless failures are given.
    #[arg(long)]
    overload: bool,
    /// Where the tables and the chart are written, as this name with `.md` and `.svg`; without it, tables
    /// go to standard output.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// An origin or a standby, started by the benchmark itself.
    Upstream(upstream::Arguments),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if let Some(Role::Upstream(upstream)) = arguments.role.take() {
        return upstream::serve(upstream).await;
    }
    let mut report = Report::default();
    if !arguments.overload || !arguments.failure.is_empty() {
        measure_failures(&arguments, &mut report).await?;
    }
    if arguments.overload || arguments.failure.is_empty() {
        measure_overload(&arguments, &mut report).await?;
    }
    report.write(arguments.out.as_deref())
}

async fn measure_failures(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let wanted = |name: &str| {
        arguments.failure.is_empty() || arguments.failure.iter().any(|part| name.contains(part))
    };
    for &rate in &arguments.rate {
        let are_few = rate <= FEW;
        let contenders = arguments.contenders(are_few);
        for (name, failure) in FAILURES.into_iter().filter(|(name, _)| wanted(name)) {
            for together in contenders.chunks(if are_few { contenders.len() } else { SIDE_BY_SIDE })
            {
                let run = |contender: &Contender| tokio::spawn(run::run(*contender, failure, rate));
                let runs: Vec<_> = together.iter().map(run).collect();
                for (contender, run) in together.iter().zip(runs) {
                    let about = || format!("{} {name}", contender.name());
                    let measured = run.await?.with_context(about)?;
                    report.add(rate, name, failure, *contender, measured);
                }
            }
        }
    }
    Ok(())
}

async fn measure_overload(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    for together in arguments.contenders(true).chunks(SIDE_BY_SIDE) {
        let run = |contender: &Contender| tokio::spawn(overload::run(*contender));
        let runs: Vec<_> = together.iter().map(run).collect();
        for (contender, run) in together.iter().zip(runs) {
            let borne = run.await?.with_context(|| format!("{} overload", contender.name()))?;
            report.add_overload(*contender, borne);
        }
    }
    Ok(())
}

// === impl Arguments ===

impl Arguments {
    /// Who is measured; those at their defaults only if they are asked for, or here by default.
    fn contenders(&self, with_defaults: bool) -> Vec<Contender> {
        let is_wanted = |settings: &Settings| match self.settings.as_slice() {
            [] => with_defaults || *settings == Settings::Best,
            asked => asked.contains(settings),
        };
        let settings = [Settings::Best, Settings::Default];
        let settings: Vec<_> = settings.into_iter().filter(is_wanted).collect();
        let peers = if self.peer.is_empty() { Peer::ALL.as_slice() } else { &self.peer };
        Contender::all(peers, &settings)
    }
}
