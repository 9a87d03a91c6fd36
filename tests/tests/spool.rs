//! Callbacks that only bring news: what is acknowledged is delivered, whatever happens in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use holdline_tests::stand_in::Reached;
use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, Report, Sender, World};
use holdline_twilio::Form;
use sqlx::{Connection as _, SqliteConnection};

const ANSWERS: Part = Part::StandIn(Manner::Answers);
const CALL_ENDED: &str = "/calls/7/call_ended?campaign=3";

/// A report of this call, told apart by a number.
fn report(call: u64, number: u64) -> Form {
    let number = number.to_string();
    form(&call_sid(call), &[("CallStatus", "completed"), ("SequenceNumber", &number)])
}

/// Sends a report; the status and who took it.
async fn send(world: &World, call: u64, number: u64) -> (u16, String) {
    let received = world.post(CALL_ENDED, &report(call, number)).await.result.unwrap();
    let by = received.header("holdline-answered-by").unwrap_or_default().to_owned();
    (received.status, by)
}

fn kept() -> (u16, String) {
    (204, "spool".to_owned())
}

fn handed_on() -> (u16, String) {
    (204, "origin".to_owned())
}

/// Which report of which call this is.
fn which(reached: &Reached) -> (String, u64) {
    let form = Form::parse(reached.body.as_bytes()).unwrap();
    let number = form.get("SequenceNumber").unwrap().parse().unwrap();
    (form.get("CallSid").unwrap().to_owned(), number)
}

/// Waits until as many reports have reached the origin.
async fn until_reached(world: &World, count: usize) -> Vec<Reached> {
    let begun = Instant::now();
    loop {
        let reached = world.origin.reached();
        if reached.len() >= count {
            return reached;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "only {} came", reached.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn waiting(world: &World) -> u64 {
    world.status().await.unwrap()["spool"]["waiting"].as_u64().unwrap()
}

async fn until_nothing_waits(world: &World) {
    let begun = Instant::now();
    while waiting(world).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:#}", world.status().await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_report_goes_straight_through_while_the_origin_is_well() {
    let world = World::start(ANSWERS, ANSWERS).await.unwrap();
    for number in 0..5 {
        assert_eq!(send(&world, 1, number).await, handed_on());
    }
    assert_eq!(world.origin.reached().len(), 5);
    assert_eq!(world.metric("holdline_spool_accepted_total", "").await.unwrap(), 0.0);
    assert!(world.origin.reached()[0].field("holdline-try").is_none());
}

#[tokio::test]
async fn a_report_that_nobody_takes_is_kept_and_delivered_in_order_later() {
    let world = World::start(ANSWERS, ANSWERS).await.unwrap();
    world.origin.wire.cut().await;
    for number in 0..6 {
        assert_eq!(send(&world, number % 2, number).await, kept());
    }
    assert_eq!(waiting(&world).await, 6);
    // The monitor takes none, because the row does not say so.
    assert_eq!(world.monitor.reached().len(), 0);
    world.origin.wire.mend().await;
    until_nothing_waits(&world).await;
    let reached = until_reached(&world, 6).await;
    for call in 0..2 {
        let numbers: Vec<u64> = reached
            .iter()
            .map(which)
            .filter(|(sid, _)| *sid == call_sid(call))
            .map(|(_, number)| number)
            .collect();
        assert_eq!(numbers, [call, call + 2, call + 4]);
    }
    // It came as it was, signed anew, with what is known of it.
    let first = reached.iter().find(|reached| which(reached) == (call_sid(0), 0)).unwrap();
    assert!(first.line.starts_with(&format!("POST {CALL_ENDED} ")), "{}", first.line);
    assert_eq!(first.body, report(0, 0).encode());
    let tries: u32 = first.field("holdline-try").unwrap().parse().unwrap();
    assert!(tries >= 2, "the first was when it came");
    for field in ["holdline-delivery", "holdline-age", "holdline-first-seen", "x-twilio-signature"]
    {
        assert!(first.field(field).is_some(), "{field} is missing: {first:?}");
    }
    assert_eq!(world.metric("holdline_spool_delivered_total", "").await.unwrap(), 6.0);
    assert_eq!(world.metric("holdline_callback_lost_total", "").await.unwrap(), 0.0);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_process() {
    let mut world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    world.origin.wire.cut().await;
    for number in 0..20 {
        assert_eq!(send(&world, number, number).await, kept());
    }
    world.edge.kill().await.unwrap();
    world.origin.wire.mend().await;
    world.restart_edge().await.unwrap();
    let mut numbers: Vec<u64> =
        until_reached(&world, 20).await.iter().map(|reached| which(reached).1).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    until_nothing_waits(&world).await;
}

#[tokio::test]
async fn what_the_application_does_not_know_is_a_dead_letter() {
    let world = World::start(Part::StandIn(Manner::Status(404)), Part::Nothing).await.unwrap();
    assert_eq!(send(&world, 1, 1).await, kept());
    // What is dead keeps nobody waiting.
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    assert_eq!(send(&world, 1, 2).await, handed_on());
    // One that turns out to be gone only later is one, too.
    world.origin.wire.cut().await;
    assert_eq!(send(&world, 2, 1).await, kept());
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Status(410));
    world.origin.wire.mend().await;
    until_nothing_waits(&world).await;
    world.until_metric("holdline_spool_entries", "dead", 2.0).await.unwrap();
    world.until_metric("holdline_spool_dead_total", "gone", 2.0).await.unwrap();
}

#[tokio::test]
async fn a_wrong_secret_eats_no_callbacks() {
    let world = World::plan(Part::StandIn(Manner::Status(403)), Part::Nothing)
        .more("[spool]\nbackoff = \"20ms\"\nbackoff_cap = \"40ms\"\nmax_tries = 2")
        .start()
        .await
        .unwrap();
    assert_eq!(send(&world, 1, 1).await, kept());
    assert!(world.edge.logs("does not believe who sent a callback").await);
    until_reached(&world, 8).await;
    assert!(world.metric("holdline_spool_strangers_total", "").await.unwrap() >= 7.0);
    assert_eq!(waiting(&world).await, 1);
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    until_nothing_waits(&world).await;
    world.until_metric("holdline_spool_delivered_total", "", 1.0).await.unwrap();
}

#[tokio::test]
async fn a_poisoned_report_steps_aside() {
    let world = World::plan(ANSWERS, Part::Nothing)
        .more("[spool]\nbackoff = \"20ms\"\nbackoff_cap = \"40ms\"\nmax_tries = 6")
        .start()
        .await
        .unwrap();
    let origin = world.origin.stand_in.as_ref().unwrap();
    origin.treat("SequenceNumber=666", Manner::Status(500));
    assert_eq!(send(&world, 1, 666).await, kept());
    for number in 1..=3 {
        assert_eq!(send(&world, 1, number).await, kept(), "an older one of its call waits");
    }
    // Others are taken all the while.
    let others = async {
        for number in 10.. {
            send(&world, 2, number).await;
            if world.metric("holdline_spool_dead_total", "too_many_tries").await.unwrap() == 1.0 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), others).await.expect("it is tried for ever");
    until_nothing_waits(&world).await;
    let of_call: Vec<u64> = world
        .origin
        .reached()
        .iter()
        .map(which)
        .filter(|(sid, _)| *sid == call_sid(1))
        .map(|(_, number)| number)
        .collect();
    let first_other = of_call.iter().position(|number| *number != 666).unwrap();
    // Tried once as it came and three times more, it let the others of its call go by.
    assert!((3..=5).contains(&first_other), "{of_call:?}");
    let others: Vec<&u64> = of_call.iter().filter(|number| **number != 666).collect();
    assert_eq!(others, [&1, &2, &3]);
    // A callback that nobody could take is no evidence against the origin.
    let down = "to=\"down\",upstream=\"origin\"";
    assert_eq!(world.metric("holdline_verdict_changes_total", down).await.unwrap(), 0.0);
    assert_eq!(world.metric("holdline_spool_entries", "dead").await.unwrap(), 1.0);
}

#[tokio::test]
async fn what_cannot_be_kept_is_handed_on_at_any_price() {
    let world = World::plan(Part::StandIn(Manner::Status(500)), ANSWERS)
        .more("[spool]\nmax_entries = 1")
        .start()
        .await
        .unwrap();
    assert_eq!(send(&world, 1, 1).await, kept());
    // Whoever is waited for by documents leaves the origin alone; a report has nobody else.
    for number in 10..=13 {
        world.post("/callin/create", &form(&call_sid(number), &[])).await.result.unwrap();
    }
    world.until("origin", "down").await.unwrap();
    world.origin.stand_in.as_ref().unwrap().behave(Manner::Answers);
    world.origin.stand_in.as_ref().unwrap().treat("SequenceNumber=1&", Manner::Status(500));
    assert_eq!(send(&world, 2, 2).await, handed_on());
    assert_eq!(world.metric("holdline_spool_passed_through_total", "").await.unwrap(), 1.0);
    assert_eq!(world.metric("holdline_spool_refused_total", "no_room").await.unwrap(), 1.0);
    assert_eq!(world.metric("holdline_spool_keeps", "").await.unwrap(), 0.0);
}

#[tokio::test]
async fn an_edge_without_a_spool_still_hands_on() {
    let world =
        World::plan(ANSWERS, Part::Nothing).file("spool", "not a folder").start().await.unwrap();
    assert!(world.edge.logs("the spool cannot be opened").await);
    assert_eq!(send(&world, 1, 1).await, handed_on());
    assert_eq!(world.status().await.unwrap()["spool"]["condition"], "failed");
    world.origin.wire.cut().await;
    assert_eq!(send(&world, 1, 2).await.0, 503);
    // It is opened as soon as it can be.
    std::fs::remove_file(world.folder().join("spool")).unwrap();
    world.until_metric("holdline_spool_keeps", "", 1.0).await.unwrap();
    assert_eq!(send(&world, 1, 3).await, kept());
}

#[tokio::test]
async fn what_can_be_neither_kept_nor_handed_on_is_not_acknowledged() {
    let world = World::plan(Part::Nothing, Part::Nothing)
        .more("[spool]\nmax_entries = 1")
        .start()
        .await
        .unwrap();
    assert_eq!(send(&world, 1, 1).await, kept());
    assert_eq!(send(&world, 2, 2).await, (503, "nobody".to_owned()));
    assert_eq!(world.metric("holdline_callback_lost_total", "").await.unwrap(), 1.0);
    assert!(world.edge.logs("a callback was neither kept nor taken").await);
}

#[tokio::test]
async fn two_edges_may_keep_and_one_of_them_delivers() {
    let mut world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    let mut other = world.another_edge("other").await.unwrap();
    let mut sender = Sender::default();
    // What the other is given is kept, whoever is well, and delivered by the one that has the lock.
    for number in 1..=3 {
        let request = Report { call: 1, number }.request();
        assert_eq!(sender.send(other.public, &request).await.unwrap(), 204);
    }
    let numbers = |reached: &[Reached]| reached.iter().map(|r| which(r).1).collect::<Vec<_>>();
    assert_eq!(numbers(&until_reached(&world, 3).await), [1, 2, 3]);
    assert!(!other.log().contains("the spool is replayed from here"));
    // It takes over when the first one ends.
    world.origin.wire.cut().await;
    let request = Report { call: 1, number: 4 }.request();
    assert_eq!(sender.send(other.public, &request).await.unwrap(), 204);
    assert_eq!(send(&world, 1, 5).await, kept());
    world.edge.terminate().unwrap();
    assert!(world.edge.ended(Duration::from_secs(10)).await.unwrap().success());
    assert!(other.logs("the spool is replayed from here").await);
    world.origin.wire.mend().await;
    assert_eq!(numbers(&until_reached(&world, 5).await), [1, 2, 3, 4, 5]);
    other.terminate().unwrap();
    assert!(other.ended(Duration::from_secs(10)).await.unwrap().success());
}

#[tokio::test]
async fn a_damaged_spool_is_set_aside_and_what_can_be_read_of_it_taken_in() {
    let mut world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    world.origin.wire.cut().await;
    for number in 1..=40 {
        assert_eq!(send(&world, number, number).await, kept());
    }
    world.edge.terminate().unwrap();
    assert!(world.edge.ended(Duration::from_secs(10)).await.unwrap().success());
    // The disk has lost the log, which was copied, and the end of the file.
    let file = world.folder().join("spool/spool.sqlite");
    let _ = std::fs::remove_file(world.folder().join("spool/spool.sqlite-wal"));
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(length - 4096).unwrap();
    world.restart_edge().await.unwrap();
    assert!(world.edge.logs("the spool was damaged and is set aside").await);
    assert_eq!(world.metric("holdline_spool_set_aside_total", "").await.unwrap(), 1.0);
    assert_eq!(send(&world, 99, 99).await, kept());
    let aside = std::fs::read_dir(world.folder().join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            let name = path.display().to_string();
            name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .unwrap();
    assert_eq!(std::fs::metadata(&aside).unwrap().len(), length - 4096);
    let said = world.spool(&["import", &aside.display().to_string()], "").await.unwrap();
    assert!(said.out.contains("new and taken in"), "{said:?}");
    let saved = waiting(&world).await - 1;
    assert!(saved >= 30, "{saved} of 40 could be read: {}", said.err);
    world.origin.wire.mend().await;
    until_nothing_waits(&world).await;
    assert_eq!(world.origin.reached().len() as u64, saved + 1);
}

#[tokio::test]
async fn a_spool_of_a_newer_version_is_refused_with_a_clear_word() {
    let mut world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    world.edge.terminate().unwrap();
    world.edge.ended(Duration::from_secs(10)).await.unwrap();
    let file = world.folder().join("spool/spool.sqlite");
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let refused = world.restart_edge().await.unwrap_err();
    assert!(format!("{refused:#}").contains("was written by a newer holdline"), "{refused:#}");
    let checked = world.check().await.unwrap();
    assert_eq!(checked.code, 64);
    assert!(checked.err.contains("was written by a newer holdline"), "{checked:?}");
}

#[tokio::test]
async fn a_report_that_was_refused_for_want_of_room_may_come_again() {
    let world =
        World::plan(ANSWERS, Part::Nothing).more("[spool]\nmax_entries = 1").start().await.unwrap();
    world.origin.wire.cut().await;
    assert_eq!(send(&world, 1, 1).await, kept());
    let again = async || {
        let fetched = world.post_with_token(CALL_ENDED, &report(2, 2), "t").await;
        fetched.result.unwrap().status
    };
    assert_eq!(again().await, 503);
    world.origin.wire.mend().await;
    until_nothing_waits(&world).await;
    assert_eq!(again().await, 204, "it was answered from memory");
}

#[tokio::test]
async fn a_file_that_is_taken_away_is_made_anew_and_used() {
    let world = World::start(ANSWERS, Part::Nothing).await.unwrap();
    world.origin.wire.cut().await;
    assert_eq!(send(&world, 1, 1).await, kept());
    for name in ["spool.sqlite", "spool.sqlite-wal", "spool.sqlite-shm"] {
        let from = world.folder().join("spool").join(name);
        std::fs::rename(&from, world.folder().join(name)).unwrap();
    }
    // Nobody is told that it is kept where nobody will look for it.
    assert_ne!(send(&world, 2, 2).await, kept());
    world.until_metric("holdline_spool_keeps", "", 1.0).await.unwrap();
    assert_eq!(send(&world, 3, 3).await, kept());
    world.origin.wire.mend().await;
    until_nothing_waits(&world).await;
    assert!(world.origin.reached().iter().map(which).any(|(_, number)| number == 3));
    assert_eq!(world.metric("holdline_spool_delivered_total", "").await.unwrap(), 1.0);
}
