//! Looking up what Twilio has not reported: nothing rings for ever, and nobody keeps a seat who has hung
//! up.
//!
//! A leg that should be over, and a session in which nothing has happened for a while, are looked up at
//! Twilio, and closed as if the callback had come. A call of which nobody knows whether it was placed is
//! looked for among the calls to its number.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;

use super::Worker;
use crate::core::step::{Event, LegEnd, Placed};
use crate::store::scene::About;
use crate::store::{Store, StoreError, millis, now_ms};
use crate::twilio::{Call, Trouble};

/// The longest that a leg may ring, Twilio's own allowance of 5 s included.
const RINGS: Duration = Duration::from_secs(35);
/// How many are looked up in one go, beside each other: not so many that orders find no turn.
const AT_ONCE: i64 = 10;
/// How often it is shown how many orders wait.
const SHOWN: Duration = Duration::from_secs(2);
/// What seems well is looked up after so many times the patience.
const NOW_AND_THEN: u32 = 6;
/// For so long somebody may still be about to ask Twilio for a call, having said so.
const ASKING: Duration = Duration::from_secs(16);
/// A call that Twilio made for us is at most so much older than the moment we asked: its clock counts
/// seconds, and need not be ours.
const CLOCKS: i64 = 5_000;

/// A leg that is to be looked up.
#[derive(Debug, sqlx::FromRow)]
struct Leg {
    id: i64,
    call_sid: Option<String>,
    phone: String,
    stage: String,
    dialed_ms: Option<i64>,
}

/// A session that is to be looked up.
#[derive(Debug, sqlx::FromRow)]
struct Silent {
    id: i64,
    call_sid: String,
}

// === impl Worker ===

impl Worker {
    pub(super) async fn reconcile(self: Arc<Self>) {
        let pace = (self.patience / 4).clamp(Duration::from_millis(250), Duration::from_secs(5));
        loop {
            tokio::time::sleep(pace.mul_f64(0.75 + fastrand::f64() * 0.5)).await;
            self.look_up_all().await;
        }
    }

    /// Shows how many orders wait, whatever keeps the others.
    pub(super) async fn show_what_waits(&self) {
        loop {
            if let Ok((count, age_ms)) = self.store.orders_waiting().await {
                self.metrics.orders_waiting(count, age_ms);
            }
            tokio::time::sleep(SHOWN).await;
        }
    }

    /// Looks up whatever is due, a few at a time; after an outage those are many. While Twilio does not
    /// answer it is not asked for more.
    async fn look_up_all(self: &Arc<Self>) {
        loop {
            let (legs, sessions) = (self.reconcile_legs().await, self.reconcile_sessions().await);
            let mut more = false;
            for done in [legs, sessions] {
                match done {
                    Ok(answered) => more |= answered >= AT_ONCE,
                    Err(error) => {
                        tracing::warn!(%error, "not everything was looked up");
                        return;
                    }
                }
            }
            if !more {
                return;
            }
        }
    }

    /// How many Twilio has answered for.
    async fn reconcile_legs(self: &Arc<Self>) -> Result<i64, StoreError> {
        let mut looking = JoinSet::new();
        for leg in self.store.legs_to_look_up(self.patience, self.speed).await? {
            let worker = self.clone();
            looking.spawn(async move { worker.reconcile_leg(&leg).await });
        }
        all_of(looking.join_all().await)
    }

    /// Whether Twilio has answered.
    async fn reconcile_leg(&self, leg: &Leg) -> Result<bool, StoreError> {
        let found = match (&leg.call_sid, leg.dialed_ms) {
            (Some(sid), _) => self.twilio.fetch(sid).await.map(Some),
            (None, Some(dialed)) => match self.look_for(leg, dialed).await {
                Ok(found) => Ok(found),
                Err(Unseen::Twilio(trouble)) => Err(trouble),
                Err(Unseen::Store(error)) => return Err(error),
            },
            // It was not dialed: its order is in the outbox still.
            (None, None) => return Ok(true),
        };
        self.metrics.twilio(found.as_ref().err());
        let asked = |at: i64| now_ms() - at < millis(ASKING);
        let event = match found {
            Ok(Some(call)) if call.is_over() => Event::LegEnded(end_of(&call)),
            // It goes on; now at least it is known.
            Ok(Some(call)) if leg.call_sid.is_none() => Event::Placed(Placed::Taken(call.sid)),
            Ok(Some(_)) => return Ok(true),
            Ok(None) if leg.dialed_ms.is_some_and(asked) => return Ok(true),
            // It was not placed after all, or Twilio does not know it any more.
            Ok(None) | Err(Trouble::Refused { status: 404, .. }) => Event::LegEnded(never_was(leg)),
            Err(trouble) => {
                tracing::warn!(%trouble, call = leg.id, "a leg could not be looked up");
                return Ok(false);
            }
        };
        let what = if matches!(event, Event::Placed(_)) { "leg found" } else { "leg closed" };
        tracing::info!(call = leg.id, stage = leg.stage, "{what}, which Twilio has not reported");
        self.metrics.reconciled(what);
        self.step(&About::LeadCall { id: Some(leg.id), call_sid: None }, &event).await?;
        Ok(true)
    }

    /// The call that was placed for a leg whose answer never came: one to that number, made when Twilio
    /// was asked, and not of another leg of ours.
    async fn look_for(&self, leg: &Leg, dialed: i64) -> Result<Option<Call>, Unseen> {
        for call in self.twilio.calls_to(&leg.phone).await.map_err(Unseen::Twilio)? {
            let asked = dialed - CLOCKS..=dialed + millis(ASKING) + CLOCKS;
            let fits = call.created_ms().is_some_and(|created| asked.contains(&created));
            if fits && !self.store.knows_leg(&call.sid).await.map_err(Unseen::Store)? {
                return Ok(Some(call));
            }
        }
        Ok(None)
    }

    async fn reconcile_sessions(self: &Arc<Self>) -> Result<i64, StoreError> {
        let mut looking = JoinSet::new();
        for session in self.store.sessions_to_look_up(self.patience).await? {
            let worker = self.clone();
            looking.spawn(async move { worker.reconcile_session(&session).await });
        }
        all_of(looking.join_all().await)
    }

    /// Whether Twilio has answered.
    async fn reconcile_session(&self, session: &Silent) -> Result<bool, StoreError> {
        let found = self.twilio.fetch(&session.call_sid).await;
        self.metrics.twilio(found.as_ref().err());
        let (over, duration_s) = match found {
            Ok(call) => (call.is_over(), call.duration_s()),
            Err(Trouble::Refused { status: 404, .. }) => (true, None),
            Err(trouble) => {
                tracing::warn!(%trouble, session = session.id, "a session could not be looked up");
                return Ok(false);
            }
        };
        if over {
            tracing::info!(
                session = session.id,
                "session closed, whose end Twilio has not reported"
            );
            self.metrics.reconciled("session closed");
        }
        let event = if over { Event::SessionEnded { duration_s } } else { Event::Silent };
        self.step(&About::Session { id: Some(session.id), call_sid: None }, &event).await?;
        Ok(true)
    }
}

/// Why it is not known whether there is a call.
enum Unseen {
    Twilio(Trouble),
    Store(StoreError),
}

/// Each was tried: how many Twilio has answered for, or why the first failed that did.
fn all_of(all: Vec<Result<bool, StoreError>>) -> Result<i64, StoreError> {
    let answered: Vec<bool> = all.into_iter().collect::<Result<_, StoreError>>()?;
    Ok(answered.into_iter().map(i64::from).sum())
}

fn end_of(call: &Call) -> LegEnd {
    LegEnd {
        call_sid: Some(call.sid.clone()),
        status: call.status.clone(),
        answered_by: call.answered_by.clone(),
        duration_s: call.duration_s(),
        to: call.to.clone().unwrap_or_default(),
    }
}

fn never_was(leg: &Leg) -> LegEnd {
    LegEnd {
        call_sid: None,
        status: "canceled".into(),
        answered_by: None,
        duration_s: None,
        to: leg.phone.clone(),
    }
}

// === impl Store ===

impl Store {
    /// Legs that are to be looked up now: those that ring longer than they can, and those of which nobody
    /// knows whether they were placed; then those that talk, now and then.
    async fn legs_to_look_up(
        &self,
        patience: Duration,
        speed: f64,
    ) -> Result<Vec<Leg>, StoreError> {
        let now = now_ms();
        let ago = |time: Duration| now - millis(time);
        let select = "SELECT id, call_sid, phone, stage, dialed_ms FROM lead_calls \
            WHERE (stage IN ('placing', 'ringing') AND checked_ms <= ? AND (dialed_ms <= ? \
            OR (stage = 'placing' AND call_sid IS NULL AND dialed_ms <= ?))) \
            OR (stage = 'connected' AND checked_ms <= ? AND connected_ms <= ?) \
            ORDER BY CASE WHEN stage = 'connected' THEN 1 ELSE 0 END, checked_ms LIMIT ?";
        let mut connection = self.reading().await?;
        let legs: Vec<Leg> = sqlx::query_as(select)
            .bind(ago(patience))
            .bind(ago(patience + RINGS.div_f64(speed)))
            .bind(ago(patience))
            .bind(ago(patience * NOW_AND_THEN))
            .bind(ago(patience * NOW_AND_THEN))
            .bind(AT_ONCE)
            .fetch_all(&mut *connection)
            .await?;
        drop(connection);
        self.are_looked_up("lead_calls", legs.iter().map(|leg| leg.id)).await?;
        Ok(legs)
    }

    /// Sessions in which nothing has happened for a while: soon where something should, now and then
    /// where somebody talks or writes.
    async fn sessions_to_look_up(&self, patience: Duration) -> Result<Vec<Silent>, StoreError> {
        let ago = |time: Duration| now_ms() - millis(time);
        let select = "SELECT id, call_sid FROM caller_sessions WHERE on_call = 1 AND (checked_ms <= ? \
            OR (stage IN ('idle', 'offered', 'dialing', 'parting') AND checked_ms <= ?)) \
            ORDER BY CASE WHEN stage IN ('idle', 'offered', 'dialing', 'parting') THEN 0 ELSE 1 END, \
            checked_ms LIMIT ?";
        let mut connection = self.reading().await?;
        let silent: Vec<Silent> = sqlx::query_as(select)
            .bind(ago(patience * NOW_AND_THEN))
            .bind(ago(patience * 2))
            .bind(AT_ONCE)
            .fetch_all(&mut *connection)
            .await?;
        drop(connection);
        self.are_looked_up("caller_sessions", silent.iter().map(|session| session.id)).await?;
        Ok(silent)
    }

    /// Not to be looked up again at once, here or by another process.
    async fn are_looked_up(
        &self,
        table: &str,
        ids: impl ExactSizeIterator<Item = i64>,
    ) -> Result<(), StoreError> {
        if ids.len() == 0 {
            return Ok(());
        }
        let update = format!("UPDATE {table} SET checked_ms = ? WHERE id = ?");
        let (now, mut writing) = (now_ms(), self.begin().await?);
        for id in ids {
            let query = sqlx::query(AssertSqlSafe(update.clone())).bind(now).bind(id);
            query.execute(writing.connection()).await?;
        }
        writing.commit().await
    }

    async fn knows_leg(&self, sid: &str) -> Result<bool, StoreError> {
        let mut connection = self.reading().await?;
        let query = "SELECT id FROM lead_calls WHERE call_sid = ?";
        let known: Option<i64> =
            sqlx::query_scalar(query).bind(sid.to_owned()).fetch_optional(&mut *connection).await?;
        Ok(known.is_some())
    }
}
