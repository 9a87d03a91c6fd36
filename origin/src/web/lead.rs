//! The endpoints of a lead's leg. What they are called by, our own name of the call, is in the path.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::App;
use super::Fault;
use super::request::TwilioRequest;
use super::step::{Answer, Row, report, step};
use crate::core::fallback::{self, Asker};
use crate::core::step::{Event, LegEnd};
use crate::store::scene::About;

/// POST /calls/{id}/incoming: somebody, or something, picked up. Where Twilio asks for it because it could
/// not ask for a later document of the leg, that one is given.
pub(super) async fn incoming(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let call = request.require_call()?;
    let row = Row { name: "lead_answered", asker: Asker::Lead };
    let failed = fallback::failure(&request.form).map_or("", |failure| failure.step());
    let event = match failed {
        "disconnected" => Event::Disconnected { recording: recording(&request) },
        "play_message" => Event::MessagePlayed,
        _ => Event::Answered {
            by: request.form.filled("AnsweredBy").map(str::to_owned),
            in_progress: request.form.get("CallStatus") == Some("in-progress"),
            call_sid: call.as_str().to_owned(),
        },
    };
    step(&app, row, &request, lead_call(&id, &request), event).await
}

/// POST /calls/{id}/disconnected: the lead has left the conference.
pub(super) async fn disconnected(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "lead_disconnected", asker: Asker::Lead };
    let event = Event::Disconnected { recording: recording(&request) };
    step(&app, row, &request, lead_call(&id, &request), event).await
}

/// POST `/calls/{id}/play_message`: the recording that the caller ordered.
pub(super) async fn play_message(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "lead_message", asker: Asker::Lead };
    step(&app, row, &request, lead_call(&id, &request), Event::MessagePlayed).await
}

/// POST `/calls/{id}/call_ended`: the leg is over.
pub(super) async fn call_ended(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Result<StatusCode, Fault> {
    let call = request.require_call()?;
    let row = Row { name: "call_ended", asker: Asker::Lead };
    let form = &request.form;
    let text = |name: &str| form.get(name).unwrap_or_default().to_owned();
    let event = Event::LegEnded(LegEnd {
        call_sid: Some(call.as_str().to_owned()),
        status: text("CallStatus"),
        answered_by: form.filled("AnsweredBy").map(str::to_owned),
        duration_s: form.get("CallDuration").and_then(|seconds| seconds.parse().ok()),
        to: text("To"),
    });
    report(&app, row, &request, lead_call(&id, &request), event).await
}

/// Where the talk was recorded, and its seconds.
fn recording(request: &TwilioRequest) -> Option<(String, i64)> {
    let form = &request.form;
    let seconds = form.get("RecordingDuration").and_then(|text| text.parse().ok()).unwrap_or(0);
    form.filled("RecordingUrl").map(|url| (url.to_owned(), seconds))
}

fn lead_call(id: &str, request: &TwilioRequest) -> About {
    About::LeadCall {
        id: id.parse().ok(),
        call_sid: request.call.as_ref().map(|call| call.as_str().to_owned()),
    }
}
