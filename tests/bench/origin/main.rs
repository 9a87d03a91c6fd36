//! What the origin can bear, and what it loses: nothing.
//!
//! `load` lets a thousand callers work through a list, on SQLite and on MariaDB, straight at the origin:
//! webhooks a second, how soon they are answered, and what of the processor that costs. `campaign` works
//! through one list after another for as long as it is told, on both databases in turn, through an edge,
//! while origin and monitor are killed and frozen at random; it ends at the first thing that is wrong.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use holdline_tests::campaign::{campaign, on_mariadb, on_sqlite};
use holdline_tests::harm::campaign_with_harm;
use holdline_tests::peer::cpu_seconds;
use holdline_tests::{Felt, World};
use twilio_sim::{Endpoint, Line, Party, load, load::Load};
use url::Url;

/// Measures the origin.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Webhooks a second and their latency, with many callers.
    Load {
        /// Callers at once.
        #[arg(long, default_value_t = 1000)]
        callers: usize,
        /// Seconds a measurement.
        #[arg(long, default_value_t = 40)]
        seconds: u64,
        /// How much faster than in reality they talk.
        #[arg(long, value_delimiter = ',', default_values_t = [2.0, 4.0])]
        speeds: Vec<f64>,
        /// People on the list.
        #[arg(long, default_value_t = 10_000)]
        leads: usize,
    },
    /// Campaigns with faults, one after another.
    Campaign {
        /// For how long.
        #[arg(long, default_value_t = 15)]
        minutes: u64,
        /// People on each list.
        #[arg(long, default_value_t = 200)]
        leads: usize,
        /// Callers at once.
        #[arg(long, default_value_t = 8)]
        callers: usize,
    },
}

/// What each caller does, all the time.
const CALLER: &str = "access number={pin}*; take calls=*; always talk 5s-20s; \
                      always conversation go=1*|2*; always to the meeting=1*|2*|3*";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().what {
        What::Load { callers, seconds, speeds, leads } => {
            say(
                "| database | speed | calls of callers | people talked with | webhooks a second | p50 | p99 | p99.9 | longest | breaches | origin's CPU a webhook |",
            );
            say("|---|---|---|---|---|---|---|---|---|---|---|");
            for speed in speeds {
                let mut world = on_sqlite().await;
                bear(&mut world, "SQLite", callers, seconds, speed, leads).await?;
                drop(world);
                let (mut world, _database) = on_mariadb().await;
                bear(&mut world, "MariaDB", callers, seconds, speed, leads).await?;
            }
        }
        What::Campaign { minutes, leads, callers } => {
            endure(Duration::from_secs(minutes * 60), leads, callers).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets many callers work straight at the origin.
async fn bear(
    world: &mut World,
    database: &str,
    callers: usize,
    seconds: u64,
    speed: f64,
    leads: usize,
) -> anyhow::Result<()> {
    let campaign = campaign(world, "power", leads, callers, &["--detect-machines"]).await;
    let origin: SocketAddr = world.origin.wire.far_end();
    let company = world.company_for_origin(origin, speed)?;
    let line = Line {
        number: "+15005550001".into(),
        voice: endpoint("/callin/create")?,
        fallback: None,
        status: Some(endpoint("/caller/end_session")?),
    };
    let pin = campaign.pins.first().context("no caller")?;
    // All of them are one caller, by as many telephones: the PIN says who, and not how often.
    let party: Party = CALLER.replace("{pin}", pin).parse().map_err(anyhow::Error::msg)?;
    let load = Load {
        line,
        party,
        callers,
        time: Duration::from_secs(seconds),
        ramp: Duration::from_secs(5),
        again_after: Duration::from_millis(100),
        leads: None,
    };
    let pid = world
        .origin
        .program
        .as_ref()
        .and_then(holdline_tests::Program::pid)
        .context("no origin")?;
    let (begun, cpu) = (Instant::now(), cpu_seconds(pid)?);
    let (summary, _) = load::run(&company, load, |_| {}).await.map_err(anyhow::Error::msg)?;
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let let_in = world.count("SELECT COUNT(*) FROM caller_sessions").await?;
    let talked = "SELECT COUNT(*) FROM lead_calls WHERE connected_ms IS NOT NULL";
    let talked = world.count(talked).await?;
    // Otherwise it is no work that is measured.
    anyhow::ensure!(
        let_in >= i64::try_from(callers)? && talked > 0,
        "{let_in} let in, {talked} talks"
    );
    let total = summary.total();
    let waits = summary.waits();
    say(&format!(
        "| {database} | {speed} | {let_in} | {talked} | {:.0} | {} ms | {} ms | {} ms | {} ms | {} | {:.2} ms |",
        total as f64 / took,
        waits.p50_ms,
        waits.p99_ms,
        waits.p999_ms,
        waits.max_ms,
        summary.breaches,
        cpu * 1000.0 / total as f64,
    ));
    for breach in summary.first_breaches.iter().take(3) {
        say(&format!("breach: {breach:?}"));
    }
    Ok(())
}

/// Works through lists until the time is over.
async fn endure(time: Duration, leads: usize, callers: usize) {
    let begun = Instant::now();
    let (mut lists, mut felt) = (0, Felt::default());
    while begun.elapsed() < time {
        let mode = if lists % 4 < 2 { "power" } else { "preview" };
        let more = if lists % 2 == 0 {
            campaign_with_harm(&mut on_sqlite().await, None, mode, leads, callers).await
        } else {
            let (mut world, database) = on_mariadb().await;
            campaign_with_harm(&mut world, Some(&database), mode, leads, callers).await
        };
        lists += 1;
        felt.add(more);
        say(&format!("{:>5.1} min  {lists} lists  {felt}", begun.elapsed().as_secs_f64() / 60.0));
    }
    say(&format!(
        "{} people were called at most once each, {lists} lists; no answer was lost, nobody was stuck.",
        lists * leads
    ));
}

fn endpoint(path: &str) -> anyhow::Result<Endpoint> {
    let url = Url::parse(&format!("{}{path}", holdline_tests::world::PUBLIC_URL))?;
    Ok(Endpoint::from(url))
}

#[expect(clippy::print_stdout, reason = "what is measured is the program's output")]
fn say(line: &str) {
    println!("{line}");
}
