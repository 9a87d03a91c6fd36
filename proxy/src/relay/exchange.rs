//! One attempt at one upstream: the request goes out, the answer comes in whole and bounded.
//!
//! This is pingora's connector and pool used directly, because an answer must be judged before a
//! byte of it may leave, and because only an exchange of our own can be bounded as a whole: an
//! upstream that drips its header byte by byte resets every per-read timeout there is.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use holdline_policy::{Ended, Outcome, Sent};
use http::{HeaderName, HeaderValue, Method, header};
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use pingora_error::{Error, ErrorType};
use pingora_http::RequestHeader;

use super::one_write::OneWrite;
use crate::ingress::SIGNATURE;
use crate::upstream::Peers;

/// Names of the fields that the edge adds to a request.
pub mod fields {
    use http::HeaderName;

    /// The delivery id: the same for every attempt at one visit.
    pub const DELIVERY: HeaderName = HeaderName::from_static("holdline-delivery");
    /// Twilio's own signature, kept as evidence.
    pub const EVIDENCE: HeaderName = HeaderName::from_static("holdline-twilio-signature");
    /// On a 503: the upstream did not run the request.
    pub const NOT_RUN: HeaderName = HeaderName::from_static("holdline-not-run");
    pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
}

/// The largest answer that is read. One byte more than a document may have tells "too large" from
/// "just fits".
const LARGEST_ANSWER: usize = holdline_twilio::document::MAX_BYTES + 1;

/// A request as every attempt sends it; only host and signature differ between upstreams.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// End-to-end fields of the original.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// The delivery id.
    pub delivery: HeaderValue,
    /// Twilio's own signature.
    pub evidence: Option<HeaderValue>,
    /// Who connected to the edge, and whether Twilio used TLS.
    pub client: Option<IpAddr>,
    /// `https` or `http`.
    pub proto: &'static str,
    /// Whether another connection may be used when a pooled one breaks before it answers.
    pub repeatable: bool,
}

/// What an upstream answered.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Whether it says that it did not run the request.
    pub not_run: bool,
    /// Its cookies.
    pub cookies: Vec<HeaderValue>,
    /// Its body, cut off behind the largest size that can be judged.
    pub body: Bytes,
}

/// Sends the request and reads the answer. A pooled connection is used only where a second one may be
/// tried, and not where `fresh` forbids it.
pub async fn exchange(
    connector: &TransportConnector,
    peers: &Peers,
    host: &str,
    signature: Option<&HeaderValue>,
    outgoing: &Outgoing,
    fresh: bool,
) -> Result<Reply, Ended> {
    let pooled = outgoing.repeatable && !fresh;
    let first = if pooled { &peers.pooled } else { &peers.fresh };
    match attempt(connector, first, peers, host, signature, outgoing).await {
        // A pooled connection that the upstream closed just as it was used again says nothing of the
        // upstream; a new connection does.
        Err(Broken { reused: true, answered: false, .. }) if outgoing.repeatable => {
            attempt(connector, &peers.fresh, peers, host, signature, outgoing)
                .await
                .map_err(|b| b.ended)
        }
        other => other.map_err(|broken| broken.ended),
    }
}

/// How an attempt failed, with what is needed to decide about another connection.
struct Broken {
    ended: Ended,
    reused: bool,
    answered: bool,
}

async fn attempt(
    connector: &TransportConnector,
    peer: &HttpPeer,
    peers: &Peers,
    host: &str,
    signature: Option<&HeaderValue>,
    outgoing: &Outgoing,
) -> Result<Reply, Broken> {
    let request = request_header(outgoing, host, signature).map_err(|_| Broken {
        ended: unsent(Outcome::Broken),
        reused: false,
        answered: false,
    })?;
    let (stream, reused) = match connector.reused_stream(peer).await {
        Some(stream) => (stream, true),
        // Connecting is rare and its future large; boxed, it does not weigh on those that reuse.
        None => match Box::pin(connector.new_stream(peer)).await {
            Ok(stream) => (stream, false),
            Err(error) => {
                let ended = unsent(connect_outcome(&error));
                return Err(Broken { ended, reused: false, answered: false });
            }
        },
    };
    let stream = if outgoing.body.is_empty() { stream } else { OneWrite::around(stream) };
    let mut session = HttpSession::new(stream);
    let mut answered = false;
    let reply = converse(&mut session, request, &outgoing.body, &mut answered).await;
    match reply {
        Ok((reply, whole)) => {
            if whole {
                give_back(connector, peers, session).await;
            }
            Ok(reply)
        }
        Err(_) => {
            let ended = Ended { outcome: Outcome::Broken, sent: Sent::Something };
            Err(Broken { ended, reused, answered })
        }
    }
}

/// Puts a connection whose answer was read whole into the pool, if both ends keep it.
async fn give_back(connector: &TransportConnector, peers: &Peers, mut session: HttpSession) {
    session.respect_keepalive();
    if let Some(stream) = session.reuse().await {
        let peer = &peers.pooled;
        connector.release_stream(
            OneWrite::unwrap(stream),
            peer.reuse_hash(),
            peer.options.idle_timeout,
        );
    }
}

async fn converse(
    session: &mut HttpSession,
    request: RequestHeader,
    body: &[u8],
    answered: &mut bool,
) -> pingora_error::Result<(Reply, bool)> {
    session.write_request_header(Box::new(request)).await?;
    if !body.is_empty() {
        session.write_body(body).await?;
    }
    session.finish_body().await?;
    let (status, not_run, cookies) = loop {
        session.read_response().await?;
        *answered = true;
        let Some(head) = session.resp_header() else { return Error::err(ErrorType::ReadError) };
        if !head.status.is_informational() {
            let not_run = head.headers.get(fields::NOT_RUN).is_some_and(|value| value == "1");
            let cookies = head.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
            break (head.status.as_u16(), not_run, cookies);
        }
    };
    let mut whole = BytesMut::new();
    let mut single: Option<Bytes> = None;
    while let Some(piece) = session.read_body_bytes().await? {
        // Nearly every answer comes in one piece, which then need not be copied.
        match (single.take(), whole.is_empty()) {
            (None, true) => single = Some(piece),
            (Some(first), _) => {
                whole.extend_from_slice(&first);
                whole.extend_from_slice(&piece);
            }
            (None, false) => whole.extend_from_slice(&piece),
        }
        let read = single.as_ref().map_or(whole.len(), Bytes::len);
        if read > LARGEST_ANSWER {
            let body = single.unwrap_or_else(|| whole.freeze());
            return Ok((
                Reply { status, not_run, cookies, body: body.slice(..LARGEST_ANSWER) },
                false,
            ));
        }
    }
    let body = single.unwrap_or_else(|| whole.freeze());
    Ok((Reply { status, not_run, cookies, body }, true))
}

fn request_header(
    outgoing: &Outgoing,
    host: &str,
    signature: Option<&HeaderValue>,
) -> pingora_error::Result<RequestHeader> {
    let size = outgoing.fields.len() + 8;
    let mut request = RequestHeader::build_no_case(
        outgoing.method.clone(),
        outgoing.target.as_bytes(),
        Some(size),
    )?;
    request.append_header(header::HOST, host)?;
    for (name, value) in &outgoing.fields {
        request.append_header(name.clone(), value.clone())?;
    }
    if outgoing.method != Method::GET || !outgoing.body.is_empty() {
        request.append_header(header::CONTENT_LENGTH, outgoing.body.len())?;
    }
    request.append_header(fields::DELIVERY, outgoing.delivery.clone())?;
    if let Some(signature) = signature {
        request.append_header(SIGNATURE, signature.clone())?;
    }
    if let Some(evidence) = &outgoing.evidence {
        request.append_header(fields::EVIDENCE, evidence.clone())?;
    }
    if let Some(client) = outgoing.client {
        request.append_header(fields::FORWARDED_FOR, client.to_string())?;
    }
    request.append_header(fields::FORWARDED_PROTO, outgoing.proto)?;
    Ok(request)
}

fn unsent(outcome: Outcome) -> Ended {
    Ended { outcome, sent: Sent::Nothing }
}

fn connect_outcome(error: &Error) -> Outcome {
    match error.etype() {
        ErrorType::ConnectTimedout => Outcome::ConnectTimedOut,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::TLSWantX509Lookup
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Outcome::TlsFailed,
        _ => Outcome::Refused,
    }
}
