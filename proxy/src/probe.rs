//! Asking an upstream whether it is well, at the pace the policy sets.
//!
//! A probe has one time limit for everything, connecting included; a connection of its own, so that
//! it sees what a new connection would see; and it reads the body, because a status alone has been
//! known to lie. One that is late is bad, and is waited for all the same: how long the upstream took
//! tells a slow one from a dead one. The two upstreams are probed by tasks of their own: one that hangs
//! delays no other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holdline_policy::backoff::jittered;
use holdline_policy::{Moment, Pace, Upstream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

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
/// How long an answer that is late is waited for.
const LATEST: Duration = Duration::from_secs(15);
/// How many late answers are waited for at once.
const MOST_LATE: usize = 4;

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

/// The result of a probe that was good.
pub const GOOD: &str = "good";
/// The result of one that was late.
const TIMED_OUT: &str = "timed_out";

// === impl Prober ===

impl Prober {
    /// Probes one upstream for ever.
    pub async fn run(&self, upstream: Upstream) {
        // Edges that restart together must not probe together.
        tokio::time::sleep(self.pace().0.interval.mul_f64(chance())).await;
        let late = Arc::new(Semaphore::new(MOST_LATE));
        loop {
            let target = self.current.load().relay.targets[upstream.index()].clone();
            let begun = self.clock.now();
            let limit = target.config.probe.timeout;
            let mut probing = Box::pin(probe(target));
            let result = match timeout(limit, &mut probing).await {
                Ok(result) => {
                    if is_answer(result) {
                        self.metrics.probe_answered(upstream, self.clock.now().since(begun));
                    }
                    result
                }
                Err(_) => {
                    self.wait_for_late(upstream, probing, begun, &late);
                    TIMED_OUT
                }
            };
            self.metrics.probe(upstream, result);
            if result != GOOD {
                let upstream = upstream.name();
                tracing::debug!(target: "health", upstream, result, "probe failed");
            }
            self.watch.probed(upstream, result, self.clock.now().since(begun));
            self.pause(upstream, begun).await;
        }
    }

    /// Notes how long an upstream takes that was too late; if it never answers, that it did not.
    fn wait_for_late(
        &self,
        upstream: Upstream,
        probing: impl Future<Output = &'static str> + Send + 'static,
        begun: Moment,
        late: &Arc<Semaphore>,
    ) {
        let Ok(permit) = late.clone().try_acquire_owned() else { return };
        let (metrics, clock) = (self.metrics.clone(), self.clock);
        tokio::spawn(async move {
            let left = (begun + LATEST).since(clock.now());
            match timeout(left, probing).await {
                Ok(result) if is_answer(result) => {
                    metrics.probe_answered(upstream, clock.now().since(begun));
                }
                Ok(_) => {}
                Err(_) => metrics.probe_answered(upstream, LATEST),
            }
            drop(permit);
        });
    }

    /// The pace, and how many good probes bring an upstream back.
    fn pace(&self) -> (Pace, u32) {
        (self.current.load().pace, self.watch.thresholds().rise)
    }

    /// Waits until the next probe is due. The pace changes the moment the verdict does.
    async fn pause(&self, upstream: Upstream, since: Moment) {
        let share = chance();
        loop {
            let changed = self.watch.changed(upstream);
            let (pace, rise) = self.pace();
            let wait = pace.wait(self.watch.health().of(upstream), rise, self.clock.now());
            let due = since + jittered(wait, JITTER, share);
            let left = due.since(self.clock.now());
            tokio::select! {
                () = tokio::time::sleep(left.max(SHORTEST_PAUSE)) => return,
                () = changed => {}
            }
        }
    }
}

/// Whether there was an answer, whatever it said.
fn is_answer(result: &str) -> bool {
    matches!(result, GOOD | "too_large" | "status" | "body")
}

/// One probe: a connection of its own, status and body. Gives its result.
async fn probe(target: Arc<Target>) -> &'static str {
    match ask(&target).await {
        Ok(()) => GOOD,
        Err(fault) => fault,
    }
}

async fn ask(target: &Target) -> Result<(), &'static str> {
    let expected = &target.config.probe;
    let prefix = &target.config.path;
    let host = expected.host.as_ref().unwrap_or(&target.config.host_field);
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

/// Every name a probe's result can have in metrics and in the journal.
pub const RESULTS: [&str; 10] = [
    GOOD,
    TIMED_OUT,
    "no_address",
    "connect",
    "unanswered",
    "cut",
    "not_http",
    "too_large",
    "status",
    "body",
];
