//! What operators do with the spool: read it, send again, remove, take in.

use std::path::Path;

use sqlx::SqliteConnection;
use tokio::sync::oneshot;

use super::job::{Job, Part};
use super::store;
use super::{Delivery, Filter, Location, OpenFault, Spool};

/// Deliveries of one page.
pub const PAGE: u32 = 200;

/// Why a tool's work was not done.
#[derive(Debug, thiserror::Error)]
pub enum ToolFault {
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] OpenFault),
    /// The spool could not be read or written.
    #[error("the spool cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    /// Nothing was changed.
    #[error("the spool cannot be written; nothing was changed")]
    NotWritten,
    /// The filter means nothing.
    #[error("{0}")]
    Filter(String),
}

/// A reader of a spool's file, whoever else writes to it.
#[derive(Debug)]
pub struct Reader(SqliteConnection);

// === impl Reader ===

impl Reader {
    /// Opens the spool in a folder.
    pub async fn open(folder: &Path) -> Result<Reader, OpenFault> {
        Ok(Reader(Location::new(folder.to_owned()).connect_to_read().await?))
    }

    /// Opens a spool's file under whatever name.
    pub async fn open_file(file: &Path) -> Result<Reader, OpenFault> {
        Ok(Reader(Location::connect_to(file).await?))
    }

    /// One page of what a filter chooses, behind the place `after`.
    pub async fn page(&mut self, filter: &Filter, after: i64) -> Result<Vec<Delivery>, ToolFault> {
        check(filter)?;
        Ok(store::list(&mut self.0, filter, after, PAGE).await?)
    }

    /// The same of a file that may be damaged: what can be read, and the fault that ended it.
    pub async fn readable(
        &mut self,
        filter: &Filter,
        after: i64,
    ) -> (Vec<Delivery>, Option<ToolFault>) {
        let (found, fault) = store::readable(&mut self.0, filter, after, PAGE).await;
        (found, fault.map(ToolFault::from))
    }

    /// How many a filter chooses, and the place of the last of them.
    pub async fn count(&mut self, filter: &Filter) -> Result<(u64, i64), ToolFault> {
        check(filter)?;
        Ok(store::count(&mut self.0, filter).await?)
    }
}

// === impl Spool ===

impl Spool {
    /// A reader of its file.
    pub async fn reader(&self) -> Result<Reader, OpenFault> {
        Reader::open(&self.folder).await
    }

    /// Sends again what a filter chooses, from the first try on; how many. What was delivered is only sent
    /// again where the filter says so.
    pub async fn send_again(&self, filter: &Filter) -> Result<u64, ToolFault> {
        check(filter)?;
        let mut count = 0;
        for filter in filter.of_a_replay() {
            count += self.in_parts(&filter, Job::Replay).await?;
        }
        Ok(count)
    }

    /// Removes what a filter chooses; how many.
    pub async fn remove(&self, filter: &Filter) -> Result<u64, ToolFault> {
        check(filter)?;
        self.in_parts(filter, Job::Remove).await
    }

    /// Does something to all that a filter chooses, part by part, so that others write in between.
    async fn in_parts(
        &self,
        filter: &Filter,
        job: fn(Filter, i64, oneshot::Sender<Part>) -> Job,
    ) -> Result<u64, ToolFault> {
        let (mut after, mut count) = (0, 0);
        loop {
            let part = self.job(|done| job(filter.clone(), after, done)).await?;
            count += part.count;
            match part.more {
                Some(place) => after = place,
                None => return Ok(count),
            }
        }
    }

    /// Takes in what another spool has kept; how many were new.
    pub async fn import(&self, deliveries: Vec<Delivery>) -> Result<u64, ToolFault> {
        self.job(|done| Job::Import(deliveries, done)).await
    }

    async fn job<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, ToolFault> {
        let (done, result) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| ToolFault::NotWritten)?;
        result.await.map_err(|_| ToolFault::NotWritten)
    }
}

fn check(filter: &Filter) -> Result<(), ToolFault> {
    filter.fault().map_or(Ok(()), |fault| Err(ToolFault::Filter(fault)))
}
