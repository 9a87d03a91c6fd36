//! Where clients come in: TLS, HTTP/2, certificates that change, who is believed, and how much is let in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdline_tests::cloudflare::RAY;
use holdline_tests::requests::signed_post;
use holdline_tests::world::{call_sid, form};
use holdline_tests::{Authority, Cloudflare, Manner, Part, TlsClient, World};
use http::Request;
use http_body_util::Full;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use twilio_sim::Party;

const ANSWERS: Part = Part::StandIn(Manner::Answers);
const HEALTH: &str = "GET /holdline/health HTTP/1.1\r\nHost: a\r\n\r\n";

/// Certificates in a folder, and their authority.
fn certificates() -> (Authority, TempDir) {
    let (authority, folder) = (Authority::new().unwrap(), tempfile::tempdir().unwrap());
    authority.issue(&["edge.test"], "edge", folder.path()).unwrap();
    authority.issue(&["other.test", "*.wild.test"], "other", folder.path()).unwrap();
    (authority, folder)
}

/// A listener with TLS and both certificates.
fn tls(folder: &TempDir, more: &str) -> String {
    let at = folder.path().display();
    format!(
        "[[listen.public]]\naddress = \"127.0.0.1:0\"\n[listen.public.tls]\ncertificates = [\
         {{ chain = \"{at}/edge.pem\", key = \"{at}/edge.key\" }}, \
         {{ chain = \"{at}/other.pem\", key = \"{at}/other.key\" }}]\n{more}"
    )
}

fn visit(n: u64) -> Vec<u8> {
    signed_post("/callin/create", &form(&call_sid(n), &[]), &format!("t{n}"))
}

/// The same visit for a client that frames for itself.
fn request(n: u64, uri: &str) -> Request<Full<Bytes>> {
    let text = String::from_utf8(visit(n)).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut request = Request::post(uri);
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        if uri.starts_with('/') || !matches!(name, "Host" | "Content-Length") {
            request = request.header(name, value);
        }
    }
    request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

/// Sends to a connection and reads what comes until nothing has come for a moment, or until the end.
async fn say(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    heard(stream).await
}

/// One answer with its body, or what there was until the end.
async fn heard(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut some = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                return text;
            }
        }
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => return text,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&some[..length])),
        }
    }
}

/// Whether the other side has closed.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn visits_come_over_tls_in_every_version() {
    let (authority, folder) = certificates();
    let world =
        World::plan(ANSWERS, Part::Nothing).listeners(&tls(&folder, "")).start().await.unwrap();
    let (mut n, mut last) = (0, None);
    for version in [&TLS12, &TLS13] {
        for (protocol, uri) in
            [("h2", "https://edge.test/callin/create"), ("http/1.1", "/callin/create")]
        {
            let client = TlsClient::new(&authority, protocol, &[version], None).unwrap();
            let mut exchange = client.connect(world.public(), "edge.test").await.unwrap();
            assert_eq!(exchange.is_http2(), protocol == "h2");
            for _ in 0..3 {
                n += 1;
                let answer = exchange.send(request(n, uri)).await.unwrap();
                assert_eq!(answer.status(), 200, "{protocol} {answer:?}");
                assert_eq!(answer.headers()["holdline-answered-by"], "origin");
            }
            last = Some(exchange);
        }
    }
    assert_eq!(world.origin.reached().len(), n as usize);
    drop(last);
    // What is no TLS is closed, and counted.
    let mut plain = TcpStream::connect(world.public()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(!heard(&mut plain).await.contains("HTTP"));
    world.until_metric("holdline_connections_closed_total", "handshake_failed", 1.0).await.unwrap();
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_and_read_again_when_it_changes() {
    let (authority, folder) = certificates();
    let world =
        World::plan(ANSWERS, Part::Nothing).listeners(&tls(&folder, "")).start().await.unwrap();
    let client = TlsClient::new(&authority, "h2", &[&TLS13], None).unwrap();
    let met = |name: &'static str| client.met(world.public(), name);
    let (edge, other) = (met("edge.test").await.unwrap(), met("other.test").await.unwrap());
    assert_ne!(edge, other);
    assert_eq!(met("any.wild.test").await.unwrap(), other);
    let error = met("unknown.test").await.unwrap_err();
    assert!(format!("{error:?}").contains("not valid for name"), "the first is shown: {error:?}");
    let expiry = world.metric("holdline_certificate_expiry_timestamp_seconds", "edge.test").await;
    assert!(expiry.unwrap() > 1e9);

    let kept = client.connect(world.public(), "edge.test").await.unwrap();
    // The new one names other hosts first; the old one is not shown any more, and not watched for its end.
    authority.issue(&["www.edge.test", "edge.test"], "edge", folder.path()).unwrap();
    world.until_metric("holdline_certificate_reads_total", "read", 1.0).await.unwrap();
    let renewed = met("edge.test").await.unwrap();
    assert_ne!(renewed, edge);
    let (_, metrics) = world.get_admin("/metrics").await.unwrap();
    let shown: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("holdline_certificate_expiry")).collect();
    assert!(shown.iter().any(|line| line.contains("\"www.edge.test\"")), "{shown:?}");
    assert!(!shown.iter().any(|line| line.contains("\"edge.test\"")), "{shown:?}");
    // Files that cannot be used change nothing.
    std::fs::write(folder.path().join("edge.key"), "no key").unwrap();
    world.until_metric("holdline_certificate_reads_total", "failed", 1.0).await.unwrap();
    assert_eq!(met("edge.test").await.unwrap(), renewed);
    let mut kept = kept;
    let answer = kept.send(request(1, "https://edge.test/callin/create")).await.unwrap();
    assert_eq!(answer.status(), 200, "who was connected stays");
    assert!(!world.edge.log().contains("no key"), "a key must not be in a log");
}

#[tokio::test]
async fn only_clients_with_the_right_certificate_come_in() {
    let (authority, folder) = certificates();
    let at = folder.path().display().to_string();
    std::fs::write(folder.path().join("pulls.pem"), authority.pem()).unwrap();
    authority.issue(&["cloudflare"], "pull", folder.path()).unwrap();
    let (stranger, strange) = certificates();
    stranger.issue(&["cloudflare"], "pull", strange.path()).unwrap();
    let listener = tls(&folder, &format!("client_authorities = \"{at}/pulls.pem\""));
    let world = World::plan(ANSWERS, Part::Nothing).listeners(&listener).start().await.unwrap();
    for (own, comes_in) in [
        (None, false),
        (Some((strange.path(), "pull")), false),
        (Some((folder.path(), "pull")), true),
    ] {
        for version in [&TLS12, &TLS13] {
            let client = TlsClient::new(&authority, "http/1.1", &[version], own).unwrap();
            // In TLS 1.3 a client learns what became of its certificate when it reads.
            let answer = async {
                let mut exchange = client.connect(world.public(), "edge.test").await?;
                exchange.send(request(1, "/callin/create")).await
            };
            let answer = answer.await;
            assert_eq!(answer.is_ok(), comes_in, "{own:?} {answer:?}");
        }
    }
    assert_eq!(world.origin.reached().len(), 1, "the second was the same request again");
    world.until_metric("holdline_connections_closed_total", "handshake_failed", 4.0).await.unwrap();
}

#[tokio::test]
async fn http2_without_tls_is_taken_where_that_is_configured() {
    let listener = "[[listen.public]]\naddress = \"127.0.0.1:0\"\nhttp2 = true\n\
                    [[listen.public]]\naddress = \"127.0.0.1:0\"";
    let world = World::plan(ANSWERS, Part::Nothing).listeners(listener).start().await.unwrap();
    let [with, without] = world.edge.listeners[..] else { panic!() };
    let stream = TcpStream::connect(with).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let answer = send.send_request(request(1, "http://edge.test/callin/create")).await.unwrap();
    assert_eq!(answer.status(), 200);
    // The same listener takes HTTP/1.1; the other takes nothing else.
    let answer = world.raw_to(with, &closing(HEALTH)).await.unwrap();
    assert!(answer.ends_with("serving\n"), "{answer}");
    let answer = world.raw_to(without, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

fn closing(request: &str) -> Vec<u8> {
    request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").into_bytes()
}

/// What the origin was told of the client by the last request.
fn forwarded_for(world: &World) -> String {
    let reached = world.origin.reached();
    reached.last().unwrap().field("x-forwarded-for").unwrap_or("nobody").to_owned()
}

#[tokio::test]
async fn a_balancer_says_who_connected_if_it_is_trusted() {
    let listener = "[[listen.public]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n\
                    [trust]\nnetworks = [\"loopback\"]";
    let world = World::plan(ANSWERS, Part::Nothing).listeners(listener).start().await.unwrap();
    let v2 = |rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", rest].concat();
    let four = [0x21, 0x11, 0, 12, 192, 0, 2, 7, 127, 0, 0, 1, 18, 103, 1, 187];
    for (n, header, client) in [
        (1, b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n".to_vec(), "192.0.2.7"),
        (2, b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec(), "2001:db8::7"),
        (3, v2(&four), "192.0.2.7"),
        (4, v2(&[0x20, 0, 0, 0]), "127.0.0.1"),
        (5, b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut stream = TcpStream::connect(world.public()).await.unwrap();
        let answer = say(&mut stream, &[header, visit(n)].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{n}: {answer}");
        assert_eq!(forwarded_for(&world), client);
        // The header comes once a connection.
        let again = say(&mut stream, &visit(n + 100)).await;
        assert!(again.starts_with("HTTP/1.1 200 "), "{again}");
        assert_eq!(forwarded_for(&world), client);
    }
    for no_header in [visit(9), b"PROXY TCP4 1.2.3.4\r\n".to_vec()] {
        let answer = world.raw(&no_header).await.unwrap();
        assert_eq!(answer, "");
    }
    assert_eq!(
        world.metric("holdline_connections_closed_total", "no_proxy_header").await.unwrap(),
        2.0
    );
    // Nobody else may say so.
    world.reconfigure("networks = [\"loopback\"]", "networks = [\"private\"]").unwrap();
    let (status, said) = world.manage("POST", "/reload", "").await.unwrap();
    assert_eq!(status, 200, "{said}");
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n".to_vec();
    assert_eq!(world.raw(&[header, visit(10)].concat()).await.unwrap(), "");
    assert_eq!(
        world.metric("holdline_connections_closed_total", "not_trusted").await.unwrap(),
        1.0
    );
}

#[tokio::test]
async fn forwarding_fields_are_believed_from_trusted_networks_only() {
    let ranges = "# a list of its own\n127.0.0.0/8\n";
    let more = "[trust]\nnetworks = []\ncloudflare = \"ranges.txt\"";
    let plan = World::plan(ANSWERS, Part::Nothing).more(more).file("ranges.txt", ranges);
    let world = plan.start().await.unwrap();
    let visit = |n: u64, fields: &str| {
        let text = String::from_utf8(visit(n)).unwrap();
        text.replacen("\r\n", &format!("\r\nConnection: close\r\n{fields}\r\n"), 1).into_bytes()
    };
    let said = "CF-Connecting-IP: 198.51.100.1\r\nCF-Ray: 8f3a-FRA\r\nX-Forwarded-For: 6.6.6.6, 198.51.100.2\r\n\
                Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
                Holdline_Delivery: forged";
    for (networks, client, ray) in [
        ("[]", "127.0.0.1", false),
        ("[\"loopback\"]", "198.51.100.2", false),
        ("[\"cloudflare\"]", "198.51.100.1", true),
    ] {
        let before = std::fs::read_to_string(world.config()).unwrap();
        let line = before.lines().find(|line| line.contains("networks = ")).unwrap();
        world.reconfigure(line, &format!("networks = {networks}")).unwrap();
        let (status, why) = world.manage("POST", "/reload", "").await.unwrap();
        assert_eq!(status, 200, "{why}");
        let n = networks.len() as u64;
        let answer = world.raw(&visit(n, said)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(forwarded_for(&world), client, "{networks}");
        let reached = world.origin.reached().pop().unwrap();
        for gone in [
            "forwarded",
            "x-real-ip",
            "true-client-ip",
            "cf-connecting-ip",
            "x_forwarded_for",
            "holdline_delivery",
        ] {
            assert_eq!(reached.field(gone), None, "{gone}");
        }
        // The line of this visit, which is the last one.
        assert!(world.edge.logs(&call_sid(n)).await);
        assert_eq!(world.edge.log().contains("\"ray\":\"8f3a-FRA\""), ray, "{networks}");
    }
}

#[tokio::test]
async fn a_call_comes_through_cloudflare() {
    let (authority, folder) = certificates();
    let at = folder.path().display().to_string();
    authority.issue(&["cloudflare"], "pull", folder.path()).unwrap();
    std::fs::write(folder.path().join("pulls.pem"), authority.pem()).unwrap();
    std::fs::write(folder.path().join("ranges.txt"), "127.0.0.1/32\n").unwrap();
    let more = format!(
        "client_authorities = \"{at}/pulls.pem\"\n[trust]\nnetworks = [\"cloudflare\"]\n\
         cloudflare = \"{at}/ranges.txt\""
    );
    let listener = tls(&folder, &more);
    for protocol in ["h2", "http/1.1"] {
        let plan = World::plan(Part::Real, ANSWERS).listeners(&listener);
        let mut world = plan.start().await.unwrap();
        world.until("origin", "well").await.unwrap();
        let own = Some((folder.path(), "pull"));
        let client = TlsClient::new(&authority, protocol, &[&TLS13], own).unwrap();
        let edge = world.public();
        let cloudflare = Cloudflare::start(client, edge, "edge.test").await.unwrap();
        world.calls_go_to(cloudflare.address()).unwrap();
        let heard = world.hear(Party::default()).await;
        assert_eq!(twilio_sim::breaches(&heard), [], "{heard}");
        assert!(heard.to_string().len() > 20, "{heard}");
        assert!(world.edge.logs(&format!("\"ray\":\"{RAY}\"")).await, "{}", world.edge.log());
        assert_eq!(world.metric("holdline_visits_total", "by=\"canned\"").await.unwrap(), 0.0);
        assert!(world.metric("holdline_visits_total", "by=\"origin\"").await.unwrap() >= 1.0);
    }
}

#[tokio::test]
async fn a_client_that_sends_slowly_is_not_waited_for() {
    let more = "[limits]\nheader_time = \"300ms\"\nidle = \"1s\"\nhandshake_time = \"300ms\"";
    let world = World::plan(ANSWERS, Part::Nothing).more(more).start().await.unwrap();
    // One byte now and then: each in time, the whole not.
    let mut slow = TcpStream::connect(world.public()).await.unwrap();
    let mut said = String::new();
    for byte in b"POST /callin/create HTTP/1.1\r\nHost: a\r\n" {
        if slow.write_all(&[*byte]).await.is_err() {
            break;
        }
        let mut some = [0; 1024];
        let read = tokio::time::timeout(Duration::from_millis(50), slow.read(&mut some)).await;
        if let Ok(Ok(length)) = read {
            said.push_str(&String::from_utf8_lossy(&some[..length]));
            break;
        }
    }
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    assert!(said.contains("the header did not arrive in time"), "{said}");
    assert_eq!(world.metric("holdline_refusals_total", "header_too_slow").await.unwrap(), 1.0);
    // One that says nothing is idle, before its first request and after it.
    let mut silent = TcpStream::connect(world.public()).await.unwrap();
    assert!(is_closed(&mut silent).await);
    let mut kept = TcpStream::connect(world.public()).await.unwrap();
    assert!(say(&mut kept, &visit(1)).await.starts_with("HTTP/1.1 200 "));
    assert!(is_closed(&mut kept).await);
    assert_eq!(world.metric("holdline_connections_closed_total", "\"idle\"").await.unwrap(), 2.0);
}

#[tokio::test]
async fn an_idle_connection_of_http2_is_closed_too() {
    let (authority, folder) = certificates();
    let listener = tls(&folder, "[limits]\nidle = \"1s\"");
    let world = World::plan(ANSWERS, Part::Nothing).listeners(&listener).start().await.unwrap();
    let client = TlsClient::new(&authority, "h2", &[&TLS13], None).unwrap();
    let mut exchange = client.connect(world.public(), "edge.test").await.unwrap();
    for n in 0..3 {
        let answer = exchange.send(request(n, "https://edge.test/callin/create")).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    world.until_metric("holdline_connections_closed_total", "\"idle\"", 1.0).await.unwrap();
    assert!(exchange.send(request(9, "https://edge.test/callin/create")).await.is_err());
}

#[tokio::test]
async fn a_greeting_that_does_not_come_is_not_waited_for() {
    let (_, folder) = certificates();
    let listener = tls(&folder, "[limits]\nhandshake_time = \"200ms\"");
    let world = World::plan(ANSWERS, Part::Nothing).listeners(&listener).start().await.unwrap();
    let mut silent = TcpStream::connect(world.public()).await.unwrap();
    silent.write_all(&[0x16, 3, 1]).await.unwrap();
    assert!(is_closed(&mut silent).await);
    let closed = world.metric("holdline_connections_closed_total", "handshake_too_slow").await;
    assert_eq!(closed.unwrap(), 1.0);
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_do_not() {
    let more = "[limits]\nconnections = 16";
    let hangs = Part::StandIn(Manner::Hangs);
    let world = World::plan(hangs, hangs).more(more).start().await.unwrap();
    let mut idle = Vec::new();
    for n in 0..16 {
        let mut stream = TcpStream::connect(world.public()).await.unwrap();
        let health = say(&mut stream, HEALTH.as_bytes()).await;
        assert!(health.starts_with("HTTP/1.1 200 "), "{n}: {health}");
        idle.push(stream);
    }
    // The one that has been idle longest goes.
    let mut one_more = TcpStream::connect(world.public()).await.unwrap();
    assert!(say(&mut one_more, HEALTH.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    assert!(is_closed(&mut idle[0]).await);
    assert!(say(&mut idle[1], HEALTH.as_bytes()).await.starts_with("HTTP/1.1 200 "));
    // Now nobody is idle.
    let mut busy: Vec<_> = idle.into_iter().skip(1).chain([one_more]).collect();
    for (n, stream) in busy.iter_mut().enumerate() {
        stream.write_all(&visit(n as u64)).await.unwrap();
    }
    world.until_metric("holdline_visits_in_flight", "", 16.0).await.unwrap();
    let answer = world.raw(&closing(HEALTH)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"),
        "{answer}"
    );
    assert_eq!(
        world.metric("holdline_connections_closed_total", "\"too_many\"").await.unwrap(),
        1.0
    );
    for stream in &mut busy {
        assert!(heard(stream).await.starts_with("HTTP/1.1 200 "), "who was in is answered");
    }
}

#[tokio::test]
async fn one_address_has_its_share_unless_it_is_trusted() {
    let more = "[limits]\nconnections_per_address = 4\n[trust]\nnetworks = []";
    let world = World::plan(ANSWERS, Part::Nothing).more(more).start().await.unwrap();
    let connect = || async {
        let mut stream = TcpStream::connect(world.public()).await.unwrap();
        (say(&mut stream, HEALTH.as_bytes()).await, stream)
    };
    let mut streams = Vec::new();
    for n in 0..6 {
        let (said, stream) = connect().await;
        let status = if n < 4 { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
        assert!(said.starts_with(status), "{n}: {said}");
        streams.push(stream);
    }
    streams.clear();
    world.reconfigure("networks = []", "networks = [\"loopback\"]").unwrap();
    assert_eq!(world.manage("POST", "/reload", "").await.unwrap().0, 200);
    for n in 0..6 {
        let (said, stream) = connect().await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{n}: {said}");
        streams.push(stream);
    }
}

#[tokio::test]
async fn what_can_wait_goes_first_when_there_is_too_much() {
    let rows = r#"
[[row]]
name = "ask"
path = "/ask"
kind = "synchronous"
parties = ["callee"]
replay = "idempotent"
canned = "apology"
[[row]]
name = "report"
path = "/report"
kind = "asynchronous"
parties = ["callee"]
replay = "idempotent"
"#;
    let more = "[limits]\nrequests = 8\n[catalogue]\nfile = \"rows.toml\"\nunlisted = \"pass\"";
    let hangs = Part::StandIn(Manner::Hangs);
    let plan = World::plan(hangs, hangs).more(more).file("rows.toml", rows);
    let world = plan.start().await.unwrap();
    let mut asking = Vec::new();
    let ask = |n: u64| signed_post("/ask", &form(&call_sid(n), &[]), &format!("a{n}"));
    let report = |n: u64| signed_post("/report", &form(&call_sid(n), &[]), &format!("r{n}"));
    let page = b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for n in 0..8 {
        if n == 6 {
            let answer = world.raw(page).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        }
        if n == 7 {
            // Kept, and the origin was not even asked.
            let begun = Instant::now();
            let mut stream = TcpStream::connect(world.public()).await.unwrap();
            let answer = say(&mut stream, &report(1)).await;
            assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
        let mut stream = TcpStream::connect(world.public()).await.unwrap();
        stream.write_all(&ask(n)).await.unwrap();
        world.until_metric("holdline_requests_in_flight", "", (n + 1) as f64).await.unwrap();
        asking.push(stream);
    }
    let mut one_more = TcpStream::connect(world.public()).await.unwrap();
    let answer = say(&mut one_more, &ask(100)).await.to_ascii_lowercase();
    assert!(
        answer.contains("answered-by: canned") && answer.starts_with("http/1.1 200 "),
        "{answer}"
    );
    for kind in ["unlisted", "asynchronous", "synchronous"] {
        let shed = world.metric("holdline_shed_total", &format!("kind=\"{kind}\"")).await;
        assert_eq!(shed.unwrap(), 1.0, "{kind}");
    }
}

#[tokio::test]
async fn a_platform_says_on_which_port_it_sends_clients() {
    let world = World::plan(ANSWERS, Part::Nothing).start().await.unwrap();
    let port = holdline_tests::tools::free_address().unwrap().port();
    let edge = world.another_edge_with("platform", &[("PORT", port.to_string())]).await.unwrap();
    assert_eq!(edge.public, SocketAddr::from(([0, 0, 0, 0], port)));
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(world.raw_to(at, &closing(HEALTH)).await.unwrap().ends_with("serving\n"));
}

#[tokio::test]
async fn the_health_answer_tells_what_this_edge_can_do() {
    let world = World::plan(ANSWERS, ANSWERS).start().await.unwrap();
    let ask = || async { world.raw(&closing(HEALTH)).await.unwrap() };
    assert!(ask().await.ends_with("\r\n\r\nserving\n"));
    let head =
        world.raw(b"HEAD /holdline/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let head = head.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let post =
        world.raw(b"POST /holdline/health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert!(post.unwrap().starts_with("HTTP/1.1 405 "));
    world.origin.wire.cut().await;
    world.until("origin", "down").await.unwrap();
    assert!(ask().await.ends_with("serving\n"), "the monitor answers callers");
    world.monitor.wire.cut().await;
    world.until("monitor", "down").await.unwrap();
    let answer = ask().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("degraded: no application can be reached\n"), "{answer}");
}

#[tokio::test]
async fn faults_of_listeners_are_all_told_and_warnings_do_not_stop_anybody() {
    let (_, folder) = certificates();
    let at = folder.path().display().to_string();
    std::fs::write(folder.path().join("half.pem"), "no certificate").unwrap();
    let world = World::plan(ANSWERS, Part::Nothing).start().await.unwrap();
    world
        .reconfigure(
            "public = \"127.0.0.1:0\"",
            &format!(
                "public = [{{ address = \"nowhere\" }}, {{ address = \"127.0.0.1:0\", tls = {{ \
                 certificates = [{{ chain = \"{at}/half.pem\", key = \"{at}/gone.key\" }}, \
                 {{ chain = \"{at}/edge.pem\", key = \"{at}/other.key\" }}], \
                 client_authorities = \"{at}/half.pem\" }} }}]"
            ),
        )
        .unwrap();
    let said = world.check().await.unwrap();
    assert_eq!(said.code, 64, "{said:?}");
    for fault in [
        "listen.public[0].address: \"nowhere\" is not an address",
        "half.pem: there is no certificate (PEM) in it",
        "other.key: it is not the key of",
        "4 faults",
    ] {
        assert!(said.err.contains(fault), "{fault}\n{}", said.err);
    }
    // A certificate alone will do, but Twilio wants the whole chain.
    let whole = std::fs::read_to_string(folder.path().join("edge.pem")).unwrap();
    let end = whole.find("-----END CERTIFICATE-----").unwrap() + 26;
    std::fs::write(folder.path().join("edge.pem"), &whole[..end]).unwrap();
    let config = std::fs::read_to_string(world.config()).unwrap();
    let line = config.lines().find(|line| line.contains("public = [")).unwrap().to_owned();
    world
        .reconfigure(
            &line,
            &format!(
                "public = [{{ address = \"127.0.0.1:0\", tls = {{ certificates = \
                 [{{ chain = \"{at}/edge.pem\", key = \"{at}/edge.key\" }}] }} }}]"
            ),
        )
        .unwrap();
    let said = world.check().await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("warning: ") && said.out.contains("whole chain"), "{}", said.out);
}
