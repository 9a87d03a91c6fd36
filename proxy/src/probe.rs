//! Asking an upstream whether it is well, at the pace the policy sets.
//!
//! A probe has one time limit for everything, connecting included; a connection of its own, so that
//! it sees what a new connection would see; and it reads the body, because a status alone has been
//! known to lie. The two upstreams are probed by tasks of their own: one that hangs delays no other.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use holdline_policy::backoff::jittered;
use holdline_policy::{Grade, Moment, Observation, Pace, Upstream};
use http::{Method, header};
use pingora_core::connectors::http::Connector;
use pingora_http::RequestHeader;

use crate::clock::Clock;
use crate::telemetry::Metrics;
use crate::upstream::Target;
use crate::watchman::Watch;

/// The share of a wait that chance may take off, so that edges started together do not probe together.
const JITTER: f64 = 0.2;
/// Between the end of a probe and the next, however long the first took.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// The longest body that is read.
const LARGEST_BODY: usize = 64 * 1024;

/// What probing needs.
pub struct Prober {
    /// The upstreams.
    pub targets: Arc<[Target; 2]>,
    /// Where observations go.
    pub watch: Watch,
    /// How often.
    pub pace: Pace,
    /// Connections.
    pub connector: Connector,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

// === impl Prober ===

impl Prober {
    /// Probes one upstream for ever.
    pub async fn run(&self, upstream: Upstream) {
        let target = &self.targets[upstream.index()];
        // Edges that restart together must not probe together.
        tokio::time::sleep(self.pace.quick.mul_f64(chance())).await;
        loop {
            let begun = self.clock.now();
            let timeout = target.config.probe.timeout;
            let result = tokio::time::timeout(timeout, self.probe(target)).await;
            let fault = match result {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault),
                Err(_) => Some("timed_out"),
            };
            let took = self.clock.now().since(begun);
            let grade = if fault.is_none() { Grade::Good } else { Grade::Bad };
            self.metrics.probe(upstream, fault.unwrap_or("good"), took);
            if let Some(fault) = fault {
                tracing::debug!(target: "health", upstream = upstream.name(), fault, "probe failed");
            }
            self.watch.observe(upstream, Observation::Probe(grade));
            self.pause(upstream, begun).await;
        }
    }

    /// Waits until the next probe is due. The pace changes the moment the verdict does.
    async fn pause(&self, upstream: Upstream, since: Moment) {
        let share = chance();
        loop {
            let changed = self.watch.changed(upstream);
            let wait = self.pace.wait(self.watch.health().of(upstream), self.clock.now());
            let due = since + jittered(wait, JITTER, share);
            let left = due.since(self.clock.now());
            tokio::select! {
                () = tokio::time::sleep(left.max(SHORTEST_PAUSE)) => return,
                () = changed => {}
            }
        }
    }

    async fn probe(&self, target: &Target) -> Result<(), &'static str> {
        let peers = target.peers().ok_or("no_address")?;
        let request = request(target).map_err(|_| "bad_request")?;
        let (mut session, _) =
            self.connector.get_http_session(&peers.fresh).await.map_err(|_| "connect")?;
        session.write_request_header(Box::new(request)).await.map_err(|_| "write")?;
        session.finish_request_body().await.map_err(|_| "write")?;
        let status = loop {
            session.read_response_header().await.map_err(|_| "read")?;
            match session.response_header() {
                Some(head) if head.status.is_informational() => {}
                Some(head) => break head.status.as_u16(),
                None => return Err("read"),
            }
        };
        let mut body = BytesMut::new();
        while let Some(piece) = session.read_response_body().await.map_err(|_| "read")? {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST_BODY {
                return Err("too_large");
            }
        }
        let expected = &target.config.probe;
        let holds =
            |text: &String| body.windows(text.len().max(1)).any(|window| window == text.as_bytes());
        if status != expected.status {
            Err("status")
        } else if !expected.body.as_ref().is_none_or(holds) {
            Err("body")
        } else {
            Ok(())
        }
    }
}

fn request(target: &Target) -> pingora_error::Result<RequestHeader> {
    let mut request =
        RequestHeader::build(Method::GET, target.config.probe.path.as_bytes(), Some(3))?;
    request.append_header(header::HOST, target.config.public_url.authority())?;
    request.append_header(
        header::USER_AGENT,
        concat!("holdline/", env!("CARGO_PKG_VERSION"), " probe"),
    )?;
    request.append_header(header::CONNECTION, "close")?;
    Ok(request)
}

/// A number drawn evenly from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0u8; 4];
    // Without randomness there is no jitter, which does no harm to one edge.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

/// Every name a probe's result can have in metrics.
pub const RESULTS: [&str; 10] = [
    "good",
    "timed_out",
    "no_address",
    "bad_request",
    "connect",
    "write",
    "read",
    "too_large",
    "status",
    "body",
];
