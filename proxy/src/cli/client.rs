//! Asks a running edge over its admin plane.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an edge may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// And to take the connection.
const CONNECT: Duration = Duration::from_secs(3);

/// A running edge.
pub(super) struct Client {
    admin: SocketAddr,
    token: Option<SecretString>,
}

// === impl Client ===

impl Client {
    /// The edge whose admin plane is here.
    pub(super) fn new(admin: SocketAddr, token: Option<SecretString>) -> Client {
        Client { admin, token }
    }

    /// Posts something, and gives back the answer.
    pub(super) async fn post(&self, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let (status, body) = self
            .exchange(Method::POST, path, body)
            .await
            .context("only a running edge can do that")?;
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != StatusCode::OK {
            let what = String::from_utf8_lossy(&body);
            bail!("the edge refused ({status}): {}", said["error"].as_str().unwrap_or(what.trim()));
        }
        Ok(said)
    }

    /// Gets something: its status, and what it is.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let connecting = timeout(CONNECT, TcpStream::connect(self.admin)).await;
        let stream = connecting.map_err(anyhow::Error::from).and_then(|done| Ok(done?));
        let stream = stream.with_context(|| format!("no edge answers on {}", self.admin))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.admin.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            let token = format!("Bearer {}", token.expose_secret());
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        timeout(PATIENCE, exchange).await.context("the edge did not answer in time")?
    }
}
