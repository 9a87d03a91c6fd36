//! What somebody wants written, how it is written, and what that changes for everybody else.

use std::sync::atomic::Ordering;

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::oneshot;

use super::store::{self, Chosen};
use super::{Delivery, Filter, Kind, NotKept, Spool, State};

/// What somebody wants written.
#[derive(Debug)]
pub(super) enum Job {
    /// Keep a delivery.
    Keep(Box<Delivery>, oneshot::Sender<Result<(), NotKept>>),
    /// A try is over, and so is the delivery.
    Settle { which: Which, state: State, outcome: &'static str, done: Done<()> },
    /// A try is over, and another will follow. `setbacks` are all there were.
    Postpone { which: Which, due_ms: i64, setbacks: u32, outcome: &'static str, done: Done<()> },
    /// Let what is behind a delivery wait as long as it does.
    Wait { order: String, due_ms: i64, done: Done<()> },
    /// Send again the next of what a filter chooses, behind a place.
    Replay(Filter, i64, Done<Part>),
    /// Remove the next of what a filter chooses, behind a place.
    Remove(Filter, i64, Done<Part>),
    /// Take in what another spool kept; how many were new.
    Import(Vec<Delivery>, Done<u64>),
    /// Copy the log into the database.
    Checkpoint,
    /// Finish.
    Close(oneshot::Sender<()>),
}

/// A delivery that was tried, and in whose line it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Which {
    pub(super) place: i64,
    pub(super) order: String,
}

/// What a job has done of something larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// How many it was.
    pub(super) count: u64,
    /// Behind which place there may be more.
    pub(super) more: Option<i64>,
}

/// Deliveries that a tool changes at once: nothing else is written meanwhile.
const AT_ONCE: u32 = 500;

/// Where the end of a job is told; an error is told by dropping it.
pub(super) type Done<T> = oneshot::Sender<T>;

/// What a job has changed, once it is on disk.
pub(super) enum Change {
    None,
    Kept(bool),
    Settled(bool),
    Replayed(Vec<Chosen>),
    Removed(Vec<Chosen>),
    Imported(Vec<Delivery>),
}

/// All jobs in one transaction.
pub(super) async fn apply_all(
    connection: &mut SqliteConnection,
    jobs: &[Job],
) -> Result<Vec<Change>, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut changes = Vec::with_capacity(jobs.len());
    for job in jobs {
        changes.push(apply(&mut transaction, job).await?);
    }
    transaction.commit().await?;
    Ok(changes)
}

async fn apply(connection: &mut SqliteConnection, job: &Job) -> Result<Change, sqlx::Error> {
    Ok(match job {
        Job::Keep(delivery, _) => Change::Kept(store::insert(connection, delivery).await?),
        Job::Settle { which, state, outcome, .. } => {
            Change::Settled(store::settle(connection, which.place, *state, outcome).await?)
        }
        Job::Postpone { which, due_ms, setbacks, outcome, .. } => {
            store::postpone(connection, which, *due_ms, *setbacks, outcome).await?;
            Change::None
        }
        Job::Wait { order, due_ms, .. } => {
            store::wait_for_the_first(connection, order, *due_ms).await?;
            Change::None
        }
        Job::Replay(filter, after, _) => {
            Change::Replayed(store::replay(connection, filter, *after, AT_ONCE).await?)
        }
        Job::Remove(filter, after, _) => {
            Change::Removed(store::remove(connection, filter, *after, AT_ONCE).await?)
        }
        Job::Import(deliveries, _) => {
            let mut new = Vec::new();
            for delivery in deliveries {
                if store::insert(connection, delivery).await? {
                    new.push(delivery.clone());
                }
            }
            Change::Imported(new)
        }
        Job::Checkpoint | Job::Close(_) => Change::None,
    })
}

// === impl Part ===

impl Part {
    fn of(chosen: &[Chosen]) -> Part {
        let more = chosen.last().filter(|_| chosen.len() == AT_ONCE as usize);
        Part { count: chosen.len() as u64, more: more.map(|last| last.place) }
    }
}

// === impl Job ===

impl Job {
    /// It was not done.
    pub(super) fn fail(self) {
        if let Job::Keep(delivery, done) = self
            && done.send(Err(NotKept::Failed)).is_err()
            && delivery.kind == Kind::Notice
        {
            tracing::error!(row = delivery.row, "a notice was not kept");
        }
        // Whoever waits for another sees that it is gone.
    }
}

// === impl Spool ===

impl Spool {
    /// Brings order and counts up to date with what is on disk now, and tells whoever waits.
    pub(super) fn tell(&self, job: Job, change: Change) {
        // Nobody may be waiting any more.
        match (job, change) {
            (Job::Keep(delivery, done), Change::Kept(new)) => {
                if new {
                    self.note_new(&delivery);
                    self.metrics.spool.accepted.inc();
                }
                let _ = done.send(Ok(()));
            }
            (Job::Settle { which, state, done, .. }, Change::Settled(changed)) => {
                if changed {
                    self.order.remove(&which.order);
                    self.counts.remove(State::Waiting, 1, 0);
                    self.counts.add(state, 0);
                }
                let _ = done.send(());
            }
            (Job::Postpone { done, .. } | Job::Wait { done, .. }, _) => drop(done.send(())),
            (Job::Replay(_, _, done), Change::Replayed(revived)) => {
                for Chosen { state, order, .. } in &revived {
                    if *state != State::Waiting {
                        self.counts.remove(*state, 1, 0);
                        self.counts.add(State::Waiting, 0);
                        self.order.add(order);
                    }
                }
                self.arrived.notify_one();
                let _ = done.send(Part::of(&revived));
            }
            (Job::Remove(_, _, done), Change::Removed(removed)) => {
                for Chosen { state, order, bytes, .. } in &removed {
                    self.counts.remove(*state, 1, *bytes);
                    if *state == State::Waiting {
                        self.order.remove(order);
                    }
                }
                self.arrived.notify_one();
                let _ = done.send(Part::of(&removed));
            }
            (Job::Import(_, done), Change::Imported(new)) => {
                new.iter().for_each(|delivery| self.note_new(delivery));
                let _ = done.send(new.len() as u64);
            }
            _ => {}
        }
    }

    fn note_new(&self, delivery: &Delivery) {
        self.counts.add(delivery.state, delivery.size() as u64);
        if delivery.state == State::Waiting {
            self.order.add(&delivery.order);
            let order = Ordering::Relaxed;
            let _ = self.counts.oldest.compare_exchange(0, delivery.place, order, order);
            self.arrived.notify_one();
        }
    }
}
