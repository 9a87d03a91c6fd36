//! What is said in the application's name, it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, Recorder, World};
use holdline_twilio::Form;

const ROWS: &str = r#"
[[row]]
name = "submit_response"
path = "/caller/{id}/submit_response"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "idempotent"
canned = "to-next-call"
hold = "3s"
saves = true
[[row]]
name = "patient"
path = "/patient"
kind = "synchronous"
parties = ["phones_only_caller"]
replay = "idempotent"
canned = "apology"
hold = "6s"
[[row]]
name = "untold"
path = "/untold"
kind = "synchronous"
parties = ["callee"]
replay = "idempotent"
canned = "hangup"
notices = false
[[row]]
name = "told"
path = "/told"
kind = "synchronous"
parties = ["web_caller"]
replay = "idempotent"
canned = "apology"
notices = true
[[row]]
name = "call_ended"
path = "/calls/{call_id}/call_ended"
kind = "asynchronous"
replay = "idempotent"
"#;

const SUBMIT: &str = "/caller/3/submit_response?session_id=7&question_id=1&voter_id=9";

async fn by(world: &World, path: &str, form: &Form) -> String {
    let received = world.post(path, form).await.result.unwrap();
    received.header("holdline-answered-by").unwrap().to_owned()
}

async fn waiting(world: &World) -> u64 {
    world.status().await.unwrap()["spool"]["waiting"].as_u64().unwrap()
}

/// The notices that have reached a stand-in, and when the last that was waited for came.
async fn notices(world: &World, count: usize, within: Duration) -> Vec<Form> {
    let begun = Instant::now();
    loop {
        let notices: Vec<Form> = world
            .origin
            .reached()
            .iter()
            .filter(|reached| reached.line.starts_with("POST /holdline/notices "))
            .map(|reached| Form::parse(reached.body.as_bytes()).unwrap())
            .collect();
        if notices.len() >= count {
            return notices;
        }
        assert!(begun.elapsed() < within, "only {} came", notices.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_abandoned_lead_is_counted_and_a_keyed_answer_stored() {
    let twilio = Recorder::default();
    let plan = World::plan(Part::Real, Part::Nothing).recorded_by(&twilio);
    let world = plan.start().await.unwrap();
    a_lead_is_called(&world, "dialing", "'ringing', NULL, NULL").await;
    world.origin.wire.cut().await;
    let lead = form(&call_sid(1), &[("AnsweredBy", "human")]);
    assert_eq!(by(&world, "/calls/7/incoming", &lead).await, "canned");
    // What comes after it of the same call is told after it.
    let ended = form(&call_sid(1), &[("CallDuration", "2")]);
    assert_eq!(by(&world, "/calls/7/call_ended", &ended).await, "spool");
    assert_eq!(waiting(&world).await, 2);
    world.origin.wire.mend().await;
    world.until_metric("holdline_spool_delivered_total", "", 2.0).await.unwrap();
    for select in [
        "SELECT COUNT(*) FROM lead_calls WHERE outcome = 'abandoned' AND duration_s = 2",
        "SELECT COUNT(*) FROM households WHERE id = 1 AND place = 'bin'",
        "SELECT COUNT(*) FROM caller_sessions WHERE id = 7 AND stage = 'idle'",
        "SELECT COUNT(*) FROM notices WHERE answered_by = 'canned' AND answer LIKE '%<Hangup%'",
    ] {
        assert_eq!(world.count(select).await.unwrap(), 1, "{select}");
    }
    // Whoever was to talk with them goes on.
    let led = twilio.changes(&call_sid(2), 1).await.unwrap();
    assert!(led[0].form.get("Url").unwrap().contains("/ready_to_call?"), "{led:?}");
}

/// Caller 1, in this stage, has lead 1 called, which is at this stage, decision and time of connecting.
async fn a_lead_is_called(world: &World, stage: &str, call: &str) {
    let leg = call_sid(2);
    for statement in [
        "UPDATE households SET place = 'presented' WHERE id = 1".to_owned(),
        format!(
            "INSERT INTO caller_sessions (id, account_id, caller_id, campaign_id, call_sid, session_key, phones_only, \
             caller_type, on_call, stage, household_id, lead_call_id, started_ms, changed_ms, checked_ms) \
             VALUES (7, 1, 1, 1, '{leg}', 'key', 1, 'Phone', 1, '{stage}', 1, 7, 0, 0, 9999999999999)"
        ),
        format!(
            "INSERT INTO lead_calls (id, campaign_id, household_id, lead_id, session_id, phone, stage, decision, \
             connected_ms, created_ms, checked_ms) VALUES (7, 1, 1, 1, 7, '5005550101', {call}, 0, 9999999999999)"
        ),
    ] {
        world.sql(&statement).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_caller_keyed_before_hanging_up_is_told_when_the_hold_is_over() {
    let twilio = Recorder::default();
    let plan = World::plan(Part::Real, Part::Nothing).rows(ROWS).recorded_by(&twilio);
    let world = plan.start().await.unwrap();
    a_lead_is_called(&world, "survey", "'over', 'connect', 5").await;
    world.origin.wire.cut().await;
    let keyed = form(&call_sid(2), &[("Digits", "1")]);
    assert_eq!(by(&world, SUBMIT, &keyed).await, "hold");
    // The caller hangs up, and never comes back.
    let begun = Instant::now();
    world.origin.wire.mend().await;
    loop {
        let stored = "SELECT COUNT(*) FROM answers WHERE question_id = 1 AND digits = '1' AND lead_call_id = 7";
        if world.count(stored).await.unwrap() == 1 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "{}", world.edge.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(20), "the caller could still have come back");
}

#[tokio::test]
async fn a_caller_whom_the_origin_answers_after_all_leaves_no_notice() {
    let plan = World::plan(Part::StandIn(Manner::NotRun), Part::Nothing);
    let world = plan.rows(ROWS).start().await.unwrap();
    let keyed = form(&call_sid(1), &[("Digits", "1")]);
    let held = world.post(SUBMIT, &keyed).await.result.unwrap();
    assert_eq!(held.header("holdline-answered-by"), Some("hold"));
    world.until_metric("holdline_spool_entries", "waiting", 1.0).await.unwrap();
    // What waits for the end of the hold keeps nothing of the call waiting.
    let ended = world.post("/calls/7/call_ended", &form(&call_sid(1), &[])).await.result.unwrap();
    assert_eq!(ended.status, 204);
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    let body = String::from_utf8_lossy(&held.body).into_owned();
    let back = body.split("<Redirect").nth(1).unwrap();
    let back = back.split('>').nth(1).unwrap().split('<').next().unwrap().replace("&amp;", "&");
    let path = back.trim_start_matches("http://edge.test");
    assert_eq!(by(&world, path, &form(&call_sid(1), &[])).await, "origin");
    world.until_metric("holdline_spool_entries", "waiting", 0.0).await.unwrap();
    assert_eq!(notices(&world, 0, Duration::ZERO).await.len(), 0);
    world.until_metric("holdline_spool_delivered_total", "", 1.0).await.unwrap();
}

#[tokio::test]
async fn a_late_answer_that_nobody_fetches_is_told() {
    let slow = Manner::Slow(Duration::from_secs(4));
    let world = World::plan(Part::StandIn(slow), Part::Nothing).rows(ROWS).start().await.unwrap();
    let asked = form(&call_sid(1), &[("Digits", "5")]);
    assert_eq!(by(&world, "/patient?step=2", &asked).await, "hold");
    // They hang up meanwhile.
    let told = notices(&world, 1, Duration::from_secs(45)).await.remove(0);
    for (name, value) in [
        ("Notice", "late-answer-not-fetched"),
        ("Row", "patient"),
        ("CallSid", &call_sid(1)),
        ("Target", "/patient?step=2"),
        ("Method", "POST"),
        ("AnsweredBy", "origin"),
    ] {
        assert_eq!(told.get(name), Some(value), "{name}");
    }
    assert!(told.get("Answer").unwrap().contains("stand-in"));
    assert_eq!(Form::parse(told.get("Sent").unwrap().as_bytes()).unwrap().get("Digits"), Some("5"));
    assert_eq!(world.metric("holdline_late_answers_total", "unfetched").await.unwrap(), 1.0);
}

#[tokio::test]
async fn a_row_says_itself_whether_it_leaves_notices() {
    let world =
        World::plan(Part::StandIn(Manner::Html), Part::Nothing).rows(ROWS).start().await.unwrap();
    let asked = form(&call_sid(1), &[]);
    assert_eq!(by(&world, "/untold", &asked).await, "canned");
    assert_eq!(by(&world, "/told", &asked).await, "canned");
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    let told = notices(&world, 1, Duration::from_secs(20)).await;
    assert_eq!((told.len(), told[0].get("Row")), (1, Some("told")));
    // Nobody else may speak below that path.
    let forged = world.post("/holdline/notices", &asked).await.result.unwrap();
    assert_eq!(forged.status, 404);
}
