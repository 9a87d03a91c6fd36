//! A connection on which a request's header and body leave in one write.
//!
//! The framework flushes a request's header on its own and the body after it: two system calls, two
//! packets, and two wake-ups of the upstream for a form of a few hundred bytes. Here the header waits
//! for the body, and the flush behind the body writes both.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that leaves out its first flush, and writes nothing before its second.
#[derive(Debug)]
pub(super) struct OneWrite {
    inner: Stream,
    waiting: Vec<u8>,
    written: usize,
    leave_out: bool,
}

// === impl OneWrite ===

impl OneWrite {
    /// Wraps a connection on which a header with a body behind it is about to be written.
    pub(super) fn around(inner: Stream) -> Stream {
        Box::new(OneWrite { inner, waiting: Vec::with_capacity(2048), written: 0, leave_out: true })
    }

    /// The connection inside, or the connection itself if it was not wrapped.
    pub(super) fn unwrap(stream: Stream) -> Stream {
        if !(*stream).as_any().is::<OneWrite>() {
            return stream;
        }
        match stream.into_any().downcast::<OneWrite>() {
            Ok(one_write) => one_write.inner,
            // It was looked at just before.
            Err(_) => unreachable!("a connection changed its type"),
        }
    }
}

impl AsyncRead for OneWrite {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for OneWrite {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Bounded by the largest header and body that a visit may have.
        self.waiting.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.leave_out) {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        while this.written < this.waiting.len() {
            match ready!(Pin::new(&mut this.inner).poll_write(cx, &this.waiting[this.written..])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => this.written += written,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        this.waiting.clear();
        this.written = 0;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for OneWrite {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for OneWrite {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for OneWrite {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

#[async_trait]
impl Peek for OneWrite {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl GetTimingDigest for OneWrite {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for OneWrite {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for OneWrite {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}
