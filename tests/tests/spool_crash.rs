//! Callbacks by the thousand, while the edge is killed and the disk fails: what was acknowledged is
//! delivered, in the order of its call, and twice only under the same delivery id.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdline_tests::{Part, Report, Sender, Taker, Taking, World};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::sync::watch;

/// Whoever sends reports, many calls at once, each call's one after the other.
struct Crowd {
    edge: watch::Sender<SocketAddr>,
    enough: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Report>>>,
}

impl Crowd {
    /// So many calls, in all so many reports a second.
    fn begin(edge: SocketAddr, calls: u64, a_second: u64) -> Crowd {
        let (edge, here) = watch::channel(edge);
        let enough = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let pause = Duration::from_micros(1_000_000 * calls / a_second);
        // One after the other, and not all at once.
        let begun = tokio::time::Instant::now();
        let tasks = (1..=calls).map(|call| {
            let (here, enough, sent) = (here.clone(), enough.clone(), sent.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut next =
                    tokio::time::interval_at(begun + pause * call as u32 / calls as u32, pause);
                for number in 0.. {
                    next.tick().await;
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                    let report = Report { call, number };
                    sent.fetch_add(1, Ordering::Relaxed);
                    let edge = *here.borrow();
                    // Refused, or the edge died over it: nobody was promised anything.
                    let status = Sender::default().send(edge, &report.request()).await;
                    if matches!(status, Ok(200..300)) {
                        acknowledged.push(report);
                    }
                }
                acknowledged
            })
        });
        let tasks = tasks.collect();
        Crowd { edge, enough, sent, tasks }
    }

    /// Waits until so many have been sent.
    async fn until_sent(&self, count: u64) {
        while self.sent.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What was acknowledged, once everybody has stopped.
    async fn end(self) -> Vec<Report> {
        self.enough.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for task in self.tasks {
            acknowledged.extend(task.await.unwrap());
        }
        acknowledged
    }
}

/// A world whose origin takes reports, and remembers them.
async fn world(mode: &str) -> (World, Taker) {
    let taker = Taker::start(Taking::After(Duration::ZERO)).await.unwrap();
    let more = format!(
        "[log]\nvisits = false\n\
         [spool]\nmode = \"{mode}\"\nbackoff = \"50ms\"\nbackoff_cap = \"200ms\""
    );
    let plan = World::plan(Part::Nothing, Part::Nothing).more(&more).on_a_disk_that_fails();
    let world = plan.start().await.unwrap();
    world.origin.wire.lead_to(taker.address());
    world.origin.wire.mend().await;
    (world, taker)
}

async fn until_delivered(world: &World) {
    let begun = Instant::now();
    loop {
        let status = world.status().await.unwrap();
        if status["spool"]["waiting"] == 0 && status["spool"]["condition"] == "ready" {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What was acknowledged was delivered, in order, and twice only under one delivery id.
fn judge(acknowledged: &[Report], taker: &Taker, in_order: bool) {
    let taken = taker.taken();
    let mut first: HashMap<Report, usize> = HashMap::new();
    let mut names: HashMap<Report, String> = HashMap::new();
    let mut repeated = 0;
    for (at, taken) in taken.iter().enumerate() {
        let name = names.entry(taken.report).or_insert_with(|| taken.delivery.clone());
        assert_eq!(*name, taken.delivery, "{:?} came under two names", taken.report);
        match first.entry(taken.report) {
            Entry::Occupied(_) => repeated += 1,
            Entry::Vacant(place) => drop(place.insert(at)),
        }
    }
    let missing: Vec<&Report> =
        acknowledged.iter().filter(|report| !first.contains_key(report)).collect();
    assert!(missing.is_empty(), "{} acknowledged and lost: {missing:?}", missing.len());
    let mut by_call: BTreeMap<u64, Vec<Report>> = BTreeMap::new();
    for report in acknowledged {
        by_call.entry(report.call).or_default().push(*report);
    }
    for reports in by_call.values().filter(|_| in_order) {
        for pair in reports.windows(2) {
            assert!(first[&pair[0]] < first[&pair[1]], "{:?} overtook {:?}", pair[1], pair[0]);
        }
    }
    println!(
        "{} acknowledged, {} taken, {repeated} of them again",
        acknowledged.len(),
        taken.len()
    );
}

/// A generator of chance that can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_killing_the_edge() {
    let (mut world, taker) = world("when_needed").await;
    let mut chance =
        Chance(std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7));
    let crowd = Crowd::begin(world.public(), 100, 500);
    for round in 0..50 {
        // The origin is well, slow, refuses, is gone, or flaps, when the edge is killed.
        match chance.below(5) {
            0 => taker.take(Taking::After(Duration::ZERO)),
            1 => taker.take(Taking::After(Duration::from_millis(chance.below(400)))),
            2 => taker.take(Taking::Refusing(500)),
            3 => world.origin.wire.cut().await,
            _ => {
                world.origin.wire.mend().await;
                taker.take(Taking::After(Duration::from_millis(chance.below(20))));
            }
        }
        let sent = crowd.sent.load(Ordering::Relaxed);
        crowd.until_sent(sent + 20 + chance.below(80)).await;
        world.edge.kill().await.unwrap();
        world.restart_edge().await.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        crowd.edge.send_replace(world.public());
    }
    world.origin.wire.mend().await;
    taker.take(Taking::After(Duration::ZERO));
    let acknowledged = crowd.end().await;
    until_delivered(&world).await;
    assert!(acknowledged.len() > 1000, "only {} were acknowledged", acknowledged.len());
    judge(&acknowledged, &taker, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_the_disk_fails() {
    let (world, taker) = world("when_needed").await;
    let crowd = Crowd::begin(world.public(), 60, 300);
    let spool = |what: &'static str| {
        let world = &world;
        async move { world.metric(what, "").await.unwrap() }
    };
    for fault in ["write", "sync", "full", "half"] {
        // The disk fails while nobody else takes anything: Twilio is told so.
        taker.take(Taking::Refusing(500));
        crowd.until_sent(crowd.sent.load(Ordering::Relaxed) + 60).await;
        world.disk(fault).unwrap();
        let lost = spool("holdline_callback_lost_total").await;
        let begun = Instant::now();
        while spool("holdline_callback_lost_total").await < lost + 10.0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{fault}: nobody was told");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(spool("holdline_spool_keeps").await, 0.0, "{fault}");
        // The origin takes them: what cannot be kept goes straight through.
        taker.take(Taking::After(Duration::ZERO));
        let passed = spool("holdline_spool_passed_through_total").await;
        let begun = Instant::now();
        while spool("holdline_spool_passed_through_total").await < passed + 10.0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{fault}: nothing was handed on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.disk("").unwrap();
        world.until_metric("holdline_spool_keeps", "", 1.0).await.unwrap();
    }
    let acknowledged = crowd.end().await;
    until_delivered(&world).await;
    // What could not be kept could not wait for its turn either.
    judge(&acknowledged, &taker, false);
    assert!(world.edge.logs("the spool cannot be written").await);
    assert!(world.edge.logs("the spool can be written again").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_the_size_of_files_is_a_full_disk() {
    let (world, taker) = world("when_needed").await;
    taker.take(Taking::Refusing(500));
    let crowd = Crowd::begin(world.public(), 60, 300);
    crowd.until_sent(100).await;
    let pid = Pid::from_raw(i32::try_from(world.edge.pid().unwrap()).unwrap());
    let limit = |current| Rlimit { current, maximum: None };
    prlimit(pid, Resource::Fsize, limit(Some(1024 * 1024))).unwrap();
    world.until_metric("holdline_spool_keeps", "", 0.0).await.unwrap();
    prlimit(pid, Resource::Fsize, limit(None)).unwrap();
    world.until_metric("holdline_spool_keeps", "", 1.0).await.unwrap();
    taker.take(Taking::After(Duration::ZERO));
    let acknowledged = crowd.end().await;
    until_delivered(&world).await;
    judge(&acknowledged, &taker, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_drains_without_starving_new_callbacks() {
    const BACKLOG: u64 = 4000;
    // Everything is kept first, so that new callbacks stand behind the old ones.
    let (world, taker) = world("always").await;
    taker.take(Taking::Refusing(500));
    let calls = (0..40).map(|call| {
        let edge = world.public();
        tokio::spawn(async move {
            let mut sender = Sender::default();
            for number in 0..BACKLOG / 40 {
                let report = Report { call: call * 1000 + number, number };
                assert_eq!(sender.send(edge, &report.request()).await.unwrap(), 204);
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    taker.take(Taking::After(Duration::from_millis(40)));
    while taker.count() < BACKLOG / 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut sender = Sender::default();
    for number in 0..10 {
        let report = Report { call: 900_000 + number, number };
        let begun = Instant::now();
        assert_eq!(sender.send(world.public(), &report.request()).await.unwrap(), 204);
        while !taker.taken().iter().any(|taken| taken.report == report) {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "a new callback waits for all the old"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(taker.count() < BACKLOG, "the backlog was gone before anything new came");
    until_delivered(&world).await;
    assert_eq!(taker.count(), BACKLOG + 10);
}
