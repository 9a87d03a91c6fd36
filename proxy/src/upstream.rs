//! Where an upstream is and how much it is being asked: addresses, connection settings, attempts in
//! flight.
//!
//! Names are resolved beside the way, never on it, and the last good address is kept when resolving
//! fails: a name server that is down must not take an upstream with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use holdline_policy::Upstream;
use pingora_core::upstreams::peer::HttpPeer;

use crate::config::UpstreamConfig;

/// How often names are resolved again.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(15);

/// One upstream as the relay and the prober see it.
#[derive(Debug)]
pub struct Target {
    /// Which one it is.
    pub which: Upstream,
    /// What was configured.
    pub config: UpstreamConfig,
    peers: ArcSwapOption<Peers>,
    in_flight: AtomicU32,
    on_trial: AtomicBool,
}

/// Connection settings for one address.
#[derive(Debug)]
pub struct Peers {
    /// Takes a pooled connection if there is one.
    pub pooled: HttpPeer,
    /// Always connects anew.
    pub fresh: HttpPeer,
}

/// Permission for one attempt; given back when dropped.
#[derive(Debug)]
pub struct Permit<'t> {
    target: &'t Target,
    trial: bool,
}

// The pool tells connections apart by group; nothing is ever pooled under the second one.
const POOLED: u64 = 1;
const FRESH: u64 = 2;

// === impl Target ===

impl Target {
    /// An upstream whose address is not known yet.
    pub fn new(which: Upstream, config: UpstreamConfig) -> Target {
        Target {
            which,
            config,
            peers: ArcSwapOption::empty(),
            in_flight: AtomicU32::new(0),
            on_trial: AtomicBool::new(false),
        }
    }

    /// Connection settings for the present address; `None` while no address is known.
    pub fn peers(&self) -> Option<Arc<Peers>> {
        self.peers.load_full()
    }

    /// The present address.
    pub fn address(&self) -> Option<SocketAddr> {
        let peers = self.peers.load();
        peers.as_ref().and_then(|peers| peers.pooled._address.as_inet().copied())
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
            self.peers.store(Some(Arc::new(self.peers_at(address))));
        }
        Ok(())
    }

    fn peers_at(&self, address: SocketAddr) -> Peers {
        let peer = |group| {
            let mut peer = HttpPeer::new(address, self.config.tls, self.config.host.clone());
            peer.group_key = group;
            peer.options.connection_timeout = Some(self.config.connect_timeout);
            peer.options.total_connection_timeout = Some(self.config.connect_timeout);
            peer.options.idle_timeout = Some(self.config.idle_timeout);
            peer
        };
        Peers { pooled: peer(POOLED), fresh: peer(FRESH) }
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
