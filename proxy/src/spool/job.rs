//! What somebody wants written, how it is written, and what that changes for everybody else.

use std::sync::atomic::Ordering;

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::oneshot;

use super::store;
use super::{Delivery, Filter, Kind, NotKept, Spool, State};

/// What somebody wants written.
#[derive(Debug)]
pub(super) enum Job {
    /// Keep a delivery.
    Keep(Box<Delivery>, oneshot::Sender<Result<(), NotKept>>),
    /// A try is over, and so is the delivery.
    Settle { delivery: Box<Delivery>, state: State, outcome: &'static str, done: Done<()> },
    /// A try is over, and another will follow.
    Postpone {
        delivery: Box<Delivery>,
        due_ms: i64,
        setback: bool,
        outcome: &'static str,
        done: Done<()>,
    },
    /// Let what is behind a delivery wait as long as it does.
    Wait { order: String, due_ms: i64, done: Done<()> },
    /// Send again what a filter chooses.
    Replay(Filter, Done<u64>),
    /// Remove what a filter chooses.
    Remove(Filter, Done<u64>),
    /// Take in what another spool kept; how many were new.
    Import(Vec<Delivery>, Done<u64>),
    /// Copy the log into the database.
    Checkpoint,
    /// Finish.
    Close(oneshot::Sender<()>),
}

/// Where the end of a job is told; an error is told by dropping it.
pub(super) type Done<T> = oneshot::Sender<T>;

/// What a job has changed, once it is on disk.
pub(super) enum Change {
    None,
    Kept(bool),
    Settled(bool),
    Replayed(Vec<(State, String)>, u64),
    Removed(Vec<(State, String, u64)>),
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
        Job::Settle { delivery, state, outcome, .. } => {
            Change::Settled(store::settle(connection, delivery.place, *state, outcome).await?)
        }
        Job::Postpone { delivery, due_ms, setback, outcome, .. } => {
            store::postpone(connection, delivery, *due_ms, *setback, outcome).await?;
            Change::None
        }
        Job::Wait { order, due_ms, .. } => {
            store::wait_for_the_first(connection, order, *due_ms).await?;
            Change::None
        }
        Job::Replay(filter, _) => {
            let (revived, count) = store::replay(connection, filter).await?;
            Change::Replayed(revived, count)
        }
        Job::Remove(filter, _) => Change::Removed(store::remove(connection, filter).await?),
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
            (Job::Settle { delivery, state, done, .. }, Change::Settled(changed)) => {
                if changed {
                    self.order.remove(&delivery.order);
                    self.counts.remove(State::Waiting, 1, 0);
                    self.counts.add(state, 0);
                }
                let _ = done.send(());
            }
            (Job::Postpone { done, .. } | Job::Wait { done, .. }, _) => drop(done.send(())),
            (Job::Replay(_, done), Change::Replayed(revived, count)) => {
                for (state, order) in &revived {
                    self.counts.remove(*state, 1, 0);
                    self.counts.add(State::Waiting, 0);
                    self.order.add(order);
                }
                self.arrived.notify_one();
                let _ = done.send(count);
            }
            (Job::Remove(_, done), Change::Removed(removed)) => {
                for (state, order, bytes) in &removed {
                    self.counts.remove(*state, 1, *bytes);
                    if *state == State::Waiting {
                        self.order.remove(order);
                    }
                }
                let _ = done.send(removed.len() as u64);
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
