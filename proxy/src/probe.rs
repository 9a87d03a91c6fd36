//! Asking an upstream whether it is well, at the pace the policy sets.
//!
//! A probe has one time limit for everything, connecting included; a connection of its own, so that
//! it sees what a new connection would see; and it reads the body, because a status alone has been
//! known to lie. The two upstreams are probed by tasks of their own: one that hangs delays no other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holdline_policy::backoff::jittered;
use holdline_policy::{Grade, Moment, Observation, Pace, Upstream};

use crate::Current;
use crate::clock::Clock;
use crate::telemetry::Metrics;
use crate::upstream::Target;
use crate::upstream::http1::{Broken, RequestHead, converse};
use crate::watchman::Watch;

/// The share of a wait that chance may take off, so that edges started together do not probe together.
const JITTER: f64 = 0.2;
/// Between the end of a probe and the next, however long the first took.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// The longest body that is read.
const LARGEST_BODY: usize = 64 * 1024;

/// What probing needs.
pub struct Prober {
    /// The upstreams, and how often.
    pub current: Current,
    /// Where observations go.
    pub watch: Watch,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

// === impl Prober ===

impl Prober {
    /// Probes one upstream for ever.
    pub async fn run(&self, upstream: Upstream) {
        // Edges that restart together must not probe together.
        tokio::time::sleep(self.pace().quick.mul_f64(chance())).await;
        loop {
            let target = self.current.load().relay.targets[upstream.index()].clone();
            let begun = self.clock.now();
            let timeout = target.config.probe.timeout;
            let result = tokio::time::timeout(timeout, probe(&target)).await;
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

    fn pace(&self) -> Pace {
        self.current.load().pace
    }

    /// Waits until the next probe is due. The pace changes the moment the verdict does.
    async fn pause(&self, upstream: Upstream, since: Moment) {
        let share = chance();
        loop {
            let changed = self.watch.changed(upstream);
            let wait = self.pace().wait(self.watch.health().of(upstream), self.clock.now());
            let due = since + jittered(wait, JITTER, share);
            let left = due.since(self.clock.now());
            tokio::select! {
                () = tokio::time::sleep(left.max(SHORTEST_PAUSE)) => return,
                () = changed => {}
            }
        }
    }
}

/// One probe: a connection of its own, status and body.
async fn probe(target: &Target) -> Result<(), &'static str> {
    let expected = &target.config.probe;
    let (prefix, host) = (&target.config.path, &target.config.host_field);
    let mut head = RequestHead::new("GET", prefix, &expected.path, host);
    head.field("user-agent", concat!("holdline/", env!("CARGO_PKG_VERSION"), " probe"));
    head.field("connection", "close");
    if target.peer().is_none() {
        return Err("no_address");
    }
    let mut connection = Box::pin(target.connect()).await.map_err(|_| "connect")?;
    let (request, sent) = (head.with_body(b""), AtomicBool::new(false));
    let reply = converse(&mut connection.stream, &request, false, LARGEST_BODY + 1, &sent)
        .await
        .map_err(Broken::name)?;
    let holds = |text: &String| {
        let mut windows = reply.body.windows(text.len().max(1));
        text.is_empty() || windows.any(|window| window == text.as_bytes())
    };
    if reply.body.len() > LARGEST_BODY {
        Err("too_large")
    } else if reply.status != expected.status {
        Err("status")
    } else if !expected.body.as_ref().is_none_or(holds) {
        Err("body")
    } else {
        Ok(())
    }
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
    "connect",
    "unanswered",
    "cut",
    "not_http",
    "too_large",
    "status",
    "body",
];
