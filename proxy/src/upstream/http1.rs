//! HTTP/1 as spoken to an upstream: one request in one write, one answer read whole and bounded.
//!
//! An attempt needs exactly to know whether a byte was written and whether an answer was whole, and
//! nothing may leave for Twilio before it was judged; so the message is framed here, on a connection
//! of the framework's. Everything follows RFC 9112. Where a server breaks its rules in a way that
//! leaves the end of the answer in doubt, the answer is broken; where it leaves only the next one in
//! doubt, the connection is not kept.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The largest header block of an answer.
const LARGEST_HEAD: usize = 32 * 1024;
/// The most fields of an answer.
const MOST_FIELDS: usize = 100;
/// The longest line between two chunks, and the longest trailer section.
const LARGEST_LINE: usize = 8 * 1024;
/// Interim answers (1xx) that are read before the final one.
const MOST_INTERIM: usize = 8;
/// Room made for what is read at once; most answers fit.
const READ_SIZE: usize = 4096;

/// On a 503: the upstream did not run the request.
pub const NOT_RUN: HeaderName = HeaderName::from_static("holdline-not-run");

/// A request head under construction.
#[derive(Debug)]
pub struct RequestHead(Vec<u8>);

/// What an upstream answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Whether it says that it did not run the request.
    pub not_run: bool,
    /// What Cloudflare, in front of it, has to do with the answer.
    pub cloudflare: Cloudflare,
    /// Its cookies.
    pub cookies: Vec<HeaderValue>,
    /// How its body is coded; none if it stands as it is.
    pub content_coding: Option<HeaderValue>,
    /// What its body is; none if that is not said, or is XML in UTF-8.
    pub content_type: Option<HeaderValue>,
    /// Where it says that the answer is.
    pub location: Option<HeaderValue>,
    /// Its body, cut off at the limit it was read with.
    pub body: Bytes,
    /// Whether the connection can carry another request: the body was read whole, nothing came after
    /// it, and both ends keep the connection.
    pub keeps: bool,
}

/// What Cloudflare has to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloudflare {
    /// Nothing.
    No,
    /// It passed through there.
    Passed,
    /// It is a challenge instead of an answer: the request was not passed on.
    Challenged,
}

/// Why no answer could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The connection ended or failed before the head of an answer was whole.
    #[error("the connection ended without an answer")]
    Unanswered,
    /// The connection ended or failed in the middle of an answer's body.
    #[error("the connection ended in the middle of the answer")]
    Cut,
    /// The answer is no HTTP that could be understood, or larger than any that is read.
    #[error("the answer is not HTTP")]
    NotHttp,
}

/// Where the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// The head of a final answer, with what of it matters here.
struct Head {
    reply: Reply,
    framing: Framing,
}

// === impl Broken ===

impl Broken {
    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Broken::Unanswered => "unanswered",
            Broken::Cut => "cut",
            Broken::NotHttp => "not_http",
        }
    }
}

// === impl RequestHead ===

impl RequestHead {
    /// A request line, whose target has a prefix or an empty one, and its `Host`. All arguments must be free of control characters; the types
    /// they are kept in elsewhere see to it.
    pub fn new(method: &str, prefix: &str, target: &str, host: &str) -> RequestHead {
        let mut head = Vec::with_capacity(2048);
        for part in [method, " ", prefix, target, " HTTP/1.1\r\nhost: ", host, "\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        RequestHead(head)
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: impl AsRef<[u8]>) {
        push_field(&mut self.0, name, value.as_ref());
    }

    /// Adds a field that holds a number.
    pub fn number(&mut self, name: &str, value: usize) {
        // Writing to memory does not fail.
        let _ = write!(self.0, "{name}: {value}\r\n");
    }

    /// Adds fields written by [`push_field`] before.
    pub fn fields(&mut self, lines: &[u8]) {
        self.0.extend_from_slice(lines);
    }

    /// The request as it is sent.
    pub fn with_body(mut self, body: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0.extend_from_slice(body);
        self.0
    }
}

/// Writes one field as it stands in a header block.
pub fn push_field(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        block.extend_from_slice(part);
    }
}

/// Sends a whole request and reads the whole answer, of whose body at most `limit` bytes are kept.
/// `sent` is set once a byte has been written.
pub async fn converse<S>(
    stream: &mut S,
    request: &[u8],
    is_head: bool,
    limit: usize,
    sent: &AtomicBool,
) -> Result<Reply, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    // A server may answer before it has read everything and close; what it said is read all the same.
    let whole_sent = write(stream, request, sent).await.is_ok();
    if !whole_sent && !sent.load(Ordering::Relaxed) {
        return Err(Broken::Unanswered);
    }
    let mut buffer = BytesMut::with_capacity(READ_SIZE);
    let Head { mut reply, framing } = read_head(stream, &mut buffer, is_head).await?;
    let whole = match framing {
        Framing::Length(length) => {
            let wanted = length.min(limit);
            while buffer.len() < wanted {
                if !fill(stream, &mut buffer).await? {
                    return Err(Broken::Cut);
                }
            }
            reply.body = buffer.split_to(wanted).freeze();
            wanted == length
        }
        Framing::Chunked => {
            let (body, whole) = read_chunks(stream, &mut buffer, limit).await?;
            reply.body = body;
            whole
        }
        Framing::UntilClose => {
            while buffer.len() < limit && fill(stream, &mut buffer).await? {}
            buffer.truncate(limit);
            reply.body = buffer.split().freeze();
            false
        }
    };
    reply.keeps &= whole && whole_sent && buffer.is_empty();
    Ok(reply)
}

async fn write<S>(stream: &mut S, mut bytes: &[u8], sent: &AtomicBool) -> std::io::Result<()>
where
    S: AsyncWrite + Unpin + ?Sized,
{
    while !bytes.is_empty() {
        let written = stream.write(bytes).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        sent.store(true, Ordering::Relaxed);
        bytes = &bytes[written..];
    }
    stream.flush().await
}

async fn read_head<S>(stream: &mut S, buffer: &mut BytesMut, is_head: bool) -> Result<Head, Broken>
where
    S: AsyncRead + Unpin + ?Sized,
{
    let mut interim = 0;
    let mut looked = 0;
    loop {
        // A head that drips in is looked at once a line, not once a byte.
        if buffer[looked..].contains(&b'\n') {
            match parse_head(buffer, is_head)? {
                Some((length, None)) => {
                    interim += 1;
                    if interim > MOST_INTERIM {
                        return Err(Broken::NotHttp);
                    }
                    let _ = buffer.split_to(length);
                    looked = 0;
                    continue;
                }
                Some((length, Some(head))) => {
                    let _ = buffer.split_to(length);
                    return Ok(head);
                }
                None => {}
            }
        }
        looked = buffer.len();
        if buffer.len() > LARGEST_HEAD {
            return Err(Broken::NotHttp);
        }
        match fill(stream, buffer).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(Broken::Unanswered),
        }
    }
}

/// Reads a head if it is complete: its length, and its content unless it is an interim one.
fn parse_head(bytes: &[u8], is_head: bool) -> Result<Option<(usize, Option<Head>)>, Broken> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, bytes, &mut fields)
        .map_err(|_| Broken::NotHttp)?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let status = response.code.unwrap_or_default();
    match status {
        // Nothing was offered that could be switched to.
        101 => return Err(Broken::NotHttp),
        100..200 => return Ok(Some((length, None))),
        _ => {}
    }
    let mut head = Head {
        reply: Reply {
            status,
            not_run: false,
            cloudflare: Cloudflare::No,
            cookies: Vec::new(),
            content_coding: None,
            content_type: None,
            location: None,
            body: Bytes::new(),
            keeps: false,
        },
        framing: Framing::UntilClose,
    };
    let is_1_1 = response.version == Some(1);
    let (mut declared, mut coded) = (None, false);
    let (mut closes, mut stays) = (false, is_1_1);
    for field in response.headers.iter() {
        let named = |name: &str| field.name.eq_ignore_ascii_case(name);
        if named("content-length") {
            let length = parse_length(field.value)?;
            if declared.is_some_and(|before| before != length) {
                return Err(Broken::NotHttp);
            }
            declared = Some(length);
        } else if named("transfer-encoding") {
            // Nothing but `chunked` was asked for, and an unknown coding hides where the body ends.
            if coded || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Broken::NotHttp);
            }
            coded = true;
        } else if named("connection") {
            for word in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                closes |= word.eq_ignore_ascii_case(b"close");
                stays |= word.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if named("set-cookie") {
            head.reply.cookies.extend(HeaderValue::from_bytes(field.value).ok());
        } else if named("content-encoding") {
            head.reply.content_coding = HeaderValue::from_bytes(field.value).ok();
        } else if named("content-type") && !is_plain_xml(field.value) {
            head.reply.content_type = HeaderValue::from_bytes(field.value).ok();
        } else if named("location") {
            head.reply.location = HeaderValue::from_bytes(field.value).ok();
        } else if named(NOT_RUN.as_str()) {
            head.reply.not_run = field.value == b"1";
        } else if named("cf-mitigated") {
            head.reply.cloudflare = Cloudflare::Challenged;
        } else if named("cf-ray") && head.reply.cloudflare == Cloudflare::No {
            head.reply.cloudflare = Cloudflare::Passed;
        }
    }
    head.reply.keeps = stays && !closes;
    head.framing = match (coded, declared) {
        _ if is_head || status == 304 => Framing::Length(0),
        (coded, declared) if status == 204 => {
            // It has no body; one that is announced all the same may yet come.
            head.reply.keeps &= !coded && declared.unwrap_or(0) == 0;
            Framing::Length(0)
        }
        (true, declared) => {
            // The coding decides, but a server that sends both, or does not know the coding, is not
            // to be trusted with another.
            head.reply.keeps &= is_1_1 && declared.is_none();
            Framing::Chunked
        }
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    };
    Ok(Some((length, Some(head))))
}

/// Whether a content type is one that says nothing that need be known, as nearly all are.
fn is_plain_xml(value: &[u8]) -> bool {
    const USUAL: [&[u8]; 4] = [
        b"text/xml",
        b"application/xml",
        b"text/xml; charset=utf-8",
        b"application/xml; charset=utf-8",
    ];
    USUAL.iter().any(|usual| usual.eq_ignore_ascii_case(value))
}

/// A length of digits alone: no sign, no list, no space inside.
fn parse_length(value: &[u8]) -> Result<usize, Broken> {
    let digits = std::str::from_utf8(value.trim_ascii()).map_err(|_| Broken::NotHttp)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Broken::NotHttp);
    }
    digits.parse().map_err(|_| Broken::NotHttp)
}

/// Reads a chunked body. What it gives beside the bytes says whether they are all there were.
async fn read_chunks<S>(
    stream: &mut S,
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<(Bytes, bool), Broken>
where
    S: AsyncRead + Unpin + ?Sized,
{
    let mut body = BytesMut::new();
    loop {
        let line = read_line(stream, buffer).await?;
        let mut left = parse_chunk_size(&line)?;
        if left == 0 {
            break;
        }
        while left > 0 {
            if buffer.is_empty() && !fill(stream, buffer).await? {
                return Err(Broken::Cut);
            }
            let here = left.min(buffer.len()).min(limit - body.len());
            body.extend_from_slice(&buffer.split_to(here));
            left -= here;
            if left > 0 && body.len() == limit {
                return Ok((body.freeze(), false));
            }
        }
        if !read_line(stream, buffer).await?.is_empty() {
            return Err(Broken::NotHttp);
        }
    }
    let mut trailers = 0;
    loop {
        let line = read_line(stream, buffer).await?;
        if line.is_empty() {
            return Ok((body.freeze(), true));
        }
        trailers += line.len();
        if trailers > LARGEST_LINE {
            return Err(Broken::NotHttp);
        }
    }
}

/// A line without its end.
async fn read_line<S>(stream: &mut S, buffer: &mut BytesMut) -> Result<BytesMut, Broken>
where
    S: AsyncRead + Unpin + ?Sized,
{
    let mut looked = 0;
    loop {
        if let Some(end) = buffer[looked..].iter().position(|&byte| byte == b'\n') {
            let mut line = buffer.split_to(looked + end + 1);
            line.truncate(looked + end);
            return match line.split_last() {
                Some((b'\r', text)) => {
                    line.truncate(text.len());
                    Ok(line)
                }
                _ => Err(Broken::NotHttp),
            };
        }
        looked = buffer.len();
        if looked > LARGEST_LINE {
            return Err(Broken::NotHttp);
        }
        if !fill(stream, buffer).await? {
            return Err(Broken::Cut);
        }
    }
}

/// The size at the head of a chunk; extensions behind it mean nothing to us.
fn parse_chunk_size(line: &[u8]) -> Result<usize, Broken> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    let text = std::str::from_utf8(digits).map_err(|_| Broken::NotHttp)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Broken::NotHttp);
    }
    usize::from_str_radix(text, 16).map_err(|_| Broken::NotHttp)
}

/// Reads more; `false` at the end of the stream.
async fn fill<S>(stream: &mut S, buffer: &mut BytesMut) -> Result<bool, Broken>
where
    S: AsyncRead + Unpin + ?Sized,
{
    buffer.reserve(READ_SIZE);
    Ok(stream.read_buf(buffer).await.map_err(|_| Broken::Cut)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 32;

    /// What is made of an answer, in words; the same however its bytes are cut on the way.
    fn check(answer: &str, expect: &str) {
        for piece in [1, 2, 7, answer.len().max(1)] {
            assert_eq!(read(answer.as_bytes(), piece, false), expect, "{answer:?} by {piece}");
        }
    }

    fn read(answer: &[u8], piece: usize, is_head: bool) -> String {
        let mut stream = tokio_test::io::Builder::new();
        stream.write(b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\nbody");
        for piece in answer.chunks(piece) {
            stream.read(piece);
        }
        let mut stream = stream.build();
        let mut head = RequestHead::new("GET", "", "/", "a");
        head.field("x", "1");
        let request = head.with_body(b"body");
        let read = async {
            let sent = AtomicBool::new(false);
            let result = converse(&mut stream, &request, is_head, LIMIT, &sent).await;
            assert!(sent.load(Ordering::Relaxed));
            // What was not asked for must not count as left unread.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            result
        };
        match futures::executor::block_on(read) {
            Err(broken) => format!("{broken:?}"),
            Ok(reply) => {
                let body = String::from_utf8_lossy(&reply.body).into_owned();
                let mut text = format!("{} {body:?}", reply.status);
                for (set, word) in [(reply.keeps, " keeps"), (reply.not_run, " not run")] {
                    text.push_str(if set { word } else { "" });
                }
                for cookie in &reply.cookies {
                    text.push_str(&format!(" {}", cookie.to_str().unwrap()));
                }
                text
            }
        }
    }

    #[test]
    fn the_length_says_where_a_body_ends() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "200 \"abc\" keeps");
        check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 \"\" keeps");
        check("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", "Cut");
        check(
            "HTTP/1.1 200\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
            "200 \"abc\" keeps",
        );
        check("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", "NotHttp");
        for odd in ["", "+3", "-1", "3, 3", "0x3", "99999999999999999999999"] {
            check(&format!("HTTP/1.1 200 OK\r\ncontent-length: {odd}\r\n\r\nabc"), "NotHttp");
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let answer =
            |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        check(&answer("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), "200 \"abcde\" keeps");
        check(&answer("0\r\nx-sum: 1\r\n\r\n"), "200 \"\" keeps");
        check(&answer("3\r\nabc\r\n0\r\n"), "Cut");
        check(&answer("3\r\nab"), "Cut");
        for odd in ["3\r\nabcd\r\n0\r\n\r\n", "-1\r\n", "g\r\n", "\r\n", "3\nabc\r\n0\r\n\r\n"] {
            check(&answer(odd), "NotHttp");
        }
        check(&answer(&format!("{}\r\n", "1".repeat(40))), "NotHttp");
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        check("HTTP/1.1 200 OK\r\n\r\nabc", "200 \"abc\"");
        check("HTTP/1.0 200 OK\r\n\r\nabc", "200 \"abc\"");
        check("HTTP/1.1 204 No Content\r\n\r\n", "204 \"\" keeps");
        check("HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n", "204 \"\" keeps");
        check("HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n", "204 \"\"");
        check("HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n", "204 \"\"");
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 99, true),
            "200 \"\" keeps"
        );
    }

    #[test]
    fn what_is_too_large_is_cut_at_the_limit() {
        let long = "x".repeat(LIMIT + 1);
        let kept = format!("200 {:?}", &long[..LIMIT]);
        let length = long.len();
        check(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{long}"), &kept);
        check(&format!("HTTP/1.1 200 OK\r\n\r\n{long}"), &kept);
        check(
            &format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{long}\r\n0\r\n\r\n"
            ),
            &kept,
        );
        let head = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(LARGEST_HEAD));
        assert_eq!(read(head.as_bytes(), 8192, false), "NotHttp");
    }

    #[test]
    fn a_connection_is_kept_only_where_the_next_answer_is_beyond_doubt() {
        check("HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n", "200 \"\"");
        check(
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
            "200 \"a\" keeps",
        );
        check("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", "200 \"a\"");
        check(
            "HTTP/1.0 200 OK\r\nconnection: close, keep-alive\r\ncontent-length: 0\r\n\r\n",
            "200 \"\"",
        );
        check(
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "200 \"\"",
        );
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "200 \"\"",
        );
        let more = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nabc";
        assert_eq!(read(more, more.len(), false), "200 \"a\"");
    }

    #[test]
    fn interim_answers_are_passed_over() {
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
            "200 \"a\" keeps",
        );
        check("HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", "NotHttp");
        check(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(MOST_INTERIM + 1), "NotHttp");
        check("HTTP/1.1 100 Continue\r\n\r\n", "Unanswered");
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_the_request_was_read_counts() {
        let mut stream = tokio_test::io::Builder::new()
            .write(b"GET")
            .write_error(std::io::ErrorKind::ConnectionReset.into())
            .read(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            .build();
        let sent = AtomicBool::new(false);
        let reply = converse(&mut stream, b"GET / HTTP/1.1\r\n\r\n", false, LIMIT, &sent).await;
        assert_eq!(reply.map(|reply| (reply.status, reply.keeps)), Ok((413, false)));
        let mut closed = tokio_test::io::Builder::new()
            .write_error(std::io::ErrorKind::BrokenPipe.into())
            .build();
        let sent = AtomicBool::new(false);
        let reply = converse(&mut closed, b"GET", false, LIMIT, &sent).await;
        assert_eq!((reply, sent.load(Ordering::Relaxed)), (Err(Broken::Unanswered), false));
    }

    #[test]
    fn what_the_relay_must_know_is_read() {
        check(
            "HTTP/1.1 503 No\r\nHoldline-Not-Run: 1\r\ncontent-length: 0\r\n\r\n",
            "503 \"\" keeps not run",
        );
        check(
            "HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nset-cookie: c=d\r\ncontent-length: 0\r\n\r\n",
            "200 \"\" keeps a=b c=d",
        );
    }

    #[test]
    fn what_is_no_answer_is_broken() {
        check("", "Unanswered");
        check("HTTP/1.1 200 OK\r\ncont", "Unanswered");
        check("SSH-2.0-OpenSSH\r\n", "NotHttp");
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "NotHttp");
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(MOST_FIELDS + 1));
        assert_eq!(read(many.as_bytes(), many.len(), false), "NotHttp");
    }
}
