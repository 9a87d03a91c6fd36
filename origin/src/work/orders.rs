//! Carrying out the orders of the outbox.
//!
//! To place a call is the one order that must not be done twice. Before Twilio is asked, that it will be
//! is committed; after that only an answer that says "not done" lets the order be tried again. Where no
//! answer came, or the process died over it, the call is looked up later ([`super::reconcile`]). All
//! other orders do no harm a second time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{LOOK, Worker, retried};
use crate::core::state::{CallStage, Campaign, LeadCall, Outcome, Session, Stage};
use crate::core::step::{Event, Placed, gate};
use crate::store::found;
use crate::store::outbox::{Kind, Order};
use crate::store::scene::About;
use crate::store::{StoreError, Writing, now_ms, queue};
use crate::twilio::{Dial, Machines, Trouble};

/// Orders that a process carries out at once.
const AT_ONCE: usize = 64;
/// How often an order is tried that Twilio has not been asked for, or that does no harm a second time.
const MOST_TRIES: i64 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Once it is committed that Twilio will be asked, it is asked within this time or not at all: whoever
/// was frozen in between must not place a call that was given up long ago.
const STALE: Duration = Duration::from_secs(3);
/// How long a call may ring, in seconds; longer where a machine's message is to be waited for.
const RING_S: u32 = 15;
const RING_FOR_MESSAGE_S: u32 = 30;

// === impl Worker ===

impl Worker {
    pub(super) async fn carry_out_orders(self: Arc<Self>) {
        let mut under_way = JoinSet::new();
        loop {
            while under_way.try_join_next().is_some() {}
            let room = AT_ONCE - under_way.len();
            let claimed = match self.store.claim_orders(i64::try_from(room).unwrap_or(1)).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::debug!(%error, "no orders were claimed");
                    Vec::new()
                }
            };
            if claimed.is_empty() || under_way.len() + claimed.len() >= AT_ONCE {
                tokio::select! {
                    () = self.orders.notified() => {}
                    Some(_) = under_way.join_next() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
            for order in claimed {
                let worker = self.clone();
                under_way.spawn(async move { worker.carry_out(order).await });
            }
        }
    }

    async fn carry_out(&self, order: Order) {
        let done = match order.kind {
            Kind::Dial => self.dial(order).await,
            Kind::LetGo => self.let_go(order).await,
            _ => self.command(order).await,
        };
        let result = match &done {
            Ok(result) => result,
            // Somebody else does it now.
            Err(StoreError::Fenced) => "taken over",
            Err(error) => {
                // The lease runs out, and it is tried again.
                tracing::warn!(%error, order = order.kind.name(), id = order.id, "an order was left");
                "left"
            }
        };
        self.metrics.order(order.kind, result);
    }

    /// Places a call, unless nobody waits for it any more or it must not be made now.
    async fn dial(&self, order: Order) -> Result<&'static str, StoreError> {
        let begun = Instant::now();
        let about = About::LeadCall { id: Some(order.subject), call_sid: None };
        if order.was_sent {
            // Whoever asked Twilio is gone. It will be looked up.
            self.finish(order, None, Some("nobody knows whether Twilio was asked")).await?;
            return Ok("unknown");
        }
        let Some(dial) = retried!(self.prepare(order).await)? else {
            self.finish(order, Some((&about, Event::Placed(Placed::NotSent))), None).await?;
            return Ok("not sent");
        };
        if begun.elapsed() > STALE {
            return self.put_off(order, "it took too long to begin").await;
        }
        let asked = self.twilio.dial(&dial).await;
        self.metrics.twilio(asked.as_ref().err());
        match asked {
            Ok(sid) => {
                self.finish(order, Some((&about, Event::Placed(Placed::Taken(sid)))), None).await?;
                Ok("done")
            }
            Err(Trouble::NotAsked(why)) if order.tries < MOST_TRIES => {
                self.put_off(order, &why).await
            }
            Err(trouble @ Trouble::Unknown(_)) => {
                tracing::warn!(%trouble, call = order.subject, "it is unknown whether a call was placed");
                self.finish(order, None, Some(&trouble.to_string())).await?;
                Ok("unknown")
            }
            Err(trouble) => {
                tracing::warn!(%trouble, call = order.subject, "a call was not placed");
                let placed = match &trouble {
                    Trouble::NotAsked(_) => Placed::NotSent,
                    _ if trouble.is_the_number() => Placed::NumberRefused,
                    _ => Placed::Refused,
                };
                let text = trouble.to_string();
                self.finish(order, Some((&about, Event::Placed(placed))), Some(&text)).await?;
                Ok("refused")
            }
        }
    }

    /// Commits that Twilio is going to be asked, and gives what for; nothing if it is not to be.
    async fn prepare(&self, order: Order) -> Result<Option<Dial>, StoreError> {
        let mut writing = self.store.begin().await?;
        let Some((call, campaign)) = writing.call_to_place(order.subject).await? else {
            return Ok(None);
        };
        let wanted = call.stage == CallStage::Placing && !call.given_up;
        // The hours, and the funds, at this moment and not when the caller asked.
        if !wanted || gate(&campaign, Timestamp::now()).is_err() {
            return Ok(None);
        }
        if writing.put_away_if_blocked(&call).await? {
            writing.commit().await?;
            return Ok(None);
        }
        writing.order_is_sent(&order).await?;
        writing.call_is_placed(&call).await?;
        writing.commit().await?;
        Ok(Some(self.dial_of(&call, &campaign)))
    }

    fn dial_of(&self, call: &LeadCall, campaign: &Campaign) -> Dial {
        let (machines, ring_s) = match (&campaign.message, &campaign.manual_message) {
            (Some(_), _) => (Machines::LeaveMessage, RING_FOR_MESSAGE_S),
            // The caller hears the machine, and decides.
            (None, Some(_)) => (Machines::NotTold, RING_FOR_MESSAGE_S),
            (None, None) if campaign.detect_machines => (Machines::HangUp, RING_S),
            (None, None) => (Machines::NotTold, RING_S),
        };
        let url = self.links.lead(call.id, "incoming");
        Dial {
            from: campaign.caller_id.clone(),
            to: call.phone.clone(),
            fallback_url: self.links.fallback_of(&url),
            url,
            status_callback: self.links.lead_ended(call.id),
            ring_s,
            machines,
            detection: self.detection,
        }
    }

    /// An order about a leg that is there: harmless if it is done twice.
    async fn command(&self, order: Order) -> Result<&'static str, StoreError> {
        let asked = match order.kind {
            Kind::HangUp | Kind::PlayMessage => retried!(self.command_lead(order).await)?,
            _ => retried!(self.command_caller(order).await)?,
        };
        let Some(asked) = asked else {
            self.finish(order, None, None).await?;
            return Ok("not needed");
        };
        self.metrics.twilio(asked.as_ref().err());
        match asked {
            Ok(()) => {
                self.finish(order, None, None).await?;
                Ok("done")
            }
            Err(trouble)
                if order.kind == Kind::PlayMessage && !matches!(trouble, Trouble::NotAsked(_)) =>
            {
                let about = self.caller_of(order.subject).await?;
                let why = trouble.to_string();
                let event = Event::MessageFailed { call: order.subject, why };
                let told = about.as_ref().map(|about| (about, event));
                self.finish(order, told, Some(&trouble.to_string())).await?;
                Ok("refused")
            }
            // There is nobody to be led or hung up on any more; the callback says so.
            Err(trouble) if trouble.is_over() => {
                self.finish(order, None, Some(&trouble.to_string())).await?;
                Ok("over")
            }
            Err(trouble @ Trouble::Refused { .. }) => {
                tracing::error!(%trouble, order = order.kind.name(), subject = order.subject, "Twilio refuses an order");
                self.finish(order, None, Some(&trouble.to_string())).await?;
                Ok("refused")
            }
            Err(trouble) if order.tries < MOST_TRIES => {
                self.put_off(order, &trouble.to_string()).await
            }
            Err(trouble) => {
                tracing::error!(%trouble, order = order.kind.name(), subject = order.subject, "an order was given up");
                self.finish(order, None, Some(&trouble.to_string())).await?;
                Ok("given up")
            }
        }
    }

    /// Ends a leg that is up although its caller left the conference some seconds ago, and nothing plays to
    /// it. A lead who came in just before that, or after it, found nobody there and counts as abandoned; who
    /// had talked by then has only not been told to go.
    async fn let_go(&self, order: Order) -> Result<&'static str, StoreError> {
        let call = retried!(self.lead_call(order.subject).await)?;
        let up = call.filter(|call| {
            call.stage != CallStage::Over && call.outcome != Some(Outcome::Delivered)
        });
        let Some(sid) = up.and_then(|call| call.call_sid) else {
            self.finish(order, None, None).await?;
            return Ok("not needed");
        };
        let asked = self.twilio.hang_up(&sid).await;
        self.metrics.twilio(asked.as_ref().err());
        match asked {
            Ok(()) => {
                let about = About::LeadCall { id: Some(order.subject), call_sid: None };
                let alone = retried!(self.store.lead_came_in_last(&order).await)?;
                let left = alone.then_some((&about, Event::LeftAlone));
                self.finish(order, left, None).await?;
                Ok("done")
            }
            Err(trouble @ (Trouble::NotAsked(_) | Trouble::Unknown(_)))
                if order.tries < MOST_TRIES =>
            {
                self.put_off(order, &trouble.to_string()).await
            }
            Err(trouble) => {
                self.finish(order, None, Some(&trouble.to_string())).await?;
                Ok("over")
            }
        }
    }

    async fn lead_call(&self, id: i64) -> Result<Option<LeadCall>, StoreError> {
        let mut writing = self.store.begin().await?;
        writing.lead_call(Some(id)).await
    }

    /// What Twilio said to it; nothing if it need not be asked.
    async fn command_lead(&self, order: Order) -> Result<Option<Result<(), Trouble>>, StoreError> {
        let call = self.lead_call(order.subject).await?;
        // A leg that should be hung up on is, whatever we take it for: Twilio knows whether it is over.
        let wanted = |call: &LeadCall| match order.kind {
            Kind::HangUp => true,
            _ => call.stage == CallStage::Connected && call.outcome != Some(Outcome::Delivered),
        };
        let Some(call) = call.filter(wanted) else { return Ok(None) };
        // If it is not placed yet it will not be, or its answer orders this again.
        let Some(sid) = call.call_sid else { return Ok(None) };
        Ok(Some(match order.kind {
            Kind::PlayMessage => {
                self.redirect(&sid, &self.links.lead(call.id, "play_message")).await
            }
            _ => self.twilio.hang_up(&sid).await,
        }))
    }

    /// The same for a caller.
    async fn command_caller(
        &self,
        order: Order,
    ) -> Result<Option<Result<(), Trouble>>, StoreError> {
        let mut writing = self.store.begin().await?;
        let found = writing.session_and_campaign(order.subject).await?;
        drop(writing);
        let Some((session, campaign)) = found else { return Ok(None) };
        // What was ordered of a caller who is at something else by now would tear them off it.
        let wanted = match order.kind {
            Kind::EndCaller => return Ok(Some(self.twilio.hang_up(&session.call_sid).await)),
            Kind::MoveOn => session.stage == Stage::Idle,
            Kind::Part => session.stage == Stage::Parting,
            _ => matches!(session.stage, Stage::Talking | Stage::WrapUp),
        };
        if !wanted {
            return Ok(None);
        }
        let url = match order.kind {
            Kind::SayMessageFailed => self.links.step(&session, "play_message_error"),
            // The first question, and not the next number: a redirect out of a conference has its action
            // asked too, which is that question already.
            Kind::Part => self.links.first_question(&session),
            _ => self.way_on(&session, &campaign),
        };
        Ok(Some(self.redirect(&session.call_sid, &url).await))
    }

    async fn redirect(&self, sid: &str, url: &str) -> Result<(), Trouble> {
        self.twilio.redirect(sid, url, &self.links.fallback_of(url)).await
    }

    /// Where a caller goes on who waits for nothing.
    fn way_on(&self, session: &Session, campaign: &Campaign) -> String {
        match gate(campaign, Timestamp::now()) {
            Err(_) => self.links.dialing_prohibited(session),
            Ok(()) if session.phones_only => self.links.step(session, "ready_to_call"),
            Ok(()) => self.links.step(session, "continue_conf"),
        }
    }

    async fn caller_of(&self, call: i64) -> Result<Option<About>, StoreError> {
        let mut writing = self.store.begin().await?;
        let found = writing.call_to_place(call).await?;
        let session = found.and_then(|(call, _)| call.session);
        Ok(session.map(|id| About::Session { id: Some(id), call_sid: None }))
    }

    /// The order is tried again, later each time.
    async fn put_off(&self, order: Order, why: &str) -> Result<&'static str, StoreError> {
        let doublings = u32::try_from(order.tries - 1).unwrap_or(0).min(10);
        let wait = (FIRST_WAIT * 2u32.pow(doublings)).min(LONGEST_WAIT);
        let wait = wait.mul_f64(0.5 + fastrand::f64() * 0.5);
        // Otherwise nobody would know later that Twilio was not asked.
        retried!(self.try_put_off(order, wait, why).await)?;
        Ok("put off")
    }

    async fn try_put_off(&self, order: Order, wait: Duration, why: &str) -> Result<(), StoreError> {
        let mut writing = self.store.begin().await?;
        if order.kind == Kind::Dial {
            writing.call_was_not_placed(order.subject).await?;
        }
        writing.order_waits(&order, wait, why).await?;
        writing.commit().await
    }

    /// Writes down that an order is done, and what that means, in one.
    async fn finish(
        &self,
        order: Order,
        step: Option<(&About, Event)>,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        // What Twilio said must not be lost for a moment's wait.
        retried!(self.try_finish(order, step.as_ref(), error).await)
    }

    async fn try_finish(
        &self,
        order: Order,
        step: Option<&(&About, Event)>,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut writing = self.store.begin().await?;
        let mut to_do = false;
        if matches!(step, Some((_, Event::Placed(Placed::NotSent)))) {
            writing.call_was_not_placed(order.subject).await?;
        }
        if let Some((about, event)) = step {
            to_do = writing.step(about, event, &self.links, Timestamp::now()).await?.to_do;
        }
        writing.order_is_done(&order, error).await?;
        writing.commit().await?;
        if to_do {
            self.orders.notify_one();
        }
        Ok(())
    }
}

// === impl Writing ===

impl Writing<'_> {
    /// A call with its campaign.
    async fn call_to_place(&mut self, id: i64) -> Result<Option<(LeadCall, Campaign)>, StoreError> {
        let Some(call) = self.lead_call(Some(id)).await? else { return Ok(None) };
        let campaign = found::campaign(self, call.campaign_id).await?;
        Ok(campaign.map(|campaign| (call, campaign)))
    }

    async fn session_and_campaign(
        &mut self,
        id: i64,
    ) -> Result<Option<(Session, Campaign)>, StoreError> {
        let Some(session) = self.session(Some(id), None).await? else { return Ok(None) };
        let campaign = found::campaign(self, session.campaign_id).await?;
        Ok(campaign.map(|campaign| (session, campaign)))
    }

    /// Whether the number was blocked since it was handed out; then it is put away.
    async fn put_away_if_blocked(&mut self, call: &LeadCall) -> Result<bool, StoreError> {
        if !queue::is_blocked(self, call.campaign_id, &call.phone).await? {
            return Ok(false);
        }
        let update = "UPDATE households SET place = 'blocked', blocked = ? WHERE id = ?";
        let query = sqlx::query(update).bind(queue::DNC).bind(call.household_id);
        query.execute(self.connection()).await?;
        Ok(true)
    }

    /// Twilio was not asked for the call after all.
    async fn call_was_not_placed(&mut self, call: i64) -> Result<(), StoreError> {
        let update = "UPDATE lead_calls SET dialed_ms = NULL WHERE id = ?";
        sqlx::query(update).bind(call).execute(self.connection()).await?;
        Ok(())
    }

    /// Twilio is about to be asked to place a call. From now on the household rests.
    async fn call_is_placed(&mut self, call: &LeadCall) -> Result<(), StoreError> {
        for (update, id) in [
            ("UPDATE lead_calls SET dialed_ms = ? WHERE id = ?", call.id),
            ("UPDATE households SET score = ? WHERE id = ?", call.household_id),
        ] {
            sqlx::query(update).bind(now_ms()).bind(id).execute(self.connection()).await?;
        }
        Ok(())
    }
}
