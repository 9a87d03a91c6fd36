//! `holdline check --refresh-cloudflare`: Cloudflare's networks as published today, in a file that the
//! configuration can name.
//!
//! Whoever is in that list is believed when he says who the client is; so a list that is no list, or that
//! would have half the internet in it, is refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::networks_in;

/// Where Cloudflare publishes them
/// (<https://developers.cloudflare.com/api/resources/ips/methods/list/>).
pub const PUBLISHED: &str = "https://api.cloudflare.com/client/v4/ips";
/// How long fetching may take, and how much may come.
const PATIENCE: Duration = Duration::from_secs(20);
const LARGEST: usize = 1024 * 1024;
/// A list with fewer networks is none of Cloudflare's, and neither is one with a network so wide.
const FEWEST: usize = 8;
const WIDEST: [u8; 2] = [10, 24];

/// What Cloudflare says.
#[derive(Debug, Deserialize)]
struct Published {
    result: Lists,
}

#[derive(Debug, Deserialize)]
struct Lists {
    ipv4_cidrs: Vec<String>,
    ipv6_cidrs: Vec<String>,
}

/// Fetches the networks from a URL, or reads them from a file, and writes them to `file`. Gives back what
/// has changed, for people.
pub async fn refresh(file: &Path, from: &str) -> anyhow::Result<String> {
    let text = if from.starts_with("https://") {
        let fetched = timeout(PATIENCE, fetch(from)).await;
        fetched.with_context(|| format!("{from} has not answered in {PATIENCE:?}"))?
    } else {
        std::fs::read_to_string(from).map_err(Into::into)
    };
    let text = text.with_context(|| format!("reading {from}"))?;
    let networks = read(&text).with_context(|| format!("{from} is no list of networks"))?;
    let before = std::fs::read_to_string(file).unwrap_or_default();
    let before: BTreeSet<IpNet> = networks_in(&before).unwrap_or_default().into_iter().collect();
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let mut list = format!("# Cloudflare's networks, from {from} at {now}.\n");
    networks.iter().for_each(|network| list.push_str(&format!("{network}\n")));
    // Put in place as a whole: an edge may be reading it.
    let beside = file.with_extension("new");
    let write = || {
        std::fs::write(&beside, list)?;
        std::fs::File::open(&beside)?.sync_all()
    };
    write().with_context(|| format!("writing {}", beside.display()))?;
    std::fs::rename(&beside, file).with_context(|| format!("writing {}", file.display()))?;
    let shown = |networks: BTreeSet<&IpNet>| match networks.is_empty() {
        true => "none".to_owned(),
        false => networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    Ok(format!(
        "{}: {} networks; new: {}; gone: {}",
        file.display(),
        networks.len(),
        shown(networks.difference(&before).collect()),
        shown(before.difference(&networks).collect()),
    ))
}

/// The networks in what Cloudflare says, or in a list with one a line.
fn read(text: &str) -> anyhow::Result<BTreeSet<IpNet>> {
    let list = match serde_json::from_str::<Published>(text) {
        Ok(Published { result }) => [result.ipv4_cidrs, result.ipv6_cidrs].concat().join("\n"),
        Err(_) => text.to_owned(),
    };
    let networks = networks_in(&list).map_err(|line| {
        let line: String = line.chars().take(60).collect();
        anyhow::anyhow!("{line:?} is no network")
    })?;
    ensure!(networks.len() >= FEWEST, "{} networks are too few", networks.len());
    for network in &networks {
        let widest = WIDEST[usize::from(network.addr().is_ipv6())];
        ensure!(network.prefix_len() >= widest, "{network} is too wide to be Cloudflare's");
    }
    Ok(networks.into_iter().collect())
}

async fn fetch(url: &str) -> anyhow::Result<String> {
    let url: Uri = url.parse()?;
    let host = url.host().context("it names no host")?.to_owned();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs()?);
    let config =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
    let stream = TcpStream::connect((host.as_str(), url.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.clone())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("holdline/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())?;
    let answer = send.send_request(request).await?;
    if answer.status() != 200 {
        bail!("it answers {}", answer.status());
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_cannot_be_cloudflares_is_refused() {
        let shipped = include_str!("../../../config/cloudflare.txt");
        assert!(read(shipped).unwrap().len() >= 20);
        for (list, why) in [
            ("<html>blocked</html>", "is no network"),
            ("192.0.2.0/24", "too few"),
            (&format!("{shipped}\n0.0.0.0/0"), "too wide"),
            (&format!("{shipped}\n2000::/3"), "too wide"),
        ] {
            let said = format!("{:#}", read(list).unwrap_err());
            assert!(said.contains(why), "{said}");
        }
    }

    #[tokio::test]
    async fn what_is_new_and_what_is_gone_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (file, from) = (folder.path().join("cloudflare.txt"), folder.path().join("ips.json"));
        let v4: Vec<String> = (0..8).map(|n| format!("192.0.{n}.0/24")).collect();
        let mut published = serde_json::json!({
            "success": true,
            "result": { "ipv4_cidrs": v4, "ipv6_cidrs": ["2001:db8::/32"] },
        });
        let say = |published: &serde_json::Value| {
            std::fs::write(&from, published.to_string()).unwrap();
        };
        say(&published);
        let from = from.display().to_string();
        let said = refresh(&file, &from).await.unwrap();
        assert!(said.contains("9 networks; new: 192.0.0.0/24, ") && said.ends_with("gone: none"));
        published["result"]["ipv6_cidrs"] = serde_json::json!(["2001:db9::/32"]);
        std::fs::write(&from, published.to_string()).unwrap();
        let said = refresh(&file, &from).await.unwrap();
        assert!(said.ends_with("new: 2001:db9::/32; gone: 2001:db8::/32"), "{said}");
        let written = std::fs::read_to_string(&file).unwrap();
        assert_eq!(networks_in(&written).unwrap().len(), 9);
    }
}
