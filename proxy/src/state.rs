//! What outlives the process: what is believed of the upstreams, and what the operator has ordered.
//!
//! It is written every second to a file beside the journal, and read by the next process. That one goes on
//! with the beliefs if they are not too old and the upstreams are still the same hosts; its clock goes
//! on where the old one's would be by now, so that hold-downs and evidence are as old as they are. What
//! cannot be read is as if it were not there: an edge must start.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdline_policy::Upstream;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::Current;
use crate::assembly::Lasting;
use crate::clock::Clock;
use crate::config::{Config, UpstreamConfig};
use crate::orders::{Ordered, Orders};
use crate::spool::unix_ms;
use crate::watchman::{Legacy, Watch};

/// The file's name.
const FILE: &str = "state.json";
/// What both sides must agree on.
const FORMAT: u32 = 1;
/// How often it is written.
const EVERY: Duration = Duration::from_secs(1);
/// How long writing may take.
const LONGEST: Duration = Duration::from_secs(2);
/// By how much clocks may differ that are right, in milliseconds.
const CLOCKS_DIFFER: i64 = 2000;

/// What is written. Orders are read whatever the rest has become in another version.
#[derive(Debug, Serialize, Deserialize)]
struct Written<T> {
    /// When, in milliseconds since 1970.
    at_ms: i64,
    orders: Ordered,
    belief: T,
}

/// What is written of beliefs.
#[derive(Debug, Serialize, Deserialize)]
struct Believed {
    format: u32,
    /// How long ago the clock was started.
    clock: Duration,
    /// Which hosts the upstreams were.
    hosts: [String; Upstream::COUNT],
    health: Legacy,
}

/// What a process goes on with.
#[derive(Debug)]
pub struct State {
    /// The clock, where the old one's would be by now.
    pub clock: Clock,
    /// What was believed, and of whom it still holds.
    pub health: Option<(Legacy, [bool; Upstream::COUNT])>,
    /// What was ordered.
    pub orders: Ordered,
}

/// Writes it.
pub struct Keeper {
    file: PathBuf,
    watch: Watch,
    orders: Arc<Orders>,
    clock: Clock,
    current: Current,
    /// Whether another process does.
    left: AtomicBool,
    /// One at a time.
    keeping: Arc<Mutex<()>>,
}

// === impl State ===

impl State {
    /// What there is to go on with.
    pub fn read(config: &Config) -> State {
        let fresh = State { clock: Clock::start(), health: None, orders: Ordered::default() };
        let Some(written) = read(&config.journal.folder.join(FILE)) else { return fresh };
        // A drill is for those who look at it.
        let orders = Ordered { drill: None, ..written.orders };
        let age = unix_ms() - written.at_ms;
        // A clock that was put back says nothing of how long ago it was.
        let recent = (-CLOCKS_DIFFER..=millis(config.journal.state_longest)).contains(&age);
        let believed = serde_json::from_value::<Believed>(written.belief);
        let Ok(Believed { format: FORMAT, clock, hosts, health }) = believed else {
            tracing::warn!("another version has written what was believed; nothing is");
            return State { orders, ..fresh };
        };
        if !recent {
            return State { orders, ..fresh };
        }
        let same = Upstream::ALL
            .map(|upstream| host_of(config.upstream(upstream)) == hosts[upstream.index()]);
        let gap = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        tracing::info!(?gap, ?same, "goes on with what was believed");
        let clock = Clock::continued(clock.saturating_add(gap));
        State { clock, health: Some((health, same)), orders }
    }

    /// What a process takes over that is told by its predecessor.
    pub fn of_a_predecessor(clock: Clock) -> State {
        State { clock, health: None, orders: Ordered::default() }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Keeps it in a folder.
    pub fn new(folder: &Path, lasting: &Lasting, current: Current) -> Keeper {
        Keeper {
            file: folder.join(FILE),
            watch: lasting.watch.clone(),
            orders: lasting.orders.clone(),
            clock: lasting.clock,
            current,
            left: AtomicBool::new(false),
            keeping: Arc::default(),
        }
    }

    /// Writes it again and again, for as long as the process lives.
    pub async fn run(self: Arc<Keeper>) {
        let mut failing = false;
        loop {
            tokio::time::sleep(EVERY).await;
            let kept = self.clone().keep_now().await;
            if let (Err(error), false) = (&kept, failing) {
                let file = self.file.display();
                tracing::error!(%file, %error, "what is believed cannot be kept for a new process");
            }
            failing = kept.is_err();
        }
    }

    /// Writes it now, unless another process does; gives up waiting for a disk that hangs.
    pub async fn keep_now(self: Arc<Keeper>) -> io::Result<()> {
        // While a disk hangs, one thread hangs with it and no more.
        let kept = timeout(LONGEST, async {
            let turn = self.keeping.clone().lock_owned().await;
            let keep = move || {
                let _turn = turn;
                self.keep()
            };
            spawn_blocking(keep).await
        });
        match kept.await {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// What another process has ordered that wrote it meanwhile.
    pub fn orders(&self) -> Option<Ordered> {
        read(&self.file).map(|written| written.orders)
    }

    fn keep(&self) -> io::Result<()> {
        if self.left.load(Ordering::Acquire) {
            return Ok(());
        }
        let targets = self.current.load().relay.targets.clone();
        let belief = Believed {
            format: FORMAT,
            clock: self.clock.now().since_start(),
            hosts: Upstream::ALL.map(|upstream| host_of(&targets[upstream.index()].config)),
            health: self.watch.bequeath(),
        };
        let written = Written { at_ms: unix_ms(), orders: self.orders.ordered(), belief };
        write_whole(&self.file, &serde_json::to_vec(&written)?)
    }

    /// Says whether another process writes it from now on.
    pub fn leave(&self, left: bool) {
        self.left.store(left, Ordering::Release);
    }
}

/// Which upstreams are the hosts that they were.
pub fn same_hosts(current: &Current, hosts: &[String; Upstream::COUNT]) -> [bool; Upstream::COUNT] {
    let targets = &current.load().relay.targets;
    Upstream::ALL
        .map(|upstream| host_of(&targets[upstream.index()].config) == hosts[upstream.index()])
}

/// What is in the file; nothing if it cannot be read.
fn read(path: &Path) -> Option<Written<serde_json::Value>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "what was believed cannot be read");
            return None;
        }
    };
    let written = serde_json::from_slice(&text);
    if let Err(error) = &written {
        let file = path.display();
        tracing::warn!(%file, %error, "what was believed and ordered cannot be read; nothing is");
    }
    written.ok()
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Puts a file in the place of another, so that there is always one of the two and it is whole.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

/// Tells whether an upstream is the same host as before: where it is, and as whom. How it is probed is no
/// part of that: a probe that is put right shows by itself what it finds.
pub fn host_of(upstream: &UpstreamConfig) -> String {
    let UpstreamConfig { host, port, path, tls, host_field, .. } = upstream;
    let name = tls.as_ref().map_or("", |tls| &tls.name);
    let text = format!("{host} {port} {path} {name} {host_field}");
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
