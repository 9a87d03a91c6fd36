//! An upstream that misbehaves in a stated way, and remembers what reached it.
//!
//! It speaks HTTP by hand, because a server library would not send what these send.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a stand-in does with a visit. Probes it answers well, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers a document that says "stand-in" and ends the call.
    Answers,
    /// Answers this status, with an error page.
    Status(u16),
    /// 503 with the promise that nothing ran.
    NotRun,
    /// 200 with an HTML error page.
    Html,
    /// 200 with nothing.
    Empty,
    /// 200 with half a document, whole by its Content-Length.
    HalfDocument,
    /// 200 that breaks off before its Content-Length.
    BreaksOff,
    /// 200 with a document of 70 kB.
    Large,
    /// Reads the request and resets the connection.
    ResetsAfterReading,
    /// Reads the request and says nothing.
    Hangs,
    /// Answers as it should, but with a byte order mark, blanks and a charset that is not its own.
    Untidy,
    /// Redirects every path to `/elsewhere` with this status, and answers there.
    Redirects(u16),
    /// Redirects every path to this place, and answers wherever `/elsewhere` is in it.
    RedirectsTo(&'static str),
    /// Answers as it should, after this time.
    Slow(Duration),
    /// Answers 500 to visits and probes alike.
    Sick,
}

/// A request that reached a stand-in.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Method and target.
    pub line: String,
    /// Header fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

/// A running stand-in.
#[derive(Debug)]
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    manners: Mutex<Manners>,
    reached: Mutex<Vec<Reached>>,
    last_probe: Mutex<Option<Reached>>,
}

/// How visits are treated: those that hold a text in one way, all others in another.
#[derive(Debug, Clone)]
struct Manners {
    usual: Manner,
    special: Vec<(String, Manner)>,
}

// === impl Reached ===

impl Reached {
    /// A header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

// === impl StandIn ===

impl StandIn {
    /// Starts one.
    pub async fn start(manner: Manner) -> std::io::Result<StandIn> {
        StandIn::start_at(([127, 0, 0, 1], 0).into(), manner).await
    }

    /// Starts one at an address.
    pub async fn start_at(address: SocketAddr, manner: Manner) -> std::io::Result<StandIn> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let manners = Mutex::new(Manners { usual: manner, special: Vec::new() });
        let (reached, last_probe) = Default::default();
        let shared = Arc::new(Shared { manners, reached, last_probe });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Ok(StandIn { address, shared, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes its manner.
    pub fn behave(&self, manner: Manner) {
        self.shared.manners().usual = manner;
    }

    /// Treats visits that hold this text, in their first line or in their body, in a manner of their own.
    pub fn treat(&self, text: &str, manner: Manner) {
        self.shared.manners().special.insert(0, (text.to_owned(), manner));
    }

    /// The last probe that reached it.
    pub fn last_probe(&self) -> Option<Reached> {
        self.shared.last_probe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The visits that reached it; probes are not among them.
    pub fn reached(&self) -> Vec<Reached> {
        self.shared.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn manners(&self) -> MutexGuard<'_, Manners> {
        self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manner_for(&self, request: &Reached) -> Manner {
        let manners = self.manners();
        let holds = |text: &str| request.line.contains(text) || request.body.contains(text);
        let special = manners.special.iter().find(|(text, _)| holds(text));
        special.map_or(manners.usual, |(_, manner)| *manner)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read_request(&mut stream).await {
        let manner = shared.manner_for(&request);
        let probe = request.line.starts_with("GET ") && request.line.contains("/ready ");
        let elsewhere = request.line.contains("/elsewhere");
        if probe {
            let mut last = shared.last_probe.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(request);
        } else {
            shared.reached.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        }
        let answer = if probe && manner != Manner::Sick {
            whole(200, "text/plain", "ready")
        } else if elsewhere {
            answer(Manner::Answers)
        } else {
            answer(manner)
        };
        if let (Manner::Slow(time), false) = (manner, probe) {
            tokio::time::sleep(time).await;
        }
        match answer {
            Answer::Whole(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::ThenClose(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            Answer::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
            Answer::Never => std::future::pending::<()>().await,
        }
    }
}

enum Answer {
    Whole(String),
    ThenClose(String),
    Reset,
    Never,
}

fn answer(manner: Manner) -> Answer {
    const DOCUMENT: &str =
        "<?xml version=\"1.0\"?><Response><Say>stand-in</Say><Hangup/></Response>";
    const PAGE: &str = "<!DOCTYPE html><html><head><title>Application error</title></head><body><h1>Sorry</h1></body></html>";
    match manner {
        Manner::Answers | Manner::Slow(_) => whole(200, "text/xml", DOCUMENT),
        Manner::Status(status) => whole(status, "text/html", PAGE),
        Manner::Sick => whole(500, "text/html", PAGE),
        Manner::Untidy => {
            whole(200, "text/plain; charset=iso-8859-1", &format!("\u{feff}\r\n{DOCUMENT}"))
        }
        Manner::Redirects(status) => Answer::Whole(format!(
            "HTTP/1.1 {status} Elsewhere\r\nLocation: /elsewhere?a=1\r\nContent-Length: 0\r\n\r\n"
        )),
        Manner::RedirectsTo(place) => Answer::Whole(format!(
            "HTTP/1.1 303 Elsewhere\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
        )),
        Manner::NotRun => Answer::Whole(
            "HTTP/1.1 503 Busy\r\nHoldline-Not-Run: 1\r\nContent-Length: 0\r\n\r\n".into(),
        ),
        Manner::Html => whole(200, "text/xml", PAGE),
        Manner::Empty => whole(200, "text/xml", ""),
        Manner::HalfDocument => whole(200, "text/xml", &DOCUMENT[..DOCUMENT.len() / 2]),
        Manner::BreaksOff => Answer::ThenClose(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{}",
            DOCUMENT.len(),
            &DOCUMENT[..DOCUMENT.len() / 2]
        )),
        Manner::Large => whole(
            200,
            "text/xml",
            &format!("<Response><Say>{}</Say></Response>", "x".repeat(70_000)),
        ),
        Manner::ResetsAfterReading => Answer::Reset,
        Manner::Hangs => Answer::Never,
    }
}

fn whole(status: u16, content_type: &str, body: &str) -> Answer {
    Answer::Whole(format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Reads a request; none when the connection has ended.
pub async fn read_request(stream: &mut TcpStream) -> Option<Reached> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = fields
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, v)| v.parse().ok())
        .unwrap_or(0);
    let mut body = bytes.split_off(head_end + 4);
    let missing = length - body.len().min(length);
    let mut rest = vec![0; missing];
    stream.read_exact(&mut rest).await.ok()?;
    body.extend(rest);
    Some(Reached { line, fields, body: String::from_utf8_lossy(&body).into_owned() })
}
