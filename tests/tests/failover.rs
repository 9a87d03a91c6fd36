//! What callers get while upstreams fail, one failure at a time.
//!
//! In every scenario the person on the phone hears valid TwiML, within the deadline; what differs is
//! who says it.

use holdline_tests::{Part, World};
use twilio_sim::{Ending, Party, Transcript};

const DEADLINE_MS: u64 = 9000;

fn caller() -> Party {
    Party::silent().press("access number", "1000001*").press("star", "#").press("star", "*")
}

#[track_caller]
fn unbroken(transcript: &Transcript) {
    assert!(transcript.is_unbroken(), "\n{transcript}");
    assert!(transcript.longest_wait_ms() <= DEADLINE_MS, "\n{transcript}");
}

#[tokio::test]
async fn a_call_is_steered_by_the_origin_while_it_is_well() {
    let world = World::start(Part::Real, Part::Real).await.unwrap();
    let heard = world.hear(caller()).await;
    unbroken(&heard);
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    assert_eq!(heard.answered_by(), ["origin"; 6], "\n{heard}");
    assert!(heard.heard().contains("nobody left to call"), "\n{heard}");
    let status = world.status().await.unwrap();
    assert_eq!(status["visits"]["steered_by_origin"], 6 + 1, "{status:#}");
}
