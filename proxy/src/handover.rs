//! From a running process to a new one of another version or configuration, without anybody noticing.
//!
//! ```text
//! old: starts the new one, gives it the listening sockets   → new: reads its configuration, opens the
//!                                                                  spool, resolves names
//!                                                           ← prepared
//! old: accepts no more, tells what it believes and owes     → new: goes on with that, and accepts
//!                                                           ← serving
//! old: ends what it has begun, tells what comes of it       → new: answers whoever returns for it
//! ```
//!
//! The sockets are the same ones, so that whoever connects in between waits for a moment and is not
//! refused. Whatever goes wrong before `serving`, the old process goes on as if nothing had been. Both
//! speak over the new one's standard input: nobody else can come between them.

use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdline_policy::Upstream;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::assembly::Lasting;
use crate::orders::Ordered;
use crate::relay::late::{LateAnswers, News};
use crate::watchman::Legacy;

/// What both sides must agree on.
const PROTOCOL: u32 = 2;
/// How long the new process may take to read its configuration and open the spool, and then to accept.
const PREPARED: Duration = Duration::from_secs(60);
const SERVING: Duration = Duration::from_secs(3);
/// The most sockets that are handed over.
const MOST_SOCKETS: usize = 64;
/// The longest line either side takes in.
const LONGEST: u64 = 256 * 1024 * 1024;

/// Whom a socket is for, and where it listens as it was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plane {
    /// Clients.
    Public(SocketAddr),
    /// Operators.
    Admin(SocketAddr),
}

/// The first that is said, along with the sockets.
#[derive(Serialize, Deserialize)]
struct Hello {
    protocol: u32,
    /// How long ago the clock was started.
    elapsed: Duration,
    /// How long ago the first of the processes was.
    uptime: Duration,
    /// What each socket is for.
    sockets: Vec<Plane>,
    /// The key of holds where none is configured.
    hold_key: String,
    /// Where reports are kept.
    spool: PathBuf,
}

/// What the old process believes and owes.
#[derive(Serialize, Deserialize)]
pub struct Estate {
    /// What is believed of the upstreams.
    pub health: Legacy,
    /// What the operator orders.
    pub orders: Ordered,
    /// Which hosts the upstreams are.
    pub hosts: [String; Upstream::COUNT],
    /// Held visits.
    pub late: Vec<News>,
}

/// What the new process says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    Prepared,
    Serving,
}

/// The new process, as the old one sees it.
pub struct Heir {
    child: Child,
    stream: BufReader<tokio::net::UnixStream>,
}

/// The old process, as the new one sees it.
pub struct Predecessor {
    stream: UnixStream,
    sockets: Vec<(Plane, TcpListener)>,
    /// How long ago its clock was started.
    pub elapsed: Duration,
    /// How long ago it was, or the first of those that it was handed over from.
    pub uptime: Duration,
    /// The key of holds where none is configured.
    pub hold_key: SecretString,
    /// Where it keeps reports.
    pub spool: PathBuf,
}

// === impl Heir ===

impl Heir {
    /// Starts `program` with the configuration in `file`, hands it the sockets, and waits until it is
    /// prepared.
    pub async fn start(
        program: &Path,
        file: &Path,
        sockets: Vec<(Plane, TcpListener)>,
        lasting: &Lasting,
    ) -> anyhow::Result<Heir> {
        // In a container the end of its first process is the end of all.
        ensure!(std::process::id() != 1, "process 1 cannot be upgraded: replace the container");
        ensure!(sockets.len() <= MOST_SOCKETS, "more than {MOST_SOCKETS} sockets");
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .args(["serve", "--take-over", "--config"])
            .arg(file)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (planes, sockets): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        let hello = Hello {
            protocol: PROTOCOL,
            elapsed: lasting.clock.now().since_start(),
            uptime: lasting.clock.now().since(lasting.started),
            sockets: planes,
            hold_key: lasting.hold_key.expose_secret().to_owned(),
            spool: lasting.spool.folder().to_owned(),
        };
        let sent = send_sockets(&ours, &hello, &sockets);
        ours.set_nonblocking(true)?;
        let stream = BufReader::new(tokio::net::UnixStream::from_std(ours)?);
        let mut heir = Heir { child, stream };
        let prepared = match sent {
            Ok(()) => heir.hear(&Word::Prepared, PREPARED).await,
            // It is hardly alive if it does not take them.
            Err(error) => heir.has_ended().await.context(error),
        };
        match prepared {
            Ok(()) => Ok(heir),
            Err(error) => {
                heir.end().await;
                Err(error)
            }
        }
    }

    /// Ends it: we go on.
    pub async fn end(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }

    /// Leaves everything to it, and waits until it serves. From then on it lives without us.
    pub async fn inherit(&mut self, estate: &Estate) -> anyhow::Result<()> {
        let told = timeout(SERVING, async {
            // If it does not listen, it has ended, and what is heard says so.
            let _ = self.say(estate).await;
            self.hear(&Word::Serving, PREPARED).await
        });
        told.await.with_context(|| format!("the new process does not serve within {SERVING:?}"))?
    }

    /// Tells it what comes of what was begun, until there is nothing more to tell; ends before that only if
    /// the new process has ended.
    pub async fn keep_telling(mut self, mut news: mpsc::Receiver<News>) {
        loop {
            tokio::select! {
                told = news.recv() => match told {
                    None => return,
                    // If it has ended, the other branch will say so.
                    Some(news) => drop(timeout(SERVING, self.say(&news)).await),
                },
                status = self.child.wait() => {
                    tracing::error!(?status, "the process that had taken over has ended");
                    return;
                }
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        // It has none only when it has ended and was waited for.
        self.child.id().unwrap_or_default()
    }

    async fn say(&mut self, what: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await.context("the new process does not listen")
    }

    async fn hear(&mut self, expected: &Word, within: Duration) -> anyhow::Result<()> {
        let mut line = String::new();
        let read = timeout(within, self.stream.read_line(&mut line)).await;
        let read = read.with_context(|| format!("the new process was silent for {within:?}"))?;
        if !matches!(read, Ok(length) if length > 0) {
            return self.has_ended().await;
        }
        let word: Word = serde_json::from_str(&line).context("the new process says")?;
        ensure!(word == *expected, "the new process says {word:?} instead of {expected:?}");
        Ok(())
    }

    /// Says how it has ended.
    async fn has_ended(&mut self) -> anyhow::Result<()> {
        let status = timeout(SERVING, self.child.wait()).await;
        let status = status.context("the new process says nothing, and has not ended")??;
        bail!("the new process has ended ({status}); its log says why")
    }
}

// === impl Predecessor ===

impl Predecessor {
    /// Hears the first of the process that has started this one.
    pub fn meet() -> anyhow::Result<Predecessor> {
        const NONE: &str = "nobody hands anything over: --take-over is for a process that another \
                            one starts (SIGUSR2)";
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.set_read_timeout(Some(PREPARED)).context(NONE)?;
        let (hello, sockets) = receive_sockets(&stream).context(NONE)?;
        ensure!(
            hello.protocol == PROTOCOL && hello.sockets.len() == sockets.len(),
            "the running process hands over in another way; start anew instead of upgrading"
        );
        let sockets = hello.sockets.iter().copied().zip(sockets.into_iter().map(TcpListener::from));
        let (sockets, hold_key) = (sockets.collect(), hello.hold_key.clone().into());
        let Hello { elapsed, uptime, spool, .. } = hello;
        Ok(Predecessor { stream, sockets, elapsed, uptime, hold_key, spool })
    }

    /// The socket for this, if it was handed over.
    pub fn socket(&mut self, plane: Plane) -> Option<TcpListener> {
        let at = self.sockets.iter().position(|(handed, _)| *handed == plane)?;
        Some(self.sockets.remove(at).1)
    }

    /// Says that everything is prepared, and hears what there is to go on with.
    pub fn prepared(&mut self) -> anyhow::Result<Estate> {
        self.say(&Word::Prepared)?;
        let line = read_line(&self.stream).context("the old process is gone")?;
        serde_json::from_slice(&line).context("the old process says")
    }

    /// Says that clients are served, and hears what comes of what the old process has begun. If that is
    /// gone, nothing comes of it.
    pub fn serving(self, late: Arc<LateAnswers>) {
        let hear = |old: Predecessor| {
            old.say(&Word::Serving)?;
            old.stream.set_read_timeout(None)?;
            old.stream.set_nonblocking(true)?;
            anyhow::Ok(tokio::net::UnixStream::from_std(old.stream)?)
        };
        let stream = match hear(self) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "the old process cannot be heard");
                return late.orphan();
            }
        };
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(news) => late.take_in(news),
                    Err(error) => tracing::error!(%error, "the old process cannot be understood"),
                }
            }
            late.orphan();
            tracing::info!("the old process has ended");
        });
    }

    fn say(&self, word: &Word) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        io::Write::write_all(&mut &self.stream, &line).context("the old process is gone")
    }
}

/// The program to start for an upgrade: this one's file, or what has taken its place by then.
pub fn own_program() -> Option<PathBuf> {
    let called = std::env::args_os().next().map(PathBuf::from);
    // A link that leads to the present version is followed when the time comes, not now.
    match called.filter(|path| path.components().count() > 1) {
        Some(path) => std::path::absolute(path).ok(),
        None => std::env::current_exe().ok(),
    }
}

fn send_sockets(stream: &UnixStream, hello: &Hello, sockets: &[TcpListener]) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(hello)?;
    line.push(b'\n');
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    ensure!(along.push(SendAncillaryMessage::ScmRights(&fds)), "too many sockets");
    let sent = sendmsg(stream, &[IoSlice::new(&line)], &mut along, SendFlags::NOSIGNAL)?;
    // A line so short is taken whole, or the rest follows by itself.
    io::Write::write_all(&mut &*stream, &line[sent..])?;
    Ok(())
}

fn receive_sockets(stream: &UnixStream) -> anyhow::Result<(Hello, Vec<OwnedFd>)> {
    let mut sockets = Vec::new();
    let mut line = vec![0; 16 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut line)];
    let received = recvmsg(stream, &mut into, &mut along, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    line.truncate(received);
    if line.last() != Some(&b'\n') {
        line.extend(read_line(stream)?);
    }
    Ok((serde_json::from_slice(&line)?, sockets))
}

/// Reads one line. The other side says nothing more until it is answered.
fn read_line(stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut reader = io::BufReader::new(stream.take(LONGEST));
    io::BufRead::read_until(&mut reader, b'\n', &mut line)?;
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}
