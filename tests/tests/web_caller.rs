//! A caller with a browser, as Twilio sees them: the behavioural test cases T09 to T20.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::spoken::{
    ask, ask_origin, caller_conference, path_of, said, says_and_hangs_up,
};
use holdline_tests::world::{call_sid, form};
use holdline_tests::{Part, Recorder, World};
use twilio_sim::twiml::Verb;

const PREVIEW_PAGE: &str = "page-of-web-preview";
const POWER_PAGE: &str = "page-of-web-power";
const PREDICTIVE_PAGE: &str = "page-of-web-predictive";
const CALL: u64 = 1;

async fn world(twilio: &Recorder) -> World {
    World::plan(Part::Real, Part::Real).recorded_by(twilio).start().await.unwrap()
}

/// Starts from a page; the session.
async fn start(world: &World, page: &str) -> (Vec<Verb>, String) {
    let verbs = ask(world, "/caller/start_calling", CALL, &[("session_key", page)]).await;
    let session = "SELECT CONCAT(id, '') FROM caller_sessions ORDER BY id DESC";
    (verbs, world.column(session).await.unwrap().first().cloned().unwrap_or_default())
}

async fn events(world: &World, page: &str) -> Vec<(String, serde_json::Value)> {
    let events = world.inspect(&world.origin, &format!("/inspect/events/{page}")).await.unwrap();
    let event = |event: &serde_json::Value| {
        (event["event"].as_str().unwrap().to_owned(), event["data"].clone())
    };
    events.as_array().unwrap().iter().map(event).collect()
}

async fn names(world: &World, page: &str) -> Vec<String> {
    events(world, page).await.into_iter().map(|(name, _)| name).collect()
}

async fn shown(world: &World) -> serde_json::Value {
    world.inspect(&world.origin, "/inspect/callers").await.unwrap()["callers"][0].clone()
}

/// Has a lead put through to the caller: our name of the call, and the leg.
async fn talk(world: &World, twilio: &Recorder, caller: i64, session: &str) -> (String, String) {
    let (id, leg) = order_call(world, twilio, caller, session, 1).await;
    ask_origin(world, &format!("/calls/{id}/incoming"), &leg, &[("AnsweredBy", "human")]).await;
    (id, leg)
}

/// Has the household called that the caller is offered, which is the `count`th call: our name of the
/// call, and the leg.
async fn order_call(
    world: &World,
    twilio: &Recorder,
    caller: i64,
    session: &str,
    count: usize,
) -> (String, String) {
    let phone = "SELECT phone FROM households JOIN caller_sessions ON caller_sessions.household_id = households.id";
    let phone = world.column(phone).await.unwrap().remove(0);
    let order = format!("{{\"session_id\": {session}, \"phone\": \"{phone}\"}}");
    let path = format!("/call_center/api/{caller}/call_voter");
    assert_eq!(world.order(&world.origin, &path, &order).await.unwrap(), 200);
    let dials = twilio.dials(count).await.unwrap();
    let id =
        path_of(dials[count - 1].form.get("Url").unwrap()).split('/').nth(2).unwrap().to_owned();
    let placed =
        format!("SELECT COUNT(*) FROM lead_calls WHERE id = {id} AND call_sid IS NOT NULL");
    world.until_count(&placed, 1).await.unwrap();
    let leg = format!("SELECT call_sid FROM lead_calls WHERE id = {id}");
    let leg = world.column(&leg).await.unwrap().remove(0);
    (id, leg)
}

#[track_caller]
fn wraps_up(verbs: &[Verb]) {
    assert_eq!(verbs.len(), 2, "{verbs:?}");
    assert!(said(&verbs[0]).contains("how the call went"), "{verbs:?}");
    assert_eq!(verbs[1], Verb::Pause(600));
}

#[tokio::test]
async fn t09_a_page_starts_in_its_own_conference() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (verbs, session) = start(&world, PREVIEW_PAGE).await;
    let after = caller_conference(&verbs);
    assert_eq!(path_of(&after), format!("/caller/4/pause?session_id={session}&turn=0"));
    let (_, conference) = holdline_tests::spoken::conference(&verbs);
    assert_eq!(conference.room, PREVIEW_PAGE);
    assert_eq!(shown(&world).await["status"], "On hold");
    let events = events(&world, PREVIEW_PAGE).await;
    assert_eq!(
        (events[0].0.as_str(), &events[0].1["dialer"]),
        ("start_calling", &"preview".into())
    );
    assert_eq!(
        (events[1].0.as_str(), &events[1].1["phone"]),
        ("conference_started", &"5005550101".into())
    );
    assert_eq!(events[1].1["members"][0]["fields"]["last_name"], "Lee");
    // Twice, and without a token: the same session, the same household, and nothing told twice.
    assert_eq!(start(&world, PREVIEW_PAGE).await, (verbs, session));
    assert_eq!(names(&world, PREVIEW_PAGE).await.len(), 2);
    // A page that nobody knows.
    let verbs = ask(&world, "/caller/start_calling", 7, &[("session_key", "nobody's")]).await;
    assert_eq!(verbs, [Verb::Hangup]);
}

#[tokio::test]
async fn t11_why_calling_is_closed() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (_, session) = start(&world, PREDICTIVE_PAGE).await;
    world.sql("UPDATE accounts SET minutes_allowed = 0").await.unwrap();
    let path = format!("/twiml/caller_sessions/{session}/dialing_prohibited");
    says_and_hangs_up(&ask(&world, &path, CALL, &[]).await, "no calling credit");
    let shown = world.inspect(&world.origin, "/inspect/callers").await.unwrap();
    assert_eq!(shown["callers_logged_in"], 0);
    for (step, words) in [
        ("run_out_of_numbers", "nobody left"),
        ("time_period_exceeded", "may be called from"),
        ("account_out_of_funds", "no calling credit"),
    ] {
        world.sql("UPDATE caller_sessions SET stage = 'idle', on_call = 1").await.unwrap();
        let path = format!("/caller/6/{step}?session_id={session}");
        says_and_hangs_up(&ask(&world, &path, CALL, &[]).await, words);
        assert_eq!(
            world.count("SELECT COUNT(*) FROM caller_sessions WHERE on_call = 1").await.unwrap(),
            0
        );
    }
}

#[tokio::test]
async fn t12_t14_after_the_conference_there_is_time_to_write() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (_, session) = start(&world, POWER_PAGE).await;
    let (id, leg) = talk(&world, &twilio, 5, &session).await;
    let path = format!("/caller/5/pause?session_id={session}");
    wraps_up(&ask(&world, &path, CALL, &[]).await);
    assert_eq!(names(&world, POWER_PAGE).await.last().unwrap(), "caller_wrapup_voice_hit");
    assert_eq!(shown(&world).await["status"], "Wrap up");
    for code in ["11200", "11205", "11210", "12400"] {
        let failed = [("ErrorCode", code), ("ErrorUrl", "http://edge.test/x")];
        wraps_up(&ask_origin(&world, &path, &call_sid(CALL), &failed).await);
    }
    // What the lead's leg reports now finds a caller who is writing, and leaves them alone.
    ask_origin(&world, &format!("/calls/{id}/disconnected"), &leg, &[]).await;
    assert_eq!(shown(&world).await["status"], "Wrap up");
    // Not done after any other failure, and never for a leg that is over: the session ends.
    let failed = [("ErrorCode", "11100"), ("ErrorUrl", "http://edge.test/x")];
    assert_eq!(ask_origin(&world, &path, &call_sid(CALL), &failed).await, [Verb::Hangup]);
    assert_eq!(ask(&world, &path, CALL, &[]).await, [Verb::Hangup]);
}

#[tokio::test]
async fn a_pause_that_comes_late_ends_no_other_call() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (verbs, session) = start(&world, POWER_PAGE).await;
    let first = path_of(&caller_conference(&verbs)).to_owned();
    // Nobody answers, and the caller is led on; the page dials the next number at once.
    let (id, leg) = order_call(&world, &twilio, 5, &session, 1).await;
    let busy = form(&leg, &[("CallStatus", "busy"), ("To", "+15005550101")]);
    let report = format!("/calls/{id}/call_ended");
    let taken = world.post_to(&world.origin, &report, &busy).await.result.unwrap();
    assert_eq!(taken.status, 204);
    let next = format!("/caller/5/continue_conf?session_id={session}");
    let second = path_of(&caller_conference(&ask(&world, &next, CALL, &[]).await)).to_owned();
    assert_ne!(first, second);
    order_call(&world, &twilio, 5, &session, 2).await;
    // Only now it is told that the caller has left the first conference.
    let verbs = ask(&world, &first, CALL, &[]).await;
    assert_eq!(holdline_tests::spoken::redirect(&verbs), next);
    let given_up = "SELECT COUNT(*) FROM lead_calls WHERE given_up = 1";
    assert_eq!(world.count(given_up).await.unwrap(), 0);
    // Whoever leaves the second one while it rings ends that call.
    wraps_up(&ask(&world, &second, CALL, &[]).await);
    assert_eq!(world.count(given_up).await.unwrap(), 1);
}

#[tokio::test]
async fn a_pause_whose_leg_is_over_ends_the_session() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (_, session) = start(&world, POWER_PAGE).await;
    let path = format!("/caller/5/pause?session_id={session}");
    let over = [("CallStatus", "completed")];
    assert_eq!(ask(&world, &path, CALL, &over).await, [Verb::Hangup]);
    assert_eq!(
        world.count("SELECT COUNT(*) FROM caller_sessions WHERE on_call = 1").await.unwrap(),
        0
    );
}

#[tokio::test]
async fn t15_t16_t17_the_conference_goes_on() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (_, session) = start(&world, POWER_PAGE).await;
    world.sql("UPDATE caller_sessions SET stage = 'wrap_up', household_id = NULL").await.unwrap();
    let path = format!("/caller/5/continue_conf?session_id={session}");
    let failed = |code: &'static str| [("ErrorCode", code), ("ErrorUrl", "http://edge.test/x")];
    let verbs = ask_origin(&world, &path, &call_sid(CALL), &failed("11100")).await;
    says_and_hangs_up(&verbs, "Something went wrong");
    let handed_out = "SELECT COUNT(*) FROM households WHERE place = 'presented'";
    assert_eq!(world.count(handed_out).await.unwrap(), 1);
    let verbs = ask_origin(&world, &path, &call_sid(CALL), &failed("12400")).await;
    assert_eq!(
        path_of(&caller_conference(&verbs)),
        format!("/caller/5/pause?session_id={session}&turn=1")
    );
    // And once more: no third number.
    assert_eq!(ask(&world, &path, CALL, &[]).await, verbs);
    assert_eq!(world.count(handed_out).await.unwrap(), 2);
    let told = names(&world, POWER_PAGE).await;
    assert_eq!(told, ["start_calling", "conference_started", "conference_started"]);
}

#[tokio::test]
async fn t20_a_caller_who_was_given_another_campaign_goes_on_there() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (_, session) = start(&world, PREVIEW_PAGE).await;
    world.admin(&["caller", "move", "4", "2"]).await.unwrap();
    // Not in the middle of a step.
    let path = format!("/caller/4/continue_conf?session_id={session}");
    ask(&world, &path, CALL, &[]).await;
    assert_eq!(shown(&world).await["campaign_id"], 1);
    world.sql("UPDATE caller_sessions SET stage = 'wrap_up', household_id = NULL").await.unwrap();
    caller_conference(&ask(&world, &path, CALL, &[]).await);
    assert_eq!(shown(&world).await["campaign_id"], 2);
    let (name, data) = events(&world, PREVIEW_PAGE).await.pop().unwrap();
    assert_eq!((name.as_str(), &data["campaign_name"]), ("caller_reassigned", &"Power".into()));
    assert_eq!((&data["campaign_id"], &data["phone"]), (&2.into(), &"5005550103".into()));
    // Whoever is given none stops.
    world.admin(&["caller", "move", "4"]).await.unwrap();
    world.sql("UPDATE caller_sessions SET stage = 'wrap_up', household_id = NULL").await.unwrap();
    says_and_hangs_up(&ask(&world, &path, CALL, &[]).await, "nobody has given you a campaign");
}

#[tokio::test]
async fn a_supervisor_hears_who_is_on_call_and_nobody_else() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    start(&world, PREVIEW_PAGE).await;
    let listen = [("session_key", PREVIEW_PAGE), ("type", "eavesdrop")];
    let verbs = ask(&world, "/client/monitors/callers/start", 8, &listen).await;
    let (_, conference) = holdline_tests::spoken::conference(&verbs);
    assert!(conference.muted && !conference.ends && !conference.starts, "{verbs:?}");
    let speak = [("session_key", PREVIEW_PAGE), ("type", "breakin")];
    let verbs = ask(&world, "/client/monitors/callers/start", 8, &speak).await;
    assert!(!holdline_tests::spoken::conference(&verbs).1.muted);
    let other = [("session_key", "another"), ("type", "breakin")];
    let verbs = ask(&world, "/client/monitors/callers/start", 8, &other).await;
    assert_eq!(verbs, [Verb::Hangup]);
}

#[tokio::test]
async fn seats_are_counted_and_the_last_one_is_given_once() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    world.sql("UPDATE accounts SET callers_allowed = 1").await.unwrap();
    let [pw, pv] = [[("Digits", "1000002")], [("Digits", "1000001")]];
    let path = "/identify_caller?attempt=1";
    let (first, second) = tokio::join!(ask(&world, path, 21, &pw), ask(&world, path, 22, &pv));
    let refused =
        [&first, &second].iter().filter(|verbs| matches!(verbs[0], Verb::Say { .. })).count();
    assert_eq!(refused, 1, "{first:?} {second:?}");
    assert_eq!(
        world.count("SELECT COUNT(*) FROM caller_sessions WHERE on_call = 1").await.unwrap(),
        1
    );
}

#[tokio::test]
async fn a_page_that_comes_in_again_replaces_its_earlier_leg() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    // The last seat is its own.
    world.sql("UPDATE accounts SET callers_allowed = 1").await.unwrap();
    let (_, session) = start(&world, POWER_PAGE).await;
    let (_, leg) = talk(&world, &twilio, 5, &session).await;
    ask(&world, "/caller/start_calling", 2, &[("session_key", POWER_PAGE)]).await;
    let shown = world.inspect(&world.origin, "/inspect/callers").await.unwrap();
    assert_eq!(shown["callers_logged_in"], 1);
    assert_eq!(shown["callers"][0]["call_sid"], call_sid(2));
    // Neither the earlier leg nor the lead who was put through to it stays in the room.
    for call in [call_sid(CALL), leg] {
        let end = twilio.changes(&call, 1).await.unwrap();
        assert_eq!(end[0].form.get("Status"), Some("completed"));
    }
}

#[tokio::test]
async fn star_on_hold_leads_back_to_the_same_household() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    let (_, session) = start(&world, POWER_PAGE).await;
    let verbs = ask(&world, &format!("/caller/5/pause?session_id={session}"), CALL, &[]).await;
    let back = holdline_tests::spoken::redirect(&verbs).to_owned();
    assert_eq!(back, format!("/caller/5/continue_conf?session_id={session}"));
    caller_conference(&ask(&world, &back, CALL, &[]).await);
    let handed_out = "SELECT COUNT(*) FROM households WHERE place = 'presented'";
    assert_eq!(world.count(handed_out).await.unwrap(), 1);
}
