//! Whole campaigns: callers with nothing but a telephone work through a list, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::World;
use holdline_tests::campaign::{
    LONG, RECORDING, campaign, check_answers, check_dials, check_invariants, on_mariadb, on_sqlite,
    work_through,
};
use holdline_tests::harm::campaign_with_harm;
use twilio_sim::Transcript;

async fn whole_campaign(world: &World, mode: &str, more: &[&str], outcomes: &[(&str, i64)]) {
    const LEADS: usize = 50;
    let campaign = campaign(world, mode, LEADS, 3, more).await;
    let calls =
        tokio::time::timeout(LONG, work_through(world, &campaign).join_all()).await.unwrap();
    let calls: Vec<Transcript> = calls.into_iter().flatten().collect();
    assert_eq!(calls.len(), 3, "somebody was cut off");
    for call in &calls {
        assert!(call.is_unbroken(), "{call}");
    }
    world.company.settled().await;
    for quiet in [
        "SELECT COUNT(*) FROM caller_sessions WHERE on_call = 1",
        "SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL",
    ] {
        world.until_count(quiet, 0).await.unwrap();
    }
    check_invariants(world, &campaign, LEADS).await;
    check_answers(world, &campaign, &calls).await;
    check_dials(world);
    let dialed = format!("SELECT COUNT(*) FROM lead_calls WHERE campaign_id = {}", campaign.id);
    assert_eq!(world.count(&dialed).await.unwrap(), LEADS as i64);
    for (outcome, count) in outcomes {
        let select = format!("{dialed} AND outcome = '{outcome}'");
        assert_eq!(world.count(&select).await.unwrap(), *count, "{outcome}");
    }
    // A line for each call, and the heading.
    let results = world.admin(&["results", &campaign.id]).await.unwrap();
    assert_eq!(results.lines().count(), LEADS + 1);
    assert!(
        results.lines().next().unwrap().ends_with("Will they come to the meeting?"),
        "{results}"
    );
}

/// Machines are not told from people, and talk.
const UNTOLD: [(&str, i64); 4] = [("completed", 35), ("busy", 5), ("no answer", 5), ("failed", 5)];
const TOLD: [(&str, i64); 3] =
    [("completed", 25), ("hangup or answering machine", 10), ("failed", 5)];
const MESSAGES: [(&str, i64); 3] = [("completed", 25), ("message delivered", 10), ("failed", 5)];

#[tokio::test]
async fn a_power_campaign_on_sqlite() {
    let world = on_sqlite().await;
    whole_campaign(&world, "power", &["--detect-machines"], &TOLD).await;
}

#[tokio::test]
async fn a_power_campaign_that_leaves_messages() {
    let world = on_sqlite().await;
    let more = ["--detect-machines", "--recording", RECORDING, "--leave-message"];
    whole_campaign(&world, "power", &more, &MESSAGES).await;
}

#[tokio::test]
async fn a_preview_campaign_on_sqlite() {
    whole_campaign(&on_sqlite().await, "preview", &[], &UNTOLD).await;
}

#[tokio::test]
async fn a_power_campaign_on_mariadb() {
    let (world, _database) = on_mariadb().await;
    whole_campaign(&world, "power", &[], &UNTOLD).await;
}

#[tokio::test]
async fn a_preview_campaign_on_mariadb() {
    let (world, _database) = on_mariadb().await;
    whole_campaign(&world, "preview", &["--detect-machines"], &TOLD).await;
}

#[tokio::test]
async fn a_power_campaign_under_faults_on_sqlite() {
    let felt = campaign_with_harm(&mut on_sqlite().await, None, "power", 50, 4).await;
    assert!(felt.monitor > 0 && felt.held + felt.canned > 0, "no harm was done: {felt:?}");
}

#[tokio::test]
async fn a_preview_campaign_under_faults_on_mariadb() {
    let (mut world, database) = on_mariadb().await;
    let felt = campaign_with_harm(&mut world, Some(&database), "preview", 50, 4).await;
    assert!(felt.monitor > 0 && felt.held + felt.canned > 0, "no harm was done: {felt:?}");
}
