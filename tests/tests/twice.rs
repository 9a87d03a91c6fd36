//! What is given to a request that comes twice, and to the one that follows an error of Twilio's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::time::Duration;

use holdline_tests::world::{PUBLIC_URL, call_sid, form};
use holdline_tests::{Manner, Part, World};
use twilio_sim::{Fetched, Line, Party, breaches};

/// The body, and who answered.
#[track_caller]
fn answer(fetched: &Fetched) -> (String, String) {
    let received = fetched.result.as_ref().expect("an answer");
    assert_eq!(received.status, 200);
    let by = received.header("holdline-answered-by").expect("who answered").to_owned();
    (String::from_utf8(received.body.to_vec()).unwrap(), by)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_twice_runs_once() {
    let world =
        World::start(Part::StandIn(Manner::Slow(Duration::from_millis(700))), Part::Nothing)
            .await
            .unwrap();
    let visit = form(&call_sid(1), &[]);
    // On a row that must not run twice, while the first is being answered and afterwards.
    let post = |token| world.post_with_token("/transfer/7/connect", &visit, token);
    let (one, two) = tokio::join!(post("t"), post("t"));
    assert_eq!(answer(&one), answer(&two));
    assert_eq!(answer(&one).1, "origin");
    assert_eq!(answer(&post("t").await), answer(&one));
    assert_eq!(world.origin.reached().len(), 1);
    // Another token, another body, or no token at all is another request.
    post("u").await;
    world.post_with_token("/transfer/7/connect", &form(&call_sid(2), &[]), "t").await;
    world.post("/transfer/7/connect", &visit).await;
    assert_eq!(world.origin.reached().len(), 4);
    for (what, count) in [("waited", 1.0), ("again", 1.0)] {
        let label = format!("what=\"{what}\"");
        assert_eq!(world.metric("holdline_repeats_total", &label).await.unwrap(), count, "{what}");
    }
}

#[tokio::test]
async fn a_report_that_comes_twice_is_handed_on_once() {
    let world =
        World::start(Part::StandIn(Manner::Answers), Part::StandIn(Manner::Answers)).await.unwrap();
    let report = form(&call_sid(1), &[("CallStatus", "completed")]);
    for _ in 0..2 {
        let fetched = world.post_with_token("/calls/7/call_ended", &report, "t").await;
        assert_eq!(fetched.result.unwrap().status, 204);
    }
    assert_eq!(world.origin.reached().len(), 1);
}

#[tokio::test]
async fn what_twilio_could_not_have_it_is_given_again() {
    let world = World::start(Part::StandIn(Manner::Answers), Part::Nothing).await.unwrap();
    let visit = form(&call_sid(1), &[]);
    let first = world.post_with_token("/callin/create", &visit, "t").await;
    let after = |code: &'static str, path: &'static str, n| {
        let url = format!("{PUBLIC_URL}{path}");
        form(&call_sid(n), &[("ErrorCode", code), ("ErrorUrl", &url)])
    };
    // The answer was lost on its way: here it is.
    let fallback = world.post("/callin/create", &after("11200", "/callin/create", 1)).await;
    assert_eq!(answer(&fallback), answer(&first));
    assert_eq!(world.origin.reached().len(), 1);
    // Nothing is known of it: the origin is told so.
    world.post("/callin/create", &after("11205", "/callin/create", 2)).await;
    let reached = world.origin.reached().pop().unwrap();
    assert_eq!(reached.field("holdline-earlier"), Some("never-arrived"));
    // Twilio choked on it: never the same again.
    let choked = world.post("/callin/create", &after("12100", "/callin/create", 1)).await;
    assert_eq!(answer(&choked).1, "canned");
    assert_eq!(world.origin.reached().len(), 2);
    assert!(world.edge.logs("judged good, and refused by Twilio").await);
    // A report may name an error of its own without being one of these.
    let report = form(&call_sid(1), &[("ErrorCode", "0")]);
    assert_eq!(world.post("/calls/7/call_ended", &report).await.result.unwrap().status, 204);
}

#[tokio::test]
async fn a_call_whose_connections_twilio_repeats_runs_each_step_once() {
    let world =
        World::start(Part::StandIn(Manner::Slow(Duration::from_millis(900))), Part::Nothing)
            .await
            .unwrap();
    // Twilio is told to ask again after half a second of silence.
    let mut line: Line = world.line("/transfer/7/connect#rp=rt&rc=3&rt=500");
    line.status = None;
    let heard = world.company.call(line, Party::silent()).make().await;
    let document = heard.documents().next().unwrap();
    assert!(document.attempts.len() > 1, "\n{heard}");
    assert_eq!(document.answered_by.as_deref(), Some("origin"), "\n{heard}");
    assert!(!breaches(&heard).is_empty(), "Twilio cannot know that it ran once");
    assert_eq!(world.origin.reached().len(), 1);
}
