//! Twilio's REST API, as far as calls need it (`twilio.com/docs/voice/api/call-resource`).
//!
//! A request is never repeated here. What may be asked again is for the caller to decide, and an answer
//! says what is known: [`Refused`](Trouble::Refused) and [`NotAsked`](Trouble::NotAsked) are certain,
//! [`Unknown`](Trouble::Unknown) is not.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdline_twilio::{AccountSid, Form};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::Semaphore;
use url::Url;

/// Twilio itself.
pub const TWILIO: &str = "https://api.twilio.com";
/// How long one request may take, waiting for its turn not counted.
pub const TIME_LIMIT: Duration = Duration::from_secs(8);
const CONNECT: Duration = Duration::from_secs(3);
/// How long a request may wait for its turn.
const TURN: Duration = Duration::from_secs(4);
const LARGEST_ANSWER: usize = 1024 * 1024;
/// Too many requests at once; none of this one was done (`twilio.com/docs/api/errors/20429`).
const TOO_MANY: u32 = 20429;
/// The call is not in a state in which that can be done (`twilio.com/docs/api/errors/21220`).
const NOT_IN_PROGRESS: u32 = 21220;
/// A number that is missing, or cannot be called by anybody
/// (`twilio.com/docs/api/errors/21201`, 21211, 21214, 21217). What the account may not call, 21215 and
/// 21216, it may be allowed to.
const BAD_NUMBERS: [u32; 4] = [21201, 21211, 21214, 21217];

/// A client of one account.
#[derive(Debug)]
pub struct Twilio {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    calls: String,
    authorization: SecretString,
    turns: Semaphore,
}

/// A call that is to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// The number that is shown.
    pub from: String,
    /// Who is called.
    pub to: String,
    /// Asked when somebody picks up.
    pub url: String,
    /// Asked when that fails.
    pub fallback_url: String,
    /// Told when the leg is over.
    pub status_callback: String,
    /// How long it may ring, in seconds.
    pub ring_s: u32,
    /// What is done about machines.
    pub machines: Machines,
    /// How they are told from people.
    pub detection: Detection,
}

/// What is done about machines that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// They are not told from people.
    NotTold,
    /// They are hung up on.
    HangUp,
    /// They are left a message, when theirs is over.
    LeaveMessage,
}

/// How Twilio is asked to tell machines from people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Detection {
    /// `MachineDetection`: the document is asked for when it is known who answered.
    Modern,
    /// `IfMachine`, which older accounts know.
    Legacy,
}

/// A call as Twilio shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Call {
    /// The leg.
    pub sid: String,
    /// `queued`, `ringing`, `in-progress`, `completed`, `busy`, `failed`, `no-answer`, `canceled`.
    pub status: String,
    /// Who was called.
    pub to: Option<String>,
    /// Who answered, where that was asked.
    pub answered_by: Option<String>,
    /// Seconds, once it is over.
    pub duration: Option<String>,
    /// When it was made (RFC 2822).
    pub date_created: Option<String>,
}

/// Why something was not done, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Twilio refuses; it was not done.
    #[error("Twilio refuses: status {status}, error {code}")]
    Refused {
        /// The status.
        status: u16,
        /// Twilio's number for it (twilio.com/docs/api/errors); 0 where there is none. What it says besides
        /// may name telephone numbers, and is left out for that.
        code: u32,
    },
    /// It was not asked, or had no time to listen: it may be asked again.
    #[error("Twilio was not asked: {0}")]
    NotAsked(String),
    /// It may have been done.
    #[error("nobody knows whether it was done: {0}")]
    Unknown(String),
}

#[derive(Debug, Deserialize)]
struct Page {
    calls: Vec<Call>,
}

#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    code: u32,
}

// === impl Call ===

impl Call {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "busy" | "failed" | "no-answer" | "canceled")
    }

    /// How long it was up, in seconds, once it is over.
    pub fn duration_s(&self) -> Option<i64> {
        self.duration.as_deref()?.parse().ok()
    }

    /// When it was made, in milliseconds since 1970; Twilio tells it to the second.
    pub fn created_ms(&self) -> Option<i64> {
        let text = self.date_created.as_deref()?;
        Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond())
    }
}

// === impl Trouble ===

impl Trouble {
    /// Whether Twilio says that the number is the trouble.
    pub fn is_the_number(&self) -> bool {
        matches!(self, Trouble::Refused { code, .. } if BAD_NUMBERS.contains(code))
    }

    /// Whether Twilio says that the call is over, or never was.
    pub fn is_over(&self) -> bool {
        matches!(self, Trouble::Refused { code, status, .. } if *code == NOT_IN_PROGRESS || *status == 404)
    }

    /// A word for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Trouble::Refused { .. } => "refused",
            Trouble::NotAsked(_) => "not_asked",
            Trouble::Unknown(_) => "unknown",
        }
    }
}

// === impl Twilio ===

impl Twilio {
    /// A client that asks `base`, so many requests at once at the most.
    pub fn new(
        base: &Url,
        account: &AccountSid,
        token: &SecretString,
        at_once: usize,
    ) -> std::io::Result<Twilio> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            // A request on a connection that turns out to be closed may have been done.
            .retry_canceled_requests(false)
            .build(https);
        let pair = format!("{}:{}", account.as_str(), token.expose_secret());
        Ok(Twilio {
            client,
            calls: format!(
                "{}/2010-04-01/Accounts/{}/Calls",
                base.as_str().trim_end_matches('/'),
                account.as_str()
            ),
            authorization: format!("Basic {}", STANDARD.encode(pair)).into(),
            turns: Semaphore::new(at_once),
        })
    }

    /// Places a call; the leg.
    pub async fn dial(&self, dial: &Dial) -> Result<String, Trouble> {
        let call: Call = self.ask(Method::POST, &self.url(".json"), &dial.form()).await?;
        Ok(call.sid)
    }

    /// Sends a live call to another document, at `fallback` where that fails.
    pub async fn redirect(&self, sid: &str, url: &str, fallback: &str) -> Result<(), Trouble> {
        let form = Form::from_pairs([("Url", url), ("FallbackUrl", fallback)]);
        self.ask::<IgnoredAny>(Method::POST, &self.url(&format!("/{sid}.json")), &form)
            .await
            .map(drop)
    }

    /// Ends a live call.
    pub async fn hang_up(&self, sid: &str) -> Result<(), Trouble> {
        let form = Form::from_pairs([("Status", "completed")]);
        self.ask::<IgnoredAny>(Method::POST, &self.url(&format!("/{sid}.json")), &form)
            .await
            .map(drop)
    }

    /// Looks a call up.
    pub async fn fetch(&self, sid: &str) -> Result<Call, Trouble> {
        self.ask(Method::GET, &self.url(&format!("/{sid}.json")), &Form::default()).await
    }

    /// The calls to a number, the newest first. Twilio writes ten digits as North American.
    pub async fn calls_to(&self, number: &str) -> Result<Vec<Call>, Trouble> {
        let number = if number.len() == 10 { format!("+1{number}") } else { dialed(number) };
        let query = Form::from_pairs([("To", number.as_str()), ("PageSize", "50")]).encode();
        let page: Page =
            self.ask(Method::GET, &self.url(&format!(".json?{query}")), &Form::default()).await?;
        Ok(page.calls)
    }

    fn url(&self, rest: &str) -> String {
        format!("{}{rest}", self.calls)
    }

    async fn ask<T: for<'d> Deserialize<'d>>(
        &self,
        method: Method,
        url: &str,
        form: &Form,
    ) -> Result<T, Trouble> {
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let _turn = turn
            .map_err(|_| Trouble::NotAsked("too many requests wait for their turn".into()))?
            .map_err(|_| Trouble::NotAsked("closed".into()))?;
        let exchange = tokio::time::timeout(TIME_LIMIT, self.exchange(method, url, form)).await;
        let (status, body) =
            exchange.map_err(|_| Trouble::Unknown("no answer in time".into()))??;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| Trouble::Unknown(format!("the answer cannot be read: {error}")));
        }
        let said: Said = serde_json::from_slice(&body).unwrap_or_default();
        match status.as_u16() {
            429 => Err(Trouble::NotAsked(format!("429, error {}", said.code.max(TOO_MANY)))),
            400..=499 => Err(Trouble::Refused { status: status.as_u16(), code: said.code }),
            other => Err(Trouble::Unknown(format!("status {other}"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        form: &Form,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, self.authorization.expose_secret())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form.encode())))
            .map_err(|error| Trouble::NotAsked(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| {
            // Where no connection was made, nothing was sent.
            let what = chain(&error);
            if error.is_connect() { Trouble::NotAsked(what) } else { Trouble::Unknown(what) }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body =
            body.map_err(|error| Trouble::Unknown(format!("the answer broke off: {error}")))?;
        Ok((head.status, body.to_bytes()))
    }
}

/// A number as Twilio takes it: of ten digits as it is, which is North American; any other needs its plus
/// (`twilio.com/docs/api/errors/21211`).
fn dialed(digits: &str) -> String {
    if digits.len() == 10 { digits.to_owned() } else { format!("+{digits}") }
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

// === impl Dial ===

impl Dial {
    fn form(&self) -> Form {
        let ring = self.ring_s.to_string();
        let mut form = Form::from_pairs([
            ("From", dialed(&self.from).as_str()),
            ("To", &dialed(&self.to)),
            ("Url", &self.url),
            ("FallbackUrl", &self.fallback_url),
            ("StatusCallback", &self.status_callback),
            ("Timeout", &ring),
        ]);
        match (self.machines, self.detection) {
            (Machines::NotTold, _) => {}
            (Machines::HangUp, Detection::Modern) => form.push("MachineDetection", "Enable"),
            (Machines::LeaveMessage, Detection::Modern) => {
                form.push("MachineDetection", "DetectMessageEnd");
            }
            // Twilio hangs up by itself then, and no document is asked for.
            (Machines::HangUp, Detection::Legacy) => form.push("IfMachine", "Hangup"),
            (Machines::LeaveMessage, Detection::Legacy) => form.push("IfMachine", "Continue"),
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_from_people_in_both_ways() {
        for (machines, detection, expect) in [
            (Machines::NotTold, Detection::Modern, (None, None)),
            (Machines::HangUp, Detection::Modern, (Some("Enable"), None)),
            (Machines::LeaveMessage, Detection::Modern, (Some("DetectMessageEnd"), None)),
            (Machines::NotTold, Detection::Legacy, (None, None)),
            (Machines::HangUp, Detection::Legacy, (None, Some("Hangup"))),
            (Machines::LeaveMessage, Detection::Legacy, (None, Some("Continue"))),
        ] {
            let dial = Dial {
                from: "5005550001".into(),
                to: "5005550101".into(),
                url: "http://edge.test/calls/1/incoming".into(),
                fallback_url: "http://other.test/calls/1/incoming".into(),
                status_callback: "http://edge.test/calls/1/call_ended".into(),
                ring_s: 15,
                machines,
                detection,
            };
            let form = dial.form();
            assert_eq!((form.get("MachineDetection"), form.get("IfMachine")), expect);
            assert_eq!((form.get("To"), form.get("Timeout")), (Some("5005550101"), Some("15")));
        }
    }

    #[test]
    fn a_call_that_is_over_says_so_in_twilios_words() {
        let call = |status: &str| Call {
            sid: "CA1".into(),
            status: status.into(),
            to: None,
            answered_by: None,
            duration: None,
            date_created: Some("Tue, 31 Aug 2010 20:36:28 +0000".into()),
        };
        for (status, over) in
            [("queued", false), ("in-progress", false), ("busy", true), ("canceled", true)]
        {
            assert_eq!(call(status).is_over(), over, "{status}");
        }
        assert_eq!(call("busy").created_ms(), Some(1_283_286_988_000));
    }
}
