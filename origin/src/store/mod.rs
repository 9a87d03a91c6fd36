//! The store: SQLite in a file, or MySQL by URL, shared by every process of the service.
//!
//! Writers queue inside the process and wait for the database itself for a quarter of a second at the
//! most (a second with MySQL, which counts in seconds): a twin that is frozen in the middle of a
//! transaction must cost a quick "not run", and never a caller's patience. No network but the
//! database's own is waited for inside a transaction.
//!
//! Nothing is counted: how many lines ring, how many numbers are handed out, how many seats are taken is
//! always the number of rows of which it is true, so that no count can drift.

pub(crate) mod callers;
mod charge;
mod deliveries;
mod dialect;
mod forget;
pub(crate) mod found;
pub(crate) mod notices;
pub(crate) mod outbox;
pub mod queue;
mod rows;
pub mod sample;
pub(crate) mod scene;
pub mod views;

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Transaction};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

pub(crate) use deliveries::Work;
pub use dialect::{Database, Dialect, NotADatabase, PATIENCE};

/// How many ids a process takes at once.
const BLOCK: i64 = 1000;
/// How many of them one transaction may need at the most; those that need more take their own.
const USUAL: i64 = 64;
/// How long the store is left to others at least, where it is left to them.
const SHORTEST_BREATH: Duration = Duration::from_millis(20);
/// How often work is begun anew that was in somebody's way.
pub(crate) const TRIES: u32 = 3;

/// The store.
#[derive(Debug)]
pub struct Store {
    pool: AnyPool,
    dialect: Dialect,
    patience: Duration,
    writing: Semaphore,
    ids: Ids,
}

/// Ids that this process may hand out.
#[derive(Debug)]
struct Ids {
    next: AtomicI64,
    end: AtomicI64,
    refill: Mutex<()>,
}

/// A transaction that writes, and the turn it was given.
pub(crate) struct Writing<'s> {
    transaction: Transaction<'s, Any>,
    /// Which database it is.
    pub(crate) dialect: Dialect,
    ids: &'s Ids,
    _turn: SemaphorePermit<'s>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be had in time; nothing was done.
    #[error("the store could not be had in time")]
    Busy,
    /// The same was done elsewhere in the same moment; nothing was done here.
    #[error("the same was done in the same moment: {0}")]
    Raced(sqlx::Error),
    /// Somebody else took the delivery over; nothing was done here.
    #[error("the delivery was taken over by another process")]
    Fenced,
    /// The database failed.
    #[error("the store failed: {0}")]
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        let is_busy = |inner: &dyn sqlx::error::DatabaseError| {
            Dialect::Sqlite.is_busy(inner) || Dialect::Mysql.is_busy(inner)
        };
        match &error {
            sqlx::Error::PoolTimedOut => StoreError::Busy,
            sqlx::Error::Database(inner) if is_busy(inner.as_ref()) => StoreError::Busy,
            // Two transactions that did not see each other wanted to be the first.
            sqlx::Error::Database(inner) if inner.is_unique_violation() => StoreError::Raced(error),
            _ => StoreError::Failed(error),
        }
    }
}

// === impl StoreError ===

impl StoreError {
    /// Whether it is worth being tried again at once.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, StoreError::Busy | StoreError::Raced(_))
    }
}

// === impl Store ===

impl Store {
    /// Opens the database and brings it up to date.
    pub async fn open(database: &Database) -> anyhow::Result<Store> {
        Store::open_with(database, PATIENCE).await
    }

    /// The same, for whoever can wait this long for the database.
    pub async fn open_with(database: &Database, patience: Duration) -> anyhow::Result<Store> {
        sqlx::any::install_default_drivers();
        let dialect = database.dialect;
        let url = database.make()?;
        let pool = AnyPoolOptions::new()
            .max_connections(dialect.connections())
            // While it is opened; later nobody waits longer than `PATIENCE` (see `begin`).
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |connection, _| Box::pin(dialect.prepare(connection, patience)))
            .connect(&url)
            .await?;
        migrate(&pool, dialect).await?;
        let ids = Ids { next: AtomicI64::new(0), end: AtomicI64::new(0), refill: Mutex::new(()) };
        Ok(Store { pool, dialect, patience, writing: Semaphore::new(dialect.writers()), ids })
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the store can be written to, and how long finding out took.
    pub async fn ping(&self) -> Result<Duration, StoreError> {
        let begun = Instant::now();
        let mut writing = self.begin().await?;
        sqlx::query("UPDATE ids SET next_id = next_id WHERE kind = 'ping'")
            .execute(writing.connection())
            .await?;
        writing.commit().await?;
        Ok(begun.elapsed())
    }

    /// A connection to read with.
    pub(crate) async fn reading(&self) -> Result<sqlx::pool::PoolConnection<Any>, StoreError> {
        let acquired = tokio::time::timeout(self.patience, self.pool.acquire()).await;
        Ok(acquired.map_err(|_| StoreError::Busy)??)
    }

    /// A transaction that is going to write.
    pub(crate) async fn begin(&self) -> Result<Writing<'_>, StoreError> {
        let turn = tokio::time::timeout(self.patience, self.writing.acquire()).await;
        let turn = turn.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Busy)?;
        self.fill_up_ids().await?;
        let begun =
            tokio::time::timeout(self.patience * 2, self.pool.begin_with(self.dialect.begin()));
        let transaction = begun.await.map_err(|_| StoreError::Busy)??;
        Ok(Writing { transaction, dialect: self.dialect, ids: &self.ids, _turn: turn })
    }

    /// Takes another block of ids where those that have their turn may need more than there are. What is
    /// left of the last block is lost.
    async fn fill_up_ids(&self) -> Result<(), StoreError> {
        let reserve = USUAL * i64::try_from(self.dialect.writers()).unwrap_or(USUAL);
        let ids = &self.ids;
        let enough =
            || ids.next.load(Ordering::Acquire) + reserve <= ids.end.load(Ordering::Acquire);
        if enough() {
            return Ok(());
        }
        let _refill = ids.refill.lock().await;
        if !enough() {
            let block = self.id_block(BLOCK.max(reserve * 2)).await?;
            // With the end out of the way nobody takes the two for one block.
            ids.end.store(0, Ordering::Release);
            ids.next.store(block.start, Ordering::Release);
            ids.end.store(block.end, Ordering::Release);
        }
        Ok(())
    }

    /// So many ids that nothing else has.
    pub(crate) async fn id_block(&self, count: i64) -> Result<Range<i64>, StoreError> {
        // In a transaction that is committed here: what a connection that was given back in the middle of
        // something may still be in would be undone behind our back.
        let begun =
            tokio::time::timeout(self.patience * 2, self.pool.begin_with(self.dialect.begin()));
        let mut transaction = begun.await.map_err(|_| StoreError::Busy)??;
        let next =
            format!("SELECT next_id FROM ids WHERE kind = 'all'{}", self.dialect.for_update());
        let next: i64 =
            sqlx::query_scalar(AssertSqlSafe(next)).fetch_one(&mut *transaction).await?;
        let take = "UPDATE ids SET next_id = ? WHERE kind = 'all'";
        sqlx::query(take).bind(next + count).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(next..next + count)
    }
}

// === impl Writing ===

impl Writing<'_> {
    /// The connection, inside the transaction.
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// An id that nothing else has.
    pub(crate) fn id(&self) -> i64 {
        self.ids.next.fetch_add(1, Ordering::AcqRel)
    }

    /// Makes everything that was done last. Without it, nothing was done.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

/// Two processes may start at once; the second waits for the first to finish its migrations.
async fn migrate(pool: &AnyPool, dialect: Dialect) -> anyhow::Result<()> {
    let migrator = dialect.migrations();
    let mut tries = 0;
    loop {
        match migrator.run(pool).await {
            Ok(()) => return Ok(()),
            Err(sqlx::migrate::MigrateError::VersionMismatch(_)) => anyhow::bail!(
                "this database was made by an earlier build whose tables cannot be taken over: use a new one"
            ),
            Err(error) if tries < 40 => {
                tries += 1;
                tracing::warn!(%error, "migrations are waiting");
                tokio::time::sleep(PATIENCE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Leaves the store to others for as long as it was had, since `begun`: between the parts of long work,
/// for which nobody should have to wait.
pub(crate) async fn breathe(begun: Instant) {
    tokio::time::sleep(begun.elapsed().max(SHORTEST_BREATH)).await;
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time in whole milliseconds.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
