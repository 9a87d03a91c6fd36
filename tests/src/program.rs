//! A program of ours, running as a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a program may take to say where it listens.
const START: Duration = Duration::from_secs(20);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    group: Option<Pid>,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

// === impl Program ===

impl Program {
    /// Starts the binary `name` of this workspace as `label`; its log goes to a file in `folder`.
    pub fn start(
        name: &str,
        label: &str,
        arguments: &[&str],
        environment: &BTreeMap<&str, String>,
        folder: &Path,
    ) -> anyhow::Result<Program> {
        let log = folder.join(format!("{label}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut child = Command::new(binary(name)?)
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // The terminal's Ctrl-C is for us; we end what we started.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Program {
            name: label.to_owned(),
            group,
            child,
            lines: BufReader::new(stdout).lines(),
            log,
        })
    }

    /// Waits for a line of output that begins with `prefix`, and gives back the rest.
    pub async fn announced(&mut self, prefix: &str) -> anyhow::Result<String> {
        let wanted = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Ok(rest.trim().to_owned());
                }
            }
            bail!("ended before it said {prefix:?}")
        };
        match tokio::time::timeout(START, wanted).await {
            Ok(Ok(rest)) => Ok(rest),
            Ok(Err(error)) => Err(error.context(self.account())),
            Err(_) => bail!("did not say {prefix:?} in time; {}", self.account()),
        }
    }

    /// Every line of output that begins with `prefix`, up to the one that begins with `last`; of that the
    /// rest as well.
    pub async fn announced_until(
        &mut self,
        prefix: &str,
        last: &str,
    ) -> anyhow::Result<(Vec<String>, String)> {
        let mut found = Vec::new();
        loop {
            let line = self.announced("").await?;
            if let Some(rest) = line.strip_prefix(prefix) {
                found.push(rest.trim().to_owned());
            } else if let Some(rest) = line.strip_prefix(last) {
                return Ok((found, rest.trim().to_owned()));
            }
        }
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Freezes it where it is.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("did not end in time; {}", self.account()),
        }
    }

    /// The process's number.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has logged this; false if it does not in time. Logs are written beside the work.
    pub async fn logs(&self, text: &str) -> bool {
        let begun = Instant::now();
        while !self.log().contains(text) {
            if begun.elapsed() > START {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().context("the program has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process number")?;
        Ok(kill_process(pid, signal)?)
    }

    fn account(&self) -> String {
        format!("{} said:\n{}", self.name, self.log())
    }
}

/// What it has started ends with it, as long as it is of the same group.
impl Drop for Program {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// What a program said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs the binary `name` of this workspace to its end, with this on its standard input.
pub async fn run(
    name: &str,
    arguments: &[&str],
    environment: &BTreeMap<&str, String>,
    input: &str,
) -> anyhow::Result<Said> {
    let mut child = Command::new(binary(name)?)
        .args(arguments)
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read it does not need it.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = tokio::time::timeout(START, child.wait_with_output()).await??;
    Ok(Said {
        code: output.status.code().context("it was killed")?,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The binary `name`, built beside the running one, or a path to one.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    if Path::new(name).is_absolute() {
        return Ok(name.into());
    }
    let mut folder = std::env::current_exe()?;
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is not built: run `cargo build --workspace --bins` first", path.display());
    }
    Ok(path)
}
