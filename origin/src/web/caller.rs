//! The caller's endpoints, phones-only and web.
//!
//! The session is the one that `session_id` names, else that of the call; the caller's id in the path
//! says nothing. A session that nobody knows ends the call.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};

use holdline_twilio::Form;

use super::App;
use super::request::TwilioRequest;
use super::step::{Answer, Row, counted, instead};
use crate::core::documents;
use crate::core::fallback::{self, Asker};
use crate::core::step::{Event, Reason};
use crate::store::scene::About;

/// POST /caller/{id}/callin_choice: the menu.
pub(super) async fn callin_choice(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "callin_choice", asker: Asker::Caller };
    step(&app, row, &request, session(&request), Event::Menu(String::new())).await
}

/// POST `/caller/{id}/read_instruction_options`: the key pressed in the menu.
pub(super) async fn read_instruction_options(
    State(app): State<Arc<App>>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "read_instruction_options", asker: Asker::Anybody };
    let event = Event::Menu(request.digits().to_owned());
    step(&app, row, &request, session(&request), event).await
}

/// POST `/caller/{id}/ready_to_call`: the next number; a closed gate ends the session.
pub(super) async fn ready_to_call(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "ready_to_call", asker: Asker::Caller };
    step(&app, row, &request, session(&request), Event::Ready { ends: true }).await
}

/// POST `/caller/{id}/next_call`: the next number.
pub(super) async fn next_call(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "next_call", asker: Asker::Caller };
    step(&app, row, &request, session(&request), Event::Ready { ends: false }).await
}

/// POST `/caller/{id}/conference_started_phones_only_preview`: star calls, pound passes.
pub(super) async fn preview(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "conference_started_preview", asker: Asker::Caller };
    let phone = request.query.filled("phone").map(str::to_owned);
    let asked = u32::try_from(request.index("asked")).unwrap_or(u32::MAX);
    let event = Event::Decide { phone, digits: Some(request.digits().to_owned()), asked };
    step(&app, row, &request, session(&request), event).await
}

/// POST `/caller/{id}/conference_started_phones_only_power`: calls.
pub(super) async fn power(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "conference_started_power", asker: Asker::Caller };
    let phone = request.query.filled("phone").map(str::to_owned);
    let event = Event::Decide { phone, digits: None, asked: 0 };
    step(&app, row, &request, session(&request), event).await
}

/// POST `/caller/{id}/conference_started_phones_only_predictive`: waits for whoever answers.
pub(super) async fn predictive(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "conference_started_predictive", asker: Asker::Caller };
    step(&app, row, &request, session(&request), Event::Wait).await
}

/// POST `/caller/{id}/gather_response`: a question about the call.
pub(super) async fn gather_response(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "gather_response", asker: Asker::Caller };
    step(&app, row, &request, session(&request), question(&request.query)).await
}

/// POST `/caller/{id}/submit_response`: an answer.
pub(super) async fn submit_response(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "submit_response", asker: Asker::Caller };
    let event = match request.number("question_id") {
        Some(question_id) => Event::Keyed {
            call: request.number("call_id"),
            question_id,
            number: request.index("question_number"),
            silent: request.query.get("silent").is_some(),
            digits: request.digits().to_owned(),
        },
        // Without a question there is no answer, and the survey goes on where it is.
        None => question(&request.query),
    };
    step(&app, row, &request, session(&request), event).await
}

/// POST `/caller/{caller_id}/pause`: a web caller has left the conference.
pub(super) async fn pause(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "pause", asker: Asker::Pausing };
    let over = request.form.get("CallStatus") == Some("completed");
    let event = Event::Pause { turn: request.number("turn"), over };
    step(&app, row, &request, session(&request), event).await
}

/// POST `/caller/{caller_id}/continue_conf`: a web caller goes on.
pub(super) async fn continue_conf(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "continue_conf", asker: Asker::Caller };
    step(&app, row, &request, session(&request), Event::Ready { ends: true }).await
}

/// POST `/caller/end_session`: the caller's leg is over.
pub(super) async fn end_session(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let call = request.require_call()?;
    let row = Row { name: "end_session", asker: Asker::Anybody };
    let about = About::Session { id: None, call_sid: Some(call.as_str().to_owned()) };
    let duration_s = request.form.get("CallDuration").and_then(|seconds| seconds.parse().ok());
    step(&app, row, &request, about, Event::SessionEnded { duration_s }).await
}

/// POST `/twiml/caller_sessions/{id}/dialing_prohibited`: says why calling is closed.
pub(super) async fn dialing_prohibited(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "dialing_prohibited", asker: Asker::Anybody };
    let call_sid = request.call.as_ref().map(|call| call.as_str().to_owned());
    let about = About::Session { id: id.parse().ok(), call_sid };
    step(&app, row, &request, about, Event::Prohibited(Reason::Gate)).await
}

/// POST `/caller/{id}/run_out_of_numbers`.
pub(super) async fn run_out_of_numbers(
    State(app): State<Arc<App>>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "run_out_of_numbers", asker: Asker::Anybody };
    step(&app, row, &request, session(&request), Event::Prohibited(Reason::OutOfNumbers)).await
}

/// POST `/caller/{id}/time_period_exceeded`.
pub(super) async fn time_period_exceeded(
    State(app): State<Arc<App>>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "time_period_exceeded", asker: Asker::Anybody };
    step(&app, row, &request, session(&request), Event::Prohibited(Reason::Hours)).await
}

/// POST `/caller/{id}/account_out_of_funds`.
pub(super) async fn account_out_of_funds(
    State(app): State<Arc<App>>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "account_out_of_funds", asker: Asker::Anybody };
    step(&app, row, &request, session(&request), Event::Prohibited(Reason::Funds)).await
}

/// POST `/caller/{id}/play_message_error`: the recording could not be played.
pub(super) async fn play_message_error(
    State(app): State<Arc<App>>,
    request: TwilioRequest,
) -> Answer {
    let row = Row { name: "play_message_error", asker: Asker::Anybody };
    let begun = Instant::now();
    // It changes nothing, and costs nothing after a failure either; that one is counted.
    let _ = instead(&app, row, &request);
    counted(&app, row.name, begun, Ok(documents::message_failed().into()))
}

/// POST `/client/monitors/callers/start`: a supervisor listens, or speaks with them.
pub(super) async fn monitor_start(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let row = Row { name: "monitor_start", asker: Asker::Caller };
    let begun = Instant::now();
    let either = |name: &str| request.query.filled(name).or_else(|| request.form.filled(name));
    let document = match (instead(&app, row, &request), either("session_key")) {
        (Some(_), _) => documents::retry(),
        (None, Some(key)) if app.store.is_on_call(key).await? => {
            documents::supervise(&app.links, key, either("type") != Some("breakin"))
        }
        (None, _) => documents::hang_up(),
    };
    counted(&app, row.name, begun, Ok(document.into()))
}

/// A question, as a query names it; the first where it names none.
fn question(query: &Form) -> Event {
    let number = query.get("question_number").and_then(|number| number.parse().ok()).unwrap_or(0);
    let call = query.get("call_id").and_then(|call| call.parse().ok());
    Event::Question { call, number, silent: query.get("silent").is_some() }
}

/// Takes a step of a caller's. Where Twilio asks for it because another one failed, that one is taken: a
/// call has one fallback for all that comes later. What could not be handed in is asked for again.
async fn step(app: &App, row: Row, request: &TwilioRequest, about: About, usual: Event) -> Answer {
    let failed = fallback::failure(&request.form).and_then(|failure| match failure.step() {
        "gather_response" | "submit_response" => Some(question(&failure.query())),
        "pause" => {
            let turn = failure.query().get("turn").and_then(|turn| turn.parse().ok());
            Some(Event::Pause { turn, over: false })
        }
        _ => None,
    });
    // The end of a leg is its end, whatever failed before.
    let ends = matches!(usual, Event::SessionEnded { .. } | Event::Pause { over: true, .. });
    let event = failed.filter(|_| !ends).unwrap_or(usual);
    super::step::step(app, row, request, about, event).await
}

fn session(request: &TwilioRequest) -> About {
    About::Session {
        id: request.number("session_id"),
        call_sid: request.call.as_ref().map(|call| call.as_str().to_owned()),
    }
}
