//! The origin's endpoints.
//!
//! Twilio's are POST only, proven by signature, and answer TwiML. Whatever changes something runs
//! under the delivery id, once; what only reads runs as often as it is asked.

mod callin;
mod health;
mod inspect;
mod reports;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use holdline_twilio::{Keyring, PublicUrl, verbs};
use secrecy::SecretString;

use crate::core::documents::Links;
use crate::store::{Store, StoreError};

/// What every endpoint needs.
#[derive(Debug)]
pub struct App {
    /// The store.
    pub store: Store,
    /// Keys that prove requests.
    pub keys: Keyring,
    /// URLs under which requests may be signed: the edge's own, and ours, should Twilio come directly.
    pub public_urls: Vec<PublicUrl>,
    /// Where the URLs in documents lead.
    pub links: Links,
    /// Which part this process plays.
    pub role: &'static str,
    /// Opens the inspection endpoints; without it they do not exist.
    pub inspect_token: Option<SecretString>,
}

/// On a 503: the request was not run, and may be given to another process.
pub const NOT_RUN: HeaderName = HeaderName::from_static("holdline-not-run");

static HOLD_MUSIC: &[u8] = include_bytes!("../../../static-twiml/hold-music.wav");

/// The routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/media/hold-music", get(hold_music))
        .route("/callin/create", post(callin::create))
        .route("/identify_caller", post(callin::identify))
        .route("/caller/{id}/callin_choice", post(callin::choice))
        .route("/caller/{id}/read_instruction_options", post(callin::read_instruction_options))
        .route("/caller/end_session", post(callin::end_session))
        .route("/end_caller_session", post(callin::end_session))
        .route("/calls/{id}/call_ended", post(reports::call_ended))
        .route("/transfer/{id}/end", post(reports::transfer_ended))
        .route("/holdline/notices", post(reports::notices))
        .route("/inspect/callers", get(inspect::callers))
        .route("/inspect/events/{channel}", get(inspect::events))
        .with_state(app)
}

async fn hold_music() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "audio/wav")], HOLD_MUSIC)
}

/// What an endpoint answers when it does not answer a document.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The request does not come from Twilio.
    Unproven(holdline_twilio::Unproven),
    /// The request is malformed.
    Malformed(&'static str),
    /// The store.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        match self {
            Fault::Unproven(reason) => {
                tracing::warn!(%reason, "a request was refused: not proven to come from Twilio");
                (StatusCode::FORBIDDEN, "the signature is not valid\n").into_response()
            }
            Fault::Malformed(what) => {
                (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response()
            }
            Fault::Store(StoreError::Failed(error)) => {
                tracing::error!(%error, "the store failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "the store failed\n").into_response()
            }
            Fault::Store(busy) => {
                tracing::warn!(reason = %busy, "not run");
                let not_run = [(NOT_RUN, HeaderValue::from_static("1"))];
                (StatusCode::SERVICE_UNAVAILABLE, not_run, "not run: the store is busy\n")
                    .into_response()
            }
        }
    }
}

/// A TwiML answer.
pub(crate) struct Twiml(String);

impl From<verbs::Response> for Twiml {
    fn from(response: verbs::Response) -> Twiml {
        Twiml(response.to_xml())
    }
}

impl IntoResponse for Twiml {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/xml; charset=utf-8")], self.0).into_response()
    }
}
