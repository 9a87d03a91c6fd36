//! Certificates of a listener: read from files, chosen by the name that the client asks for, read again
//! when the files change.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::config::only_for_few;

/// The files of one listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates. Whoever asks for a name that none of them has gets the first.
    pub certificates: Vec<CertificateFiles>,
    /// Who must have signed the client's certificate (PEM); none: clients need none.
    pub client_authorities: Option<PathBuf>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that lead to a root (PEM).
    pub chain: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

/// What a listener shows to clients.
pub struct Identity {
    /// For greeting clients.
    pub config: Arc<ServerConfig>,
    /// Its certificates.
    pub certificates: Vec<Certificate>,
    /// What the files looked like before they were read.
    pub stamp: Stamp,
}

/// A certificate in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The names it is for, as DNS writes them.
    pub names: Vec<String>,
    /// From when.
    pub from: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// Whether others follow it in its file, or none is needed.
    pub chain_is_full: bool,
}

/// What tells one state of a file from another.
pub type Stamp = Vec<Option<(i64, i64, u64)>>;

/// Chooses by name.
#[derive(Debug)]
struct ByName(Vec<(Vec<String>, Arc<CertifiedKey>)>);

// === impl TlsFiles ===

impl TlsFiles {
    /// Reads the files. Every fault is told, each with its file.
    pub fn load(&self) -> Result<Identity, Vec<String>> {
        // Taken before the files are read: a change in the meantime is seen the next time.
        let stamp = self.stamp();
        let mut faults = Vec::new();
        let mut keys = Vec::new();
        let mut certificates = Vec::new();
        for files in &self.certificates {
            match files.load() {
                Ok((certificate, key)) => {
                    keys.push((certificate.names.clone(), Arc::new(key)));
                    certificates.push(certificate);
                }
                Err(fault) => faults.push(fault),
            }
        }
        let authorities = self.client_authorities.as_deref().map(read_authorities).transpose();
        let authorities = authorities.unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        if !faults.is_empty() {
            return Err(faults);
        }
        let config = self.config(keys, authorities).map_err(|fault| vec![fault])?;
        Ok(Identity { config: Arc::new(config), certificates, stamp })
    }

    fn config(
        &self,
        keys: Vec<(Vec<String>, Arc<CertifiedKey>)>,
        authorities: Option<RootCertStore>,
    ) -> Result<ServerConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
        // New with every reading: whoever resumes was let in by the authorities of today.
        config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if self.http2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Ok(config)
    }

    /// What the files look like now; another value means that they were changed.
    pub fn stamp(&self) -> Stamp {
        use std::os::unix::fs::MetadataExt as _;
        let pairs = self.certificates.iter().flat_map(|files| [&files.chain, &files.key]);
        pairs
            .chain(&self.client_authorities)
            .map(|path| {
                let file = fs::metadata(path).ok()?;
                // Every change shows here, that of its permissions as well.
                Some((file.ctime(), file.ctime_nsec(), file.ino()))
            })
            .collect()
    }
}

// === impl CertificateFiles ===

impl CertificateFiles {
    fn load(&self) -> Result<(Certificate, CertifiedKey), String> {
        let chain = read_certificates(&self.chain)?;
        let certificate = Certificate::of(&chain)
            .ok_or_else(|| format!("{}: the certificate cannot be read", self.chain.display()))?;
        let place = self.key.display();
        only_for_few(&self.key)?;
        let pem = fs::read(&self.key).map_err(|error| format!("{place}: {error}"))?;
        // The error must not show what was in the file.
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| format!("{place}: there is no private key (PEM) in it"))?;
        let key = ring::sign::any_supported_type(&key)
            .map_err(|_| format!("{place}: this kind of key is not supported"))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok((certificate, certified))
            }
            Err(_) => Err(format!("{place}: it is not the key of {}", self.chain.display())),
        }
    }
}

// === impl Certificate ===

impl Certificate {
    fn of(chain: &[CertificateDer<'_>]) -> Option<Certificate> {
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        let alternative = leaf.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let time = |seconds: i64| {
            UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        let validity = leaf.validity();
        Some(Certificate {
            names: names.collect(),
            from: time(validity.not_before.timestamp()),
            until: time(validity.not_after.timestamp()),
            chain_is_full: chain.len() > 1 || leaf.subject() == leaf.issuer(),
        })
    }

    /// The name it is known by in metrics and logs.
    pub fn name(&self) -> &str {
        self.names.first().map_or("unnamed", String::as_str)
    }

    /// What an operator should know of it, though it can be used.
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        let time = humantime::format_rfc3339_seconds;
        if self.until <= now {
            warnings.push(format!("it ran out at {}", time(self.until)));
        } else if self.from > now {
            warnings.push(format!("it is valid only from {}", time(self.from)));
        } else if self.until < now + Duration::from_secs(14 * 86_400) {
            warnings.push(format!("it runs out at {}", time(self.until)));
        }
        if !self.chain_is_full {
            warnings.push(
                "no other certificate follows it; Twilio asks for the whole chain (error 11237)"
                    .to_owned(),
            );
        }
        warnings
    }
}

// === impl Identity ===

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

// === impl ByName ===

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let of = |name: &str| self.0.iter().find(|(names, _)| names.iter().any(|n| n == name));
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let found = asked.and_then(|name| {
            let any = || of(&format!("*.{}", name.split_once('.')?.1));
            of(&name).or_else(any)
        });
        found.or(self.0.first()).map(|(_, key)| key.clone())
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let place = path.display();
    let pem = fs::read(path).map_err(|error| format!("{place}: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{place}: there is no certificate (PEM) in it")),
    }
}

fn read_authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}
