//! What callers get while upstreams fail, one failure at a time.
//!
//! In every scenario the person on the phone hears valid TwiML, within the deadline; what differs is
//! who says it, and how many requests reached whom.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use holdline_tests::world::{PUBLIC_URL, TOKEN, call_sid, form};
use holdline_tests::{Manner, Part, World};
use holdline_twilio::signature::{Content, Key};
use twilio_sim::{Ending, Fetched, Party, Received, Step, Transcript, breaches, twiml};

/// The budget of a visit, and of one with a callee.
const DEADLINE: Duration = Duration::from_secs(9);
const CALLEE_DEADLINE: Duration = Duration::from_secs(4);

/// Every way in which an upstream can fail while its probes are well.
const FAILURES: [Manner; 9] = [
    Manner::Status(500),
    Manner::NotRun,
    Manner::Html,
    Manner::Empty,
    Manner::HalfDocument,
    Manner::BreaksOff,
    Manner::Large,
    Manner::ResetsAfterReading,
    Manner::Hangs,
];

fn caller() -> Party {
    Party::silent().press("access number", "1000008*").press("star", "#").press("star", "*")
}

#[track_caller]
fn unbroken(transcript: &Transcript) {
    assert!(transcript.is_unbroken(), "\n{transcript}");
    assert_eq!(breaches(transcript), [], "\n{transcript}");
    assert!(transcript.longest_wait_ms() <= DEADLINE.as_millis() as u64, "\n{transcript}");
}

/// The answer, which must be a document and in time.
#[track_caller]
fn document(fetched: Fetched, deadline: Duration) -> (Received, String) {
    assert!(fetched.took <= deadline, "took {:?}", fetched.took);
    let received = fetched.result.expect("an answer");
    assert_eq!(received.status, 200);
    twiml::read(received.header("content-type"), &received.body).expect("a document");
    assert_eq!(received.header("cache-control"), Some("no-store"));
    let by = received.header("holdline-answered-by").expect("who answered").to_owned();
    (received, by)
}

async fn visit(world: &World, path: &str, n: u64) -> Fetched {
    world.post(path, &form(&call_sid(n), &[])).await
}

#[tokio::test]
async fn a_call_is_steered_by_the_origin_while_it_is_well() {
    let world = World::start(Part::Real, Part::Real).await.unwrap();
    let heard = world.hear(caller()).await;
    unbroken(&heard);
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    assert_eq!(heard.answered_by(), ["origin"; 5], "\n{heard}");
    assert!(heard.heard().contains("nobody left to call"), "\n{heard}");
    let status = world.status().await.unwrap();
    assert_eq!(status["visits"]["steered_by_origin"], 5, "{status:#}");
    assert_eq!(status["callbacks"]["delivered"], 1, "{status:#}");
    assert_eq!(world.metric("holdline_visits_total", "row=\"end_session\",").await.unwrap(), 0.0);
    assert_eq!(world.metric("holdline_visits_total", "by=\"origin\"").await.unwrap(), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_origin_does_the_monitor_answers_the_first_caller() {
    for failure in FAILURES {
        let world =
            World::start(Part::StandIn(failure), Part::StandIn(Manner::Answers)).await.unwrap();
        let (_, by) = document(visit(&world, "/callin/create", 1).await, DEADLINE);
        assert_eq!(by, "monitor", "{failure:?}");
        assert_eq!(world.origin.reached().len(), 1, "{failure:?}");
        assert_eq!(world.monitor.reached().len(), 1, "{failure:?}");
        let reached = (&world.origin.reached()[0], &world.monitor.reached()[0]);
        assert_eq!(reached.0.field("holdline-delivery"), reached.1.field("holdline-delivery"));
        assert!(reached.0.field("holdline-delivery").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_both_do_the_caller_hears_a_document_of_ours() {
    for failure in FAILURES {
        let world = World::start(Part::StandIn(failure), Part::StandIn(failure)).await.unwrap();
        let (prompt, created, answered) = tokio::join!(
            visit(&world, "/identify_caller?attempt=1", 1),
            visit(&world, "/callin/create", 2),
            visit(&world, "/calls/7/incoming", 3),
        );
        let (held, by) = document(prompt, DEADLINE);
        assert_eq!(by, "hold", "{failure:?}");
        assert!(
            String::from_utf8_lossy(&held.body).contains("<Pause length=\"1\"/>"),
            "{failure:?}"
        );
        let (created, by) = document(created, DEADLINE);
        assert_eq!(by, "canned", "{failure:?}");
        assert!(String::from_utf8_lossy(&created.body).contains("<Gather"), "{failure:?}");
        let (silence, by) = document(answered, CALLEE_DEADLINE);
        assert_eq!(by, "canned", "{failure:?}");
        let script = twiml::read(silence.header("content-type"), &silence.body).unwrap();
        assert_eq!(script.verbs, [twiml::Verb::Hangup], "a lead hears no machine");
        let lost = world.status().await.unwrap()["visits"]["lost"].clone();
        assert_eq!(lost, 0, "{failure:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_only_untidy_is_put_right() {
    let world = World::start(Part::StandIn(Manner::Untidy), Part::Nothing).await.unwrap();
    let (received, by) = document(visit(&world, "/callin/create", 1).await, DEADLINE);
    assert_eq!(by, "origin");
    assert_eq!(received.header("content-type"), Some("text/xml; charset=utf-8"));
    assert!(received.body.starts_with(b"<?xml"), "{:?}", received.body);
    let mended = world.metric("holdline_answers_mended_total", "what=\"prolog\"").await.unwrap();
    assert_eq!(mended, 1.0);
}

#[tokio::test]
async fn a_redirect_is_followed_inside_and_loses_nothing() {
    for (status, line) in
        [(302, "GET /elsewhere?a=1&AccountSid="), (307, "POST /elsewhere?a=1 HTTP/1.1")]
    {
        let world =
            World::start(Part::StandIn(Manner::Redirects(status)), Part::Nothing).await.unwrap();
        let keyed = form(&call_sid(1), &[("Digits", "7")]);
        let (_, by) = document(world.post("/identify_caller?attempt=1", &keyed).await, DEADLINE);
        assert_eq!(by, "origin", "{status}");
        let reached = world.origin.reached();
        assert_eq!(reached.len(), 2, "{status}");
        assert!(reached[1].line.starts_with(line), "{}", reached[1].line);
        let all = format!("{} {}", reached[1].line, reached[1].body);
        assert!(all.contains("Digits=7"), "{all}");
        assert_eq!(reached[0].field("holdline-delivery"), reached[1].field("holdline-delivery"));
        // It is signed for where it goes.
        let target = reached[1].line.split(' ').nth(1).unwrap();
        let key = Key::auth_token(&TOKEN.into());
        let content = if status == 302 { Content::Empty } else { Content::Form(&keyed) };
        let signature = key.sign(PUBLIC_URL, target, content);
        assert_eq!(reached[1].field("x-twilio-signature"), Some(signature.as_str()), "{status}");
    }
    // A redirect to nowhere is an answer like any other bad one.
    let world = World::start(Part::StandIn(Manner::Status(302)), Part::Nothing).await.unwrap();
    assert_eq!(document(visit(&world, "/callin/create", 1).await, DEADLINE).1, "canned");
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_costs_no_time() {
    let world = World::start(Part::Nothing, Part::StandIn(Manner::Answers)).await.unwrap();
    let fetched = visit(&world, "/callin/create", 1).await;
    assert!(fetched.took < Duration::from_secs(2), "{:?}", fetched.took);
    assert_eq!(document(fetched, DEADLINE).1, "monitor");
    world.until("origin", "down").await.unwrap();
    assert_eq!(document(visit(&world, "/callin/create", 2).await, DEADLINE).1, "monitor");
    let both = World::start(Part::Nothing, Part::Nothing).await.unwrap();
    assert_eq!(document(visit(&both, "/callin/create", 1).await, DEADLINE).1, "canned");
}

#[tokio::test]
async fn an_answer_that_trickles_or_breaks_on_the_wire_is_given_up() {
    let world =
        World::start(Part::StandIn(Manner::Answers), Part::StandIn(Manner::Answers)).await.unwrap();
    world.origin.wire.cut_after(90);
    assert_eq!(document(visit(&world, "/callin/create", 1).await, DEADLINE).1, "monitor");
    world.origin.wire.trickle(Duration::from_millis(300));
    assert_eq!(document(visit(&world, "/callin/create", 2).await, DEADLINE).1, "monitor");
    world.origin.wire.delay(Duration::from_secs(30));
    assert_eq!(
        document(visit(&world, "/calls/7/disconnected", 3).await, CALLEE_DEADLINE).1,
        "monitor"
    );
}

#[tokio::test]
async fn while_the_trial_is_taken_the_next_caller_is_still_answered() {
    let world = World::start(Part::StandIn(Manner::Sick), Part::Nothing).await.unwrap();
    world.until("origin", "down").await.unwrap();
    world.until("monitor", "down").await.unwrap();
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Hangs);
    world.until("origin", "trial").await.unwrap();
    let hanging = visit(&world, "/calls/7/disconnected", 1);
    let next = async {
        while world.metric("holdline_attempts_in_flight", "upstream=\"origin\"").await.unwrap()
            < 1.0
        {
            tokio::task::yield_now().await;
        }
        world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
        visit(&world, "/callin/create", 2).await
    };
    let (hanging, next) = tokio::join!(hanging, next);
    assert_eq!(document(hanging, CALLEE_DEADLINE).1, "canned");
    assert_eq!(document(next, DEADLINE).1, "origin");
}

#[tokio::test]
async fn a_row_that_must_not_run_twice_does_not() {
    let world =
        World::start(Part::StandIn(Manner::ResetsAfterReading), Part::StandIn(Manner::Answers))
            .await
            .unwrap();
    let (_, by) = document(visit(&world, "/transfer/7/connect", 1).await, CALLEE_DEADLINE);
    assert_eq!(
        (by.as_str(), world.origin.reached().len(), world.monitor.reached().len()),
        ("canned", 1, 0)
    );
    // Nothing was sent to an upstream that refuses, so that the other may be asked.
    world.origin.wire.cut().await;
    let (_, by) = document(visit(&world, "/transfer/7/connect", 2).await, CALLEE_DEADLINE);
    assert_eq!((by.as_str(), world.monitor.reached().len()), ("monitor", 1));
}

#[tokio::test]
async fn an_origin_that_fails_visits_is_left_alone_and_returns() {
    let world =
        World::start(Part::StandIn(Manner::Html), Part::StandIn(Manner::Answers)).await.unwrap();
    for n in 1..=3 {
        assert_eq!(document(visit(&world, "/callin/create", n).await, DEADLINE).1, "monitor");
    }
    // Probes are well all the while. They bring it on trial, and one bad visit ends that.
    let status = world.status().await.unwrap();
    assert_eq!(status["upstreams"]["origin"]["last_change"]["from"], "doubtful", "{status:#}");
    assert_eq!(status["upstreams"]["origin"]["flaps"], 1, "{status:#}");
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    world.until("origin", "trial").await.unwrap();
    // On trial, both are asked, and whoever is first answers.
    let mut n = 4;
    while world.status().await.unwrap()["upstreams"]["origin"]["verdict"] == "trial" {
        let (_, by) = document(visit(&world, "/callin/create", n).await, DEADLINE);
        assert!(["origin", "monitor"].contains(&by.as_str()), "{by}");
        n += 1;
    }
    world.until("origin", "well").await.unwrap();
    assert_eq!(document(visit(&world, "/callin/create", n).await, DEADLINE).1, "origin");
}

#[tokio::test]
async fn an_origin_that_goes_on_failing_is_tried_seldom() {
    // Its probes are well, and two rows take turns: each trial costs somebody a second asking.
    let world =
        World::start(Part::StandIn(Manner::Html), Part::StandIn(Manner::Answers)).await.unwrap();
    let rows = ["/callin/create", "/caller/7/callin_choice?session_id=1"];
    for n in 1..=3 {
        visit(&world, rows[n % 2], n as u64).await;
    }
    world.until_status(|status| status["upstreams"]["origin"]["flaps"] == 1).await.unwrap();
    let (begun, before) = (Instant::now(), world.origin.reached().len());
    for n in 10..400 {
        let (_, by) = document(visit(&world, rows[n % 2], n as u64).await, DEADLINE);
        assert_eq!(by, "monitor");
    }
    let tried = world.origin.reached().len() - before;
    let allowed = 2.0 + 2.0 * begun.elapsed().as_secs_f64();
    assert!(tried as f64 <= allowed, "{tried} of 390 visits, {allowed} at the most");
}

#[tokio::test]
async fn an_origin_that_is_wholly_sick_is_not_asked() {
    let world =
        World::start(Part::StandIn(Manner::Sick), Part::StandIn(Manner::Answers)).await.unwrap();
    world.until("origin", "down").await.unwrap();
    let before = world.origin.reached().len();
    assert_eq!(
        document(visit(&world, "/transfer/7/connect", 1).await, CALLEE_DEADLINE).1,
        "monitor"
    );
    assert_eq!(world.origin.reached().len(), before);
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    world.until("origin", "trial").await.unwrap();
}

#[tokio::test]
async fn a_killed_origin_is_replaced_in_the_middle_of_a_call() {
    let mut world = World::start(Part::Real, Part::Real).await.unwrap();
    let (watcher, mut moments) = tokio::sync::mpsc::unbounded_channel();
    let call = tokio::spawn(world.call(caller()).watched_by(watcher).make());
    while let Some(moment) = moments.recv().await {
        if matches!(&moment.step, Step::Webhook(webhook) if webhook.path == "/identify_caller") {
            world.origin.kill().await.unwrap();
            drop(moment);
            break;
        }
    }
    drop(moments);
    let heard = call.await.unwrap();
    unbroken(&heard);
    assert_eq!(
        heard.answered_by(),
        ["origin", "origin", "monitor", "monitor", "monitor"],
        "\n{heard}"
    );
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
}

#[tokio::test]
async fn a_frozen_origin_is_replaced_in_the_middle_of_a_call() {
    let world = World::start(Part::Real, Part::Real).await.unwrap();
    let (watcher, mut moments) = tokio::sync::mpsc::unbounded_channel();
    let call = tokio::spawn(world.call(caller()).watched_by(watcher).make());
    while let Some(moment) = moments.recv().await {
        if matches!(&moment.step, Step::Webhook(webhook) if webhook.path == "/identify_caller") {
            world.origin.program.as_ref().unwrap().freeze().unwrap();
        }
    }
    let heard = call.await.unwrap();
    world.origin.program.as_ref().unwrap().thaw().unwrap();
    unbroken(&heard);
    assert_eq!(heard.answered_by()[2..], ["monitor"; 3], "\n{heard}");
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
}

#[tokio::test]
async fn a_held_call_continues_where_it_was() {
    let world = World::start(Part::Real, Part::Nothing).await.unwrap();
    world.origin.wire.cut().await;
    world.until("origin", "down").await.unwrap();
    let (watcher, mut moments) = tokio::sync::mpsc::unbounded_channel();
    let call = tokio::spawn(world.call(caller()).watched_by(watcher).make());
    let mut holds = 0;
    while let Some(moment) = moments.recv().await {
        let Step::Webhook(webhook) = &moment.step else { continue };
        if webhook.answered_by.as_deref() == Some("hold") {
            holds += 1;
        }
        if holds == 2 {
            world.origin.wire.mend().await;
            world.until("origin", "trial").await.unwrap();
            holds = 3;
        }
    }
    let heard = call.await.unwrap();
    unbroken(&heard);
    // The PIN was keyed before the hold, and Twilio did not send it again: the token did.
    assert_eq!(
        heard.answered_by(),
        ["canned", "hold", "hold", "origin", "origin", "origin", "origin"],
        "\n{heard}"
    );
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    assert!(
        heard.heard().contains("One moment, please. | [pause of 1 s] | [pause of 2 s]"),
        "\n{heard}"
    );
    let tokens = world.metric("holdline_hold_tokens_total", "fate=\"good\"").await.unwrap();
    assert_eq!(tokens, 2.0);
}

#[tokio::test]
async fn what_returns_from_a_hold_is_the_first_request_without_its_token() {
    let world = World::start(Part::StandIn(Manner::Status(500)), Part::Nothing).await.unwrap();
    let keyed = form(&call_sid(1), &[("Digits", "1000008"), ("FinishedOnKey", "*")]);
    let (held, _) = document(world.post("/identify_caller?attempt=1", &keyed).await, DEADLINE);
    let script = twiml::read(held.header("content-type"), &held.body).unwrap();
    let Some(twiml::Verb::Redirect(twiml::Target { url, method })) = script.verbs.last() else {
        panic!("{script:?}")
    };
    assert_eq!(method, "POST");
    assert!(url.starts_with("/identify_caller?attempt=1&holdline="), "{url}");
    assert!(!url.contains("1000008"), "{url}");
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    let (_, by) = document(world.post(url, &form(&call_sid(1), &[])).await, DEADLINE);
    assert_eq!(by, "origin");
    let reached = world.origin.reached();
    let (first, back) = (&reached[0], &reached[1]);
    assert_eq!(back.line, "POST /identify_caller?attempt=1 HTTP/1.1");
    assert_eq!(back.field("holdline-delivery"), first.field("holdline-delivery"));
    assert!(back.body.contains("Digits=1000008&FinishedOnKey=%2A"), "{}", back.body);
    // What comes back is signed for what is sent, not for what was received.
    assert_eq!(back.field("x-twilio-signature"), first.field("x-twilio-signature"));
    assert_ne!(back.field("holdline-twilio-signature"), first.field("holdline-twilio-signature"));
}

#[tokio::test]
async fn a_token_that_is_forged_foreign_or_outrun_makes_a_new_visit() {
    let world = World::start(Part::StandIn(Manner::Status(500)), Part::Nothing).await.unwrap();
    let keyed = form(&call_sid(1), &[("Digits", "1000008")]);
    let (held, _) = document(world.post("/identify_caller", &keyed).await, DEADLINE);
    let script = twiml::read(held.header("content-type"), &held.body).unwrap();
    let Some(twiml::Verb::Redirect(twiml::Target { url, .. })) = script.verbs.last() else {
        panic!("{script:?}")
    };
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    let forged = format!("{}AAAA", &url[..url.len() - 4]);
    for (url, form, fate) in [
        (forged.as_str(), form(&call_sid(1), &[]), "forged"),
        (url.as_str(), form(&call_sid(2), &[]), "foreign"),
        (url.as_str(), form(&call_sid(1), &[("Digits", "7")]), "new_trigger"),
    ] {
        document(world.post(url, &form).await, DEADLINE);
        let reached = world.origin.reached().pop().unwrap();
        assert_eq!(reached.line, "POST /identify_caller HTTP/1.1", "{fate}");
        assert!(!reached.body.contains("1000008"), "{fate}: {}", reached.body);
        let counted =
            world.metric("holdline_hold_tokens_total", &format!("fate=\"{fate}\"")).await.unwrap();
        assert_eq!(counted, 1.0, "{fate}");
    }
}

#[tokio::test]
async fn a_hold_ends_with_the_final_document() {
    let rows = "[[row]]\nname = \"short\"\npath = \"/short\"\nkind = \"synchronous\"\n\
                parties = [\"web_caller\"]\nreplay = \"idempotent\"\ncanned = \"apology\"\nhold = \"7s\"";
    let world = World::plan(Part::Nothing, Part::Nothing).rows(rows).start().await.unwrap();
    let mut line = world.line("/short");
    line.status = None;
    let company = world.company_at(1.0).unwrap();
    let begun = Instant::now();
    let heard = company.call(line, Party::silent()).make().await;
    // Pauses of 1 s and 2 s fit into the 7 s beside a second of speech; 4 s more do not.
    assert_eq!(heard.answered_by(), ["hold", "hold", "canned"], "\n{heard}");
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn hold_music_always_plays() {
    let world = World::start(Part::Real, Part::Nothing).await.unwrap();
    let play = async || {
        let answer = world
            .raw(b"GET /media/hold-music HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-type: audio/wav"),
            "{head}"
        );
        assert!(head.contains("content-length: 64058"), "{head}");
        head.contains("holdline-answered-by: canned")
    };
    assert!(!play().await);
    // An origin that accepts and says nothing is not waited for until Twilio gives up.
    world.origin.program.as_ref().unwrap().freeze().unwrap();
    let begun = Instant::now();
    assert!(play().await);
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    world.origin.program.as_ref().unwrap().thaw().unwrap();
    world.origin.wire.cut().await;
    assert!(play().await);
    world.until("origin", "down").await.unwrap();
    assert!(play().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_survive_the_death_of_the_origin() {
    const CALLS: usize = 200;
    let mut world = World::start(Part::Real, Part::Real).await.unwrap();
    let (watcher, mut moments) = tokio::sync::mpsc::unbounded_channel();
    let calls: Vec<_> = (0..CALLS)
        .map(|_| tokio::spawn(world.call(caller()).watched_by(watcher.clone()).make()))
        .collect();
    drop(watcher);
    // Killed when half of the callers are in the menu and the others anywhere before or after.
    let mut identified = 0;
    while let Some(moment) = moments.recv().await {
        identified += usize::from(
            matches!(&moment.step, Step::Webhook(webhook) if webhook.path == "/identify_caller"),
        );
        if identified == CALLS / 2 {
            break;
        }
    }
    world.origin.kill().await.unwrap();
    drop(moments);
    let (mut steered, mut held, mut dropped, mut by_monitor) = (0, 0, 0, 0);
    for call in calls {
        let heard = call.await.unwrap();
        unbroken(&heard);
        assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
        assert!(heard.heard().contains("nobody left to call"), "\n{heard}");
        assert!(heard.webhooks().all(|webhook| webhook.error.is_none()), "\n{heard}");
        for by in heard.answered_by() {
            match by {
                "origin" | "monitor" => steered += 1,
                "hold" => held += 1,
                _ => dropped += 1,
            }
            by_monitor += usize::from(by == "monitor");
        }
    }
    println!(
        "steered {steered} ({by_monitor} by the monitor), held {held}, dropped {dropped}, lost 0"
    );
    assert!(by_monitor >= CALLS, "the origin died too late to matter");
    assert_eq!(world.status().await.unwrap()["visits"]["lost"], 0);
    assert_eq!(world.metric("holdline_callback_lost_total", "").await.unwrap(), 0.0);
}
