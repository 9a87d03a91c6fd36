//! What the origin does by itself: it carries out the orders of the outbox, looks up what Twilio has not
//! reported, makes numbers available again, and charges calls to their accounts.
//!
//! Every process of the service does this work, origin and monitor alike; who claims an order does it.

mod orders;
mod reconcile;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::core::links::Links;
use crate::core::step::Event;
use crate::metrics::Metrics;
use crate::store::scene::About;
use crate::store::{Store, StoreError};
use crate::twilio::{Detection, Twilio};

/// How often the outbox is looked at when nobody says that there is something: what another process
/// left, and what waits for its next try.
const LOOK: Duration = Duration::from_millis(200);
/// How often numbers are made available again.
const RECYCLE: Duration = Duration::from_secs(60);
/// How often what has ended is charged. An account without minutes is not called for much longer.
const CHARGE: Duration = Duration::from_secs(10);
/// How often work on the store is done that came into somebody's way. Each time waits by itself.
const TRIES: u32 = 12;
/// How often what is old is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// Who does the work.
#[derive(Debug)]
pub struct Worker {
    /// The store.
    pub store: Arc<Store>,
    /// Twilio.
    pub twilio: Twilio,
    /// Where Twilio is led.
    pub links: Links,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Told when there is something in the outbox.
    pub orders: Arc<Notify>,
    /// How Twilio is asked to tell machines from people.
    pub detection: Detection,
    /// How long after it should be over a leg is looked up, and how long a session may be silent.
    pub patience: Duration,
    /// How much faster than in reality telephones ring; 1 but for rehearsals.
    pub speed: f64,
}

/// Does something on the store again that came into somebody's way, a few times.
macro_rules! retried {
    ($work:expr) => {{
        let mut tries = 1;
        loop {
            match $work {
                Err(error) if error.passes() && tries < crate::work::TRIES => tries += 1,
                done => break done,
            }
        }
    }};
}
use retried;

// === impl Worker ===

impl Worker {
    /// Works for ever.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            self.clone().carry_out_orders(),
            self.clone().reconcile(),
            self.show_what_waits(),
            self.charge_what_has_ended(),
            self.recycle(),
            self.forget()
        );
    }

    async fn charge_what_has_ended(&self) {
        loop {
            match self.store.charge().await {
                Ok(minutes) => self.metrics.charged(minutes),
                // Whatever was in the way, or whoever: it is tried again soon.
                Err(error) => tracing::warn!(%error, "calls were not charged"),
            }
            tokio::time::sleep(CHARGE).await;
        }
    }

    async fn recycle(&self) {
        loop {
            match self.store.recycle().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "numbers are available again"),
                Err(error) => tracing::warn!(%error, "numbers were not recycled"),
            }
            tokio::time::sleep(RECYCLE).await;
        }
    }

    async fn forget(&self) {
        loop {
            tokio::time::sleep(FORGET).await;
            if let Err(error) = self.store.forget_what_is_old().await {
                tracing::warn!(%error, "what is old was not forgotten");
            }
        }
    }

    /// Takes a step on the store, in a transaction of its own.
    async fn step(&self, about: &About, event: &Event) -> Result<(), StoreError> {
        if retried!(self.try_step(about, event).await)? {
            self.orders.notify_one();
        }
        Ok(())
    }

    async fn try_step(&self, about: &About, event: &Event) -> Result<bool, StoreError> {
        let mut writing = self.store.begin().await?;
        let taken = writing.step(about, event, &self.links, Timestamp::now()).await?;
        writing.commit().await?;
        Ok(taken.to_do)
    }
}
