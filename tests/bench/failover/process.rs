//! An upstream's process as seen from outside: started, told to fail, killed, frozen, and read.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::capacity::Capacity;
use crate::run::Failure;
use crate::upstream::Manner;

/// An upstream's process.
pub(crate) struct Upstream {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    says: &'static str,
    capacity: Option<Capacity>,
    log: PathBuf,
}

/// Something that ran there.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    /// When, since 1970.
    pub(crate) at: Duration,
    /// For which call.
    pub(crate) call: String,
}

// === impl Upstream ===

impl Upstream {
    /// Starts one that keeps its log in `folder`; returns once it listens.
    pub(crate) async fn start(
        folder: &Path,
        says: &'static str,
        address: SocketAddr,
        capacity: Option<Capacity>,
    ) -> anyhow::Result<Upstream> {
        let log = folder.join(format!("{says}.ran"));
        let mut child = Command::new(std::env::current_exe()?)
            .args(["upstream", "--says", says, "--listen", &address.to_string(), "--log"])
            .arg(&log)
            .args(capacity.into_iter().flat_map(Capacity::to_arguments))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting an upstream")?;
        let orders = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let lines = BufReader::new(stdout).lines();
        let mut upstream = Upstream { child, orders, lines, address, says, capacity, log };
        upstream.listens().await?;
        Ok(upstream)
    }

    async fn listens(&mut self) -> anyhow::Result<()> {
        self.lines.next_line().await?.with_context(|| format!("the {} ended", self.says))?;
        Ok(())
    }

    async fn order(&mut self, manner: Manner) -> anyhow::Result<()> {
        self.orders.write_all(format!("{manner:?}\n").to_ascii_lowercase().as_bytes()).await?;
        Ok(self.orders.flush().await?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().context("the upstream has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Makes it fail.
    pub(crate) async fn fail(&mut self, failure: Failure) -> anyhow::Result<()> {
        match failure {
            Failure::Behaves(manner) => self.order(manner).await,
            Failure::Killed => Ok(self.child.kill().await?),
            Failure::Frozen => self.signal(Signal::STOP),
        }
    }

    /// Makes it good again; returns when it is.
    pub(crate) async fn recover(&mut self, failure: Failure, folder: &Path) -> anyhow::Result<()> {
        match failure {
            Failure::Behaves(manner) => {
                self.order(Manner::Good).await?;
                if manner == Manner::Refuse {
                    self.listens().await?;
                }
            }
            Failure::Killed => {
                *self = Upstream::start(folder, self.says, self.address, self.capacity).await?;
            }
            Failure::Frozen => self.signal(Signal::CONT)?,
        }
        Ok(())
    }

    /// All that ran there.
    pub(crate) fn log(&self) -> anyhow::Result<Vec<Ran>> {
        let text = std::fs::read_to_string(&self.log)?;
        let ran = text.lines().map(|line| {
            let (at, call) = line.split_once(' ').context("a line without a call")?;
            Ok(Ran { at: Duration::from_micros(at.parse()?), call: call.to_owned() })
        });
        ran.collect()
    }

    /// How often each call ran there.
    pub(crate) fn ran(&self) -> anyhow::Result<HashMap<String, usize>> {
        let mut ran = HashMap::new();
        for Ran { call, .. } in self.log()? {
            *ran.entry(call).or_insert(0) += 1;
        }
        Ok(ran)
    }
}
