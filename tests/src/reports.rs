//! Reports by the thousand: who sends them, and an application that takes them.
//!
//! Both are as lean as they can be, so that what they measure is what stands between them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use holdline_twilio::Form;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::requests::{call_sid, form, signed_post};

/// Where reports go.
pub const PATH: &str = "/calls/7/call_ended";

/// A report, told apart by its call and its number within that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Report {
    /// The call.
    pub call: u64,
    /// The number.
    pub number: u64,
}

/// Somebody who sends reports over one connection.
#[derive(Debug, Default)]
pub struct Sender {
    connection: Option<BufReader<TcpStream>>,
}

/// How an application takes reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// With 204, after this time.
    After(Duration),
    /// With this status, and not at all.
    Refusing(u16),
}

/// A report that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub report: Report,
    /// Under which delivery id.
    pub delivery: String,
}

/// An application that takes reports. Probes it answers well.
#[derive(Debug)]
pub struct Taker {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    taking: Mutex<Taking>,
    taken: Mutex<Vec<Taken>>,
    count: AtomicU64,
    remembers: bool,
}

// === impl Report ===

impl Report {
    /// The request that carries it, as Twilio would send it.
    pub fn request(self) -> Vec<u8> {
        let Report { call, number } = self;
        let text = number.to_string();
        let form = form(&call_sid(call), &[("SequenceNumber", &text), ("CallDuration", "17")]);
        signed_post(PATH, &form, &format!("{call:016x}-{number:016x}"))
    }

    fn read(body: &[u8]) -> Option<Report> {
        let form = Form::parse(body).ok()?;
        let call = u64::from_str_radix(&form.get("CallSid")?[18..], 16).ok()?;
        Some(Report { call, number: form.get("SequenceNumber")?.parse().ok()? })
    }
}

// === impl Sender ===

impl Sender {
    /// Sends a request and gives back the status; an error if the connection broke.
    pub async fn send(&mut self, to: SocketAddr, request: &[u8]) -> anyhow::Result<u16> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(to).await?),
        };
        connection.get_mut().set_nodelay(true)?;
        connection.get_mut().write_all(request).await?;
        let (status, _, _) = read_message(&mut connection).await?;
        let status = status.split(' ').nth(1).context("no status")?.parse()?;
        self.connection = Some(connection);
        Ok(status)
    }
}

// === impl Taker ===

impl Taker {
    /// One that remembers what it took, in order.
    pub async fn start(taking: Taking) -> anyhow::Result<Taker> {
        Taker::begin(taking, true).await
    }

    /// One that only counts.
    pub async fn that_counts(taking: Taking) -> anyhow::Result<Taker> {
        Taker::begin(taking, false).await
    }

    async fn begin(taking: Taking, remembers: bool) -> anyhow::Result<Taker> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (taking, count) = (Mutex::new(taking), AtomicU64::new(0));
        let shared = Arc::new(Shared { taking, taken: Mutex::default(), count, remembers });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, serving.clone()));
            }
        });
        Ok(Taker { address, shared, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes in another way from now on.
    pub fn take(&self, taking: Taking) {
        *lock(&self.shared.taking) = taking;
    }

    /// What it has taken so far, in order.
    pub fn taken(&self) -> Vec<Taken> {
        lock(&self.shared.taken).clone()
    }

    /// How many it has taken.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(stream: TcpStream, shared: Arc<Shared>) -> anyhow::Result<()> {
    const READY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready";
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (line, delivery, body) = read_message(&mut stream).await?;
        if line.starts_with("GET ") {
            stream.get_mut().write_all(READY).await?;
            continue;
        }
        let taking = *lock(&shared.taking);
        let status = match taking {
            Taking::After(time) => {
                if !time.is_zero() {
                    tokio::time::sleep(time).await;
                }
                shared.count.fetch_add(1, Ordering::Relaxed);
                if let Some(report) = Report::read(&body).filter(|_| shared.remembers) {
                    lock(&shared.taken).push(Taken { report, delivery });
                }
                204
            }
            Taking::Refusing(status) => status,
        };
        let answer = if status == 204 {
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
        } else {
            format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n")
        };
        stream.get_mut().write_all(answer.as_bytes()).await?;
    }
}

/// Reads a request or an answer: its first line, its delivery id, its body.
async fn read_message(
    stream: &mut BufReader<TcpStream>,
) -> anyhow::Result<(String, String, Vec<u8>)> {
    let (mut first, mut delivery, mut length) = (String::new(), String::new(), 0);
    let mut line = String::new();
    loop {
        line.clear();
        anyhow::ensure!(stream.read_line(&mut line).await? > 0, "the connection has ended");
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if first.is_empty() {
            text.clone_into(&mut first);
            continue;
        }
        let Some((name, value)) = text.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        } else if name.eq_ignore_ascii_case("holdline-delivery") {
            value.trim().clone_into(&mut delivery);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((first, delivery, body))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
