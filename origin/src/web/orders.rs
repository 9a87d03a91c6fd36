//! What a caller orders from outside the phone: to dial who is offered, to leave a recording. For now
//! whoever holds the inspection token may order it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use holdline_twilio::verbs::Response;
use jiff::Timestamp;
use serde::Deserialize;

use super::App;
use super::inspect::authorise;
use super::request::random_name;
use crate::core::documents;
use crate::core::links::Links;
use crate::core::step::Event;
use crate::store::scene::About;
use crate::store::{StoreError, Work, Writing};

/// Whom to dial, and for which session.
#[derive(Debug, Deserialize)]
pub(super) struct CallVoter {
    session_id: i64,
    phone: String,
}

struct Order<'o> {
    about: About,
    event: Event,
    /// The caller that the session has to be of.
    caller: Option<i64>,
    links: &'o Links,
    known: AtomicBool,
    to_do: AtomicBool,
}

/// POST `/call_center/api/{caller_id}/call_voter`: dials the household that is offered, once.
pub(super) async fn call_voter(
    State(app): State<Arc<App>>,
    Path(caller): Path<i64>,
    headers: HeaderMap,
    Json(CallVoter { session_id, phone }): Json<CallVoter>,
) -> Result<StatusCode, StatusCode> {
    authorise(&app, &headers)?;
    let about = About::Session { id: Some(session_id), call_sid: None };
    carry_out(&app, about, Event::DialOrdered { phone }, Some(caller)).await
}

/// POST `/call_center/api/{sid}/drop_message`: plays the recording to the lead of this leg.
pub(super) async fn drop_message(
    State(app): State<Arc<App>>,
    Path(sid): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, StatusCode> {
    authorise(&app, &headers)?;
    let about = About::LeadCall { id: None, call_sid: Some(sid) };
    carry_out(&app, about, Event::MessageOrdered, None).await
}

async fn carry_out(
    app: &App,
    about: About,
    event: Event,
    caller: Option<i64>,
) -> Result<StatusCode, StatusCode> {
    let (known, to_do) = (AtomicBool::new(false), AtomicBool::new(false));
    let order = Order { about, event, caller, links: &app.links, known, to_do };
    let done = app.store.once(&format!("order:{}", random_name::<16>()), &order).await;
    done.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    if order.to_do.load(Ordering::Acquire) {
        app.orders.notify_one();
    }
    if order.known.load(Ordering::Acquire) {
        Ok(StatusCode::OK)
    } else {
        Err(StatusCode::NOT_FOUND)
    }
}

impl Work for Order<'_> {
    async fn work(&self, writing: &mut Writing<'_>) -> Result<Response, StoreError> {
        if let (Some(caller), About::Session { id, .. }) = (self.caller, &self.about) {
            let session = writing.session(*id, None).await?;
            if session.is_none_or(|session| session.caller_id != caller) {
                return Ok(documents::hang_up());
            }
        }
        let taken = writing.step(&self.about, &self.event, self.links, Timestamp::now()).await?;
        self.known.store(taken.known, Ordering::Release);
        self.to_do.store(taken.to_do, Ordering::Release);
        Ok(taken.document)
    }
}
