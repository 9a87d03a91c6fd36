//! The adapter between pingora and the rest: one short phase each, and no decision of its own.
//!
//! Visits are read whole and answered from `request_filter`; only media and passed-through requests
//! go on to pingora's own streaming, because it sends a response header before a body could be
//! judged.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use holdline_policy::{Access, Found, Kind, Moment, Upstream};
use http::{HeaderMap, HeaderName, Method, Version, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::answer::{Answer, Refusal};
use crate::config::{Unlisted, Worth};
use crate::ingress::{Arrival, Head, cookies, passes_on};
use crate::listener;
use crate::listener::clients::{Busy, Client};
use crate::listener::head::Malformed;
use crate::record::Record;
use crate::telemetry::InFlight;
use crate::{Current, Holdline};

/// Who answered: on every answer to a visit.
pub const ANSWERED_BY: HeaderName = HeaderName::from_static("holdline-answered-by");

/// Where balancers and name servers ask whether this edge can serve callers.
const HEALTH: &str = "/holdline/health";
/// How long an upstream may be silent while it streams audio: a conference waits for it.
const MEDIA_TIME: Duration = Duration::from_secs(4);
/// How long it may be silent while it streams anything else.
const STREAM_TIME: Duration = Duration::from_secs(60);
/// How long each single read of a body may take, and each single write.
const READ_TIME: Duration = Duration::from_secs(10);

/// The edge as pingora sees it.
pub struct Edge(pub Current);

/// What belongs to one request.
pub struct Ctx {
    record: Record,
    /// Keeps the connection from being taken for an idle one.
    _busy: Option<Busy>,
    /// Counts a request that is streamed as being in flight.
    streaming: Option<InFlight>,
    /// The row whose audio stands in when streaming it fails.
    media: Option<usize>,
    /// The methods the row takes, where the request came with another.
    allow: Option<String>,
}

/// What to do with a request whose head was read.
enum Way {
    /// Answer it.
    Answer(Answer),
    /// Stream it.
    Stream,
}

// === impl Edge ===

impl Edge {
    /// Reads the request and gets its answer.
    async fn meet(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Way, Refusal> {
        let holdline = ctx.record.holdline.clone();
        let (client, began) = who_asks(session, &holdline, &mut ctx.record);
        let request = session.req_header();
        let head = Head {
            method: &request.method,
            target: request.raw_path(),
            needs_host: request.version == Version::HTTP_11,
            fields: &request.headers,
        };
        head.check(holdline.limits.head)?;
        if head.path() == HEALTH {
            ctx.record.is_a_look = true;
            if !matches!(*head.method, Method::GET | Method::HEAD) {
                ctx.allow = Some("GET, HEAD".to_owned());
                return Err(Refusal::WrongMethod);
            }
            return Ok(Way::Answer(Answer::Health(holdline.health())));
        }
        let (limits, relay) = (&holdline.limits, &holdline.relay);
        let catalogue = &relay.catalogue;
        let in_flight = relay.metrics.requests_in_flight.get();
        let (index, row) = match head.place(catalogue) {
            Found::Row(index, row) => (index, row),
            Found::WrongMethod(row) => {
                ctx.allow = Some(row.methods.join(", "));
                return Err(Refusal::WrongMethod);
            }
            Found::Unlisted => {
                let passes =
                    holdline.unlisted == Unlisted::Pass && !head.resembles_a_row(catalogue);
                return match passes {
                    // By the operator's order nobody asks the origin.
                    true if relay.standing().origin == Access::Barred => Err(Refusal::Busy),
                    true if limits.has_room(Worth::Passed, in_flight) => {
                        ctx.streaming = Some(relay.metrics.begin());
                        Ok(Way::Stream)
                    }
                    true => {
                        relay.metrics.shed("unlisted");
                        Err(Refusal::Busy)
                    }
                    false => Err(Refusal::Unlisted),
                };
            }
        };
        ctx.record.row = Some(index);
        let worth = match row.kind {
            Kind::Media => Worth::Passed,
            Kind::Asynchronous => Worth::Reported,
            Kind::Synchronous => Worth::Asked,
        };
        let shed = !limits.has_room(worth, in_flight);
        if shed {
            relay.metrics.shed(row.kind.name());
        }
        if row.kind == Kind::Media {
            return Ok(media(&holdline, index, shed, ctx));
        }
        let mut arrival = head.arrival(began, client);
        arrival.shed = shed;
        let patience =
            if row.kind == Kind::Synchronous { row.budget / 2 } else { limits.body_time };
        arrival.body = match read_body(session, row.body_limit, patience).await {
            Ok(body) => body,
            // Somebody waits on the phone for a request that was held up on the way to us.
            Err(Refusal::BodyTooSlow) if row.kind == Kind::Synchronous => {
                close_unread(session);
                return Ok(Way::Answer(relay.final_answer(row)));
            }
            Err(refusal) => return Err(refusal),
        };
        if shed && row.kind == Kind::Synchronous {
            return Ok(Way::Answer(relay.final_answer(row)));
        }
        Ok(Way::Answer(shielded(&holdline, arrival, index, &mut ctx.record).await))
    }
}

/// Who asks, and since when: of a request over HTTP/1, since its first byte.
fn who_asks(
    session: &Session,
    holdline: &Holdline,
    record: &mut Record,
) -> (Option<IpAddr>, Moment) {
    let Some(client) = listener::client(session) else { return (None, record.started) };
    let fields = &session.req_header().headers;
    if !session.is_http2() {
        record.started = client.began();
    }
    if client.may_be_believed {
        record.ray = holdline.trust.ray(client.address, fields).map(str::to_owned);
    }
    (Some(address_of(client, holdline, fields)), record.started)
}

/// Where a client is, as far as what it says may be believed.
fn address_of(client: &Client, holdline: &Holdline, fields: &HeaderMap) -> IpAddr {
    match client.may_be_believed {
        true => holdline.trust.client(client.address, fields),
        false => client.address,
    }
}

/// Answers, and answers canned if answering panics: a person is waiting on the phone.
async fn shielded(
    holdline: &Holdline,
    arrival: Arrival,
    index: usize,
    record: &mut Record,
) -> Answer {
    let answering = holdline.answer(arrival, index, record);
    if_it_does_not_panic(answering).await.unwrap_or_else(|| {
        record.panicked = true;
        let row = &holdline.relay.catalogue.rows()[index];
        tracing::error!(row = row.name, "a panic while answering");
        if row.kind == Kind::Asynchronous {
            holdline.relay.metrics.callback_lost.inc();
        }
        holdline.relay.final_answer(row)
    })
}

/// Audio is streamed from the origin while that is believed to serve, and given canned otherwise.
fn media(holdline: &Holdline, index: usize, shed: bool, ctx: &mut Ctx) -> Way {
    let relay = &holdline.relay;
    let access = relay.standing_of(index).origin;
    let serving = !shed && matches!(access, Access::Serving | Access::OnTrial);
    if serving && relay.targets[Upstream::Origin.index()].peer().is_some() {
        ctx.media = Some(index);
        ctx.streaming = Some(relay.metrics.begin());
        Way::Stream
    } else {
        Way::Answer(relay.final_answer(&relay.catalogue.rows()[index]))
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let record = Record::begin(self.0.load_full());
        Ctx { record, _busy: None, streaming: None, media: None, allow: None }
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> pingora_error::Result<()> {
        if session.is_http2() {
            let now = ctx.record.started;
            ctx._busy = listener::client(session).map(|client| client.begin(now));
        }
        session.set_read_timeout(Some(READ_TIME));
        session.set_write_timeout(Some(READ_TIME));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> pingora_error::Result<bool> {
        let answer = match self.meet(session, ctx).await {
            Ok(Way::Stream) => {
                session.set_read_timeout(Some(STREAM_TIME));
                return Ok(false);
            }
            Ok(Way::Answer(answer)) => answer,
            Err(refusal) => Answer::Refusal(refusal),
        };
        ctx.record.answered(&answer);
        write(session, &answer, ctx.allow.as_deref()).await?;
        ctx.record.written();
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        ctx: &mut Ctx,
    ) -> pingora_error::Result<Box<HttpPeer>> {
        let target = &ctx.record.holdline.relay.targets[Upstream::Origin.index()];
        match target.peer() {
            Some(peer) => {
                let mut peer = HttpPeer::clone(&peer);
                let patience = if ctx.media.is_some() { MEDIA_TIME } else { STREAM_TIME };
                peer.options.read_timeout = Some(patience);
                peer.options.write_timeout = Some(patience);
                Ok(Box::new(peer))
            }
            None => {
                Error::e_explain(ErrorType::ConnectNoRoute, "no address is known for the origin")
            }
        }
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> pingora_error::Result<()> {
        let holdline = &ctx.record.holdline;
        let origin = &holdline.relay.targets[Upstream::Origin.index()].config;
        let ours: Vec<HeaderName> =
            request.headers.keys().filter(|name| !passes_on(name)).cloned().collect();
        for name in ours {
            request.remove_header(&name);
        }
        if let Some(cookies) = cookies(&request.headers) {
            request.insert_header(header::COOKIE, cookies)?;
        }
        request.insert_header(header::HOST, origin.host_field.as_str())?;
        if !origin.path.is_empty() {
            let target = [origin.path.as_bytes(), request.raw_path()].concat();
            request.set_raw_path(&target)?;
        }
        if let Some(client) = listener::client(session) {
            let client = address_of(client, holdline, &session.req_header().headers);
            request.insert_header("x-forwarded-for", client.to_string())?;
        }
        let proto = if holdline.relay.public_url.is_https() { "https" } else { "http" };
        request.insert_header("x-forwarded-proto", proto)?;
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora_error::Result<()> {
        let usable =
            response.status.is_informational() || response.status == 200 || response.status == 206;
        if ctx.media.is_some() && !usable {
            return Error::e_explain(ErrorType::HTTPStatus(response.status.as_u16()), "no audio");
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let gone =
            session.response_written().is_some() || error.esource() == &ErrorSource::Downstream;
        // The framework closes the connection after a failed stream whatever is answered; say so.
        session.set_keepalive(None);
        if !gone {
            let relay = &ctx.record.holdline.relay;
            let answer = match ctx.media {
                Some(index) => relay.final_answer(&relay.catalogue.rows()[index]),
                None => Answer::BadGateway,
            };
            ctx.record.answered(&answer);
            if write(session, &answer, None).await.is_ok() {
                ctx.record.written();
            }
        }
        FailToProxy {
            error_code: session.response_written().map_or(0, |r| r.status.as_u16()),
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        // Everything answered here is in the record already; what was streamed is not.
        if !ctx.record.is_answered() {
            let status = session.response_written().map(|response| response.status.as_u16());
            ctx.record.streamed(status, error.is_none(), ctx.media.is_some());
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Ctx, _: &Error) -> bool {
        true
    }
}

/// The answer; `None` if answering panicked.
async fn if_it_does_not_panic<T>(answering: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(answering).catch_unwind().await.ok()
}

async fn read_body(
    session: &mut Session,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Refusal> {
    let request = session.req_header();
    let declared = request
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(Refusal::BodyTooLarge);
    }
    // The client may as well have gone away; then nobody hears of it.
    let chunked = request.headers.contains_key(header::TRANSFER_ENCODING);
    let broken = if chunked { Refusal::Malformed(Malformed::Chunks) } else { Refusal::BadRequest };
    let expects = request
        .headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        && request.version != Version::HTTP_10;
    let read = async {
        if expects {
            session.write_continue_response().await.map_err(|_| Refusal::BadRequest)?;
        }
        let mut first: Option<Bytes> = None;
        let mut whole = BytesMut::new();
        while let Some(piece) = session.read_request_body().await.map_err(|_| broken)? {
            let before = first.as_ref().map_or(whole.len(), Bytes::len);
            if before + piece.len() > limit {
                return Err(Refusal::BodyTooLarge);
            }
            // Nearly every body comes in one piece, which then need not be copied.
            match first.take() {
                None if whole.is_empty() => first = Some(piece),
                None => whole.extend_from_slice(&piece),
                Some(earlier) => {
                    whole.extend_from_slice(&earlier);
                    whole.extend_from_slice(&piece);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    };
    match pingora_timeout::fast_timeout::fast_timeout(patience, read).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::BodyTooSlow),
    }
}

/// The connection ends with this answer, though the client may still be sending.
fn close_unread(session: &mut Session) {
    session.set_keepalive(None);
    if let Some(client) = listener::client(session) {
        client.leaves_unread();
    }
}

async fn write(
    session: &mut Session,
    answer: &Answer,
    allow: Option<&str>,
) -> pingora_error::Result<()> {
    if matches!(answer, Answer::Refusal(refusal) if refusal.closes()) {
        close_unread(session);
    }
    let content = answer.content();
    let mut response = ResponseHeader::build_no_case(answer.status(), Some(6))?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    response.insert_header(ANSWERED_BY, answer.by().name())?;
    if let Answer::Document { cookies, .. } = answer {
        for cookie in cookies {
            response.append_header(header::SET_COOKIE, cookie.clone())?;
        }
    }
    if let Some(allow) = allow {
        response.insert_header(header::ALLOW, allow)?;
    }
    let Some((content_type, body)) = content else {
        return session.write_response_header(Box::new(response), true).await;
    };
    response.insert_header(header::CONTENT_TYPE, content_type)?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    let only_head = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(response), only_head).await?;
    if only_head { Ok(()) } else { session.write_response_body(Some(body), true).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_no_silence() {
        assert_eq!(if_it_does_not_panic(async { 7 }).await, Some(7));
        let panics = async { if true { panic!("on purpose") } else { 7 } };
        assert_eq!(if_it_does_not_panic(panics).await, None);
    }
}
