//! Callers at a steady pace, and an origin that fails for eight seconds in twelve ways, before the edge
//! and before proxies that are tuned as well as their documentation allows.
//!
//! Proxy, origin and standby are fresh processes for each run. Half of the callers meet a row that may
//! be repeated, half one that must not; the proxies are told which is which, as far as they can be.

mod callers;
mod peers;
mod report;
mod run;
mod upstream;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use peers::Peer;
use report::Report;
use run::FAILURES;

/// Compares what callers get while an origin fails.
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
    /// Failures whose name holds this; all, unless some are given.
    #[arg(long)]
    failure: Vec<String>,
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
    let arguments = Arguments::parse();
    if let Some(Role::Upstream(upstream)) = arguments.role {
        return upstream::serve(upstream).await;
    }
    let peers = if arguments.peer.is_empty() { Peer::ALL.to_vec() } else { arguments.peer };
    let wanted = |name: &str| {
        arguments.failure.is_empty() || arguments.failure.iter().any(|part| name.contains(part))
    };
    let mut report = Report::default();
    for rate in arguments.rate {
        for (name, failure) in FAILURES.into_iter().filter(|(name, _)| wanted(name)) {
            // A few callers a second disturb nobody; many must not share the machine with many.
            for together in peers.chunks(if rate <= 20 { peers.len() } else { 3 }) {
                let runs = together.iter().map(|peer| tokio::spawn(run::run(*peer, failure, rate)));
                let runs: Vec<_> = runs.collect();
                for (peer, run) in together.iter().zip(runs) {
                    let measured = run.await?.with_context(|| format!("{} {name}", peer.name()))?;
                    report.add(rate, name, failure, *peer, measured);
                }
            }
        }
    }
    report.write(arguments.out.as_deref())
}
