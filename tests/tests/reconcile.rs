//! What Twilio has not reported is found out, and what nobody knows of is looked for: nothing rings for
//! ever, nobody keeps a seat, and nobody is called twice for want of an answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::spoken::{ask, gather, path_of, redirect};
use holdline_tests::world::call_sid;
use holdline_tests::{Part, Recorder, World};

const CALL: u64 = 1;

async fn world(twilio: &Recorder) -> World {
    World::plan(Part::Real, Part::Nothing).recorded_by(twilio).patience("1").start().await.unwrap()
}

/// Signs a power caller in and has the first lead called.
async fn call_somebody(world: &World) {
    let verbs = ask(world, "/identify_caller?attempt=1", CALL, &[("Digits", "1000002")]).await;
    let menu = path_of(&gather(&verbs[0]).action.url).to_owned();
    let verbs = ask(world, &menu, CALL, &[("Digits", "*")]).await;
    ask(world, redirect(&verbs[1..]), CALL, &[]).await;
}

async fn outcome(world: &World) -> String {
    world.column("SELECT COALESCE(outcome, '') FROM lead_calls").await.unwrap().remove(0)
}

#[tokio::test]
async fn a_leg_whose_end_was_not_reported_is_closed() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    call_somebody(&world).await;
    world.until_count("SELECT COUNT(*) FROM lead_calls WHERE stage = 'ringing'", 1).await.unwrap();
    let leg = world.column("SELECT call_sid FROM lead_calls").await.unwrap().remove(0);
    twilio.is_now(&leg, "no-answer");
    let led = twilio.changes(&call_sid(CALL), 1).await.unwrap();
    assert!(led[0].form.get("Url").unwrap().contains("/ready_to_call?"), "{led:?}");
    assert_eq!(outcome(&world).await, "no answer");
    assert_eq!(
        world
            .count("SELECT COUNT(*) FROM households WHERE id = 3 AND place = 'bin'")
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn a_session_whose_end_was_not_reported_is_closed_with_the_call_it_waited_for() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    call_somebody(&world).await;
    world.until_count("SELECT COUNT(*) FROM lead_calls WHERE stage = 'ringing'", 1).await.unwrap();
    let leg = world.column("SELECT call_sid FROM lead_calls").await.unwrap().remove(0);
    twilio.is_now(&call_sid(CALL), "completed");
    world.until_count("SELECT COUNT(*) FROM caller_sessions WHERE on_call = 1", 0).await.unwrap();
    let end = twilio.changes(&leg, 1).await.unwrap();
    assert_eq!(end[0].form.get("Status"), Some("completed"));
}

#[tokio::test]
async fn a_call_of_which_nobody_was_told_is_found_and_not_made_again() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    // Twilio breaks down while it is asked, and has placed the call.
    twilio.refuse(Some((500, 0)));
    call_somebody(&world).await;
    twilio.dials(1).await.unwrap();
    let leg = call_sid(0x5000);
    twilio.has_placed(&leg, "+15005550103", "in-progress");
    twilio.refuse(None);
    let found =
        format!("SELECT COUNT(*) FROM lead_calls WHERE stage = 'ringing' AND call_sid = '{leg}'");
    world.until_count(&found, 1).await.unwrap();
    assert_eq!(twilio.dials(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_that_was_never_made_is_given_up_and_the_caller_goes_on() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    twilio.refuse(Some((503, 0)));
    call_somebody(&world).await;
    twilio.dials(1).await.unwrap();
    twilio.refuse(None);
    let led = twilio.changes(&call_sid(CALL), 1).await.unwrap();
    assert!(led[0].form.get("Url").unwrap().contains("/ready_to_call?"), "{led:?}");
    assert_eq!(outcome(&world).await, "cancelled");
    // It is not known that nobody's telephone rang.
    assert_eq!(
        world
            .count("SELECT COUNT(*) FROM households WHERE id = 3 AND place = 'bin'")
            .await
            .unwrap(),
        1
    );
    assert_eq!(twilio.dials(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_is_told_to_come_back_later_does() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    twilio.refuse(Some((429, 20429)));
    call_somebody(&world).await;
    twilio.dials(2).await.unwrap();
    twilio.refuse(None);
    world.until_count("SELECT COUNT(*) FROM lead_calls WHERE stage = 'ringing'", 1).await.unwrap();
    assert_eq!(world.count("SELECT COUNT(*) FROM lead_calls").await.unwrap(), 1);
}

#[tokio::test]
async fn a_number_that_twilio_was_never_asked_for_may_be_called_at_once() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    twilio.refuse(Some((429, 20429)));
    call_somebody(&world).await;
    // It is given up at last, and nobody's telephone rang.
    let given_up = "SELECT COUNT(*) FROM lead_calls WHERE outcome = 'cancelled'";
    world.until_count(given_up, 1).await.unwrap();
    let available = "SELECT COUNT(*) FROM households WHERE id = 3 AND place = 'available'";
    assert_eq!(world.count(available).await.unwrap(), 1);
}

#[tokio::test]
async fn a_number_that_nothing_came_of_is_available_again_after_its_time() {
    let twilio = Recorder::default();
    let mut world = world(&twilio).await;
    world.sql("UPDATE households SET place = 'presented', score = 1 WHERE id = 3").await.unwrap();
    world
        .sql("UPDATE households SET place = 'bin', score = 9999999999999 WHERE id = 4")
        .await
        .unwrap();
    world.sql("UPDATE households SET place = 'failed', score = 1 WHERE id = 1").await.unwrap();
    // It is done at the start, and then every minute.
    world.origin.kill().await.unwrap();
    world.restart_origin().await.unwrap();
    let places = "SELECT COUNT(*) FROM households WHERE (id = 3 AND place = 'available') \
                  OR (id = 4 AND place = 'bin') OR (id = 1 AND place = 'failed')";
    world.until_count(places, 3).await.unwrap();
}

#[tokio::test]
async fn an_order_that_is_tried_again_does_not_tear_a_caller_off_what_came_next() {
    let twilio = Recorder::default();
    let world = world(&twilio).await;
    call_somebody(&world).await;
    world.until_count("SELECT COUNT(*) FROM lead_calls WHERE stage = 'ringing'", 1).await.unwrap();
    let (id, leg) = {
        let found = world.column("SELECT CONCAT(id, ' ', call_sid) FROM lead_calls").await.unwrap();
        let (id, leg) = found[0].split_once(' ').unwrap();
        (id.to_owned(), leg.to_owned())
    };
    // Twilio leads the caller on and does not say so.
    twilio.refuse(Some((503, 0)));
    let ended = holdline_tests::world::form(&leg, &[("CallStatus", "busy")]);
    world.post(&format!("/calls/{id}/call_ended"), &ended).await.result.unwrap();
    twilio.changes(&call_sid(CALL), 1).await.unwrap();
    let session = world.count("SELECT id FROM caller_sessions").await.unwrap();
    let next = format!("/caller/2/ready_to_call?session_id={session}");
    let verbs = ask(&world, &next, CALL, &[]).await;
    twilio.refuse(None);
    ask(&world, redirect(&verbs[1..]), CALL, &[]).await;
    let before = twilio.changes(&call_sid(CALL), 0).await.unwrap().len();
    world.until_count("SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL", 0).await.unwrap();
    assert_eq!(twilio.changes(&call_sid(CALL), 0).await.unwrap().len(), before);
    assert_eq!(
        world.count("SELECT COUNT(*) FROM caller_sessions WHERE stage = 'dialing'").await.unwrap(),
        1
    );
}
