//! Delivers what waits.
//!
//! One task walks through what is due, oldest first, loads the first delivery of each call and starts
//! a try where the upstream's throttle has room; when that is over, the next of the same call follows. Of
//! a large backlog every fourth start is for what became due last, so that new callbacks do not wait
//! for all the old ones. A delivery is in hand until its end is on disk, so that a disk that fails stops
//! the replay and repeats nothing.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use holdline_policy::backoff::jittered;
use holdline_policy::redelivery::{Death, Fate, Throttle, Tried, is_taken_for_a_stranger};
use holdline_policy::{Access, Moment, Outcome, Row, Standing, Upstream};
use sqlx::SqliteConnection;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::job::{Job, Which};
use super::schema::Location;
use super::store::{self, Cursor, millis};
use super::{Condition, Delivery, Kind, Spool, State, unix_ms};
use crate::Current;
use crate::relay::Relay;

/// How often it is looked whether anything is due, and whether anything may be started.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_SOON: Duration = Duration::from_millis(20);
/// How much of what is due is fetched at once.
const CHUNK: u32 = 256;
/// How much of what became due last is fetched with it.
const FRESH: u32 = 64;
/// One start in so many is for what became due last.
const FRESH_ONE_IN: u64 = 4;
/// How long an end that cannot be written down is waited with.
const WRITE_AGAIN: Duration = Duration::from_millis(250);
/// How soon what is barred by the operator's order is looked at again.
const BARRED: Duration = Duration::from_secs(2);
/// While nobody is taken the wait does not grow beyond this many doublings: when the application
/// returns, nothing should wait long.
const NOBODYS_FAULT: u32 = 4;

/// The task that replays.
pub struct Replay {
    current: Current,
    relay: Arc<Relay>,
    spool: Arc<Spool>,
    location: Location,
    throttles: [Throttle; Upstream::COUNT],
    running: [u32; Upstream::COUNT],
    /// Until when an upstream that had no room is not asked.
    full_until: [Moment; Upstream::COUNT],
    /// Whether any report may go to the monitor.
    monitor_helps: bool,
    /// Calls of which a delivery is being tried.
    in_hand: HashSet<String>,
    /// Calls whose turn it is.
    line: VecDeque<String>,
    /// Calls of what became due last.
    fresh: VecDeque<String>,
    /// How far the walk through what is due has come; none when it is over.
    walk: Option<Cursor>,
    /// When the last walk began.
    walked: Option<Instant>,
    started: u64,
    tries: FuturesUnordered<BoxFuture<'static, Over>>,
}

/// A try that is over, its end on disk.
struct Over {
    order: String,
    upstream: Upstream,
    outcome: Outcome,
}

/// What came of starting the next.
enum Start {
    /// It was started, or there was nothing to be started for this call.
    Next,
    /// There is no room.
    NoRoom,
}

// === impl Replay ===

impl Replay {
    /// A replay of what the spool keeps.
    pub fn new(current: Current) -> Replay {
        let relay = current.load().relay.clone();
        let spool = relay.spool.clone();
        let now = relay.clock.now();
        Replay {
            current,
            location: Location::new(spool.folder.clone()),
            throttles: [Throttle::new(spool.config().parallel, now); Upstream::COUNT],
            running: [0; Upstream::COUNT],
            full_until: [now; Upstream::COUNT],
            monitor_helps: monitor_helps(&relay),
            in_hand: HashSet::new(),
            line: VecDeque::new(),
            fresh: VecDeque::new(),
            walk: None,
            walked: None,
            started: 0,
            tries: FuturesUnordered::new(),
            relay,
            spool,
        }
    }

    /// Replays for ever; while it is told to stop, only what was begun is ended.
    pub async fn run(mut self) {
        let mut connection = None;
        loop {
            self.look_at_configuration();
            let stopping = self.spool.stopping.load(Ordering::Acquire);
            if stopping && !self.tries.is_empty() {
                self.settle_one().await;
                continue;
            }
            if stopping {
                connection = None;
                self.rest(LOOK).await;
                continue;
            }
            if self.spool.condition() != Condition::Ready {
                connection = None;
                self.rest(LOOK).await;
                continue;
            }
            let opened = self.spool.opened.load(Ordering::Acquire);
            let open = match connection.take() {
                Some((open, when)) if when == opened => Ok(open),
                _ => self.location.connect_to_read().await.map_err(|fault| fault.to_string()),
            };
            match open {
                Ok(mut open) => match self.start_what_may(&mut open).await {
                    Ok(wait) => {
                        connection = Some((open, opened));
                        self.rest(wait).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the spool cannot be read");
                        self.rest(LOOK).await;
                    }
                },
                Err(error) => {
                    tracing::error!(error, "the spool cannot be read");
                    self.rest(LOOK).await;
                }
            }
        }
    }

    /// Goes on under the configuration in force.
    fn look_at_configuration(&mut self) {
        let current = self.current.load();
        if !Arc::ptr_eq(&current.relay, &self.relay) {
            self.relay = current.relay.clone();
            self.monitor_helps = monitor_helps(&self.relay);
            for throttle in &mut self.throttles {
                throttle.set_most(self.spool.config().parallel);
            }
        }
    }

    /// Starts tries while there is room; says when to look again.
    async fn start_what_may(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Duration, sqlx::Error> {
        let rested = self.walked.is_none_or(|began| began.elapsed() >= LOOK_SOON);
        if self.line.is_empty() && self.walk.is_none() && rested {
            self.walk = Some(Cursor::default());
            self.walked = Some(Instant::now());
        }
        loop {
            if !self.has_room() {
                return Ok(LOOK_SOON);
            }
            if self.line.is_empty() {
                let Some(cursor) = self.walk else {
                    return Ok(if rested { LOOK } else { LOOK_SOON });
                };
                let (orders, reached) = store::due(connection, cursor, CHUNK).await?;
                self.walk = reached.filter(|_| orders.len() == CHUNK as usize);
                if self.walk.is_some() {
                    self.fresh = store::newest_due(connection, FRESH).await?.into();
                }
                self.line.extend(orders);
                if self.line.is_empty() {
                    return Ok(LOOK);
                }
            }
            let turn = self.started % FRESH_ONE_IN == FRESH_ONE_IN - 1;
            let fresh = if turn { self.fresh.pop_front() } else { None };
            let Some(order) = fresh.or_else(|| self.line.pop_front()) else { continue };
            if let Start::NoRoom = self.start(connection, &order).await? {
                self.line.push_front(order);
                return Ok(LOOK_SOON);
            }
        }
    }

    /// Starts a try of a call's first delivery, if it is due and nothing of the call is under way.
    async fn start(
        &mut self,
        connection: &mut SqliteConnection,
        order: &str,
    ) -> Result<Start, sqlx::Error> {
        // What goes straight through is older than all that was kept after it; it is looked at before
        // the disk is, so that what was kept of it by then is seen.
        if self.in_hand.contains(order) || self.spool.order.is_under_way(order) {
            return Ok(Start::Next);
        }
        let Some((delivery, is_due)) = store::first_of(connection, order).await? else {
            return Ok(Start::Next);
        };
        if !is_due {
            let (order, due_ms) = (delivery.order, delivery.due_ms);
            let (done, _) = oneshot::channel();
            let _ = self.spool.jobs.try_send(Job::Wait { order, due_ms, done });
            return Ok(Start::Next);
        }
        let (upstream, access) = self.choose(&delivery);
        if access == Access::Barred {
            // For as long as the order lasts; looking at each again and again would be of no use.
            let (order, due_ms) = (delivery.order, unix_ms() + millis(BARRED));
            let (done, _) = oneshot::channel();
            let _ = self.spool.jobs.try_send(Job::Wait { order, due_ms, done });
            return Ok(Start::Next);
        }
        if !self.has_room_at(upstream, access) {
            // Where another upstream has room, what it may take stands further behind.
            return Ok(if self.monitor_helps { Start::Next } else { Start::NoRoom });
        }
        self.running[upstream.index()] += 1;
        self.started += 1;
        self.spool.tries.fetch_add(1, Ordering::AcqRel);
        self.in_hand.insert(order.to_owned());
        let (relay, spool) = (self.relay.clone(), self.spool.clone());
        let order = order.to_owned();
        // A try that panics is a try that failed, and takes no other with it.
        let trying =
            tokio::spawn(async move { try_once(&relay, &spool, delivery, upstream, access).await });
        self.tries.push(Box::pin(async move {
            let outcome = trying.await.unwrap_or(Outcome::Broken);
            Over { order, upstream, outcome }
        }));
        Ok(Start::Next)
    }

    /// Whom to try: the first of the row's chain that serves, else the first of all.
    fn choose(&self, delivery: &Delivery) -> (Upstream, Access) {
        let rows = self.relay.catalogue.rows();
        let reports = |row: &Row| delivery.kind == Kind::Callback && row.name == delivery.row;
        let (standing, chain) = match rows.iter().position(reports) {
            Some(row) => (self.relay.standing_of(row), &rows[row].chain[..]),
            // Notices, and what was a row's that is no longer listed, are the origin's.
            None => (self.relay.standing(), &[Upstream::Origin][..]),
        };
        let serves = |upstream: &&Upstream| standing.of(**upstream) == Access::Serving;
        let first = chain.iter().find(serves).or(chain.first());
        let upstream = first.copied().unwrap_or(Upstream::Origin);
        (upstream, standing.of(upstream))
    }

    fn has_room(&mut self) -> bool {
        let rows = self.relay.catalogue.rows().iter().enumerate();
        let reports = rows.filter(|(_, row)| row.kind == holdline_policy::Kind::Asynchronous);
        // A row may be an exception to what is ordered for all.
        let mut standings: Vec<Standing> =
            reports.map(|(row, _)| self.relay.standing_of(row)).collect();
        standings.push(self.relay.standing());
        let asked = if self.monitor_helps { &Upstream::ALL[..] } else { &[Upstream::Origin] };
        let accesses: Vec<(Upstream, Access)> = asked
            .iter()
            .flat_map(|upstream| {
                standings.iter().map(|standing| (*upstream, standing.of(*upstream)))
            })
            .filter(|(_, access)| *access != Access::Barred)
            .collect();
        // Nothing of what is ordered opens the throttle; the end of it begins with one.
        if accesses.is_empty() {
            let now = self.relay.clock.now();
            self.throttles.iter_mut().for_each(|throttle| {
                throttle.width(Access::Barred, now);
            });
        }
        accesses.into_iter().any(|(upstream, access)| self.has_room_at(upstream, access))
    }

    fn has_room_at(&mut self, upstream: Upstream, access: Access) -> bool {
        let (now, index) = (self.relay.clock.now(), upstream.index());
        let width = self.throttles[index].width(access, now);
        now >= self.full_until[index] && self.running[index] < width
    }

    /// Waits for something to happen: a try that is over, something new, or the time.
    async fn rest(&mut self, time: Duration) {
        let (tries, arrived) = (&mut self.tries, self.spool.arrived.notified());
        let over = tokio::select! {
            Some(over) = tries.next() => Some(over),
            () = arrived => None,
            () = sleep(time) => None,
        };
        if let Some(over) = over {
            self.note(over);
        }
    }

    async fn settle_one(&mut self) {
        if let Some(over) = self.tries.next().await {
            self.note(over);
        }
    }

    fn note(&mut self, over: Over) {
        let Over { order, upstream, outcome } = over;
        let access = self.relay.standing().of(upstream);
        let now = self.relay.clock.now();
        self.throttles[upstream.index()].ended(outcome, access, now);
        if outcome == Outcome::Full {
            self.full_until[upstream.index()] = now + LOOK;
        }
        self.running[upstream.index()] -= 1;
        self.spool.tries.fetch_sub(1, Ordering::AcqRel);
        self.in_hand.remove(&order);
        // The next of the same call at once, if there is one.
        if outcome == Outcome::Good && self.spool.order.waits(&order) {
            self.line.push_front(order);
        }
    }
}

/// Whether any report may go to the monitor.
fn monitor_helps(relay: &Relay) -> bool {
    let reports = |row: &&Row| row.kind == holdline_policy::Kind::Asynchronous;
    let mut reports = relay.catalogue.rows().iter().filter(reports);
    reports.any(|row| row.chain.contains(&Upstream::Monitor))
}

/// Tries to deliver, and writes down what came of it.
async fn try_once(
    relay: &Arc<Relay>,
    spool: &Spool,
    delivery: Delivery,
    upstream: Upstream,
    access: Access,
) -> Outcome {
    // Since it was tried last, others were taken or they were not.
    let since = delivery.tried_ms.unwrap_or_else(unix_ms);
    let outcome = relay.redeliver(&delivery, upstream, access).await;
    if outcome == Outcome::Full {
        // It was not even asked.
        return outcome;
    }
    relay.note_try(outcome, &delivery.row);
    let others_were_taken = spool.others_were_taken_since(since);
    if outcome == Outcome::Good {
        spool.note_taken();
    }
    let age = delivery.waiting();
    let setbacks = delivery.setbacks;
    let fate = Tried { outcome, others_were_taken, setbacks, age }.fate(&spool.config().patience);
    write_down(spool, &delivery, fate, outcome).await;
    outcome
}

/// Writes down what becomes of a delivery, however long that takes: until then it is in hand.
async fn write_down(spool: &Spool, delivery: &Delivery, fate: Fate, outcome: Outcome) {
    let name = outcome.name();
    let wait = match fate {
        Fate::Again { setback } => wait_after(spool, delivery, setback, outcome),
        _ => Duration::ZERO,
    };
    loop {
        let (done, written) = oneshot::channel();
        let which = Which { place: delivery.place, order: delivery.order.clone() };
        let job = match fate {
            Fate::Delivered => Job::Settle { which, state: State::Delivered, outcome: name, done },
            Fate::Dead(death) => {
                Job::Settle { which, state: State::Dead(Some(death)), outcome: name, done }
            }
            Fate::Again { setback } => {
                let due_ms = unix_ms() + millis(wait);
                let setbacks = delivery.setbacks + u32::from(setback);
                Job::Postpone { which, due_ms, setbacks, outcome: name, done }
            }
        };
        if spool.jobs.send(job).await.is_err() {
            // The spool is closed. It is delivered again, under the same delivery id.
            return;
        }
        if written.await.is_ok() {
            break;
        }
        if spool.stopping.load(Ordering::Acquire) {
            return;
        }
        sleep(WRITE_AGAIN).await;
    }
    match fate {
        Fate::Delivered => spool.metrics.spool.delivered.inc(),
        Fate::Dead(death) => {
            spool.note_dead(&delivery.row, &delivery.id, death, Some(outcome));
        }
        Fate::Again { .. } => {}
    }
}

// === impl Spool ===

impl Spool {
    /// Counts a dead letter, and says so.
    pub(crate) fn note_dead(
        &self,
        row: &str,
        delivery: &str,
        death: Death,
        outcome: Option<Outcome>,
    ) {
        self.metrics.spool.dead.with_label_values(&[death.name()]).inc();
        tracing::error!(
            row,
            delivery,
            reason = death.name(),
            outcome = outcome.map(Outcome::name),
            "a callback is a dead letter; see it with `holdline spool show`"
        );
    }
}

fn wait_after(spool: &Spool, delivery: &Delivery, setback: bool, outcome: Outcome) -> Duration {
    let doublings = if is_taken_for_a_stranger(outcome) {
        delivery.tries
    } else if setback {
        delivery.setbacks
    } else {
        delivery.tries.min(NOBODYS_FAULT)
    };
    jittered(spool.config().patience.backoff.wait(doublings), 0.5, fastrand::f64())
}
