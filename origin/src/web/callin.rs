//! The dial-in and the menu of callers without a browser.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use holdline_twilio::{CallSid, verbs};
use jiff::Timestamp;
use serde_json::json;
use sqlx::SqliteConnection;

use super::request::{TwilioRequest, random};
use super::{App, Fault, Twiml};
use crate::core::callin::{self, Identified};
use crate::core::documents;
use crate::store::{Claimed, Delivery, Session, StoreError, callers};

type Answer = Result<Twiml, Fault>;

/// POST /callin/create: the first prompt. It depends on nothing.
pub(super) async fn create(State(app): State<Arc<App>>, _: TwilioRequest) -> Answer {
    Ok(documents::ask_pin(&app.links, 1).into())
}

/// POST `/identify_caller`: Digits is a PIN, attempt the number of this try.
pub(super) async fn identify(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let call = request.require_call()?;
    match app.store.take_up(&request.delivery).await? {
        Delivery::Answered(answer) => Ok(Twiml(answer)),
        Delivery::Ours(mut claimed) => {
            let spoken = identify_on(&app, &request, call, claimed.connection()).await?;
            finish(claimed, &spoken).await
        }
    }
}

async fn identify_on(
    app: &App,
    request: &TwilioRequest,
    call: CallSid,
    connection: &mut SqliteConnection,
) -> Result<verbs::Response, StoreError> {
    // One session a call, however often and however differently the call asks.
    if let Some(session) = callers::session_of_call(connection, call.as_str()).await? {
        return Ok(if session.on_call { welcome(app, &session) } else { documents::hang_up() });
    }
    let attempt = request.number("attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let pin = request.form.get("Digits").unwrap_or_default().trim();
    let candidate = callers::candidate(connection, pin).await?;
    Ok(match callin::identify(candidate, Timestamp::now()) {
        Identified::Unknown => callin::after_wrong_pin(&app.links, attempt),
        Identified::NoCampaign => documents::no_campaign(),
        Identified::Unfit(reason) => documents::unfit(reason),
        Identified::Open(new) => {
            let session =
                callers::open_session(connection, &new, call.as_str(), &fresh_key()).await?;
            if !new.phones_only {
                let data = json!({ "caller_session_id": session.id, "dialer": new.mode });
                callers::tell_browser(connection, &session.key, "start_calling", &data).await?;
            }
            welcome(app, &session)
        }
    })
}

/// POST /caller/{id}/callin_choice: the menu.
pub(super) async fn choice(
    State(app): State<Arc<App>>,
    Path(_): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let session = session(&app, &request).await?;
    Ok(match session {
        Some(session) => documents::menu(&app.links, session.caller_id, session.id),
        None => documents::hang_up(),
    }
    .into())
}

/// POST `/caller/{id}/read_instruction_options`: the key pressed in the menu.
pub(super) async fn read_instruction_options(
    State(app): State<Arc<App>>,
    Path(_): Path<String>,
    request: TwilioRequest,
) -> Answer {
    let session = session(&app, &request).await?;
    let digits = request.form.get("Digits").unwrap_or_default();
    Ok(match session {
        Some(session) => callin::menu_choice(&app.links, digits, session.caller_id, session.id),
        None => documents::hang_up(),
    }
    .into())
}

/// POST `/caller/end_session`: the caller's leg is over.
pub(super) async fn end_session(State(app): State<Arc<App>>, request: TwilioRequest) -> Answer {
    let call = request.require_call()?;
    match app.store.take_up(&request.delivery).await? {
        Delivery::Answered(answer) => Ok(Twiml(answer)),
        Delivery::Ours(mut claimed) => {
            let spoken = end_session_on(call, claimed.connection()).await?;
            finish(claimed, &spoken).await
        }
    }
}

async fn end_session_on(
    call: CallSid,
    connection: &mut SqliteConnection,
) -> Result<verbs::Response, StoreError> {
    if let Some(session) = callers::session_of_call(connection, call.as_str()).await? {
        callers::end_session(connection, session.id).await?;
        if session.on_call && !session.phones_only {
            let data = json!({ "pusher_key": session.key });
            callers::tell_browser(connection, &session.key, "caller_disconnected", &data).await?;
        }
    }
    Ok(documents::hang_up())
}

async fn finish(claimed: Claimed<'_>, spoken: &verbs::Response) -> Answer {
    let answer = spoken.to_xml();
    claimed.finish(&answer).await?;
    Ok(Twiml(answer))
}

async fn session(app: &App, request: &TwilioRequest) -> Result<Option<Session>, Fault> {
    let call = request.call.as_ref().map(|call| call.as_str());
    let session = app.store.session(request.number("session_id"), call).await?;
    Ok(session.filter(|session| session.on_call))
}

fn welcome(app: &App, session: &Session) -> verbs::Response {
    callin::welcome(&app.links, session.phones_only, session.caller_id, session.id, &session.key)
}

/// A session key: forty hexadecimal digits that nobody can guess.
fn fresh_key() -> String {
    random::<20>().iter().fold(String::with_capacity(40), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    })
}
