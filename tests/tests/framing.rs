//! Bytes that two servers could read in two ways: refused, with the connection closed, or read by every
//! origin behind the edge exactly as the edge has read them.
//!
//! `docs/framing.md` lists every case with what comes of it; a test compares the two.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use holdline_tests::{Echo, Manner, Part, Read, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is to come of some bytes.
#[derive(Debug, Clone)]
enum Expect {
    /// Refused with this status; the connection is closed, and no origin sees anything.
    Refused(u16),
    /// Refused, or passed over; the connection may stay, and no origin sees anything.
    NotPassed(u16),
    /// Every origin reads just this.
    Read(Read),
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    expect: Expect,
}

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, expect: Expect) -> Case {
    Case { name, bytes: bytes.into(), expect }
}

/// A request whose head has these lines more; refused as malformed.
fn field(name: &'static str, lines: &str) -> Case {
    let text = format!(
        "POST /app HTTP/1.1\r\nHost: edge.test\r\n{lines}\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n"
    );
    case(name, text, Expect::Refused(400))
}

/// A request line; refused as malformed.
fn line(name: &'static str, line: &str) -> Case {
    case(name, format!("{line}\r\nHost: edge.test\r\n\r\n"), Expect::Refused(400))
}

/// A chunked body; refused.
fn chunks(name: &'static str, body: &str) -> Case {
    case(name, chunked("POST /calls/7/call_ended", body), Expect::Refused(400))
}

fn chunked(request: &str, body: &str) -> String {
    format!("{request} HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn read(method: &str, target: &str, body: &str) -> Expect {
    Expect::Read(Read { method: method.into(), target: target.into(), body: body.into() })
}

/// A path, asked for with GET; what comes of it.
fn path(name: &'static str, target: &str, expect: Expect) -> Case {
    let text = format!("GET {target} HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n");
    case(name, text, expect)
}

fn passed(name: &'static str, target: &str) -> Case {
    path(name, target, read("GET", target, ""))
}

fn cases() -> Vec<Case> {
    let close = "Host: edge.test\r\nConnection: close\r\n";
    vec![
        // Where the body ends.
        field("a length and a coding", "Content-Length: 4\r\nTransfer-Encoding: chunked"),
        field("a coding and a length", "Transfer-Encoding: chunked\r\nContent-Length: 4"),
        field("the same length twice", "Content-Length: 4\r\nContent-Length: 4"),
        field("two lengths", "Content-Length: 4\r\nContent-Length: 40"),
        field("two lengths in one field", "Content-Length: 4, 40"),
        field("the same length twice in one field", "Content-Length: 4, 4"),
        field("a length with a sign", "Content-Length: +4"),
        field("a negative length", "Content-Length: -4"),
        field("a length in hexadecimal", "Content-Length: 0x4"),
        field("a length with a blank in it", "Content-Length: 4 0"),
        field("an empty length", "Content-Length:"),
        field("a length beyond all numbers", "Content-Length: 99999999999999999999"),
        field("a length with a blank before the colon", "Content-Length : 4"),
        field("a coding that is not chunked", "Transfer-Encoding: gzip"),
        field("chunked, but not last", "Transfer-Encoding: chunked, gzip"),
        field("another coding before chunked", "Transfer-Encoding: gzip, chunked"),
        field("identity", "Transfer-Encoding: identity"),
        field("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        field("chunked with a parameter", "Transfer-Encoding: chunked;q=1"),
        field("chunked in quotes", "Transfer-Encoding: \"chunked\""),
        field("chunked behind a vertical tab", "Transfer-Encoding: \u{b}chunked"),
        field("a coding with a blank before the colon", "Transfer-Encoding : chunked"),
        field("a coding in a folded field", "X: 1\r\n Transfer-Encoding: chunked"),
        case(
            "chunked in HTTP/1.0",
            format!("POST /app HTTP/1.0\r\n{close}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Expect::Refused(400),
        ),
        // Chunks.
        chunks("a chunk's size with a sign", "+4\r\na=b&\r\n0\r\n\r\n"),
        chunks("a chunk's size with 0x", "0x4\r\na=b&\r\n0\r\n\r\n"),
        chunks("a chunk's size with an underscore", "0_4\r\na=b&\r\n0\r\n\r\n"),
        chunks("an empty chunk size", "\r\na=b&\r\n0\r\n\r\n"),
        chunks("a negative chunk size", "-1\r\na=b&\r\n0\r\n\r\n"),
        chunks("a chunk size beyond all numbers", "fffffffffffffffff\r\na=b\r\n0\r\n\r\n"),
        chunks("a chunk size that ends with a bare line feed", "4\na=b&\r\n0\r\n\r\n"),
        chunks("a chunk that ends with a bare line feed", "4\r\na=b&\n0\r\n\r\n"),
        chunks("a chunk longer than it says", "3\r\na=b&\r\n0\r\n\r\n"),
        chunks("an extension with a bare line feed", "4;x\n\r\na=b&\r\n0\r\n\r\n"),
        chunks("an extension without end", &format!("4;{}", "x".repeat(20_000))),
        chunks("trailers with a bare line feed", "0\r\nX: 1\n\r\n\r\n"),
        case(
            "a chunk larger than a body may be",
            chunked("POST /calls/7/call_ended", &format!("20000\r\n{}", "x".repeat(0x20000))),
            Expect::Refused(413),
        ),
        case(
            "chunks are put together",
            chunked("POST /app", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").replacen(
                "Host",
                "Connection: close\r\nHost",
                1,
            ),
            read("POST", "/app", "abcde"),
        ),
        case(
            "trailers do not pass",
            chunked("POST /app", "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n").replacen(
                "Host",
                "Connection: close\r\nHost",
                1,
            ),
            read("POST", "/app", "abc"),
        ),
        // Lines and fields.
        case("bare line feeds", "GET /app HTTP/1.1\nHost: edge.test\n\n", Expect::Refused(400)),
        case(
            "one bare line feed",
            "GET /app HTTP/1.1\r\nHost: edge.test\nX: 1\r\n\r\n",
            Expect::Refused(400),
        ),
        field("a bare carriage return", "X: 1\rContent-Length: 4"),
        field("a folded field", "X: 1\r\n 2"),
        field("a field folded with a tab", "X: 1\r\n\t2"),
        case(
            "a first field that is folded",
            "GET /app HTTP/1.1\r\n Host: edge.test\r\n\r\n",
            Expect::Refused(400),
        ),
        field("a null byte in a value", "X: a\0b"),
        field("a delete byte in a value", "X: a\u{7f}b"),
        field("a null byte in a name", "X\0: 1"),
        field("a blank in a name", "X Y: 1"),
        field("a blank before the colon", "X : 1"),
        field("a field without a colon", "X"),
        field("a field without a name", ": 1"),
        field("a name with a letter beyond ASCII", "X\u{e9}: 1"),
        case(
            "more fields than allowed",
            format!("GET /app HTTP/1.1\r\nHost: edge.test\r\n{}\r\n", "X: 1\r\n".repeat(120)),
            Expect::Refused(431),
        ),
        case(
            "a larger head than allowed",
            format!("GET /app HTTP/1.1\r\nHost: edge.test\r\nX: {}\r\n\r\n", "x".repeat(40_000)),
            Expect::Refused(431),
        ),
        // The request line.
        line("no version", "GET /app"),
        line("a version of its own", "GET /app HTTP/1.2"),
        line("HTTP/2.0 without a greeting", "GET /app HTTP/2.0"),
        line("a version in lower case", "GET /app http/1.1"),
        line("two blanks", "GET  /app HTTP/1.1"),
        line("a tab for a blank", "GET\t/app HTTP/1.1"),
        line("a blank at the end", "GET /app HTTP/1.1 "),
        line("a blank in the target", "GET /app x HTTP/1.1"),
        line("a fragment", "GET /app#x HTTP/1.1"),
        line("a null byte in the target", "GET /app\0 HTTP/1.1"),
        line("a letter beyond ASCII in the target", "GET /app\u{e9} HTTP/1.1"),
        line("a target that is no path", "GET app HTTP/1.1"),
        line("an asterisk", "OPTIONS * HTTP/1.1"),
        line("a method with a colon", "GET: /app HTTP/1.1"),
        line("a line before the request line", "\r\nGET /app HTTP/1.1"),
        line("CONNECT", "CONNECT edge.test:443 HTTP/1.1"),
        // Who is meant.
        case("no Host", "GET /app HTTP/1.1\r\n\r\n", Expect::Refused(400)),
        case("an empty Host", "GET /app HTTP/1.1\r\nHost:\r\n\r\n", Expect::Refused(400)),
        field("two Hosts", "Host: edge.test"),
        field("two Hosts that differ", "Host: other.test"),
        case(
            "two Hosts in one field",
            "GET /app HTTP/1.1\r\nHost: edge.test, other.test\r\n\r\n",
            Expect::Refused(400),
        ),
        case(
            "a Host with a path",
            "GET /app HTTP/1.1\r\nHost: edge.test/x\r\n\r\n",
            Expect::Refused(400),
        ),
        case(
            "a Host with a user",
            "GET /app HTTP/1.1\r\nHost: me@edge.test\r\n\r\n",
            Expect::Refused(400),
        ),
        case(
            "an absolute target that disagrees with Host",
            "GET http://other.test/app HTTP/1.1\r\nHost: edge.test\r\n\r\n",
            Expect::Refused(400),
        ),
        case(
            "an absolute target of another scheme",
            "GET gopher://edge.test/app HTTP/1.1\r\nHost: edge.test\r\n\r\n",
            Expect::Refused(400),
        ),
        case(
            "an absolute target that agrees with Host",
            format!("GET http://edge.test/app?x=1 HTTP/1.1\r\n{close}\r\n"),
            read("GET", "/app?x=1", ""),
        ),
        // Paths: never decoded for routing otherwise than they are forwarded.
        path("a row with an escaped letter", "/calls/7/%69ncoming", Expect::NotPassed(404)),
        path("a row with an escaped slash", "/calls%2F7/incoming", Expect::NotPassed(404)),
        path("a row with an escaped backslash", "/calls%5C7/incoming", Expect::NotPassed(404)),
        path("a row with a backslash", "/calls\\7/incoming", Expect::NotPassed(404)),
        path("a row with two slashes", "//calls/7/incoming", Expect::NotPassed(404)),
        path("a row behind dots", "/app/../calls/7/incoming", Expect::NotPassed(404)),
        path("a row behind escaped dots", "/app/%2e%2e/calls/7/incoming", Expect::NotPassed(404)),
        path(
            "a row with an escaped slash in its number",
            "/calls/a%2Fb/%69ncoming",
            Expect::NotPassed(404),
        ),
        path("a path that leads upwards", "/app/../b", Expect::NotPassed(404)),
        path("a path that leads upwards, escaped", "/app/.%2E/b", Expect::NotPassed(404)),
        path("a row with a slash at the end", "/calls/7/incoming/", Expect::NotPassed(404)),
        path("what only the edge asks for", "/holdline/notices", Expect::NotPassed(404)),
        path("the same, escaped", "/%68oldline/notices", Expect::NotPassed(404)),
        passed("escapes pass as they are", "/app/%41%2Fb%2e?c=%20"),
        passed("single dots pass as they are", "/app/./b/.c"),
        passed("slashes pass as they are", "/app//b///c"),
        passed("a second question mark passes as it is", "/app?a?b=/../"),
        passed("half an escape passes as it is", "/app/%zz%4"),
        // One after another.
        case(
            "a request hidden in a body",
            format!(
                "POST /app HTTP/1.1\r\n{close}Content-Length: 34\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\nx"
            ),
            read("POST", "/app", "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\nx"),
        ),
        case(
            "a second request at once is not answered",
            "GET /app HTTP/1.1\r\nHost: edge.test\r\n\r\nGET /app/second HTTP/1.1\r\nHost: edge.test\r\n\r\n",
            read("GET", "/app", ""),
        ),
        case(
            "a GET with a body",
            format!("GET /app HTTP/1.1\r\n{close}Content-Length: 3\r\n\r\nabc"),
            read("GET", "/app", "abc"),
        ),
    ]
}

async fn echoes(folder: &Path) -> Vec<Echo> {
    let oracle =
        std::env::var("HOLDLINE_ORACLE").expect("run `make test`, which sets HOLDLINE_ORACLE");
    vec![
        Echo::ours().await.unwrap(),
        Echo::node(folder).await.unwrap(),
        Echo::python(folder, oracle.as_ref()).await.unwrap(),
    ]
}

async fn before(echo: &Echo, listener: &str) -> World {
    let plan = World::plan(Part::Nothing, Part::StandIn(Manner::Answers));
    let url = format!("http://{}", echo.address);
    let more = format!("{listener}\n[catalogue]\nunlisted = \"pass\"");
    let world = match listener {
        "" => plan.origin(&url, "").more(&more).start().await,
        _ => plan.origin(&url, "").listeners(&more).start().await,
    };
    world.unwrap()
}

#[tokio::test]
async fn nothing_is_read_in_two_ways() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = String::new();
    for echo in echoes(folder.path()).await {
        let world = before(&echo, "").await;
        for case in cases() {
            let mut stream = TcpStream::connect(world.public()).await.unwrap();
            // What is refused early may be closed before all of it was sent.
            let _ = stream.write_all(&case.bytes).await;
            let mut answer = Vec::new();
            let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
            let closed = end.await.is_ok();
            let answer = String::from_utf8_lossy(&answer);
            let status = answer.get(9..12).unwrap_or("none").to_owned();
            let seen = echo.take().unwrap();
            let answers = answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count();
            let as_expected = match &case.expect {
                Expect::Refused(expected) => {
                    status == expected.to_string() && closed && seen.is_empty()
                }
                Expect::NotPassed(expected) => status == expected.to_string() && seen.is_empty(),
                Expect::Read(read) => status == "200" && seen == [read.clone()],
            };
            if !as_expected || answers != 1 {
                let (name, expect) = (case.name, &case.expect);
                writeln!(wrong, "{} {name}: expected {expect:?}, closed {closed}, answer {answer:?}, seen {seen:?}", echo.name).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The list of cases, as `docs/framing.md` has it.
fn document() -> String {
    let mut text = DOCUMENT.to_owned();
    for case in cases() {
        let comes = match case.expect {
            Expect::Refused(status) => format!("{status}, closed"),
            Expect::NotPassed(status) => format!("{status}"),
            Expect::Read(_) => "passed, read as it is by all".to_owned(),
        };
        writeln!(text, "| {} | {comes} |", case.name).unwrap();
    }
    for (name, _) in http2_cases() {
        writeln!(text, "| {name} | refused, reset or closed |").unwrap();
    }
    for (name, _, must_close) in floods() {
        let comes = if must_close { "closed" } else { "borne or closed" };
        writeln!(text, "| {name} | {comes}; the edge goes on |").unwrap();
    }
    text
}

const DOCUMENT: &str = "# Bytes that could be read in two ways\n\n\
Every case is sent as raw bytes to an edge that passes unlisted paths through, with three origins behind \
it in turn: hyper (what our origin is built on), Node's own server, and Python's h11. *Closed*: the \
connection ends, and no origin sees anything. *Passed*: each of the three reads the same method, target \
and body, and nothing else. `tests/tests/framing.rs` sends them and writes this list \
(`HOLDLINE_WRITE_DOCS=1`).\n\n| what is sent | what comes of it |\n|---|---|\n";

#[test]
fn every_case_is_documented() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/framing.md");
    if std::env::var_os("HOLDLINE_WRITE_DOCS").is_some() {
        std::fs::write(&file, document()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), document(), "set HOLDLINE_WRITE_DOCS=1");
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields without any compression (RFC 7541 section 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        for (text, prefix) in [(name, &[0u8][..]), (value, &[])] {
            block.extend_from_slice(prefix);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn greeting() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

/// Sends frames and reads frames until the other side closes or falls silent: their kinds, and the
/// first byte of each header block (0x88 is `:status: 200`, RFC 7541 appendix A).
async fn answer_to(
    world: &World,
    bytes: &[u8],
    is_answer: impl Fn(&[(u8, u8)]) -> bool,
) -> (Vec<(u8, u8)>, bool) {
    let mut stream = TcpStream::connect(world.public()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let mut answer = Vec::new();
    let read = async {
        let mut some = vec![0; 16_384];
        loop {
            // What is due is waited for, and after it only what comes at once.
            let due = !is_answer(&frames_of(&answer));
            let patience = if due { 10_000 } else { 400 };
            match tokio::time::timeout(Duration::from_millis(patience), from.read(&mut some)).await
            {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(length)) => answer.extend_from_slice(&some[..length]),
                Err(_) => return false,
            }
        }
    };
    let (closed, _) = tokio::join!(read, to.write_all(bytes));
    (frames_of(&answer), closed)
}

/// The frames of an answer: the type of each, and its first byte.
fn frames_of(answer: &[u8]) -> Vec<(u8, u8)> {
    let mut frames = Vec::new();
    let mut rest = answer;
    while let Some((head, behind)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        frames.push((head[3], behind.first().copied().unwrap_or_default()));
        rest = behind.get(length..).unwrap_or_default();
    }
    frames
}

fn http2_cases() -> Vec<(&'static str, Vec<u8>)> {
    let usual =
        [(":method", "GET"), (":scheme", "http"), (":path", "/app"), (":authority", "edge.test")];
    let with = |more: &[(&str, &str)]| fields(&[&usual[..], more].concat());
    let without =
        |name: &str| fields(&usual.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>());
    let changed = |name: &str, value: &'static str| {
        fields(&usual.map(|(n, v)| (n, if n == name { value } else { v })))
    };
    let whole = |block: Vec<u8>| frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    let body = |more: &[(&str, &str)], body: &[u8]| {
        let post = usual.map(|(n, v)| (n, if n == ":method" { "POST" } else { v }));
        let block = fields(&[&post[..], more].concat());
        [frame(HEADERS, END_HEADERS, 1, &block), frame(0, END_STREAM, 1, body)].concat()
    };
    vec![
        ("h2: no method", whole(without(":method"))),
        ("h2: no path", whole(without(":path"))),
        ("h2: an empty path", whole(changed(":path", ""))),
        ("h2: a path without a slash", whole(changed(":path", "app"))),
        ("h2: a path with a blank", whole(changed(":path", "/app x"))),
        ("h2: a method twice", whole(with(&[(":method", "POST")]))),
        ("h2: a path twice", whole(with(&[(":path", "/hidden")]))),
        ("h2: a pseudo-field of its own", whole(with(&[(":hidden", "1")]))),
        ("h2: a pseudo-field of answers", whole(with(&[(":status", "200")]))),
        (
            "h2: a pseudo-field behind others",
            whole([fields(&[("x", "1")]), fields(&usual)].concat()),
        ),
        ("h2: a name with capitals", whole(with(&[("X-Hidden", "1")]))),
        ("h2: a name with a colon", whole(with(&[("x:y", "1")]))),
        ("h2: a line break in a value", whole(with(&[("x", "1\r\ncontent-length: 9")]))),
        ("h2: a null byte in a value", whole(with(&[("x", "1\0")]))),
        ("h2: connection", whole(with(&[("connection", "close")]))),
        ("h2: transfer-encoding", whole(with(&[("transfer-encoding", "chunked")]))),
        ("h2: te that is not trailers", whole(with(&[("te", "gzip")]))),
        ("h2: another host than the authority", whole(with(&[("host", "other.test")]))),
        ("h2: a length with a sign", body(&[("content-length", "+3")], b"abc")),
        ("h2: two lengths", body(&[("content-length", "3"), ("content-length", "4")], b"abc")),
        ("h2: less than the length", body(&[("content-length", "9")], b"abc")),
        ("h2: more than the length", body(&[("content-length", "1")], b"abc")),
        ("h2: a frame for stream 0", frame(HEADERS, END_STREAM | END_HEADERS, 0, &fields(&usual))),
        ("h2: an even stream", frame(HEADERS, END_STREAM | END_HEADERS, 2, &fields(&usual))),
        (
            "h2: a frame longer than allowed",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &vec![0; 20_000]),
        ),
        ("h2: fields that cannot be unpacked", whole(vec![0xff; 40])),
        ("h2: CONNECT", whole(fields(&[(":method", "CONNECT"), (":authority", "edge.test:443")]))),
    ]
}

#[tokio::test]
async fn http2_is_read_in_one_way_too() {
    let echo = Echo::ours().await.unwrap();
    let listener = "[[listen.public]]\naddress = \"127.0.0.1:0\"\nhttp2 = true";
    let world = before(&echo, listener).await;
    let fine = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/app"),
        (":authority", "edge.test"),
    ]);
    let fine = frame(HEADERS, END_STREAM | END_HEADERS, 1, &fine);
    let answered = |frames: &[(u8, u8)]| frames.contains(&(HEADERS, 0x88));
    let (frames, _) = answer_to(&world, &[greeting(), fine].concat(), answered).await;
    assert!(frames.contains(&(HEADERS, 0x88)), "{frames:?}");
    assert_eq!(echo.take().unwrap().len(), 1);
    let mut wrong = String::new();
    for (name, bytes) in http2_cases() {
        // A status other than 200, a reset of the stream, or the end of the connection.
        let refused = |frames: &[(u8, u8)]| {
            let refuses =
                |kind: u8, first: u8| matches!(kind, 3 | 7) || (kind == HEADERS && first != 0x88);
            frames.iter().any(|(kind, first)| refuses(*kind, *first))
        };
        let (frames, closed) =
            answer_to(&world, &[greeting(), bytes].concat(), |frames: &[(u8, u8)]| {
                refused(frames) || answered(frames)
            })
            .await;
        let (refused, answered) = (closed || refused(&frames), answered(&frames));
        let seen = echo.take().unwrap();
        // Half a request may have been passed on by the time its end does not come.
        if !refused || answered || !seen.is_empty() {
            writeln!(wrong, "{name}: closed {closed}, frames {frames:?}, seen {seen:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Too much of something: its name, the bytes, and whether the connection must end.
fn floods() -> [(&'static str, Vec<u8>, bool); 4] {
    let usual = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/app"),
        (":authority", "edge.test"),
    ]);
    let mut resets = greeting();
    for n in 0..20_000u32 {
        let stream = 2 * n + 1;
        resets.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &usual));
        resets.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
    }
    let mut continuations = [greeting(), frame(HEADERS, END_STREAM, 1, &usual)].concat();
    for _ in 0..20_000 {
        continuations.extend(frame(9, 0, 1, &fields(&[("x", "1")])));
    }
    let mut settings = greeting();
    let mut pings = greeting();
    for _ in 0..100_000 {
        settings.extend(frame(4, 0, 0, &[]));
        pings.extend(frame(6, 0, 0, &[0; 8]));
    }
    [
        ("h2: streams begun and reset", resets, true),
        ("h2: continuations without end", continuations, true),
        ("h2: settings again and again", settings, false),
        ("h2: pings again and again", pings, false),
    ]
}

#[tokio::test]
async fn floods_of_http2_end_with_their_connection() {
    let echo = Echo::ours().await.unwrap();
    let listener = "[[listen.public]]\naddress = \"127.0.0.1:0\"\nhttp2 = true";
    let world = before(&echo, listener).await;
    for (name, bytes, must_close) in floods() {
        let (frames, closed) = answer_to(&world, &bytes, |_: &[(u8, u8)]| !must_close).await;
        assert!(closed || !must_close, "{name}: {} frames", frames.len());
        let health = b"GET /holdline/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert!(world.raw(health).await.unwrap().starts_with("HTTP/1.1 200 "), "{name}");
        let reached = echo.take().unwrap().len();
        assert!(reached < 500, "{name}: {reached} requests reached the origin");
    }
    let memory = holdline_tests::peer::resident_mb(world.edge.pid().unwrap()).unwrap();
    assert!(memory < 200.0, "{memory} MB");
}
