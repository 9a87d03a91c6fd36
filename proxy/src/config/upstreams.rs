//! Origin and monitor as written: where they are, how they are called, how they are probed.

use std::path::Path;
use std::time::Duration;

use holdline_policy::Upstream;
use holdline_twilio::PublicUrl;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::reader::Section;

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it is reached: host name or address.
    pub host: String,
    /// And port.
    pub port: u16,
    /// Stands before every path asked for; empty, or begins with a slash and does not end with one.
    pub path: String,
    /// How it proves who it is; none for plain HTTP.
    pub tls: Option<UpstreamTls>,
    /// The `Host` it is sent.
    pub host_field: String,
    /// The URL below which it believes its endpoints to be, and checks signatures.
    pub public_url: BaseUrl,
    /// How many attempts may be in flight.
    pub max_in_flight: u32,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How it is probed.
    pub probe: ProbeConfig,
}

/// How an upstream proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name in its certificate, and in the greeting (SNI).
    pub name: String,
    /// Certificates (DER), one of which must have signed its own; none: the system's roots.
    pub authorities: Option<Vec<Vec<u8>>>,
}

/// Scheme, host and perhaps a path, below which endpoints are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    url: PublicUrl,
    path: String,
    signed: String,
}

/// How an upstream is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Path asked for by GET.
    pub path: String,
    /// The `Host` it is asked with; none: that of every other request.
    pub host: Option<String>,
    /// The time for everything, connecting included.
    pub timeout: Duration,
    /// The status that is good.
    pub status: u16,
    /// Text that the body must hold, if any.
    pub body: Option<String>,
}

// === impl BaseUrl ===

impl BaseUrl {
    fn new(url: PublicUrl, path: String) -> BaseUrl {
        let signed = format!("{}{path}", url.as_twilio_signs());
        BaseUrl { url, path, signed }
    }

    /// Parses `scheme://authority/path`; the path may be left out.
    fn parse(text: &str) -> Option<BaseUrl> {
        let after_scheme = text.find("://")? + 3;
        let end = text[after_scheme..].find('/').map_or(text.len(), |at| after_scheme + at);
        let (url, path) = text.split_at(end);
        let path = path.trim_end_matches('/');
        let fine = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        let fine = path.bytes().all(fine) && !url.contains('@');
        let url = PublicUrl::parse(url).ok().filter(|_| fine)?;
        Some(BaseUrl::new(url, path.to_owned()))
    }

    /// What stands before path and query where a signature is made.
    pub fn signed(&self) -> &str {
        &self.signed
    }

    /// Whether this is `url` itself.
    pub fn is(&self, url: &PublicUrl) -> bool {
        self.path.is_empty() && self.url == *url
    }

    /// Host and port as written.
    pub fn authority(&self) -> &str {
        self.url.authority()
    }

    /// The path; empty, or begins with a slash and does not end with one.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Reads `[upstreams.origin]` and `[upstreams.monitor]`. Files are named relative to `folder`.
pub(super) fn read(
    section: &mut Section<'_>,
    public_url: Option<&PublicUrl>,
    folder: &Path,
) -> Option<[UpstreamConfig; 2]> {
    let [origin, monitor] = Upstream::ALL.map(|upstream| {
        if !section.has(upstream.name()) {
            section
                .fault(upstream.name(), "is missing: say where it is, as url = \"https://host\"");
            return None;
        }
        read_one(&mut section.section(upstream.name()), public_url, folder)
    });
    Some([origin?, monitor?])
}

fn read_one(
    section: &mut Section<'_>,
    public_url: Option<&PublicUrl>,
    folder: &Path,
) -> Option<UpstreamConfig> {
    if !section.has("url") {
        section.fault("url", "is missing");
    }
    const FORM: &str = "of the form https://host, http://host:port or https://host/path";
    let url = section.parsed("url", FORM, |text| {
        BaseUrl::parse(text).and_then(|base| Some((host_and_port(&base.url)?, base)))
    });
    let own = section.parsed("public_url", FORM, BaseUrl::parse);
    let host_field = read_host(section);
    let is_tls = url.as_ref().is_none_or(|(_, base)| base.url.is_https());
    let tls = read_tls(section, is_tls, folder);
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let max_in_flight = section.number("max_in_flight", 256, 1, 100_000);
    let connect_timeout = section.duration_in("connect_timeout", s(1), ms(10), s(5));
    let idle_timeout = section.duration_in("idle_timeout", s(30), ms(0), s(600));
    let probe = read_probe(&mut section.section("probe"));
    let ((host, port), base) = url?;
    let public_url = match own {
        Some(own) => own,
        None => BaseUrl::new(public_url?.clone(), base.path.clone()),
    };
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(UpstreamConfig {
        port,
        path: base.path,
        tls: is_tls.then(|| tls.named(name)),
        host_field: host_field.unwrap_or_else(|| public_url.authority().to_owned()),
        host,
        public_url,
        max_in_flight,
        connect_timeout,
        idle_timeout,
        probe,
    })
}

/// What is written of TLS.
struct WrittenTls {
    name: Option<String>,
    authorities: Option<Vec<Vec<u8>>>,
}

impl WrittenTls {
    fn named(self, host: String) -> UpstreamTls {
        UpstreamTls { name: self.name.unwrap_or(host), authorities: self.authorities }
    }
}

fn read_tls(section: &mut Section<'_>, is_tls: bool, folder: &Path) -> WrittenTls {
    for key in ["server_name", "ca"] {
        if !is_tls && section.has(key) {
            section.fault(key, "means nothing unless the url is https");
        }
    }
    let name = section.parsed("server_name", "a host name or an address", |text| {
        ServerName::try_from(text).is_ok().then(|| text.to_owned())
    });
    let file = section.text("ca");
    let authorities = file.and_then(|file| match read_authorities(&folder.join(&file)) {
        Ok(authorities) => Some(authorities),
        Err(why) => {
            section.fault("ca", &format!("{file:?} {why}"));
            None
        }
    });
    WrittenTls { name, authorities }
}

/// The certificates in a PEM file, each of which can be trusted to sign others.
fn read_authorities(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut store = RootCertStore::empty();
    let mut authorities = Vec::new();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error}"))?;
        let der = certificate.to_vec();
        store.add(certificate).map_err(|error| format!("holds what is no authority: {error}"))?;
        // The framework reads it again in a way of its own, and does not expect that to fail.
        x509_parser::parse_x509_certificate(&der)
            .map_err(|error| format!("holds what is no certificate: {error}"))?;
        authorities.push(der);
    }
    if authorities.is_empty() {
        return Err("holds no certificate".into());
    }
    Ok(authorities)
}

/// A `Host` of its own.
fn read_host(section: &mut Section<'_>) -> Option<String> {
    section.parsed("host", "a host name, perhaps with a port", |text| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        (!text.is_empty() && text.bytes().all(fine)).then(|| text.to_owned())
    })
}

fn read_probe(section: &mut Section<'_>) -> ProbeConfig {
    let path = section.parsed("path", "a path that begins with /", |text| {
        let fine = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
        fine.then(|| text.to_owned())
    });
    ProbeConfig {
        host: read_host(section),
        path: path.unwrap_or_else(|| "/ready".into()),
        timeout: section.duration_in(
            "timeout",
            Duration::from_secs(1),
            Duration::from_millis(10),
            Duration::from_secs(30),
        ),
        status: u16::try_from(section.number("status", 200, 200, 399)).unwrap_or(200),
        body: section.text("body"),
    }
}

fn host_and_port(url: &PublicUrl) -> Option<(String, u16)> {
    let authority = url.authority();
    let default = if url.is_https() { 443 } else { 80 };
    if authority.contains('@') {
        return None;
    }
    let bracket = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[bracket..].rfind(':') {
        None => Some((authority.to_owned(), default)),
        Some(colon) => {
            let (host, port) = authority.split_at(bracket + colon);
            Some((host.to_owned(), port[1..].parse().ok()?))
        }
    }
}
