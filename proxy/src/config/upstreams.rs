//! Origin and monitor as written: where they are, how they are called, how they are probed.

use std::time::Duration;

use holdline_policy::Upstream;
use holdline_twilio::PublicUrl;

use super::reader::Section;

/// One upstream.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// Where it is reached: host name or address.
    pub host: String,
    /// And port.
    pub port: u16,
    /// Whether by TLS, verified against the system's roots and the host name.
    pub tls: bool,
    /// The URL under which it checks signatures, and whose host it is sent.
    pub public_url: PublicUrl,
    /// How many attempts may be in flight.
    pub max_in_flight: u32,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How it is probed.
    pub probe: ProbeConfig,
}

/// How an upstream is probed.
#[derive(Debug, Clone)]
pub struct ProbeConfig {
    /// Path asked for by GET.
    pub path: String,
    /// The time for everything, connecting included.
    pub timeout: Duration,
    /// The status that is good.
    pub status: u16,
    /// Text that the body must hold, if any.
    pub body: Option<String>,
}

/// Reads `[upstreams.origin]` and `[upstreams.monitor]`.
pub(super) fn read(
    section: &mut Section<'_>,
    public_url: Option<&PublicUrl>,
) -> Option<[UpstreamConfig; 2]> {
    let [origin, monitor] = Upstream::ALL.map(|upstream| {
        if !section.has(upstream.name()) {
            section
                .fault(upstream.name(), "is missing: say where it is, as url = \"https://host\"");
            return None;
        }
        read_one(&mut section.section(upstream.name()), public_url)
    });
    Some([origin?, monitor?])
}

fn read_one(section: &mut Section<'_>, public_url: Option<&PublicUrl>) -> Option<UpstreamConfig> {
    if !section.has("url") {
        section.fault("url", "is missing");
    }
    let url = section.parsed("url", "of the form https://host or http://host:port", |text| {
        PublicUrl::parse(text).ok().and_then(|url| Some((host_and_port(&url)?, url)))
    });
    let own = section
        .parsed("public_url", "of the form https://host", |text| PublicUrl::parse(text).ok());
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let max_in_flight = section.number("max_in_flight", 256, 1, 100_000);
    let connect_timeout = section.duration_in("connect_timeout", s(1), ms(10), s(5));
    let idle_timeout = section.duration_in("idle_timeout", s(30), ms(0), s(600));
    let probe = read_probe(&mut section.section("probe"));
    let ((host, port), url) = url?;
    Some(UpstreamConfig {
        host,
        port,
        tls: url.is_https(),
        public_url: own.or_else(|| public_url.cloned())?,
        max_in_flight,
        connect_timeout,
        idle_timeout,
        probe,
    })
}

fn read_probe(section: &mut Section<'_>) -> ProbeConfig {
    let path = section.parsed("path", "a path that begins with /", |text| {
        let fine = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
        fine.then(|| text.to_owned())
    });
    ProbeConfig {
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
