//! What the origin does by itself: it carries out the orders of the outbox, looks up what Twilio has not
//! reported, and makes numbers available again.
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
use crate::store::{Store, StoreError, TRIES};
use crate::twilio::{Detection, Twilio};

/// How often the outbox is looked at when nobody says that there is something: what another process
/// left, and what waits for its next try.
const LOOK: Duration = Duration::from_millis(200);
/// How often numbers are made available again.
const RECYCLE: Duration = Duration::from_secs(60);
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

// === impl Worker ===

impl Worker {
    /// Works for ever.
    pub async fn run(self: Arc<Self>) {
        let (orders, reconciler, keeper) = (self.clone(), self.clone(), self);
        tokio::join!(orders.carry_out_orders(), reconciler.reconcile(), keeper.keep_house());
    }

    async fn keep_house(&self) {
        let mut next_forget = tokio::time::Instant::now() + FORGET;
        loop {
            match self.store.recycle().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "numbers are available again"),
                Err(error) => tracing::warn!(%error, "numbers were not recycled"),
            }
            if tokio::time::Instant::now() >= next_forget {
                next_forget += FORGET;
                for forgotten in
                    [self.store.forget_old_deliveries().await, self.store.forget_old_orders().await]
                {
                    if let Err(error) = forgotten {
                        tracing::warn!(%error, "what is old was not forgotten");
                    }
                }
            }
            tokio::time::sleep(RECYCLE).await;
        }
    }

    /// Takes a step on the store, in a transaction of its own.
    async fn step(&self, about: &About, event: &Event) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            let taken = async {
                let mut writing = self.store.begin().await?;
                let taken = writing.step(about, event, &self.links, Timestamp::now()).await?;
                writing.commit().await?;
                Ok::<_, StoreError>(taken.to_do)
            };
            match taken.await {
                Ok(to_do) => {
                    if to_do {
                        self.orders.notify_one();
                    }
                    return Ok(());
                }
                Err(error) if error.passes() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}
