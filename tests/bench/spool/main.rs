//! What it costs to keep callbacks: how many a second are acknowledged, how soon, how fast they are
//! delivered later, and what a callback costs that goes straight through.
//!
//! Every acknowledgement waits for the disk, so the disk is measured first, in the same run: a file is
//! appended to and synced, over and over. Beside the edge stand SQLite with one commit a callback, and
//! Redis that syncs its log at every command; all write the same bytes to the same disk.

mod disk;
mod load;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Parser;
use holdline_tests::peer::{ANSWERS, Peer, start_holdline, start_nginx};
use holdline_tests::tools::free_address;
use holdline_tests::{Taker, Taking};

use load::{Latencies, Way, flood, stream};

/// The longest that a backlog may take.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// Measures the spool.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds a measurement.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Connections that send as fast as they are answered.
    #[arg(long, default_value_t = 128)]
    connections: usize,
    /// Callbacks that wait when the origin returns.
    #[arg(long, default_value_t = 60_000)]
    backlog: u64,
    /// Where to write; by default a temporary folder.
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
}

/// One line of the first table.
struct Row {
    who: &'static str,
    a_second: f64,
    latencies: Latencies,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let root = match &arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let folder = root.path();
    let time = Duration::from_secs(arguments.seconds);
    let syncs = disk::syncs(folder, time)?;
    say(&format!("the disk: {} syncs, {syncs}", syncs.count()));
    let kept = keeping(folder, &arguments, time).await?;
    let alone = disk::one_commit_a_callback(folder, time, arguments.connections).await?;
    let redis = disk::redis(folder, time, arguments.connections).await?;
    let drained = draining(folder, &arguments).await?;
    let costs = costs(folder, time).await?;
    let bound = syncs.p99() * 3 + Duration::from_millis(5);
    say("\n| acknowledged, on disk | a second | p50 | p99 |\n|---|---|---|---|");
    for row in [&kept.steady, &kept.flood, &alone, &redis] {
        say(&format!(
            "| {} | {:.0} | {} | {} |",
            row.who,
            row.a_second,
            ms(row.latencies.p50()),
            ms(row.latencies.p99())
        ));
    }
    say(&format!(
        "\np99 at 1,000 a second: {}; bound: 3 x {} + 5 ms = {}; {}",
        ms(kept.steady.latencies.p99()),
        ms(syncs.p99()),
        ms(bound),
        word(kept.steady.latencies.p99() <= bound && kept.steady.a_second >= 995.0)
    ));
    say(&format!("5,000 a second and more: {}", word(kept.flood.a_second >= 5000.0)));
    say(&format!(
        "\ndrain of {}: {:.1} s, {:.0} a second, with 100 new ones a second on top: p99 of those {}; \
         memory {:.0} MB at the beginning, {:.0} with all that waited, {:.0} afterwards",
        drained.count,
        drained.took.as_secs_f64(),
        drained.count as f64 / drained.took.as_secs_f64(),
        ms(drained.meanwhile.p99()),
        drained.memory_mb[0],
        drained.memory_mb[1],
        drained.memory_mb[2],
    ));
    say("\n| CPU a request | |\n|---|---|");
    for (what, micros) in &costs {
        say(&format!("| {what} | {micros:.1} µs |"));
    }
    let ratio = costs[0].1 / costs[1].1;
    say(&format!(
        "\nstraight through, of a synchronous visit: {ratio:.2}; {}",
        word(ratio <= 1.05)
    ));
    Ok(())
}

struct Kept {
    steady: Row,
    flood: Row,
}

/// Callbacks that are kept, because the origin is gone.
async fn keeping(folder: &Path, arguments: &Arguments, time: Duration) -> anyhow::Result<Kept> {
    let nowhere = free_address()?;
    let edge = start_edge(folder, "keeping", nowhere, "always")?;
    // Until the log has grown to its usual size, every sync waits for the file system's own log too.
    flood(edge.address, Way::Report, arguments.connections, Duration::from_secs(3)).await?;
    let (count, latencies) = stream(edge.address, 1000.0, time, Arc::default()).await?;
    let steady = Row { who: "holdline, 1,000 a second", a_second: rate(count, time), latencies };
    let (count, latencies) = flood(edge.address, Way::Report, arguments.connections, time).await?;
    let flood = Row { who: "holdline, as fast as it goes", a_second: rate(count, time), latencies };
    Ok(Kept { steady, flood })
}

struct Drained {
    count: u64,
    took: Duration,
    meanwhile: Latencies,
    /// Memory before there was a backlog, with all of it, and when it was delivered.
    memory_mb: [f64; 3],
}

/// A backlog that is delivered once the origin is back, while new callbacks come.
async fn draining(folder: &Path, arguments: &Arguments) -> anyhow::Result<Drained> {
    let taker = Taker::that_counts(Taking::Refusing(500)).await?;
    let edge = start_edge(folder, "draining", taker.address(), "when_needed")?;
    let second = Duration::from_secs(1);
    let mut kept = flood(edge.address, Way::Report, arguments.connections, second).await?.0;
    let before = edge.resident_mb()?;
    while kept < arguments.backlog {
        kept += flood(edge.address, Way::Report, arguments.connections, second).await?.0;
    }
    let with = edge.resident_mb()?;
    let begun = Instant::now();
    taker.take(Taking::After(Duration::ZERO));
    let enough = Arc::new(AtomicBool::new(false));
    let meanwhile = tokio::spawn(stream(edge.address, 100.0, LONGEST_DRAIN, enough.clone()));
    while taker.count() < kept {
        if begun.elapsed() > LONGEST_DRAIN {
            bail!("only {} of {kept} were delivered", taker.count());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    enough.store(true, Ordering::Relaxed);
    let (_, meanwhile) = meanwhile.await??;
    let memory_mb = [before, with, edge.resident_mb()?];
    Ok(Drained { count: kept, took, meanwhile, memory_mb })
}

/// CPU time of a report that goes straight through, of a synchronous visit, and of a request that is only
/// passed through.
async fn costs(folder: &Path, time: Duration) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let upstream = start_nginx(folder, "upstream", ANSWERS)?;
    let edge = start_edge(folder, "straight", upstream.address, "when_needed")?;
    let ways = [
        ("report, straight through", Way::Report),
        ("synchronous visit", Way::Visit),
        ("passed through", Way::Passed),
    ];
    let mut costs: Vec<(&'static str, Vec<f64>)> =
        ways.iter().map(|(what, _)| (*what, Vec::new())).collect();
    for _ in 0..3 {
        for ((_, way), (_, measured)) in ways.iter().zip(&mut costs) {
            let before = edge.cpu_seconds()?;
            let (count, _) = flood(edge.address, *way, 32, time / 2).await?;
            measured.push((edge.cpu_seconds()? - before) * 1e6 / count as f64);
        }
    }
    let middle = |mut measured: Vec<f64>| {
        measured.sort_by(f64::total_cmp);
        measured[measured.len() / 2]
    };
    Ok(costs.into_iter().map(|(what, measured)| (what, middle(measured))).collect())
}

fn start_edge(folder: &Path, name: &str, origin: SocketAddr, mode: &str) -> anyhow::Result<Peer> {
    let more = format!("[catalogue]\nunlisted = \"pass\"\n[spool]\nmode = \"{mode}\"");
    start_holdline(&folder.join(name), origin, &more)
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn word(kept: bool) -> &'static str {
    if kept { "kept" } else { "MISSED" }
}

#[expect(clippy::print_stdout, reason = "the tables are the program's output")]
fn say(text: &str) {
    println!("{text}");
}
