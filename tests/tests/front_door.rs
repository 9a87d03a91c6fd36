//! Who and what is let in: proof, malformed requests, limits, start and end of the process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use holdline_tests::world::{ACCOUNT, PUBLIC_URL, TOKEN, call_sid, form};
use holdline_tests::{Manner, Part, World};
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};

async fn world() -> World {
    World::start(Part::StandIn(Manner::Answers), Part::StandIn(Manner::Answers)).await.unwrap()
}

fn signed(target: &str, form: &Form) -> String {
    Key::auth_token(&TOKEN.into()).sign(PUBLIC_URL, target, Content::Form(form))
}

/// A POST by hand: whatever the fields say is what is sent.
fn post(target: &str, fields: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("POST {target} HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Sends `bytes`, expects `status`, and expects that nothing reached an upstream.
async fn refused(world: &World, bytes: impl AsRef<[u8]>, status: u16) -> String {
    let bytes = bytes.as_ref();
    let before = world.origin.reached().len() + world.monitor.reached().len();
    let answer = world.raw(bytes).await.unwrap();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n→ {answer}");
    assert_eq!(world.origin.reached().len() + world.monitor.reached().len(), before, "{shown}");
    answer
}

#[tokio::test]
async fn nothing_unproven_reaches_an_upstream() {
    let world = world().await;
    let visit = form(&call_sid(1), &[("Digits", "1000001")]);
    let (body, target) = (visit.encode(), "/identify_caller?attempt=1");
    let proof = signed(target, &visit);
    let answer = world
        .raw(post(target, &[FORM, ("X-Twilio-Signature", &proof)], &body).as_bytes())
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(world.origin.reached().len(), 1);

    let wrong =
        Key::auth_token(&"another token".into()).sign(PUBLIC_URL, target, Content::Form(&visit));
    let other_account = Form::from_pairs([("AccountSid", "AC00000000000000000000000000000000")]);
    let stranger = signed(target, &other_account);
    for (what, target, signature, body) in [
        ("unsigned", target, None, body.as_str()),
        ("empty", target, Some(""), body.as_str()),
        ("no base64", target, Some("!!!"), body.as_str()),
        ("wrongly signed", target, Some(wrong.as_str()), body.as_str()),
        ("another path", "/callin/create", Some(proof.as_str()), body.as_str()),
        ("another query", "/identify_caller?attempt=2", Some(proof.as_str()), body.as_str()),
        ("another body", target, Some(proof.as_str()), "Digits=7"),
        ("another account", target, Some(stranger.as_str()), &other_account.encode()),
    ] {
        let mut fields = vec![FORM];
        fields.extend(signature.map(|signature| ("X-Twilio-Signature", signature)));
        let answer = refused(&world, post(target, &fields, body), 403).await;
        assert!(answer.contains("the signature is not valid"), "{what}: {answer}");
    }
    assert_eq!(world.metric("holdline_refusals_total", "signature_mismatch").await.unwrap(), 4.0);
    assert_eq!(world.metric("holdline_refusals_total", "signature_missing").await.unwrap(), 2.0);
    assert_eq!(world.metric("holdline_refusals_total", "unknown_account").await.unwrap(), 1.0);
}

#[tokio::test]
async fn a_get_is_proven_by_its_query() {
    let rows = "[[row]]\nname = \"got\"\npath = \"/got\"\nmethods = [\"GET\"]\nkind = \"synchronous\"\n\
                parties = [\"web_caller\"]\nreplay = \"idempotent\"\ncanned = \"apology\"";
    let plan = World::plan(Part::StandIn(Manner::Answers), Part::Nothing);
    let world = plan.rows(rows).start().await.unwrap();
    let query = format!("AccountSid={ACCOUNT}&FromCity=Forli%27");
    let proof = Key::auth_token(&TOKEN.into()).sign(
        PUBLIC_URL,
        &format!("/got?AccountSid={ACCOUNT}&FromCity=Forli'"),
        Content::Empty,
    );
    let request = format!(
        "GET /got?{query} HTTP/1.1\r\nHost: x\r\nX-Twilio-Signature: {proof}\r\nConnection: close\r\n\r\n"
    );
    let answer = world.raw(request.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(world.origin.reached()[0].line, format!("GET /got?{query} HTTP/1.1"));
}

#[tokio::test]
async fn what_is_malformed_is_refused_with_a_clear_word() {
    let world = world().await;
    let sign = ("X-Twilio-Signature", "x");
    for (body, status) in [
        ("a=%zz", 400),
        ("a=%2", 400),
        ("a=%ff", 400),
        (&*"a=1&".repeat(600), 400),
        (&*"x".repeat(70_000), 413),
    ] {
        refused(&world, post("/callin/create", &[FORM, sign], body), status).await;
    }
    refused(&world, post("/callin/create?a=%zz", &[sign], ""), 400).await;
    refused(&world, post("/nowhere", &[FORM, sign], "a=1"), 404).await;
    refused(&world, post("/callin/create/", &[FORM, sign], "a=1"), 404).await;
    refused(&world, post("//callin/create", &[FORM, sign], "a=1"), 404).await;
    refused(&world, post("/callin%2Fcreate", &[FORM, sign], "a=1"), 404).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let answer = refused(
            &world,
            format!("{method} /callin/create HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
            405,
        )
        .await;
        assert!(answer.to_ascii_lowercase().contains("allow: post"), "{answer}");
    }
    refused(&world, "POST /callin/create HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400).await;
    refused(
        &world,
        "POST /callin/create HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
        400,
    )
    .await;
    refused(
        &world,
        "POST http://edge.test/callin/create HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        400,
    )
    .await;
    refused(&world, "POST /callin/create HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400)
        .await;
    refused(&world, "not http at all\r\n\r\n", 400).await;
    let large = "x".repeat(40_000);
    refused(&world, post("/callin/create", &[FORM, ("X-Large", &large)], "a=1"), 431).await;
    refused(&world, post(&format!("/callin/create?{large}"), &[FORM], "a=1"), 431).await;
    // And after all that it still works.
    let visit = form(&call_sid(1), &[]);
    let answer = world.post("/callin/create", &visit).await.result.unwrap();
    assert_eq!(answer.header("holdline-answered-by"), Some("origin"));
    assert_eq!(world.metric("holdline_panics_total", "").await.unwrap(), 0.0);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = world().await;
    let half = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na=1"
        )
    };
    let begun = Instant::now();
    refused(&world, half("/calls/7/call_ended"), 408).await;
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    // Where somebody waits on the phone, a document is better than a refusal.
    let begun = Instant::now();
    let answer = refused(&world, half("/calls/7/incoming"), 200).await;
    assert!(
        answer.contains("<Hangup/>") && answer.to_ascii_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn outsiders_cannot_speak_in_our_name() {
    let world = world().await;
    let visit = form(&call_sid(1), &[]);
    let proof = signed("/callin/create", &visit);
    let fields = [
        FORM,
        ("X-Twilio-Signature", proof.as_str()),
        ("Holdline-Delivery", "forged"),
        ("Holdline-Not-Run", "1"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("Cookie", "kept=1"),
    ];
    world.raw(post("/callin/create", &fields, &visit.encode()).as_bytes()).await.unwrap();
    let reached = &world.origin.reached()[0];
    assert_ne!(reached.field("holdline-delivery"), Some("forged"));
    assert_eq!(reached.field("holdline-not-run"), None);
    assert_eq!(reached.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(
        (reached.field("cookie"), reached.field("host")),
        (Some("kept=1"), Some("edge.test"))
    );
}

#[tokio::test]
async fn unlisted_paths_pass_through_where_that_is_configured() {
    let pass = "[catalogue]\nunlisted = \"pass\"";
    let plan = World::plan(Part::StandIn(Manner::Answers), Part::Nothing);
    let world = plan.more(pass).start().await.unwrap();
    let request = "GET /app?x=1 HTTP/1.1\r\nHost: a\r\nHoldline-Delivery: forged\r\nConnection: close\r\n\r\n";
    let answer = world.raw(request.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("stand-in"), "{answer}");
    let reached = &world.origin.reached()[0];
    assert_eq!(
        (reached.line.as_str(), reached.field("holdline-delivery")),
        ("GET /app?x=1 HTTP/1.1", None)
    );
    // A row spelled another way does not slip past the proof.
    refused(&world, post("/calls/7/%69ncoming", &[FORM], "a=1"), 404).await;
    world.origin.wire.cut().await;
    let answer = world.raw(request.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn the_process_ends_as_soon_as_the_last_visit_has() {
    let mut world =
        World::start(Part::StandIn(Manner::Hangs), Part::StandIn(Manner::Answers)).await.unwrap();
    let visit = form(&call_sid(1), &[]);
    let public = world.public();
    let begun = Instant::now();
    let in_flight = async {
        while world.metric("holdline_attempts_in_flight", "upstream=\"origin\"").await.unwrap()
            < 1.0
        {
            tokio::task::yield_now().await;
        }
        world.edge.terminate().unwrap();
        while tokio::net::TcpStream::connect(public).await.is_ok() {
            tokio::task::yield_now().await;
        }
        begun.elapsed()
    };
    let (answer, refused_after) = tokio::join!(world.post("/callin/create", &visit), in_flight);
    let took = answer.took;
    assert_eq!(answer.result.unwrap().header("holdline-answered-by"), Some("monitor"));
    assert!(refused_after < took, "new connections were taken until the end");
    let status = world.edge.ended(Duration::from_secs(5)).await.unwrap();
    assert!(status.success(), "{status}\n{}", world.edge.log());

    // Long before the grace is over that it has.
    let mut idle = World::start(Part::Nothing, Part::Nothing).await.unwrap();
    idle.edge.terminate().unwrap();
    assert!(idle.edge.ended(Duration::from_secs(5)).await.unwrap().success());
}

#[tokio::test]
async fn readiness_fails_first_while_visits_are_still_taken() {
    let plan = World::plan(Part::StandIn(Manner::Answers), Part::Nothing);
    let mut world = plan.drain("2s").start().await.unwrap();
    assert_eq!(world.get_admin("/ready").await.unwrap().0, 200);
    assert_eq!(world.get_admin("/live").await.unwrap().0, 200);
    world.edge.terminate().unwrap();
    while world.get_admin("/ready").await.unwrap().0 == 200 {
        tokio::task::yield_now().await;
    }
    let answer = world.post("/callin/create", &form(&call_sid(1), &[])).await;
    assert_eq!(answer.result.unwrap().status, 200);
    assert!(world.edge.ended(Duration::from_secs(10)).await.unwrap().success());
    let log = world.edge.log();
    let line = log
        .lines()
        .find(|line| line.contains("\"target\":\"visit\""))
        .expect("a line for the visit");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (line["row"].as_str(), line["by"].as_str()),
        (Some("callin_create"), Some("origin")),
        "{line}"
    );
    assert!(!log.contains("15005550006") && !log.contains(TOKEN), "{log}");
}

#[tokio::test]
async fn a_faulty_configuration_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(
        &path,
        "environment = \"x\"\npublic_url = 7\n[listen]\npublic = \"127.0.0.1:0\"",
    )
    .unwrap();
    for command in ["serve", "check"] {
        let mut program = holdline_tests::Program::start(
            "holdline",
            command,
            &[command, "--config", path.to_str().unwrap()],
            &std::collections::BTreeMap::new(),
            folder.path(),
        )
        .unwrap();
        let status = program.ended(Duration::from_secs(10)).await.unwrap();
        assert_eq!(status.code(), Some(64));
        let said = program.log();
        for expect in [
            "public_url: must be text",
            "listen.admin: is missing",
            "twilio.account: name at least one",
            "upstreams.origin: is missing",
        ] {
            assert!(said.contains(expect), "{expect:?} is not in:\n{said}");
        }
    }
}
