//! Where an upstream is and how much it is being asked: addresses, connection settings, attempts in
//! flight.
//!
//! Names are resolved beside the way, never on it, and the last good address is kept when resolving
//! fails: a name server that is down must not take an upstream with it.

pub mod http1;
mod pool;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use holdline_policy::{Moment, Outcome, Upstream};
use pingora_core::connectors::TransportConnector;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType};

use crate::clock::Clock;
use crate::config::UpstreamConfig;
pub use pool::Connection;
use pool::Pool;

/// How often names are resolved again.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(15);
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One upstream as the relay and the prober see it.
pub struct Target {
    /// Which one it is.
    pub which: Upstream,
    /// What was configured.
    pub config: UpstreamConfig,
    peer: ArcSwapOption<HttpPeer>,
    connector: TransportConnector,
    pool: Pool,
    in_flight: AtomicU32,
    on_trial: AtomicBool,
}

/// Permission for one attempt; given back when dropped.
pub struct Permit<'t> {
    target: &'t Target,
    trial: bool,
}

// === impl Target ===

impl Target {
    /// An upstream whose address is not known yet, asked by so many threads.
    pub fn new(which: Upstream, config: UpstreamConfig, threads: usize) -> Target {
        Target {
            which,
            peer: ArcSwapOption::empty(),
            connector: TransportConnector::new(None),
            pool: Pool::new(threads, config.idle_timeout),
            config,
            in_flight: AtomicU32::new(0),
            on_trial: AtomicBool::new(false),
        }
    }

    /// Connection settings for the present address; `None` while no address is known.
    pub fn peer(&self) -> Option<Arc<HttpPeer>> {
        self.peer.load_full()
    }

    /// The present address.
    pub fn address(&self) -> Option<SocketAddr> {
        let peer = self.peer.load();
        peer.as_ref().and_then(|peer| peer._address.as_inet().copied())
    }

    /// An idle connection, if there is one that can be used.
    pub fn idle_connection(&self, now: Moment) -> Option<Connection> {
        self.pool.take(self.address()?, now)
    }

    /// A new connection. What went wrong is one of the outcomes in which nothing was sent.
    pub async fn connect(&self) -> Result<Connection, Outcome> {
        let Some(peer) = self.peer() else { return Err(Outcome::Refused) };
        let Some(&address) = peer._address.as_inet() else { return Err(Outcome::Refused) };
        match self.connector.new_stream(peer.as_ref()).await {
            Ok(stream) => Ok(Connection::new(stream, address)),
            Err(error) => Err(connect_outcome(&error)),
        }
    }

    /// Keeps a connection that can carry another exchange.
    pub fn keep(&self, connection: Connection, now: Moment) {
        self.pool.put(connection, now);
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Permission for an attempt, unless as many as allowed are in flight, or the upstream is on
    /// trial and another visit is trying it.
    pub fn permit(&self, on_trial: bool) -> Option<Permit<'_>> {
        if on_trial && self.on_trial.swap(true, Ordering::AcqRel) {
            return None;
        }
        let permit = Permit { target: self, trial: on_trial };
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        // The permit counts itself out again when it is refused.
        (before < self.config.max_in_flight).then_some(permit)
    }

    /// Resolves the name once and takes over the address. The last good one is kept on failure.
    pub async fn resolve(&self) -> std::io::Result<()> {
        let host = self.config.host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, self.config.port)).await?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address =
            *addresses.first().ok_or_else(|| std::io::Error::other("the name has no address"))?;
        if self.address() != Some(address) && !addresses.iter().any(|a| self.address() == Some(*a))
        {
            self.peer.store(Some(Arc::new(self.peer_at(address))));
        }
        Ok(())
    }

    fn peer_at(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, self.config.tls, self.config.host.clone());
        peer.options.connection_timeout = Some(self.config.connect_timeout);
        peer.options.total_connection_timeout = Some(self.config.connect_timeout);
        peer.options.idle_timeout = Some(self.config.idle_timeout);
        peer
    }
}

// === impl Permit ===

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.target.in_flight.fetch_sub(1, Ordering::AcqRel);
        if self.trial {
            self.target.on_trial.store(false, Ordering::Release);
        }
    }
}

/// Resolves the names of all upstreams again and again; ends with the process.
pub async fn keep_resolving(targets: Arc<[Target; 2]>) {
    loop {
        tokio::time::sleep(RESOLVE_EVERY).await;
        for target in targets.iter() {
            if let Err(error) = target.resolve().await {
                tracing::warn!(
                    upstream = target.which.name(), host = %target.config.host, %error,
                    "name not resolved; the last good address is kept"
                );
            }
        }
    }
}

/// Closes idle connections that cannot be used any more, again and again; ends with the process.
pub async fn keep_sweeping(targets: Arc<[Target; 2]>, clock: Clock) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        for target in targets.iter() {
            target.pool.sweep(target.address(), clock.now());
        }
    }
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
