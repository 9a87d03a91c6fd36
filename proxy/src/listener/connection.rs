//! The life of a connection: idle, a head read whole and checked, a request answered, idle again.
//!
//! The framework reads heads without a limit on their time and with kindness; so they are read here,
//! and it is given one whole head at a time. HTTP/2 has its own framing and is left to it.

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora_core::apps::{HttpServerApp as _, ServerApp as _};
use pingora_core::protocols::http::ServerSession;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::chunks::Chunks;
use super::clients::{Busy, Client};
use super::head::{Malformed, Reader, Whole, Wrong};
use super::wire::{Wire, read_rest};
use super::{Closed, Door};
use crate::answer::{Answer, AnsweredBy, Refusal};
use crate::config::Limits;
use crate::edge::ANSWERED_BY;

/// What a client that knows HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a client of HTTP/2 has to send what is on its way when its connection ends.
const GOING: Duration = Duration::from_secs(2);
/// How long whoever is turned away is listened to: his place is wanted.
const TURNED_AWAY: Duration = Duration::from_millis(500);

/// A connection whose client is known.
pub(super) struct Connection {
    pub(super) door: Arc<Door>,
    pub(super) wire: Wire,
    pub(super) client: Arc<Client>,
    /// Whether HTTP/2 is taken without TLS.
    pub(super) http2: bool,
}

/// How waiting for a head ended.
enum Next {
    /// It is whole, and the first of what was read ahead.
    Head(Busy),
    /// The client greets in HTTP/2.
    Http2,
    /// It cannot be used.
    Refused(Refusal),
    /// The connection is over.
    Over(Option<Closed>),
}

// === impl Connection ===

impl Connection {
    /// Answers requests until the connection ends.
    pub(super) async fn serve(mut self) {
        if self.wire.is_http2() {
            return self.http2().await;
        }
        loop {
            let limits = self.door.current.load().limits;
            let busy = match self.next(&limits).await {
                Next::Head(busy) => busy,
                Next::Http2 => return self.http2().await,
                Next::Refused(refusal) => return self.refuse(refusal, &limits).await,
                Next::Over(why) => {
                    if let Some(why) = why {
                        self.door.metrics.closed(why);
                    }
                    return;
                }
            };
            let Connection { door, wire, client, http2 } = self;
            let mut session = ServerSession::new_http1(Box::new(wire));
            let leaving = *door.leaving.borrow();
            session.set_keepalive((!leaving).then_some(limits.idle.as_secs().max(1)));
            let reused = door.proxy.process_new_http(session, &door.leaving).await;
            drop(busy);
            let Some((stream, _)) = reused.map(|reused| reused.consume()) else { return };
            let Ok(wire) = stream.into_any().downcast::<Wire>() else { return };
            self = Connection { door, wire: *wire, client, http2 };
        }
    }

    /// Waits for a request and reads its head.
    async fn next(&mut self, limits: &Limits) -> Next {
        if self.wire.ahead.is_empty() {
            let Connection { wire, client, .. } = self;
            let first = std::future::poll_fn(|context| {
                // A request that is there already comes before the end.
                match wire.poll_ahead(context) {
                    Poll::Ready(read) => Poll::Ready(Ok(read)),
                    Poll::Pending => client.poll_ended(context.waker()).map(Err),
                }
            });
            match fast_timeout(limits.idle, first).await {
                Err(_) => return Next::Over(Some(Closed::Idle)),
                Ok(Err(why)) => return Next::Over(Some(why)),
                Ok(Ok(Err(_) | Ok(0))) => return Next::Over(None),
                Ok(Ok(Ok(_))) => {}
            }
        }
        let busy = self.client.begin(self.door.clock.now());
        match fast_timeout(limits.head_time, self.head(limits)).await {
            Err(_) => Next::Refused(Refusal::HeaderTooSlow),
            Ok(Err(_)) => Next::Over(None),
            Ok(Ok(None)) => Next::Http2,
            Ok(Ok(Some(Ok(whole)))) => {
                let mut chunks = Chunks::default();
                let body = self.wire.ahead.get(whole.end..).unwrap_or_default();
                if whole.is_chunked && chunks.read(body).is_err() {
                    return Next::Refused(Refusal::Malformed(Malformed::Chunks));
                }
                self.wire.chunks = whole.is_chunked.then_some(chunks);
                self.shorten(&whole);
                Next::Head(busy)
            }
            Ok(Ok(Some(Err(Wrong::TooLarge)))) => Next::Refused(Refusal::HeaderTooLarge),
            Ok(Ok(Some(Err(Wrong::Malformed(malformed))))) => {
                Next::Refused(Refusal::Malformed(malformed))
            }
        }
    }

    /// Reads until the head is whole; none if HTTP/2 is spoken.
    async fn head(&mut self, limits: &Limits) -> io::Result<Option<Result<Whole, Wrong>>> {
        let mut reader = Reader::default();
        loop {
            let ahead = &self.wire.ahead;
            let greeting = ahead.iter().zip(PREFACE).all(|(a, b)| a == b);
            if self.http2 && greeting {
                if ahead.len() >= PREFACE.len() {
                    return Ok(None);
                }
            } else {
                match reader.read(ahead, limits.head) {
                    Ok(None) => {}
                    Ok(Some(whole)) => return Ok(Some(Ok(whole))),
                    Err(wrong) => return Ok(Some(Err(wrong))),
                }
            }
            if self.wire.read_ahead().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes scheme and host out of an absolute target: they say what `Host` says.
    fn shorten(&mut self, whole: &Whole) {
        let Some((_, end)) = whole.authority else { return };
        let ahead = &self.wire.ahead;
        let method = memchr::memchr(b' ', ahead).map_or(0, |at| at + 1);
        let mut shorter = BytesMut::with_capacity(ahead.len());
        shorter.extend_from_slice(&ahead[..method]);
        shorter.extend_from_slice(&ahead[end..]);
        self.wire.ahead = shorter;
    }

    /// Leaves the connection to the framework, until it ends or has to make room.
    async fn http2(mut self) {
        let limits = self.door.current.load().limits;
        let greeted = fast_timeout(limits.head_time, async {
            while self.wire.ahead.len() < PREFACE.len() {
                if self.wire.read_ahead().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            io::Result::Ok(self.wire.ahead.starts_with(PREFACE))
        });
        let Ok(Ok(true)) = greeted.await else { return };
        let Connection { door, wire, client, .. } = self;
        let (tell, told) = watch::channel(false);
        let mut served = door.proxy.process_new(Box::new(wire), &told);
        let mut leaving = door.leaving.clone();
        let ended = std::future::poll_fn(|context| client.poll_ended(context.waker()));
        let ended = async {
            tokio::select! {
                why = ended => Some(why),
                () = client.idle_for(|| door.current.load().limits.idle) => Some(Closed::Idle),
                _ = leaving.wait_for(|leaving| *leaving) => None,
            }
        };
        let why = tokio::select! {
            _ = &mut served => return,
            why = ended => why,
        };
        // The client is told what will not be taken any more, and sends the rest elsewhere.
        let _ = tell.send(true);
        match why {
            Some(why) => {
                door.metrics.closed(why);
                let _ = fast_timeout(GOING, served).await;
            }
            None => {
                let ended = std::future::poll_fn(|context| client.poll_ended(context.waker()));
                tokio::select! {
                    _ = served => {}
                    why = ended => door.metrics.closed(why),
                }
            }
        }
    }

    /// Says why a request is not taken, and ends the connection.
    async fn refuse(mut self, refusal: Refusal, limits: &Limits) {
        self.door.metrics.refusal(refusal);
        self.wire.ahead.clear();
        say_and_close(&mut self.wire, &refusal_text(refusal), limits.head_time).await;
    }
}

/// Says a last word and closes, once the client has stopped to send.
async fn say_and_close(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    text: &[u8],
    within: Duration,
) {
    let farewell = async {
        stream.write_all(text).await?;
        stream.shutdown().await
    };
    // The client may be gone; there is nobody else to tell.
    if let Ok(Ok(())) = fast_timeout(within, farewell).await {
        read_rest(stream, within).await;
    }
}

/// A refusal on the wire, for a request that the framework never saw.
fn refusal_text(refusal: Refusal) -> Vec<u8> {
    let answer = Answer::Refusal(refusal);
    let (content_type, body) = answer.content().unwrap_or(("text/plain", Bytes::new()));
    let status = http::StatusCode::from_u16(answer.status()).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{}: {}\r\nConnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
        ANSWERED_BY,
        AnsweredBy::Nobody.name(),
    );
    [head.as_bytes(), &body].concat()
}

/// Tells a client that there is no place.
pub(super) async fn turn_away(mut stream: TcpStream, limits: &Limits) {
    let text = refusal_text(Refusal::TooManyConnections);
    say_and_close(&mut stream, &text, limits.head_time.min(TURNED_AWAY)).await;
}
