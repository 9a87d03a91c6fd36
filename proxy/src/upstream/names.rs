//! From an upstream's name to its addresses, by DNS.
//!
//! An answer holds for as long as its records say, within bounds. A name that cannot be resolved says
//! nothing of the upstream: the last good answer is kept, and asked for again soon.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};

/// However short-lived an answer says it is.
const SOONEST: Duration = Duration::from_secs(1);
/// However long-lived, so that a change of heart is noticed.
const LATEST: Duration = Duration::from_secs(300);
/// For one question to one server.
const PATIENCE: Duration = Duration::from_secs(2);

/// Resolves names.
#[derive(Debug, Clone)]
pub struct Names {
    servers: Option<Vec<SocketAddr>>,
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
    /// When to ask again.
    pub again_in: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// The question failed.
    #[error("{0}")]
    Failed(#[from] NetError),
    /// The name exists, and has none.
    #[error("the name has no address")]
    NoAddress,
}

// === impl Names ===

impl Names {
    /// Asks these servers; without any, those of the system. The hosts file comes first either way.
    pub fn new(servers: Option<Vec<SocketAddr>>) -> Names {
        Names { servers }
    }

    /// What the system says is read anew for each question, which are few: it may change.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match &self.servers {
            None => Resolver::builder_tokio()?,
            Some(servers) => {
                let servers = servers.iter().map(|server| name_server(*server)).collect();
                let config = ResolverConfig::from_name_servers(servers);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        // How long an answer holds is decided here.
        options.cache_size = 0;
        builder.build()
    }

    /// The addresses of `host`, which may be one itself.
    pub async fn find(&self, host: &str, port: u16) -> Result<Found, NotFound> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            let addresses = vec![SocketAddr::new(address, port)];
            return Ok(Found { addresses, again_in: LATEST });
        }
        let found = self.resolver()?.lookup_ip(host).await?;
        let mut addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        if addresses.is_empty() {
            return Err(NotFound::NoAddress);
        }
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let holds = found.valid_until().saturating_duration_since(Instant::now());
        Ok(Found { addresses, again_in: holds.clamp(SOONEST, LATEST) })
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}
