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
use tokio::task::spawn_blocking;

use crate::Current;
use crate::assembly::Lasting;
use crate::clock::Clock;
use crate::config::{Config, UpstreamConfig};
use crate::orders::{Orders, Standing};
use crate::spool::unix_ms;
use crate::watchman::{Legacy, Watch};

/// The file's name.
const FILE: &str = "state.json";
/// What both sides must agree on.
const FORMAT: u32 = 1;
/// How often it is written.
const EVERY: Duration = Duration::from_secs(1);

/// What is written.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    format: u32,
    /// When, in milliseconds since 1970.
    at_ms: i64,
    /// How long ago the clock was started.
    clock: Duration,
    /// Which hosts the upstreams were.
    hosts: [String; Upstream::COUNT],
    health: Legacy,
    orders: Standing,
}

/// What a process goes on with.
#[derive(Debug)]
pub struct State {
    /// The clock, where the old one's would be by now.
    pub clock: Clock,
    /// What was believed, and of whom it still holds.
    pub health: Option<(Legacy, [bool; Upstream::COUNT])>,
    /// What was ordered.
    pub orders: Standing,
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
}

// === impl State ===

impl State {
    /// What there is to go on with.
    pub fn read(config: &Config) -> State {
        let fresh = State { clock: Clock::start(), health: None, orders: Standing::default() };
        let path = config.journal.folder.join(FILE);
        let written: Written = match fs::read(&path).map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => {
                let file = path.display();
                tracing::warn!(%file, %error, "what was believed cannot be read; nothing is");
                return fresh;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return fresh,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "what was believed cannot be read");
                return fresh;
            }
        };
        let gap = u64::try_from(unix_ms() - written.at_ms).map(Duration::from_millis);
        // A clock that was put back says nothing of how long ago it was.
        let gap = gap.unwrap_or_default();
        // A drill is for those who look at it.
        let orders = Standing { drill: None, ..written.orders };
        if written.format != FORMAT || gap > config.journal.state_longest {
            return State { orders, ..fresh };
        }
        let hosts = Upstream::ALL.map(|upstream| host_of(config.upstream(upstream)));
        let same = Upstream::ALL
            .map(|upstream| hosts[upstream.index()] == written.hosts[upstream.index()]);
        tracing::info!(?gap, ?same, "goes on with what was believed");
        let clock = Clock::continued(written.clock + gap);
        State { clock, health: Some((written.health, same)), orders }
    }

    /// What a process takes over that is told by its predecessor.
    pub fn of_a_predecessor(clock: Clock) -> State {
        State { clock, health: None, orders: Standing::default() }
    }

    /// The same, once it was told.
    #[must_use]
    pub fn with_estate(
        self,
        current: &Current,
        health: Legacy,
        hosts: &[String; Upstream::COUNT],
        orders: Standing,
    ) -> State {
        let targets = &current.load().relay.targets;
        let is_same = |upstream: Upstream| {
            host_of(&targets[upstream.index()].config) == hosts[upstream.index()]
        };
        State { health: Some((health, Upstream::ALL.map(is_same))), orders, ..self }
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
        }
    }

    /// Writes it again and again, for as long as the process lives.
    pub async fn run(self: Arc<Keeper>) {
        let mut failing = false;
        loop {
            tokio::time::sleep(EVERY).await;
            let keeper = self.clone();
            let kept = spawn_blocking(move || keeper.keep()).await;
            let kept = kept.unwrap_or_else(|error| Err(io::Error::other(error)));
            if let (Err(error), false) = (&kept, failing) {
                let file = self.file.display();
                tracing::error!(%file, %error, "what is believed cannot be kept for a new process");
            }
            failing = kept.is_err();
        }
    }

    /// Writes it now, unless another process does.
    pub fn keep(&self) -> io::Result<()> {
        if self.left.load(Ordering::Acquire) {
            return Ok(());
        }
        let targets = self.current.load().relay.targets.clone();
        let written = Written {
            format: FORMAT,
            at_ms: unix_ms(),
            clock: self.clock.now().since_start(),
            hosts: Upstream::ALL.map(|upstream| host_of(&targets[upstream.index()].config)),
            health: self.watch.bequeath(),
            orders: self.orders.standing(),
        };
        write_whole(&self.file, &serde_json::to_vec(&written)?)
    }

    /// Says whether another process writes it from now on.
    pub fn leave(&self, left: bool) {
        self.left.store(left, Ordering::Release);
    }
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

/// Tells whether an upstream is the same host as before: where it is, as whom, and how it is probed.
pub fn host_of(upstream: &UpstreamConfig) -> String {
    let UpstreamConfig { host, port, path, tls, host_field, probe, .. } = upstream;
    let name = tls.as_ref().map(|tls| &tls.name);
    let text = format!("{host} {port} {path} {name:?} {host_field} {probe:?}");
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
