//! Reading the configuration anew while calls go on.
//!
//! Whatever is wrong with the new one, nothing changes. What was begun under the old one ends under it.
//! What a running process cannot change (its sockets, its threads, where its spool is) is refused and
//! named: an upgrade, which loses nobody either, takes it over.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdline_policy::Upstream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use crate::assembly::{Lasting, Resolving};
use crate::config::faults::{FaultList, Faults};
use crate::config::{Config, LogFormat};
use crate::journal::JournalConfig;
use crate::listener::Listener;
use crate::state::host_of;
use crate::telemetry::unix_seconds;
use crate::{Current, Holdline, process};

/// Reads the configuration anew.
pub struct Reload {
    /// Its file.
    file: PathBuf,
    current: Current,
    lasting: Lasting,
    listeners: Arc<[Arc<Listener>]>,
    fixed: Fixed,
    /// One at a time; and the names that are being resolved for the one in force.
    resolving: Mutex<Resolving>,
    /// Whether another process has taken over, and reads its own.
    left: AtomicBool,
}

/// Why the folder of the spool stays where it is.
pub const OTHER_SPOOL: &str = "cannot change while something may be kept in it: stop the process, start it \
                               anew, and take in the old folder with `holdline spool import`";

/// What a running process cannot change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    public: Vec<SocketAddr>,
    admin: SocketAddr,
    threads: usize,
    spool: PathBuf,
    journal: JournalConfig,
    log: LogFormat,
}

// === impl Fixed ===

impl Fixed {
    /// What a process with this configuration cannot change.
    pub fn of(config: &Config) -> Fixed {
        Fixed {
            public: config.public.iter().map(|listener| listener.address).collect(),
            admin: config.admin,
            threads: config.threads,
            spool: config.spool.folder.clone(),
            journal: config.journal.clone(),
            log: config.log,
        }
    }

    /// Where it listens for clients.
    pub fn public(&self) -> &[SocketAddr] {
        &self.public
    }

    /// Where it listens for operators.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What of it another configuration would change.
    fn faults(&self, other: &Fixed, file: &str) -> Result<(), FaultList> {
        const UPGRADE: &str = "cannot change in a running process; upgrade it instead (SIGUSR2)";
        let faults = Faults::default();
        for (key, same, instead) in [
            ("listen.public", self.public == other.public, UPGRADE),
            ("listen.admin", self.admin == other.admin, UPGRADE),
            ("runtime.threads", self.threads == other.threads, UPGRADE),
            ("log.format", self.log == other.log, UPGRADE),
            ("spool.folder", self.spool == other.spool, OTHER_SPOOL),
            ("journal", self.journal == other.journal, UPGRADE),
        ] {
            if !same {
                faults.add(file, key, instead);
            }
        }
        faults.into_result()
    }
}

// === impl Reload ===

impl Reload {
    /// For a process that has begun with `fixed`.
    pub fn new(
        file: PathBuf,
        current: Current,
        lasting: Lasting,
        listeners: Arc<[Arc<Listener>]>,
        fixed: Fixed,
        resolving: Resolving,
    ) -> Reload {
        lasting.metrics.configured.set(unix_seconds());
        Reload {
            file,
            current,
            lasting,
            listeners,
            fixed,
            resolving: Mutex::new(resolving),
            left: AtomicBool::new(false),
        }
    }

    /// The configuration's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What this process cannot change.
    pub fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// Does it. Gives warnings, or what is wrong, in which case nothing has changed.
    pub async fn now(&self) -> Result<Vec<String>, String> {
        let mut resolving = self.resolving.lock().await;
        let result = match self.left.load(Ordering::Acquire) {
            false => self.take_over(&mut resolving).await,
            true => {
                Err("another process has taken over; it reads its own configuration".to_owned())
            }
        };
        match &result {
            Ok(warnings) => {
                self.lasting.metrics.reloaded("done");
                self.lasting.metrics.configured.set(unix_seconds());
                for warning in warnings {
                    tracing::warn!(warning, "the configuration");
                }
                tracing::info!("the configuration was read anew");
            }
            Err(why) => {
                self.lasting.metrics.reloaded("refused");
                tracing::error!(why, "the configuration was not taken over; nothing has changed");
            }
        }
        result
    }

    /// Keeps the configuration as it is, for as long as this is held.
    pub async fn hold(&self) -> MutexGuard<'_, Resolving> {
        self.resolving.lock().await
    }

    /// Says whether another process reads its own configuration now.
    pub fn leave(&self, left: bool) {
        self.left.store(left, Ordering::Release);
    }

    async fn take_over(&self, resolving: &mut Resolving) -> Result<Vec<String>, String> {
        let path = self.file.clone();
        let loaded = spawn_blocking(move || Config::load(&path)).await;
        let loaded = loaded.map_err(|error| error.to_string())?;
        let mut config = loaded.map_err(|faults| faults.to_string())?;
        process::allow_descriptors(config.limits.connections);
        let file = self.file.display().to_string();
        self.fixed.faults(&Fixed::of(&config), &file).map_err(|faults| faults.to_string())?;
        let (thresholds, spool) = (config.thresholds, config.spool.clone());
        let (name_servers, warnings) = (config.name_servers.take(), config.warnings.clone());
        let public = std::mem::take(&mut config.public);
        let before = self.current.load_full();
        let next =
            self.lasting.edge(config, Some(&before)).map_err(|error| format!("{error:#}"))?;
        let begun = Resolving::begin(&next.relay.targets, name_servers).await;
        // From here on nothing can fail.
        *resolving = begun;
        for (listener, config) in self.listeners.iter().zip(public) {
            listener.configure(config, &self.lasting.metrics);
        }
        self.lasting.watch.judge_by(thresholds);
        for upstream in Upstream::ALL {
            let host =
                |holdline: &Holdline| host_of(&holdline.relay.targets[upstream.index()].config);
            if host(&before) != host(&next) {
                self.lasting.watch.replaced(upstream);
            }
        }
        self.lasting.note_process("reloaded", &next.judging());
        self.lasting.spool.configure(spool);
        self.current.store(Arc::new(next));
        Ok(warnings)
    }
}
