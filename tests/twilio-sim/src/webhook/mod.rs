//! The webhook client: a request as Twilio makes it, with Twilio's limits, retries and redirects.
//!
//! Two tries of 5 s to connect, 15 s for everything, no retry once a byte was sent, unless the URL's
//! fragment says otherwise ([`overrides`]). Redirects are followed, at most ten, and lose the digits
//! that were pressed (`twilio.com/docs/voice/twiml/gather`, troubleshooting).

mod cookies;
mod exchange;
pub mod overrides;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};
use http::{Method, Request, header};
use http_body_util::Full;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use url::Url;

pub use cookies::Jar;
use exchange::Exchanger;
pub use exchange::Failure;
pub use overrides::Overrides;

/// Redirects that are followed (`twilio.com/docs/api/errors/11215`).
const MOST_REDIRECTS: usize = 10;
/// Error: more redirects than are followed.
const TOO_MANY_REDIRECTS: u32 = 11215;
/// Error: a redirect that cannot be followed.
const BAD_REDIRECT: u32 = 11216;

/// A request.
#[derive(Debug, Clone)]
pub struct Webhook<'a> {
    /// Where to; its fragment is never sent.
    pub url: &'a Url,
    /// GET or POST.
    pub method: Method,
    /// The parameters.
    pub form: &'a Form,
    /// The account's auth token, as a key.
    pub key: &'a Key,
    /// What repeated requests are told by; none is sent where it is empty.
    pub idempotency_token: &'a str,
}

/// What came back, and how.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The last answer, or Twilio's error number.
    pub result: Result<Received, u32>,
    /// How long everything took.
    pub took: Duration,
    /// Each request that was made.
    pub attempts: Vec<Attempt>,
}

/// One request that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// When, in milliseconds since the webhook began.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether a byte of it was sent.
    pub sent: bool,
    /// The status that came back.
    pub status: Option<u16>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Where requests go and how connections are made.
#[derive(Debug, Clone, Default)]
pub struct Connecting {
    /// Where to connect for these host names.
    pub resolve: HashMap<String, SocketAddr>,
    /// Where to connect for all others, instead of what they resolve to.
    pub connect_to: Option<SocketAddr>,
    /// Certificates to trust beside the system's, in PEM.
    pub trust: Option<Vec<u8>>,
    /// Keeps connections for further requests. Otherwise each request has its own.
    pub reuse: bool,
}

/// Makes webhook requests.
#[derive(Debug, Clone)]
pub struct WebhookClient(Arc<Exchanger>);

// === impl Received ===

impl Received {
    /// A header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the body came in chunks, although there is none.
    pub fn is_chunked_and_empty(&self) -> bool {
        self.body.is_empty()
            && self.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"))
    }
}

// === impl WebhookClient ===

impl WebhookClient {
    /// A client. Fails where certificates to trust cannot be read.
    pub fn new(connecting: Connecting) -> Result<WebhookClient, String> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &connecting.trust {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| error.to_string())?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        // Without the system's certificates only those given are trusted.
        roots.add_parsable_certificates(
            rustls_native_certs::load_native_certs().unwrap_or_default(),
        );
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(WebhookClient(Arc::new(Exchanger {
            resolve: connecting.resolve,
            connect_to: connecting.connect_to,
            tls: Arc::new(tls),
            idle: connecting.reuse.then(|| Mutex::new(HashMap::new())),
        })))
    }

    /// Makes the request, with retries and redirects, and keeps the cookies.
    pub async fn fetch(&self, webhook: &Webhook<'_>, jar: &mut Jar) -> Fetched {
        let begun = Instant::now();
        let limits = match Overrides::of(webhook.url) {
            Ok(limits) => limits,
            Err(code) => {
                return Fetched { result: Err(code), took: begun.elapsed(), attempts: Vec::new() };
            }
        };
        let mut asking = Asking { exchanger: &self.0, limits, jar, begun, attempts: Vec::new() };
        let result = match tokio::time::timeout(limits.total, asking.follow(webhook)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::TotalTimeout.code()),
        };
        let (took, mut attempts) = (begun.elapsed(), asking.attempts);
        // What was cut off by the end of all time did not note how long it took.
        if result.is_err()
            && let Some(last) = attempts.last_mut()
            && last.status.is_none()
            && last.took_ms == 0
        {
            last.took_ms = millis(took).saturating_sub(last.at_ms);
        }
        Fetched { result, took, attempts }
    }
}

/// A webhook on its way.
struct Asking<'a> {
    exchanger: &'a Exchanger,
    limits: Overrides,
    jar: &'a mut Jar,
    begun: Instant,
    attempts: Vec<Attempt>,
}

// === impl Asking ===

impl Asking<'_> {
    /// The URL, and where it redirects to.
    async fn follow(&mut self, webhook: &Webhook<'_>) -> Result<Received, u32> {
        let mut received = self.tries(webhook).await?;
        if !(300..400).contains(&received.status) {
            return Ok(received);
        }
        // What was pressed is not sent again.
        let pressed = |name: &str| matches!(name, "Digits" | "FinishedOnKey");
        let form = Form::from_pairs(webhook.form.iter().filter(|(name, _)| !pressed(name)));
        let (mut url, mut method) = (webhook.url.clone(), webhook.method.clone());
        for _ in 0..MOST_REDIRECTS {
            if !matches!(received.status, 301 | 302 | 303 | 307) {
                return Err(BAD_REDIRECT);
            }
            let to = received.header("location").ok_or(BAD_REDIRECT)?;
            url = url.join(to).map_err(|_| BAD_REDIRECT)?;
            if received.status != 307 {
                method = Method::GET;
            }
            let next =
                Webhook { url: &url, method: method.clone(), form: &form, ..webhook.clone() };
            received = self.tries(&next).await?;
            if !(300..400).contains(&received.status) {
                return Ok(received);
            }
        }
        Err(TOO_MANY_REDIRECTS)
    }

    /// One URL, as often as its overrides allow.
    async fn tries(&mut self, webhook: &Webhook<'_>) -> Result<Received, u32> {
        let on = self.limits.on;
        let mut left = self.limits.retries;
        loop {
            let result = self.attempt(webhook).await;
            let again = match &result {
                Ok(received) if received.status >= 500 => on.status_5xx,
                Ok(received) if received.status >= 400 => on.status_4xx,
                Err(Failure::ConnectTimeout | Failure::Refused | Failure::Tls(_)) => on.connect,
                Err(Failure::ReadTimeout) => on.read,
                Ok(_) | Err(_) => false,
            };
            if left == 0 || !again {
                return result.map_err(Failure::code);
            }
            left -= 1;
        }
    }

    /// One request, and one more with the URL's password if that is asked for.
    async fn attempt(&mut self, webhook: &Webhook<'_>) -> Result<Received, Failure> {
        let result = self.exchange(webhook).await;
        let wants_password = matches!(&result, Ok(received) if received.status == 401
            && received.header("www-authenticate").is_some_and(|way| way.starts_with("Basic")));
        if wants_password && !webhook.url.username().is_empty() && self.jar.log_in(webhook.url) {
            return self.exchange(webhook).await;
        }
        result
    }

    async fn exchange(&mut self, webhook: &Webhook<'_>) -> Result<Received, Failure> {
        let request = request(webhook, self.jar)?;
        let at = self.begun.elapsed();
        // Noted before, so that it is known of even if the time is over in the middle of it.
        self.attempts.push(Attempt { at_ms: millis(at), took_ms: 0, sent: false, status: None });
        let index = self.attempts.len() - 1;
        let sent = &mut self.attempts[index].sent;
        let result = self.exchanger.exchange(webhook.url, request, &self.limits, sent).await;
        let attempt = &mut self.attempts[index];
        attempt.took_ms = millis(self.begun.elapsed() - at);
        let received = result?;
        attempt.status = Some(received.status);
        self.jar.keep(webhook.url, &received.headers);
        Ok(received)
    }
}

/// The signature of a request, by Twilio's rule for Voice.
pub fn signature(webhook: &Webhook<'_>) -> String {
    let (base, target) = base_and_target(webhook);
    match webhook.method {
        Method::POST => webhook.key.sign(&base, &target, Content::Form(webhook.form)),
        _ => webhook.key.sign(&base, &target, Content::Empty),
    }
}

fn request(webhook: &Webhook<'_>, jar: &Jar) -> Result<Request<Full<Bytes>>, Failure> {
    let (_, target) = base_and_target(webhook);
    let authority = &webhook.url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::builder()
        .method(webhook.method.clone())
        .uri(target)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "TwilioProxy/1.1")
        .header(header::ACCEPT, "*/*")
        .header("x-home-region", "us1")
        .header("x-twilio-signature", signature(webhook));
    if !webhook.idempotency_token.is_empty() {
        request = request.header("i-twilio-idempotency-token", webhook.idempotency_token);
    }
    if let Some(cookies) = jar.cookies_for(webhook.url) {
        request = request.header(header::COOKIE, cookies);
    }
    if jar.is_logged_in(webhook.url) {
        let password = webhook.url.password().unwrap_or_default();
        let pair = STANDARD.encode(format!("{}:{password}", webhook.url.username()));
        request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
    }
    let body = if webhook.method == Method::POST {
        request = request
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8");
        Bytes::from(webhook.form.encode())
    } else {
        Bytes::new()
    };
    request.body(Full::new(body)).map_err(|_| Failure::BadUrl)
}

/// The URL as it is signed, in two parts, and its second part as it is asked for. Over https the port
/// is not signed, and credentials never are.
fn base_and_target(webhook: &Webhook<'_>) -> (String, String) {
    let url = webhook.url;
    let host = url.host_str().unwrap_or_default();
    let port = url
        .port()
        .filter(|_| url.scheme() == "http")
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let mut target = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
    if webhook.method == Method::GET && !webhook.form.is_empty() {
        target.push(if url.query().is_some() { '&' } else { '?' });
        target.push_str(&webhook.form.encode());
    }
    (format!("{}://{host}{port}", url.scheme()), target)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
