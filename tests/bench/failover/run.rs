//! One run: callers come at a steady pace, and in the middle the origin fails for eight seconds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdline_tests::tools::free_address;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::callers::{Call, End, Row, come};
use crate::peers::Peer;
use crate::upstream::Manner;

/// Before the failure.
const BEFORE: Duration = Duration::from_secs(5);
/// The failure.
const FAILURE: Duration = Duration::from_secs(8);
/// The whole run.
const LENGTH: Duration = Duration::from_secs(25);
/// For probes to have come before the first caller.
const SETTLING: Duration = Duration::from_millis(2500);
/// So many calls in a row make a state; where a failure shows at once, so many that do not meet it.
const IN_A_ROW: usize = 10;
const SPARED: usize = 3;
/// What nobody waits for.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A way for the origin to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It behaves like this.
    Behaves(Manner),
    /// It is killed, and started again.
    Killed,
    /// It is frozen, and thawed.
    Frozen,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) steered: usize,
    /// Held on the way, whatever came then.
    pub(crate) held: usize,
    pub(crate) dropped: usize,
    /// Those of them whose row may be repeated.
    pub(crate) dropped_repeatable: usize,
    pub(crate) lost: usize,
    /// Requests that ran twice, on rows that must not.
    pub(crate) twice: usize,
    /// The same, on rows that may.
    pub(crate) twice_repeatable: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The 99th percentile of waits of calls begun in the failure, before and after it was detected.
    pub(crate) p99_undetected: Option<Duration>,
    pub(crate) p99_detected: Option<Duration>,
    /// When calls stopped to meet the failure, since it began; none if they never did.
    pub(crate) detected: Option<Duration>,
    /// Calls that reached the failing origin before that.
    pub(crate) met: usize,
    /// When the origin served all again, since it was good again; none if it did not.
    pub(crate) back: Option<Duration>,
    /// Of the calls begun in the failure that were held, those not steered in the end.
    pub(crate) held_in_vain: usize,
    /// Whether the edge said that the origin was down (of the edge only).
    pub(crate) was_down: Option<bool>,
}

/// All ways, in the order of the tables.
pub(crate) const FAILURES: [(&str, Failure); 12] = [
    ("refuses connections", Failure::Behaves(Manner::Refuse)),
    ("resets after reading", Failure::Behaves(Manner::Reset)),
    ("killed (-9), restarted", Failure::Killed),
    ("frozen (SIGSTOP)", Failure::Frozen),
    ("500 to everything", Failure::Behaves(Manner::Sick)),
    ("500, probes well", Failure::Behaves(Manner::Error)),
    ("200 with an error page, probes well", Failure::Behaves(Manner::Page)),
    ("hangs, probes well", Failure::Behaves(Manner::Hang)),
    ("half a body, probes well", Failure::Behaves(Manner::Half)),
    ("a byte a second, probes well", Failure::Behaves(Manner::Trickle)),
    ("10 s slow but good", Failure::Behaves(Manner::Slow)),
    ("alternately good and bad", Failure::Behaves(Manner::Alternate)),
];

/// An upstream's process.
struct Upstream {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    says: &'static str,
    log: PathBuf,
}

// === impl Failure ===

impl Failure {
    /// Whether what is wrong shows by waiting; otherwise at once, in what comes back.
    pub(crate) fn shows_by_waiting(self) -> bool {
        let slow = [Manner::Hang, Manner::Trickle, Manner::Slow].map(Failure::Behaves);
        self == Failure::Frozen || slow.contains(&self)
    }
}

// === impl Upstream ===

impl Upstream {
    async fn start(
        folder: &Path,
        says: &'static str,
        address: SocketAddr,
    ) -> anyhow::Result<Upstream> {
        let log = folder.join(format!("{says}.ran"));
        let mut child = Command::new(std::env::current_exe()?)
            .args(["upstream", "--says", says, "--listen", &address.to_string(), "--log"])
            .arg(&log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting an upstream")?;
        let orders = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let lines = BufReader::new(stdout).lines();
        let mut upstream = Upstream { child, orders, lines, address, says, log };
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

    async fn fail(&mut self, failure: Failure) -> anyhow::Result<()> {
        match failure {
            Failure::Behaves(manner) => self.order(manner).await,
            Failure::Killed => Ok(self.child.kill().await?),
            Failure::Frozen => self.signal(Signal::STOP),
        }
    }

    /// Makes it good again; returns when it is.
    async fn recover(&mut self, failure: Failure, folder: &Path) -> anyhow::Result<()> {
        match failure {
            Failure::Behaves(manner) => {
                self.order(Manner::Good).await?;
                if manner == Manner::Refuse {
                    self.listens().await?;
                }
            }
            Failure::Killed => *self = Upstream::start(folder, self.says, self.address).await?,
            Failure::Frozen => self.signal(Signal::CONT)?,
        }
        Ok(())
    }

    /// How often each call ran there.
    fn ran(&self) -> anyhow::Result<HashMap<String, usize>> {
        let mut ran = HashMap::new();
        for line in std::fs::read_to_string(&self.log)?.lines() {
            let (_, call) = line.split_once(' ').context("a line without a call")?;
            *ran.entry(call.to_owned()).or_insert(0) += 1;
        }
        Ok(ran)
    }
}

/// Makes one run.
pub(crate) async fn run(peer: Peer, failure: Failure, rate: u32) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let mut origin = Upstream::start(folder, "origin", free_address()?).await?;
    let standby = Upstream::start(folder, "standby", free_address()?).await?;
    let proxy = peer.start(folder, origin.address, standby.address)?;
    tokio::time::sleep(SETTLING).await;
    let start = Instant::now();
    let callers = tokio::spawn(come(proxy.address, rate, LENGTH, start));
    tokio::time::sleep_until((start + BEFORE).into()).await;
    origin.fail(failure).await?;
    let failed = start.elapsed();
    tokio::time::sleep_until((start + BEFORE + FAILURE).into()).await;
    origin.recover(failure, folder).await?;
    let recovered = start.elapsed();
    let mut calls = callers.await??;
    calls.sort_by_key(|call| call.begun);
    let was_down = (peer == Peer::Holdline).then(|| {
        let log = std::fs::read_to_string(folder.join("proxy.log")).unwrap_or_default();
        let says = [r#""upstream":"origin""#, r#""to":"down""#];
        log.lines().any(|line| says.iter().all(|part| line.contains(part)))
    });
    let ran = [origin.ran()?, standby.ran()?];
    Ok(measure(&calls, &ran, failure, failed, recovered, was_down))
}

fn measure(
    calls: &[Call],
    ran: &[HashMap<String, usize>; 2],
    failure: Failure,
    failed: Duration,
    recovered: Duration,
    was_down: Option<bool>,
) -> Measured {
    let ended = |end: End| calls.iter().filter(move |call| call.end == end);
    let times = |call: &Call| ran.iter().filter_map(|ran| ran.get(&call.sid)).sum::<usize>();
    let twice = |row: Row| calls.iter().filter(|call| call.row == row && times(call) > 1).count();
    let waits = |calls: &[&Call]| {
        let mut waits: Vec<_> = calls.iter().flat_map(|call| call.waits.iter().copied()).collect();
        waits.sort();
        waits
    };
    let all = waits(&calls.iter().collect::<Vec<_>>());
    let in_failure: Vec<&Call> =
        calls.iter().filter(|call| call.begun >= failed && call.begun < recovered).collect();
    let reached = |call: &Call| ran[0].contains_key(&call.sid);
    let meets = |call: &Call| match failure.shows_by_waiting() {
        true => call.waits.first().is_none_or(|wait| *wait > AT_ONCE),
        false => (reached(call) && call.end != End::Origin) || call.end == End::Lost,
    };
    // What was under way when the failure began does not count; it ends with the first that meets it.
    let spared = if failure.shows_by_waiting() { IN_A_ROW } else { SPARED };
    let free = in_failure.windows(spared).position(|row| !row.iter().any(|call| meets(call)));
    let (before, after) = in_failure.split_at(free.unwrap_or(in_failure.len()));
    let back = calls.iter().position(|call| call.begun >= recovered).and_then(|first| {
        let after = &calls[first..];
        let served =
            |row: &[Call]| row.iter().all(|call| call.end == End::Origin && !call.was_held());
        let at = after.windows(IN_A_ROW).position(served)?;
        Some(after[at].begun - recovered)
    });
    let held: Vec<_> = in_failure.iter().filter(|call| call.was_held()).collect();
    Measured {
        steered: ended(End::Origin).count() + ended(End::Standby).count(),
        held: calls.iter().filter(|call| call.was_held()).count(),
        dropped: ended(End::Dropped).count(),
        dropped_repeatable: ended(End::Dropped).filter(|call| call.row == Row::Idempotent).count(),
        lost: ended(End::Lost).count(),
        twice: twice(Row::Once),
        twice_repeatable: twice(Row::Idempotent),
        p50: share(&all, 50).unwrap_or_default(),
        p99: share(&all, 99).unwrap_or_default(),
        p99_undetected: share(&waits(before), 99),
        p99_detected: free.and_then(|_| share(&waits(after), 99)),
        detected: free.map(|at| in_failure[at].begun - failed),
        met: before.iter().filter(|call| meets(call) && reached(call)).count(),
        back,
        held_in_vain: held
            .iter()
            .filter(|call| !matches!(call.end, End::Origin | End::Standby))
            .count(),
        was_down,
    }
}

/// A percentile of sorted times.
fn share(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied()
}
