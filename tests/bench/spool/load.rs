//! Callbacks as fast as they are answered, or at a steady rate, and how long each took.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdline_tests::requests::{call_sid, form, signed_post};
use holdline_tests::{Report, Sender};

/// Connections that a steady stream is spread over.
const STREAMS: u64 = 256;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// A report, each of a call of its own.
    Report,
    /// A question, each of a call of its own.
    Visit,
    /// Something the catalogue does not list.
    Passed,
}

/// How long things took, in order.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn of(mut times: Vec<Duration>) -> Latencies {
        times.sort_unstable();
        Latencies(times)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn p50(&self) -> Duration {
        self.at(0.5)
    }

    pub(crate) fn p99(&self) -> Duration {
        self.at(0.99)
    }

    fn at(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {}, p99 {}", super::ms(self.p50()), super::ms(self.p99()))
    }
}

/// Sends from so many connections, each as fast as it is answered. Anything but a 2xx ends it.
pub(crate) async fn flood(
    to: SocketAddr,
    way: Way,
    connections: usize,
    time: Duration,
) -> anyhow::Result<(u64, Latencies)> {
    let end = Instant::now() + time;
    let tasks = (0..connections).map(|_| {
        tokio::spawn(async move {
            let (mut sender, mut times) = (Sender::default(), Vec::new());
            while Instant::now() < end {
                let request = way.request();
                let begun = Instant::now();
                let status = sender.send(to, &request).await?;
                anyhow::ensure!((200..300).contains(&status), "it answered {status}");
                times.push(begun.elapsed());
            }
            Ok(times)
        })
    });
    gather(tasks.collect()).await
}

/// Sends so many reports a second, for a time or until there were enough. What is late because others were is counted from when it should have
/// been sent.
pub(crate) async fn stream(
    to: SocketAddr,
    a_second: f64,
    time: Duration,
    enough: Arc<AtomicBool>,
) -> anyhow::Result<(u64, Latencies)> {
    let begun = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let all = (a_second * time.as_secs_f64()) as u64;
    let tasks = (0..STREAMS.min(all)).map(|_| {
        let (next, enough) = (next.clone(), enough.clone());
        tokio::spawn(async move {
            let (mut sender, mut times) = (Sender::default(), Vec::new());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= all || enough.load(Ordering::Relaxed) {
                    return Ok(times);
                }
                let due = begun + Duration::from_secs_f64(number as f64 / a_second);
                let request = Way::Report.request();
                // Late because of others counts; late because of the timer's coarseness does not.
                let counts_from = if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                    Instant::now()
                } else {
                    due
                };
                let status = sender.send(to, &request).await?;
                anyhow::ensure!((200..300).contains(&status), "it answered {status}");
                times.push(counts_from.elapsed());
            }
        })
    });
    gather(tasks.collect()).await
}

type Sending = tokio::task::JoinHandle<anyhow::Result<Vec<Duration>>>;

async fn gather(tasks: Vec<Sending>) -> anyhow::Result<(u64, Latencies)> {
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let latencies = Latencies::of(times);
    Ok((latencies.count() as u64, latencies))
}

// === impl Way ===

impl Way {
    fn request(self) -> Vec<u8> {
        static CALLS: AtomicU64 = AtomicU64::new(1);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        match self {
            Way::Report => Report { call, number: 1 }.request(),
            Way::Visit => question("/callin/create", call),
            Way::Passed => question("/somewhere/else", call),
        }
    }
}

/// The same as a report, but to another path.
fn question(path: &str, call: u64) -> Vec<u8> {
    let form = form(&call_sid(call), &[("SequenceNumber", "1"), ("CallDuration", "17")]);
    signed_post(path, &form, &format!("{call:016x}-{call:016x}"))
}
