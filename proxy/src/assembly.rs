//! From a configuration to an edge that works by it.
//!
//! What an edge learns and owes ([`Lasting`]) outlives its configuration: verdicts, the spool, answers
//! that come late, what was asked a moment ago, counts. Everything else is made anew for each, and goes
//! when the last visit that began with it has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Error};
use futures::future::join_all;
use holdline_policy::{Budget, Moment, Upstream};
use secrecy::SecretString;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Holdline;
use crate::clock::Clock;
use crate::config::{Config, Judging, UpstreamConfig};
use crate::journal::{Journal, What};
use crate::orders::Orders;
use crate::proof::Prover;
use crate::relay::Relay;
use crate::relay::hold::HoldKeys;
use crate::relay::late::LateAnswers;
use crate::relay::twice::Recent;
use crate::spool::{Spool, Writer};
use crate::telemetry::{LinesGuard, Metrics, VisitLog};
use crate::upstream::names::Names;
use crate::upstream::{Target, keep_resolving};
use crate::watchman::{Watch, Watchman, appoint};

/// How long starting waits for the upstreams' addresses.
const RESOLVED: Duration = Duration::from_secs(3);

/// What outlives a configuration.
#[derive(Clone)]
pub struct Lasting {
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Whether visits are wanted.
    pub ready: Arc<AtomicBool>,
    /// When the process was started, or the first of those that it was handed over from.
    pub started: Moment,
    /// What is believed of the upstreams.
    pub watch: Watch,
    /// What the operator orders.
    pub orders: Arc<Orders>,
    /// What happened to them.
    pub journal: Journal,
    /// What only brings news, and waits.
    pub spool: Arc<Spool>,
    /// What came after callers were put on hold.
    pub late: Arc<LateAnswers>,
    /// The key of holds where none is configured.
    pub hold_key: SecretString,
    recent: Arc<Recent>,
    hedges: Arc<Budget>,
    retries: Arc<Budget>,
    visits: VisitLog,
    threads: usize,
}

/// The tasks behind it, yet to be run.
pub struct Tasks {
    /// Writes the spool.
    pub writer: Writer,
    /// Owns the verdicts.
    pub watchman: Watchman,
}

/// Names of upstreams being resolved; until dropped.
pub struct Resolving(Vec<JoinHandle<()>>);

// === impl Lasting ===

impl Lasting {
    /// What an edge begins with. The guards are dropped last: what log and journal were given is written
    /// before the process ends.
    pub fn begin(
        config: &Config,
        clock: Clock,
        started: Moment,
        hold_key: SecretString,
    ) -> anyhow::Result<(Lasting, Tasks, [LinesGuard; 2])> {
        let metrics = Arc::new(Metrics::new().context("registering metrics")?);
        let (visits, written) = VisitLog::start(config.log, metrics.log_lines_lost.clone())?;
        let (journal, journaled) = Journal::start(&config.journal, &metrics)?;
        let (watchman, watch) = appoint(config.thresholds, metrics.clone(), journal.clone(), clock);
        let (spool, writer) = Spool::new(config.spool.clone(), metrics.clone());
        let orders = Orders::new(watch.clone(), spool.clone(), journal.clone(), metrics.clone());
        let lasting = Lasting {
            clock,
            started,
            ready: Arc::default(),
            watch,
            orders: Arc::new(orders),
            journal,
            spool,
            hold_key,
            late: Arc::new(LateAnswers::new(metrics.clone())),
            recent: Arc::default(),
            hedges: Arc::default(),
            retries: Arc::default(),
            visits,
            threads: config.threads,
            metrics,
        };
        Ok((lasting, Tasks { writer, watchman }, [written, journaled]))
    }

    /// Writes down what happens to the process, and by what it judges.
    pub fn note_process(&self, what: &'static str, judging: &Judging) {
        let (version, thresholds) = (env!("CARGO_PKG_VERSION").into(), judging.written());
        let pid = std::process::id();
        self.journal.note(What::Process { what: what.into(), pid, version, thresholds });
    }

    /// The edge under a configuration. What is the same as `before` is taken over: connections to an
    /// upstream, what was learned of a row.
    pub fn edge(&self, config: Config, before: Option<&Holdline>) -> anyhow::Result<Holdline> {
        let relay_before = before.map(|before| &before.relay);
        let hold_keys = match config.hold_keys {
            Some(keys) => keys,
            None => HoldKeys::new(std::slice::from_ref(&self.hold_key)).map_err(Error::msg)?,
        };
        let target = |which: Upstream, configured: UpstreamConfig| {
            let before = relay_before.map(|before| &before.targets[which.index()]);
            match before.filter(|target| target.config == configured) {
                Some(same) => same.clone(),
                None => Arc::new(Target::new(which, configured, self.threads)),
            }
        };
        let [origin, monitor] = config.upstreams;
        let targets = [target(Upstream::Origin, origin), target(Upstream::Monitor, monitor)];
        let rows = config.catalogue.rows();
        let latency_of = |name: &str| {
            let before = relay_before?;
            let index = before.catalogue.rows().iter().position(|row| row.name == name)?;
            before.latencies.get(index).cloned()
        };
        let latencies = rows.iter().map(|row| latency_of(&row.name).unwrap_or_default()).collect();
        let row_watches = rows.iter().map(|row| self.watch.row(&row.name)).collect();
        let row_counts = self.metrics.rows(rows.iter().map(|row| (row.name.as_str(), row.kind)));
        Ok(Holdline {
            environment: config.environment,
            admin_token: config.admin_token,
            started: self.started,
            ready: self.ready.clone(),
            unlisted: config.unlisted,
            pace: config.pace,
            stale_after: config.stale_after,
            trust: config.trust,
            limits: config.limits,
            stop: config.stop,
            prover: Prover::new(config.public_url.clone(), config.keys.clone(), config.signature),
            relay: Arc::new(Relay {
                catalogue: config.catalogue,
                canned: config.canned,
                targets,
                watch: self.watch.clone(),
                row_watches,
                no_row: self.watch.row(""),
                orders: self.orders.clone(),
                keys: config.keys,
                hold_keys,
                public_url: config.public_url,
                late: self.late.clone(),
                recent: self.recent.clone(),
                spool: self.spool.clone(),
                latencies,
                hedges: self.hedges.clone(),
                retries: self.retries.clone(),
                metrics: self.metrics.clone(),
                row_counts,
                clock: self.clock,
            }),
            visits: if config.log_visits { self.visits.clone() } else { self.visits.silent() },
        })
    }
}

// === impl Resolving ===

impl Resolving {
    /// Resolves the names of these upstreams from now on. Comes back when each has been asked for once, or
    /// when that takes too long: a name server that does not answer must not keep an edge from serving.
    pub async fn begin(targets: &[Arc<Target>], servers: Option<Vec<SocketAddr>>) -> Resolving {
        let names = Arc::new(Names::new(servers));
        let begin = |target: &Arc<Target>| {
            let (first, done) = oneshot::channel();
            (tokio::spawn(keep_resolving(target.clone(), names.clone(), first)), done)
        };
        let (tasks, done): (Vec<_>, Vec<_>) = targets.iter().map(begin).unzip();
        // Whoever does not wait any longer ends them with it.
        let resolving = Resolving(tasks);
        let _ = timeout(RESOLVED, join_all(done)).await;
        resolving
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
