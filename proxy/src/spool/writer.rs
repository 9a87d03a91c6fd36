//! The one who writes: everything that has gathered goes into one transaction, and nobody is told that
//! it is done before that is on disk.
//!
//! While one commit is under way the next ones gather, so that a slow disk makes commits larger and not
//! more. Counts and order are brought up to date after the commit and before anybody is told.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::job::{Job, apply_all};
use super::schema::{Lock, OpenFault, is_damage, touch};
use super::store::{self, millis};
use super::{Condition, Location, Spool, State, unix_ms};

/// Jobs of one transaction.
const TOGETHER: usize = 512;
/// How soon a spool that could not be opened is tried again, and another process's lock.
const AGAIN: Duration = Duration::from_secs(1);
const LOCK_AGAIN: Duration = Duration::from_millis(100);
/// How often what is old is looked for.
const TIDY: Duration = Duration::from_secs(1);
/// How often, in tidyings, what takes longer is done.
const SELDOM: u64 = 10;
/// Deliveries forgotten at once, and how soon after that the next are.
const FORGOTTEN_AT_ONCE: u32 = 500;
const FORGET_AGAIN: Duration = Duration::from_millis(50);
/// Pages given back to the disk at once.
const PAGES: u32 = 256;
/// How often the log is looked at, and from how many pages on it is copied into the database, beside the
/// writer and by the writer.
const LOG_CHECK: Duration = Duration::from_millis(100);
const LOG_SOON: i64 = 1000;
const LOG_NOW: i64 = 4000;

/// The one who writes.
#[derive(Debug)]
pub struct Writer {
    spool: Arc<Spool>,
    location: Location,
    jobs: mpsc::Receiver<Job>,
    lock: Option<Lock>,
}

/// An open database, and which file it is.
struct Open {
    connection: SqliteConnection,
    inode: u64,
    /// Changes when another process has written; 0 as long as it was not looked at.
    version: i64,
    /// Whether another process has written since it was last learned what is there, and when that was.
    shared: bool,
    loaded: Instant,
}

/// How a batch of jobs ended.
enum Batch {
    Done,
    /// The file is damaged or another one, or the connection to it is lost.
    Reopen,
    /// It is to end, and to say so here.
    Closed(oneshot::Sender<()>),
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(spool: Arc<Spool>, location: Location, jobs: mpsc::Receiver<Job>) -> Writer {
        Writer { spool, location, jobs, lock: None }
    }

    /// Refuses what this version must not touch.
    pub async fn look(&self) -> Result<(), OpenFault> {
        self.location.look().await
    }

    /// Opens the spool and writes until it is closed.
    pub async fn run(mut self) {
        let helper = tokio::spawn(help(self.location.clone(), self.spool.clone()));
        loop {
            match self.open().await {
                Ok(open) => {
                    if self.write(open).await {
                        break;
                    }
                }
                Err(fault) => {
                    tracing::error!(%fault, "the spool cannot be opened");
                    self.spool.set_condition(Condition::Failed);
                    self.spool.sound.store(false, Ordering::Relaxed);
                    if self.refuse_for(AGAIN).await {
                        break;
                    }
                }
            }
        }
        helper.abort();
    }

    async fn open(&mut self) -> Result<Open, OpenFault> {
        let begun = Instant::now();
        let io = |error| OpenFault::Io { file: self.location.file(), error };
        if self.lock.is_none() && !self.spool.yielding.load(Ordering::Acquire) {
            self.lock = self.location.lock().map_err(io)?;
        }
        let (mut connection, aside) = self.location.open(self.lock.as_ref()).await?;
        if let Some(aside) = aside {
            self.spool.metrics.spool.set_aside.inc();
            tracing::error!(
                file = %aside.display(),
                "the spool was damaged and is set aside; take in what can be read of it with \
                 `holdline spool import`"
            );
        }
        let inode = self.inode().map_err(io)?;
        self.load(&mut connection).await.map_err(|error| self.location.fault(error))?;
        let contents = self.spool.contents();
        tracing::info!(
            file = %self.location.file().display(),
            waiting = contents.waiting,
            dead = contents.dead,
            took_ms = begun.elapsed().as_millis(),
            replays = self.lock.is_some(),
            "the spool is open"
        );
        self.spool.opened.fetch_add(1, Ordering::AcqRel);
        Ok(Open { connection, inode, version: 0, shared: false, loaded: Instant::now() })
    }

    /// Learns what is there.
    async fn load(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let spool = &self.spool;
        spool.order.clear();
        store::each_waiting(connection, |order| spool.order.add(order)).await?;
        spool.counts.set(store::contents(connection).await?);
        let last = store::last_place(connection).await?.unwrap_or(0);
        spool.last_place.fetch_max(last, Ordering::Relaxed);
        let condition = if self.lock.is_some() { Condition::Ready } else { Condition::Appending };
        spool.set_condition(condition);
        spool.arrived.notify_one();
        Ok(())
    }

    /// Writes; true when it is to end, false when the file has to be opened anew.
    async fn write(&mut self, mut open: Open) -> bool {
        let mut batch = Vec::with_capacity(TOGETHER);
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lock = interval(LOCK_AGAIN);
        lock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidied = 0;
        let mut forget_at = Instant::now();
        loop {
            let written = tokio::select! {
                // What is due now and then must not wait until there is nothing to be written.
                biased;
                _ = lock.tick() => {
                    let known = self.know_of_others(&mut open).await;
                    let yielding = self.spool.yielding.load(Ordering::Acquire);
                    if yielding && self.lock.take().is_some() {
                        self.spool.set_condition(Condition::Appending);
                        tracing::info!("the spool is replayed from elsewhere");
                    }
                    match (known, self.lock.is_some() || yielding) {
                        (Ok(()), false) => self.take_over(&mut open).await,
                        (known, _) => self.report(known),
                    }
                }
                _ = tidy.tick() => {
                    tidied += 1;
                    let seldom = tidied % SELDOM == 0;
                    self.report(self.tidy(&mut open.connection, seldom).await)
                }
                () = tokio::time::sleep_until(forget_at.into()), if self.lock.is_some() => {
                    let forgotten = self.forget(&mut open.connection).await;
                    let much = matches!(forgotten, Ok(count) if count >= u64::from(FORGOTTEN_AT_ONCE));
                    forget_at = Instant::now() + if much { FORGET_AGAIN } else { TIDY };
                    self.report(forgotten.map(drop))
                }
                count = self.jobs.recv_many(&mut batch, TOGETHER) => match count {
                    0 => return true,
                    _ => self.commit(&mut open, &mut batch).await,
                },
            };
            match written {
                Batch::Done => {}
                Batch::Reopen => {
                    self.spool.set_condition(Condition::Opening);
                    return false;
                }
                Batch::Closed(done) => {
                    let _ = store::checkpoint(&mut open.connection).await;
                    let _ = open.connection.close().await;
                    let _ = done.send(());
                    return true;
                }
            }
        }
    }

    /// Answers for a while that nothing can be kept. True when it is to end.
    async fn refuse_for(&mut self, time: Duration) -> bool {
        let over = sleep(time);
        tokio::pin!(over);
        loop {
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(Job::Close(_)) | None => return true,
                    Some(job) => job.fail(),
                },
                () = &mut over => return false,
            }
        }
    }

    async fn commit(&mut self, open: &mut Open, batch: &mut Vec<Job>) -> Batch {
        let close = batch.iter().position(|job| matches!(job, Job::Close(_)));
        let closing = close.map(|at| batch.remove(at));
        if batch.iter().any(|job| matches!(job, Job::Checkpoint)) {
            batch.retain(|job| !matches!(job, Job::Checkpoint));
            // It is made again if it fails.
            let _ = store::checkpoint(&mut open.connection).await;
        }
        let mut written = Batch::Done;
        if !batch.is_empty() {
            let begun = Instant::now();
            let result = apply_all(&mut open.connection, batch).await;
            self.spool.metrics.spool.commit_seconds.observe(begun.elapsed().as_secs_f64());
            match result {
                // What was written to a file that somebody has set aside is not kept.
                Ok(_) if self.inode().ok() != Some(open.inode) => {
                    tracing::error!("the spool's file is not the one that was opened");
                    batch.drain(..).for_each(Job::fail);
                    written = Batch::Reopen;
                }
                Ok(changes) => {
                    self.is_sound();
                    for (job, change) in batch.drain(..).zip(changes) {
                        self.spool.tell(job, change);
                    }
                }
                Err(error) => {
                    batch.drain(..).for_each(Job::fail);
                    written = self.report(Err(error));
                    // The connection believes itself inside a transaction that is gone.
                    match self.location.connect().await {
                        Ok(connection) => (open.connection, open.version) = (connection, 0),
                        Err(_) => written = Batch::Reopen,
                    }
                }
            }
        }
        match closing {
            Some(Job::Close(done)) => Batch::Closed(done),
            _ => written,
        }
    }

    /// Says what went wrong, and whether the file has to be opened anew.
    fn report(&self, result: Result<(), sqlx::Error>) -> Batch {
        let Err(error) = result else { return Batch::Done };
        if self.spool.sound.swap(false, Ordering::Relaxed) {
            tracing::error!(%error, "the spool cannot be written");
        }
        let lasting = error.as_database_error().is_none();
        if lasting || is_damage(&error) { Batch::Reopen } else { Batch::Done }
    }

    fn is_sound(&self) {
        if !self.spool.sound.swap(true, Ordering::Relaxed) {
            tracing::info!("the spool can be written again");
        }
    }

    /// Learns anew what is there when another process has written to it. Meanwhile, and for a moment after,
    /// nothing goes straight through: what the other has kept of the same call is not known yet.
    async fn know_of_others(&self, open: &mut Open) -> Result<(), sqlx::Error> {
        let version = store::version(&mut open.connection).await?;
        let known = std::mem::replace(&mut open.version, version);
        if known != 0 && known != version {
            self.spool.shared_ms.store(unix_ms(), Ordering::Relaxed);
            open.shared = true;
        }
        // It takes a while where much waits.
        if open.shared && open.loaded.elapsed() >= AGAIN {
            open.shared = false;
            self.load(&mut open.connection).await?;
            open.loaded = Instant::now();
        }
        Ok(())
    }

    /// Takes the right to replay over from a process that has ended.
    async fn take_over(&mut self, open: &mut Open) -> Batch {
        match self.location.lock() {
            Ok(Some(lock)) => self.lock = Some(lock),
            _ => return Batch::Done,
        }
        if let Err(error) = self.load(&mut open.connection).await {
            // Without knowing what waits nothing can be replayed; it is tried again.
            self.lock = None;
            return self.report(Err(error));
        }
        tracing::info!("the spool is replayed from here");
        Batch::Done
    }

    async fn tidy(
        &self,
        connection: &mut SqliteConnection,
        seldom: bool,
    ) -> Result<(), sqlx::Error> {
        let spool = &self.spool;
        if self.lock.is_some() && seldom {
            store::mend_due(connection).await?;
            if spool.contents().waiting == 0 {
                store::shrink(connection, PAGES).await?;
            }
        }
        if !spool.sound.load(Ordering::Relaxed) {
            // Only writing shows whether it can be written again.
            touch(connection).await?;
            self.is_sound();
        }
        Ok(())
    }

    /// Forgets what was delivered some time ago; where room is short, at once.
    async fn forget(&self, connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let config = self.spool.config();
        let contents = self.spool.contents();
        if contents.delivered == 0 {
            return Ok(0);
        }
        let short = contents.bytes > config.most_bytes / 10 * 9;
        let kept = if short { 0 } else { millis(config.keep_delivered) };
        let before = unix_ms().saturating_sub(kept).saturating_add(1);
        let (count, bytes) = store::forget_delivered(connection, before, FORGOTTEN_AT_ONCE).await?;
        self.spool.counts.remove(State::Delivered, count, bytes);
        Ok(count)
    }

    fn inode(&self) -> std::io::Result<u64> {
        Ok(std::fs::metadata(self.location.file())?.ino())
    }
}

/// What can be done beside the writer: copies the log into the database before it grows long, and looks
/// for the oldest delivery that waits. Ends with the writer.
async fn help(location: Location, spool: Arc<Spool>) {
    let mut connection = None;
    let mut look_at = Instant::now();
    loop {
        sleep(LOG_CHECK).await;
        if !matches!(spool.condition(), Condition::Ready | Condition::Appending) {
            connection = None;
            continue;
        }
        let opened = spool.opened.load(Ordering::Acquire);
        let open = match connection.take() {
            Some((open, when)) if when == opened => Ok(open),
            _ => location.connect().await,
        };
        let Ok(mut open) = open else { continue };
        let now = Instant::now();
        if look_at <= now {
            // The more waits, the longer it takes.
            let pause = Duration::from_millis(spool.contents().waiting / 20);
            look_at = now + pause.clamp(TIDY, TIDY * 10);
            let Ok(oldest) = store::oldest(&mut open).await else { continue };
            spool.counts.oldest.store(oldest.unwrap_or(0), Ordering::Relaxed);
        }
        if keep_log_short(&mut open, &spool).await.is_ok() {
            connection = Some((open, opened));
        }
        // What fails here shows where something is written.
    }
}

async fn keep_log_short(
    connection: &mut SqliteConnection,
    spool: &Spool,
) -> Result<(), sqlx::Error> {
    let (pages, copied) = store::log_pages(connection).await?;
    if pages - copied >= LOG_SOON {
        store::checkpoint(connection).await?;
    }
    // While others write, something is always left over, and the log goes on growing; the writer's own
    // copying takes what is left when nobody writes, and the log begins anew.
    if pages >= LOG_NOW {
        let _ = spool.jobs.try_send(Job::Checkpoint);
    }
    Ok(())
}
