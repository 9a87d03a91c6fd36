//! The header by which a balancer in front says who connected to it: PROXY protocol, versions 1 and 2.
//!
//! It is read only from trusted networks, and on a listener that expects it nothing else is let in, so
//! that nobody can say for himself where he comes from.

use std::net::SocketAddr;

use ppp::{v1, v2};

/// What every header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The part of version 2 before addresses: signature, command, family, and the length of the rest.
const FIXED: usize = 16;
/// The longest header of version 1, CR LF included.
const LONGEST_V1: usize = 107;
/// The longest rest of version 2 that is taken: balancers add names and certificates' subjects.
const LONGEST_V2: usize = 4096;

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// How many bytes it takes.
    pub length: usize,
    /// Who connected; none where the balancer speaks for itself, as in its health checks.
    pub source: Option<SocketAddr>,
}

/// What arrived is no such header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what arrived is no PROXY header")]
pub struct NoHeader;

/// Reads the header at the beginning of `bytes`; `None` while it is not whole.
pub fn read(bytes: &[u8]) -> Result<Option<Said>, NoHeader> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        read_v2(bytes)
    } else if begins(b"PROXY ") {
        read_v1(bytes)
    } else {
        Err(NoHeader)
    }
}

fn read_v1(bytes: &[u8]) -> Result<Option<Said>, NoHeader> {
    let within = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if bytes.len() < LONGEST_V1 { Ok(None) } else { Err(NoHeader) };
    };
    let header = v1::Header::try_from(&bytes[..=end]).map_err(|_| NoHeader)?;
    let source = match header.addresses {
        v1::Addresses::Tcp4(a) => Some((a.source_address, a.source_port).into()),
        v1::Addresses::Tcp6(a) => Some((a.source_address, a.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    Ok(Some(Said { length: end + 1, source }))
}

fn read_v2(bytes: &[u8]) -> Result<Option<Said>, NoHeader> {
    let Some(length) = bytes.get(FIXED - 2..FIXED) else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if rest > LONGEST_V2 {
        return Err(NoHeader);
    }
    let Some(whole) = bytes.get(..FIXED + rest) else { return Ok(None) };
    let header = v2::Header::try_from(whole).map_err(|_| NoHeader)?;
    let source = match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (_, v2::Addresses::IPv4(a)) => Some((a.source_address, a.source_port).into()),
        (_, v2::Addresses::IPv6(a)) => Some((a.source_address, a.source_port).into()),
        (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    };
    Ok(Some(Said { length: FIXED + rest, source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one header whole and byte by byte, with a request behind it.
    #[track_caller]
    fn check(header: &[u8], expect: Result<Option<&str>, NoHeader>) {
        let bytes = [header, b"POST / HTTP/1.1\r\n"].concat();
        let piecewise = (0..=bytes.len()).find_map(|end| match read(&bytes[..end]) {
            Ok(None) => None,
            other => Some(other),
        });
        assert_eq!(piecewise, Some(read(&bytes)), "{}", header.escape_ascii());
        let said = expect.map(|source| {
            let source = source.map(|text| text.parse().unwrap());
            Some(Said { length: header.len(), source })
        });
        assert_eq!(read(&bytes), said, "{}", header.escape_ascii());
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_say_who_connected() {
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n", Ok(Some("192.0.2.7:4711")));
        check(b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", Ok(Some("[2001:db8::7]:4711")));
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", Ok(None));
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 18, 103, 1, 187];
        check(&v2(0x21, 0x11, &four), Ok(Some("192.0.2.7:4711")));
        let with_more = [&four[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        check(&v2(0x21, 0x11, &with_more), Ok(Some("192.0.2.7:4711")));
        check(&v2(0x20, 0x00, &[]), Ok(None));
        let six = [&[0x20; 16][..], &[1; 16], &[18, 103, 1, 187]].concat();
        check(&v2(0x21, 0x21, &six), Ok(Some("[2020:2020:2020:2020:2020:2020:2020:2020]:4711")));
    }

    #[test]
    fn anything_else_is_no_header() {
        for header in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 99999\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 4711 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443 more\r\n",
            b"proxy TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
            &[b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat(),
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 4]),
            &v2(0x21, 0x11, &[0; LONGEST_V2 + 1]),
        ] {
            check(header, Err(NoHeader));
        }
    }
}
