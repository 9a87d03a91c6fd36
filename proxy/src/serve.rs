//! Starting the process, from its configuration or from the process that it takes over from.
//!
//! Sockets are opened first and announced once they accept. The data plane has the worker threads;
//! probes, watchman and admin share a thread of their own, and so does the spool, so that none can starve
//! another.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use holdline_policy::{Moment, Upstream};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::assembly::{Lasting, Resolving};
use crate::clock::Clock;
use crate::config::Config;
use crate::handover::{Plane, Predecessor};
use crate::listener::{BACKLOG, Listener};
use crate::probe::Prober;
use crate::relay::hold::HoldKeys;
use crate::reload::{Fixed, OTHER_SPOOL, Reload};
use crate::running::{Parts, Running};
use crate::signals::Signals;
use crate::spool::replay::Replay;
use crate::spool::{Spool, Writer};
use crate::state::{Keeper, State, same_hosts};
use crate::upstream::keep_sweeping;
use crate::watchman::Watchman;
use crate::workers::Workers;
use crate::{Current, process, systemd};

/// How long starting waits for the spool.
const START: Duration = Duration::from_secs(3);
/// How often answers that are not needed any more are looked for.
const MEMORY_SWEEP: Duration = Duration::from_secs(1);

/// Where the edge listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// For Twilio; and whether TLS is spoken there.
    pub public: Vec<(SocketAddr, bool)>,
    /// For operators.
    pub admin: SocketAddr,
}

/// Runs the edge until a signal ends it or another process has taken over. With a predecessor it takes
/// over itself. `announce` is told the addresses once they accept.
pub fn run(
    mut config: Config,
    file: PathBuf,
    mut predecessor: Option<Predecessor>,
    announce: impl FnOnce(&Addresses),
) -> anyhow::Result<()> {
    process::keep_memory_private();
    process::allow_descriptors(config.limits.connections);
    for warning in &config.warnings {
        tracing::warn!(warning, "the configuration");
    }
    let workers = Workers::start(config.threads)?;
    let control = single_thread("holdline-control")?;
    let news = single_thread("holdline-spool")?;
    let signals = control.block_on(async { Signals::listen() })?;
    if predecessor.as_ref().is_some_and(|old| old.spool != config.spool.folder) {
        anyhow::bail!("spool.folder: {OTHER_SPOOL}");
    }
    let (fixed, journal) = (Fixed::of(&config), config.journal.folder.clone());
    let mut listen = |plane| match predecessor.as_mut().and_then(|old| old.socket(plane)) {
        Some(socket) => Ok(socket),
        None => bind(&control, plane),
    };
    let public = fixed.public().iter().map(|address| listen(Plane::Public(*address)));
    let public: Vec<TcpListener> = public.collect::<Result<_, _>>()?;
    let admin = listen(Plane::Admin(fixed.admin()))?;
    let mut state = match &predecessor {
        Some(old) => State::of_a_predecessor(Clock::continued(old.elapsed)),
        None => State::read(&config),
    };
    let (clock, uptime) = (state.clock, predecessor.as_ref().map(|old| old.uptime));
    let hold_key = match &predecessor {
        Some(old) => old.hold_key.clone(),
        None => HoldKeys::draw().context("drawing a key for holds")?,
    };
    let began = clock.now().since_start().saturating_sub(uptime.unwrap_or_default());
    // Dropped last: what the log was given is written before the process ends.
    let (lasting, tasks, _written) = Lasting::begin(&config, clock, Moment::at(began), hold_key)?;
    control.block_on(tasks.writer.look())?;
    // Before anything is asked, delivered or probed. From a predecessor it comes later.
    if let Some((health, same_host)) = state.health.take() {
        lasting.watch.inherit(health, same_host);
    }
    lasting.orders.inherit(std::mem::take(&mut state.orders));
    let name_servers = config.name_servers.take();
    let listeners: Arc<[Arc<Listener>]> = std::mem::take(&mut config.public)
        .into_iter()
        .zip(public)
        .map(|(config, socket)| Listener::new(socket, config, &lasting.metrics).map(Arc::new))
        .collect::<Result<_, _>>()?;
    let current: Current = Arc::new(ArcSwap::from_pointee(lasting.edge(config, None)?));
    keep_reports(&news, tasks.writer, &current, &lasting);
    let resolving = control.block_on(async {
        let targets = current.load().relay.targets.clone();
        // A large spool must not keep the edge from serving.
        let opened = timeout(START, lasting.spool.opened());
        tokio::join!(Resolving::begin(&targets, name_servers), opened).0
    });
    if let Some(old) = &mut predecessor {
        let estate = old.prepared()?;
        lasting.watch.inherit(estate.health, same_hosts(&current, &estate.hosts));
        lasting.orders.inherit(estate.orders);
        estate.late.into_iter().for_each(|news| lasting.late.take_in(news));
    }
    let began = if predecessor.is_some() { "took_over" } else { "started" };
    lasting.note_process(began, &current.load().judging());
    lasting.watch.note_inherited(&lasting.journal);
    lasting.orders.note_inherited();
    watch_upstreams(&control, tasks.watchman, &current, &lasting);
    let keeper = Keeper::new(&journal, &lasting, current.clone());
    let addresses = Addresses {
        public: listeners.iter().map(|one| (one.address, one.is_tls())).collect(),
        admin: admin.local_addr()?,
    };
    let reload =
        Reload::new(file, current.clone(), lasting.clone(), listeners.clone(), fixed, resolving);
    let reload = Arc::new(reload);
    let keeper = Arc::new(keeper);
    let parts = Parts { current, reload, lasting, listeners, admin, keeper: keeper.clone() };
    let ended = control.block_on(async {
        let late = parts.lasting.late.clone();
        let running = Running::begin(&workers, parts)?;
        if let Some(old) = predecessor {
            old.serving(late);
        }
        // Only whoever serves writes it.
        tokio::spawn(keeper.run());
        announce(&addresses);
        systemd::ready();
        running.until_stopped(signals).await
    });
    // What is still running has had its grace; it must not hold up the end.
    drop(workers);
    control.shutdown_background();
    news.shutdown_background();
    ended
}

fn single_thread(name: &str) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name(name).enable_all().build()
}

/// Starts what keeps reports and delivers them.
fn keep_reports(news: &Runtime, writer: Writer, current: &Current, lasting: &Lasting) {
    let ends = news.spawn(writer.run());
    news.spawn(watch_over("writer", lasting.spool.clone(), ends));
    let ends = news.spawn(Replay::new(current.clone()).run());
    news.spawn(watch_over("replay", lasting.spool.clone(), ends));
}

/// Says so when a task of the spool has ended otherwise than it should. Reports are handed on from then
/// on, and what waits is delivered after the next start.
async fn watch_over(which: &str, spool: Arc<Spool>, task: tokio::task::JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(which, %error, "the spool does not work any more; start the edge anew");
        spool.fail();
    }
}

/// Starts what judges upstreams, and what tidies up behind visits.
fn watch_upstreams(control: &Runtime, watchman: Watchman, current: &Current, lasting: &Lasting) {
    control.spawn(keep_sweeping(current.clone(), lasting.clock));
    let remembering = current.clone();
    control.spawn(async move {
        loop {
            tokio::time::sleep(MEMORY_SWEEP).await;
            remembering.load().relay.sweep();
        }
    });
    control.spawn(watchman.run());
    let orders = lasting.orders.clone();
    control.spawn(async move { orders.keep().await });
    let (metrics, clock) = (lasting.metrics.clone(), lasting.clock);
    let watch = lasting.watch.clone();
    let prober = Arc::new(Prober { current: current.clone(), watch, metrics, clock });
    for upstream in Upstream::ALL {
        let prober = prober.clone();
        control.spawn(async move { prober.run(upstream).await });
    }
}

fn bind(runtime: &Runtime, plane: Plane) -> anyhow::Result<TcpListener> {
    let (Plane::Public(address) | Plane::Admin(address)) = plane;
    let _guard = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot listen on {address}"))?;
    Ok(socket.listen(BACKLOG)?.into_std()?)
}
