//! Taking in what another spool has kept.

use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;

use super::client::Client;
use crate::spool::tools::Reader;
use crate::spool::{Carried, Filter};

/// How every file of SQLite begins.
const SQLITE: &[u8] = b"SQLite format 3\0";
/// Lines taken in at once, and from how many bytes on fewer; the edge takes 64 MiB.
const AT_ONCE: u64 = 500;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Takes in; without a client it only counts.
pub(super) async fn import(client: Option<&Client>, from: &Path) -> anyhow::Result<()> {
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
    let mut fault = Ok(());
    // What was delivered is nobody's concern any more.
    for state in ["waiting", "dead"] {
        let filter = Filter { state: Some(state.to_owned()), ..Filter::default() };
        let mut after = 0;
        loop {
            let (found, ended) = reader.readable(&filter, after).await;
            if let Some(last) = found.last() {
                after = last.place;
                let mut lines = Vec::new();
                for delivery in &found {
                    serde_json::to_writer(&mut lines, &Carried::from(delivery))?;
                    lines.push(b'\n');
                }
                send(lines, found.len() as u64).await?;
            }
            if let Some(ended) = ended {
                fault = Err(ended.into());
                break;
            }
            if found.is_empty() {
                break;
            }
        }
    }
    fault
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
        if count == AT_ONCE || lines.len() >= MOST_BYTES {
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
