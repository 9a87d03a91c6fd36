//! Whole campaigns: callers with nothing but a telephone work through a list, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::fmt::Write as _;
use std::time::Duration;

use holdline_tests::mariadb::MariaDb;
use holdline_tests::{Part, World};
use twilio_sim::{Company, Lead, Party};

/// What callers do: they sign in, call whom they are offered, talk, and answer what they are asked.
const CALLER: &str = "access number={pin}*; take calls=*; always to call, pound=*; always talk 3s-8s; \
                      always conversation go=1*|2*; always to the meeting=1*|2*|3*";

/// What the people do who are called: of all kinds some.
const PEOPLE: [&str; 10] = [
    "answers 2s-6s; hang up 30s",
    "answers 2s-6s; hang up 30s",
    "answers 2s-6s; hang up 30s",
    "answers 2s-6s; hang up 1s-3s",
    "answers 2s-6s; hang up 1s-3s",
    "machine 4s; hang up 20s",
    "machine 4s; hang up 20s",
    "busy",
    "no answer",
    "fails",
];
const SCRIPT: &str = r#"
name = "Opinion"
[[question]]
text = "How did the conversation go?"
response = [{ key = 1, value = "Great" }, { key = 2, value = "Super" }]
[[question]]
text = "Will they come to the meeting?"
response = [{ key = 1, value = "Yes" }, { key = 2, value = "No" }, { key = 3, value = "Ask again", retry = true }]
"#;

/// A campaign with its callers.
struct Campaign {
    id: String,
    pins: Vec<String>,
}

fn number(n: usize) -> String {
    format!("50055{n:05}")
}

/// Sets a campaign up as an administrator does, and puts people at its numbers.
async fn campaign(world: &World, mode: &str, leads: usize, callers: usize, more: &[&str]) -> Campaign {
    let terms = ["--plan", "business", "--paid", "true", "--minutes", "5000", "--seats", "50"];
    let account = world.admin(&[&["account", "add", "Test"][..], &terms].concat()).await.unwrap();
    let script = world.folder().join("script.toml");
    std::fs::write(&script, SCRIPT).unwrap();
    let script = script.display().to_string();
    let script = world.admin(&["script", "import", &account, &script]).await.unwrap();
    let usual = [
        "campaign", "add", &account, "Campaign", "--mode", mode, "--caller-id", "5005550001",
        "--script", &script, "--hours", "0-0", "--time-zone", "UTC",
    ];
    let id = world.admin(&[&usual[..], more].concat()).await.unwrap();
    let mut list = "phone,first_name,last_name,custom_id\n".to_owned();
    for n in 0..leads {
        writeln!(list, "{},Ann,Lee{n},c{n}", number(n)).unwrap();
        put_somebody(&world.company, n);
    }
    let said = world.try_admin(&["list", "import", &id, "-"], &list).await.unwrap();
    assert!(said.out.starts_with(&format!("{leads} numbers with {leads} people added")), "{said:?}");
    let mut pins = Vec::new();
    for n in 0..callers {
        let name = format!("Caller {n}");
        let caller = ["caller", "add", &account, &name, "--campaign", &id];
        let said = world.admin(&caller).await.unwrap();
        pins.push(said.split_once('\t').unwrap().1.to_owned());
    }
    Campaign { id, pins }
}

fn put_somebody(company: &Company, n: usize) {
    let lead: Lead = PEOPLE[n % PEOPLE.len()].parse().unwrap();
    company.put_at(&format!("+1{}", number(n)), lead);
}

/// Lets everybody call until nobody is left to be called.
async fn work_through(world: &World, campaign: &Campaign) -> Vec<twilio_sim::Transcript> {
    let calls = campaign.pins.iter().map(|pin| {
        let party: Party = CALLER.replace("{pin}", pin).parse().unwrap();
        tokio::spawn(world.call(party).make())
    });
    let mut transcripts = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        transcripts.push(call.await.unwrap());
    }
    world.company.settled().await;
    transcripts
}

/// What must be true of every campaign when all is quiet.
async fn check_invariants(world: &World, campaign: &Campaign, leads: usize) {
    let count = async |what: &str| {
        let select = what.replace("{id}", &campaign.id);
        world.count(&select).await.unwrap_or_else(|error| panic!("{select}: {error}"))
    };
    // Every number is in one place, and none is lost.
    assert_eq!(count("SELECT COUNT(*) FROM households WHERE campaign_id = {id}").await, leads as i64);
    // Nobody was called twice: the recycle time is not over.
    let twice = count("SELECT COUNT(*) FROM (SELECT phone FROM lead_calls WHERE campaign_id = {id} \
                       AND dialed_ms IS NOT NULL GROUP BY phone HAVING COUNT(*) > 1) twice").await;
    assert_eq!(twice, 0, "numbers were dialed twice");
    // Nothing rings, and nobody is on call.
    assert_eq!(count("SELECT COUNT(*) FROM lead_calls WHERE campaign_id = {id} AND stage <> 'over'").await, 0);
    assert_eq!(count("SELECT COUNT(*) FROM caller_sessions WHERE campaign_id = {id} AND on_call = 1").await, 0);
    // Who talked has an outcome, and everybody's outcome is known.
    assert_eq!(count("SELECT COUNT(*) FROM lead_calls WHERE campaign_id = {id} AND outcome IS NULL").await, 0);
    // Nothing waits to be done.
    assert_eq!(count("SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL").await, 0);
    // A number that cannot be called is not called again, and a lead who is done with is not either.
    let wrong = count("SELECT COUNT(*) FROM households WHERE campaign_id = {id} \
                       AND status = 'failed' AND place <> 'failed'").await;
    assert_eq!(wrong, 0);
    let wrong = count("SELECT COUNT(*) FROM households JOIN leads ON leads.household_id = households.id \
                       WHERE campaign_id = {id} AND leads.completed = 1 AND place <> 'completed'").await;
    assert_eq!(wrong, 0);
    // Everybody who picked up was put through, or counted as abandoned.
    let lost = count("SELECT COUNT(*) FROM lead_calls WHERE campaign_id = {id} \
                      AND decision = 'connect' AND connected_ms IS NULL").await;
    assert_eq!(lost, 0);
}

/// How many keys callers pressed at questions of the script, and how many answers were kept.
async fn check_answers(world: &World, campaign: &Campaign, transcripts: &[twilio_sim::Transcript]) {
    let submitted: i64 = transcripts
        .iter()
        .flat_map(|transcript| transcript.webhooks())
        .filter(|webhook| webhook.path.contains("/submit_response"))
        .count() as i64;
    let kept = format!(
        "SELECT COUNT(*) FROM answers JOIN lead_calls ON lead_calls.id = answers.lead_call_id \
         WHERE lead_calls.campaign_id = {}",
        campaign.id
    );
    assert_eq!(world.count(&kept).await.unwrap(), submitted, "answers were lost");
    assert!(submitted > 0, "nobody was asked anything");
}

async fn whole_campaign(world: &World, mode: &str, more: &[&str]) {
    const LEADS: usize = 50;
    let campaign = campaign(world, mode, LEADS, 3, more).await;
    let transcripts = work_through(world, &campaign).await;
    for transcript in &transcripts {
        assert!(transcript.heard().contains("nobody left to call"), "{transcript}");
        assert!(transcript.is_unbroken(), "{transcript}");
    }
    check_invariants(world, &campaign, LEADS).await;
    check_answers(world, &campaign, &transcripts).await;
    let dialed = format!("SELECT COUNT(*) FROM lead_calls WHERE campaign_id = {}", campaign.id);
    assert_eq!(world.count(&dialed).await.unwrap(), LEADS as i64);
    for (outcome, calls) in [("completed", 25), ("busy", 5), ("no answer", 5), ("failed", 5)] {
        let select = format!("{dialed} AND outcome = '{outcome}'");
        assert_eq!(world.count(&select).await.unwrap(), calls, "{outcome}");
    }
}

#[tokio::test]
async fn a_power_campaign_from_the_list_to_the_results() {
    let world = World::start(Part::Real, Part::Real).await.unwrap();
    tokio::time::timeout(Duration::from_secs(120), whole_campaign(&world, "power", &[])).await.unwrap();
}

#[tokio::test]
async fn a_preview_campaign_on_mariadb() {
    let database = MariaDb::start().await.unwrap();
    let world = World::plan(Part::Real, Part::Real).database(&database.url()).start().await.unwrap();
    tokio::time::timeout(Duration::from_secs(120), whole_campaign(&world, "preview", &[])).await.unwrap();
}
