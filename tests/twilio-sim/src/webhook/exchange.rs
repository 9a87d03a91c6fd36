//! One request to one server: connecting, TLS, sending, reading, each with its limit.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::Received;
use super::overrides::Overrides;

/// More than any document may have; what is longer is cut off here.
const LARGEST_BODY: usize = 1024 * 1024;
/// Idle connections kept to one server, where they are kept at all.
const MOST_IDLE: usize = 256;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The URL cannot be asked.
    BadUrl,
    /// The host name has no address.
    NoAddress,
    /// Connecting took too long.
    ConnectTimeout,
    /// The connection was refused.
    Refused,
    /// TLS failed, with Twilio's number for the reason.
    Tls(u32),
    /// What came back is not HTTP.
    NotHttp,
    /// The connection broke before the answer was whole.
    Broken,
    /// The answer, or its next packet, did not come in time.
    ReadTimeout,
    /// Everything together took too long.
    TotalTimeout,
}

/// Makes single requests.
#[derive(Debug)]
pub(super) struct Exchanger {
    pub(super) resolve: HashMap<String, SocketAddr>,
    pub(super) connect_to: Option<SocketAddr>,
    pub(super) tls: Arc<ClientConfig>,
    /// Idle connections by server; none where every request has a connection of its own.
    pub(super) idle: Option<Mutex<HashMap<String, Vec<Sender>>>>,
}

/// A connection. Dropped, it is closed, whatever is still on its way.
#[derive(Debug)]
pub(super) struct Sender {
    requests: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Failure ===

impl Failure {
    /// Twilio's error number.
    pub const fn code(self) -> u32 {
        match self {
            Failure::BadUrl => 11100,
            Failure::NoAddress => 11210,
            Failure::ConnectTimeout => 11201,
            Failure::Refused => 11202,
            Failure::Tls(code) => code,
            Failure::NotHttp => 11206,
            Failure::Broken | Failure::ReadTimeout => 11200,
            Failure::TotalTimeout => 11203,
        }
    }

    /// Whether the server can have seen nothing of the request.
    pub const fn is_before_sending(self) -> bool {
        matches!(
            self,
            Failure::BadUrl
                | Failure::NoAddress
                | Failure::ConnectTimeout
                | Failure::Refused
                | Failure::Tls(_)
        )
    }
}

// === impl Exchanger ===

impl Exchanger {
    /// One request. `sent` is set before the first byte is written.
    pub(super) async fn exchange(
        &self,
        url: &Url,
        mut request: Request<Full<Bytes>>,
        limits: &Overrides,
        sent: &mut bool,
    ) -> Result<Received, Failure> {
        let server = url[url::Position::BeforeScheme..url::Position::AfterPort].to_owned();
        if let Some(mut sender) = self.take(&server) {
            *sent = true;
            match self.converse(&mut sender, request, limits).await {
                Ok(received) => {
                    self.keep(server, sender, &received);
                    return Ok(received);
                }
                // An idle connection that was closed before a byte was written tells nothing.
                Err((_, Some(unsent))) => {
                    *sent = false;
                    request = unsent;
                }
                Err((failure, None)) => return Err(failure),
            }
        }
        let mut sender = timeout(limits.connect, self.connect(url, limits))
            .await
            .map_err(|_| Failure::ConnectTimeout)??;
        *sent = true;
        let received =
            self.converse(&mut sender, request, limits).await.map_err(|(failure, _)| failure)?;
        self.keep(server, sender, &received);
        Ok(received)
    }

    async fn connect(&self, url: &Url, limits: &Overrides) -> Result<Sender, Failure> {
        let host = url.host().ok_or(Failure::BadUrl)?;
        let port = url.port_or_known_default().ok_or(Failure::BadUrl)?;
        let stream = TcpStream::connect(&*self.addresses(&host, port).await?)
            .await
            .map_err(|_| Failure::Refused)?;
        let _ = stream.set_nodelay(true);
        match url.scheme() {
            "http" => shake_hands(stream).await,
            "https" => {
                let name = match host {
                    Host::Domain(name) => ServerName::try_from(name.to_owned()),
                    Host::Ipv4(address) => Ok(ServerName::from(std::net::IpAddr::from(address))),
                    Host::Ipv6(address) => Ok(ServerName::from(std::net::IpAddr::from(address))),
                };
                let mut config = self.tls.clone();
                if !limits.sni {
                    Arc::make_mut(&mut config).enable_sni = false;
                }
                let name = name.map_err(|_| Failure::BadUrl)?;
                let stream = TlsConnector::from(config)
                    .connect(name, stream)
                    .await
                    .map_err(|error| Failure::Tls(tls_code(&error)))?;
                shake_hands(stream).await
            }
            _ => Err(Failure::BadUrl),
        }
    }

    async fn addresses(&self, host: &Host<&str>, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let own = self.resolve.get(&host.to_string()).copied().or(self.connect_to);
        if let Some(address) = own {
            return Ok(vec![address]);
        }
        match host {
            Host::Ipv4(address) => Ok(vec![SocketAddr::from((*address, port))]),
            Host::Ipv6(address) => Ok(vec![SocketAddr::from((*address, port))]),
            Host::Domain(name) => match tokio::net::lookup_host((*name, port)).await {
                Ok(found) => Ok(found.collect()),
                Err(_) => Err(Failure::NoAddress),
            },
        }
    }

    /// Sends and reads. A request of which nothing was written is given back.
    async fn converse(
        &self,
        sender: &mut Sender,
        request: Request<Full<Bytes>>,
        limits: &Overrides,
    ) -> Result<Received, (Failure, Option<Request<Full<Bytes>>>)> {
        let response = timeout(limits.read, sender.requests.try_send_request(request))
            .await
            .map_err(|_| (Failure::ReadTimeout, None))?
            .map_err(|mut error| {
                let unsent = error.take_message();
                (http_failure(error.error()), unsent)
            })?;
        let (parts, body) = response.into_parts();
        let body = read_body(body, limits.read).await.map_err(|failure| (failure, None))?;
        Ok(Received { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    fn take(&self, server: &str) -> Option<Sender> {
        let mut idle = self.idle.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(server)?;
        std::iter::from_fn(|| kept.pop()).find(|sender| sender.requests.is_ready())
    }

    fn keep(&self, server: String, sender: Sender, received: &Received) {
        let closes = received
            .header(header::CONNECTION.as_str())
            .is_some_and(|words| words.eq_ignore_ascii_case("close"));
        if let (Some(idle), false) = (&self.idle, closes) {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = idle.entry(server).or_default();
            if kept.len() < MOST_IDLE {
                kept.push(sender);
            }
        }
    }
}

async fn shake_hands<S>(stream: S) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (requests, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::NotHttp)?;
    // What goes wrong on it is told to whoever waits for an answer.
    let task = tokio::spawn(async { drop(connection.await) });
    Ok(Sender { requests, task })
}

async fn read_body(mut body: Incoming, between: Duration) -> Result<Bytes, Failure> {
    let mut whole = BytesMut::new();
    loop {
        match timeout(between, body.frame()).await {
            Err(_) => return Err(Failure::ReadTimeout),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(error))) => return Err(http_failure(&error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    whole.extend_from_slice(&data);
                }
            }
        }
        if whole.len() > LARGEST_BODY {
            whole.truncate(LARGEST_BODY);
            return Ok(whole.freeze());
        }
    }
}

fn http_failure(error: &hyper::Error) -> Failure {
    if error.is_parse() { Failure::NotHttp } else { Failure::Broken }
}

/// Twilio's numbers for what is wrong with a certificate or a handshake.
fn tls_code(error: &std::io::Error) -> u32 {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                11235
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => 11236,
            _ => 11237,
        },
        Some(rustls::Error::InvalidMessage(_)) => 11206,
        _ => 11220,
    }
}
