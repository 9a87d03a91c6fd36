//! A connection as the framework reads and writes it: plain or TLS, with what was read ahead of it.
//!
//! Heads are read whole and checked before the framework sees a byte of them. What was read so is given
//! to it first, as if it came from the socket just now. The framework carries with each request who is
//! connected ([`Client`]).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::chunks::Chunks;
use super::clients::Client;

/// How long a client may take nothing of what it is sent.
const STALL: Duration = Duration::from_secs(10);
/// How long, and how much, a client is listened to after an answer that came before its request was read.
const LINGER: Duration = Duration::from_secs(1);
const LEFTOVER: u64 = 256 * 1024;
/// Bytes taken from a socket at once while reading ahead.
const GULP: usize = 8 * 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// What was read and not given on yet.
    pub(super) ahead: BytesMut,
    /// The framing of the body that is being read, where it comes in chunks.
    pub(super) chunks: Option<Chunks>,
    client: Arc<Client>,
    /// The same, as the framework carries it.
    carried: Arc<ProxyDigest>,
    /// Runs while the client does not take what it is sent.
    stall: Option<Pin<Box<Sleep>>>,
}

/// What carries the bytes: the network itself, or TLS over it.
pub(super) type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

// === impl Wire ===

impl Wire {
    /// A connection with its client. The framework has no place for what belongs to a connection but the
    /// one for proxies on the way to an upstream; it carries that beside every request.
    pub(super) fn new(socket: Socket, client: Arc<Client>) -> pingora_error::Result<Wire> {
        let unused = Box::new(ResponseHeader::build_no_case(200, Some(0))?);
        let carried = Arc::new(ProxyDigest::new(unused, Some(Box::new(client.clone()))));
        let (ahead, chunks, stall) = (BytesMut::new(), None, None);
        Ok(Wire { socket, ahead, chunks, client, carried, stall })
    }

    /// Reads once into what was read ahead. Zero bytes: the other side is done.
    pub(super) fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); GULP];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Reads once into what was read ahead.
    pub(super) async fn read_ahead(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_ahead(context)).await
    }

    /// Whether both sides agreed on HTTP/2 while greeting.
    pub(super) fn is_http2(&self) -> bool {
        matches!(&self.socket, Either::Right(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }
}

/// Who is connected, as the framework carries it.
pub fn client(session: &ServerSession) -> Option<&Arc<Client>> {
    session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
            if let Some(chunks) = &mut self.chunks {
                chunks.read(&buffer.filled()[before..]).map_err(io::Error::other)?;
            }
            return Poll::Ready(Ok(()));
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        if length == self.ahead.len() {
            // An idle connection holds no memory for what it once read.
            self.ahead = BytesMut::new();
        } else {
            self.ahead.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    /// Gives up on a client that does not take what it is sent: what is pending for too long has failed.
    fn unless_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        sent: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stall = None;
            return sent;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.unless_stalled(context, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.unless_stalled(context, sent)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.socket).poll_flush(context);
        self.unless_stalled(context, sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = Pin::new(&mut self.socket).poll_shutdown(context);
        self.unless_stalled(context, sent)
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        // The other side may be gone already.
        let _ = AsyncWriteExt::shutdown(self).await;
        if self.client.left_unread() {
            read_rest(&mut self.socket, LINGER).await;
        }
    }
}

/// Reads what a client still sends after it was answered: closing with something unread would take the
/// answer back.
pub(super) async fn read_rest(stream: &mut (impl AsyncRead + Unpin), within: Duration) {
    let mut unread = stream.take(LEFTOVER);
    // The client may be gone; there is nobody else to tell.
    let _ = fast_timeout(within, tokio::io::copy(&mut unread, &mut tokio::io::sink())).await;
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        match &self.socket {
            Either::Left(tcp) => tcp.as_raw_fd(),
            Either::Right(tls) => tls.get_ref().0.as_raw_fd(),
        }
    }
}

impl Ssl for Wire {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.is_http2().then_some(ALPN::H2)
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.carried.clone())
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

/// The framework looks for the greeting of HTTP/2 without TLS in what was read ahead.
#[async_trait]
impl Peek for Wire {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(ahead) = self.ahead.get(..buffer.len()) else { return Ok(false) };
        buffer.copy_from_slice(ahead);
        Ok(true)
    }
}
