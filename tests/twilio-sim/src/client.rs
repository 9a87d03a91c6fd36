//! The webhook client: a request as Twilio makes it, with Twilio's limits.
//!
//! Two tries of 5 s to connect, 15 s for everything; a new connection every time; no retry once a
//! byte was sent (twilio.com/docs/usage/webhooks/webhooks-connection-overrides).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

/// For connecting, once.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Tries to connect.
pub const CONNECT_TRIES: u32 = 2;
/// For everything.
pub const TOTAL: Duration = Duration::from_secs(15);
/// More than any document may have; what is longer is cut off here.
const LARGEST_BODY: usize = 1024 * 1024;

/// A request.
#[derive(Debug, Clone)]
pub struct Webhook<'a> {
    /// Where to; a fragment is never sent.
    pub url: &'a Url,
    /// GET or POST.
    pub method: Method,
    /// The parameters.
    pub form: &'a Form,
    /// The account's auth token, as a key.
    pub key: &'a Key,
    /// What repeated requests are told by; none is sent where it is empty.
    pub idempotency_token: &'a str,
    /// Where to connect instead of what the host resolves to.
    pub connect_to: Option<SocketAddr>,
}

/// What came back, and how long it took.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The answer, or Twilio's error number.
    pub result: Result<Received, u32>,
    /// How long it took.
    pub took: Duration,
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

// === impl Received ===

impl Received {
    /// A header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Makes the request.
pub async fn fetch(webhook: &Webhook<'_>) -> Fetched {
    let begun = Instant::now();
    let result = match tokio::time::timeout(TOTAL, exchange(webhook)).await {
        Ok(result) => result,
        Err(_) => Err(11203),
    };
    Fetched { result, took: begun.elapsed() }
}

/// The signature of a request, by Twilio's rule for Voice.
pub fn signature(webhook: &Webhook<'_>) -> String {
    let (base, target) = base_and_target(webhook);
    match webhook.method {
        Method::POST => webhook.key.sign(&base, &target, Content::Form(webhook.form)),
        _ => webhook.key.sign(&base, &target, Content::Empty),
    }
}

async fn exchange(webhook: &Webhook<'_>) -> Result<Received, u32> {
    if webhook.url.scheme() != "http" {
        return Err(11100);
    }
    let host =
        webhook.url.host_str().ok_or(11100u32)?.trim_start_matches('[').trim_end_matches(']');
    let port = webhook.url.port_or_known_default().ok_or(11100u32)?;
    let stream = match webhook.connect_to {
        Some(address) => connect(address).await?,
        None => connect((host, port)).await?,
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| 11206u32)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request(webhook)?).await.map_err(|_| 11200u32)?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await.map_err(|_| 11200u32)?.to_bytes();
    connection.abort();
    Ok(Received { status: parts.status.as_u16(), headers: parts.headers, body })
}

async fn connect(to: impl tokio::net::ToSocketAddrs + Clone) -> Result<TcpStream, u32> {
    let mut error = 11200;
    for _ in 0..CONNECT_TRIES {
        match tokio::time::timeout(CONNECT, TcpStream::connect(to.clone())).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(_)) => error = 11202,
            Err(_) => error = 11201,
        }
    }
    Err(error)
}

fn request(webhook: &Webhook<'_>) -> Result<Request<Full<Bytes>>, u32> {
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
    let body = if webhook.method == Method::POST {
        request = request
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8");
        Bytes::from(webhook.form.encode())
    } else {
        Bytes::new()
    };
    request.body(Full::new(body)).map_err(|_| 11100)
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
