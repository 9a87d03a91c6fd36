//! The origin's behaviour, over HTTP through a real edge: the behavioural test cases T01 to T08, T18,
//! T19 and T21 to T23, and what happens when a request comes twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::spoken::{ask, gather, menu, said, says_and_hangs_up};
use holdline_tests::world::{ACCOUNT, PUBLIC_URL, TOKEN, call_sid, form};
use holdline_tests::{Part, World};
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};
use http::Method;
use twilio_sim::twiml::{self, Dial, Target, Verb, Whom};

const PHONES_ONLY_PIN: &str = "1000001";
const WEB_PAGE_PIN: &str = "2000006";
const PAGE: &str = "page-of-web-predictive";

async fn world() -> World {
    World::start(Part::Real, Part::Real).await.unwrap()
}

/// Signs a caller in and gives back the session's id.
async fn sign_in(world: &World, call: u64) -> String {
    let verbs =
        ask(world, "/identify_caller?attempt=1", call, &[("Digits", PHONES_ONLY_PIN)]).await;
    let action = menu(&verbs);
    action.split_once("session_id=").expect("a session").1.to_owned()
}

async fn callers_logged_in(world: &World) -> i64 {
    world.inspect(&world.origin, "/inspect/callers").await.unwrap()["callers_logged_in"]
        .as_i64()
        .unwrap()
}

/// Checks that the verbs are the PIN prompt of this attempt.
#[track_caller]
fn pin_prompt(verb: &Verb, attempt: u32) {
    let gather = gather(verb);
    assert_eq!(gather.action.url, format!("{PUBLIC_URL}/identify_caller?attempt={attempt}"));
    assert_eq!(
        (gather.finish_on_key.as_str(), gather.timeout, &gather.action.method),
        ("*", 10, &Method::POST)
    );
    assert_eq!(gather.prompts.len(), 1);
}

#[tokio::test]
async fn t01_the_first_prompt() {
    let verbs = ask(&world().await, "/callin/create", 1, &[]).await;
    assert_eq!(verbs.len(), 1);
    pin_prompt(&verbs[0], 1);
}

#[tokio::test]
async fn t02_t03_a_wrong_pin_is_asked_for_again_and_then_no_more() {
    let world = world().await;
    for attempt in [1, 2] {
        let path = format!("/identify_caller?attempt={attempt}");
        let verbs = ask(&world, &path, 1, &[("Digits", "1234")]).await;
        assert!(said(&verbs[0]).contains("not recognised"), "{verbs:?}");
        pin_prompt(&verbs[1], attempt + 1);
    }
    let verbs = ask(&world, "/identify_caller?attempt=3", 1, &[("Digits", "1234")]).await;
    says_and_hangs_up(&verbs, "not recognised");
    assert_eq!(callers_logged_in(&world).await, 0);
}

#[tokio::test]
async fn t04_t05_the_right_pin_opens_one_session_at_any_attempt() {
    let world = world().await;
    let verbs = ask(&world, "/identify_caller?attempt=3", 1, &[("Digits", PHONES_ONLY_PIN)]).await;
    assert!(menu(&verbs).starts_with(&format!("{PUBLIC_URL}/caller/1/")));
    assert_eq!(callers_logged_in(&world).await, 1);
}

#[tokio::test]
async fn t06_a_page_pin_joins_the_page_and_tells_it() {
    let world = world().await;
    let verbs = ask(&world, "/identify_caller?attempt=1", 1, &[("Digits", WEB_PAGE_PIN)]).await;
    let [Verb::Dial(Dial { whom: Whom::Conference(conference), action, hangup_on_star, .. })] =
        &verbs[..]
    else {
        panic!("{verbs:?}")
    };
    assert_eq!((conference.room.as_str(), *hangup_on_star), (PAGE, true));
    assert_eq!((conference.starts, conference.ends), (false, true));
    let action = &action.as_ref().unwrap().url;
    assert!(action.starts_with(&format!("{PUBLIC_URL}/caller/6/pause?session_id=")), "{action}");
    let url = format!("{PUBLIC_URL}/media/hold-music");
    assert_eq!(conference.wait, Some(Target { url, method: Method::GET }));
    let events = world.inspect(&world.origin, &format!("/inspect/events/{PAGE}")).await.unwrap();
    assert_eq!(
        (&events[0]["event"], &events[0]["data"]["dialer"]),
        (&"start_calling".into(), &"predictive".into())
    );
}

#[tokio::test]
async fn t07_without_funds_nobody_starts() {
    let world = world().await;
    world.sql("UPDATE accounts SET minutes_allowed = 0").await.unwrap();
    let verbs = ask(&world, "/identify_caller?attempt=1", 1, &[("Digits", PHONES_ONLY_PIN)]).await;
    says_and_hangs_up(&verbs, "no calling credit");
    assert_eq!(callers_logged_in(&world).await, 0);
}

#[tokio::test]
async fn further_reasons_not_to_start() {
    let world = world().await;
    for (change, back, words) in [
        (
            "UPDATE accounts SET disable_calling = 1",
            "UPDATE accounts SET disable_calling = 0",
            "switched off",
        ),
        (
            "UPDATE accounts SET callers_allowed = 0",
            "UPDATE accounts SET callers_allowed = 5",
            "seats are in use",
        ),
        (
            "UPDATE campaigns SET start_hour = NULL",
            "UPDATE campaigns SET start_hour = 0",
            "may be called from",
        ),
        ("UPDATE callers SET active = 0", "UPDATE callers SET active = 1", "not recognised"),
    ] {
        world.sql(change).await.unwrap();
        let verbs =
            ask(&world, "/identify_caller?attempt=3", 1, &[("Digits", PHONES_ONLY_PIN)]).await;
        says_and_hangs_up(&verbs, words);
        world.sql(back).await.unwrap();
    }
    assert_eq!(callers_logged_in(&world).await, 0);
}

#[tokio::test]
async fn t08_without_a_campaign_nobody_starts() {
    let world = world().await;
    let verbs = ask(&world, "/identify_caller?attempt=1", 1, &[("Digits", "1000007")]).await;
    says_and_hangs_up(&verbs, "given you a campaign");
    assert_eq!(callers_logged_in(&world).await, 0);
}

#[tokio::test]
async fn t18_t19_the_end_of_a_session() {
    let world = world().await;
    ask(&world, "/identify_caller?attempt=1", 1, &[("Digits", WEB_PAGE_PIN)]).await;
    for call in [99, 1, 1] {
        let ended = form(&call_sid(call), &[("CallStatus", "completed")]);
        let answer =
            world.post_to(&world.origin, "/caller/end_session", &ended).await.result.unwrap();
        let verbs = twiml::read(answer.header("content-type"), &answer.body).unwrap().verbs;
        assert_eq!(verbs, [Verb::Hangup]);
        assert_eq!(callers_logged_in(&world).await, i64::from(call == 99));
    }
    let events = world.inspect(&world.origin, &format!("/inspect/events/{PAGE}")).await.unwrap();
    let names: Vec<_> =
        events.as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["start_calling", "caller_connected_dialer", "caller_disconnected"]);
    assert_eq!(events[2]["data"]["pusher_key"], PAGE);
}

#[tokio::test]
async fn t21_t22_t23_the_menu() {
    let world = world().await;
    let session = sign_in(&world, 1).await;
    let path = |step: &str| format!("/caller/1/{step}?session_id={session}");
    menu(&ask(&world, &path("callin_choice"), 1, &[]).await);
    let verbs = ask(&world, &path("read_instruction_options"), 1, &[("Digits", "#")]).await;
    assert!(said(&verbs[0]).contains("speak straight away"), "{verbs:?}");
    let url = format!("{PUBLIC_URL}{}", path("callin_choice"));
    assert_eq!(verbs[1], Verb::Redirect(Target { url, method: Method::POST }));
    menu(&ask(&world, &path("read_instruction_options"), 1, &[("Digits", "x")]).await);
    world.sql("UPDATE households SET place = 'completed'").await.unwrap();
    let verbs = ask(&world, &path("read_instruction_options"), 1, &[("Digits", "*")]).await;
    says_and_hangs_up(&verbs, "nobody left to call");
    // The call alone is enough to find the session; a session nobody knows ends the call.
    menu(&ask(&world, "/caller/1/callin_choice", 1, &[]).await);
    assert_eq!(ask(&world, "/caller/1/callin_choice?session_id=999", 2, &[]).await, [Verb::Hangup]);
}

#[tokio::test]
async fn a_request_that_comes_twice_is_answered_once() {
    let world = world().await;
    let keyed = form(&call_sid(1), &[("Digits", PHONES_ONLY_PIN)]);
    let target = "/identify_caller?attempt=1";
    let (first, second) = tokio::join!(
        world.post_to(&world.origin, target, &keyed),
        world.post_to(&world.monitor, target, &keyed)
    );
    let (first, second) = (first.result.unwrap(), second.result.unwrap());
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.body, second.body, "origin and monitor opened a session each");
    assert_eq!(callers_logged_in(&world).await, 1);
}

#[tokio::test]
async fn the_origin_lets_nobody_in_who_is_not_proven() {
    let world = world().await;
    let visit = form(&call_sid(1), &[("Digits", PHONES_ONLY_PIN)]);
    let target = "/identify_caller?attempt=1";
    let proof = Key::auth_token(&TOKEN.into()).sign(PUBLIC_URL, target, Content::Form(&visit));
    let ask = async |signature: &str, body: &str| {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Twilio-Signature: {signature}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        world.raw_to(world.origin.wire.address(), request.as_bytes()).await.unwrap()
    };
    assert!(ask(&proof, &visit.encode()).await.starts_with("HTTP/1.1 200"));
    assert!(ask("", &visit.encode()).await.starts_with("HTTP/1.1 403"));
    assert!(ask(&proof, &form(&call_sid(2), &[]).encode()).await.starts_with("HTTP/1.1 403"));
    assert!(ask(&proof, "a=%zz").await.starts_with("HTTP/1.1 400"));
    let without_call = Form::from_pairs([("AccountSid", ACCOUNT), ("Digits", PHONES_ONLY_PIN)]);
    let answer = world.post_to(&world.origin, target, &without_call).await.result.unwrap();
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn a_busy_store_says_that_nothing_was_run() {
    let world = world().await;
    let lock = world.lock_store().await.unwrap();
    let keyed = form(&call_sid(1), &[("Digits", PHONES_ONLY_PIN)]);
    let fetched = world.post_to(&world.origin, "/identify_caller?attempt=1", &keyed).await;
    let took = fetched.took;
    let answer = fetched.result.unwrap();
    assert_eq!((answer.status, answer.header("holdline-not-run")), (503, Some("1")));
    assert!(took.as_millis() < 1500, "{took:?}");
    drop(lock);
    let answer =
        world.post_to(&world.origin, "/identify_caller?attempt=1", &keyed).await.result.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn readiness_names_its_dependencies() {
    let world = world().await;
    let ready = world.inspect(&world.monitor, "/ready").await.unwrap();
    assert_eq!((&ready["ready"], &ready["role"]), (&true.into(), &"monitor".into()));
    let dependency = &ready["dependencies"][0];
    assert_eq!((&dependency["name"], &dependency["state"]), (&"store".into(), &"up".into()));
    assert!(dependency["latency_ms"].is_u64());
}
