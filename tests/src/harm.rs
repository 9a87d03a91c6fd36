//! Harm that is done to origin, monitor and the database server while a campaign is worked through.
//!
//! A check that fails ends the test, at the line that made it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a campaign that cannot go on fails"
)]

use std::fmt::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinHandle;
use twilio_sim::{Mishaps, Transcript};

use crate::World;
use crate::campaign::{LONG, campaign, check_answers, check_dials, check_invariants, work_through};
use crate::mariadb::MariaDb;

/// What is done to origin and monitor, and how long it lasts.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Kill(&'static [Upstream]),
    Freeze(&'static [Upstream]),
    /// The database server, where there is one.
    FreezeDatabase,
}

#[derive(Debug, Clone, Copy)]
enum Upstream {
    Origin,
    Monitor,
}

const HARMS: [Harm; 7] = [
    Harm::Kill(&[Upstream::Origin]),
    Harm::Freeze(&[Upstream::Monitor]),
    Harm::Freeze(&[Upstream::Origin]),
    Harm::Kill(&[Upstream::Monitor]),
    Harm::Kill(&[Upstream::Origin, Upstream::Monitor]),
    Harm::Freeze(&[Upstream::Origin, Upstream::Monitor]),
    Harm::FreezeDatabase,
];

impl Harm {
    /// Whom it is done to, after the database has been sent a signal if it is done to that.
    fn upstreams(self, database: Option<&MariaDb>, signal: Signal) -> &'static [Upstream] {
        match (self, database) {
            (Harm::Kill(whom) | Harm::Freeze(whom), _) => whom,
            (Harm::FreezeDatabase, Some(database)) => {
                database.signal(signal).unwrap();
                &[]
            }
            (Harm::FreezeDatabase, None) => &[],
        }
    }
}

async fn begin(world: &mut World, database: Option<&MariaDb>, harm: Harm) {
    for upstream in harm.upstreams(database, Signal::STOP) {
        let place = match upstream {
            Upstream::Origin => &mut world.origin,
            Upstream::Monitor => &mut world.monitor,
        };
        match harm {
            Harm::Kill(_) => place.kill().await.unwrap(),
            _ => place.program.as_ref().unwrap().freeze().unwrap(),
        }
    }
}

async fn mend(world: &mut World, database: Option<&MariaDb>, harm: Harm) {
    for upstream in harm.upstreams(database, Signal::CONT) {
        match (harm, upstream) {
            (Harm::Kill(_), Upstream::Origin) => world.restart_origin().await.unwrap(),
            (Harm::Kill(_), Upstream::Monitor) => world.restart_monitor().await.unwrap(),
            (_, upstream) => {
                let place = match upstream {
                    Upstream::Origin => &world.origin,
                    Upstream::Monitor => &world.monitor,
                };
                place.program.as_ref().unwrap().thaw().unwrap();
            }
        }
    }
}

/// How things stand, for whoever has to find out why.
async fn account(world: &World) -> String {
    let mut account = String::new();
    for select in [
        "SELECT CONCAT_WS(' ', 'session', id, stage, household_id, lead_call_id, call_sid) FROM caller_sessions \
         WHERE on_call = 1",
        "SELECT CONCAT_WS(' ', 'call', id, stage, decision, outcome, given_up, call_sid) FROM lead_calls \
         WHERE stage <> 'over'",
        "SELECT CONCAT_WS(' ', 'order', id, kind, subject_id, tries, last_error) FROM outbox \
         WHERE done_ms IS NULL",
        "SELECT CONCAT_WS(' ', campaign_id, place, COUNT(*)) FROM households GROUP BY campaign_id, place",
    ] {
        for line in world.column(select).await.unwrap() {
            writeln!(account, "{line}").unwrap();
        }
    }
    for call in world.company.calls().iter().filter(|call| call.transcript.is_none()) {
        writeln!(account, "live {} {} {} {}", call.sid, call.direction, call.to, call.status)
            .unwrap();
    }
    let status = world.status().await.unwrap();
    writeln!(account, "{:#}", status["upstreams"]).unwrap();
    for place in [&world.origin, &world.monitor] {
        let log = place.program.as_ref().unwrap().log();
        let last: Vec<&str> = log.lines().rev().take(15).collect();
        writeln!(account, "{}", last.join("\n")).unwrap();
    }
    account
}

/// Documents for callers that `by` gave, as the edge counts them.
async fn documents_by(world: &World, by: &str) -> usize {
    let mut count = 0.0;
    for row in [
        "callin_",
        "identify_caller",
        "read_instruction_options",
        "ready_to_call",
        "next_call",
        "conference_started_",
        "gather_response",
        "submit_response",
    ] {
        let labels = format!("by=\"{by}\",row=\"{row}");
        count += world.metric("holdline_visits_total", &labels).await.unwrap();
    }
    count as usize
}

/// Does harm that lasts until callers were answered by one of `by`, or have no more to ask.
async fn harm_until_felt(
    world: &mut World,
    harm: Harm,
    by: &[&str],
    callers: &JoinHandle<impl Sized>,
) {
    let count = async |world: &World| {
        let mut count = 0;
        for by in by {
            count += documents_by(world, by).await;
        }
        count
    };
    begin(world, None, harm).await;
    let before = count(world).await;
    while !callers.is_finished() && count(world).await == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mend(world, None, harm).await;
}

/// What a campaign with harm came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Felt {
    /// Callers' calls: more than there are callers where somebody had to dial in again.
    pub calls: usize,
    /// How often harm was done.
    pub harms: usize,
    /// Documents for callers by the origin, as the edge counts them, like those below.
    pub origin: usize,
    /// By the monitor.
    pub monitor: usize,
    /// Documents that let a caller wait.
    pub held: usize,
    /// Documents of last resort.
    pub canned: usize,
    /// The longest that a caller waited for a document, in milliseconds.
    pub longest_ms: u64,
}

// === impl Felt ===

impl Felt {
    /// Adds what another one came to.
    pub fn add(&mut self, more: Felt) {
        self.calls += more.calls;
        self.harms += more.harms;
        self.origin += more.origin;
        self.monitor += more.monitor;
        self.held += more.held;
        self.canned += more.canned;
        self.longest_ms = self.longest_ms.max(more.longest_ms);
    }
}

impl std::fmt::Display for Felt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Felt { calls, harms, origin, monitor, held, canned, longest_ms } = self;
        write!(
            f,
            "{harms} harms, {calls} calls of callers; documents: {origin} by the origin, {monitor} by the \
             monitor, {held} held, {canned} canned; the longest took {longest_ms} ms"
        )
    }
}

/// A campaign while origin, monitor and the database server, if there is one, are killed and frozen, and
/// reports are lost, repeated and overtake each other. Twice that lasts until callers feel it, then at
/// random. Nobody is called twice, nothing that was keyed is lost, and nobody is stuck.
pub async fn campaign_with_harm(
    world: &mut World,
    database: Option<&MariaDb>,
    mode: &str,
    leads: usize,
    callers: usize,
) -> Felt {
    let campaign = campaign(world, mode, leads, callers, &["--detect-machines"]).await;
    let mut dice = world.chance();
    world.company.let_go_wrong(Mishaps {
        lose_reports: 0.1,
        repeat_reports: 0.2,
        delay_reports_s: 0.5,
        rest_at_once: 3,
        ..Mishaps::default()
    });
    let callers = work_through(world, &campaign);
    let mut working = tokio::spawn(tokio::time::timeout(LONG, callers.join_all()));
    harm_until_felt(world, Harm::Kill(&[Upstream::Origin]), &["monitor"], &working).await;
    let both = Harm::Kill(&[Upstream::Origin, Upstream::Monitor]);
    harm_until_felt(world, both, &["hold", "canned"], &working).await;
    let mut harms = 2;
    let done = loop {
        let harm = HARMS[dice.below(HARMS.len())];
        let mut pause = || Duration::from_secs_f64(dice.between(0.4, 1.6));
        begin(world, database, harm).await;
        harms += 1;
        // So long it lasts; and so long nothing happens then.
        let done = tokio::time::timeout(pause(), &mut working).await;
        mend(world, database, harm).await;
        let done = match done {
            Ok(done) => Ok(done),
            Err(_) => tokio::time::timeout(pause(), &mut working).await,
        };
        if let Ok(done) = done {
            break done.unwrap();
        }
    };
    let Ok(done) = done else { panic!("somebody is stuck: {}", account(world).await) };
    let calls: Vec<Transcript> = done.into_iter().flatten().collect();
    world.company.settled().await;
    // What was kept is delivered, and what was not reported is looked up.
    world.until_spool_is_empty().await.unwrap();
    for quiet in [
        "SELECT COUNT(*) FROM caller_sessions WHERE on_call = 1",
        "SELECT COUNT(*) FROM lead_calls WHERE stage <> 'over'",
        "SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL",
    ] {
        world.until_count(quiet, 0).await.unwrap();
    }
    check_invariants(world, &campaign, leads).await;
    check_answers(world, &campaign, &calls).await;
    check_dials(world);
    Felt {
        calls: calls.len(),
        harms,
        origin: documents_by(world, "origin").await,
        monitor: documents_by(world, "monitor").await,
        held: documents_by(world, "hold").await,
        canned: documents_by(world, "canned").await,
        longest_ms: calls.iter().map(Transcript::longest_wait_ms).max().unwrap_or_default(),
    }
}
