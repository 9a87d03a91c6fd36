//! The spool: callbacks that only bring news, kept on disk until the application has taken them.
//!
//! What is acknowledged is on disk: a callback is committed with a full sync before Twilio gets its 204.
//! Callbacks of one call are delivered in the order in which they came, those of different calls side by
//! side. Each is delivered at least once, always under the same delivery id, by which the application
//! makes it exactly once. What the application will never take is a dead letter: kept, with the reason,
//! until a person decides. When the disk is full or fails, the spool says so at once, and whoever asked
//! tries to deliver the callback itself; nothing is acknowledged that was neither kept nor delivered.
//!
//! [`Spool`] is the handle that everybody has. One [`Writer`] owns the database's pen and commits what
//! has gathered; the [`replay`] reads and delivers. `Order` keeps calls in order.

mod carried;
mod delivery;
mod filter;
mod job;
mod order;
pub mod replay;
mod schema;
mod show;
mod store;
pub mod tools;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Guard};
use holdline_policy::redelivery::Patience;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::telemetry::Metrics;
pub use carried::Carried;
pub use delivery::{Delivery, Kind, State, unix_ms};
pub use filter::Filter;
use job::Job;
use order::Order;
pub use order::Turn;
pub use schema::{Location, OpenFault};
pub use show::{Numbers, listed, shown};
pub use store::Contents;
pub use writer::Writer;

/// Jobs that may wait for the writer: several seconds of a very busy edge.
const QUEUE: usize = 8192;

/// For how long after another process has written nothing goes straight through, in milliseconds.
const SHARED: i64 = 1000;
/// How often it is looked whether the spool is open.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What was configured.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Where it is.
    pub folder: PathBuf,
    /// Whether callbacks are kept before anything else.
    pub always: bool,
    /// How long the origin may take to confirm before a callback is kept.
    pub confirm_within: Duration,
    /// How long one try at delivering may take.
    pub try_for: Duration,
    /// Deliveries under way at once, at most.
    pub parallel: u32,
    /// How long and how often each is tried.
    pub patience: Patience,
    /// Deliveries kept at most, dead letters among them.
    pub most_entries: u64,
    /// Bytes kept at most.
    pub most_bytes: u64,
    /// For how long a delivery is remembered after it was taken.
    pub keep_delivered: Duration,
}

/// The handle.
#[derive(Debug)]
pub struct Spool {
    /// Where it is.
    folder: PathBuf,
    config: ArcSwap<SpoolConfig>,
    jobs: mpsc::Sender<Job>,
    order: Arc<Order>,
    condition: AtomicU8,
    /// Whether the last commit went well.
    sound: AtomicBool,
    counts: Counts,
    last_place: AtomicI64,
    /// Something new waits.
    arrived: Notify,
    /// How often the file was opened: whoever reads it opens it anew when this has changed.
    opened: AtomicU64,
    /// When another process was last seen to write, in milliseconds since 1970.
    shared_ms: AtomicI64,
    /// When an upstream last took a report, in milliseconds since 1970.
    taken_ms: AtomicI64,
    /// Whether callbacks are no longer replayed, because the process ends.
    stopping: AtomicBool,
    /// Whether the right to replay is left to another process.
    yielding: AtomicBool,
    /// Tries under way.
    tries: AtomicU64,
    metrics: Arc<Metrics>,
}

/// What the spool can do at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// It is being opened and checked.
    Opening,
    /// It keeps and replays.
    Ready,
    /// It keeps; another process replays.
    Appending,
    /// It cannot be opened.
    Failed,
}

/// Why a callback was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// As much as allowed is kept.
    #[error("the spool is full")]
    NoRoom,
    /// The disk failed, or is full.
    #[error("the spool cannot be written")]
    Failed,
    /// It was not on disk in time.
    #[error("the disk was too slow")]
    TooSlow,
}

/// How much there is, counted along.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    delivered: AtomicU64,
    dead: AtomicU64,
    bytes: AtomicU64,
    /// The place of the oldest that waits; 0 if none does.
    oldest: AtomicI64,
}

// === impl Spool ===

impl Spool {
    /// A spool, and the writer that has yet to be run.
    pub fn new(config: SpoolConfig, metrics: Arc<Metrics>) -> (Arc<Spool>, Writer) {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let location = Location::new(config.folder.clone());
        let spool = Arc::new(Spool {
            folder: config.folder.clone(),
            config: ArcSwap::from_pointee(config),
            jobs,
            order: Arc::default(),
            condition: AtomicU8::new(Condition::Opening as u8),
            sound: AtomicBool::new(true),
            counts: Counts::default(),
            last_place: AtomicI64::new(0),
            arrived: Notify::new(),
            opened: AtomicU64::new(0),
            shared_ms: AtomicI64::new(0),
            taken_ms: AtomicI64::new(0),
            stopping: AtomicBool::new(false),
            yielding: AtomicBool::new(false),
            tries: AtomicU64::new(0),
            metrics,
        });
        let writer = Writer::new(spool.clone(), location, waiting);
        (spool, writer)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was configured.
    pub fn config(&self) -> Guard<Arc<SpoolConfig>> {
        self.config.load()
    }

    /// Takes over what is configured anew, but for the folder: that is where it is.
    pub fn configure(&self, config: SpoolConfig) {
        self.config.store(Arc::new(config));
    }

    /// Lines up a report among those of its call.
    pub fn line_up(&self, call: &str) -> Turn {
        self.order.line_up(call)
    }

    /// Whether a report may go straight through to an upstream. While the spool is being opened nobody
    /// knows what waits in it, and while another process replays it nobody knows what that has done.
    pub fn allows_straight(&self) -> bool {
        let shared = unix_ms() - self.shared_ms.load(Ordering::Relaxed) < SHARED;
        !self.config().always
            && !shared
            && matches!(self.condition(), Condition::Ready | Condition::Failed)
    }

    /// An upstream has taken a report.
    pub fn note_taken(&self) {
        self.taken_ms.fetch_max(unix_ms(), Ordering::Relaxed);
    }

    /// Whether an upstream has taken a report since a time, in milliseconds since 1970.
    fn others_were_taken_since(&self, ms: i64) -> bool {
        self.taken_ms.load(Ordering::Relaxed) >= ms
    }

    /// Keeps a delivery. It is on disk when this gives back `Ok`. After an error it may be on disk all the
    /// same; then it is delivered.
    pub async fn keep(&self, delivery: Delivery, patience: Duration) -> Result<(), NotKept> {
        let result = self.try_to_keep(delivery, patience).await;
        if let Err(why) = result {
            self.metrics.spool.refused.with_label_values(&[why.name()]).inc();
        }
        result
    }

    async fn try_to_keep(&self, delivery: Delivery, patience: Duration) -> Result<(), NotKept> {
        if !self.has_room_for(delivery.size()) {
            return Err(NotKept::NoRoom);
        }
        let (done, kept) = oneshot::channel();
        if self.jobs.try_send(Job::Keep(Box::new(delivery), done)).is_err() {
            return Err(NotKept::TooSlow);
        }
        match fast_timeout(patience, kept).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) => Err(NotKept::Failed),
            Err(_) => Err(NotKept::TooSlow),
        }
    }

    /// Keeps something of our own, in its own time; nobody waits for it.
    pub fn leave(&self, delivery: Delivery) {
        let (done, _) = oneshot::channel();
        let room = self.has_room_for(delivery.size());
        let row = delivery.row.clone();
        if !room || self.jobs.try_send(Job::Keep(Box::new(delivery), done)).is_err() {
            let why = if room { NotKept::TooSlow } else { NotKept::NoRoom };
            self.metrics.spool.refused.with_label_values(&[why.name()]).inc();
            tracing::error!(row, %why, "a notice was not kept");
        }
    }

    /// Takes back what was left, if it was not delivered yet.
    pub fn withdraw(&self, id: String) {
        let state = Some(State::Waiting.name().to_owned());
        let filter = Filter { id: Some(id), state, ..Filter::default() };
        let (done, _) = oneshot::channel();
        // What is not withdrawn is delivered, and does no harm: it names the visit's delivery id.
        let _ = self.jobs.try_send(Job::Remove(filter, 0, done));
    }

    /// A place behind all others.
    pub fn next_place(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let behind = |last: i64| Some(now.max(last + 1));
        let order = Ordering::Relaxed;
        let last = self.last_place.fetch_update(order, order, behind).unwrap_or_default();
        now.max(last + 1)
    }

    /// What it can do.
    pub fn condition(&self) -> Condition {
        match self.condition.load(Ordering::Acquire) {
            0 => Condition::Opening,
            1 => Condition::Ready,
            2 => Condition::Appending,
            _ => Condition::Failed,
        }
    }

    /// Waits until it was opened, or could not be.
    pub async fn opened(&self) {
        while self.condition() == Condition::Opening {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether it keeps what it is given, as far as is known.
    pub fn keeps(&self) -> bool {
        self.sound.load(Ordering::Relaxed)
            && self.condition() != Condition::Failed
            && self.has_room_for(0)
    }

    /// How much there is, as counted by this process.
    pub fn contents(&self) -> Contents {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let oldest = self.counts.oldest.load(Ordering::Relaxed);
        Contents {
            waiting: read(&self.counts.waiting),
            delivered: read(&self.counts.delivered),
            dead: read(&self.counts.dead),
            bytes: read(&self.counts.bytes),
            oldest: (oldest > 0).then_some(oldest),
        }
    }

    /// Whether a try at delivering is under way.
    pub fn is_trying(&self) -> bool {
        self.tries.load(Ordering::Acquire) > 0
    }

    /// It does not work any more.
    pub fn fail(&self) {
        self.set_condition(Condition::Failed);
    }

    /// Stops to replay; what is under way goes on.
    pub fn stop_replaying(&self) {
        self.stopping.store(true, Ordering::Release);
        self.arrived.notify_one();
    }

    /// Leaves the right to replay to another process. For when nothing is being tried any more.
    pub fn yield_replay(&self) {
        self.yielding.store(true, Ordering::Release);
    }

    /// Takes the right to replay back, as soon as the other process is gone.
    pub fn take_replay_back(&self) {
        self.yielding.store(false, Ordering::Release);
        self.stopping.store(false, Ordering::Release);
    }

    /// Waits until everything handed over is on disk, and closes it. Nothing is kept after this.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    fn has_room_for(&self, size: usize) -> bool {
        let Contents { waiting, dead, bytes, .. } = self.contents();
        let config = self.config();
        waiting + dead < config.most_entries && bytes + size as u64 <= config.most_bytes
    }

    fn set_condition(&self, condition: Condition) {
        self.condition.store(condition as u8, Ordering::Release);
    }
}

// === impl Condition ===

impl Condition {
    /// Its name on the status page.
    pub const fn name(self) -> &'static str {
        match self {
            Condition::Opening => "opening",
            Condition::Ready => "ready",
            Condition::Appending => "appending",
            Condition::Failed => "failed",
        }
    }
}

// === impl NotKept ===

impl NotKept {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            NotKept::NoRoom => "no_room",
            NotKept::Failed => "failed",
            NotKept::TooSlow => "too_slow",
        }
    }

    /// Every name [`NotKept::name`] can give.
    pub const NAMES: [&'static str; 3] = ["no_room", "failed", "too_slow"];
}

// === impl Counts ===

impl Counts {
    fn of(&self, state: State) -> &AtomicU64 {
        match state {
            State::Waiting => &self.waiting,
            State::Delivered => &self.delivered,
            State::Dead(_) => &self.dead,
        }
    }

    fn add(&self, state: State, bytes: u64) {
        self.of(state).fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, state: State, count: u64, bytes: u64) {
        let less = |from: &AtomicU64, by: u64| {
            let order = Ordering::Relaxed;
            let _ = from.fetch_update(order, order, |had| Some(had.saturating_sub(by)));
        };
        less(self.of(state), count);
        less(&self.bytes, bytes);
    }

    fn set(&self, contents: Contents) {
        self.waiting.store(contents.waiting, Ordering::Relaxed);
        self.delivered.store(contents.delivered, Ordering::Relaxed);
        self.dead.store(contents.dead, Ordering::Relaxed);
        self.bytes.store(contents.bytes, Ordering::Relaxed);
        self.oldest.store(contents.oldest.unwrap_or(0), Ordering::Relaxed);
    }
}
