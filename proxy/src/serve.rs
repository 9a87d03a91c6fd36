//! Starting, running and stopping the process.
//!
//! Sockets are opened first and announced once they accept. The data plane has the worker threads;
//! probes, watchman and admin share a thread of their own, so that neither can starve the other. On
//! SIGTERM the edge first says that it is not ready, takes visits for the drain time, closes its
//! listeners, and ends the moment the last visit has been answered.

use std::net::SocketAddr;
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use holdline_policy::Budget;
use holdline_policy::hedge::Latency;
use holdline_policy::{Kind, Upstream};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ListenFds};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_proxy::http_proxy;
use pingora_runtime::Runtime;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::Holdline;
use crate::clock::Clock;
use crate::config::{Config, Stop};
use crate::edge::Edge;
use crate::probe::Prober;
use crate::proof::Prover;
use crate::relay::Relay;
use crate::relay::late::LateAnswers;
use crate::relay::twice::Recent;
use crate::spool::replay::Replay;
use crate::spool::{Spool, Writer};
use crate::telemetry::{Metrics, VisitLog, VisitLogGuard};
use crate::upstream::names::Names;
use crate::upstream::{Target, keep_resolving, keep_sweeping};
use crate::watchman::{Watchman, appoint};
use crate::{admin, answer::AnsweredBy};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Idle upstream connections kept for streaming.
const POOL: usize = 128;
/// How long starting waits for the upstreams' addresses and for the spool.
const START: Duration = Duration::from_secs(3);
/// How often answers that are not needed any more are looked for.
const MEMORY_SWEEP: Duration = Duration::from_secs(1);
/// How long closing the spool may take.
const CLOSE: Duration = Duration::from_secs(2);
/// How often the end of the last visit is looked for while stopping.
const IDLE_CHECK: Duration = Duration::from_millis(5);

/// Where the edge listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For Twilio.
    pub public: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

/// Runs the edge until a signal ends it. `announce` is told the addresses once they accept.
pub fn run(config: Config, announce: impl FnOnce(Addresses)) -> anyhow::Result<()> {
    // Each data thread has a scheduler of its own and keeps what it accepted: handing a visit from one
    // thread to another would cost more than it evens out.
    let data = Runtime::new_no_steal(config.threads, "holdline-data");
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("holdline-control")
        .enable_all()
        .build()?;
    let (public, public_address) = data.get_handle().block_on(async { bind(config.public) })?;
    let (admin, admin_address) = control.block_on(async { bind(config.admin) })?;
    let stop = config.stop;
    // Dropped last: what the log was given is written before the process ends.
    let (assembly, _written) = assemble(config)?;
    let holdline = assembly.holdline.clone();
    control.block_on(assembly.writer.look())?;
    let news = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("holdline-spool")
        .enable_all()
        .build()?;
    control.block_on(oversee(assembly, admin, news.handle()))?;
    let (stopping, listen) = listen(data.get_handle(), public, &holdline)?;
    announce(Addresses { public: public_address, admin: admin_address });
    let ended = control.block_on(run_until_stopped(&holdline, stop, stopping, listen));
    // What is still running has had its grace; it must not hold up the end.
    data.shutdown_timeout(Duration::ZERO);
    control.shutdown_background();
    news.shutdown_background();
    ended
}

/// The parts of an edge before they run.
struct Assembly {
    holdline: Arc<Holdline>,
    writer: Writer,
    watchman: Watchman,
    prober: Prober,
    names: Names,
}

fn assemble(config: Config) -> anyhow::Result<(Assembly, Option<VisitLogGuard>)> {
    let clock = Clock::start();
    let rows = config.catalogue.rows().iter().map(|row| (row.name.as_str(), row.kind));
    let metrics = Arc::new(Metrics::new(rows).context("registering metrics")?);
    let (visits, written) = if config.log_visits {
        let (visits, written) = VisitLog::start(config.log, metrics.log_lines_lost.clone())?;
        (visits, Some(written))
    } else {
        (VisitLog::off(metrics.log_lines_lost.clone()), None)
    };
    let (watchman, watch) = appoint(config.thresholds, metrics.clone(), clock);
    let [origin, monitor] = config.upstreams;
    let targets = Arc::new([
        Target::new(Upstream::Origin, origin, config.threads),
        Target::new(Upstream::Monitor, monitor, config.threads),
    ]);
    let prober = Prober {
        targets: targets.clone(),
        watch: watch.clone(),
        pace: config.pace,
        metrics: metrics.clone(),
        clock,
    };
    let (spool, writer) = Spool::new(config.spool, metrics.clone());
    let latencies = config.catalogue.rows().iter().map(|_| Latency::default()).collect();
    let holdline = Arc::new(Holdline {
        environment: config.environment,
        admin_token: config.admin_token,
        ready: AtomicBool::new(false),
        unlisted: config.unlisted,
        prover: Prover::new(config.public_url.clone(), config.keys.clone(), config.signature),
        relay: Arc::new(Relay {
            catalogue: config.catalogue,
            canned: config.canned,
            targets,
            watch,
            keys: config.keys,
            hold_keys: config.hold_keys,
            public_url: config.public_url,
            late: LateAnswers::new(metrics.clone()),
            recent: Recent::default(),
            spool,
            latencies,
            hedges: Budget::default(),
            retries: Budget::default(),
            metrics,
            clock,
        }),
        visits,
    });
    let names = Names::new(config.name_servers);
    Ok((Assembly { holdline, writer, watchman, prober, names }, written))
}

/// Starts everything that is not the data plane.
async fn oversee(
    assembly: Assembly,
    admin: TcpListener,
    news: &tokio::runtime::Handle,
) -> anyhow::Result<()> {
    let Assembly { holdline, writer, watchman, prober, names } = assembly;
    let ends = news.spawn(writer.run());
    news.spawn(watch_over("writer", holdline.relay.spool.clone(), ends));
    let ends = news.spawn(Replay::new(holdline.relay.clone()).run());
    news.spawn(watch_over("replay", holdline.relay.spool.clone(), ends));
    let names = Arc::new(names);
    let targets = holdline.relay.targets.clone();
    let mut resolved = Vec::new();
    for upstream in Upstream::ALL {
        let (first, done) = oneshot::channel();
        tokio::spawn(keep_resolving(targets.clone(), upstream, names.clone(), first));
        resolved.push(done);
    }
    // Neither a name server that does not answer nor a large spool must keep the edge from serving.
    let opened = holdline.relay.spool.opened();
    let _ = timeout(START, async { tokio::join!(join_all(resolved), opened) }).await;
    tokio::spawn(keep_sweeping(targets, holdline.relay.clock));
    let relay = holdline.relay.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(MEMORY_SWEEP).await;
            relay.sweep();
        }
    });
    tokio::spawn(watchman.run());
    let prober = Arc::new(prober);
    for upstream in Upstream::ALL {
        let prober = prober.clone();
        tokio::spawn(async move { prober.run(upstream).await });
    }
    tokio::spawn(async move {
        if let Err(error) = axum::serve(admin, admin::router(holdline)).await {
            tracing::error!(%error, "the admin plane ended");
        }
    });
    Ok(())
}

/// Says so when a task of the spool has ended otherwise than it should. Reports are handed on from then
/// on, and what waits is delivered after the next start.
async fn watch_over(which: &str, spool: Arc<Spool>, task: tokio::task::JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(which, %error, "the spool does not work any more; start the edge anew");
        spool.fail();
    }
}

/// Starts to accept on the public socket. Sending `true` closes it.
fn listen(
    data: &tokio::runtime::Handle,
    public: TcpListener,
    holdline: &Arc<Holdline>,
) -> anyhow::Result<(watch::Sender<bool>, tokio::task::JoinHandle<()>)> {
    const NAME: &str = "public";
    let conf = Arc::new(ServerConf { upstream_keepalive_pool_size: POOL, ..ServerConf::default() });
    let address = public.local_addr()?.to_string();
    let fd = public.into_std()?.into_raw_fd();
    let mut fds = Fds::new();
    fds.add(address.clone(), fd);
    let fds: ListenFds = Arc::new(fds.into());
    let _guard = data.enter();
    let mut service = Service::new(NAME.to_owned(), http_proxy(&conf, Edge(holdline.clone())));
    service.add_tcp(&address);
    let (stopping, stopped) = watch::channel(false);
    let task = data.spawn(async move { service.start_service(Some(fds), stopped, 1).await });
    holdline.ready.store(true, Ordering::Release);
    Ok((stopping, task))
}

async fn run_until_stopped(
    holdline: &Holdline,
    stop: Stop,
    stopping: watch::Sender<bool>,
    mut listen: tokio::task::JoinHandle<()>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A limit on the size of files is a full disk like any other, and no reason to end.
    let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = &mut listen => anyhow::bail!("the public listener ended"),
    }
    tracing::info!("stopping: not ready any more, visits are still taken");
    holdline.ready.store(false, Ordering::Release);
    tokio::time::sleep(stop.drain).await;
    let _ = stopping.send(true);
    let _ = listen.await;
    let spool = &holdline.relay.spool;
    spool.stop_replaying();
    let idle = async {
        while holdline.relay.metrics.visits_in_flight.get() > 0 || spool.is_trying() {
            tokio::time::sleep(IDLE_CHECK).await;
        }
    };
    let in_time = timeout(stop.grace, idle).await.is_ok();
    // Whatever was acknowledged is on disk already; this only leaves a tidy file.
    let _ = timeout(CLOSE, spool.close()).await;
    let answered = |by| holdline.relay.metrics.answered(Kind::Synchronous, by);
    tracing::info!(
        steered = answered(AnsweredBy::Origin) + answered(AnsweredBy::Monitor),
        held = answered(AnsweredBy::Hold),
        dropped = answered(AnsweredBy::Canned),
        in_time,
        "stopped"
    );
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let listener = socket.listen(BACKLOG)?;
    let actual = listener.local_addr()?;
    Ok((listener, actual))
}
