//! The origin's endpoints.
//!
//! Twilio's are POST only, proven by signature, and answer TwiML. Whatever changes something runs
//! under the delivery id, once; what only reads runs as often as it is asked.

mod request;
mod step;

mod caller;
mod callin;
mod lead;
mod orders;
mod reports;

mod health;
mod inspect;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use holdline_twilio::{Keyring, PublicUrl, verbs};
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::core::links::Links;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// What every endpoint needs.
#[derive(Debug)]
pub struct App {
    /// The store.
    pub store: Arc<Store>,
    /// Keys that prove requests.
    pub keys: Keyring,
    /// URLs under which requests may be signed: the edge's own, and ours, should Twilio come directly.
    pub public_urls: Vec<PublicUrl>,
    /// Where the URLs in documents lead.
    pub links: Links,
    /// Which part this process plays.
    pub role: &'static str,
    /// Whether requests are done that Twilio sends because another one never arrived.
    pub process_fallbacks: bool,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Tells whoever carries out orders that there are some.
    pub orders: Arc<Notify>,
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
        .route("/caller/start_calling", post(callin::start_calling))
        .route("/caller/{id}/callin_choice", post(caller::callin_choice))
        .route("/caller/{id}/read_instruction_options", post(caller::read_instruction_options))
        .route("/caller/{id}/ready_to_call", post(caller::ready_to_call))
        .route("/caller/{id}/next_call", post(caller::next_call))
        .route("/caller/{id}/conference_started_phones_only_preview", post(caller::preview))
        .route("/caller/{id}/conference_started_phones_only_power", post(caller::power))
        .route("/caller/{id}/conference_started_phones_only_predictive", post(caller::predictive))
        .route("/caller/{id}/gather_response", post(caller::gather_response))
        .route("/caller/{id}/submit_response", post(caller::submit_response))
        .route("/caller/{id}/pause", post(caller::pause))
        .route("/caller/{id}/continue_conf", post(caller::continue_conf))
        .route("/caller/{id}/run_out_of_numbers", post(caller::run_out_of_numbers))
        .route("/caller/{id}/time_period_exceeded", post(caller::time_period_exceeded))
        .route("/caller/{id}/account_out_of_funds", post(caller::account_out_of_funds))
        .route("/caller/{id}/play_message_error", post(caller::play_message_error))
        .route("/twiml/caller_sessions/{id}/dialing_prohibited", post(caller::dialing_prohibited))
        .route("/client/monitors/callers/start", post(caller::monitor_start))
        .route("/caller/end_session", post(caller::end_session))
        .route("/end_caller_session", post(caller::end_session))
        .route("/calls/{id}/incoming", post(lead::incoming))
        .route("/calls/{id}/disconnected", post(lead::disconnected))
        .route("/calls/{id}/play_message", post(lead::play_message))
        .route("/calls/{id}/call_ended", post(lead::call_ended))
        .route("/transfer/{id}/end", post(reports::transfer_ended))
        .route("/holdline/notices", post(reports::notices))
        .route("/call_center/api/{id}/call_voter", post(orders::call_voter))
        .route("/call_center/api/{id}/drop_message", post(orders::drop_message))
        .route("/metrics", get(inspect::metrics))
        .route("/inspect/callers", get(inspect::callers))
        .route("/inspect/campaigns", get(inspect::campaigns))
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

impl Fault {
    /// The status it is answered with.
    fn status(&self) -> StatusCode {
        match self {
            Fault::Unproven(_) => StatusCode::FORBIDDEN,
            Fault::Malformed(_) => StatusCode::BAD_REQUEST,
            Fault::Store(StoreError::Failed(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Fault::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = self.status();
        match self {
            Fault::Unproven(reason) => {
                tracing::warn!(%reason, "a request was refused: not proven to come from Twilio");
                (status, "the signature is not valid\n").into_response()
            }
            Fault::Malformed(what) => (status, format!("{what}\n")).into_response(),
            Fault::Store(StoreError::Failed(error)) => {
                tracing::error!(%error, "the store failed");
                (status, "the store failed\n").into_response()
            }
            Fault::Store(busy) => {
                tracing::warn!(reason = %busy, "not run");
                let not_run = [(NOT_RUN, HeaderValue::from_static("1"))];
                (status, not_run, "not run: the store is busy\n").into_response()
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
