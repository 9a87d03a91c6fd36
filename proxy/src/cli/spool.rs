//! `holdline spool`: to look at what waits, to send it again, to remove it, to carry it elsewhere.
//!
//! Looking reads the file itself, whether the edge runs or not. Changing goes through the running edge,
//! which alone knows what is under way; where none runs, nothing is changed.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::Client;
use crate::config::Reach;
use crate::spool::tools::{Carried, Numbers, PAGE, Reader, listed, shown};
use crate::spool::{Delivery, Filter};

/// How every file of SQLite begins.
const SQLITE: &[u8] = b"SQLite format 3\0";
/// Lines taken in at once.
const AT_ONCE: usize = 500;

/// The arguments of `holdline spool`.
#[derive(Debug, Args)]
pub struct SpoolArguments {
    #[command(subcommand)]
    command: SpoolCommand,
    /// The edge's configuration (TOML); only where the spool and the admin plane are is read of it.
    #[arg(long, value_name = "FILE", env = "HOLDLINE_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// The spool's folder, instead of the configured one.
    #[arg(long, value_name = "FOLDER", global = true)]
    folder: Option<PathBuf>,
    /// The running edge's admin address, instead of the configured one. Its token is configured, or in
    /// HOLDLINE_ADMIN_TOKEN.
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Lists what is kept.
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// How the list is written.
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Shows one delivery with its request.
    Show {
        /// The delivery id.
        id: String,
        /// Shows telephone numbers and what was keyed.
        #[arg(long)]
        numbers: bool,
    },
    /// Sends again: at once, and from the first try on. Dead letters come back to life.
    Replay {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        care: Care,
    },
    /// Removes for good.
    Drop {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        care: Care,
    },
    /// Writes what is kept to standard output, one line of JSON each, to the byte.
    Export {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Takes in what another spool has kept: an export, or the spool's own file from the disk of an edge
    /// that will not come back. What is known already is left alone.
    Import {
        /// An export (- for standard input), a spool's file, or its folder.
        from: PathBuf,
        /// Only counts.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which deliveries; what is not said does not matter.
#[derive(Debug, Clone, Args)]
struct Chosen {
    /// The delivery id.
    #[arg(long)]
    id: Option<String>,
    /// waiting, delivered or dead.
    #[arg(long)]
    state: Option<String>,
    /// The row's name.
    #[arg(long)]
    row: Option<String>,
    /// The CallSid.
    #[arg(long)]
    call: Option<String>,
    /// The AccountSid.
    #[arg(long)]
    account: Option<String>,
    /// At least so old (10m, 2h).
    #[arg(long, value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// At most so old.
    #[arg(long, value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
    /// All of them; needed where nothing else is said and something would be changed.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, Args)]
struct Care {
    /// Only counts.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One JSON object a line.
    Json,
}

/// Runs `holdline spool`.
pub async fn run(arguments: SpoolArguments) -> anyhow::Result<()> {
    let SpoolArguments { command, config, folder, admin } = arguments;
    let reach = match &config {
        Some(file) => Some(Reach::load(file)?),
        None => None,
    };
    let folder = || {
        folder
            .clone()
            .or(reach.as_ref().map(|reach| reach.folder.clone()))
            .context("say where the spool is: --config FILE, or --folder FOLDER")
    };
    let client = || {
        let from_reach = reach.as_ref().and_then(|reach| reach.admin.map(reachable));
        let admin = admin
            .or(from_reach)
            .context("say where the edge is: --config FILE, or --admin ADDRESS")?;
        let from_reach = reach.as_ref().and_then(|reach| reach.token.clone());
        let token = from_reach
            .or_else(|| std::env::var("HOLDLINE_ADMIN_TOKEN").ok().map(Into::into))
            .context(
                "the admin token is missing: configure admin.token, or set HOLDLINE_ADMIN_TOKEN",
            )?;
        anyhow::Ok(Client::new(admin, token))
    };
    match command {
        SpoolCommand::List { chosen, format, limit } => {
            list(Reader::open(&folder()?).await?, &chosen.filter(), format, limit).await
        }
        SpoolCommand::Show { id, numbers } => {
            show(Reader::open(&folder()?).await?, id, numbers).await
        }
        SpoolCommand::Export { chosen } => {
            export(Reader::open(&folder()?).await?, &chosen.filter()).await
        }
        SpoolCommand::Replay { chosen, care } => {
            let filter = chosen.filter_of_a_change()?;
            change(&client()?, "/spool/replay", &filter, care, "send again").await
        }
        SpoolCommand::Drop { chosen, care } => {
            let filter = chosen.filter_of_a_change()?;
            change(&client()?, "/spool/drop", &filter, care, "remove for good").await
        }
        SpoolCommand::Import { from, dry_run } => {
            let client = if dry_run { None } else { Some(client()?) };
            import(client.as_ref(), &from).await
        }
    }
}

async fn list(
    mut reader: Reader,
    filter: &Filter,
    format: Format,
    limit: usize,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Table {
        writeln!(
            out,
            "{:<24} {:<9} {:<20} {:<34} {:>8} {:>5}  LAST",
            "ID", "STATE", "ROW", "CALL", "AGE", "TRIES"
        )?;
    }
    let (mut after, mut count) = (0, 0);
    loop {
        let page = reader.page(filter, after).await?;
        for delivery in page.iter().take(limit - count) {
            match format {
                Format::Json => writeln!(out, "{}", listed(delivery))?,
                Format::Table => writeln!(out, "{}", line(delivery))?,
            }
            count += 1;
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize && count < limit => after = last.place,
            _ => break,
        }
    }
    let chosen = reader.count(filter).await?;
    if format == Format::Table {
        writeln!(out, "{count} of {chosen}")?;
    }
    Ok(())
}

fn line(delivery: &Delivery) -> String {
    let age = Duration::from_secs(delivery.age().as_secs());
    let last = delivery.state.reason().or(delivery.last_outcome.as_deref()).unwrap_or("-");
    format!(
        "{:<24} {:<9} {:<20} {:<34} {:>8} {:>5}  {last}",
        delivery.id,
        delivery.state.name(),
        delivery.row,
        delivery.call.as_deref().unwrap_or("-"),
        humantime::format_duration(age).to_string().replace(' ', ""),
        delivery.tries,
    )
}

async fn show(mut reader: Reader, id: String, numbers: bool) -> anyhow::Result<()> {
    let filter = Filter { id: Some(id), ..Filter::default() };
    let found = reader.page(&filter, 0).await?;
    let delivery = found.first().context("there is no such delivery")?;
    let numbers = if numbers { Numbers::Shown } else { Numbers::Masked };
    let text = serde_json::to_string_pretty(&shown(delivery, numbers))?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

async fn export(mut reader: Reader, filter: &Filter) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut after = 0;
    loop {
        let page = reader.page(filter, after).await?;
        let Some(last) = page.last() else { break };
        after = last.place;
        for delivery in &page {
            serde_json::to_writer(&mut out, &Carried::from(delivery))?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn change(
    client: &Client,
    path: &str,
    filter: &Filter,
    care: Care,
    what: &str,
) -> anyhow::Result<()> {
    let ask = async |more: Value| {
        let mut body = json!({ "filter": filter });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let said = client.post(path, Bytes::from(body.to_string())).await?;
        said["chosen"].as_u64().context("the edge's answer cannot be understood")
    };
    let chosen = ask(json!({ "dry_run": true })).await?;
    let mut out = std::io::stdout();
    if care.dry_run || chosen == 0 {
        writeln!(out, "{chosen} chosen, nothing changed")?;
        return Ok(());
    }
    if !care.yes {
        write!(out, "{what}: {chosen}. Type that number to go on: ")?;
        out.flush()?;
        let mut typed = String::new();
        std::io::stdin().lock().read_line(&mut typed)?;
        if typed.trim() != chosen.to_string() {
            bail!("nothing changed");
        }
    }
    let more = if path == "/spool/drop" { json!({ "confirm": chosen }) } else { json!({}) };
    writeln!(out, "{what}: {} done", ask(more).await?)?;
    Ok(())
}

/// Takes in; without a client it only counts.
async fn import(client: Option<&Client>, from: &Path) -> anyhow::Result<()> {
    let (mut given, mut new) = (0, 0);
    let mut send = async |lines: Vec<u8>, count: u64| {
        given += count;
        if let Some(client) = client {
            let said = client.post("/spool/import", Bytes::from(lines)).await?;
            new += said["new"].as_u64().unwrap_or(0);
        }
        anyhow::Ok(())
    };
    let read = if is_a_spool(from)? {
        import_spool(from, &mut send).await
    } else {
        import_lines(from, &mut send).await
    };
    let mut out = std::io::stdout();
    match client {
        Some(_) => writeln!(out, "{given} read, {new} of them new and taken in")?,
        None => writeln!(out, "{given} read, nothing taken in")?,
    }
    read.context("the rest could not be read")
}

async fn import_spool(
    from: &Path,
    send: &mut impl AsyncFnMut(Vec<u8>, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader =
        if from.is_dir() { Reader::open(from).await? } else { Reader::open_file(from).await? };
    // What was delivered is nobody's concern any more.
    for state in ["waiting", "dead"] {
        let filter = Filter { state: Some(state.to_owned()), ..Filter::default() };
        let mut after = 0;
        loop {
            let (found, fault) = reader.readable(&filter, after).await;
            if let Some(last) = found.last() {
                after = last.place;
                let mut lines = Vec::new();
                for delivery in &found {
                    serde_json::to_writer(&mut lines, &Carried::from(delivery))?;
                    lines.push(b'\n');
                }
                send(lines, found.len() as u64).await?;
            }
            if let Some(fault) = fault {
                return Err(fault.into());
            }
            if found.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

async fn import_lines(
    from: &Path,
    send: &mut impl AsyncFnMut(Vec<u8>, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let input: Box<dyn std::io::Read> =
        if from.as_os_str() == "-" { Box::new(std::io::stdin()) } else { Box::new(open(from)?) };
    let (mut lines, mut count) = (Vec::new(), 0);
    for line in std::io::BufReader::new(input).split(b'\n') {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        serde_json::from_slice::<Carried>(&line).context("this is no line of an export")?;
        lines.extend_from_slice(&line);
        lines.push(b'\n');
        count += 1;
        if count == AT_ONCE as u64 {
            send(std::mem::take(&mut lines), std::mem::take(&mut count)).await?;
        }
    }
    if count > 0 { send(lines, count).await } else { Ok(()) }
}

fn is_a_spool(from: &Path) -> anyhow::Result<bool> {
    if from.as_os_str() == "-" {
        return Ok(false);
    }
    if from.is_dir() {
        return Ok(true);
    }
    let mut head = Vec::new();
    open(from)?.take(SQLITE.len() as u64).read_to_end(&mut head)?;
    Ok(head == SQLITE)
}

fn open(file: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))
}

/// An address that can be connected to, for one that is listened on.
fn reachable(admin: SocketAddr) -> SocketAddr {
    if admin.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admin.port())
    } else {
        admin
    }
}

// === impl Chosen ===

impl Chosen {
    fn filter(&self) -> Filter {
        Filter {
            id: self.id.clone(),
            state: self.state.clone(),
            row: self.row.clone(),
            call: self.call.clone(),
            account: self.account.clone(),
            older_than: self.older_than.map(|age| age.as_secs()),
            newer_than: self.newer_than.map(|age| age.as_secs()),
        }
    }

    /// A change of everything has to be asked for.
    fn filter_of_a_change(&self) -> anyhow::Result<Filter> {
        let filter = self.filter();
        if filter == Filter::default() && !self.all {
            bail!(
                "say which, by --state, --row, --call, --account, --id, --older-than or --newer-than; or --all"
            );
        }
        Ok(filter)
    }
}
