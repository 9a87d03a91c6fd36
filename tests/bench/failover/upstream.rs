//! An origin, or the standby beside it, as a process of its own: it can be killed, frozen, and told to
//! fail in a stated way.
//!
//! What it runs it writes down, one line each, in the moment it has read the request: what is written
//! survives it. Orders come by standard input, one word a line.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use holdline_tests::stand_in::{Reached, read_request};
use holdline_twilio::Form;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::capacity::{Capacity, Line};

/// How an upstream behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manner {
    /// As it should.
    Good,
    /// Takes no connections, and resets those there are.
    Refuse,
    /// Reads the request, and resets the connection. Probes too.
    Reset,
    /// Answers 500. Probes too.
    Sick,
    /// Answers 500; probes are well. So they are in what follows.
    Error,
    /// Answers 200 with an error page.
    Page,
    /// Says nothing.
    Hang,
    /// Breaks off in the middle of the body.
    Half,
    /// Sends one byte a second.
    Trickle,
    /// Answers well, after ten seconds.
    Slow,
    /// Answers 500 to two, then well to two, so that every kind of row meets both.
    Alternate,
}

/// What it is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// What its document says.
    #[arg(long)]
    says: String,
    /// Where it writes down what it runs.
    #[arg(long)]
    log: PathBuf,
    /// What it can do at most: requests at once, milliseconds that each takes, and how many may wait for
    /// their turn.
    #[arg(long, num_args = 3, value_names = ["WORKERS", "MILLISECONDS", "LINE"])]
    capacity: Vec<u32>,
}

struct Upstream {
    document: String,
    log: File,
    manner: watch::Receiver<Manner>,
    served: AtomicU64,
    /// Where it can do only so much.
    line: Option<Line>,
}

const PAGE: &str = "<!DOCTYPE html><html><head><title>Application Error</title></head><body><h1>Application Error</h1></body></html>";

/// Serves until standard input ends.
pub(crate) async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let (order, manner) = watch::channel(Manner::Good);
    let log = File::options().create(true).append(true).open(&arguments.log)?;
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Say>{}</Say><Hangup/></Response>",
        arguments.says
    );
    let upstream = Arc::new(Upstream {
        document,
        log,
        manner: manner.clone(),
        served: AtomicU64::new(0),
        line: Capacity::from_arguments(&arguments.capacity).map(Line::new),
    });
    let accepting = tokio::spawn(accept(arguments.listen, upstream, manner));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let manner = Manner::from_str(line.trim(), true).map_err(anyhow::Error::msg)?;
        order.send_replace(manner);
    }
    accepting.abort();
    Ok(())
}

async fn accept(
    address: SocketAddr,
    upstream: Arc<Upstream>,
    mut manner: watch::Receiver<Manner>,
) -> anyhow::Result<()> {
    loop {
        let listener = TcpListener::bind(address).await.context("binding")?;
        announce();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    connections.spawn(converse(stream, upstream.clone()));
                }
                refuse = manner.wait_for(|manner| *manner == Manner::Refuse) => {
                    refuse?;
                    break;
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
        manner.wait_for(|manner| *manner != Manner::Refuse).await?;
    }
}

async fn converse(mut stream: TcpStream, upstream: Arc<Upstream>) {
    // A connection that is dropped while something is unread is reset.
    let _ = stream.set_nodelay(true);
    while let Some(request) = read_request(&mut stream).await {
        let manner = *upstream.manner.borrow();
        let is_probe = request.line.starts_with("GET ");
        let Ok(place) = upstream.line.as_ref().map(Line::join).transpose() else {
            // Who finds the line full hears nothing for as long as he stays, as from a full backlog.
            let _ = read_request(&mut stream).await;
            return;
        };
        let served = if is_probe {
            // A probe waits for its turn like everybody, but there is nothing to do for it.
            if let Some(place) = place {
                place.probe().await;
            }
            upstream.probed(&mut stream, manner).await
        } else {
            upstream.write_down(&request);
            if let Some(place) = place {
                place.work().await;
            }
            upstream.answer(&mut stream, manner).await
        };
        if served.is_none() {
            return;
        }
    }
}

// === impl Upstream ===

impl Upstream {
    fn write_down(&self, request: &Reached) {
        let form = Form::parse(request.body.as_bytes()).unwrap_or_default();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let line = format!("{at} {}\n", form.filled("CallSid").unwrap_or("-"));
        // One write: lines of several connections do not mix.
        let _ = (&self.log).write_all(line.as_bytes());
    }

    async fn probed(&self, stream: &mut TcpStream, manner: Manner) -> Option<()> {
        match manner {
            Manner::Reset => reset(stream),
            Manner::Sick => whole(stream, 500, "sick").await,
            _ => whole(stream, 200, "ready").await,
        }
    }

    async fn answer(&self, stream: &mut TcpStream, manner: Manner) -> Option<()> {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let document = &self.document;
        match manner {
            Manner::Good | Manner::Refuse => whole(stream, 200, document).await,
            Manner::Reset => reset(stream),
            Manner::Sick | Manner::Error => whole(stream, 500, PAGE).await,
            Manner::Page => whole(stream, 200, PAGE).await,
            Manner::Hang => std::future::pending().await,
            Manner::Half => {
                let head = head(200, document.len());
                let half = &document[..document.len() / 2];
                stream.write_all(format!("{head}{half}").as_bytes()).await.ok()?;
                None
            }
            Manner::Trickle => {
                for byte in format!("{}{document}", head(200, document.len())).bytes() {
                    stream.write_all(&[byte]).await.ok()?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Some(())
            }
            Manner::Slow => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                whole(stream, 200, document).await
            }
            Manner::Alternate if number % 4 < 2 => whole(stream, 500, PAGE).await,
            Manner::Alternate => whole(stream, 200, document).await,
        }
    }
}

fn reset(stream: &TcpStream) -> Option<()> {
    let _ = stream.set_zero_linger();
    None
}

async fn whole(stream: &mut TcpStream, status: u16, body: &str) -> Option<()> {
    let text = format!("{}{body}", head(status, body.len()));
    stream.write_all(text.as_bytes()).await.ok()
}

fn head(status: u16, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[expect(clippy::print_stdout, reason = "whoever started it waits for this line")]
fn announce() {
    println!("listening");
}
