//! `holdline stance` and `holdline drill`: what the operator orders of a running edge.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::client::Client;
use super::when;
use crate::clock::millis;
use crate::config::Reach;
use crate::orders::{DRILL_FOR, Mode, Report};

/// How often it is looked whether a drill has ended.
const LOOK: Duration = Duration::from_millis(500);

/// Which edge.
#[derive(Debug, clap::Args)]
struct EdgeArguments {
    /// The edge's configuration: it says where its admin plane is, and its token.
    #[arg(long, value_name = "FILE", env = "HOLDLINE_CONFIG")]
    config: PathBuf,
    /// Its admin plane, where that is not what is configured.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// What is asked of a stance.
#[derive(Debug, clap::Args)]
pub struct StanceArguments {
    /// Who answers: whoever the verdicts say (automatic), never the origin (monitor), neither (canned).
    /// Without it, what is ordered is shown.
    #[arg(value_parser = ["automatic", "monitor", "canned"])]
    stance: Option<String>,
    #[command(flatten)]
    edge: EdgeArguments,
    /// For how long, such as 10m; an hour without it, a day at most.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// For visits to one row only.
    #[arg(long, value_name = "NAME")]
    row: Option<String>,
}

/// What is asked of a drill.
#[derive(Debug, clap::Args)]
pub struct DrillArguments {
    #[command(flatten)]
    edge: EdgeArguments,
    /// Who fails.
    #[arg(long, value_parser = ["origin", "monitor"], required_unless_present_any = ["stop", "report"])]
    fail: Option<String>,
    /// How: refuse, hang, 500, html.
    #[arg(long, value_parser = mode, required_unless_present_any = ["stop", "report"])]
    mode: Option<Mode>,
    /// The share of calls that take part, such as 5%.
    #[arg(long, value_parser = share, default_value = "5%")]
    share: f64,
    /// The rows that take part; without any, all where no callee is on the phone.
    #[arg(long, value_name = "NAME")]
    row: Vec<String>,
    /// For how long; 2m without it, 30m at most.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Comes back at once, instead of waiting for the end.
    #[arg(long)]
    detach: bool,
    /// Ends the drill that is under way.
    #[arg(long, conflicts_with_all = ["fail", "mode", "row", "time"])]
    stop: bool,
    /// Shows what came of the drill that is under way, or of the last one.
    #[arg(long, conflicts_with_all = ["fail", "mode", "row", "time", "stop"])]
    report: bool,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
}

fn mode(text: &str) -> Result<Mode, String> {
    let named = Mode::ALL.into_iter().find(|mode| mode.name() == text);
    named.ok_or_else(|| format!("is not one of {}", Mode::ALL.map(Mode::name).join(", ")))
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let share: Option<f64> = number.parse().ok();
    let share = share.filter(|share| *share > 0.0 && *share <= 100.0);
    share.ok_or_else(|| "is not a share such as 5%, above 0 and at most 100%".to_owned())
}

// === impl EdgeArguments ===

impl EdgeArguments {
    fn client(&self) -> anyhow::Result<Client> {
        let reach = Reach::load(&self.config)?;
        let admin = self.admin.or(reach.admin).context("listen.admin is not configured")?;
        let token =
            reach.token.or_else(|| std::env::var("HOLDLINE_ADMIN_TOKEN").ok().map(Into::into));
        Ok(Client::new(admin, token))
    }
}

/// Orders a stance, or shows what is ordered.
pub async fn stance(arguments: StanceArguments) -> anyhow::Result<String> {
    let client = arguments.edge.client()?;
    let said = match &arguments.stance {
        None => get(&client, "/stance").await?,
        Some(stance) => {
            let for_ms = arguments.time.map(millis);
            let order = json!({ "stance": stance, "row": arguments.row, "for_ms": for_ms });
            client.post("/stance", Bytes::from(order.to_string())).await?
        }
    };
    let in_words = |order: &Value| {
        let row = order["row"].as_str().map_or_else(String::new, |row| format!(" for {row}"));
        let until = when::shown(order["until_ms"].as_u64().unwrap_or_default());
        format!("{}{row} until {until}", order["stance"].as_str().unwrap_or("?"))
    };
    let orders: Vec<String> =
        said["stances"].as_array().into_iter().flatten().map(in_words).collect();
    let mut told = if orders.is_empty() { "automatic".to_owned() } else { orders.join("\n") };
    if said["kept"] == false {
        told.push_str("\n(it could not be written down: a new process will not know of it)");
    }
    Ok(told)
}

/// Begins a drill and waits for its end, or stops or shows one. Whoever interrupts the wait ends the drill.
pub async fn drill(arguments: DrillArguments) -> anyhow::Result<String> {
    let client = arguments.edge.client()?;
    if arguments.stop {
        return shown(&client.post("/drill/stop", Bytes::new()).await?, arguments.json);
    }
    if arguments.report {
        return shown(&get(&client, "/drill").await?, arguments.json);
    }
    let time = arguments.time.unwrap_or(DRILL_FOR);
    let order = json!({
        "fail": arguments.fail,
        "mode": arguments.mode,
        "share_percent": arguments.share,
        "rows": arguments.row,
        "for_ms": millis(time),
    });
    let order = Bytes::from(order.to_string());
    if arguments.detach {
        return shown(&client.post("/drill", order).await?, arguments.json);
    }
    // From here on an interrupt ends the drill, whenever it comes.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let begun = client.post("/drill", order).await?;
    let ended = async {
        loop {
            sleep(LOOK).await;
            let report = get(&client, "/drill").await.context("the drill ends by itself")?;
            if !report["end"].is_null() || report["began_ms"] != begun["began_ms"] {
                return anyhow::Ok(report);
            }
        }
    };
    let report = tokio::select! {
        ended = ended => ended?,
        _ = interrupts.recv() => stopped(&client, &begun).await?,
    };
    shown(&report, arguments.json)
}

/// Ends this drill, and no other; gives what came of it.
async fn stopped(client: &Client, begun: &Value) -> anyhow::Result<Value> {
    let report = get(client, "/drill").await?;
    if !report["end"].is_null() || report["began_ms"] != begun["began_ms"] {
        return Ok(report);
    }
    client.post("/drill/stop", Bytes::new()).await
}

async fn get(client: &Client, path: &str) -> anyhow::Result<Value> {
    let (status, body) = client.get(path).await?;
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status != StatusCode::OK {
        bail!("the edge refused ({status}): {}", said["error"].as_str().unwrap_or_default());
    }
    Ok(said)
}

/// A report, for people or for programs.
fn shown(report: &Value, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(report)?);
    }
    let report: Report = serde_json::from_value(report.clone()).context("the edge's report")?;
    let Report { order, visits, steered, held, dropped, kept, lost, .. } = &report;
    let mut text = format!(
        "{} fails by {}, for {} % of calls, from {} ",
        order.fail,
        order.mode.name(),
        order.share_percent,
        when::shown(report.began_ms),
    );
    match &report.end {
        Some(end) => {
            let _ = write!(text, "(ended: {end})");
        }
        None => {
            let _ = write!(text, "until {} at the latest", when::shown(report.until_ms));
        }
    }
    let _ = write!(
        text,
        "\n{visits} visits: {steered} steered, {held} held, {dropped} dropped, {kept} reports kept, {lost} \
         lost\nwaits: half {} ms or less, 99 of 100 {} ms, longest {} ms",
        report.p50_ms, report.p99_ms, report.longest_ms
    );
    for (row, by) in &report.rows {
        let by: Vec<String> = by.iter().map(|(by, count)| format!("{by} {count}")).collect();
        let _ = write!(text, "\n  {row:28} {}", by.join(", "));
    }
    Ok(text)
}
