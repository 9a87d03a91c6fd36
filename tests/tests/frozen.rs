//! Twins on one store, one of which is frozen where it hurts most.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdline_tests::world::{call_sid, form};
use holdline_tests::{Part, World};
use twilio_sim::{Ending, Party, Step, breaches};

/// A PIN whose identification tells a browser page, once for each call.
const PAGE_PIN: &str = "2000006";
/// Deliveries that a second process took over because the lease of the first had run out.
const TAKEN_OVER: &str = "SELECT COUNT(*) FROM deliveries WHERE fence > 1";
const IDENTIFY: &str = "/identify_caller?attempt=1";

/// A live twin that cannot have the store says so long before this; it does not wait for a frozen one.
const PROMPT: Duration = Duration::from_secs(4);

async fn told_once_each(world: &World) {
    let sessions = world.count("SELECT COUNT(*) FROM caller_sessions WHERE phones_only = 0");
    let told = world.count("SELECT COUNT(*) FROM browser_events WHERE name = 'start_calling'");
    let (sessions, told) = (sessions.await.unwrap(), told.await.unwrap());
    assert_eq!(sessions, told, "a page was told of a call twice, or not at all");
    assert!(sessions > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_frozen_in_a_transaction_does_not_hold_up_its_twin() {
    let world = World::start(Part::Real, Part::Real).await.unwrap();
    let origin = world.origin.program.as_ref().unwrap();
    let (calls, enough) = (AtomicU64::new(1000), AtomicBool::new(false));
    let load = futures::future::join_all((0..4).map(|_| async {
        while !enough.load(Ordering::Relaxed) {
            let call = call_sid(calls.fetch_add(1, Ordering::Relaxed));
            let keyed = form(&call, &[("Digits", PAGE_PIN)]);
            // One that is frozen over may fail; what counts is that it runs once.
            let _ = world.post_to(&world.origin, IDENTIFY, &keyed).await;
        }
    }));
    let scenario = async {
        // It is frozen again and again, until that was in the middle of a transaction: then its twin says
        // that it could not have the store, and does not wait for it.
        loop {
            origin.freeze().unwrap();
            if stays_locked(&world).await {
                let call = call_sid(calls.fetch_add(1, Ordering::Relaxed));
                let keyed = form(&call, &[("Digits", PAGE_PIN)]);
                let fetched = world.post_to(&world.monitor, IDENTIFY, &keyed).await;
                assert!(fetched.took < PROMPT, "{:?}", fetched.took);
                let answer = fetched.result.unwrap();
                if (answer.status, answer.header("holdline-not-run")) == (503, Some("1")) {
                    break;
                }
            }
            origin.thaw().unwrap();
            tokio::task::yield_now().await;
        }
        enough.store(true, Ordering::Relaxed);
        // Nor does a caller hear of it; held, they go on when it has come back.
        let caller = Party::silent()
            .press("access number", "1000008*")
            .press("star", "#")
            .press("star", "*");
        let (watcher, mut moments) = tokio::sync::mpsc::unbounded_channel();
        let call = tokio::spawn(world.call(caller).watched_by(watcher).make());
        while let Some(moment) = moments.recv().await {
            let Step::Webhook(webhook) = &moment.step else { continue };
            if webhook.answered_by.as_deref() == Some("hold") {
                origin.thaw().unwrap();
            }
        }
        call.await.unwrap()
    };
    let (_, heard) = tokio::join!(load, scenario);
    assert!(heard.is_unbroken(), "\n{heard}");
    assert_eq!(breaches(&heard), [], "\n{heard}");
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    assert!(heard.heard().contains("nobody left to call"), "\n{heard}");
    assert!(heard.answered_by().contains(&"hold"), "\n{heard}");
    told_once_each(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_origin_had_begun_is_done_once() {
    let world = World::start(Part::Real, Part::Real).await.unwrap();
    let origin = world.origin.program.as_ref().unwrap();
    let over = AtomicBool::new(false);
    let visits = async {
        let (mut steered, mut round) = (0, 0);
        // Until the twin has taken over what it had begun, and some more.
        while round < 20 || world.count(TAKEN_OVER).await.unwrap() == 0 {
            assert!(round < 500, "nothing was ever taken over");
            let visits = (0..10).map(|n| {
                let call = call_sid(round * 10 + n);
                let world = &world;
                async move {
                    let keyed = form(&call, &[("Digits", PAGE_PIN)]);
                    let answer = world.post(IDENTIFY, &keyed).await.result.expect("an answer");
                    assert_eq!(answer.status, 200);
                    let by = answer.header("holdline-answered-by").unwrap();
                    u32::from(["origin", "monitor"].contains(&by))
                }
            });
            steered += futures::future::join_all(visits).await.into_iter().sum::<u32>();
            round += 1;
        }
        over.store(true, Ordering::Relaxed);
        steered
    };
    // Long enough for a lease to run out while it holds one, and for it to come back late.
    let freezes = async {
        while !over.load(Ordering::Relaxed) {
            origin.freeze().unwrap();
            tokio::time::sleep(Duration::from_millis(1300)).await;
            origin.thaw().unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let (steered, ()) = tokio::join!(visits, freezes);
    assert!(steered > 0);
    // What is still running at the origin ends before it is counted.
    world.until("origin", "well").await.unwrap();
    told_once_each(&world).await;
}

/// Whether the store is locked by somebody who does not let go of it. The twin locks it too, for a
/// moment, whenever it is probed.
async fn stays_locked(world: &World) -> bool {
    for _ in 0..20 {
        if !world.store_is_locked().await.unwrap() {
            return false;
        }
    }
    true
}
