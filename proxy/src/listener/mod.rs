//! Where clients come in: from a listening socket to a request that can be read in one way only.
//!
//! ```text
//! accept → a place among the connected → PROXY header → TLS → a whole, checked head → the edge
//! ```
//!
//! Everything on the way has a limit and a time. What a client does before it has sent a request costs
//! nobody else anything.

pub mod chunks;
pub mod clients;
mod connection;
pub mod head;
pub mod proxy_protocol;
pub mod tls;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_proxy::HttpProxy;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use crate::clock::Clock;
use crate::config::{Limits, ListenerConfig};
use crate::edge::Edge;
use crate::telemetry::Metrics;
use crate::workers::{Handles, Load};
use crate::{Current, Holdline};
use clients::{Clients, Newcomer, Seat};
use connection::{Connection, turn_away};
use proxy_protocol::Said;
use tls::{Stamp, TlsFiles};
pub use wire::client;
use wire::{Socket, Wire};

/// Connections that may wait to be accepted.
pub const BACKLOG: u32 = 4096;
/// How long accepting pauses when the system has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// What a field of an HTTP/2 request counts beside its bytes (RFC 9113 section 6.5.2).
const FIELD: usize = 32;
/// Requests in flight on one HTTP/2 connection.
const MOST_STREAMS: u32 = 128;
/// How often the files of certificates are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);

/// What all listeners share.
pub struct Door {
    /// The configuration in force.
    pub current: Current,
    /// What answers.
    pub proxy: Arc<HttpProxy<Edge>>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// Whether answers ask clients to connect anew.
    pub leaving: watch::Receiver<bool>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// One listening socket.
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// None once it is closed.
    socket: Mutex<Option<std::net::TcpListener>>,
    manner: ArcSwap<Manner>,
}

/// How clients are met.
struct Manner {
    tls: Option<Tls>,
    /// Whether connections begin with a PROXY header.
    proxy_protocol: bool,
    /// Whether HTTP/2 is taken.
    http2: bool,
}

#[derive(Clone)]
struct Tls {
    files: TlsFiles,
    stamp: Stamp,
    acceptor: TlsAcceptor,
}

/// Why a connection was closed before its client wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It was idle for too long.
    Idle,
    /// It was idle, and its place was needed.
    MadeRoom,
    /// It was idle, and the process ends.
    Stopping,
    /// There are as many as allowed, and none is idle.
    TooMany,
    /// There are as many from its address as allowed.
    TooManyFromAddress,
    /// It came from no trusted network, to a listener that expects a PROXY header.
    NotTrusted,
    /// It began with no PROXY header.
    NoProxyHeader,
    /// TLS failed: no common version or cipher, no client certificate, the wrong one.
    HandshakeFailed,
    /// The PROXY header or the TLS handshake took too long.
    HandshakeTooSlow,
}

// === impl Closed ===

impl Closed {
    /// All of them.
    pub const ALL: [Closed; 9] = [
        Closed::Idle,
        Closed::MadeRoom,
        Closed::Stopping,
        Closed::TooMany,
        Closed::TooManyFromAddress,
        Closed::NotTrusted,
        Closed::NoProxyHeader,
        Closed::HandshakeFailed,
        Closed::HandshakeTooSlow,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Closed::Idle => "idle",
            Closed::MadeRoom => "made_room",
            Closed::Stopping => "stopping",
            Closed::TooMany => "too_many",
            Closed::TooManyFromAddress => "too_many_from_address",
            Closed::NotTrusted => "not_trusted",
            Closed::NoProxyHeader => "no_proxy_header",
            Closed::HandshakeFailed => "handshake_failed",
            Closed::HandshakeTooSlow => "handshake_too_slow",
        }
    }
}

// === impl Listener ===

impl Listener {
    /// A listener on a socket that is bound already.
    pub fn new(
        socket: std::net::TcpListener,
        config: ListenerConfig,
        metrics: &Metrics,
    ) -> io::Result<Listener> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let manner = ArcSwap::from_pointee(Manner::of(config, address, metrics));
        Ok(Listener { address, socket: Mutex::new(Some(socket)), manner })
    }

    /// Meets clients as configured from now on; those that are connected stay.
    pub fn configure(&self, config: ListenerConfig, metrics: &Metrics) {
        self.manner.store(Arc::new(Manner::of(config, self.address, metrics)));
    }

    /// The socket once more; none if it is closed.
    pub fn socket(&self) -> io::Result<Option<std::net::TcpListener>> {
        self.lock().as_ref().map(std::net::TcpListener::try_clone).transpose()
    }

    /// Closes the socket. Nobody can connect from then on, once nobody accepts any more.
    pub fn close(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<std::net::TcpListener>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether TLS is spoken here.
    pub fn is_tls(&self) -> bool {
        self.manner.load().tls.is_some()
    }

    /// Accepts until `closed` says so.
    pub async fn accept(
        self: Arc<Self>,
        door: Arc<Door>,
        workers: Handles,
        mut closed: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let Some(socket) = self.socket()? else { return Ok(()) };
        let socket = TcpListener::from_std(socket)?;
        // Whoever is connected already is taken in before the socket is closed.
        let mut last = BACKLOG;
        loop {
            let accepted = if *closed.borrow() {
                match socket.accept().now_or_never() {
                    Some(accepted) if last > 0 => accepted,
                    _ => return Ok(()),
                }
            } else {
                tokio::select! {
                    accepted = socket.accept() => accepted,
                    _ = closed.changed() => continue,
                }
            };
            last -= u32::from(*closed.borrow());
            match accepted {
                Ok((stream, peer)) => {
                    door.metrics.connections.inc();
                    let Ok(stream) = stream.into_std() else { continue };
                    let (handle, load) = workers.least_loaded();
                    handle.spawn(self.clone().meet(door.clone(), stream, peer, load));
                }
                Err(error) => {
                    // A client that was gone before it was accepted is its own business; when there
                    // are no descriptors, some will be free again soon.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::error!(address = %self.address, %error, "cannot accept");
                        tokio::time::sleep(EXHAUSTED).await;
                    }
                }
            }
        }
    }

    /// From a socket to a connection whose client is known, and on until it ends.
    async fn meet(
        self: Arc<Self>,
        door: Arc<Door>,
        stream: std::net::TcpStream,
        peer: SocketAddr,
        _load: Load,
    ) {
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        // Answers are small, and somebody waits for each of them.
        let _ = stream.set_nodelay(true);
        let (limits, newcomer) = {
            let current = door.current.load();
            (current.limits, newcomer(&current, peer.ip().to_canonical()))
        };
        let seat = match door.clients.admit(newcomer, limits.connections) {
            Ok(seat) => seat,
            Err(why) => {
                door.metrics.closed(why);
                return self.turn_away(stream, &limits).await;
            }
        };
        // Boxed: the rest of a connection's life is much larger than its beginning.
        match Box::pin(self.clone().greet(&door, stream, newcomer, seat)).await {
            Ok((connection, _seat)) => Box::pin(connection.serve()).await,
            Err(why) => door.metrics.closed(why),
        }
    }

    /// Hears who it is, and agrees on TLS.
    async fn greet(
        self: Arc<Self>,
        door: &Arc<Door>,
        mut stream: TcpStream,
        mut who: Newcomer,
        mut seat: Seat,
    ) -> Result<(Connection, Seat), Closed> {
        let (current, manner) = (door.current.load_full(), self.manner.load_full());
        let limits = current.limits;
        if manner.proxy_protocol {
            if who.share.is_some() {
                return Err(Closed::NotTrusted);
            }
            let header = fast_timeout(limits.handshake_time, read_proxy_header(&mut stream)).await;
            let said =
                header.map_err(|_| Closed::HandshakeTooSlow)?.ok_or(Closed::NoProxyHeader)?;
            match said.source {
                Some(source) => who = newcomer(&current, source.ip().to_canonical()),
                None => who.may_be_believed = false,
            }
        }
        let client = match seat.take(who, door.clock) {
            Ok(client) => client,
            Err(why) => {
                self.turn_away(stream, &limits).await;
                return Err(why);
            }
        };
        // Whoever greets is not idle.
        let greeting = client.begin(door.clock.now());
        drop(current);
        let socket: Socket = match &manner.tls {
            None => Either::Left(stream),
            Some(tls) => {
                let shaken = fast_timeout(limits.handshake_time, tls.acceptor.accept(stream)).await;
                let shaken = shaken.map_err(|_| Closed::HandshakeTooSlow)?;
                Either::Right(Box::new(shaken.map_err(|_| Closed::HandshakeFailed)?))
            }
        };
        let http2 = manner.http2 && matches!(socket, Either::Left(_));
        let wire = Wire::new(socket, client.clone()).map_err(|_| Closed::HandshakeFailed)?;
        drop(greeting);
        Ok((Connection { door: door.clone(), wire, client, http2 }, seat))
    }

    /// Tells a client that there is no place, where it can be told without a greeting.
    async fn turn_away(&self, stream: TcpStream, limits: &Limits) {
        if !self.is_tls() {
            turn_away(stream, limits).await;
        }
    }
}

/// Somebody who connects from an address.
fn newcomer(current: &Holdline, address: IpAddr) -> Newcomer {
    let trusted = current.trust.includes(address);
    let share = (!trusted).then_some(current.limits.connections_per_address);
    Newcomer { address, share, may_be_believed: true }
}

/// Reads a PROXY header and not a byte more; none if what arrives is no such header.
async fn read_proxy_header(stream: &mut TcpStream) -> Option<Said> {
    let mut header = Vec::with_capacity(128);
    let mut next = [0; 128];
    loop {
        // A look first: what follows the header belongs to somebody else.
        let seen = stream.peek(&mut next).await.ok().filter(|&seen| seen > 0)?;
        let before = header.len();
        header.extend_from_slice(&next[..seen]);
        let said = proxy_protocol::read(&header).ok()?;
        let take = said.map_or(seen, |said| said.length - before);
        stream.read_exact(&mut next[..take]).await.ok()?;
        if said.is_some() {
            return said;
        }
    }
}

/// Reads certificates again whenever their files change; ends with the process.
pub async fn keep_certificates(listeners: Arc<[Arc<Listener>]>, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(LOOK_AT_FILES).await;
        let (listeners, metrics) = (listeners.clone(), metrics.clone());
        // The files may be anywhere, and slow to come.
        let look = move || listeners.iter().for_each(|one| one.look_at_files(&metrics));
        let _ = tokio::task::spawn_blocking(look).await;
    }
}

// === impl Listener ===

impl Listener {
    /// Reads the certificates again if their files have changed. Files that cannot be used change
    /// nothing.
    fn look_at_files(&self, metrics: &Metrics) {
        let manner = self.manner.load_full();
        let Some(tls) = &manner.tls else { return };
        let stamp = tls.files.stamp();
        if stamp == tls.stamp {
            return;
        }
        let address = self.address;
        let mut tls = Tls { stamp, ..tls.clone() };
        let read = tls.files.load();
        if let Ok(identity) = &read {
            tls.stamp = identity.stamp.clone();
            tls.acceptor = identity.config.clone().into();
        }
        let (proxy_protocol, http2) = (manner.proxy_protocol, manner.http2);
        let renewed = Arc::new(Manner { tls: Some(tls), proxy_protocol, http2 });
        let before = self.manner.compare_and_swap(&manner, renewed);
        if !Arc::ptr_eq(&before, &manner) {
            // A reload that came between has read the files as well.
            return;
        }
        match read {
            Ok(identity) => {
                tracing::info!(%address, "the certificates were read anew");
                metrics.certificates_read("read", Some((address, &identity)));
            }
            Err(faults) => {
                for fault in faults {
                    tracing::error!(%address, fault, "the certificates in use are kept");
                }
                metrics.certificates_read("failed", None);
            }
        }
    }
}

// === impl Manner ===

impl Manner {
    fn of(config: ListenerConfig, address: SocketAddr, metrics: &Metrics) -> Manner {
        metrics.certificates(address, config.tls.as_ref().map(|(_, identity)| identity));
        let tls = config.tls.map(|(files, identity)| Tls {
            stamp: identity.stamp,
            files,
            acceptor: identity.config.into(),
        });
        Manner { tls, proxy_protocol: config.proxy_protocol, http2: config.http2 }
    }
}

/// What every client is told of HTTP/2: as much as callers need, and little enough to bear.
pub fn http2_options(limits: &Limits) -> H2Options {
    let mut options = pingora_core::protocols::http::v2::server::default_h2_options();
    // Floods of resets and of continuations are met by the library's own limits.
    let list = limits.head.size + FIELD * limits.head.fields;
    let list = u32::try_from(list).unwrap_or(u32::MAX);
    options.max_header_list_size(list).max_concurrent_streams(MOST_STREAMS);
    options
}
