//! What an upstream can do at most: so many requests at once, and a line of those who wait for their turn.
//!
//! Work is done for whoever joined the line, even if he has left meanwhile: an application does not see
//! that before it writes its answer.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// What a probe takes while all workers are busy. Nobody measured here waits so long for one.
pub(crate) const PROBE_WHEN_BUSY: Duration = Duration::from_secs(6);

/// So much, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Requests at once.
    pub(crate) workers: u32,
    /// What each takes.
    pub(crate) takes: Duration,
    /// How many may wait for their turn, in the order in which they came.
    pub(crate) line: u32,
}

/// The line, and those at work.
#[derive(Debug)]
pub(crate) struct Line {
    capacity: Capacity,
    /// Places, at work or waiting.
    places: Semaphore,
    /// Fair: whoever waits longest is next.
    workers: Semaphore,
}

/// A place in the line, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place<'l> {
    line: &'l Line,
    _place: SemaphorePermit<'l>,
}

/// Nobody can join.
#[derive(Debug)]
pub(crate) struct Full;

// === impl Capacity ===

impl Capacity {
    /// Requests a second.
    pub(crate) fn a_second(self) -> f64 {
        f64::from(self.workers) / self.takes.as_secs_f64()
    }

    /// As arguments of an upstream.
    pub(crate) fn to_arguments(self) -> [String; 4] {
        let Capacity { workers, takes, line } = self;
        ["--capacity".into(), workers.to_string(), takes.as_millis().to_string(), line.to_string()]
    }

    /// From the values of that argument; none if there are none.
    pub(crate) fn from_arguments(values: &[u32]) -> Option<Capacity> {
        let &[workers, millis, line] = values else { return None };
        Some(Capacity { workers, takes: Duration::from_millis(millis.into()), line })
    }
}

// === impl Line ===

impl Line {
    /// Nobody is there yet.
    pub(crate) fn new(capacity: Capacity) -> Line {
        Line {
            capacity,
            places: Semaphore::new((capacity.workers + capacity.line) as usize),
            workers: Semaphore::new(capacity.workers as usize),
        }
    }

    /// Joins it.
    pub(crate) fn join(&self) -> Result<Place<'_>, Full> {
        let place = self.places.try_acquire().map_err(|_| Full)?;
        Ok(Place { line: self, _place: place })
    }
}

// === impl Place ===

impl Place<'_> {
    /// Waits for its turn and has the work done.
    pub(crate) async fn work(self) {
        let _worker = self.line.workers.acquire().await;
        tokio::time::sleep(self.line.capacity.takes).await;
    }

    /// Answers a probe, which needs no worker for long; while all are busy it waits for what they wait for,
    /// a database say, and longer than anybody waits for a probe.
    pub(crate) async fn probe(self) {
        let busy = self.line.workers.available_permits() == 0;
        drop(self.line.workers.acquire().await);
        if busy {
            tokio::time::sleep(PROBE_WHEN_BUSY).await;
        }
    }
}
