//! What the operator orders: a stance, which says who answers, and a drill, a failure made on purpose.
//!
//! Neither has anything to do with the verdicts: those are about what is seen, and go on. Both end by
//! themselves at a time that was given with them; a stance outlives the process, a drill does not. Who
//! is on the way of a visit reads them without a lock.

mod drill;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use holdline_policy::{Phase, Row, Stance, Upstream};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, What};
use crate::spool::unix_ms;
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

/// What is ordered.
#[derive(Debug)]
pub struct Orders {
    /// Stances by row; that for all rows under no name. None while nothing is ordered, as nearly always.
    stances: ArcSwapOption<BTreeMap<String, (Stance, u64)>>,
    drill: ArcSwapOption<Drill>,
    last_report: Mutex<Option<Report>>,
    /// Orders are given one after the other.
    giving: Mutex<()>,
    watch: Watch,
    journal: Journal,
    metrics: Arc<Metrics>,
}

/// Orders as another process goes on with them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Standing {
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
    pub fn new(watch: Watch, journal: Journal, metrics: Arc<Metrics>) -> Orders {
        let orders = Orders {
            stances: ArcSwapOption::empty(),
            drill: ArcSwapOption::empty(),
            last_report: Mutex::default(),
            giving: Mutex::default(),
            watch,
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
        let now = now_ms();
        let in_force = |name| stances.get(name).filter(|(_, until)| *until > now);
        in_force(row).or_else(|| in_force("")).map_or(Stance::Automatic, |(stance, _)| *stance)
    }

    /// The drill that a visit to a row takes part in. `call` tells calls apart: a call takes part as a whole.
    pub fn drill(&self, row: &Row, call: Option<u64>) -> Option<Arc<Drill>> {
        let drill = self.drill.load();
        let drill = drill.as_ref()?;
        // A real failure is nobody's exercise, even before the drill is ended for it.
        let takes_part = drill.until_ms() > now_ms()
            && drill.concerns(row, call)
            && self.watch.phases() == [Phase::Well; Upstream::COUNT];
        takes_part.then(|| drill.clone())
    }

    /// Orders a stance for a row, or for all.
    pub fn take_stance(&self, stance: Stance, row: Option<&str>, time: Duration) -> Order {
        let usual = stance == Stance::Automatic && row.is_none();
        let until_ms = if usual { 0 } else { now_ms() + millis(time.min(LONGEST_STANCE)) };
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
                _ => drop(stances.insert(name.to_owned(), (stance, until_ms))),
            }
        });
        self.write_down(&order, "ordered");
        order
    }

    /// The stances in force.
    pub fn stances(&self) -> Vec<Order> {
        let now = now_ms();
        let stances = self.stances.load();
        let in_force = stances.iter().flat_map(|stances| stances.iter());
        let in_force = in_force.filter(|(_, (_, until))| *until > now);
        let order = |(row, (stance, until_ms)): (&String, &(Stance, u64))| Order {
            stance: stance.name().to_owned(),
            row: Some(row).filter(|row| !row.is_empty()).cloned(),
            until_ms: *until_ms,
        };
        in_force.map(order).collect()
    }

    /// Begins a drill.
    pub fn begin_drill(&self, order: DrillOrder) -> Result<Arc<Drill>, Refused> {
        let _giving = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.drill.load().is_some() {
            return Err(Refused::UnderWay);
        }
        if !self.stances().is_empty() {
            return Err(Refused::UnderAStance);
        }
        self.are_well()?;
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
        *self.last_report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
        self.show();
        Ok(report)
    }

    /// What came of the drill that is under way, or else of the last one.
    pub fn report(&self) -> Option<Report> {
        if let Some(drill) = self.drill.load().as_ref() {
            return Some(drill.report(None));
        }
        self.last_report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything, for another process.
    pub fn standing(&self) -> Standing {
        let drill = self.drill.load().as_ref().map(|drill| drill.report(None));
        Standing { stances: self.stances(), drill }
    }

    /// Goes on with what was ordered in another process.
    pub fn inherit(&self, standing: Standing) {
        let now = now_ms();
        self.change(|stances| {
            for order in standing.stances.iter().filter(|order| order.until_ms > now) {
                if let Some(stance) = Stance::named(&order.stance) {
                    let row = order.row.clone().unwrap_or_default();
                    stances.insert(row, (stance, order.until_ms));
                }
            }
        });
        if let Some(drill) = standing.drill.and_then(Drill::go_on) {
            self.drill.store(Some(Arc::new(drill)));
        }
        self.show();
    }

    /// Ends what is over, for as long as the process lives.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.end_stances();
            let drill = self.drill.load_full();
            let Some(drill) = drill else { continue };
            let end = if drill.until_ms() <= now_ms() {
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
        let now = now_ms();
        let stances = self.stances.load();
        let Some(stances) = stances.as_ref() else { return };
        let over: Vec<String> = stances
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(row, _)| row.clone())
            .collect();
        if over.is_empty() {
            return;
        }
        self.change(|stances| stances.retain(|_, (_, until)| *until > now));
        for row in over {
            let row = Some(row).filter(|row| !row.is_empty());
            let stance = Stance::Automatic.name().to_owned();
            self.write_down(&Order { stance, row, until_ms: 0 }, "over");
        }
    }

    /// Whether both upstreams are well, and all rows of theirs.
    fn are_well(&self) -> Result<(), Refused> {
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

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, (Stance, u64)>)) {
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

fn now_ms() -> u64 {
    u64::try_from(unix_ms()).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
