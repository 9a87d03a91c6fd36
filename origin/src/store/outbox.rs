//! What has to be asked of Twilio: written with the change that calls for it, and done later.
//!
//! Whoever does an order claims it for as long as the lease lasts; its fence keeps a process that slept
//! meanwhile from writing down what came of it.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row as _};

use crate::core::state::named;

use super::{Store, StoreError, Writing, millis, now_ms, rows};

/// How long a claim on an order holds: longer than any request to Twilio may take.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long a lead may take from being put through to being heard.
const JOINING: Duration = Duration::from_secs(5);

named! {
    /// What is to be done.
    pub(crate) enum Kind {
        /// To place a call.
        Dial = "dial",
        /// To end a lead's leg.
        HangUp = "hang_up",
        /// The same, if it is not over meanwhile.
        LetGo = "let_go",
        /// To end a caller's leg.
        EndCaller = "end_caller",
        /// To lead a caller on to the next number.
        MoveOn = "move_on",
        /// The same, if the caller has not come from the conference meanwhile.
        Part = "part",
        /// To play the recording to a lead.
        PlayMessage = "play_message",
        /// To tell a caller that it could not be played.
        SayMessageFailed = "say_message_failed",
    }
}

/// An order that is being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) kind: Kind,
    /// The lead call or the session.
    pub(crate) subject: i64,
    /// Which try this is, from 1.
    pub(crate) tries: i64,
    /// Whether Twilio may have been asked before.
    pub(crate) was_sent: bool,
    fence: i64,
}

/// Puts an order into the outbox, to be carried out after this time.
pub(super) async fn put(
    writing: &mut Writing<'_>,
    kind: Kind,
    subject: i64,
    after: Duration,
) -> Result<(), StoreError> {
    let insert =
        "INSERT INTO outbox (id, kind, subject_id, due_ms, created_ms) VALUES (?, ?, ?, ?, ?)";
    let (id, now) = (writing.id(), now_ms());
    sqlx::query(insert)
        .bind(id)
        .bind(kind.name())
        .bind(subject)
        .bind(now + millis(after))
        .bind(now)
        .execute(writing.connection())
        .await?;
    Ok(())
}

// === impl Store ===

impl Store {
    /// Claims orders that are due, so many at the most.
    pub(crate) async fn claim_orders(&self, most: i64) -> Result<Vec<Order>, StoreError> {
        let now = now_ms();
        let select = "SELECT id FROM outbox WHERE done_ms IS NULL AND due_ms <= ? ORDER BY due_ms, id LIMIT 1";
        let mut connection = self.reading().await?;
        let any = sqlx::query(select).bind(now).fetch_optional(&mut *connection).await?;
        drop(connection);
        // Most of the time nothing is due, and nobody need be kept from writing.
        if any.is_none() {
            return Ok(Vec::new());
        }
        let mut writing = self.begin().await?;
        let select = format!(
            "SELECT id, kind, subject_id, tries, fence, sent_ms FROM outbox \
             WHERE done_ms IS NULL AND due_ms <= ? ORDER BY due_ms, id LIMIT ?{}",
            writing.dialect.skip_locked()
        );
        let query = sqlx::query(AssertSqlSafe(select)).bind(now).bind(most);
        let found = query.fetch_all(writing.connection()).await?;
        let mut orders = Vec::with_capacity(found.len());
        let lease = millis(LEASE);
        for row in &found {
            let (id, fence) = (rows::number(row, "id")?, rows::number(row, "fence")?);
            let Some(kind) = Kind::named(&rows::text(row, "kind")?) else {
                // A later version's; it will see to it.
                continue;
            };
            let take = "UPDATE outbox SET due_ms = ?, fence = fence + 1, tries = tries + 1 \
                        WHERE id = ? AND fence = ? AND done_ms IS NULL";
            let taken = sqlx::query(take).bind(now + lease).bind(id).bind(fence);
            if taken.execute(writing.connection()).await?.rows_affected() == 1 {
                orders.push(Order {
                    id,
                    kind,
                    subject: rows::number(row, "subject_id")?,
                    tries: rows::number(row, "tries")? + 1,
                    was_sent: rows::maybe_number(row, "sent_ms")?.is_some(),
                    fence: fence + 1,
                });
            }
        }
        writing.commit().await?;
        Ok(orders)
    }

    /// Whether the lead of this order was put through to the caller only moments before it was given.
    pub(crate) async fn lead_came_in_last(&self, order: &Order) -> Result<bool, StoreError> {
        let query = "SELECT outbox.created_ms - lead_calls.connected_ms FROM outbox \
                     JOIN lead_calls ON lead_calls.id = outbox.subject_id WHERE outbox.id = ?";
        let mut connection = self.reading().await?;
        let query = sqlx::query_scalar::<_, Option<i64>>(query).bind(order.id);
        let talked = query.fetch_optional(&mut *connection).await?.flatten();
        Ok(talked.is_some_and(|talked| talked < millis(JOINING)))
    }

    /// How many orders wait, and for how long the oldest has been due, in milliseconds.
    pub(crate) async fn orders_waiting(&self) -> Result<(i64, i64), StoreError> {
        let mut connection = self.reading().await?;
        let query = "SELECT COUNT(*), COALESCE(MIN(due_ms), 0) FROM outbox WHERE done_ms IS NULL";
        let row = sqlx::query(query).fetch_one(&mut *connection).await?;
        let (count, oldest): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok((count, if count == 0 { 0 } else { (now_ms() - oldest).max(0) }))
    }
}

// === impl Writing ===

impl Writing<'_> {
    /// Twilio is about to be asked: from now on nobody knows whether it was, until it answers.
    pub(crate) async fn order_is_sent(&mut self, order: &Order) -> Result<(), StoreError> {
        self.change(order, "sent_ms = ?", Some(now_ms()), None).await
    }

    /// The order is carried out, or will never be.
    pub(crate) async fn order_is_done(
        &mut self,
        order: &Order,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        self.change(order, "done_ms = ?", Some(now_ms()), error).await
    }

    /// The order is to be tried again after this time; Twilio was not asked, or may be asked again.
    pub(crate) async fn order_waits(
        &mut self,
        order: &Order,
        time: Duration,
        error: &str,
    ) -> Result<(), StoreError> {
        let due = now_ms() + millis(time);
        self.change(order, "sent_ms = NULL, due_ms = ?", Some(due), Some(error)).await
    }

    async fn change(
        &mut self,
        order: &Order,
        what: &str,
        value: Option<i64>,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let update = format!(
            "UPDATE outbox SET {what}, last_error = COALESCE(?, last_error) WHERE id = ? AND fence = ? AND done_ms IS NULL"
        );
        let error = error.map(|error| error.chars().take(500).collect::<String>());
        let changed = sqlx::query(AssertSqlSafe(update))
            .bind(value)
            .bind(error)
            .bind(order.id)
            .bind(order.fence)
            .execute(self.connection())
            .await?;
        if changed.rows_affected() == 0 { Err(StoreError::Fenced) } else { Ok(()) }
    }
}
