//! A request of Twilio's: proven, and with its parameters read.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdline_twilio::signature::Content;
use holdline_twilio::{CallSid, Form, Signed, Unproven};
use sha2::{Digest as _, Sha256};

use super::{App, Fault};

/// A notice tells of a whole request of 64 KiB, every byte of which may be escaped.
const LARGEST_BODY: usize = 512 * 1024;
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// A proven request.
#[derive(Debug)]
pub(crate) struct TwilioRequest {
    /// Parameters of the body.
    pub(crate) form: Form,
    /// Parameters of the query: our own.
    pub(crate) query: Form,
    /// The call.
    pub(crate) call: Option<CallSid>,
    /// The name under which a repeated request is recognised.
    pub(crate) delivery: String,
}

// === impl TwilioRequest ===

impl TwilioRequest {
    /// The call, without which the endpoint means nothing.
    pub(crate) fn require_call(&self) -> Result<CallSid, Fault> {
        self.call.ok_or(Fault::Malformed("CallSid is missing or malformed"))
    }

    /// What was keyed.
    pub(crate) fn digits(&self) -> &str {
        self.form.get("Digits").unwrap_or_default()
    }

    /// A place in a list, of the query; the first where none is named.
    pub(crate) fn index(&self, name: &str) -> usize {
        self.number(name).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }

    /// A whole number of the query.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.query.get(name)?.parse().ok()
    }
}

impl FromRequest<Arc<App>> for TwilioRequest {
    type Rejection = Fault;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<TwilioRequest, Fault> {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, LARGEST_BODY)
            .await
            .map_err(|_| Fault::Malformed("the body is too large or was cut off"))?;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let is_form = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            let media_type = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default();
            media_type.trim_ascii().eq_ignore_ascii_case(FORM)
        });
        let unreadable = |_| Fault::Malformed("the form cannot be read");
        let form = if is_form { Form::parse(&body).map_err(unreadable)? } else { Form::default() };
        let query =
            Form::parse(parts.uri.query().unwrap_or_default().as_bytes()).map_err(unreadable)?;
        let content = match (is_form, body.is_empty()) {
            (true, _) => Content::Form(&form),
            (false, true) => Content::Empty,
            (false, false) => Content::Raw(&body),
        };
        prove(app, &parts.headers, target, content, &form).map_err(Fault::Unproven)?;
        let call = form.get("CallSid").and_then(|text| text.parse().ok());
        let delivery = delivery_of(&parts.headers, target, &body);
        Ok(TwilioRequest { form, query, call, delivery })
    }
}

fn prove(
    app: &App,
    headers: &HeaderMap,
    target: &str,
    content: Content<'_>,
    form: &Form,
) -> Result<(), Unproven> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut last = Unproven::Mismatch;
    for base in &app.public_urls {
        let proof = app.keys.prove(&Signed {
            signature: text("x-twilio-signature"),
            settings: text("x-twilio-webhooks-signature-settings"),
            base,
            target,
            content,
            account: form.get("AccountSid").and_then(|text| text.parse().ok()),
        });
        match proof {
            Ok(_) => return Ok(()),
            Err(reason) => last = reason,
        }
    }
    Err(last)
}

/// The name of a delivery that the edge has named.
pub(crate) fn edge_delivery(id: &str) -> String {
    format!("edge:{id}")
}

/// The edge's delivery id, else one made of Twilio's idempotency token, else a name that no other
/// request has.
fn delivery_of(headers: &HeaderMap, target: &str, body: &Bytes) -> String {
    if let Some(id) = headers.get("holdline-delivery").and_then(|value| value.to_str().ok()) {
        return edge_delivery(id);
    }
    let mut hash = Sha256::new();
    match headers.get("i-twilio-idempotency-token") {
        Some(token) => {
            for part in [token.as_bytes(), target.as_bytes(), body] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        None => hash.update(random::<32>()),
    }
    format!("direct:{}", URL_SAFE_NO_PAD.encode(&hash.finalize()[..18]))
}

/// So many random bytes, in hexadecimal digits.
pub(crate) fn random_name<const N: usize>() -> String {
    random::<N>().iter().fold(String::with_capacity(2 * N), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Random bytes. Without the system's randomness nothing here could be trusted, so that a failure is
/// as good as the end; zeros would be found out by the unique keys they are used for.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "the system gives no random numbers");
    }
    bytes
}
