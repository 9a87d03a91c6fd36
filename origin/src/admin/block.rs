//! Numbers that must not be called.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::import::{MOST_FAULTS, open, swallowed_nobody};
use super::{book, patiently, phone, say};
use crate::store::{Store, breathe};

/// Numbers that are blocked in one go: few, because callers wait for the store as well.
const AT_ONCE: usize = 20;

/// Blocks numbers, or takes that back.
pub(super) async fn numbers(
    store: &Store,
    account: i64,
    campaign: Option<i64>,
    numbers: &[String],
    blocked: bool,
) -> anyhow::Result<()> {
    owner(store, account, campaign).await?;
    let mut households = 0;
    for numbers in numbers.chunks(AT_ONCE) {
        let begun = Instant::now();
        let done = patiently!(
            if blocked {
                store.block(account, campaign, numbers).await
            } else {
                store.unblock(account, campaign, numbers).await
            }
            .map_err(anyhow::Error::from)
        );
        // What is blocked twice is blocked.
        households += done.context("not all numbers were done; say them again")?;
        breathe(begun).await;
    }
    let (done, moved) = if blocked { ("blocked", "put away") } else { ("free", "put back") };
    say(&format!("{} numbers {done}; {households} households {moved}", numbers.len()))
}

async fn owner(store: &Store, account: i64, campaign: Option<i64>) -> anyhow::Result<()> {
    let mut writing = store.begin().await?;
    book::is_there(&mut writing, "accounts", account).await?;
    match campaign {
        Some(campaign) => book::belongs(&mut writing, "campaigns", campaign, account).await,
        None => Ok(()),
    }
}

pub(super) async fn file(
    store: &Store,
    account: i64,
    campaign: Option<i64>,
    path: &Path,
) -> anyhow::Result<()> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    let (mut numbers, mut faults) = (Vec::new(), Vec::new());
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut column = 0;
    for (n, record) in reader.records().enumerate() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let heading = record.iter().position(|name| name.trim().eq_ignore_ascii_case("phone"));
        match (n, heading) {
            (0, Some(place)) => column = place,
            _ => match swallowed_nobody(&record)
                .and_then(|()| phone(record.get(column).unwrap_or_default()))
            {
                Ok(number) => numbers.push(number),
                Err(fault) => faults.push(format!("line {line}: {fault}")),
            },
        }
    }
    if !faults.is_empty() {
        let count = faults.len();
        faults.truncate(MOST_FAULTS);
        let list = faults.join("\n  ");
        bail!(
            "{}: {count} lines cannot be read, and nothing was blocked:\n  {list}",
            path.display()
        );
    }
    self::numbers(store, account, campaign, &numbers, true).await
}
