//! TLS in front of a plain server, with certificates of an authority made for the test.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server that takes TLS off and hands on what is inside.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    greeted: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

// === impl Authority ===

impl Authority {
    /// A new one.
    pub fn new() -> anyhow::Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "an authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes a certificate for these names, and its key, to `NAME.pem` and `NAME.key` in a folder.
    pub fn issue(&self, names: &[&str], file: &str, folder: &Path) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.0)?;
        std::fs::write(folder.join(format!("{file}.pem")), certificate.pem() + &self.pem())?;
        let place = folder.join(format!("{file}.key"));
        std::fs::write(&place, key.serialize_pem())?;
        Ok(std::fs::set_permissions(place, Permissions::from_mode(0o600))?)
    }

    fn server_config(&self, name: &str) -> anyhow::Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.0)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok(ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?)
    }
}

// === impl TlsFront ===

impl TlsFront {
    /// Starts one before `inner`, with a certificate for `name`.
    pub async fn start(
        authority: &Authority,
        name: &str,
        inner: SocketAddr,
    ) -> anyhow::Result<TlsFront> {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(name)?));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port")?;
        let address = listener.local_addr()?;
        let greeted = Arc::new(Mutex::new(Vec::new()));
        let greetings = greeted.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), inner, greetings.clone()));
            }
        });
        Ok(TlsFront { address, greeted, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names it was greeted with, one for each whole handshake.
    pub fn greeted(&self) -> Vec<String> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    inner: SocketAddr,
    greeted: Arc<Mutex<Vec<String>>>,
) {
    // A client that does not trust the certificate is what some tests are about.
    let Ok(mut outside) = acceptor.accept(stream).await else { return };
    let name = outside.get_ref().1.server_name().unwrap_or_default().to_owned();
    greeted.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    if let Ok(mut inside) = TcpStream::connect(inner).await {
        let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
    }
}
