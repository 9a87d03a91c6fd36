//! What only brings news besides the ends of legs: notices of the edge, and transfers. Each is done once
//! under its delivery id, however often it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use holdline_twilio::verbs::Response;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use super::request::{TwilioRequest, edge_delivery};
use super::step::reported;
use super::{App, Fault};
use crate::core::documents;
use crate::core::links::Links;
use crate::core::notice::{Keyed, Meaning, Notice};
use crate::core::step::Event;
use crate::store::scene::About;
use crate::store::{StoreError, Work, Writing, notices, now_ms};

/// A notice as work that is done once.
struct NoticeWork<'w> {
    notice: &'w Notice,
    links: &'w Links,
    to_do: AtomicBool,
}

struct TransferEnded<'w> {
    call: &'w str,
    id: &'w str,
    status: &'w str,
}

/// POST /holdline/notices: what the edge has answered in our place.
pub(super) async fn notices(
    State(app): State<Arc<App>>,
    request: TwilioRequest,
) -> Result<StatusCode, Fault> {
    let notice = Notice::read(&request.form)
        .ok_or(Fault::Malformed("Notice, Row, Delivery or Target is missing"))?;
    let begun = Instant::now();
    let work = NoticeWork { notice: &notice, links: &app.links, to_do: AtomicBool::new(false) };
    let done = app.store.once(&request.delivery, &work).await;
    if work.to_do.load(Ordering::Acquire) {
        app.orders.notify_one();
    }
    reported(&app, "notices", begun, done.map(drop).map_err(Into::into))
}

/// POST /transfer/{id}/end: a transfer target's leg is over.
pub(super) async fn transfer_ended(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Result<StatusCode, Fault> {
    let call = request.require_call()?;
    let status = request.form.get("CallStatus").unwrap_or_default();
    let work = TransferEnded { call: call.as_str(), id: &id, status };
    let begun = Instant::now();
    let done = app.store.once(&request.delivery, &work).await;
    reported(&app, "transfer_ended", begun, done.map(drop).map_err(Into::into))
}

impl Work for NoticeWork<'_> {
    async fn work(&self, writing: &mut Writing<'_>) -> Result<Response, StoreError> {
        let notice = self.notice;
        notices::keep_notice(writing, notice).await?;
        let has_run = notices::has_run(writing, &edge_delivery(&notice.delivery)).await?;
        match (notice.meaning(), &notice.call) {
            // What the edge gave up may have run here after all.
            (Meaning::Answer(_), _) if has_run => {}
            (Meaning::Answer(keyed), Some(leg)) => self.keep(writing, leg, &keyed).await?,
            // Whatever was decided here: the lead was told to hang up.
            (Meaning::AbandonedLead(id), Some(leg)) => {
                let about = About::LeadCall { id, call_sid: Some(leg.clone()) };
                self.step(writing, &about, &Event::HungUpOn).await?;
            }
            _ => {}
        }
        Ok(documents::hang_up())
    }
}

impl NoticeWork<'_> {
    /// Keeps an answer that was keyed, unless the question was answered in this call meanwhile.
    async fn keep(
        &self,
        writing: &mut Writing<'_>,
        leg: &str,
        keyed: &Keyed,
    ) -> Result<(), StoreError> {
        let call = match keyed.call_id {
            Some(call) => Some(call),
            None => notices::last_call_of(writing, leg).await?,
        };
        let Some(call) = call else { return Ok(()) };
        let lead = keyed.voter_id.parse().unwrap_or(0);
        notices::keep_answer(writing, call, keyed.question_id, lead, &keyed.digits, false).await?;
        let about = About::LeadCall { id: Some(call), call_sid: None };
        self.step(writing, &about, &Event::AnswerCameLate).await
    }

    async fn step(
        &self,
        writing: &mut Writing<'_>,
        about: &About,
        event: &Event,
    ) -> Result<(), StoreError> {
        let taken = writing.step(about, event, self.links, Timestamp::now()).await?;
        self.to_do.store(taken.to_do, Ordering::Release);
        Ok(())
    }
}

impl Work for TransferEnded<'_> {
    async fn work(&self, writing: &mut Writing<'_>) -> Result<Response, StoreError> {
        let insert = format!(
            "{} INTO transfer_calls (call_sid, transfer_id, twilio_status, ended_ms) VALUES (?, ?, ?, ?)",
            writing.dialect.insert_new()
        );
        sqlx::query(AssertSqlSafe(insert))
            .bind(self.call.to_owned())
            .bind(self.id.to_owned())
            .bind(self.status.to_owned())
            .bind(now_ms())
            .execute(writing.connection())
            .await?;
        Ok(documents::hang_up())
    }
}
