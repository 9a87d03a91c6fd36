//! `holdline spool`: to look at what waits, to send it again, to remove it, to carry it elsewhere.
//!
//! Looking reads the file itself, whether the edge runs or not. Changing goes through the running edge,
//! which alone knows what is under way; where none runs, nothing is changed.

use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::Client;
use super::import::import;
use crate::config::Reach;
use crate::spool::tools::{PAGE, Reader};
use crate::spool::{Carried, Delivery, Filter, Numbers, listed, shown};

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
        /// The delivery id. It may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
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
    #[arg(long, allow_hyphen_values = true)]
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
        anyhow::Ok(Client::new(admin, Some(token)))
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
    let (chosen, _) = reader.count(filter).await?;
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
    let ask = async |filter: &Filter, key: &str, value: Value| {
        let mut body = json!({ "filter": filter });
        body[key] = value;
        client.post(path, Bytes::from(body.to_string())).await
    };
    let number =
        |said: &Value| said["chosen"].as_u64().context("the edge's answer cannot be understood");
    let said = ask(filter, "dry_run", json!(true)).await?;
    let chosen = number(&said)?;
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
    // What has come since was not meant.
    let filter = Filter { up_to: said["up_to"].as_i64(), ..filter.clone() };
    let (key, value) =
        if path == "/spool/drop" { ("confirm", json!(chosen)) } else { ("dry_run", json!(false)) };
    writeln!(out, "{what}: {} done", number(&ask(&filter, key, value).await?)?)?;
    Ok(())
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
            up_to: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        spool: SpoolArguments,
    }

    #[test]
    fn an_id_may_begin_with_a_hyphen() {
        let read = |line: &[&str]| Line::try_parse_from([&["spool"], line].concat()).unwrap();
        for id in ["-Uvtll8lZaqAxxi6uQNxPGpG", "--Uvtll8lZaqAxxi6uQNxPGp"] {
            let SpoolCommand::Show { id: shown, numbers } =
                read(&["show", "--numbers", id]).spool.command
            else {
                panic!("not shown")
            };
            assert_eq!((shown.as_str(), numbers), (id, true));
            let SpoolCommand::Drop { chosen, .. } = read(&["drop", "--id", id]).spool.command
            else {
                panic!("not dropped")
            };
            assert_eq!(chosen.id.as_deref(), Some(id));
        }
    }
}
