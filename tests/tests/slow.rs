//! What callers get while an upstream is slow: another is asked alongside, or they are held until the
//! late answer is there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use holdline_tests::requests::way_back;
use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, World};
use twilio_sim::{Ending, Fetched, Party, breaches};

/// A row on which a caller may be held, and one that must not run twice beside it.
const ROWS: &str = r#"
[[row]]
name = "patient"
path = "/patient"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "idempotent"
canned = "apology"
hold = "30s"
[[row]]
name = "once"
path = "/once"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "unsent"
canned = "apology"
hold = "30s"
"#;

async fn world(origin: Manner, monitor: Part) -> World {
    World::plan(Part::StandIn(origin), monitor).rows(ROWS).start().await.unwrap()
}

/// Who answered, and after how long.
#[track_caller]
fn by(fetched: &Fetched) -> (String, Duration) {
    let received = fetched.result.as_ref().expect("an answer");
    assert_eq!(received.status, 200);
    (received.header("holdline-answered-by").expect("who answered").to_owned(), fetched.took)
}

async fn visit(world: &World, path: &str, n: u64) -> Fetched {
    world.post(path, &form(&call_sid(n), &[("Digits", "7")])).await
}

async fn come_back(world: &World, url: &str, n: u64) -> Fetched {
    world.post(url, &form(&call_sid(n), &[])).await
}

#[tokio::test]
async fn the_monitor_is_asked_alongside_a_slow_origin() {
    let world = world(Manner::Hangs, Part::StandIn(Manner::Answers)).await;
    let (who, took) = by(&visit(&world, "/patient", 1).await);
    assert_eq!(who, "monitor");
    assert!(took >= Duration::from_millis(2400), "{took:?}");
    assert_eq!(world.metric("holdline_hedges_total", "").await.unwrap(), 1.0);
    // The origin has been asked once, and is still being asked.
    assert_eq!(world.origin.reached().len(), 1);
    assert_eq!(
        world.metric("holdline_attempts_in_flight", "upstream=\"origin\"").await.unwrap(),
        1.0
    );
}

#[tokio::test]
async fn what_a_row_usually_takes_says_when_the_monitor_is_asked() {
    let world = world(Manner::Answers, Part::StandIn(Manner::Answers)).await;
    for n in 0..256 {
        assert_eq!(by(&visit(&world, "/patient", n).await).0, "origin");
    }
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Slow(Duration::from_millis(1500)));
    // Of a row that is not known yet it is asked after 2.5 s.
    let (who, took) = by(&visit(&world, "/patient", 1000).await);
    assert_eq!(who, "monitor");
    assert!(took >= Duration::from_millis(390), "{took:?}");
    // What must not run twice is waited for.
    let (who, took) = by(&visit(&world, "/once", 1001).await);
    assert_eq!((who.as_str(), world.monitor.reached().len()), ("origin", 1));
    assert!(took >= Duration::from_millis(1500), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_a_tenth_ask_twice_while_the_origin_is_well() {
    let world = world(Manner::Answers, Part::StandIn(Manner::Answers)).await;
    for n in 0..256 {
        visit(&world, "/patient", n).await;
    }
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Slow(Duration::from_millis(1500)));
    let visits = (0..200).map(|n| visit(&world, "/patient", 1000 + n));
    let answers = futures::future::join_all(visits).await;
    let answered: Vec<_> = answers.iter().map(by).collect();
    // Twenty are saved up, and each visit earns a tenth of another.
    let hedges = world.metric("holdline_hedges_total", "").await.unwrap();
    assert!((20.0..=40.0).contains(&hedges), "{hedges}: {answered:?}");
    assert!(answered.iter().all(|(by, _)| by == "monitor" || by == "origin"), "{answered:?}");
}

#[tokio::test]
async fn a_late_answer_is_given_to_the_caller_who_was_held() {
    for path in ["/patient", "/once"] {
        let world = world(Manner::Slow(Duration::from_secs(4)), Part::Nothing).await;
        world.until("monitor", "down").await.unwrap();
        let held = visit(&world, path, 1).await;
        let (who, took) = by(&held);
        assert_eq!(who, "hold", "{path}");
        // Long before the time is over that a visit has.
        assert!(took < Duration::from_secs(6), "{took:?}");
        let again = come_back(&world, &way_back(&held).unwrap(), 1).await;
        assert_eq!(by(&again).0, "hold", "it is still being asked");
        while world.metric("holdline_attempts_total", "outcome=\"good\"").await.unwrap() < 1.0 {
            tokio::task::yield_now().await;
        }
        // However often the caller returns, the origin has run it once.
        for _ in 0..2 {
            let answer = come_back(&world, &way_back(&again).unwrap(), 1).await;
            assert_eq!(by(&answer).0, "origin", "{path}");
        }
        assert_eq!(world.origin.reached().len(), 1, "{path}");
        let given = world.metric("holdline_late_answers_total", "fate=\"given\"").await.unwrap();
        assert_eq!(given, 1.0);
    }
}

#[tokio::test]
async fn what_failed_while_the_caller_was_held_is_asked_again_where_it_may_be() {
    let world = world(Manner::Hangs, Part::Nothing).await;
    world.until("monitor", "down").await.unwrap();
    let (patient, once) = tokio::join!(visit(&world, "/patient", 1), visit(&world, "/once", 2));
    assert_eq!((by(&patient).0, by(&once).0), ("hold".into(), "hold".into()));
    // The wire breaks under what was being asked, and then the origin is itself again.
    world.origin.wire.cut().await;
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    world.until("origin", "down").await.unwrap();
    world.origin.wire.mend().await;
    world.until("origin", "trial").await.unwrap();
    assert_eq!(by(&come_back(&world, &way_back(&patient).unwrap(), 1).await).0, "origin");
    assert_eq!(by(&come_back(&world, &way_back(&once).unwrap(), 2).await).0, "canned");
    let reached = world.origin.reached();
    let of = |path: &str| {
        let line = format!("POST {path} HTTP/1.1");
        reached.iter().filter(|one| one.line == line).collect::<Vec<_>>()
    };
    assert_eq!((of("/patient").len(), of("/once").len()), (2, 1));
    let delivery = |n: usize| of("/patient")[n].field("holdline-delivery").unwrap().to_owned();
    assert_eq!(delivery(0), delivery(1));
}

#[tokio::test]
async fn a_call_is_steered_by_answers_that_come_after_twilio_would_have_given_up() {
    let world = world(Manner::Slow(Duration::from_secs(16)), Part::Nothing).await;
    let company = world.company_at(1.0).unwrap();
    let mut line = world.line("/once");
    line.status = None;
    let heard = company.call(line, Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    assert_eq!(breaches(&heard), [], "\n{heard}");
    assert_eq!(heard.answered_by().last(), Some(&"origin"), "\n{heard}");
    assert!(heard.answered_by().iter().rev().skip(1).all(|who| *who == "hold"), "\n{heard}");
    assert!(heard.longest_wait_ms() < 6000, "\n{heard}");
    assert_eq!(world.origin.reached().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_hangs_is_not_waited_for_and_one_that_is_slow_not_taken_down() {
    let slow = Manner::Slow(Duration::from_millis(7500));
    let world = world(slow, Part::StandIn(Manner::Answers)).await;
    let visit = |path: &'static str, n| {
        let world = &world;
        async move { by(&world.post(path, &form(&call_sid(n), &[])).await) }
    };
    // While nobody knows, callers wait for the monitor, or are held.
    let ((first, waited), (second, _)) = tokio::join!(visit("/patient", 1), visit("/once", 2));
    assert_eq!((first.as_str(), second.as_str()), ("monitor", "hold"));
    assert!(waited >= Duration::from_millis(2500), "{waited:?}");
    // Then nobody waits: a row that may be repeated asks both, any other the monitor.
    world.until("origin", "stuck").await.unwrap();
    let before = world.origin.reached().len();
    for (path, at_origin) in [("/patient", 1), ("/once", 0)] {
        let seen = world.origin.reached().len();
        let (by, waited) = visit(path, 3).await;
        assert_eq!(by, "monitor", "{path}");
        assert!(waited < Duration::from_secs(2), "{path}: {waited:?}");
        // The monitor may have answered before the origin has read what it was sent.
        let begun = Instant::now();
        while world.origin.reached().len() - seen < at_origin {
            assert!(begun.elapsed() < Duration::from_secs(5), "{path}: the origin was not asked");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.origin.reached().len() - seen, at_origin, "{path}");
    }
    assert_eq!(before, 2);
    // The late answers say that it was only slow; it was never down.
    world.until("origin", "doubtful").await.unwrap();
    assert_eq!(visit("/once", 4).await.0, "hold");
    let down = world.metric("holdline_verdict_changes_total", "to=\"down\"").await.unwrap();
    assert_eq!(down, 0.0);
}

#[tokio::test]
async fn any_edge_with_the_same_keys_finishes_what_another_began() {
    let folder = tempfile::tempdir().unwrap();
    let keys = |name: &str, key: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, key).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        format!("file:{}", path.display())
    };
    let old = keys("old", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    let new = keys("new", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=");
    let other = keys("other", "Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg=");
    let edge = async |origin: Part, keys: &[&String]| {
        let more = format!("[catalogue]\nfile = \"rows.toml\"\n[hold]\nkeys = {keys:?}");
        let plan = World::plan(origin, Part::Nothing).more(&more).file("rows.toml", ROWS);
        plan.start().await.unwrap()
    };
    let first = edge(Part::Nothing, &[&old]).await;
    // In the middle of a rotation: another key seals, the old one still opens.
    let second = edge(Part::StandIn(Manner::Answers), &[&new, &old]).await;
    let stranger = edge(Part::StandIn(Manner::Answers), &[&other]).await;

    let keyed = form(&call_sid(1), &[("Digits", "1234")]);
    let held = first.post("/patient", &keyed).await;
    assert_eq!(by(&held).0, "hold");
    let back = form(&call_sid(1), &[]);
    for (edge, fate, digits) in [(&second, "good", Some("1234")), (&stranger, "forged", None)] {
        let answered = edge.post(&way_back(&held).unwrap(), &back).await;
        assert_eq!(by(&answered).0, "origin", "{fate}");
        let reached = edge.origin.reached().remove(0);
        let parameters = holdline_twilio::Form::parse(reached.body.as_bytes()).unwrap();
        assert_eq!(parameters.filled("Digits"), digits, "{fate}");
        assert_eq!(reached.line, "POST /patient HTTP/1.1", "{fate}");
        let counted = format!("fate=\"{fate}\"");
        assert_eq!(edge.metric("holdline_hold_tokens_total", &counted).await.unwrap(), 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hanging_origin_has_swallowed_does_not_keep_it_from_returning() {
    let plan = World::plan(Part::StandIn(Manner::Hangs), Part::StandIn(Manner::Answers));
    let plan = plan.origin("http://{address}", "max_in_flight = 4").rows(ROWS);
    let world = plan.start().await.unwrap();
    let visits = |from: u64| {
        let world = &world;
        let one =
            move |n| async move { by(&world.post("/patient", &form(&call_sid(n), &[])).await).0 };
        futures::future::join_all((from..from + 6).map(one))
    };
    assert_eq!(visits(0).await, ["monitor"; 6]);
    assert_eq!(world.origin.reached().len(), 4, "no more than allowed");
    // What was swallowed never comes back; the origin is well again all the same.
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    let before = Instant::now();
    let mut n = 100;
    while visits(n).await != ["origin"; 6] {
        assert!(before.elapsed() < Duration::from_secs(10), "it did not return");
        n += 10;
    }
    let status = world.status().await.unwrap();
    assert!(status["upstreams"]["origin"]["attempts_in_flight"].as_u64().unwrap() <= 4);
}
