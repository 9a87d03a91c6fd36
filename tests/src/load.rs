//! A steady stream of visits, each of which must be answered: nothing refused, nothing cut, nobody
//! dropped.
//!
//! Half of the visits come over connections that are kept, as Cloudflare does, half over new ones, as
//! Twilio does. A connection that the edge asks to close is closed; one that it closes by itself under a
//! visit is a visit lost.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::requests::{call_sid, form, signed_post};

/// Those who visit side by side.
const VISITORS: u32 = 20;
/// What Twilio waits for.
const PATIENCE: Duration = Duration::from_secs(15);

/// A stream of visits, until it is stopped.
pub struct Load {
    to: watch::Sender<SocketAddr>,
    stop: watch::Sender<bool>,
    visitors: JoinSet<()>,
    tally: Arc<Mutex<Tally>>,
}

/// What came of visits.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Visits that were answered with TwiML of an upstream.
    pub steered: u64,
    /// All others, with what came instead.
    pub faults: Vec<String>,
}

/// One who visits again and again.
struct Visitor {
    number: u64,
    path: &'static str,
    connection: Option<BufReader<TcpStream>>,
}

// === impl Load ===

impl Load {
    /// Starts so many visits a second to a path.
    pub fn start(to: SocketAddr, path: &'static str, rate: u32) -> Load {
        let (to, target) = watch::channel(to);
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut visitors = JoinSet::new();
        for number in 0..VISITORS {
            let every = Duration::from_secs(1) * VISITORS / rate;
            let visitor = Visitor { number: number.into(), path, connection: None };
            visitors.spawn(visitor.visit(every, target.clone(), stopped.clone(), tally.clone()));
        }
        Load { to, stop, visitors, tally }
    }

    /// Sends what comes from now on somewhere else.
    pub fn send_to(&self, to: SocketAddr) {
        self.to.send_replace(to);
    }

    /// Waits until so many more visits were made.
    pub async fn more(&self, visits: u64) {
        let made = || {
            let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.steered + tally.faults.len() as u64
        };
        let enough = made() + visits;
        while made() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it, once the visits under way are over.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        while self.visitors.join_next().await.is_some() {}
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// === impl Visitor ===

impl Visitor {
    async fn visit(
        mut self,
        every: Duration,
        to: watch::Receiver<SocketAddr>,
        stopped: watch::Receiver<bool>,
        tally: Arc<Mutex<Tally>>,
    ) {
        let mut due = interval(every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut to_before = *to.borrow();
        let mut visits = 0;
        while !*stopped.borrow() {
            due.tick().await;
            let now_to = *to.borrow();
            if std::mem::replace(&mut to_before, now_to) != now_to {
                self.connection = None;
            }
            visits += 1;
            let keep = self.number.is_multiple_of(2);
            let once = timeout(PATIENCE, self.once(now_to, visits, keep)).await;
            let result = once.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in 15 s")));
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(()) => tally.steered += 1,
                Err(fault) => {
                    self.connection = None;
                    tally.faults.push(format!("{fault:#}"));
                }
            }
        }
    }

    async fn once(&mut self, to: SocketAddr, visit: u64, keep: bool) -> anyhow::Result<()> {
        let call = call_sid(self.number << 32 | visit);
        let token = format!("{}-{visit}", self.number);
        let request = signed_post(self.path, &form(&call, &[("Digits", "7")]), &token);
        let kept = self.connection.take();
        let was_kept = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(to).await.context("connecting")?),
        };
        let how = if was_kept { "a kept connection" } else { "a new connection" };
        stream.get_mut().write_all(&request).await.with_context(|| format!("writing to {how}"))?;
        let (mut line, mut head) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await.with_context(|| format!("reading from {how}"))?
                == 0
            {
                bail!("{how} was closed under a visit, after {head:?}");
            }
            head.push_str(&line.to_ascii_lowercase());
        }
        let field = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.into_iter().find(|(field, _)| *field == name).map(|(_, value)| value)
        };
        let length: usize = field("content-length").unwrap_or("0").parse()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.context("reading the body")?;
        if keep && field("connection") != Some("close") {
            self.connection = Some(stream);
        }
        let by = field("holdline-answered-by").unwrap_or("nobody");
        if !head.starts_with("http/1.1 200 ") || !matches!(by, "origin" | "monitor") {
            bail!("answered by {by}: {head}");
        }
        Ok(())
    }
}
