//! What the operator orders: a stance, which says who answers, and a drill, a failure made on purpose.
//!
//! Neither has anything to do with the verdicts: those are about what is seen, and go on. Both end by
//! themselves at a time that was given with them; a stance outlives the process, a drill does not. Who
//! is on the way of a visit reads them without a lock.

mod drill;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use holdline_policy::{Moment, Phase, Row, Stance, Upstream};
use serde::{Deserialize, Serialize};

use crate::clock::{millis, unix_ms};
use crate::journal::{Journal, What};
use crate::spool::Spool;
use crate::telemetry::Metrics;
use crate::watchman::Watch;
pub use drill::{DRILL_FOR, Drill, DrillEnd, DrillOrder, LONGEST_DRILL, Mode, Report};

/// How often it is looked whether an order is over, or a drill coincides with a real failure.
const LOOK: Duration = Duration::from_millis(50);
/// How long a stance lasts when nobody says for how long, and how long at most.
pub const STANCE_FOR: Duration = Duration::from_secs(3600);
/// The longest a stance may last.
pub const LONGEST_STANCE: Duration = Duration::from_secs(24 * 3600);

/// A stance, until it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its name.
    pub stance: String,
    /// For which row; none: for all that have no order of their own.
    pub row: Option<String>,
    /// Until when, in milliseconds since 1970; 0 for the usual one, which has no end.
    pub until_ms: u64,
}

/// Stances by row; that for all rows under no name.
type Stances = BTreeMap<String, InForce>;

/// A stance and its end: by the clock, and by the time that has passed here, so that no clock that is
/// put back makes it last longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InForce {
    stance: Stance,
    /// In milliseconds since 1970.
    until_ms: u64,
    ends: Instant,
}

/// What is ordered.
#[derive(Debug)]
pub struct Orders {
    /// None while nothing is ordered, as nearly always.
    stances: ArcSwapOption<Stances>,
    drill: ArcSwapOption<Drill>,
    /// The last one that has ended: visits that took part may still go on.
    last: Mutex<Option<(Arc<Drill>, DrillEnd)>>,
    /// Orders are given one after the other.
    giving: Mutex<()>,
    /// Whether another process has them.
    left: AtomicBool,
    watch: Watch,
    spool: Arc<Spool>,
    journal: Journal,
    metrics: Arc<Metrics>,
}

/// Orders as another process goes on with them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ordered {
    /// The stances in force.
    pub stances: Vec<Order>,
    /// The drill under way, with what came of it so far.
    pub drill: Option<Report>,
}

/// Why an order is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A drill would hurt somebody.
    #[error("{upstream} is {phase}; a drill needs both upstreams well, and all rows of theirs")]
    NotWell {
        /// Who is not well.
        upstream: &'static str,
        /// What it is.
        phase: String,
    },
    /// Nobody knows yet who is well.
    #[error("{upstream} has not answered well lately; a drill needs both upstreams proven")]
    NotProven {
        /// Who is not proven.
        upstream: &'static str,
    },
    /// What could not be handed on would be lost.
    #[error("the spool does not keep what it is given; a drill would lose callbacks")]
    NotKept,
    /// Another process has taken over.
    #[error("another process has taken over; ask again")]
    Left,
    /// The operator has decided already who answers.
    #[error("a stance is in force; a drill would show nothing")]
    UnderAStance,
    /// There is one.
    #[error("a drill is under way; stop it first")]
    UnderWay,
    /// There is none.
    #[error("no drill is under way")]
    NoDrill,
}

// === impl Orders ===

impl Orders {
    /// Nothing is ordered.
    pub fn new(watch: Watch, spool: Arc<Spool>, journal: Journal, metrics: Arc<Metrics>) -> Orders {
        let orders = Orders {
            stances: ArcSwapOption::empty(),
            drill: ArcSwapOption::empty(),
            last: Mutex::default(),
            giving: Mutex::default(),
            left: AtomicBool::new(false),
            watch,
            spool,
            journal,
            metrics,
        };
        orders.show();
        orders
    }

    /// The stance for visits to a row.
    pub fn stance(&self, row: &str) -> Stance {
        let stances = self.stances.load();
        let Some(stances) = stances.as_ref() else { return Stance::Automatic };
        let in_force = |name| stances.get(name).filter(|order| !order.is_over());
        in_force(row).or_else(|| in_force("")).map_or(Stance::Automatic, |order| order.stance)
    }

    /// The drill that a visit to a row takes part in. `call` tells calls apart: a call takes part as a whole.
    pub fn drill(&self, row: &Row, call: impl FnOnce() -> Option<u64>) -> Option<Arc<Drill>> {
        let drill = self.drill.load();
        let drill = drill.as_ref()?;
        // A real failure is nobody's exercise, even before the drill is ended for it.
        let takes_part = !drill.is_over()
            && drill.concerns(row, call())
            && self.watch.phases() == [Phase::Well; Upstream::COUNT];
        takes_part.then(|| drill.clone())
    }

    /// Orders a stance for a row, or for all. A drill that is under way ends: what is ordered now is meant.
    pub fn take_stance(
        &self,
        stance: Stance,
        row: Option<&str>,
        time: Duration,
    ) -> Result<Order, Refused> {
        self.is_here()?;
        if stance != Stance::Automatic {
            // There may be none.
            let _ = self.end_drill(DrillEnd::Stopped);
        }
        let usual = stance == Stance::Automatic && row.is_none();
        let until_ms = if usual { 0 } else { unix_ms() + millis(time.min(LONGEST_STANCE)) };
        let order =
            Order { stance: stance.name().to_owned(), row: row.map(str::to_owned), until_ms };
        self.change(|stances| {
            let name = row.unwrap_or_default();
            match (stance, row) {
                // Everything is as it was before anybody ordered anything.
                (Stance::Automatic, None) => stances.clear(),
                // An exception only where there is a rule.
                (Stance::Automatic, Some(_)) if !stances.contains_key("") => {
                    stances.remove(name);
                }
                _ => drop(stances.insert(name.to_owned(), InForce::until(stance, until_ms))),
            }
        });
        self.write_down(&order, "ordered");
        Ok(order)
    }

    /// The stances in force.
    pub fn stances(&self) -> Vec<Order> {
        let stances = self.stances.load();
        let in_force = stances.iter().flat_map(|stances| stances.iter());
        let in_force = in_force.filter(|(_, order)| !order.is_over());
        let order = |(row, order): (&String, &InForce)| Order {
            stance: order.stance.name().to_owned(),
            row: Some(row).filter(|row| !row.is_empty()).cloned(),
            until_ms: order.ends_ms(),
        };
        in_force.map(order).collect()
    }

    /// Begins a drill. An upstream that was not proven for `stale_after` may be anything.
    pub fn begin_drill(
        &self,
        order: DrillOrder,
        now: Moment,
        stale_after: Duration,
    ) -> Result<Arc<Drill>, Refused> {
        self.is_here()?;
        let _giving = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.drill.load().is_some() {
            return Err(Refused::UnderWay);
        }
        if !self.stances().is_empty() {
            return Err(Refused::UnderAStance);
        }
        self.are_well()?;
        let health = self.watch.health();
        for upstream in Upstream::ALL {
            let proven = health.of(upstream).proven();
            if proven.is_none_or(|at| now.since(at) > stale_after) {
                return Err(Refused::NotProven { upstream: upstream.name() });
            }
        }
        let drill = Arc::new(Drill::begin(order));
        tracing::warn!(target: "audit", drill = ?drill.order(), "a drill begins");
        self.note_drill("began", &drill.report(None));
        self.drill.store(Some(drill.clone()));
        self.show();
        Ok(drill)
    }

    /// Ends the drill; gives its report.
    pub fn end_drill(&self, end: DrillEnd) -> Result<Report, Refused> {
        let _giving = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        let drill = self.drill.swap(None).ok_or(Refused::NoDrill)?;
        drill.end();
        let report = drill.report(Some(end));
        tracing::warn!(target: "audit", end = end.name(), "the drill has ended");
        self.metrics.drills.with_label_values(&[end.name()]).inc();
        self.note_drill(end.name(), &report);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((drill, end));
        self.show();
        Ok(report)
    }

    /// What came of the drill that is under way, or else of the last one, up to now.
    pub fn report(&self) -> Option<Report> {
        if let Some(drill) = self.drill.load().as_ref() {
            return Some(drill.report(None));
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(drill, end)| drill.report(Some(*end)))
    }

    /// Everything, for another process.
    pub fn ordered(&self) -> Ordered {
        let drill = self.drill.load().as_ref().map(|drill| drill.report(None));
        Ordered { stances: self.stances(), drill }
    }

    /// Goes on with what was ordered in another process.
    pub fn inherit(&self, ordered: Ordered) {
        let now = unix_ms();
        self.change(|stances| {
            stances.clear();
            for order in ordered.stances.iter().filter(|order| order.until_ms > now) {
                if let Some(stance) = Stance::named(&order.stance) {
                    let row = order.row.clone().unwrap_or_default();
                    stances.insert(row, InForce::until(stance, order.until_ms.min(latest(now))));
                }
            }
        });
        if let Some(drill) = ordered.drill.and_then(Drill::go_on) {
            self.drill.store(Some(Arc::new(drill)));
        }
        self.show();
    }

    /// Writes down what it goes on with, for whoever reads only what this process writes.
    pub fn note_inherited(&self) {
        for order in self.stances() {
            self.write_down(&order, "goes_on");
        }
    }

    /// Leaves everything to another process; orders are for that one.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
        if let Some(drill) = self.drill.swap(None) {
            drill.end();
        }
    }

    /// The other process is gone: what was ordered of it is ordered of this one.
    pub fn return_with(&self, ordered: Ordered) {
        self.inherit(Ordered { drill: None, ..ordered });
        self.left.store(false, Ordering::Release);
        self.note_inherited();
    }

    fn is_here(&self) -> Result<(), Refused> {
        if self.left.load(Ordering::Acquire) { Err(Refused::Left) } else { Ok(()) }
    }

    /// Ends what is over, for as long as the process lives.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_here().is_err() {
                continue;
            }
            self.end_stances();
            let drill = self.drill.load_full();
            let Some(drill) = drill else { continue };
            let end = if drill.is_over() {
                DrillEnd::Over
            } else if let Err(why) = self.are_well() {
                tracing::warn!(%why, "a drill coincides with a real failure, and ends");
                DrillEnd::RealFailure
            } else {
                continue;
            };
            // Somebody may have stopped it in the same moment.
            let _ = self.end_drill(end);
        }
    }

    fn end_stances(&self) {
        let stances = self.stances.load();
        let Some(stances) = stances.as_ref() else { return };
        let rule_ends = stances.get("").is_none_or(InForce::is_over);
        // An exception ends with its rule.
        let is_over =
            |order: &InForce| order.is_over() || (order.stance == Stance::Automatic && rule_ends);
        let over: Vec<String> = stances
            .iter()
            .filter(|(_, order)| is_over(order))
            .map(|(row, _)| row.clone())
            .collect();
        if over.is_empty() {
            return;
        }
        self.change(|stances| stances.retain(|row, _| !over.contains(row)));
        for row in over {
            let stance = self.stance(&row).name().to_owned();
            let row = Some(row).filter(|row| !row.is_empty());
            self.write_down(&Order { stance, row, until_ms: 0 }, "over");
        }
    }

    /// Whether both upstreams are well, and all rows of theirs, and nothing would be lost.
    fn are_well(&self) -> Result<(), Refused> {
        if !self.spool.keeps() {
            return Err(Refused::NotKept);
        }
        let health = self.watch.health();
        for upstream in Upstream::ALL {
            let phase = health.of(upstream).phase();
            let failing = health
                .rows_of(upstream)
                .find(|(_, verdict)| !matches!(verdict.phase(), Phase::Well | Phase::Doubtful));
            let phase = match (phase, failing) {
                (Phase::Well, None) => continue,
                (Phase::Well, Some((row, verdict))) => {
                    format!("{} for {}", verdict.phase().name(), self.watch.name_of(row))
                }
                (phase, _) => phase.name().to_owned(),
            };
            return Err(Refused::NotWell { upstream: upstream.name(), phase });
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Stances)) {
        let _giving = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stances = self.stances.load().as_deref().cloned().unwrap_or_default();
        change(&mut stances);
        self.stances.store((!stances.is_empty()).then(|| Arc::new(stances)));
        self.show();
    }

    fn write_down(&self, order: &Order, why: &'static str) {
        let Order { stance, row, until_ms } = order;
        tracing::warn!(target: "audit", stance, row, until_ms, why, "the stance changed");
        self.journal.note(What::Stance {
            stance: stance.clone().into(),
            row: row.clone().map(Into::into),
            until: Some(*until_ms).filter(|until| *until > 0),
            why: why.into(),
        });
    }

    fn note_drill(&self, what: &'static str, report: &Report) {
        let drill = serde_json::to_value(report).unwrap_or_default();
        self.journal.note(What::Drill { what: what.into(), drill });
    }

    fn show(&self) {
        let orders = self.stances();
        let ordered = |stance: Stance| orders.iter().any(|order| order.stance == stance.name());
        for stance in Stance::ALL {
            let shown = match stance {
                Stance::Automatic => !ordered(Stance::Monitor) && !ordered(Stance::Canned),
                stance => ordered(stance),
            };
            self.metrics.stance.with_label_values(&[stance.name()]).set(shown.into());
        }
        self.metrics.drill_active.set(self.drill.load().is_some().into());
    }
}

// === impl InForce ===

impl InForce {
    fn until(stance: Stance, until_ms: u64) -> InForce {
        let left = Duration::from_millis(until_ms.saturating_sub(unix_ms()));
        InForce { stance, until_ms, ends: Instant::now() + left.min(LONGEST_STANCE) }
    }

    /// When it ends by the clock of now, in milliseconds since 1970.
    fn ends_ms(&self) -> u64 {
        let left = self.ends.saturating_duration_since(Instant::now());
        self.until_ms.min(unix_ms().saturating_add(millis(left)))
    }

    fn is_over(&self) -> bool {
        self.until_ms <= unix_ms() || self.ends <= Instant::now()
    }
}

/// The last moment for which a stance may be ordered now.
fn latest(now_ms: u64) -> u64 {
    now_ms.saturating_add(millis(LONGEST_STANCE))
}
