//! What only brings news: legs that have ended, and notices of the edge. Each is done once under its
//! delivery id, however often it comes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::request::{TwilioRequest, edge_delivery};
use super::{App, Fault};
use crate::core::notice::{Meaning, Notice};
use crate::store::reports::{self, Ended};
use crate::store::{Claimed, Delivery};

type Answer = Result<StatusCode, Fault>;

/// POST /calls/{id}/call_ended: a lead's leg is over.
pub(super) async fn call_ended(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let call = request.require_call()?;
    let Some(mut claimed) = claim(&app, &request).await? else { return Ok(DONE) };
    let ended = ended(&request, call.as_str(), &id);
    reports::lead_call_ended(claimed.connection(), &ended).await?;
    finish(claimed).await
}

/// POST /transfer/{id}/end: a transfer target's leg is over.
pub(super) async fn transfer_ended(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let call = request.require_call()?;
    let Some(mut claimed) = claim(&app, &request).await? else { return Ok(DONE) };
    let ended = ended(&request, call.as_str(), &id);
    reports::transfer_ended(claimed.connection(), &ended).await?;
    finish(claimed).await
}

/// POST /holdline/notices: what the edge has answered in our place.
pub(super) async fn notices(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let notice = Notice::read(&request.form)
        .ok_or(Fault::Malformed("Notice, Row, Delivery or Target is missing"))?;
    let Some(mut claimed) = claim(&app, &request).await? else { return Ok(DONE) };
    let connection = claimed.connection();
    reports::keep_notice(connection, &notice).await?;
    // What the edge gave up may have run here after all.
    if !reports::has_run(connection, &edge_delivery(&notice.delivery)).await? {
        match (notice.meaning(), &notice.call) {
            (Meaning::Answer(keyed), Some(call)) => {
                reports::store_answer(connection, call, &keyed).await?;
            }
            (Meaning::AbandonedLead, Some(call)) => {
                reports::lead_abandoned(connection, call).await?;
            }
            _ => {}
        }
    }
    finish(claimed).await
}

const DONE: StatusCode = StatusCode::NO_CONTENT;

/// The work on a report; none if it was done before.
async fn claim<'a>(app: &'a App, request: &'a TwilioRequest) -> Result<Option<Claimed<'a>>, Fault> {
    match app.store.take_up(&request.delivery).await? {
        Delivery::Answered(_) => Ok(None),
        Delivery::Ours(claimed) => Ok(Some(claimed)),
    }
}

async fn finish(claimed: Claimed<'_>) -> Answer {
    claimed.finish("").await?;
    Ok(DONE)
}

fn ended<'r>(request: &'r TwilioRequest, call: &'r str, id: &'r str) -> Ended<'r> {
    let form = &request.form;
    Ended {
        call,
        id,
        status: form.get("CallStatus").unwrap_or_default(),
        answered_by: form.filled("AnsweredBy"),
        duration_s: form.get("CallDuration").and_then(|seconds| seconds.parse().ok()),
    }
}
