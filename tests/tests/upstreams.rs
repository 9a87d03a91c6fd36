//! Upstreams as they are: names that move, certificates, hosts and paths of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use holdline_tests::name_server::Says;
use holdline_tests::world::{PUBLIC_URL, TOKEN, call_sid, form};
use holdline_tests::{Authority, Manner, NameServer, Part, StandIn, TlsFront, World};
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};

const ANSWERS: Part = Part::StandIn(Manner::Answers);
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who answered a visit.
async fn visit(world: &World, n: u64) -> String {
    let fetched = world.post("/callin/create", &form(&call_sid(n), &[])).await;
    let received = fetched.result.expect("an answer");
    assert_eq!(received.status, 200);
    received.header("holdline-answered-by").expect("who answered").to_owned()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn loopback(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

fn addresses(last: &[u8], ttl: u64) -> Says {
    Says::Addresses(last.iter().copied().map(loopback).collect(), Duration::from_secs(ttl))
}

/// A world whose origin is known by a name.
async fn named(names: &NameServer, monitor: Part) -> World {
    let dns = format!("[dns]\nservers = [\"{}\"]", names.address());
    let plan = World::plan(ANSWERS, monitor).origin("http://origin.test:{port}", "");
    plan.more(&dns).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_moves_is_followed_and_one_that_is_lost_is_remembered() {
    let names = NameServer::start(addresses(&[1], 1)).await.unwrap();
    let world = named(&names, Part::Nothing).await;
    assert_eq!(visit(&world, 1).await, "origin");
    // It moves to another address, as after a deployment, when the answer has run out.
    let elsewhere = SocketAddr::new(loopback(2), world.origin.wire.address().port());
    let moved = StandIn::start_at(elsewhere, Manner::Answers).await.unwrap();
    names.say(addresses(&[2], 1));
    let mut n = 1;
    until("the new address", async || {
        n += 1;
        assert_eq!(visit(&world, n).await, "origin");
        !moved.reached().is_empty()
    })
    .await;
    // Then the name server fails in every way it can.
    for fault in
        [Says::Failure, Says::NoSuchName, Says::Addresses(Vec::new(), PATIENCE), Says::Nothing]
    {
        let asked = names.asked();
        names.say(fault.clone());
        until("another question", async || names.asked() > asked + 1).await;
        assert_eq!(visit(&world, 1000).await, "origin", "{fault:?}");
    }
    let status = world.status().await.unwrap();
    assert_eq!(status["upstreams"]["origin"]["address"], elsewhere.to_string());
}

#[tokio::test]
async fn an_answer_that_lives_long_is_not_asked_for_again() {
    let names = NameServer::start(addresses(&[1], 100)).await.unwrap();
    let world = named(&names, Part::Nothing).await;
    let asked = names.asked();
    assert!((1..=2).contains(&asked), "once a kind of address, asked {asked} times");
    for n in 0..20 {
        assert_eq!(visit(&world, n).await, "origin");
    }
    assert_eq!(names.asked(), asked);
}

#[tokio::test]
async fn of_several_addresses_one_that_takes_connections_is_used() {
    // Nobody listens on the first two.
    let names = NameServer::start(addresses(&[8, 9, 1], 100)).await.unwrap();
    let world = named(&names, ANSWERS).await;
    for n in 0..5 {
        assert_eq!(visit(&world, n).await, "origin");
    }
    assert_eq!(world.monitor.reached().len(), 0);
    world.until("origin", "well").await.unwrap();
}

#[tokio::test]
async fn a_name_without_an_address_at_the_start_is_found_later() {
    let names = NameServer::start(Says::NoSuchName).await.unwrap();
    let world = named(&names, ANSWERS).await;
    assert_eq!(visit(&world, 1).await, "monitor");
    names.say(addresses(&[1], 100));
    let mut n = 1;
    until("the origin", async || {
        n += 1;
        visit(&world, n).await == "origin"
    })
    .await;
}

/// A world in which the ways to origin and monitor lead to one server, behind TLS with a certificate
/// for `origin.test`.
struct Secured {
    world: World,
    front: TlsFront,
    _inner: StandIn,
}

/// Only the monitor may answer the second row.
const ROWS: &str = r#"
[[row]]
name = "both"
path = "/callin/create"
kind = "synchronous"
parties = ["web_caller"]
replay = "idempotent"
canned = "apology"
[[row]]
name = "monitor_only"
path = "/monitor"
kind = "synchronous"
parties = ["web_caller"]
replay = "idempotent"
canned = "apology"
chain = ["monitor"]
"#;

/// `RIGHT` and `WRONG` in the lines of an upstream stand for files with the authority of that
/// certificate, and with another.
async fn secured(origin: &str, monitor: &str) -> Secured {
    let (right, wrong) = (Authority::new().unwrap(), Authority::new().unwrap());
    let inner = StandIn::start(Manner::Answers).await.unwrap();
    let front = TlsFront::start(&right, "origin.test", inner.address()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, authority: &Authority| {
        let path = folder.path().join(name);
        std::fs::write(&path, authority.pem()).unwrap();
        format!("\"{}\"", path.display())
    };
    let (right, wrong) = (file("right.pem", &right), file("wrong.pem", &wrong));
    let lines = |text: &str| text.replace("RIGHT", &right).replace("WRONG", &wrong);
    let world = World::plan(ANSWERS, ANSWERS)
        .origin("https://{address}", &lines(origin))
        .monitor("https://{address}", &lines(monitor))
        .rows(ROWS)
        .start()
        .await
        .unwrap();
    world.origin.wire.lead_to(front.address());
    world.monitor.wire.lead_to(front.address());
    Secured { world, front, _inner: inner }
}

#[tokio::test]
async fn an_upstream_is_asked_by_tls_only_if_it_proves_its_name() {
    const TRUSTED: &str = "ca = RIGHT\nserver_name = \"origin.test\"";
    let secured_well = secured(TRUSTED, "ca = WRONG\nserver_name = \"origin.test\"").await;
    for n in 0..3 {
        assert_eq!(visit(&secured_well.world, n).await, "origin");
    }
    assert!(secured_well.front.greeted().iter().all(|name| name == "origin.test"));
    // What the origin is trusted on, the monitor is not, although their connections could be shared.
    let fetched = secured_well.world.post("/monitor", &form(&call_sid(9), &[])).await;
    let answered = fetched.result.expect("an answer");
    assert_eq!(answered.header("holdline-answered-by"), Some("canned"));
    let failed = "outcome=\"tls_failed\",upstream=\"monitor\"";
    assert_eq!(secured_well.world.metric("holdline_attempts_total", failed).await.unwrap(), 1.0);

    for wrong in [
        "ca = RIGHT\nserver_name = \"another.test\"",
        "server_name = \"origin.test\"",
        "ca = RIGHT",
    ] {
        let secured = secured(wrong, TRUSTED).await;
        assert_eq!(visit(&secured.world, 1).await, "monitor", "{wrong}");
    }
}

#[tokio::test]
async fn host_and_path_are_those_of_the_upstream_and_signed_as_it_knows_them() {
    // (lines of the origin, URL it is reached by, path asked for, host sent, what is signed)
    let edge = PUBLIC_URL.trim_start_matches("http://");
    let cases = [
        ("", "http://{address}", "/callin/create", edge, PUBLIC_URL.to_owned()),
        ("", "http://{address}/app/", "/app/callin/create", edge, format!("{PUBLIC_URL}/app")),
        (
            "host = \"app.platform.test\"",
            "http://{address}",
            "/callin/create",
            "app.platform.test",
            PUBLIC_URL.to_owned(),
        ),
        (
            "public_url = \"https://app.platform.test\"",
            "http://{address}/v2",
            "/v2/callin/create",
            "app.platform.test",
            "https://app.platform.test".to_owned(),
        ),
        (
            "public_url = \"https://calls.test/twilio\"\nhost = \"inside.test:81\"",
            "http://{address}/behind",
            "/behind/callin/create",
            "inside.test:81",
            "https://calls.test/twilio".to_owned(),
        ),
    ];
    for (lines, url, path, host, signed) in cases {
        let world = World::plan(ANSWERS, Part::Nothing).origin(url, lines).start().await.unwrap();
        assert_eq!(visit(&world, 1).await, "origin", "{lines}");
        let reached = world.origin.reached().remove(0);
        assert_eq!(reached.line, format!("POST {path} HTTP/1.1"), "{lines}");
        assert_eq!(reached.field("host"), Some(host), "{lines}");
        let parameters = Form::parse(reached.body.as_bytes()).unwrap();
        let key = Key::auth_token(&TOKEN.into());
        let signature = key.sign(&signed, "/callin/create", Content::Form(&parameters));
        assert_eq!(reached.field("x-twilio-signature"), Some(signature.as_str()), "{lines}");
        // Probes go the same way.
        world.until("origin", "well").await.unwrap();
    }
}

#[tokio::test]
async fn a_redirect_is_followed_below_the_upstream_and_no_further() {
    for (url, location, by) in [
        ("http://{address}", "/elsewhere", "origin"),
        ("http://{address}/app", "/app/elsewhere", "origin"),
        ("http://{address}/app", "http://edge.test/app/elsewhere", "origin"),
        ("http://{address}/app", "http://another.test/app/elsewhere", "monitor"),
        ("http://{address}/app", "/elsewhere", "monitor"),
        ("http://{address}/app", "/application/elsewhere", "monitor"),
    ] {
        let origin = Part::StandIn(Manner::RedirectsTo(location));
        let world = World::plan(origin, ANSWERS).origin(url, "").start().await.unwrap();
        assert_eq!(visit(&world, 1).await, by, "{url} {location}");
        let last = world.origin.reached().pop().unwrap();
        let followed = last.line.starts_with("GET ");
        assert_eq!(followed, by == "origin", "{}", last.line);
    }
}
