//! Where an upstream is and how much it is being asked: addresses, connection settings, attempts in
//! flight.
//!
//! Names are resolved beside the way, never on it, and the last good address is kept when resolving
//! fails: a name server that is down must not take an upstream with it.

pub mod http1;
pub mod names;
mod pool;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use holdline_policy::backoff::Backoff;
use holdline_policy::{Moment, Outcome, Upstream};
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use pingora_error::{Error, ErrorType};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::Current;
use crate::clock::Clock;
use crate::config::{UpstreamConfig, UpstreamTls};
use names::Names;
pub use pool::Connection;
use pool::Pool;

/// How soon a name that could not be resolved is asked for again.
const RESOLVE_AGAIN: Backoff =
    Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(30) };
/// How many of an upstream's addresses one attempt tries to connect to.
const MOST_ADDRESSES: usize = 3;
/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How many there were.
static TARGETS: AtomicU64 = AtomicU64::new(0);

/// One upstream as the relay and the prober see it.
pub struct Target {
    /// Which one it is.
    pub which: Upstream,
    /// What was configured.
    pub config: UpstreamConfig,
    /// Tells it from all others that there were in this process.
    number: u64,
    /// Connection settings, one for each address.
    peers: ArcSwap<Vec<Arc<HttpPeer>>>,
    /// The address in use; counts on, and stands for its remainder.
    current: AtomicUsize,
    authorities: Option<Arc<CaType>>,
    connector: TransportConnector,
    pool: Pool,
    in_flight: AtomicU32,
    /// Attempts in flight that nobody waits for any more, oldest first, with when they were left.
    abandoned: Mutex<VecDeque<(Moment, AbortHandle)>>,
    /// When an attempt last ended well, in milliseconds since the start.
    last_good: AtomicU64,
    on_trial: AtomicBool,
}

/// Turns to the next address when dropped, be it because connecting failed or because nobody waited
/// for it any longer.
struct TurnsAway<'t> {
    target: &'t Target,
    tried: usize,
}

/// Permission for one attempt; given back when dropped.
pub struct Permit<'t> {
    target: &'t Target,
    trial: Option<&'t AtomicBool>,
}

// === impl Target ===

impl Target {
    /// An upstream whose address is not known yet, asked by so many threads.
    pub fn new(which: Upstream, config: UpstreamConfig, threads: usize) -> Target {
        Target {
            which,
            number: TARGETS.fetch_add(1, Ordering::Relaxed),
            peers: ArcSwap::default(),
            current: AtomicUsize::new(0),
            authorities: config.tls.as_ref().and_then(authorities),
            connector: TransportConnector::new(None),
            pool: Pool::new(threads, config.idle_timeout),
            config,
            in_flight: AtomicU32::new(0),
            abandoned: Mutex::default(),
            last_good: AtomicU64::new(0),
            on_trial: AtomicBool::new(false),
        }
    }

    /// Connection settings for the present address; `None` while no address is known.
    pub fn peer(&self) -> Option<Arc<HttpPeer>> {
        let peers = self.peers.load();
        let current = self.current.load(Ordering::Relaxed).checked_rem(peers.len())?;
        peers.get(current).cloned()
    }

    /// The present address.
    pub fn address(&self) -> Option<SocketAddr> {
        let peers = self.peers.load();
        let current = self.current.load(Ordering::Relaxed).checked_rem(peers.len())?;
        peers.get(current).and_then(|peer| peer._address.as_inet().copied())
    }

    /// An idle connection, if there is one that can be used.
    pub fn idle_connection(&self, now: Moment) -> Option<Connection> {
        self.pool.take(self.address()?, now)
    }

    /// A new connection. What went wrong is one of the outcomes in which nothing was sent. An address
    /// that does not take it gives way to the next; one that lets us wait gives way to it for those who
    /// come later.
    pub async fn connect(&self) -> Result<Connection, Outcome> {
        let mut outcome = Outcome::Refused;
        for _ in 0..self.peers.load().len().min(MOST_ADDRESSES) {
            let tried = self.current.load(Ordering::Relaxed);
            let Some(peer) = self.peer() else { break };
            let Some(&address) = peer._address.as_inet() else { break };
            let turns = TurnsAway { target: self, tried };
            match self.connector.new_stream(peer.as_ref()).await {
                Ok(stream) => {
                    std::mem::forget(turns);
                    return Ok(Connection::new(stream, address));
                }
                Err(error) => outcome = connect_outcome(&error),
            }
            drop(turns);
            if outcome == Outcome::ConnectTimedOut {
                break;
            }
        }
        Err(outcome)
    }

    /// Keeps a connection that can carry another exchange.
    pub fn keep(&self, connection: Connection, now: Moment) {
        self.pool.put(connection, now);
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether a visit is trying it.
    pub fn on_trial(&self) -> &AtomicBool {
        &self.on_trial
    }

    /// Permission for an attempt, unless as many as allowed are in flight, or it is one of a trial (of the
    /// upstream or of a row) and another visit is at that.
    ///
    /// An attempt that nobody waits for makes room: those that an outage has swallowed must not keep
    /// visits from an upstream that has recovered. But only if something has ended well since it was
    /// left, or if visits ask another at the same moment, as `stuck` tells; until then, to be full spares
    /// callers the wait.
    pub fn permit<'t>(
        &'t self,
        trial: Option<&'t AtomicBool>,
        stuck: impl FnOnce() -> bool,
    ) -> Option<Permit<'t>> {
        if trial.is_some_and(|on_trial| on_trial.swap(true, Ordering::AcqRel)) {
            return None;
        }
        let permit = Permit { target: self, trial };
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        // The permit counts itself out again when it is refused.
        (before < self.config.max_in_flight || self.make_room(stuck)).then_some(permit)
    }

    /// An attempt is in flight that nobody waits for any more.
    pub fn abandon(&self, attempt: AbortHandle, now: Moment) {
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        if abandoned.len() >= self.config.max_in_flight as usize {
            abandoned.retain(|(_, attempt)| !attempt.is_finished());
        }
        abandoned.push_back((now, attempt));
    }

    /// An attempt has ended well.
    pub fn ended_well(&self, now: Moment) {
        self.last_good.store(millis(now), Ordering::Relaxed);
    }

    /// Ends the oldest attempt that nobody waits for, if it may be ended.
    fn make_room(&self, stuck: impl FnOnce() -> bool) -> bool {
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        while abandoned.front().is_some_and(|(_, attempt)| attempt.is_finished()) {
            abandoned.pop_front();
        }
        let Some((left, oldest)) = abandoned.front() else { return false };
        if self.last_good.load(Ordering::Relaxed) < millis(*left) && !stuck() {
            return false;
        }
        oldest.abort();
        abandoned.pop_front();
        true
    }

    /// Takes over addresses; if the one in use is among them, it stays in use.
    fn take_over(&self, mut addresses: Vec<SocketAddr>) {
        let used = self.address();
        let stays = addresses.iter().position(|address| Some(*address) == used);
        addresses.rotate_left(stays.unwrap_or(0));
        let peers = self.peers.load();
        let known = peers.iter().filter_map(|peer| peer._address.as_inet());
        let all_known = known.clone().all(|address| addresses.contains(address));
        if all_known && known.count() == addresses.len() {
            return;
        }
        if stays.is_none() {
            let (upstream, address) = (self.which.name(), addresses.first());
            tracing::info!(upstream, host = %self.config.host, ?address, "the name has a new address");
        }
        let peers = addresses.into_iter().map(|address| Arc::new(self.peer_at(address))).collect();
        self.peers.store(Arc::new(peers));
        self.current.store(0, Ordering::Relaxed);
    }

    fn peer_at(&self, address: SocketAddr) -> HttpPeer {
        let tls = self.config.tls.as_ref();
        let name = tls.map_or_else(String::new, |tls| tls.name.clone());
        let mut peer = HttpPeer::new(address, tls.is_some(), name);
        // The framework's own pool does not tell connections apart by whom they were trusted on.
        peer.group_key = self.number;
        peer.options.ca.clone_from(&self.authorities);
        peer.options.connection_timeout = Some(self.config.connect_timeout);
        peer.options.total_connection_timeout = Some(self.config.connect_timeout);
        peer.options.idle_timeout = Some(self.config.idle_timeout);
        peer
    }
}

impl Drop for TurnsAway<'_> {
    fn drop(&mut self) {
        // Whoever comes first turns to the next; others find it turned.
        let (tried, order) = (self.tried, Ordering::Relaxed);
        let _ = self.target.current.compare_exchange(tried, tried.wrapping_add(1), order, order);
    }
}

// === impl Permit ===

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.target.in_flight.fetch_sub(1, Ordering::AcqRel);
        if let Some(on_trial) = self.trial {
            on_trial.store(false, Ordering::Release);
        }
    }
}

/// Resolves the name of an upstream again and again, whenever its last answer has run out; until it is
/// broken off. `resolved` is told after the first time, whatever came of it.
pub async fn keep_resolving(target: Arc<Target>, names: Arc<Names>, resolved: oneshot::Sender<()>) {
    let (host, port) = (&target.config.host, target.config.port);
    let mut resolved = Some(resolved);
    let mut failures = 0;
    loop {
        let wait = match names.find(host, port).await {
            Ok(found) => {
                failures = 0;
                target.take_over(found.addresses);
                found.again_in
            }
            Err(error) => {
                let upstream = target.which.name();
                tracing::warn!(upstream, host, %error, "name not resolved; what was known is kept");
                failures += 1;
                RESOLVE_AGAIN.wait(failures - 1)
            }
        };
        if let Some(resolved) = resolved.take() {
            // Whoever waited may have given up.
            let _ = resolved.send(());
        }
        tokio::time::sleep(wait).await;
    }
}

/// Closes idle connections that cannot be used any more, again and again; ends with the process.
pub async fn keep_sweeping(current: Current, clock: Clock) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        for target in &current.load().relay.targets {
            target.pool.sweep(target.address(), clock.now());
        }
    }
}

/// The authorities an upstream is trusted on, as the framework takes them.
fn authorities(tls: &UpstreamTls) -> Option<Arc<CaType>> {
    let certificates = tls.authorities.as_ref()?.iter();
    Some(certificates.map(|der| WrappedX509::new(der.clone(), parse_x509)).collect())
}

fn millis(moment: Moment) -> u64 {
    u64::try_from(moment.since_start().as_millis()).unwrap_or(u64::MAX)
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
