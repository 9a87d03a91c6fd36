//! Secrets: rotated without a restart, and told to nobody, whatever happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use holdline_tests::world::{ACCOUNT, ADMIN_TOKEN, PUBLIC_URL, TOKEN, call_sid, form};
use holdline_tests::{Manner, Part, World};
use holdline_twilio::signature::{Content, Key};
use rustix::process::Signal;

const ANSWERS: Part = Part::StandIn(Manner::Answers);
const PATH: &str = "/callin/create";

/// A visit signed with a token.
fn signed(n: u64, token: &str) -> String {
    let form = form(&call_sid(n), &[("Digits", "1234987")]);
    let signature = Key::auth_token(&token.into()).sign(PUBLIC_URL, PATH, Content::Form(&form));
    let body = form.encode();
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: edge.test\r\nX-Twilio-Signature: {signature}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a visit signed with a token; gives the status.
async fn visit(world: &World, n: u64, token: &str) -> String {
    let answer = world.raw(signed(n, token).as_bytes()).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

/// Whether the last request that reached the origin was signed with a token.
fn signed_with(world: &World, token: &str) -> bool {
    let reached = world.origin.reached().pop().unwrap();
    let form = holdline_twilio::Form::parse(reached.body.as_bytes()).unwrap();
    let right = Key::auth_token(&token.into()).sign(PUBLIC_URL, PATH, Content::Form(&form));
    reached.field("x-twilio-signature") == Some(right.as_str())
}

async fn reload(world: &World) -> u16 {
    world.manage("POST", "/reload", "").await.unwrap().0
}

#[tokio::test]
async fn an_auth_token_is_rotated_without_a_restart() {
    let world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    let file = world.folder().join("token");
    let write = |token: &str| {
        std::fs::write(&file, token).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    };
    let env = "\"env:TWILIO_AUTH_TOKEN\"";
    let path = format!("\"file:{}\"", file.display());
    assert_eq!([visit(&world, 1, TOKEN).await, visit(&world, 2, "new").await], ["200", "403"]);
    // Both prove, the old one signs.
    write("new");
    world.reconfigure(env, &format!("{env}, {path}")).unwrap();
    assert_eq!(reload(&world).await, 200);
    assert_eq!([visit(&world, 3, TOKEN).await, visit(&world, 4, "new").await], ["200", "200"]);
    assert!(signed_with(&world, TOKEN));
    // Both prove, the new one signs.
    world.reconfigure(&format!("{env}, {path}"), &format!("{path}, {env}")).unwrap();
    assert_eq!(reload(&world).await, 200);
    assert_eq!([visit(&world, 5, TOKEN).await, visit(&world, 6, "new").await], ["200", "200"]);
    assert!(signed_with(&world, "new"));
    // The old one is gone, and the file has another in it.
    write("newer");
    world.reconfigure(&format!("{path}, {env}"), &path).unwrap();
    assert_eq!(reload(&world).await, 200);
    let proven = [
        visit(&world, 7, TOKEN).await,
        visit(&world, 8, "new").await,
        visit(&world, 9, "newer").await,
    ];
    assert_eq!(proven, ["403", "403", "200"]);
    // One that everybody may read is not taken, and nothing changes.
    write("newest");
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let (status, said) = world.manage("POST", "/reload", "").await.unwrap();
    assert!(status == 422 && said.contains("chmod o="), "{status} {said}");
    assert_eq!(visit(&world, 10, "newer").await, "200");
    for secret in ["newer", "newest"] {
        assert!(!world.edge.log().contains(&format!("\"{secret}\"")), "{}", world.edge.log());
    }
}

#[tokio::test]
async fn no_secret_is_told_to_anybody() {
    let hold_key = "aG9sZGxpbmUgaG9sZGxpbmUgaG9sZGxpbmUgaG9sZGw=";
    let wrong = "a hold key that is none";
    let more = "[hold]\nkeys = [\"env:HOLDLINE_HOLD_KEY\"]\n[log]\nformat = \"json\"";
    let plan = World::plan(Part::StandIn(Manner::Slow(Duration::from_secs(3))), Part::Nothing);
    let world = plan.start().await.unwrap();
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), format!("{config}\n{more}")).unwrap();
    let variables =
        [("HOLDLINE_HOLD_KEY", hold_key.to_owned()), ("HOLDLINE_LOG", "trace".to_owned())];
    let edge = world.another_edge_with("talkative", &variables).await.unwrap();
    let at = edge.public;
    let admin = *edge.admin.socket_addrs(|| None).unwrap().first().unwrap();
    let ask = |request: String| {
        let world = &world;
        async move { world.raw_to(admin, request.as_bytes()).await.unwrap() }
    };
    let mut said = Vec::new();
    // A visit that is held, one that is wrongly signed, one that is not signed, one that is malformed.
    let unsigned = signed(1, TOKEN).replace("X-Twilio-Signature", "X-Other");
    for request in [signed(1, TOKEN), signed(1, "another"), unsigned] {
        said.push(world.raw_to(at, request.as_bytes()).await.unwrap());
    }
    said.push(world.raw_to(at, b"GET /\0 HTTP/1.1\r\n\r\n").await.unwrap());
    for path in ["/metrics", "/status", "/ready", "/spool", "/nowhere"] {
        for token in [ADMIN_TOKEN, "wrong"] {
            said.push(ask(format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            )).await);
        }
    }
    // A configuration whose secrets are themselves at fault.
    world.reconfigure("\"env:TWILIO_AUTH_TOKEN\"", &format!("\"{TOKEN}\"")).unwrap();
    edge.signal(Signal::HUP).unwrap();
    assert!(edge.logs("was not taken over").await);
    let checked = world.check().await.unwrap();
    assert_ne!(checked.code, 0);
    said.extend([checked.out, checked.err, edge.log()]);
    let environment = [("HOLDLINE_HOLD_KEY", wrong.to_owned())];
    let refused = world.another_edge_with("refused", &environment).await.unwrap_err();
    said.push(format!("{refused:?}"));
    let said = said.join("\n");
    for secret in [TOKEN, ADMIN_TOKEN, hold_key, wrong] {
        let found = said.find(secret).map(|at| &said[at.saturating_sub(200)..at + secret.len()]);
        assert_eq!(found, None, "{secret} is told");
    }
    // And what callers keyed, and their numbers.
    let log = edge.log();
    for private in ["1234987", "15005550006"] {
        assert!(!log.contains(private), "{private} is in the log");
    }
    assert!(log.contains(&call_sid(1)) && !log.contains(ACCOUNT));
}

#[tokio::test]
async fn memory_is_left_on_no_disk() {
    let mut world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    assert_eq!(visit(&world, 1, TOKEN).await, "200");
    let limits =
        std::fs::read_to_string(format!("/proc/{}/limits", world.edge.pid().unwrap())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    world.edge.signal(Signal::ABORT).unwrap();
    let ended = world.edge.ended(Duration::from_secs(10)).await.unwrap();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
}
