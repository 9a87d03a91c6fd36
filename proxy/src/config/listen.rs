//! Where clients and operators connect, as written, and whom the edge believes.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::SystemTime;

use ipnet::IpNet;

use super::reader::Section;
use crate::listener::tls::{CertificateFiles, Identity, TlsFiles};
use crate::trust::Trust;

/// One listener for clients.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Where.
    pub address: SocketAddr,
    /// Its certificates, read already; none: without TLS.
    pub tls: Option<(TlsFiles, Identity)>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether HTTP/2 is taken.
    pub http2: bool,
}

/// Cloudflare's networks, as published on the day that the file names.
const CLOUDFLARE: &str = include_str!("../../../config/cloudflare.txt");
/// The environment variable in which platforms say on which port they send clients.
const PORT: &str = "PORT";

/// Reads `listen.public`: an address, or a list of listeners.
pub(super) fn read_public(
    listen: &mut Section<'_>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> Vec<ListenerConfig> {
    const ADDRESS: &str = "an address such as \"127.0.0.1:8080\"";
    let mut listeners = Vec::new();
    if listen.is_text("public") {
        if let Some(address) = listen.parsed("public", ADDRESS, |text| text.parse().ok()) {
            let (tls, proxy_protocol, http2) = (None, false, false);
            listeners.push(ListenerConfig { address, tls, proxy_protocol, http2 });
        }
    } else if !listen.has("public") {
        listen.fault("public", "is missing");
    } else {
        for mut one in listen.list("public") {
            if !one.has("address") {
                one.fault("address", "is missing");
            }
            let address = one.parsed("address", ADDRESS, |text| text.parse().ok());
            let has_tls = one.has("tls");
            let http2 = one.flag("http2", has_tls);
            let tls = has_tls.then(|| read_tls(&mut one.section("tls"), folder, http2, warnings));
            let proxy_protocol = one.flag("proxy_protocol", false);
            if let (Some(address), None | Some(Some(_))) = (address, &tls) {
                let tls = tls.flatten();
                listeners.push(ListenerConfig { address, tls, proxy_protocol, http2 });
            }
        }
    }
    take_port(listen, &mut listeners);
    listeners
}

/// A platform that sets `PORT` sends clients there, from outside: the first listener follows.
fn take_port(listen: &Section<'_>, listeners: &mut [ListenerConfig]) {
    let (Some(text), Some(first)) = (listen.variable(PORT), listeners.first_mut()) else { return };
    match text.parse() {
        Ok(port) => first.address = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port),
        Err(_) => listen.fault("public", &format!("{PORT} is {text:?}, which is no port")),
    }
}

fn read_tls(
    tls: &mut Section<'_>,
    folder: &Path,
    http2: bool,
    warnings: &mut Vec<String>,
) -> Option<(TlsFiles, Identity)> {
    let mut certificates = Vec::new();
    for mut one in tls.list("certificates") {
        if let (Some(chain), Some(key)) = (one.required("chain"), one.required("key")) {
            let (chain, key) = (folder.join(chain), folder.join(key));
            certificates.push(CertificateFiles { chain, key });
        }
    }
    if certificates.is_empty() {
        tls.fault("certificates", "name at least one: { chain = \"FILE\", key = \"FILE\" }");
        return None;
    }
    let client_authorities = tls.text("client_authorities").map(|name| folder.join(name));
    let files = TlsFiles { certificates, client_authorities, http2 };
    match files.load() {
        Ok(identity) => {
            for (certificate, files) in identity.certificates.iter().zip(&files.certificates) {
                let place = files.chain.display();
                let found = certificate.warnings(SystemTime::now());
                warnings.extend(found.into_iter().map(|warning| format!("{place}: {warning}")));
            }
            Some((files, identity))
        }
        Err(faults) => {
            for fault in faults {
                tls.fault("certificates", &fault);
            }
            None
        }
    }
}

/// Reads `[trust]`.
pub(super) fn read_trust(section: &mut Section<'_>, folder: &Path) -> Trust {
    let published = match section.text("cloudflare").map(|name| folder.join(name)) {
        None => CLOUDFLARE.to_owned(),
        Some(path) => std::fs::read_to_string(&path).unwrap_or_else(|error| {
            section.fault("cloudflare", &format!("{}: {error}", path.display()));
            String::new()
        }),
    };
    let mut trust = Trust::default();
    for name in section.texts("networks").unwrap_or_default() {
        let networks: &[&str] = match name.as_str() {
            "cloudflare" => {
                match networks_in(&published) {
                    Ok(networks) if networks.is_empty() => {
                        section.fault("cloudflare", "there is no network in it")
                    }
                    Ok(networks) => trust.cloudflare = networks,
                    Err(line) => section.fault("cloudflare", &format!("{line:?} is no network")),
                }
                continue;
            }
            "private" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
            // Its routers reach dynos from private addresses of this range alone.
            "heroku" => &["10.0.0.0/8"],
            "loopback" => &["127.0.0.0/8", "::1/128"],
            other => &[other],
        };
        for text in networks {
            match network(text) {
                Some(network) => trust.networks.push(network),
                None => section.fault(
                    "networks",
                    &format!(
                        "{text:?} is neither a network such as \"192.0.2.0/24\" nor \
                         \"cloudflare\", \"heroku\", \"private\" or \"loopback\""
                    ),
                ),
            }
        }
    }
    trust
}

/// The networks in a list, one a line; `#` begins a comment. The error is the line at fault.
pub fn networks_in(list: &str) -> Result<Vec<IpNet>, String> {
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty());
    lines.map(|line| network(line).ok_or_else(|| line.to_owned())).collect()
}

/// A network, or one address.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().map(|address: IpAddr| address.into()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_networks_of_cloudflare_can_be_read() {
        let networks = networks_in(CLOUDFLARE).unwrap();
        assert!(networks.len() >= 20, "{networks:?}");
        let trust = Trust { networks: Vec::new(), cloudflare: networks };
        assert!(trust.includes("104.16.0.1".parse().unwrap()));
        assert!(trust.includes("2606:4700::1".parse().unwrap()));
        assert!(!trust.includes("8.8.8.8".parse().unwrap()));
        let date = CLOUDFLARE.lines().next().unwrap();
        assert!(date.contains("20"), "the first line names the day: {date}");
    }
}
