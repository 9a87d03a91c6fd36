//! Origins that write down what they read: the server our own origin is built on (hyper), Node's, and
//! Python's h11. Where two servers read the same bytes differently, somebody can hide a request.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A request as a server has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its method.
    pub method: String,
    /// Its target, to the byte.
    pub target: String,
    /// Its body, each byte a character.
    pub body: String,
}

/// A server that writes down what it reads.
#[derive(Debug)]
pub struct Echo {
    /// What it is built on.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ours(Arc<Mutex<Vec<Read>>>, JoinHandle<()>),
    Program(#[expect(dead_code, reason = "ends with this")] Child, PathBuf),
}

// === impl Echo ===

impl Echo {
    /// The server our origin is built on.
    pub async fn ours() -> anyhow::Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = noted.clone();
                let service = service_fn(move |request| note(seen.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Echo { name: "hyper", address, kind: Kind::Ours(seen, task) })
    }

    /// Node's own server.
    pub async fn node(folder: &Path) -> anyhow::Result<Echo> {
        Echo::program("node", Command::new("node"), "node.js", folder).await
    }

    /// Python's h11, with packages from a folder.
    pub async fn python(folder: &Path, packages: &Path) -> anyhow::Result<Echo> {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", packages);
        Echo::program("h11", python, "python.py", folder).await
    }

    async fn program(
        name: &'static str,
        mut command: Command,
        script: &str,
        folder: &Path,
    ) -> anyhow::Result<Echo> {
        let seen = folder.join(format!("{name}.seen"));
        std::fs::write(&seen, "")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("echo").join(script);
        let command = command.arg(script).arg(&seen).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let line = BufReader::new(stdout).lines().next_line().await?.unwrap_or_default();
        let Some(port) = line.strip_prefix("echo: ") else { bail!("{name} says {line:?}") };
        let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
        Ok(Echo { name, address, kind: Kind::Program(child, seen) })
    }

    /// What it has read since it was asked last.
    pub fn take(&self) -> anyhow::Result<Vec<Read>> {
        match &self.kind {
            Kind::Ours(seen, _) => {
                Ok(std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner)))
            }
            Kind::Program(_, seen) => {
                let text = std::fs::read_to_string(seen)?;
                std::fs::write(seen, "")?;
                text.lines().map(read).collect()
            }
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Kind::Ours(_, task) = &self.kind {
            task.abort();
        }
    }
}

async fn note(
    seen: Arc<Mutex<Vec<Read>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let target = head.uri.to_string();
    if target != "/ready" {
        let body = body.iter().map(|&byte| char::from(byte)).collect();
        let read = Read { method: head.method.to_string(), target, body };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(read);
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"seen\n"))))
}

fn read(line: &str) -> anyhow::Result<Read> {
    let value: serde_json::Value = serde_json::from_str(line)?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    match (text("method"), text("target"), text("body")) {
        (Some(method), Some(target), Some(body)) => Ok(Read { method, target, body }),
        _ => bail!("the origin could not read what it was sent: {line}"),
    }
}
