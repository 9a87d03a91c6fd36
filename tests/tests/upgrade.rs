//! Reload, upgrade and stop while 300 visits a second go on: nobody is refused, nobody is cut, nobody is
//! dropped, and what one process owes another pays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use holdline_tests::requests::way_back;
use holdline_tests::world::{call_sid, form};
use holdline_tests::{Load, Manner, Part, Tally, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use twilio_sim::Fetched;

const RATE: u32 = 300;
/// A row that must not run twice, on which a caller may be held; one that may; and one of reports.
const ROWS: &str = r#"
[[row]]
name = "once"
path = "/once"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "unsent"
canned = "apology"
hold = "60s"
[[row]]
name = "report"
path = "/report"
kind = "asynchronous"
parties = ["phones_only_caller"]
replay = "idempotent"
"#;

async fn world() -> World {
    let answers = Part::StandIn(Manner::Answers);
    World::plan(answers, answers).rows(ROWS).drain("2s").start().await.unwrap()
}

#[track_caller]
fn unharmed(tally: &Tally, at_least: u64) {
    assert!(
        tally.faults.is_empty(),
        "{} of {}: {:#?}",
        tally.faults.len(),
        tally.steered,
        tally.faults
    );
    assert!(tally.steered >= at_least, "{}", tally.steered);
}

#[track_caller]
fn by(fetched: &Fetched) -> String {
    let received = fetched.result.as_ref().expect("an answer");
    received.header("holdline-answered-by").expect("who answered").to_owned()
}

/// Upgrades over the admin plane; gives the process that has taken over.
async fn upgrade(world: &World) -> i64 {
    let (status, answer) = world.manage("POST", "/upgrade", "").await.unwrap();
    assert_eq!(status, 200, "{answer}\n{}", world.edge.log());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["process"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_disturbs_nobody_and_a_bad_file_changes_nothing() {
    let world = world().await;
    let load = Load::start(world.public(), "/once", RATE);
    load.more(100).await;
    for n in 0..6 {
        let good = if n % 2 == 0 {
            ("grace = \"15s\"", "grace = \"14s\"")
        } else {
            ("grace = \"14s\"", "grace = \"15s\"")
        };
        world.reconfigure(good.0, good.1).unwrap();
        world.edge.signal(Signal::HUP).unwrap();
        world.until_metric("holdline_reloads_total", "done", f64::from(n + 1)).await.unwrap();
        load.more(60).await;
    }
    // A file with faults, all of which are told, and one that changes what cannot change.
    world.reconfigure("drain = \"2s\"", "drain = \"soon\"\ngraze = 1").unwrap();
    let (status, said) = world.manage("POST", "/reload", "").await.unwrap();
    assert_eq!(status, 422, "{said}");
    for fault in ["stop.drain: \\\"soon\\\" is not a duration", "stop.graze: is not a known key"] {
        assert!(said.contains(fault), "{said}");
    }
    world.reconfigure("drain = \"soon\"\ngraze = 1", "drain = \"2s\"").unwrap();
    world.reconfigure("admin = \"127.0.0.1:0\"", "admin = \"127.0.0.1:1\"").unwrap();
    let (status, said) = world.manage("POST", "/reload", "").await.unwrap();
    assert_eq!(status, 422);
    assert!(said.contains("listen.admin: cannot change"), "{said}");
    assert_eq!(world.metric("holdline_reloads_total", "refused").await.unwrap(), 2.0);
    load.more(100).await;
    unharmed(&load.stop().await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_ends_under_the_configuration_it_began_with() {
    let world = world().await;
    let [old, new] = [&world.origin, &world.monitor];
    let slow = Manner::Slow(Duration::from_millis(1500));
    old.stand_in.as_ref().unwrap().behave(slow);
    let visit = form(&call_sid(1), &[]);
    let reload = async {
        while old.reached().is_empty() {
            tokio::task::yield_now().await;
        }
        // The origin moves to where the monitor is.
        let (from, to) = (old.wire.address().to_string(), new.wire.address().to_string());
        world.reconfigure(&from, &to).unwrap();
        let (status, said) = world.manage("POST", "/reload", "").await.unwrap();
        assert_eq!(status, 200, "{said}");
        let next = world.post("/once", &form(&call_sid(2), &[])).await;
        assert_eq!(by(&next), "origin");
        assert_eq!((old.reached().len(), new.reached().len()), (1, 1));
    };
    let (first, ()) = tokio::join!(world.post("/once", &visit), reload);
    assert_eq!(by(&first), "origin");
    assert!(first.took >= Duration::from_millis(1500), "{:?}", first.took);
    assert_eq!((old.reached().len(), new.reached().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_disturbs_nobody() {
    let mut world = world().await;
    let load = Load::start(world.public(), "/once", RATE);
    load.more(200).await;
    let first = i64::from(world.edge.pid().unwrap());
    world.edge.signal(Signal::USR2).unwrap();
    load.more(300).await;
    // The first process is idle once every kept connection was asked to close, and ends by itself.
    let ended = world.edge.ended(Duration::from_secs(30)).await.unwrap();
    assert!(ended.success(), "{ended}\n{}", world.edge.log());
    let second = upgrade(&world).await;
    load.more(300).await;
    let third = upgrade(&world).await;
    load.more(300).await;
    assert!(first != second && second != third, "{first} {second} {third}");
    unharmed(&load.stop().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_fails_changes_nothing() {
    let world = world().await;
    let load = Load::start(world.public(), "/once", RATE);
    load.more(50).await;
    world.reconfigure("drain = \"2s\"", "drain = \"soon\"").unwrap();
    let (status, said) = world.manage("POST", "/upgrade", "").await.unwrap();
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("the new process has ended"), "{said}");
    load.more(100).await;
    // And the next one may go well.
    world.reconfigure("drain = \"soon\"", "drain = \"2s\"").unwrap();
    upgrade(&world).await;
    load.more(100).await;
    unharmed(&load.stop().await, 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_that_freezes_or_dies_before_it_serves_changes_nothing() {
    let world = world().await;
    let program = world.folder().join("installed");
    let edge = world.another_edge_from(&program, "installed").await.unwrap();
    let load = Load::start(edge.public, "/once", RATE);
    for (script, expect) in [
        ("exit 3", "the new process has ended"),
        ("echo nonsense >&0; sleep 60", "the new process says"),
        ("echo '\"Prepared\"' >&0; sleep 60", "does not serve within 3s"),
        ("echo '\"Prepared\"' >&0; kill -9 $$", "(SIGKILL)"),
    ] {
        load.more(50).await;
        // Put in place as a package manager does: the running program keeps its file.
        let new = world.folder().join("new");
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &program).unwrap();
        edge.signal(Signal::USR2).unwrap();
        assert!(edge.logs(expect).await, "{script}: {}", edge.log());
    }
    load.more(300).await;
    unharmed(&load.stop().await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_serves_again_if_the_one_that_took_over_dies() {
    let world = world().await;
    let load = Load::start(world.public(), "/once", RATE);
    load.more(100).await;
    // While this caller is on hold the first process has something to live for.
    world.monitor.wire.cut().await;
    world.until("monitor", "down").await.unwrap();
    let origin = world.origin.stand_in.as_ref().unwrap();
    origin.treat("Digits=1", Manner::Slow(Duration::from_secs(12)));
    let held = world.post("/once", &form(&call_sid(1), &[("Digits", "1")])).await;
    assert_eq!(by(&held), "hold");
    let second = upgrade(&world).await;
    load.more(100).await;
    let second = Pid::from_raw(i32::try_from(second).unwrap()).unwrap();
    kill_process(second, Signal::KILL).unwrap();
    assert!(world.edge.logs("this process serves again").await, "{}", world.edge.log());
    load.more(200).await;
    let tally = load.stop().await;
    // What the dead process had in hand is lost, as after any crash; nothing after that.
    assert!(tally.faults.len() <= 20, "{:#?}", tally.faults);
    assert!(tally.steered >= 380, "{}", tally.steered);
    let kept = world.post("/report", &form(&call_sid(2), &[])).await;
    assert_eq!(kept.result.unwrap().status, 204);
    world.until_metric("holdline_spool_entries", "waiting", 0.0).await.unwrap();
    let (status, said) = world.manage("POST", "/reload", "").await.unwrap();
    assert_eq!(status, 200, "{said}");
    upgrade(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_spool_is_refused_before_anything_is_handed_over() {
    let world = world().await;
    world.reconfigure("[stop]", "[spool]\nfolder = \"another\"\n[stop]").unwrap();
    for path in ["/reload", "/upgrade"] {
        let (status, _) = world.manage("POST", path, "").await.unwrap();
        assert!(status == 422 || status == 503, "{path}: {status}");
    }
    assert!(world.edge.logs("spool.folder: cannot change").await, "{}", world.edge.log());
    let visit = world.post("/once", &form(&call_sid(1), &[])).await;
    assert_eq!(by(&visit), "origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_takes_over_what_the_old_one_owes() {
    let world = world().await;
    let origin = world.origin.stand_in.as_ref().unwrap();
    // Two callers on hold: one whose answer is there before the upgrade, one whose answer comes later.
    origin.treat("Digits=1", Manner::Slow(Duration::from_secs(4)));
    origin.treat("Digits=2", Manner::Slow(Duration::from_secs(9)));
    world.monitor.wire.cut().await;
    world.until("monitor", "down").await.unwrap();
    let call = |n: u64| form(&call_sid(n), &[("Digits", &n.to_string())]);
    let ask = |n: u64| {
        let (world, form) = (&world, call(n));
        async move { world.post("/once", &form).await }
    };
    let (soon, late) = tokio::join!(ask(1), ask(2));
    assert_eq!((by(&soon), by(&late)), ("hold".to_owned(), "hold".to_owned()));
    while world.metric("holdline_attempts_total", "outcome=\"good\"").await.unwrap() < 1.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    upgrade(&world).await;
    // Health crosses over: nobody has to find out anew.
    let status = world.status().await.unwrap();
    assert_eq!(status["upstreams"]["monitor"]["verdict"], "down", "{status}");
    let back = |fetched: &Fetched, n: u64| {
        let (world, url) = (&world, way_back(fetched).unwrap());
        async move { world.post(&url, &form(&call_sid(n), &[])).await }
    };
    assert_eq!(by(&back(&soon, 1).await), "origin");
    let mut again = back(&late, 2).await;
    assert_eq!(by(&again), "hold", "the old process is still asking");
    while by(&again) == "hold" {
        tokio::time::sleep(Duration::from_millis(100)).await;
        again = back(&again, 2).await;
    }
    assert_eq!(by(&again), "origin");
    assert_eq!(origin.reached().len(), 2, "each was run once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_crosses_over() {
    let world = world().await;
    world.origin.wire.cut().await;
    world.until("origin", "down").await.unwrap();
    for n in 0..20 {
        let kept = world.post("/report", &form(&call_sid(n), &[])).await;
        assert_eq!(kept.result.unwrap().status, 204);
    }
    upgrade(&world).await;
    for n in 20..40 {
        let kept = world.post("/report", &form(&call_sid(n), &[])).await;
        assert_eq!(kept.result.unwrap().status, 204);
    }
    world.origin.wire.mend().await;
    world.until_metric("holdline_spool_entries", "waiting", 0.0).await.unwrap();
    let calls: std::collections::BTreeSet<_> =
        world.origin.reached().into_iter().map(|reached| reached.body).collect();
    assert_eq!(calls.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_nobody_where_somebody_looks_at_its_health() {
    let mut world = world().await;
    let other = world.another_edge("other").await.unwrap();
    let load = Load::start(world.public(), "/once", RATE);
    load.more(200).await;
    let health = b"GET /holdline/health HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n";
    let well = world.raw(health).await.unwrap();
    assert!(well.starts_with("HTTP/1.1 200 ") && well.ends_with("serving\n"), "{well}");
    world.edge.terminate().unwrap();
    // What a balancer does: it looks, and sends clients elsewhere.
    let mut said = world.raw(health).await.unwrap();
    while said.starts_with("HTTP/1.1 200 ") {
        tokio::time::sleep(Duration::from_millis(20)).await;
        said = world.raw(health).await.unwrap();
    }
    assert!(said.starts_with("HTTP/1.1 503 ") && said.ends_with("stopping\n"), "{said}");
    load.more(100).await;
    load.send_to(other.public);
    let ended = world.edge.ended(Duration::from_secs(10)).await.unwrap();
    assert!(ended.success(), "{ended}");
    load.more(100).await;
    unharmed(&load.stop().await, 400);
}
