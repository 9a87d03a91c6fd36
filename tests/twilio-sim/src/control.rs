//! The control API: what no caller could ask Twilio for, over HTTP.
//!
//! It lets people call in, puts somebody at a number, lets things go wrong, and tells what happened.
//! It is meant for a loopback address and asks for no password. Its OpenAPI document is served beside
//! it, and a test holds the two equal.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::call::{Command, Endpoint, Line};
use crate::company::{Company, Record, lock};
use crate::invariants::breaches;
use crate::mishaps::Mishaps;
use crate::party::{Lead, Party};
use crate::summary::Summary;

/// The API's description.
pub const OPENAPI: &str = include_str!("../control.openapi.json");
const PAGE: &str = include_str!("../control.html");

/// A person who calls in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallIn {
    to: String,
    from: Option<String>,
    voice_url: Url,
    fallback_url: Option<Url>,
    status_callback: Option<Url>,
    #[serde(default)]
    party: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Somebody {
    is: String,
}

/// What is wrong with a request.
struct Fault(StatusCode, String);

/// The API as a service, at `/control` and with its page at `/`.
pub fn router(company: Company) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/control/openapi.json", get(openapi))
        .route("/control/calls", get(calls).post(call_in))
        .route("/control/calls/{sid}", get(transcript))
        .route("/control/calls/{sid}/keys", post(keys))
        .route("/control/calls/{sid}/hangup", post(hang_up))
        .route("/control/people/{number}", put(put_somebody))
        .route("/control/mishaps", get(mishaps).put(let_go_wrong))
        .route("/control/report", get(report))
        .with_state(company)
}

async fn openapi() -> Response {
    ([("content-type", "application/json")], OPENAPI).into_response()
}

async fn calls(State(company): State<Company>) -> Json<Value> {
    Json(json!({ "calls": company.calls().iter().map(shown).collect::<Vec<_>>() }))
}

async fn call_in(
    State(company): State<Company>,
    Json(request): Json<CallIn>,
) -> Result<(StatusCode, Json<Value>), Fault> {
    let party: Party = request.party.parse().map_err(bad)?;
    let line = Line {
        number: request.to,
        voice: Endpoint::from(request.voice_url),
        fallback: request.fallback_url.map(Endpoint::from),
        status: request.status_callback.map(Endpoint::from),
    };
    let call = match &request.from {
        Some(from) => company.call_from(from, line, party),
        None => company.call(line, party),
    };
    let call = call.guided();
    let sid = call.sid();
    call.handle();
    tokio::spawn(call.make());
    Ok((StatusCode::CREATED, Json(json!({ "sid": sid }))))
}

async fn transcript(
    State(company): State<Company>,
    Path(sid): Path<String>,
) -> Result<Json<Value>, Fault> {
    let handle = company.find(&sid).ok_or_else(unknown)?;
    let record = lock(&handle.record).clone();
    let mut answer = shown(&record);
    if let Some(transcript) = &record.transcript {
        answer["transcript"] = serde_json::to_value(transcript.as_ref()).unwrap_or_default();
        answer["text"] = transcript.to_string().into();
        answer["breaches"] = serde_json::to_value(breaches(transcript)).unwrap_or_default();
    }
    Ok(Json(answer))
}

async fn keys(
    State(company): State<Company>,
    Path(sid): Path<String>,
    Json(Keys { keys }): Json<Keys>,
) -> Result<StatusCode, Fault> {
    tell(&company, &sid, Command::Press(keys))
}

async fn hang_up(
    State(company): State<Company>,
    Path(sid): Path<String>,
) -> Result<StatusCode, Fault> {
    tell(&company, &sid, Command::HangUp)
}

fn tell(company: &Company, sid: &str, command: Command) -> Result<StatusCode, Fault> {
    let handle = company.find(sid).ok_or_else(unknown)?;
    let over = || Fault(StatusCode::CONFLICT, "the call is over".into());
    handle.commands.send(command).map_err(|_| over())?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_somebody(
    State(company): State<Company>,
    Path(number): Path<String>,
    Json(Somebody { is }): Json<Somebody>,
) -> Result<StatusCode, Fault> {
    let lead: Lead = is.parse().map_err(bad)?;
    company.put_at(&number, lead);
    Ok(StatusCode::NO_CONTENT)
}

async fn mishaps(State(company): State<Company>) -> Json<Mishaps> {
    Json(company.mishaps())
}

async fn let_go_wrong(
    State(company): State<Company>,
    Json(mishaps): Json<Mishaps>,
) -> Result<Json<Mishaps>, Fault> {
    let faults = mishaps.faults();
    if !faults.is_empty() {
        return Err(bad(faults.join("; ")));
    }
    company.let_go_wrong(mishaps);
    Ok(Json(company.mishaps()))
}

async fn report(State(company): State<Company>) -> Json<Value> {
    let mut summary = Summary::default();
    let mut live = 0;
    for record in company.calls() {
        match &record.transcript {
            Some(transcript) => summary.add(transcript),
            None => live += 1,
        }
    }
    for webhook in company.loose() {
        summary.add_webhook(&webhook);
    }
    Json(json!({
        "seed": company.seed().to_string(),
        "live_calls": live,
        "summary": summary,
        "waits": summary.waits(),
    }))
}

fn shown(record: &Record) -> Value {
    json!({
        "sid": record.sid,
        "parent": record.parent,
        "from": record.from,
        "to": record.to,
        "direction": record.direction,
        "status": record.status,
        "answered_by": record.answered_by,
        "ended": record.ended.is_some(),
    })
}

fn unknown() -> Fault {
    Fault(StatusCode::NOT_FOUND, "no such call, or one that ended too long ago".into())
}

fn bad(what: String) -> Fault {
    Fault(StatusCode::UNPROCESSABLE_ENTITY, what)
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
