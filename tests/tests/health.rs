//! What is believed of the upstreams, what that rests on, and what outlives the process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, World};
use rustix::process::Signal;
use serde_json::Value;

const ANSWERS: Part = Part::StandIn(Manner::Answers);
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lines of an upstream whose probes are not late on a machine that is busy.
const PATIENT_PROBE: &str = "[upstreams.origin.probe]\ntimeout = \"10s\"";

/// Who answered a visit.
async fn visit(world: &World, path: &str, n: u64) -> String {
    let received = world.post(path, &form(&call_sid(n), &[])).await.result.expect("an answer");
    assert_eq!(received.status, 200);
    received.header("holdline-answered-by").expect("who answered").to_owned()
}

async fn upstream(world: &World, which: &str) -> Value {
    world.status().await.unwrap()["upstreams"][which].clone()
}

/// Waits until something is so of an upstream's status.
async fn until(world: &World, which: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let status = world.until_status(|status| is_so(&status["upstreams"][which])).await;
    status.unwrap()["upstreams"][which].clone()
}

/// What the journal says, by `holdline history`.
async fn history(world: &World, arguments: &[&str]) -> Vec<Value> {
    let said = world.tool(&[&["history", "--json"], arguments].concat()).await.unwrap();
    if said.err.contains("there is no journal in") {
        // Nothing was written yet.
        return Vec::new();
    }
    assert_eq!(said.code, 0, "{said:?}");
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the journal says something.
async fn until_written(world: &World, arguments: &[&str], is_so: impl Fn(&[Value]) -> bool) {
    let begun = Instant::now();
    loop {
        let entries = history(world, arguments).await;
        if is_so(&entries) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{entries:#?}");
    }
}

#[tokio::test]
async fn a_row_that_fails_alone_fails_over_alone() {
    // Long enough to be looked at before it is tried again.
    let more = "[health]\ntrial_again = \"20s\"";
    let world = World::plan(ANSWERS, ANSWERS).more(more).start().await.unwrap();
    let origin = world.origin.stand_in.as_ref().unwrap();
    origin.treat("POST /identify_caller", Manner::Status(500));
    assert_eq!(visit(&world, "/callin/create", 1).await, "origin");
    for n in 2..5 {
        assert_eq!(visit(&world, "/identify_caller", n).await, "monitor");
    }
    until(&world, "origin", |status| status["rows"]["identify_caller"]["verdict"] == "down").await;
    let alone = world.metric("holdline_row_fails_alone", "row=\"identify_caller\"");
    assert_eq!(alone.await.unwrap(), 1.0);
    // The row goes elsewhere at once, everything else as before.
    let before = origin.reached().len();
    assert_eq!(visit(&world, "/identify_caller", 5).await, "monitor");
    assert_eq!(origin.reached().len(), before);
    assert_eq!(visit(&world, "/callin/create", 6).await, "origin");
    assert_eq!(visit(&world, "/callin/create", 7).await, "origin");
    // It is tried beside the monitor, and comes back. The wait that was begun goes on, though.
    world.reconfigure("trial_again = \"20s\"", "trial_again = \"1s\"").unwrap();
    assert_eq!(world.manage("POST", "/reload", "").await.unwrap().0, 200);
    origin.treat("POST /identify_caller", Manner::Answers);
    let begun = Instant::now();
    let mut n = 8;
    while upstream(&world, "origin").await["rows"]["identify_caller"]["verdict"] != "well" {
        visit(&world, "/identify_caller", n).await;
        n += 1;
        assert!(begun.elapsed() < 2 * PATIENCE);
    }
    assert_eq!(visit(&world, "/identify_caller", n).await, "origin");
    assert_eq!(alone_now(&world).await, 0.0);
    until_written(&world, &["--row", "identify_caller"], |changes| {
        let to: Vec<&str> = changes.iter().filter_map(|change| change["to"].as_str()).collect();
        to.first() == Some(&"doubtful") && to.contains(&"down") && to.contains(&"trial")
    })
    .await;
    let of_the_origin = history(&world, &["--upstream", "origin", "--kind", "change"]).await;
    let own = of_the_origin.iter().filter(|change| change["row"].is_null());
    assert!(own.clone().all(|change| change["to"] != "down"), "{of_the_origin:#?}");
}

async fn alone_now(world: &World) -> f64 {
    world.metric("holdline_row_fails_alone", "row=\"identify_caller\"").await.unwrap()
}

#[tokio::test]
async fn a_row_of_which_the_origin_knows_nothing_is_not_the_origins_fault() {
    let plan = World::plan(ANSWERS, ANSWERS).origin("http://{address}", PATIENT_PROBE);
    let world = plan.start().await.unwrap();
    world.origin.stand_in.as_ref().unwrap().treat("/identify_caller", Manner::Status(404));
    for n in 0..3 {
        assert_eq!(visit(&world, "/identify_caller", n).await, "monitor");
    }
    let status =
        until(&world, "origin", |s| s["rows"]["identify_caller"]["verdict"] == "down").await;
    assert_eq!((&status["verdict"], &status["bad_attempts_in_a_row"]), (&"well".into(), &0.into()));
    // Where the monitor knows no more of it, both are asked.
    world.monitor.stand_in.as_ref().unwrap().treat("/identify_caller", Manner::Status(404));
    for n in 3..6 {
        visit(&world, "/identify_caller", n).await;
    }
    until(&world, "monitor", |s| s["rows"]["identify_caller"]["verdict"] == "down").await;
    let before = world.origin.reached().len();
    assert_eq!(visit(&world, "/identify_caller", 6).await, "hold");
    assert!(world.origin.reached().len() > before);
}

#[tokio::test]
async fn a_monitor_that_is_known_to_be_down_is_not_asked() {
    let world = World::plan(Part::StandIn(Manner::Status(500)), Part::StandIn(Manner::Sick))
        .more("[health]\nstale_after = \"2s\"")
        .start()
        .await
        .unwrap();
    world.until("monitor", "down").await.unwrap();
    assert_eq!(visit(&world, "/callin/create", 1).await, "canned");
    assert_eq!(world.monitor.reached().len(), 0);
    // What was not proven for long is stale, and says so.
    let status = until(&world, "monitor", |status| status["stale"] == true).await;
    assert!(status["proven_ms_ago"].is_null(), "{status:#}");
    assert_eq!(world.metric("holdline_stale", "upstream=\"monitor\"").await.unwrap(), 1.0);
    world.monitor.stand_in.as_ref().unwrap().behave(Manner::Answers);
    let status = until(&world, "monitor", |status| status["stale"] == false).await;
    assert!(status["proven_ms_ago"].as_u64().unwrap() < 2000, "{status:#}");
    let proven = world.metric("holdline_proven_timestamp_seconds", "upstream=\"monitor\"");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((proven.await.unwrap() - now.as_secs_f64()).abs() < 5.0);
}

#[tokio::test]
async fn a_probe_that_is_late_is_bad_and_measured_all_the_same() {
    let world = World::start(ANSWERS, ANSWERS).await.unwrap();
    world.monitor.wire.delay(Duration::from_millis(1500));
    let begun = Instant::now();
    let bucket = async |le: &str| {
        let (_, metrics) = world.get_admin("/metrics").await.unwrap();
        let labels = [format!("le=\"{le}\""), "upstream=\"monitor\"".to_owned()];
        let of = |line: &&str| {
            line.starts_with("holdline_probe_seconds_bucket")
                && labels.iter().all(|label| line.contains(label))
        };
        let line = metrics.lines().find(of);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    while bucket("2.5").await - bucket("1").await < 2.0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let late = world.metric("holdline_probes_total", "result=\"timed_out\"").await.unwrap();
    assert!(late >= 2.0, "{late}");
    world.until("monitor", "down").await.unwrap();
    until_written(&world, &["--kind", "probe", "--upstream", "monitor", "--bad"], |probes| {
        probes.iter().any(|probe| probe["result"] == "timed_out")
    })
    .await;
}

#[tokio::test]
async fn a_probe_asks_as_it_is_configured_to() {
    let lines = "[upstreams.origin.probe]\npath = \"/ready ?\"";
    assert!(World::plan(ANSWERS, ANSWERS).origin("http://{address}", lines).start().await.is_err());
    let lines = "[upstreams.origin.probe]\nhost = \"probed.example\"\nbody = \"read\"";
    let world =
        World::plan(ANSWERS, ANSWERS).origin("http://{address}", lines).start().await.unwrap();
    until(&world, "origin", |status| status["good_probes_in_a_row"].as_u64() > Some(1)).await;
    let probe = world.origin.stand_in.as_ref().unwrap().last_probe().unwrap();
    assert_eq!(probe.field("host"), Some("probed.example"));
    // Visits are sent to the usual host.
    visit(&world, "/callin/create", 1).await;
    assert_ne!(world.origin.reached()[0].field("host"), Some("probed.example"));
    // A body that says something else is no answer.
    let lines = "[upstreams.origin.probe]\nbody = \"something else\"";
    let world =
        World::plan(ANSWERS, ANSWERS).origin("http://{address}", lines).start().await.unwrap();
    world.until("origin", "down").await.unwrap();
    assert!(world.metric("holdline_probes_total", "result=\"body\"").await.unwrap() >= 3.0);
}

#[tokio::test]
async fn probes_that_fail_take_nothing_down_that_serves_and_are_told_of() {
    let lines = "[upstreams.origin.probe]\nbody = \"something else\"";
    let world =
        World::plan(ANSWERS, ANSWERS).origin("http://{address}", lines).start().await.unwrap();
    // Visits go on all the while; probes alone would have taken it down long before.
    let mut n = 0;
    loop {
        n += 1;
        assert_eq!(visit(&world, "/callin/create", n).await, "origin");
        let status = upstream(&world, "origin").await;
        assert_ne!(status["verdict"], "down", "{status:#}");
        if status["bad_probes_in_a_row"].as_u64() > Some(12) {
            assert_eq!(status["disagreement"], "probes", "{status:#}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.metric("holdline_disagreement", "bad=\"probes\"").await.unwrap(), 1.0);
}

#[tokio::test]
async fn slow_answers_are_a_doubt_and_no_more() {
    let slow = Part::StandIn(Manner::Slow(Duration::from_millis(400)));
    let more = "[health]\nslow_after = \"100ms\"\nwindow_minimum = 4";
    let plan = World::plan(slow, Part::Nothing).origin("http://{address}", PATIENT_PROBE);
    let world = plan.more(more).start().await.unwrap();
    for n in 0..5 {
        assert_eq!(visit(&world, "/transfer/7/connect", n).await, "origin");
    }
    let status = until(&world, "origin", |status| status["verdict"] == "doubtful").await;
    let reason = status["last_change"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("attempts in the window were slow"), "{reason}");
    assert!(world.metric("holdline_slow_share", "upstream=\"origin\"").await.unwrap() > 0.9);
    // When nobody has waited for long it is well again.
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    until(&world, "origin", |status| status["verdict"] == "well").await;
}

#[tokio::test]
async fn what_is_believed_outlives_a_crash() {
    let mut world = World::start(Part::StandIn(Manner::Html), ANSWERS).await.unwrap();
    for n in 0..3 {
        visit(&world, "/callin/create", n).await;
    }
    // Gone down once; its probes are well, so that a new process would know nothing of it.
    until(&world, "origin", |status| status["flaps"] == 1).await;
    let origin = world.origin.reached().len();
    until_kept(&world, |state| state["belief"]["health"]["beliefs"][0]["upstream"]["flaps"] == 1)
        .await;
    world.edge.kill().await.unwrap();
    world.restart_edge().await.unwrap();
    let status = upstream(&world, "origin").await;
    assert_eq!(status["flaps"], 1, "{status:#}\n{}", world.edge.log());
    assert!(["down", "trial"].contains(&status["verdict"].as_str().unwrap()), "{status:#}");
    assert!(status["since_ms"].as_u64().unwrap() > 0);
    // A visit that must not run twice asks who serves.
    assert_eq!(visit(&world, "/transfer/7/connect", 9).await, "monitor");
    assert_eq!(world.origin.reached().len(), origin);
    // It is another process, and counts its own time.
    assert!(world.status().await.unwrap()["uptime_ms"].as_u64().unwrap() < 20_000);
}

#[tokio::test]
async fn what_was_believed_of_another_host_or_too_long_ago_is_forgotten() {
    for (before, after) in [
        ("state_max_age = \"10m\"", "state_max_age = \"0s\""),
        ("host = \"one.example\"", "host = \"another.example\""),
    ] {
        let plan = World::plan(Part::StandIn(Manner::Html), ANSWERS);
        let plan = plan.origin("http://{address}", "host = \"one.example\"");
        let more = "[journal]\nstate_max_age = \"10m\"";
        let mut world = plan.more(more).start().await.unwrap();
        for n in 0..3 {
            visit(&world, "/callin/create", n).await;
        }
        until(&world, "origin", |status| status["flaps"] == 1).await;
        until_kept(&world, |state| {
            state["belief"]["health"]["beliefs"][0]["upstream"]["flaps"] == 1
        })
        .await;
        world.edge.kill().await.unwrap();
        world.reconfigure(before, after).unwrap();
        world.restart_edge().await.unwrap();
        let status = upstream(&world, "origin").await;
        assert_eq!(status["flaps"], 0, "{after}: {status:#}");
    }
}

#[tokio::test]
async fn a_state_that_cannot_be_read_keeps_nobody_from_starting() {
    let mut world = World::start(ANSWERS, ANSWERS).await.unwrap();
    until_kept(&world, |_| true).await;
    world.edge.kill().await.unwrap();
    let file = world.folder().join("journal/state.json");
    for text in ["", "{\"format\":", "{\"format\":99}", "\u{0}\u{0}"] {
        std::fs::write(&file, text).unwrap();
        world.restart_edge().await.unwrap();
        assert_eq!(visit(&world, "/callin/create", 1).await, "origin");
        world.edge.kill().await.unwrap();
    }
    std::fs::remove_dir_all(world.folder().join("journal")).unwrap();
    std::fs::write(world.folder().join("journal"), "in the way").unwrap();
    world.restart_edge().await.unwrap();
    assert_eq!(visit(&world, "/callin/create", 2).await, "origin");
    let said = world.tool(&["history"]).await.unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("there is no journal in"), "{}", said.err);
}

/// Waits until the edge has written down something for a new process.
async fn until_kept(world: &World, is_so: impl Fn(&Value) -> bool) {
    let file = world.folder().join("journal/state.json");
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if serde_json::from_str(&text).is_ok_and(|state| is_so(&state)) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_upgrade_goes_on_with_what_was_believed_of_rows_too() {
    let world = World::start(ANSWERS, ANSWERS).await.unwrap();
    world.origin.stand_in.as_ref().unwrap().treat("/identify_caller", Manner::Status(500));
    visit(&world, "/callin/create", 1).await;
    for n in 2..5 {
        visit(&world, "/identify_caller", n).await;
    }
    let fails = |status: &Value| status["rows"]["identify_caller"]["verdict"] == "down";
    until(&world, "origin", fails).await;
    let (status, answer) = world.manage("POST", "/upgrade", "").await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let row = upstream(&world, "origin").await["rows"]["identify_caller"].clone();
    assert_eq!(row["flaps"], 1, "{row:#}");
    until_written(&world, &["--kind", "process"], |entries| {
        entries.iter().any(|entry| entry["what"] == "took_over")
    })
    .await;
}

#[tokio::test]
async fn a_reload_that_names_another_host_begins_anew() {
    let world = World::start(Part::StandIn(Manner::Html), ANSWERS).await.unwrap();
    for n in 0..3 {
        visit(&world, "/callin/create", n).await;
    }
    until(&world, "origin", |status| status["flaps"] == 1).await;
    // Other thresholds leave it as it is.
    world.reconfigure("[stop]", "[health]\nfall = 4\n[stop]").unwrap();
    assert_eq!(world.manage("POST", "/reload", "").await.unwrap().0, 200);
    assert_eq!(upstream(&world, "origin").await["flaps"], 1);
    let other = holdline_tests::StandIn::start(Manner::Answers).await.unwrap();
    let [from, to] = [world.origin.wire.address(), other.address()].map(|at| at.to_string());
    world.reconfigure(&from, &to).unwrap();
    assert_eq!(world.manage("POST", "/reload", "").await.unwrap().0, 200);
    until(&world, "origin", |status| status["flaps"] == 0 && status["verdict"] == "well").await;
    assert_eq!(visit(&world, "/callin/create", 9).await, "origin");
    until_written(&world, &[], |entries| {
        let of = |kind: &'static str| entries.iter().filter(move |entry| entry["kind"] == kind);
        let replaced = |entry: &Value| entry["reason"] == "it is configured to be another host";
        let reloads = of("process").filter(|entry| entry["what"] == "reloaded");
        let falls: Vec<_> = reloads.map(|entry| entry["thresholds"]["fall"].clone()).collect();
        falls == [4, 4] && of("change").any(replaced)
    })
    .await;
}

#[tokio::test]
async fn the_journal_holds_every_probe_run_and_change_and_nobodys_number() {
    let world = World::start(Part::StandIn(Manner::Answers), ANSWERS).await.unwrap();
    for n in 0..20 {
        visit(&world, "/callin/create", n).await;
    }
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Html);
    for n in 20..23 {
        visit(&world, "/callin/create", n).await;
    }
    world.until("origin", "down").await.ok();
    until_written(&world, &["--kind", "all", "--limit", "0"], |entries| {
        let of = |kind: &'static str| entries.iter().filter(move |entry| entry["kind"] == kind);
        let runs = of("run").filter(|run| run["upstream"] == "origin");
        let good: u64 = runs.filter_map(|run| run["n"].as_u64()).sum();
        let bad = of("live").filter(|live| live["outcome"] == "not_twiml").count();
        let down = of("change").find(|change| change["to"] == "down");
        good == 20
            && bad >= 3
            && of("probe").any(|probe| probe["upstream"] == "monitor")
            && down.is_some_and(|down| {
                down["cause"] == "traffic" && down["numbers"]["bad_attempts"] == 3
            })
            && of("process").any(|entry| entry["thresholds"]["fall"] == 3)
    })
    .await;
    let table = world.tool(&["history", "--kind", "all", "--limit", "3"]).await.unwrap();
    assert!(table.out.contains("older entries; --limit 0 shows them"), "{}", table.out);
    let changes = world.tool(&["history", "--upstream", "origin"]).await.unwrap();
    assert!(changes.out.contains("doubtful -> down by traffic: 3 bad attempts"), "{}", changes.out);
    let doubts = |said: &str| said.lines().filter(|line| line.contains("one bad or slow")).count();
    let every = world.tool(&["history", "--upstream", "origin", "--kind", "change"]).await.unwrap();
    assert!(doubts(&changes.out) < doubts(&every.out), "rows doubt as well: {}", every.out);
    let nothing = world.tool(&["history", "--kind", "gossip"]).await.unwrap();
    assert!(nothing.err.contains("\"gossip\" is not one of probe, run,"), "{}", nothing.err);
    let nothing = world.tool(&["history", "--since", "yesterday"]).await.unwrap();
    assert!(nothing.err.contains("neither a time"), "{}", nothing.err);
    for file in std::fs::read_dir(world.folder().join("journal")).unwrap() {
        let path = file.unwrap().path();
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("+1500555") && !text.contains("CA0000"), "{}", path.display());
    }
}

#[tokio::test]
async fn a_disk_that_fails_costs_the_journal_and_nobody_else() {
    let plan = World::plan(ANSWERS, ANSWERS).more("[log]\nvisits = false");
    let world = plan.on_a_disk_that_fails().start().await.unwrap();
    assert_eq!(visit(&world, "/callin/create", 1).await, "origin");
    world.disk("full").unwrap();
    let begun = Instant::now();
    while world.metric("holdline_journal_lost_total", "").await.unwrap() < 3.0 {
        assert_eq!(visit(&world, "/callin/create", 2).await, "origin");
        assert!(begun.elapsed() < PATIENCE, "{}", world.edge.log());
    }
    // It is written again as soon as it can be.
    world.disk("").unwrap();
    let lines = || {
        let files = std::fs::read_dir(world.folder().join("journal")).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let segments = paths.filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
        segments.map(|path| std::fs::read_to_string(path).unwrap().lines().count()).sum::<usize>()
    };
    let files = std::fs::read_dir(world.folder().join("journal")).unwrap().count();
    assert!(files < 5, "{files} files: a disk that is full was made fuller");
    let before = lines();
    while lines() < before + 5 {
        assert!(begun.elapsed() < 2 * PATIENCE, "{}", world.edge.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_the_origin_was_not_asked_is_written_down() {
    let world = World::start(ANSWERS, ANSWERS).await.unwrap();
    visit(&world, "/callin/create", 1).await;
    let said = world.tool(&["stance", "canned", "--for", "10m"]).await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    for n in 2..6 {
        assert_eq!(visit(&world, "/callin/create", n).await, "canned");
    }
    let report = world.post("/calls/7/call_ended", &form(&call_sid(9), &[])).await;
    assert_eq!(report.result.unwrap().status, 204);
    let of = |entries: &[Value], row: &str| -> u64 {
        let of_row = entries.iter().filter(|entry| entry["row"] == row);
        of_row.map(|entry| entry["n"].as_u64().unwrap()).sum()
    };
    let unasked = |entries: &[Value]| (of(entries, "callin_create"), of(entries, "call_ended"));
    until_written(&world, &["--kind", "unasked"], |entries| unasked(entries) == (4, 1)).await;
    // And with so much of it nothing is recommended.
    let said = world.tool(&["tune", "--set", "fall=2"]).await.unwrap();
    assert!(said.out.contains("was never asked"), "{}", said.out);
}

#[tokio::test]
async fn thresholds_are_tuned_by_what_was_seen() {
    let more = "[health]\nfall = 6\nwindow_minimum = 1000";
    let world = World::plan(ANSWERS, ANSWERS).more(more).start().await.unwrap();
    let origin = world.origin.stand_in.as_ref().unwrap();
    let mut n = 0;
    let mut visits = async |count: u64| {
        for _ in 0..count {
            n += 1;
            visit(&world, "/callin/create", n).await;
        }
    };
    visits(40).await;
    origin.behave(Manner::Status(500));
    visits(6).await;
    world.until("origin", "down").await.ok();
    origin.behave(Manner::Answers);
    let begun = Instant::now();
    while upstream(&world, "origin").await["verdict"] != "well" {
        visits(1).await;
        assert!(begun.elapsed() < PATIENCE);
    }
    visits(20).await;
    // What was seen is written within the second.
    until_written(&world, &["--kind", "run", "--limit", "0"], |runs| {
        let of_the_origin = runs.iter().filter(|run| run["upstream"] == "origin");
        of_the_origin.filter_map(|run| run["n"].as_u64()).sum::<u64>() >= 60
    })
    .await;
    let report = world.folder().join("tune.html");
    let asked = ["tune", "--grid", "fall=2,3,6", "--format", "json", "--html"];
    let asked = [&asked[..], &[report.to_str().unwrap()]].concat();
    let said = world.tool(&asked).await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    let told: Value = serde_json::from_str(&said.out).unwrap();
    let set = |fall: u64| {
        let mut sets = told["sets"].as_array().unwrap().iter();
        sets.find(|set| set["set"]["fall"] == fall).unwrap().clone()
    };
    let (hasty, in_force) = (set(2), set(6));
    assert_eq!((&hasty["outages"], &hasty["missed"]), (&1.into(), &0.into()), "{told:#}");
    assert_eq!(in_force["in_force"], true);
    let met = |set: &Value| set["met_bad_share"].as_f64().unwrap();
    assert!(met(&hasty) < met(&in_force), "{told:#}");
    let html = std::fs::read_to_string(&report).unwrap();
    assert!(html.contains("<svg") && html.contains("fall=2"), "{html}");
    for asks_somebody in ["http://", "https://", "src=", "<script", "@import"] {
        let others = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!others.contains(asks_somebody), "{asks_somebody}");
    }
    // The same as a table.
    let said = world.tool(&["tune", "--set", "fall=2"]).await.unwrap();
    assert!(said.out.contains("(in force)") && said.out.contains("ecommended"), "{}", said.out);
    let said = world.tool(&["tune", "--set", "slow_after=2s"]).await.unwrap();
    assert!(said.err.contains("does not say how long good answers took"), "{}", said.err);
    let said = world.tool(&["tune", "--set", "slow_percent=10"]).await.unwrap();
    assert!(said.err.contains("slow_percent: the journal does not say"), "{}", said.err);
    let said = world.tool(&["tune", "--set", "fall=0"]).await.unwrap();
    assert!(said.err.contains("fall: must be a whole number between 1 and 100"), "{}", said.err);
}

#[tokio::test]
async fn a_probe_that_is_wrong_idles_no_origin() {
    // Nothing has come for long, and the probe asks for what is not there.
    let lines = "[upstreams.origin.probe]\nbody = \"something else\"";
    let world =
        World::plan(ANSWERS, ANSWERS).origin("http://{address}", lines).start().await.unwrap();
    world.until("origin", "down").await.unwrap();
    // The next visit that may run twice tries it at once, beside the monitor.
    visit(&world, "/callin/create", 2).await;
    let status = until(&world, "origin", |status| status["verdict"] == "trial").await;
    let reason = status["last_change"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "a live attempt ended well although probes fail");
    assert_eq!(world.origin.reached().len(), 1);
}

#[tokio::test]
async fn notices_say_nothing_of_the_row_that_they_tell_of() {
    let rows = "[[row]]\nname = \"once\"\npath = \"/once\"\nkind = \"synchronous\"\n\
                parties = [\"callee\"]\nreplay = \"unsent\"\ncanned = \"hangup\"\n\
                [[row]]\nname = \"other\"\npath = \"/other\"\nkind = \"synchronous\"\n\
                parties = [\"web_caller\"]\nreplay = \"unsent\"\ncanned = \"apology\"\n";
    let world = World::plan(ANSWERS, ANSWERS).rows(rows).start().await.unwrap();
    let origin = world.origin.stand_in.as_ref().unwrap();
    origin.treat("POST /once", Manner::Status(500));
    for n in 0..3 {
        assert_eq!(visit(&world, "/other", 10 + n).await, "origin");
        assert_eq!(visit(&world, "/once", n).await, "canned");
        // The application is told of what was said in its name, and takes it.
        until(&world, "origin", |_| {
            let told = |reached: &&holdline_tests::stand_in::Reached| {
                reached.line.contains("/holdline/notices")
            };
            origin.reached().iter().filter(told).count() as u64 > n
        })
        .await;
    }
    until(&world, "origin", |status| status["rows"]["once"]["verdict"] == "down").await;
    assert_eq!(visit(&world, "/once", 4).await, "monitor");
}

#[tokio::test]
async fn a_stopped_edge_leaves_its_last_word() {
    let mut world = World::start(ANSWERS, ANSWERS).await.unwrap();
    visit(&world, "/callin/create", 1).await;
    world.edge.signal(Signal::TERM).unwrap();
    world.edge.ended(PATIENCE).await.unwrap();
    let entries = history(&world, &["--kind", "process,run"]).await;
    assert_eq!(entries.last().unwrap()["what"], "stopped", "{entries:#?}");
}
