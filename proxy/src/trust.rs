//! Whom the edge believes when it says who the client is.
//!
//! Without a trusted network in front, the client is whoever connected, and every header that says
//! otherwise is a lie. From Cloudflare `CF-Connecting-IP` is believed; from any trusted network
//! `X-Forwarded-For`, read from the right: each trusted hop vouches for the one before it, and the first
//! that is not trusted is the client.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// The client, as Cloudflare saw it.
const CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Cloudflare's name for the request.
const RAY: HeaderName = HeaderName::from_static("cf-ray");

/// The networks that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// All of them.
    pub networks: Vec<IpNet>,
    /// Those of them that are Cloudflare's.
    pub cloudflare: Vec<IpNet>,
}

// === impl Trust ===

impl Trust {
    /// Whether whoever connects from there is believed.
    pub fn includes(&self, address: IpAddr) -> bool {
        holds(&self.networks, address) || self.is_cloudflare(address)
    }

    /// Who the client is, of a request that arrived over a connection from `peer`.
    pub fn client(&self, peer: IpAddr, fields: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if self.is_cloudflare(peer)
            && let Some(address) = only(fields, &CONNECTING_IP).and_then(address)
        {
            return address;
        }
        let mut believed = peer;
        let hops = fields.get_all(FORWARDED_FOR).iter().rev();
        let mut hops = hops.flat_map(|list| list.as_bytes().rsplit(|&byte| byte == b','));
        while self.includes(believed)
            && let Some(before) = hops.next().and_then(|text| text_address(text.trim_ascii()))
        {
            believed = before;
        }
        believed
    }

    /// Cloudflare's name for a request that arrived from `peer`, if it came from there.
    pub fn ray<'f>(&self, peer: IpAddr, fields: &'f HeaderMap) -> Option<&'f str> {
        let ray = only(fields, &RAY)?.to_str().ok()?;
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let fine = ray.len() <= 64 && ray.bytes().all(fine);
        (fine && self.is_cloudflare(peer.to_canonical())).then_some(ray)
    }

    fn is_cloudflare(&self, address: IpAddr) -> bool {
        holds(&self.cloudflare, address)
    }
}

fn holds(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The value of a field that is there once.
fn only<'f>(fields: &'f HeaderMap, name: &HeaderName) -> Option<&'f HeaderValue> {
    let mut values = fields.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn address(value: &HeaderValue) -> Option<IpAddr> {
    text_address(value.as_bytes().trim_ascii())
}

/// An address, perhaps with a port.
fn text_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn trust() -> Trust {
        Trust {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            cloudflare: vec!["198.51.100.0/24".parse().unwrap()],
        }
    }

    #[track_caller]
    fn check(peer: &str, lines: &[(&'static str, &'static str)], expect: &str) {
        let client = trust().client(peer.parse().unwrap(), &fields(lines));
        assert_eq!(client, expect.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
    }

    #[test]
    fn a_stranger_is_who_connected_whatever_he_says() {
        let lies = [("cf-connecting-ip", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")];
        check("203.0.113.9", &lies, "203.0.113.9");
        let none = Trust::default();
        assert_eq!(
            none.client("10.0.0.1".parse().unwrap(), &fields(&lies)),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn cloudflare_is_believed_in_its_own_words() {
        let both = [("cf-connecting-ip", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")];
        check("198.51.100.7", &both, "192.0.2.1");
        check("::ffff:198.51.100.7", &both, "192.0.2.1");
        check("198.51.100.7", &[("cf-connecting-ip", "2001:db8::1")], "2001:db8::1");
        // Another trusted network is no Cloudflare.
        check("10.0.0.1", &both, "192.0.2.2");
        let twice = [("cf-connecting-ip", "1.1.1.1"), ("cf-connecting-ip", "192.0.2.1")];
        check("198.51.100.7", &twice, "198.51.100.7");
    }

    #[test]
    fn each_trusted_hop_vouches_for_the_one_before() {
        check("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 192.0.2.1")], "192.0.2.1");
        check("10.0.0.1", &[("x-forwarded-for", "192.0.2.1, 198.51.100.7")], "192.0.2.1");
        let two_lines =
            [("x-forwarded-for", "6.6.6.6, 192.0.2.1"), ("x-forwarded-for", "10.9.9.9")];
        check("10.0.0.1", &two_lines, "192.0.2.1");
        check("10.0.0.1", &[("x-forwarded-for", "192.0.2.1:4711")], "192.0.2.1");
        check("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:4711")], "2001:db8::1");
        check("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        // What cannot be read ends the chain.
        check("10.0.0.1", &[("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn only_cloudflare_names_its_rays() {
        let ray = fields(&[("cf-ray", "8f3a1b2c3d4e5f60-FRA")]);
        let trust = trust();
        let from = |peer: &str| trust.ray(peer.parse().unwrap(), &ray);
        assert_eq!(from("198.51.100.7"), Some("8f3a1b2c3d4e5f60-FRA"));
        assert_eq!(from("10.0.0.1"), None);
        let odd = fields(&[("cf-ray", "a\"b")]);
        assert_eq!(trust.ray("198.51.100.7".parse().unwrap(), &odd), None);
    }
}
