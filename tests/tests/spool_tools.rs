//! What people do with the spool, by the command line and over the admin plane.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::program::Said;
use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, World};

const ANSWERS: Part = Part::StandIn(Manner::Answers);

/// A world whose origin is gone and whose spool holds a report of each of these calls.
async fn with_reports(calls: std::ops::RangeInclusive<u64>) -> World {
    let world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    world.origin.wire.cut().await;
    for call in calls {
        report(&world, "/calls/7/call_ended", call).await;
    }
    world
}

async fn report(world: &World, path: &str, call: u64) {
    let form = form(&call_sid(call), &[("CallStatus", "completed"), ("Digits", "4711")]);
    let received = world.post(path, &form).await.result.unwrap();
    assert_eq!((received.status, received.header("holdline-answered-by")), (204, Some("spool")));
}

async fn tool(world: &World, arguments: &[&str]) -> Said {
    world.spool(arguments, "").await.unwrap()
}

/// Runs a tool that has to do what it is asked for.
async fn done(world: &World, arguments: &[&str]) -> String {
    let said = tool(world, arguments).await;
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    said.out
}

/// The delivery ids of a list.
async fn ids(world: &World, arguments: &[&str]) -> Vec<String> {
    let list = done(world, &[&["list", "--format", "json"], arguments].concat()).await;
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone();
    list.lines().map(|line| id(line).as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_waits_is_listed_and_shown_without_telephone_numbers() {
    let world = with_reports(1..=3).await;
    report(&world, "/transfer/9/end", 1).await;
    let table = done(&world, &["list"]).await;
    assert!(table.contains("4 of 4") && table.contains(&call_sid(2)), "{table}");
    assert!(!table.contains("5550006"), "{table}");
    for (filter, count) in [
        (vec!["--row", "transfer_ended"], 1),
        (vec!["--call", &call_sid(1)], 2),
        (vec!["--state", "dead"], 0),
        (vec!["--account", holdline_tests::world::ACCOUNT], 4),
        (vec!["--older-than", "1h"], 0),
        (vec!["--newer-than", "1h", "--row", "call_ended"], 3),
    ] {
        assert_eq!(ids(&world, &filter).await.len(), count, "{filter:?}");
    }
    let one = ids(&world, &["--row", "transfer_ended"]).await.remove(0);
    let masked = done(&world, &["show", &one]).await;
    assert!(masked.contains("/transfer/9/end") && !masked.contains("5005550006"), "{masked}");
    assert!(!masked.contains("4711"), "{masked}");
    let whole = done(&world, &["show", &one, "--numbers"]).await;
    assert!(whole.contains("+15005550006") && whole.contains("4711"), "{whole}");
    let nothing = tool(&world, &["list", "--state", "lost"]).await;
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("is not one of waiting, delivered, dead"), "{}", nothing.err);
    // Nobody else can read the file.
    use std::os::unix::fs::PermissionsExt as _;
    for (name, mode) in
        [("spool", 0o700), ("spool/spool.sqlite", 0o600), ("spool/spool.sqlite-wal", 0o600)]
    {
        let metadata = std::fs::metadata(world.folder().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_or_removed_when_a_person_says_so() {
    let world = World::start(Part::StandIn(Manner::Status(404)), Part::Nothing).await.unwrap();
    for call in 1..=4 {
        report(&world, "/calls/7/call_ended", call).await;
    }
    // A spool that is still being opened keeps them first.
    world.until_metric("holdline_spool_entries", "state=\"dead\"", 4.0).await.unwrap();
    assert_eq!(ids(&world, &["--state", "dead"]).await.len(), 4);
    let dry = done(&world, &["replay", "--state", "dead", "--dry-run"]).await;
    assert_eq!(dry, "4 chosen, nothing changed\n");
    // Everything has to be asked for, and what destroys is asked about.
    let all = tool(&world, &["drop"]).await;
    assert!(all.code == 1 && all.err.contains("or --all"), "{all:?}");
    let unsure = world.spool(&["drop", "--call", &call_sid(4)], "2\n").await.unwrap();
    assert!(unsure.code == 1 && unsure.err.contains("nothing changed"), "{unsure:?}");
    let sure = world.spool(&["drop", "--call", &call_sid(4)], "1\n").await.unwrap();
    assert!(sure.code == 0 && sure.out.contains("1 done"), "{sure:?}");
    assert_eq!(ids(&world, &["--state", "dead"]).await.len(), 3);
    let origin = world.origin.stand_in.as_ref().unwrap();
    origin.behave(Manner::Answers);
    let before = origin.reached().len();
    done(&world, &["replay", "--state", "dead", "--yes"]).await;
    world.until_metric("holdline_spool_delivered_total", "", 3.0).await.unwrap();
    assert_eq!(origin.reached().len(), before + 3);
    for (state, count) in [("delivered", 3.0), ("dead", 0.0), ("waiting", 0.0)] {
        world.until_metric("holdline_spool_entries", state, count).await.unwrap();
    }
    assert_eq!(ids(&world, &["--state", "delivered"]).await.len(), 3);
    assert_eq!(ids(&world, &["--state", "dead"]).await.len(), 0);
    assert!(world.edge.log().contains("callbacks were removed for good"));
}

#[tokio::test]
async fn without_its_token_the_admin_plane_shows_and_changes_nothing() {
    let world = with_reports(1..=1).await;
    let (status, _) = world.get_admin("/spool").await.unwrap();
    assert_eq!(status, 401);
    let address = *world.edge.admin.socket_addrs(|| None).unwrap().first().unwrap();
    for line in
        ["POST /spool/replay", "POST /spool/drop", "POST /spool/import", "GET /spool/export"]
    {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = world.raw_to(address, request.as_bytes()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{line}: {answer}");
    }
    let (status, body) = world
        .manage("POST", "/spool/drop", r#"{"filter":{"state":"waiting"},"confirm":7}"#)
        .await
        .unwrap();
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("this would remove 1 for good"), "{body}");
    let (status, body) =
        world.manage("GET", "/spool?state=waiting&row=call_ended", "").await.unwrap();
    assert!(status == 200 && body.contains(&call_sid(1)), "{status} {body}");
    let (status, body) = world.manage("GET", "/spool?older_than=soon", "").await.unwrap();
    assert!(status == 400 && body.contains("not a number of seconds"), "{status} {body}");
    let id = ids(&world, &[]).await.remove(0);
    let (status, body) = world.manage("GET", &format!("/spool/delivery/{id}"), "").await.unwrap();
    assert!(status == 200 && !body.contains("5005550006"), "{status} {body}");
    assert_eq!(world.manage("GET", "/spool/delivery/none", "").await.unwrap().0, 404);
    // What is already known is not taken in twice, and half an import is none.
    let (status, lines) = world.manage("GET", "/spool/export", "").await.unwrap();
    assert_eq!((status, lines.matches("ordered_by").count()), (200, 1));
    let export = done(&world, &["export"]).await;
    let (status, body) = world.manage("POST", "/spool/import", &export).await.unwrap();
    assert_eq!((status, body.as_str()), (200, r#"{"given":1,"new":0}"#));
    let (status, body) =
        world.manage("POST", "/spool/import", &format!("{export}{{}}\n")).await.unwrap();
    assert!(
        status == 400 && body.contains("line 2") && body.contains("nothing was taken in"),
        "{body}"
    );
}

#[tokio::test]
async fn an_edge_that_will_not_come_back_leaves_its_disk_to_another() {
    let mut dead = with_reports(1..=5).await;
    dead.edge.kill().await.unwrap();
    // Without an edge one can look, and change nothing.
    assert_eq!(ids(&dead, &["--state", "waiting"]).await.len(), 5);
    let refused = tool(&dead, &["replay", "--all", "--yes"]).await;
    assert!(refused.code == 1 && refused.err.contains("no edge answers"), "{refused:?}");
    let world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    let disk = dead.folder().join("spool").display().to_string();
    assert_eq!(done(&world, &["import", &disk, "--dry-run"]).await, "5 read, nothing taken in\n");
    let taken_in = done(&world, &["import", &disk]).await;
    assert_eq!(taken_in, "5 read, 5 of them new and taken in\n");
    world.until_metric("holdline_spool_delivered_total", "", 5.0).await.unwrap();
    let again = done(&world, &["import", &disk]).await;
    assert_eq!(again, "5 read, 0 of them new and taken in\n");
    // The same by an export.
    let another = World::start(ANSWERS, Part::Nothing).await.unwrap();
    let export = done(&dead, &["export"]).await;
    let said = another.spool(&["import", "-"], &export).await.unwrap();
    assert_eq!(said.out, "5 read, 5 of them new and taken in\n", "{said:?}");
    another.until_metric("holdline_spool_delivered_total", "", 5.0).await.unwrap();
    let bodies = |world: &World| {
        let mut bodies: Vec<_> =
            world.origin.reached().into_iter().map(|r| (r.line, r.body)).collect();
        bodies.sort();
        bodies
    };
    assert_eq!(bodies(&world), bodies(&another));
    assert_eq!(bodies(&world).len(), 5);
}
