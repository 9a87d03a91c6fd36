//! Requests outside any call: to the edge, and to an upstream past it.

use std::net::SocketAddr;

use anyhow::Context as _;
use holdline_twilio::Form;
use twilio_sim::Fetched;
use url::Url;

use super::{INSPECT_TOKEN, PATIENCE, Place, World};
use crate::requests::{open, post, public_url};

// === impl World ===

impl World {
    /// One signed POST to the edge, outside any call.
    pub async fn post(&self, path: &str, form: &Form) -> Fetched {
        post(&self.company, &public_url(path), form, "").await
    }

    /// Such a POST with an idempotency token.
    pub async fn post_with_token(&self, path: &str, form: &Form, token: &str) -> Fetched {
        post(&self.company, &public_url(path), form, token).await
    }

    /// One signed POST to an upstream itself, past the edge.
    pub async fn post_to(&self, place: &Place, path: &str, form: &Form) -> Fetched {
        match open(self.seed, Some(place.wire.address()), 1.0) {
            Ok(company) => post(&company, &public_url(path), form, "").await,
            Err(error) => unreachable!("the same settings were taken before: {error}"),
        }
    }

    /// An order to a real upstream, as a browser gives it: the status.
    pub async fn order(&self, place: &Place, path: &str, body: &str) -> anyhow::Result<u16> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: order\r\nAuthorization: Bearer {INSPECT_TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw_to(place.wire.address(), request.as_bytes()).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.context("no status")
    }

    /// What a place of a real upstream was told to show of itself.
    pub async fn inspect(&self, place: &Place, path: &str) -> anyhow::Result<serde_json::Value> {
        let url: Url = format!("http://{}{path}", place.wire.address()).parse()?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: inspect\r\nAuthorization: Bearer {INSPECT_TOKEN}\r\nConnection: close\r\n\r\n",
            url.path()
        );
        let answer = self.raw_to(place.wire.address(), request.as_bytes()).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Sends bytes to the edge and reads until it closes.
    pub async fn raw(&self, bytes: &[u8]) -> anyhow::Result<String> {
        self.raw_to(self.edge.public, bytes).await
    }

    /// Sends bytes to any address and reads until it closes.
    pub async fn raw_to(&self, address: SocketAddr, bytes: &[u8]) -> anyhow::Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // A connection that is reset after its answer has still answered.
        let _ = tokio::time::timeout(PATIENCE, read)
            .await
            .context("the connection was not closed in time")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
