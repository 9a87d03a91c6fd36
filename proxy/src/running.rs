//! A process that serves: it accepts, reads its configuration anew, leaves everything to another process,
//! and ends.
//!
//! On SIGTERM the edge first says that it is not ready, takes visits for the drain time and asks clients
//! to connect elsewhere, closes its listeners, and ends the moment the last visit has been answered. After
//! an upgrade nobody is sent away: clients are asked to connect anew, to the same address, as each gets
//! its answer.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use holdline_policy::{Kind, Upstream};
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::admin::{self, Control};
use crate::answer::AnsweredBy;
use crate::assembly::Lasting;
use crate::config::Stop;
use crate::edge::Edge;
use crate::handover::{Estate, Heir, Plane, own_program};
use crate::listener::{Door, Listener, http2_options, keep_certificates};
use crate::orders::DrillEnd;
use crate::reload::Reload;
use crate::signals::{Signals, Told};
use crate::state::{Keeper, host_of};
use crate::workers::{Handles, Workers};
use crate::{Current, systemd};

/// Idle upstream connections kept for streaming.
const POOL: usize = 128;
/// How long closing the spool may take.
const CLOSE: Duration = Duration::from_secs(2);
/// How often the end of the last visit is looked for while stopping.
const IDLE_CHECK: Duration = Duration::from_millis(5);
/// How long deliveries under way may keep another process from replaying: as long as one may take.
const LAST_TRIES: Duration = Duration::from_secs(45);
/// How long a process that was taken over from lives on at most: as long as the longest hold.
const LIVES_ON: Duration = Duration::from_secs(180);
/// News of held visits that may wait to be told to another process.
const NEWS: usize = 16_384;

/// What a process runs on.
pub struct Parts {
    /// The configuration in force.
    pub current: Current,
    /// Reads it anew.
    pub reload: Arc<Reload>,
    /// What outlives it.
    pub lasting: Lasting,
    /// Where clients come in.
    pub listeners: Arc<[Arc<Listener>]>,
    /// Where operators do.
    pub admin: TcpListener,
    /// Writes down what a new process goes on with.
    pub keeper: Arc<Keeper>,
}

/// A request for an upgrade; answered with the id of the process that has taken over.
pub type UpgradeAsked = oneshot::Sender<Result<u32, String>>;

/// A process that serves.
pub struct Running {
    parts: Parts,
    program: Option<PathBuf>,
    workers: Handles,
    door: Arc<Door>,
    /// Whether this process is the one that serves, for whoever watches over it.
    is_the_service: Arc<AtomicBool>,
    /// Whether another process has taken over for good.
    left: bool,
    /// Says that answers ask clients to connect anew.
    leaving: watch::Sender<bool>,
    accepting: Accepting,
    upgrades: mpsc::Receiver<UpgradeAsked>,
    ask_for_upgrade: mpsc::Sender<UpgradeAsked>,
}

/// Everything that accepts.
struct Accepting {
    /// Says that nothing is accepted any more.
    closed: watch::Sender<bool>,
    public: JoinSet<std::io::Result<()>>,
    admin: JoinHandle<()>,
}

/// What a process was told while it read its configuration.
enum Meanwhile {
    /// Nothing that is left to be done.
    Nothing,
    /// To stop.
    Stop,
    /// To hand over; and whether to read the configuration once more, where that fails.
    Upgrade {
        /// To read it.
        again: bool,
    },
}

// === impl Running ===

impl Running {
    /// Starts to accept.
    pub fn begin(workers: &Workers, parts: Parts) -> anyhow::Result<Running> {
        let (leaving, leaves) = watch::channel(false);
        let door = Arc::new(Door {
            current: parts.current.clone(),
            proxy: Arc::new(framework(&parts.current)),
            clients: Arc::default(),
            leaving: leaves,
            metrics: parts.lasting.metrics.clone(),
            clock: parts.lasting.clock,
        });
        let (ask_for_upgrade, upgrades) = mpsc::channel(1);
        let workers = workers.handles().clone();
        let is_the_service = Arc::new(AtomicBool::new(true));
        tokio::spawn(systemd::keep_alive(workers.clone(), is_the_service.clone()));
        let accepting = accept(&parts, &door, &workers, &ask_for_upgrade)?;
        let certificates =
            keep_certificates(parts.listeners.clone(), parts.lasting.metrics.clone());
        tokio::spawn(certificates);
        parts.lasting.ready.store(true, Ordering::Release);
        Ok(Running {
            program: own_program(),
            parts,
            workers,
            door,
            is_the_service,
            left: false,
            leaving,
            accepting,
            upgrades,
            ask_for_upgrade,
        })
    }

    /// Serves until a signal ends that, or another process has taken over.
    pub async fn until_stopped(mut self, mut signals: Signals) -> anyhow::Result<()> {
        loop {
            let mut reload = false;
            let asked = tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break,
                    Told::Upgrade => None,
                    Told::Reload => match self.reload(&mut signals).await {
                        Meanwhile::Stop => break,
                        Meanwhile::Upgrade { again } => {
                            reload = again;
                            None
                        }
                        Meanwhile::Nothing => continue,
                    },
                },
                asked = self.upgrades.recv() => asked,
                Some(ended) = self.accepting.public.join_next() => {
                    anyhow::bail!("a public listener ended: {ended:?}");
                }
            };
            let handed = tokio::select! {
                handed = self.hand_over() => handed.map_err(|error| format!("{error:#}")),
                () = signals.stop(&mut reload) => break,
            };
            if let Some(asked) = asked {
                // Whoever asked may have gone.
                let _ = asked.send(handed.as_ref().map(|handed| handed.id).map_err(Clone::clone));
            }
            match handed {
                Err(error) => {
                    tracing::error!(error, "not upgraded; this process goes on");
                    if self.accepting.public.is_empty() {
                        self.accept_again()?;
                    }
                    if reload {
                        let _ = self.parts.reload.now().await;
                    }
                }
                Ok(handed) => {
                    if reload {
                        handed.signal(Signal::HUP);
                    }
                    if self.live_on(handed, &mut signals).await {
                        self.left = true;
                        let stop = self.parts.current.load().stop;
                        return self.end(stop).await;
                    }
                    self.go_on_alone()?;
                }
            }
        }
        if self.accepting.public.is_empty() {
            // Told to stop in the middle of a hand-over.
            self.accept_again()?;
        }
        let stop = self.parts.current.load().stop;
        tracing::info!("stopping: not ready any more, visits are still taken");
        systemd::stopping();
        self.parts.lasting.ready.store(false, Ordering::Release);
        self.leaving.send_replace(true);
        sleep(stop.drain).await;
        self.end(stop).await
    }

    /// Leaves everything to a new process. If that fails, nothing has changed but that nothing is accepted.
    async fn hand_over(&mut self) -> anyhow::Result<Handed> {
        let Parts { lasting, reload, .. } = &self.parts;
        let program = self.program.as_deref().context("it is not known which program this is")?;
        // The new process reads the configuration that is in the file now.
        let _held = reload.hold().await;
        let mut heir = Heir::start(program, reload.file(), self.sockets()?, lasting).await?;
        // From here until the new process accepts, clients wait in the sockets' queues.
        self.accepting.stop().await;
        let (news, told) = mpsc::channel(NEWS);
        let late = lasting.late.bequeath(news);
        let targets = self.parts.current.load().relay.targets.clone();
        let estate = Estate {
            health: lasting.watch.bequeath(),
            orders: lasting.orders.ordered(),
            hosts: Upstream::ALL.map(|upstream| host_of(&targets[upstream.index()].config)),
            late,
        };
        if let Err(error) = heir.inherit(&estate).await {
            lasting.late.disinherit();
            heir.end().await;
            return Err(error);
        }
        reload.leave(true);
        self.parts.keeper.leave(true);
        lasting.orders.leave();
        let id = heir.id();
        self.is_the_service.store(false, Ordering::Release);
        systemd::is_now(id);
        tracing::info!(id, "another process has taken over");
        Ok(Handed { id, telling: tokio::spawn(heir.keep_telling(told)) })
    }

    fn accept_again(&mut self) -> anyhow::Result<()> {
        self.accepting = accept(&self.parts, &self.door, &self.workers, &self.ask_for_upgrade)?;
        Ok(())
    }

    /// The process that had taken over is gone: this one is all there is.
    fn go_on_alone(&mut self) -> anyhow::Result<()> {
        tracing::error!("this process serves again");
        let Parts { lasting, reload, .. } = &self.parts;
        reload.leave(false);
        // What was ordered of the process that is gone is ordered of this one.
        lasting.orders.return_with(self.parts.keeper.orders().unwrap_or_default());
        self.parts.keeper.leave(false);
        lasting.note_process("goes_on", &self.parts.current.load().judging());
        lasting.late.disinherit();
        self.leaving.send_replace(false);
        self.is_the_service.store(true, Ordering::Release);
        systemd::is_now(std::process::id());
        lasting.spool.take_replay_back();
        self.accept_again()
    }

    /// Every socket, with what it is for and where it was configured to listen.
    fn sockets(&self) -> anyhow::Result<Vec<(Plane, TcpListener)>> {
        let fixed = self.parts.reload.fixed();
        let mut sockets = vec![(Plane::Admin(fixed.admin()), self.parts.admin.try_clone()?)];
        for (address, listener) in fixed.public().iter().zip(self.parts.listeners.iter()) {
            let socket = listener.socket()?.context("a listener is closed")?;
            sockets.push((Plane::Public(*address), socket));
        }
        Ok(sockets)
    }

    /// Reads the configuration again; it may be on a disk that hangs, and nobody is kept from stopping the
    /// process by that.
    async fn reload(&self, signals: &mut Signals) -> Meanwhile {
        loop {
            let (mut again, mut upgrade) = (false, false);
            let reload = self.parts.reload.now();
            tokio::pin!(reload);
            loop {
                tokio::select! {
                    // What came of it is in the log.
                    _ = &mut reload => break,
                    told = signals.next() => match told {
                        Told::Stop => return Meanwhile::Stop,
                        Told::Reload => again = true,
                        Told::Upgrade => upgrade = true,
                    },
                }
            }
            if upgrade {
                return Meanwhile::Upgrade { again };
            }
            if !again {
                return Meanwhile::Nothing;
            }
        }
    }

    /// Ends what was begun, after another process has taken over. False if that one has ended first.
    async fn live_on(&mut self, mut handed: Handed, signals: &mut Signals) -> bool {
        // Whoever asks from now on asks the new process.
        while let Ok(asked) = self.upgrades.try_recv() {
            drop(asked);
        }
        self.leaving.send_replace(true);
        let Lasting { spool, late, .. } = &self.parts.lasting;
        let over = async {
            spool.stop_replaying();
            // What is on its way to the application comes before what the new process delivers.
            let _ = timeout(LAST_TRIES, until(|| !self.is_busy())).await;
            spool.yield_replay();
            let over =
                until(|| !self.is_busy() && self.door.clients.count() == 0 && !late.is_asking());
            let _ = timeout(LIVES_ON, over).await;
        };
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                _ = &mut handed.telling => return false,
                told = signals.next() => match told {
                    Told::Stop => break,
                    Told::Reload => handed.signal(Signal::HUP),
                    Told::Upgrade => handed.signal(Signal::USR2),
                },
            }
        }
        late.disinherit();
        // It has been told everything when this ends.
        let _ = timeout(CLOSE, handed.telling).await;
        true
    }

    /// Whether anything was begun that has not ended.
    fn is_busy(&self) -> bool {
        let lasting = &self.parts.lasting;
        lasting.metrics.visits_in_flight.get() > 0
            || lasting.spool.is_trying()
            || self.door.clients.is_any_busy()
    }

    /// Accepts no more, and waits for what is under way.
    async fn end(mut self, stop: Stop) -> anyhow::Result<()> {
        self.parts.listeners.iter().for_each(|listener| listener.close());
        self.accepting.stop_public().await;
        self.door.clients.end_idle();
        let spool = &self.parts.lasting.spool;
        spool.stop_replaying();
        let in_time = timeout(stop.grace, until(|| !self.is_busy())).await.is_ok();
        // A drill is for those who look at it.
        let _ = self.parts.lasting.orders.end_drill(DrillEnd::Stopped);
        if let Err(error) = self.parts.keeper.clone().keep_now().await {
            tracing::warn!(%error, "what is believed could not be kept for a new process");
        }
        let judging = self.parts.current.load().judging();
        let what = if self.left { "left" } else { "stopped" };
        self.parts.lasting.note_process(what, &judging);
        // Whatever was acknowledged is on disk already; this only leaves a tidy file.
        let _ = timeout(CLOSE, spool.close()).await;
        let relay = &self.parts.current.load().relay;
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

/// A process that has taken over.
struct Handed {
    id: u32,
    /// Tells it what comes of what was begun.
    telling: JoinHandle<()>,
}

// === impl Handed ===

impl Handed {
    /// What was meant for the process that serves.
    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        // It may have ended.
        let _ = id.map(|id| kill_process(id, signal));
    }
}

// === impl Accepting ===

impl Accepting {
    /// Ends everything that accepts; the sockets stay open.
    async fn stop(&mut self) {
        self.admin.abort();
        self.stop_public().await;
    }

    async fn stop_public(&mut self) {
        let _ = self.closed.send(true);
        while self.public.join_next().await.is_some() {}
    }
}

/// Starts everything that accepts.
fn accept(
    parts: &Parts,
    door: &Arc<Door>,
    workers: &Handles,
    upgrade: &mpsc::Sender<UpgradeAsked>,
) -> anyhow::Result<Accepting> {
    let (closed, closes) = watch::channel(false);
    let mut public = JoinSet::new();
    for (number, listener) in parts.listeners.iter().enumerate() {
        let accept = listener.clone().accept(door.clone(), workers.clone(), closes.clone());
        public.spawn_on(accept, workers.of(number));
    }
    let socket = parts.admin.try_clone()?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let router = admin::router(Control {
        current: parts.current.clone(),
        reload: parts.reload.clone(),
        clients: door.clients.clone(),
        upgrade: upgrade.clone(),
        keeper: parts.keeper.clone(),
    });
    let admin = tokio::spawn(async move {
        if let Err(error) = axum::serve(socket, router).await {
            tracing::error!(%error, "the admin plane ended");
        }
    });
    Ok(Accepting { closed, public, admin })
}

/// The framework, which speaks HTTP with clients and streams what is only passed through.
fn framework(current: &Current) -> HttpProxy<Edge> {
    let conf = ServerConf { upstream_keepalive_pool_size: POOL, ..ServerConf::default() };
    let mut proxy = HttpProxy::new(Edge(current.clone()), Arc::new(conf));
    let mut options = HttpServerOptions::default();
    // Whether HTTP/2 is taken without TLS each listener says for itself.
    options.h2c = true;
    proxy.server_options = Some(options);
    proxy.h2_options = Some(http2_options(&current.load().limits));
    proxy.handle_init_modules();
    proxy
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(IDLE_CHECK).await;
    }
}
