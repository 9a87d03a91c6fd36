//! A stand-in for Cloudflare's edge: it takes what Twilio sends, shows the origin (here: our edge) its
//! client certificate, and adds the header fields that Cloudflare adds.
//!
//! <https://developers.cloudflare.com/fundamentals/reference/http-headers/> names them. A visitor who sends
//! `X-Forwarded-For` finds himself appended to; one who sends `CF-Connecting-IP` is overwritten.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::tls_client::{Exchange, TlsClient};

/// What it calls every request.
pub const RAY: &str = "8f3a1b2c3d4e5f60-FRA";
/// Where it says that every visitor comes from.
pub const VISITOR: &str = "203.0.113.77";

/// A running one.
#[derive(Debug)]
pub struct Cloudflare {
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Origin {
    client: TlsClient,
    address: SocketAddr,
    name: String,
    /// A connection that is kept, as Cloudflare keeps them.
    kept: Mutex<Option<Exchange>>,
}

// === impl Cloudflare ===

impl Cloudflare {
    /// Starts one before `origin`, which it greets as `client` does, by a name.
    pub async fn start(
        client: TlsClient,
        origin: SocketAddr,
        name: &str,
    ) -> anyhow::Result<Cloudflare> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let kept = Mutex::new(None);
        let origin = Arc::new(Origin { client, address: origin, name: name.to_owned(), kept });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let origin = origin.clone();
                let service = service_fn(move |request| pass(origin.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Cloudflare { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Cloudflare {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    origin: Arc<Origin>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let url = format!("https://{}{target}", authority.unwrap_or("edge.test"));
    let fields = &mut head.headers;
    let before = fields.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let forwarded = before.map_or(VISITOR.to_owned(), |before| format!("{before}, {VISITOR}"));
    for name in ["connection", "keep-alive", "content-length", "transfer-encoding"] {
        fields.remove(name);
    }
    for (name, value) in [
        ("x-forwarded-for", forwarded.as_str()),
        ("x-forwarded-proto", "https"),
        ("cf-connecting-ip", VISITOR),
        ("cf-ray", RAY),
        ("cf-visitor", "{\"scheme\":\"https\"}"),
        ("cf-ipcountry", "US"),
        ("cdn-loop", "cloudflare; loops=1"),
        ("accept-encoding", "gzip, br"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(name, value);
        }
    }
    let mut kept = origin.kept.lock().await;
    let answer = async {
        let mut exchange = match kept.take() {
            Some(exchange) => exchange,
            None => origin.client.connect(origin.address, &origin.name).await?,
        };
        head.uri = if exchange.is_http2() { url.parse()? } else { target_of(&url)? };
        if exchange.is_http2() {
            head.headers.remove(header::HOST);
        }
        head.version =
            if exchange.is_http2() { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
        let answer = exchange.send(Request::from_parts(head, Full::new(body))).await?;
        if answer.headers().get(header::CONNECTION).is_none_or(|value| value != "close") {
            *kept = Some(exchange);
        }
        anyhow::Ok(answer)
    };
    let mut answer = match answer.await {
        Ok(answer) => answer.map(Full::new),
        Err(error) => {
            let mut page = Response::new(Full::new(Bytes::from(format!("<html>{error:#}</html>"))));
            *page.status_mut() = StatusCode::from_u16(520).unwrap_or_default();
            page
        }
    };
    let fields = answer.headers_mut();
    fields.remove(header::CONNECTION);
    fields.insert("cf-ray", HeaderValue::from_static(RAY));
    fields.insert(header::SERVER, HeaderValue::from_static("cloudflare"));
    Ok(answer)
}

fn target_of(url: &str) -> anyhow::Result<Uri> {
    let url: Uri = url.parse()?;
    Ok(url.path_and_query().map_or("/", |target| target.as_str()).parse()?)
}
