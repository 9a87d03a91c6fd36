//! The store: SQLite, shared by every process of the service.
//!
//! Writers queue inside the process and wait for the database itself for a quarter of a second at the
//! most: a twin that is frozen in the middle of a transaction must cost a quick "not run", and never
//! a caller's patience. No network is waited for inside a transaction.

pub(crate) mod callers;
mod deliveries;
pub(crate) mod reports;
pub mod sample;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use callers::{BrowserEvent, Session};
pub(crate) use deliveries::{Claimed, Delivery};

/// How long anything waits for the store.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// Connections; readers share them with the one writer.
const CONNECTIONS: u32 = 8;

/// The store.
#[derive(Debug)]
pub struct Store {
    pool: SqlitePool,
    writing: Semaphore,
}

/// A transaction that writes, and the turn it was given.
pub(crate) struct Writing<'s> {
    transaction: Transaction<'s, Sqlite>,
    _turn: SemaphorePermit<'s>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be had in time; nothing was done.
    #[error("the store could not be had in time")]
    Busy,
    /// Somebody else took the delivery over; nothing was done here.
    #[error("the delivery was taken over by another process")]
    Fenced,
    /// The database failed.
    #[error("the store failed: {0}")]
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        // SQLITE_BUSY and its extended codes share the lowest byte (sqlite.org/rescode.html).
        let busy = |code: &str| code.parse::<u32>().is_ok_and(|code| code & 0xff == 5);
        match &error {
            sqlx::Error::PoolTimedOut => StoreError::Busy,
            sqlx::Error::Database(inner) if inner.code().is_some_and(|code| busy(&code)) => {
                StoreError::Busy
            }
            _ => StoreError::Failed(error),
        }
    }
}

// === impl Store ===

impl Store {
    /// Opens the database and brings it up to date.
    pub async fn open(path: &Path) -> anyhow::Result<Store> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A crash of the process loses nothing; a crash of the machine may lose the last moments,
            // and never damages what was there before.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await?;
        migrate(&pool).await?;
        Ok(Store { pool, writing: Semaphore::new(1) })
    }

    /// Whether the store can be written to, and how long finding out took.
    pub async fn ping(&self) -> Result<Duration, StoreError> {
        let begun = std::time::Instant::now();
        self.begin().await?.commit().await?;
        Ok(begun.elapsed())
    }

    /// A transaction that holds the write lock from its beginning.
    pub(crate) async fn begin(&self) -> Result<Writing<'_>, StoreError> {
        let turn = tokio::time::timeout(PATIENCE, self.writing.acquire()).await;
        let turn = turn.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Busy)?;
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Writing { transaction, _turn: turn })
    }
}

// === impl Writing ===

impl Writing<'_> {
    /// The connection, inside the transaction.
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Makes everything that was done last. Without it, nothing was done.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

/// Two processes may start at once; the second waits for the first to finish its migrations.
async fn migrate(pool: &SqlitePool) -> anyhow::Result<()> {
    let migrator = sqlx::migrate!("./migrations");
    let mut tries = 0;
    loop {
        match migrator.run(pool).await {
            Ok(()) => return Ok(()),
            Err(error) if tries < 40 => {
                tries += 1;
                tracing::warn!(%error, "migrations are waiting");
                tokio::time::sleep(PATIENCE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
