//! Whole campaigns: set up as an administrator does, worked through by callers who have nothing but a
//! telephone, and checked when all is quiet.
//!
//! A check that fails ends the test, at the line that made it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a campaign that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use tokio::task::JoinSet;

use twilio_sim::{Company, Lead, Party, Step, Transcript};

use crate::mariadb::MariaDb;
use crate::{Part, World};

/// How long a campaign may take.
pub const LONG: Duration = Duration::from_secs(300);

/// What callers do: they sign in, call whom they are offered, talk, and answer what they are asked.
const CALLER: &str = "access number={pin}*; take calls=*; always to call, pound=*; always talk 3s-80s; \
                      always conversation go=1*|2*; always to the meeting=1*|2*|3*";

/// What the people do who are called: of all kinds some. They stay on the line for long enough that a
/// machine which stands still for a second or two changes nothing for them.
const PEOPLE: [&str; 10] = [
    "answers 2s-6s; hang up 90s",
    "answers 2s-6s; hang up 90s",
    "answers 2s-6s; hang up 90s",
    "answers 2s-6s; hang up 60s-70s",
    "answers 2s-6s; hang up 60s-70s",
    "machine 4s; hang up 60s",
    "machine 4s; hang up 60s",
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

/// Stands for the account's recording in the arguments of a campaign.
pub const RECORDING: &str = "{recording}";

/// A campaign with its callers.
#[derive(Debug)]
pub struct Campaign {
    /// The campaign.
    pub id: String,
    /// The PINs of its callers.
    pub pins: Vec<String>,
}

fn number(n: usize) -> String {
    format!("50055{n:05}")
}

/// Sets a campaign up as an administrator does, and puts people at its numbers.
pub async fn campaign(
    world: &World,
    mode: &str,
    leads: usize,
    callers: usize,
    more: &[&str],
) -> Campaign {
    // As many callers and minutes as there may be.
    let terms = ["--plan", "per_minute", "--minutes", "100000000"];
    let account = world.admin(&[&["account", "add", "Test"][..], &terms].concat()).await.unwrap();
    let script = world.folder().join("script.toml");
    std::fs::write(&script, SCRIPT).unwrap();
    let script = script.display().to_string();
    let script = world.admin(&["script", "import", &account, &script]).await.unwrap();
    let usual = [
        "campaign",
        "add",
        &account,
        "Campaign",
        "--mode",
        mode,
        "--caller-id",
        "5005550001",
        "--script",
        &script,
        "--hours",
        "0-0",
        "--time-zone",
        "UTC",
    ];
    let url = "http://edge.test/media/hold-music";
    let recording = world.admin(&["recording", "add", &account, "Sorry", url]).await.unwrap();
    let more: Vec<&str> =
        more.iter().map(|word| if *word == RECORDING { &*recording } else { word }).collect();
    let id = world.admin(&[&usual[..], &more].concat()).await.unwrap();
    let mut list = "phone,first_name,last_name,custom_id\n".to_owned();
    for n in 0..leads {
        writeln!(list, "{},Ann,Lee{n},c{n}", number(n)).unwrap();
        put_somebody(&world.company, n);
    }
    let said = world.try_admin(&["list", "import", &id, "-"], &list).await.unwrap();
    assert!(
        said.out.starts_with(&format!("{leads} numbers with {leads} people added")),
        "{said:?}"
    );
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

/// Lets everybody call, and call again where they were cut off, until nobody is left to be called.
pub fn work_through(world: &World, campaign: &Campaign) -> JoinSet<Vec<Transcript>> {
    let mut callers = JoinSet::new();
    for pin in &campaign.pins {
        let party: Party = CALLER.replace("{pin}", pin).parse().unwrap();
        let (company, line) = (world.company.clone(), world.line("/callin/create"));
        callers.spawn(async move {
            let mut calls: Vec<Transcript> = Vec::new();
            while !calls.last().is_some_and(|call| call.heard().contains("nobody left to call")) {
                calls.push(company.call(line.clone(), party.clone()).make().await);
            }
            calls
        });
    }
    callers
}

/// What must be true of every campaign when all is quiet.
pub async fn check_invariants(world: &World, campaign: &Campaign, leads: usize) {
    let count = async |what: &str| {
        let select = what.replace("{id}", &campaign.id);
        world.count(&select).await.unwrap_or_else(|error| panic!("{select}: {error}"))
    };
    // Every number is in one place, and none is lost.
    assert_eq!(
        count("SELECT COUNT(*) FROM households WHERE campaign_id = {id}").await,
        leads as i64
    );
    // Nobody was called twice: the recycle time is not over.
    let twice = count(
        "SELECT COUNT(*) FROM (SELECT phone FROM lead_calls WHERE campaign_id = {id} \
                       AND dialed_ms IS NOT NULL GROUP BY phone HAVING COUNT(*) > 1) twice",
    )
    .await;
    assert_eq!(twice, 0, "numbers were dialed twice");
    // Nothing rings, and nobody is on call.
    assert_eq!(
        count("SELECT COUNT(*) FROM lead_calls WHERE campaign_id = {id} AND stage <> 'over'").await,
        0
    );
    assert_eq!(
        count("SELECT COUNT(*) FROM caller_sessions WHERE campaign_id = {id} AND on_call = 1")
            .await,
        0
    );
    // Who talked has an outcome, and everybody's outcome is known.
    assert_eq!(
        count("SELECT COUNT(*) FROM lead_calls WHERE campaign_id = {id} AND outcome IS NULL").await,
        0
    );
    // Nothing waits to be done.
    assert_eq!(count("SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL").await, 0);
    // Every leg is charged, once.
    let mut minutes = 0;
    for table in ["caller_sessions", "lead_calls"] {
        let left = format!(
            "SELECT COUNT(*) FROM {table} WHERE charged_minutes IS NULL AND ended_ms IS NOT NULL"
        );
        world.until_count(&left, 0).await.unwrap();
        let legs =
            format!("SELECT CONCAT(charged_minutes, '') FROM {table} WHERE charged_minutes > 0");
        let legs = world.column(&legs).await.unwrap();
        assert!(!legs.is_empty(), "nothing of {table} was charged");
        minutes += legs.iter().map(|minutes| minutes.parse::<i64>().unwrap()).sum::<i64>();
    }
    let charged = count(
        "SELECT minutes_used + minutes_pending FROM accounts JOIN campaigns \
         ON campaigns.account_id = accounts.id WHERE campaigns.id = {id}",
    )
    .await;
    assert_eq!(charged, minutes);
    // A number that cannot be called is not called again, and a lead who is done with is not either.
    let wrong = count(
        "SELECT COUNT(*) FROM households WHERE campaign_id = {id} \
                       AND status = 'failed' AND place <> 'failed'",
    )
    .await;
    assert_eq!(wrong, 0);
    let wrong = count(
        "SELECT COUNT(*) FROM households JOIN leads ON leads.household_id = households.id \
                       WHERE campaign_id = {id} AND leads.completed = 1 AND place <> 'completed'",
    )
    .await;
    assert_eq!(wrong, 0);
}

/// Every answer that a caller keyed was kept, once, as it was keyed.
pub async fn check_answers(world: &World, campaign: &Campaign, calls: &[Transcript]) {
    let part = |url: &str, name: &str| {
        let (_, query) = url.split_once('?')?;
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned)
    };
    let mut keyed = BTreeMap::new();
    for call in calls {
        let mut pressed = "";
        for step in &call.steps {
            match step {
                Step::Pressed { keys, .. } => pressed = keys.trim_end_matches('*'),
                Step::Webhook(webhook) if webhook.path.ends_with("/submit_response") => {
                    let part = |name| {
                        part(&webhook.url, name).unwrap_or_else(|| panic!("{}", webhook.url))
                    };
                    // What is keyed again takes the place of what was keyed before.
                    keyed.insert((part("call_id"), part("question_id")), pressed);
                }
                _ => {}
            }
        }
    }
    let keyed: BTreeSet<String> = keyed
        .iter()
        .map(|((call, question), digits)| format!("{call} {question} {digits}"))
        .collect();
    let kept = format!(
        "SELECT CONCAT(lead_call_id, ' ', question_id, ' ', digits) FROM answers \
         JOIN lead_calls ON lead_calls.id = answers.lead_call_id WHERE lead_calls.campaign_id = {}",
        campaign.id
    );
    let kept: BTreeSet<String> = world.column(&kept).await.unwrap().into_iter().collect();
    assert_eq!(kept, keyed, "answers were lost, or made up");
    assert!(!keyed.is_empty(), "nobody was asked anything");
}

/// No number was rung twice, as the phone company saw it.
pub fn check_dials(world: &World) {
    let mut dialed = BTreeMap::new();
    for call in world.company.calls().iter().filter(|call| call.direction == "outbound-api") {
        *dialed.entry(call.to.clone()).or_insert(0) += 1;
    }
    let twice: Vec<_> = dialed.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "rung twice: {twice:?}");
    // Nor is any number in a log.
    for place in [&world.origin, &world.monitor] {
        let log = place.program.as_ref().map(crate::Program::log).unwrap_or_default();
        assert!(!log.contains("50055"), "{log}");
    }
}

/// A world with its own SQLite file.
pub async fn on_sqlite() -> World {
    World::start(Part::Real, Part::Real).await.unwrap()
}

/// A world with a MariaDB server of its own, which has to outlive it.
pub async fn on_mariadb() -> (World, MariaDb) {
    let database = MariaDb::start().await.unwrap();
    let plan = World::plan(Part::Real, Part::Real);
    let world = plan.database(&database.url()).start().await.unwrap();
    (world, database)
}
