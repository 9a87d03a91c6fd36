//! Starting, running and stopping the process.
//!
//! Sockets are opened first and announced once they accept. The data plane has the worker threads;
//! probes, watchman and admin share a thread of their own, so that neither can starve the other. On
//! SIGTERM the edge first says that it is not ready, takes visits for the drain time and asks clients to
//! connect elsewhere, closes its listeners, and ends the moment the last visit has been answered.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use holdline_policy::{Kind, Upstream};
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use rustix::process::Signal;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::{self, Control};
use crate::answer::AnsweredBy;
use crate::assembly::{Lasting, Resolving, Tasks};
use crate::config::{Config, Stop};
use crate::edge::Edge;
use crate::listener::clients::Clients;
use crate::listener::{Door, Listener, http2_options, keep_certificates};
use crate::probe::Prober;
use crate::reload::{Fixed, Reload};
use crate::spool::Spool;
use crate::spool::replay::Replay;
use crate::upstream::keep_sweeping;
use crate::workers::Workers;
use crate::{Current, process};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Idle upstream connections kept for streaming.
const POOL: usize = 128;
/// How long starting waits for the spool.
const START: Duration = Duration::from_secs(3);
/// How often answers that are not needed any more are looked for.
const MEMORY_SWEEP: Duration = Duration::from_secs(1);
/// How long closing the spool may take.
const CLOSE: Duration = Duration::from_secs(2);
/// How often the end of the last visit is looked for while stopping.
const IDLE_CHECK: Duration = Duration::from_millis(5);

/// Where the edge listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// For Twilio; and whether TLS is spoken there.
    pub public: Vec<(SocketAddr, bool)>,
    /// For operators.
    pub admin: SocketAddr,
}

/// An edge that runs.
struct Running {
    current: Current,
    reload: Arc<Reload>,
    lasting: Lasting,
    listeners: Arc<[Arc<Listener>]>,
    clients: Arc<Clients>,
    /// Says that answers ask clients to connect anew.
    leaving: watch::Sender<bool>,
    /// Says that nothing is accepted any more.
    closed: watch::Sender<bool>,
    accepting: JoinSet<std::io::Result<()>>,
}

/// Runs the edge until a signal ends it. `announce` is told the addresses once they accept.
pub fn run(
    mut config: Config,
    file: PathBuf,
    announce: impl FnOnce(&Addresses),
) -> anyhow::Result<()> {
    process::prepare(config.limits.connections);
    for warning in &config.warnings {
        tracing::warn!(warning, "the configuration");
    }
    let workers = Workers::start(config.threads)?;
    let control = single_thread("holdline-control")?;
    let news = single_thread("holdline-spool")?;
    let fixed = Fixed::of(&config);
    let public: Vec<TcpListener> =
        fixed.public().iter().map(|address| bind(&control, *address)).collect::<Result<_, _>>()?;
    let admin = bind(&control, config.admin)?;
    // Dropped last: what the log was given is written before the process ends.
    let (lasting, tasks, _written) = Lasting::begin(&config)?;
    control.block_on(tasks.writer.look())?;
    let name_servers = config.name_servers.take();
    let listeners: Arc<[Arc<Listener>]> = std::mem::take(&mut config.public)
        .into_iter()
        .zip(public)
        .map(|(config, socket)| Listener::new(socket, config, &lasting.metrics).map(Arc::new))
        .collect::<Result<_, _>>()?;
    let current: Current = Arc::new(ArcSwap::from_pointee(lasting.edge(config, None)?));
    oversee(&control, &news, tasks, &current, &lasting);
    let resolving = control.block_on(async {
        let targets = current.load().relay.targets.clone();
        // A large spool must not keep the edge from serving.
        let opened = timeout(START, lasting.spool.opened());
        tokio::join!(Resolving::begin(&targets, name_servers), opened).0
    });
    let reload =
        Reload::new(file, current.clone(), lasting.clone(), listeners.clone(), fixed, resolving);
    let addresses = Addresses {
        public: listeners.iter().map(|one| (one.address, one.is_tls())).collect(),
        admin: admin.local_addr()?,
    };
    let running = Running::begin(&workers, current, Arc::new(reload), lasting, listeners);
    running.serve_admin(&control, admin)?;
    announce(&addresses);
    let ended = control.block_on(running.until_stopped());
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

/// Starts everything that is neither data plane nor admin plane.
fn oversee(control: &Runtime, news: &Runtime, tasks: Tasks, current: &Current, lasting: &Lasting) {
    let Tasks { writer, watchman } = tasks;
    let ends = news.spawn(writer.run());
    news.spawn(watch_over("writer", lasting.spool.clone(), ends));
    let ends = news.spawn(Replay::new(current.clone()).run());
    news.spawn(watch_over("replay", lasting.spool.clone(), ends));
    control.spawn(keep_sweeping(current.clone(), lasting.clock));
    let remembering = current.clone();
    control.spawn(async move {
        loop {
            tokio::time::sleep(MEMORY_SWEEP).await;
            remembering.load().relay.sweep();
        }
    });
    control.spawn(watchman.run());
    let (metrics, clock) = (lasting.metrics.clone(), lasting.clock);
    let watch = lasting.watch.clone();
    let prober = Arc::new(Prober { current: current.clone(), watch, metrics, clock });
    for upstream in Upstream::ALL {
        let prober = prober.clone();
        control.spawn(async move { prober.run(upstream).await });
    }
}

/// Says so when a task of the spool has ended otherwise than it should. Reports are handed on from then
/// on, and what waits is delivered after the next start.
async fn watch_over(which: &str, spool: Arc<Spool>, task: tokio::task::JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(which, %error, "the spool does not work any more; start the edge anew");
        spool.fail();
    }
}

// === impl Running ===

impl Running {
    /// Starts to accept.
    fn begin(
        workers: &Workers,
        current: Current,
        reload: Arc<Reload>,
        lasting: Lasting,
        listeners: Arc<[Arc<Listener>]>,
    ) -> Running {
        let clients = Arc::new(Clients::default());
        let (leaving, leaves) = watch::channel(false);
        let (closed, closes) = watch::channel(false);
        let conf = ServerConf { upstream_keepalive_pool_size: POOL, ..ServerConf::default() };
        let mut proxy = HttpProxy::new(Edge(current.clone()), Arc::new(conf));
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(current.load().limits.idle);
        proxy.server_options = Some(options);
        proxy.h2_options = Some(http2_options());
        proxy.handle_init_modules();
        let door = Arc::new(Door {
            current: current.clone(),
            proxy: Arc::new(proxy),
            clients: clients.clone(),
            leaving: leaves,
            metrics: lasting.metrics.clone(),
            clock: lasting.clock,
        });
        let mut accepting = JoinSet::new();
        for (number, listener) in listeners.iter().enumerate() {
            let accept = listener.clone();
            let accept = accept.accept(door.clone(), workers.handles().clone(), closes.clone());
            accepting.spawn_on(accept, workers.handles().of(number));
        }
        lasting.ready.store(true, Ordering::Release);
        Running { current, reload, lasting, listeners, clients, leaving, closed, accepting }
    }

    fn serve_admin(&self, control: &Runtime, socket: TcpListener) -> anyhow::Result<()> {
        let _guard = control.enter();
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let (current, reload) = (self.current.clone(), self.reload.clone());
        let router = admin::router(Control { current, reload, clients: self.clients.clone() });
        control.spawn(async move {
            if let Err(error) = axum::serve(socket, router).await {
                tracing::error!(%error, "the admin plane ended");
            }
        });
        let certificates = keep_certificates(self.listeners.clone(), self.lasting.metrics.clone());
        control.spawn(certificates);
        Ok(())
    }

    async fn until_stopped(mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // A limit on the size of files is a full disk like any other, and no reason to end.
        let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    // What came of it is in the log.
                    let _ = self.reload.now().await;
                }
                Some(ended) = self.accepting.join_next() => {
                    anyhow::bail!("a public listener ended: {ended:?}");
                }
            }
        }
        let stop = self.current.load().stop;
        tracing::info!("stopping: not ready any more, visits are still taken");
        self.lasting.ready.store(false, Ordering::Release);
        let _ = self.leaving.send(true);
        tokio::time::sleep(stop.drain).await;
        self.end(stop).await
    }

    /// Accepts no more, and waits for what is under way.
    async fn end(mut self, stop: Stop) -> anyhow::Result<()> {
        self.listeners.iter().for_each(|listener| listener.close());
        let _ = self.closed.send(true);
        while self.accepting.join_next().await.is_some() {}
        self.clients.end_idle();
        let (spool, metrics) = (&self.lasting.spool, &self.lasting.metrics);
        spool.stop_replaying();
        let idle = async {
            while metrics.visits_in_flight.get() > 0 || spool.is_trying() {
                tokio::time::sleep(IDLE_CHECK).await;
            }
        };
        let in_time = timeout(stop.grace, idle).await.is_ok();
        // Whatever was acknowledged is on disk already; this only leaves a tidy file.
        let _ = timeout(CLOSE, spool.close()).await;
        let relay = &self.current.load().relay;
        let answered = |by| relay.row_counts.answered(Kind::Synchronous, by);
        tracing::info!(
            steered = answered(AnsweredBy::Origin) + answered(AnsweredBy::Monitor),
            held = answered(AnsweredBy::Hold),
            dropped = answered(AnsweredBy::Canned),
            in_time,
            "stopped"
        );
        Ok(())
    }
}

fn bind(runtime: &Runtime, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let _guard = runtime.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot listen on {address}"))?;
    Ok(socket.listen(BACKLOG)?.into_std()?)
}
