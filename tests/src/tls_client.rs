//! A client that speaks HTTP over TLS, in either version of both, and tells whom it met.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls_front::Authority;

/// How a client greets.
#[derive(Debug, Clone)]
pub struct TlsClient {
    config: ClientConfig,
}

/// Somewhere requests can be sent to, over one connection.
#[derive(Debug)]
pub enum Exchange {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2.
    Http2(http2::SendRequest<Full<Bytes>>),
}

// === impl TlsClient ===

impl TlsClient {
    /// One that trusts an authority and speaks this protocol (`h2`, `http/1.1`), with these versions of
    /// TLS; with a certificate of its own in `NAME.pem` and `NAME.key` of a folder.
    pub fn new(
        authority: &Authority,
        protocol: &str,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<(&Path, &str)>,
    ) -> anyhow::Result<TlsClient> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(versions)?
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((folder, name)) => {
                let chain = CertificateDer::pem_file_iter(folder.join(format!("{name}.pem")))?;
                let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?;
                builder.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(TlsClient { config })
    }

    /// Greets `to` by a name.
    pub async fn greet(&self, to: SocketAddr, name: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned())?;
        Ok(TlsConnector::from(Arc::new(self.config.clone())).connect(name, stream).await?)
    }

    /// The certificate that `to` shows to whoever greets it by a name.
    pub async fn met(&self, to: SocketAddr, name: &str) -> anyhow::Result<Vec<u8>> {
        let stream = self.greet(to, name).await?;
        let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
        Ok(chain.first().context("no certificate")?.to_vec())
    }

    /// Greets `to` and speaks HTTP with it.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> anyhow::Result<Exchange> {
        let stream = self.greet(to, name).await?;
        let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if speaks_http2 {
            let (send, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Ok(Exchange::Http2(send))
        } else {
            let (send, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Ok(Exchange::Http1(send))
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let answer = match self {
            Exchange::Http1(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
            Exchange::Http2(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
        };
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }

    /// Whether it is HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Exchange::Http2(_))
    }
}
