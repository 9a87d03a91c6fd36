//! What the operator orders: who answers, and failures made on purpose. Both end by themselves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, Plan, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const ANSWERS: Part = Part::StandIn(Manner::Answers);
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(20);

async fn world() -> World {
    proven(plan().start().await.unwrap()).await
}

/// On a machine that is busy a probe may be late, and that would end a drill.
fn plan<'p>() -> Plan<'p> {
    let patient = "[upstreams.origin.probe]\ntimeout = \"10s\"";
    let also = "[upstreams.monitor.probe]\ntimeout = \"10s\"";
    let url = "http://{address}";
    World::plan(ANSWERS, ANSWERS).origin(url, patient).monitor(url, also)
}

/// A drill needs both proven, and nothing is proven in the first moment.
async fn proven(world: World) -> World {
    for upstream in ["origin", "monitor"] {
        world
            .until_status(|status| status["upstreams"][upstream]["proven_ms_ago"].is_u64())
            .await
            .unwrap();
    }
    world
}

/// Who answered a visit.
async fn visit(world: &World, path: &str, n: u64) -> String {
    let received = world.post(path, &form(&call_sid(n), &[])).await.result.expect("an answer");
    received.header("holdline-answered-by").expect("who answered").to_owned()
}

/// Runs a tool that has to do what it is asked for.
async fn done(world: &World, arguments: &[&str]) -> String {
    let said = world.tool(arguments).await.unwrap();
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}\n{}", world.edge.log());
    said.out
}

async fn refused(world: &World, arguments: &[&str]) -> String {
    let said = world.tool(arguments).await.unwrap();
    assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
    said.err
}

/// Begins a drill over the admin plane; gives status and answer.
async fn drill(world: &World, mode: &str, more: Value) -> (u16, Value) {
    let mut order =
        json!({ "fail": "origin", "mode": mode, "share_percent": 100.0, "for_ms": 60_000 });
    if let (Value::Object(order), Value::Object(more)) = (&mut order, more) {
        order.extend(more);
    }
    let (status, body) = world.manage("POST", "/drill", &order.to_string()).await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or_default())
}

async fn report(world: &World) -> Value {
    let (_, body) = world.manage("GET", "/drill", "").await.unwrap();
    serde_json::from_str(&body).unwrap()
}

/// The report, when it counts so many visits: each is counted when its answer has left.
async fn report_of(world: &World, visits: u64) -> Value {
    let begun = Instant::now();
    loop {
        let report = report(world).await;
        if report["visits"] == visits {
            return report;
        }
        assert!(begun.elapsed() < PATIENCE, "{report:#}");
    }
}

#[tokio::test]
async fn a_stance_decides_who_answers_and_ends_by_itself() {
    let world = world().await;
    assert_eq!(done(&world, &["stance"]).await, "automatic\n");
    let said = done(&world, &["stance", "monitor", "--for", "10m"]).await;
    assert!(said.starts_with("monitor until 20"), "{said}");
    for n in 0..3 {
        assert_eq!(visit(&world, "/callin/create", n).await, "monitor");
        assert_eq!(visit(&world, "/transfer/7/connect", n).await, "monitor");
    }
    assert_eq!(world.origin.reached().len(), 0);
    // The verdict is nobody's order: it is probed on.
    let status = world.status().await.unwrap();
    assert_eq!(status["upstreams"]["origin"]["verdict"], "well", "{status:#}");
    assert_eq!(status["stances"][0]["stance"], "monitor", "{status:#}");
    assert_eq!(world.metric("holdline_stance", "stance=\"monitor\"").await.unwrap(), 1.0);
    done(&world, &["stance", "canned"]).await;
    assert_eq!(visit(&world, "/callin/create", 4).await, "canned");
    // Nobody is held for an answer that is not to come.
    assert_eq!(visit(&world, "/identify_caller?attempt=1", 4).await, "canned");
    assert_eq!((world.origin.reached().len(), world.monitor.reached().len()), (0, 6));
    let (health, _) = health(&world).await;
    assert_eq!(health, 200, "canned callers are served, if badly");
    done(&world, &["stance", "automatic"]).await;
    assert_eq!(visit(&world, "/callin/create", 5).await, "origin");
    // And without anybody.
    done(&world, &["stance", "monitor", "--for", "300ms"]).await;
    world.until_status(|status| status["stances"] == json!([])).await.unwrap();
    assert_eq!(visit(&world, "/callin/create", 6).await, "origin");
    let begun = Instant::now();
    loop {
        let told = done(&world, &["history", "--kind", "stance"]).await;
        if told.contains("monitor until") && told.contains("automatic (over)") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{told}");
    }
    assert!(world.edge.log().contains("\"target\":\"audit\""), "{}", world.edge.log());
}

async fn health(world: &World) -> (u16, String) {
    let request = b"GET /holdline/health HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n";
    let answer = world.raw(request).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn a_stance_may_be_for_one_row_and_be_an_exception() {
    let world = world().await;
    done(&world, &["stance", "monitor", "--row", "callin_create"]).await;
    assert_eq!(visit(&world, "/callin/create", 1).await, "monitor");
    assert_eq!(visit(&world, "/transfer/7/connect", 1).await, "origin");
    done(&world, &["stance", "canned"]).await;
    done(&world, &["stance", "automatic", "--row", "transfer_connect"]).await;
    assert_eq!(visit(&world, "/callin/create", 2).await, "monitor");
    assert_eq!(visit(&world, "/transfer/7/connect", 2).await, "origin");
    assert_eq!(visit(&world, "/identify_caller?attempt=1", 2).await, "canned");
    let orders = done(&world, &["stance"]).await;
    assert_eq!(orders.lines().count(), 3, "{orders}");
    done(&world, &["stance", "automatic"]).await;
    assert_eq!(done(&world, &["stance"]).await, "automatic\n");
    assert_eq!(visit(&world, "/callin/create", 3).await, "origin");
    // What cannot be ordered is refused with what would be right.
    assert!(refused(&world, &["stance", "canned", "--row", "nowhere"]).await.contains("nowhere"));
    assert!(refused(&world, &["stance", "canned", "--for", "25h"]).await.contains("a day at most"));
    let (status, answer) = world.get_admin("/stance").await.unwrap();
    assert_eq!(status, 401, "{answer}");
}

#[tokio::test]
async fn a_report_waits_while_its_upstream_is_barred() {
    let world = world().await;
    done(&world, &["stance", "monitor"]).await;
    let ended = form(&call_sid(1), &[("CallStatus", "completed")]);
    let received = world.post("/calls/7/call_ended", &ended).await.result.unwrap();
    assert_eq!(received.header("holdline-answered-by"), Some("spool"));
    // Long enough for many tries, were there any.
    let probes = world.metric("holdline_probes_total", "upstream=\"origin\"").await.unwrap();
    let begun = Instant::now();
    while world.metric("holdline_probes_total", "upstream=\"origin\"").await.unwrap() < probes + 2.0
    {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(world.origin.reached().len(), 0);
    done(&world, &["stance", "automatic"]).await;
    world.until_status(|status| status["spool"]["waiting"] == 0).await.unwrap();
    assert_eq!(world.origin.reached().len(), 1);
}

#[tokio::test]
async fn a_stance_outlives_reload_upgrade_and_crash() {
    let mut world = world().await;
    done(&world, &["stance", "monitor", "--for", "1h"]).await;
    assert_eq!(world.manage("POST", "/reload", "").await.unwrap().0, 200);
    assert_eq!(visit(&world, "/callin/create", 1).await, "monitor");
    let (status, answer) = world.manage("POST", "/upgrade", "").await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(visit(&world, "/callin/create", 2).await, "monitor");
    let mut crashed = self::world().await;
    done(&crashed, &["stance", "monitor", "--for", "1h"]).await;
    let kept = crashed.folder().join("journal/state.json");
    let begun = Instant::now();
    while !std::fs::read_to_string(&kept).unwrap_or_default().contains("\"stance\":\"monitor\"") {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    crashed.edge.kill().await.unwrap();
    crashed.restart_edge().await.unwrap();
    assert_eq!(visit(&crashed, "/callin/create", 3).await, "monitor");
    assert_eq!(world.origin.reached().len() + crashed.origin.reached().len(), 0);
    world.edge.kill().await.unwrap();
}

#[tokio::test]
async fn a_drill_lets_the_origin_fail_and_says_what_callers_got() {
    for (mode, once) in [("refuse", "monitor"), ("500", "canned"), ("html", "canned")] {
        let world = world().await;
        let (status, begun) = drill(&world, mode, json!({})).await;
        assert_eq!(status, 200, "{begun:#}");
        assert_eq!(visit(&world, "/callin/create", 1).await, "monitor", "{mode}");
        // A row where a callee is on the phone does not take part.
        assert_eq!(visit(&world, "/calls/7/incoming", 2).await, "origin", "{mode}");
        assert_eq!(visit(&world, "/caller/7/pause?session_id=1", 3).await, "monitor", "{mode}");
        let named = json!({ "rows": ["transfer_connect"] });
        world.manage("POST", "/drill/stop", "").await.unwrap();
        assert_eq!(drill(&world, mode, named).await.0, 200);
        // Named, it does; and whether it may run twice is respected.
        assert_eq!(visit(&world, "/transfer/7/connect", 4).await, once, "{mode}");
        assert_eq!(visit(&world, "/callin/create", 5).await, "origin", "{mode}");
        world.manage("POST", "/drill/stop", "").await.unwrap();
        let report = report_of(&world, 1).await;
        assert_eq!(report["end"], "stopped", "{mode}");
        assert_eq!(report["rows"]["transfer_connect"][once], 1, "{report:#}");
        // Nothing of it was seen as a failure, and nothing reached the origin that was not to.
        let status = world.status().await.unwrap();
        assert_eq!(status["upstreams"]["origin"]["verdict"], "well", "{mode}: {status:#}");
        assert_eq!(status["upstreams"]["origin"]["bad_attempts_in_a_row"], 0, "{mode}");
        // But what was said in its name: that is real.
        let reached = world.origin.reached();
        let visits = reached.iter().filter(|reached| !reached.line.contains("/holdline/notices"));
        assert_eq!(visits.count(), 2, "{mode}");
        let of_the_mode = format!("mode=\"{mode}\"");
        let counted = world.metric("holdline_drill_attempts_total", &of_the_mode).await.unwrap();
        assert_eq!(counted, 3.0, "{mode}");
        let bad = world.metric("holdline_attempts_total", "outcome=\"refused\",").await.unwrap()
            + world.metric("holdline_attempts_total", "outcome=\"status_5xx\",").await.unwrap();
        assert_eq!(bad, 0.0, "{mode}");
        assert!(world.edge.log().contains("/drill:"), "{}", world.edge.log());
    }
}

#[tokio::test]
async fn a_drill_that_hangs_ends_for_those_who_wait_when_it_ends() {
    let world = world().await;
    assert_eq!(drill(&world, "hang", json!({})).await.0, 200);
    let begun = Instant::now();
    assert_eq!(visit(&world, "/callin/create", 1).await, "monitor");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let held = report_of(&world, 1).await;
    assert!(held["longest_ms"].as_u64() > Some(300), "{held:#}");
    world.manage("POST", "/drill/stop", "").await.unwrap();
    assert_eq!(visit(&world, "/callin/create", 2).await, "origin");
    assert_eq!(world.status().await.unwrap()["upstreams"]["origin"]["attempts_hanging"], 0);
}

#[tokio::test]
async fn the_command_waits_for_the_end_and_prints_what_callers_got() {
    let world = world().await;
    let order = ["drill", "--fail", "origin", "--mode", "500", "--share", "100%", "--for", "2s"];
    let told = async {
        let mut n = 0;
        while world.status().await.unwrap()["drill"].is_null() {
            tokio::task::yield_now().await;
        }
        while !world.status().await.unwrap()["drill"].is_null() {
            n += 1;
            visit(&world, "/callin/create", n).await;
        }
    };
    let (said, ()) = tokio::join!(done(&world, &order), told);
    for says in
        ["origin fails by 500, for 100 % of calls", "(ended: over)", "callin_create", " 0 lost"]
    {
        assert!(said.contains(says), "{says}: {said}");
    }
    assert_eq!(world.metric("holdline_drills_total", "end=\"over\"").await.unwrap(), 1.0);
    let again = done(&world, &["drill", "--report", "--json"]).await;
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["end"], &again["lost"]), (&"over".into(), &0.into()), "{again:#}");
    let begun = Instant::now();
    loop {
        let history = done(&world, &["history", "--kind", "drill"]).await;
        if history.contains("began: origin fails by 500") && history.contains("over: ") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{history}");
    }
}

#[tokio::test]
async fn a_share_of_the_calls_takes_part() {
    let world = world().await;
    assert_eq!(drill(&world, "500", json!({ "share_percent": 30.0 })).await.0, 200);
    let mut by = Vec::new();
    for n in 0..60 {
        by.push(visit(&world, "/callin/create", n).await);
        // A call takes part as a whole.
        assert_eq!(&visit(&world, "/caller/7/pause?session_id=1", n).await, &by[n as usize]);
    }
    let failed = by.iter().filter(|by| *by == "monitor").count();
    assert!((1..60).contains(&failed), "{failed} of 60");
    report_of(&world, 2 * failed as u64).await;
}

#[tokio::test]
async fn a_drill_ends_at_once_when_something_really_fails() {
    let world = world().await;
    assert_eq!(drill(&world, "500", json!({})).await.0, 200);
    world.monitor.wire.cut().await;
    let ended = world.until_status(|status| status["drill"].is_null()).await.unwrap();
    assert_ne!(ended["upstreams"]["monitor"]["verdict"], "well", "{ended:#}");
    let report = report(&world).await;
    assert_eq!(report["end"], "real_failure", "{report:#}");
    assert_eq!(visit(&world, "/callin/create", 1).await, "origin");
    // Nor does one begin.
    let (status, why) = drill(&world, "500", json!({})).await;
    assert_eq!(status, 409);
    assert!(why["error"].as_str().unwrap().contains("a drill needs both upstreams well"), "{why}");
    world.monitor.wire.mend().await;
    world.until_status(|status| status["upstreams"]["monitor"]["verdict"] == "well").await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_drilled_is_refused_with_every_fault() {
    let world = world().await;
    let faults = json!({ "fail": "edge", "share_percent": 0.0, "for_ms": 0, "rows": ["nowhere"] });
    let (status, why) = drill(&world, "500", faults).await;
    assert_eq!(status, 422);
    for fault in ["fail:", "share_percent:", "for_ms:", "rows: there is no row \"nowhere\""] {
        assert!(why["error"].as_str().unwrap().contains(fault), "{fault}: {why}");
    }
    let (status, _) = world.get_admin("/drill").await.unwrap();
    assert_eq!(status, 401);
    assert_eq!(world.manage("GET", "/drill", "").await.unwrap().0, 404);
    done(&world, &["stance", "monitor"]).await;
    assert_eq!(drill(&world, "500", json!({})).await.0, 409);
    done(&world, &["stance", "automatic"]).await;
    assert_eq!(drill(&world, "500", json!({})).await.0, 200);
    assert_eq!(drill(&world, "500", json!({})).await.0, 409);
    assert!(
        refused(&world, &["drill", "--fail", "origin", "--mode", "500", "--for", "31m"])
            .await
            .contains("30 minutes")
    );
}

#[tokio::test]
async fn a_drill_outlives_reload_and_upgrade_and_no_crash() {
    let mut world = world().await;
    assert_eq!(drill(&world, "500", json!({})).await.0, 200);
    assert_eq!(visit(&world, "/callin/create", 1).await, "monitor");
    assert_eq!(world.manage("POST", "/reload", "").await.unwrap().0, 200);
    assert_eq!(visit(&world, "/callin/create", 2).await, "monitor");
    let (status, answer) = world.manage("POST", "/upgrade", "").await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(visit(&world, "/callin/create", 3).await, "monitor");
    let report = report_of(&world, 3).await;
    assert_eq!(report["end"], Value::Null, "{report:#}");
    let mut crashed = self::world().await;
    assert_eq!(drill(&crashed, "500", json!({})).await.0, 200);
    crashed.edge.kill().await.unwrap();
    crashed.restart_edge().await.unwrap();
    assert_eq!(visit(&crashed, "/callin/create", 4).await, "origin");
    world.edge.kill().await.unwrap();
}

#[tokio::test]
async fn an_order_outlives_the_process_that_was_given_it() {
    let world = world().await;
    // While this caller is on hold the first process has something to live for.
    world.monitor.stand_in.as_ref().unwrap().treat("Digits=1", Manner::Status(500));
    let slow = Manner::Slow(Duration::from_secs(12));
    world.origin.stand_in.as_ref().unwrap().treat("Digits=1", slow);
    let keyed = form(&call_sid(9), &[("Digits", "1")]);
    let held = world.post("/identify_caller?attempt=1", &keyed).await.result.unwrap();
    assert_eq!(held.header("holdline-answered-by"), Some("hold"));
    let (status, answer) = world.manage("POST", "/upgrade", "").await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let heir: Value = serde_json::from_str(&answer).unwrap();
    done(&world, &["stance", "monitor"]).await;
    // The new process dies; the old one serves again.
    let heir = Pid::from_raw(i32::try_from(heir["process"].as_i64().unwrap()).unwrap()).unwrap();
    kill_process(heir, Signal::KILL).unwrap();
    assert!(world.edge.logs("this process serves again").await, "{}", world.edge.log());
    let begun = Instant::now();
    while world.get_admin("/live").await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "{}", world.edge.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = world.status().await.unwrap();
    assert_eq!(status["stances"][0]["stance"], "monitor", "{status:#}");
    let before = world.origin.reached().len();
    assert_eq!(visit(&world, "/callin/create", 1).await, "monitor");
    assert_eq!(world.origin.reached().len(), before);
}

#[tokio::test]
async fn a_drill_loses_no_callback() {
    let world = proven(plan().on_a_disk_that_fails().start().await.unwrap()).await;
    assert_eq!(drill(&world, "500", json!({})).await.0, 200);
    world.disk("full").unwrap();
    for n in 0..5 {
        let ended = form(&call_sid(n), &[("CallStatus", "completed")]);
        let received = world.post("/caller/end_session", &ended).await.result.unwrap();
        assert!(received.status < 300, "{}", received.status);
    }
    world.until_status(|status| status["drill"].is_null()).await.unwrap();
    assert_eq!(report(&world).await["end"], "real_failure");
    assert_eq!(world.metric("holdline_callback_lost_total", "").await.unwrap(), 0.0);
    let (status, why) = drill(&world, "500", json!({})).await;
    assert_eq!(status, 409);
    assert!(why["error"].as_str().unwrap().contains("the spool does not keep"), "{why}");
}

#[tokio::test]
async fn what_is_ordered_now_is_meant_and_ends_a_drill() {
    let world = world().await;
    assert_eq!(drill(&world, "500", json!({ "fail": "monitor" })).await.0, 200);
    done(&world, &["stance", "monitor"]).await;
    assert_eq!(report(&world).await["end"], "stopped");
    assert_eq!(visit(&world, "/callin/create", 1).await, "monitor");
}

#[tokio::test]
async fn an_exception_ends_with_its_rule() {
    let world = world().await;
    done(&world, &["stance", "canned", "--for", "500ms"]).await;
    done(&world, &["stance", "automatic", "--row", "callin_create", "--for", "1h"]).await;
    world.until_status(|status| status["stances"] == json!([])).await.unwrap();
    assert_eq!(drill(&world, "500", json!({})).await.0, 200);
}
