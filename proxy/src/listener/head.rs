//! The head of an HTTP/1 request, checked to the byte before anything parses it.
//!
//! Proxies are attacked where two of them read the same bytes differently. So what the standard leaves
//! to the reader's kindness (a bare line feed, a folded field, a length said twice) is refused here, and
//! what is let through can be read in one way only (RFC 9112 sections 2 to 7). The check runs over
//! each line once, as it arrives, and keeps nothing but numbers.

use memchr::memchr;

/// Why a head cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// A bare line feed.
    #[error("a line of the header does not end with CR LF")]
    LineEnd,
    /// No method, target and version, each separated by one space.
    #[error("the request line is not a method, a target and a version")]
    RequestLine,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    /// Neither a path nor an absolute URL, or with bytes that no URL has.
    #[error("the target is no path, or holds what no URL can hold")]
    Target,
    /// A field that goes on in the next line.
    #[error("a header field is folded over two lines")]
    Folded,
    /// A field's name with spaces, empty, or without a colon.
    #[error("the name of a header field is not a name")]
    FieldName,
    /// A field's value with control characters.
    #[error("the value of a header field holds control characters")]
    FieldValue,
    /// No `Host`, several, or one that is no host.
    #[error("there must be one Host, and it must name a host")]
    Host,
    /// A target that names another host than `Host` does.
    #[error("the target names another host than Host does")]
    HostDisagrees,
    /// A length that is not one number, or several.
    #[error("Content-Length must be one number, said once")]
    Length,
    /// A length beside a transfer coding.
    #[error("Content-Length and Transfer-Encoding must not both be there")]
    LengthAndCoding,
    /// A transfer coding that is not `chunked` said once, or in HTTP/1.0.
    #[error("the only Transfer-Encoding there may be is chunked, once, in HTTP/1.1")]
    Coding,
    /// Chunks without a size, or that do not end where they say.
    #[error("the chunks of the body are malformed")]
    Chunks,
}

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// All of it, in bytes.
    pub size: usize,
    /// Fields.
    pub fields: usize,
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is malformed.
    Malformed(Malformed),
    /// It is larger than allowed.
    TooLarge,
}

/// A head that is whole and can be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Where it ends: the length of the head, its empty line included.
    pub end: usize,
    /// Where scheme and host stand in an absolute target; without them it is a path.
    pub authority: Option<(usize, usize)>,
    /// Whether the body comes in chunks.
    pub is_chunked: bool,
}

/// Reads a head as it arrives.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where the first line that is not read yet begins.
    at: usize,
    /// How far that line was looked through.
    seen: usize,
    fields: usize,
    begun: bool,
    old: bool,
    authority: Option<(usize, usize)>,
    host: Option<(usize, usize)>,
    hosts: usize,
    lengths: usize,
    codings: usize,
}

// === impl Malformed ===

impl Malformed {
    /// All of them.
    pub const ALL: [Malformed; 13] = [
        Malformed::LineEnd,
        Malformed::RequestLine,
        Malformed::Version,
        Malformed::Target,
        Malformed::Folded,
        Malformed::FieldName,
        Malformed::FieldValue,
        Malformed::Host,
        Malformed::HostDisagrees,
        Malformed::Length,
        Malformed::LengthAndCoding,
        Malformed::Coding,
        Malformed::Chunks,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::LineEnd => "bad_line_end",
            Malformed::RequestLine => "bad_request_line",
            Malformed::Version => "bad_version",
            Malformed::Target => "bad_target",
            Malformed::Folded => "folded_field",
            Malformed::FieldName => "bad_field_name",
            Malformed::FieldValue => "bad_field_value",
            Malformed::Host => "bad_host",
            Malformed::HostDisagrees => "host_disagrees",
            Malformed::Length => "bad_length",
            Malformed::LengthAndCoding => "length_and_coding",
            Malformed::Coding => "bad_coding",
            Malformed::Chunks => "bad_chunks",
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Reads on in `bytes`, which begins with all that was given before. `None` while the head is not
    /// whole.
    pub fn read(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<Whole>, Wrong> {
        loop {
            let unseen = bytes.get(self.seen..).unwrap_or_default();
            let Some(found) = memchr(b'\n', unseen) else {
                self.seen = bytes.len();
                let too_large = bytes.len() > limits.size;
                return if too_large { Err(Wrong::TooLarge) } else { Ok(None) };
            };
            let end = self.seen + found;
            if end >= limits.size {
                return Err(Wrong::TooLarge);
            }
            let line = bytes[self.at..end].strip_suffix(b"\r").ok_or(Malformed::LineEnd)?;
            let start = std::mem::replace(&mut self.at, end + 1);
            self.seen = self.at;
            if !self.begun {
                self.begun = true;
                self.request_line(line, start)?;
            } else if line.is_empty() {
                self.whole(bytes)?;
                return Ok(Some(Whole {
                    end: self.at,
                    authority: self.authority,
                    is_chunked: self.codings > 0,
                }));
            } else {
                self.fields += 1;
                if self.fields > limits.fields {
                    return Err(Wrong::TooLarge);
                }
                self.field(line, start)?;
            }
        }
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Malformed> {
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Malformed::RequestLine);
        };
        if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
            return Err(Malformed::RequestLine);
        }
        self.old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Malformed::Version),
        };
        if !target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Malformed::Target);
        }
        if target.first() == Some(&b'/') {
            return Ok(());
        }
        let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
            target.get(..scheme.len()).is_some_and(|text| text.eq_ignore_ascii_case(scheme))
        });
        let scheme = scheme.ok_or(Malformed::Target)?.len();
        let path = memchr(b'/', &target[scheme..]).ok_or(Malformed::Target)?;
        let at = start + method.len() + 1;
        self.authority = Some((at + scheme, at + scheme + path));
        Ok(())
    }

    fn field(&mut self, line: &[u8], start: usize) -> Result<(), Malformed> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Malformed::Folded);
        }
        let colon = memchr(b':', line).ok_or(Malformed::FieldName)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(Malformed::FieldName);
        }
        if !value.iter().all(|&byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t') {
            return Err(Malformed::FieldValue);
        }
        // Fields that say where the request goes and where its body ends have one length each.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                let host = value.trim_ascii();
                let at = start + colon + 1 + (value.len() - value.trim_ascii_start().len());
                self.host = Some((at, at + host.len()));
                if !is_host(host) {
                    return Err(Malformed::Host);
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.lengths += 1;
                let digits = value.trim_ascii();
                let is_number = (1..=18).contains(&digits.len());
                if !is_number || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(Malformed::Length);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.codings += 1;
                if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed::Coding);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What only the whole head can tell.
    fn whole(&self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.hosts > 1 || (self.hosts == 0 && !self.old) {
            return Err(Malformed::Host);
        }
        if self.lengths > 0 && self.codings > 0 {
            return Err(Malformed::LengthAndCoding);
        }
        if self.lengths > 1 {
            return Err(Malformed::Length);
        }
        if self.codings > 1 || (self.codings > 0 && self.old) {
            return Err(Malformed::Coding);
        }
        let text = |(from, to): (usize, usize)| &bytes[from..to];
        match (self.authority.map(text), self.host.map(text)) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                Err(Malformed::HostDisagrees)
            }
            (Some(_), None) => Err(Malformed::Host),
            _ => Ok(()),
        }
    }
}

impl From<Malformed> for Wrong {
    fn from(malformed: Malformed) -> Wrong {
        Wrong::Malformed(malformed)
    }
}

/// Whether a byte may stand in a method or a field's name (RFC 9110 section 5.6.2).
const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.')
            || matches!(b, b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Whether a `Host` names a host, perhaps with a port: what resolvers and URLs know, no more.
fn is_host(host: &[u8]) -> bool {
    let fine = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    !host.is_empty() && host.len() <= 255 && host.iter().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 400, fields: 8 };

    fn read(head: &str) -> Result<Option<Whole>, Wrong> {
        Reader::default().read(head.as_bytes(), LIMITS)
    }

    /// Checks one head, whole and byte by byte: how it arrives must not matter.
    #[track_caller]
    fn check(head: &str, expect: Result<(), Malformed>) {
        let at_once = read(head);
        let mut reader = Reader::default();
        let piecewise = (1..=head.len())
            .find_map(|end| match reader.read(&head.as_bytes()[..end], LIMITS) {
                Ok(None) => None,
                other => Some(other),
            })
            .unwrap_or(Ok(None));
        assert_eq!(at_once, piecewise, "{head:?}");
        match expect {
            Ok(()) => assert_eq!(at_once.unwrap().unwrap().end, head.len(), "{head:?}"),
            Err(malformed) => assert_eq!(at_once, Err(Wrong::Malformed(malformed)), "{head:?}"),
        }
    }

    #[test]
    fn what_can_be_read_in_one_way_is_let_through() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST /x?y=%20&z=[1] HTTP/1.1\r\nhost:a.example:8080\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \t caf\u{e9} \t\r\nEmpty:\r\n\r\n",
            "GET http://a/x HTTP/1.1\r\nHost: A\r\n\r\n",
        ] {
            check(head, Ok(()));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let field = |field: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
        for (head, expect) in [
            ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), Malformed::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), Malformed::LineEnd),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Malformed::RequestLine),
            (line("GET  / HTTP/1.1"), Malformed::RequestLine),
            (line("GET / HTTP/1.1 "), Malformed::RequestLine),
            (line("GET\t/ HTTP/1.1"), Malformed::RequestLine),
            (line("GET /"), Malformed::RequestLine),
            (line(" GET / HTTP/1.1"), Malformed::RequestLine),
            (line("G\u{e9}T / HTTP/1.1"), Malformed::RequestLine),
            (line("GET / HTTP/1.2"), Malformed::Version),
            (line("GET / http/1.1"), Malformed::Version),
            (line("GET / HTTP/1.1\r"), Malformed::Version),
            (line("GET x HTTP/1.1"), Malformed::Target),
            (line("GET * HTTP/1.1"), Malformed::Target),
            (line("GET /\u{e9} HTTP/1.1"), Malformed::Target),
            (line("GET /\0 HTTP/1.1"), Malformed::Target),
            (line("GET /x#y HTTP/1.1"), Malformed::Target),
            (line("GET ftp://a/ HTTP/1.1"), Malformed::Target),
            (line("GET http://a HTTP/1.1"), Malformed::Target),
            (line("GET http://b/ HTTP/1.1"), Malformed::HostDisagrees),
            (line("GET http://u@a/ HTTP/1.1"), Malformed::HostDisagrees),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), Malformed::Folded),
            (field("X: 1\r\n\t2"), Malformed::Folded),
            (field("X : 1"), Malformed::FieldName),
            (field(": 1"), Malformed::FieldName),
            (field("X"), Malformed::FieldName),
            (field("X\u{e9}: 1"), Malformed::FieldName),
            (field("X\0: 1"), Malformed::FieldName),
            (field("X: 1\r2"), Malformed::FieldValue),
            (field("X: \0"), Malformed::FieldValue),
            (field("X: \u{7f}"), Malformed::FieldValue),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), Malformed::Host),
            (field("Host: a"), Malformed::Host),
            (line("GET / HTTP/1.1\r\nHost: b"), Malformed::Host),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), Malformed::Host),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(), Malformed::Host),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), Malformed::Host),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".to_owned(), Malformed::Host),
            ("GET http://a/ HTTP/1.0\r\n\r\n".to_owned(), Malformed::Host),
            (field("Content-Length: +3"), Malformed::Length),
            (field("Content-Length: -3"), Malformed::Length),
            (field("Content-Length: 0x3"), Malformed::Length),
            (field("Content-Length: 3, 3"), Malformed::Length),
            (field("Content-Length: 3 3"), Malformed::Length),
            (field("Content-Length:"), Malformed::Length),
            (field("Content-Length: 1234567890123456789"), Malformed::Length),
            (field("Content-Length: 3\r\nContent-Length: 3"), Malformed::Length),
            (field("Content-Length: 3\r\nTransfer-Encoding: chunked"), Malformed::LengthAndCoding),
            (field("Transfer-Encoding: chunked\r\nContent-Length: 3"), Malformed::LengthAndCoding),
            (field("Transfer-Encoding: gzip, chunked"), Malformed::Coding),
            (field("Transfer-Encoding: chunked, identity"), Malformed::Coding),
            (field("Transfer-Encoding: identity"), Malformed::Coding),
            (field("Transfer-Encoding: xchunked"), Malformed::Coding),
            (field("Transfer-Encoding: \u{b}chunked"), Malformed::FieldValue),
            (field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Malformed::Coding),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Malformed::Coding),
        ] {
            check(&head, Err(expect));
        }
    }

    #[test]
    fn a_head_is_bounded_in_size_and_fields() {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(400));
        assert_eq!(read(&long), Err(Wrong::TooLarge));
        assert_eq!(read(&long[..300]), Ok(None));
        assert_eq!(read(&"x".repeat(401)), Err(Wrong::TooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(8));
        assert_eq!(read(&many), Err(Wrong::TooLarge));
    }

    #[test]
    fn where_the_host_stands_in_an_absolute_target_is_told() {
        let head = "GET https://a:80/x HTTP/1.1\r\nHost: a:80\r\n\r\nbody";
        let whole = read(head).unwrap().unwrap();
        assert_eq!(&head[whole.end..], "body");
        let (from, to) = whole.authority.unwrap();
        assert_eq!(&head[from..to], "a:80");
    }
}
