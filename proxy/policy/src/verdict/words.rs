//! The words of the verdict: what is seen, what is believed, and why that changes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::moment::Moment;

/// The numbers that steer the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Consecutive bad outcomes that take an upstream down.
    pub fall: u32,
    /// Consecutive good probes that bring it back on trial, or settle a doubt.
    pub rise: u32,
    /// How far back the share of bad attempts looks.
    pub window: Duration,
    /// The share of bad attempts in the window, in percent, that takes an upstream down.
    pub bad_percent: u32,
    /// How many attempts the window must hold before the share means anything.
    pub window_minimum: u32,
    /// For how long a live attempt that ended well outweighs bad probes.
    pub evidence: Duration,
    /// How long attempts may hang without any ending well before another upstream is asked at once.
    pub stuck: Duration,
    /// The hold-down after a flap: the first one has none, the second `first`, then doubling.
    pub hold_down: Backoff,
    /// How long an upstream must stay up for one flap to be forgotten.
    pub decay: Duration,
    /// Live visits that must end well, one at a time, to end a trial.
    pub trial_visits: u32,
    /// After a trial has failed, how long until the next at the soonest.
    pub trial_again: Duration,
    /// How long a trial waits for a visit before probes may end it.
    pub trial_patience: Duration,
    /// What takes longer than this is slower than callers should have to wait.
    pub slow_after: Duration,
    /// The share of such attempts in the window, in percent, that is a doubt.
    pub slow_percent: u32,
}

/// A row, as the verdict tells rows apart. Its name is known to whoever gave it the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowId(pub u16);

/// A live attempt, as far as the verdict cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The call it belongs to.
    pub call: u64,
    /// The row it is for.
    pub row: RowId,
    /// When it began. A failure begun before a trial says nothing of the trial.
    pub started: Moment,
}

/// Good, bad, or not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grade {
    /// Ended well.
    Good,
    /// Refused, reset, an error status, not TwiML, or out of time.
    Bad,
}

/// One fact about an upstream's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// A probe ended.
    Probe(Grade),
    /// A live attempt has taken longer than an answer should and goes on.
    Slow(Attempt),
    /// A live attempt ended.
    Live {
        /// How.
        grade: Grade,
        /// Which.
        attempt: Attempt,
        /// How long it took.
        took: Duration,
        /// Whether it had been observed as slow before.
        was_slow: bool,
    },
    /// A live attempt was answered in the 400s. That speaks against its row, and says nothing of the
    /// upstream.
    Rejected {
        /// Which.
        attempt: Attempt,
        /// Whether it had been observed as slow before.
        was_slow: bool,
    },
    /// A slow attempt ended in a way that says nothing of the upstream.
    Dropped(Attempt),
    /// Time passed.
    Tick,
}

/// The two kinds of evidence, and which of them took an upstream down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Live attempts failed.
    Traffic,
    /// Probes failed, and no live attempt said otherwise.
    Probes,
}

/// What is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing speaks against it.
    Well,
    /// Something does; traffic stays.
    Doubtful,
    /// Attempts hang and nothing ends well: it is slow or dead, and nobody can tell which yet. A visit
    /// that may ask twice asks another at the same moment, any other asks another first.
    Stuck,
    /// It gets no traffic until `until` at the least.
    Down {
        /// Why.
        cause: Cause,
        /// The end of the hold-down.
        until: Moment,
    },
    /// It gets one visit at a time.
    Trial {
        /// Live visits that ended well so far.
        visits: u32,
        /// When the trial began, or the last visit ended.
        quiet_since: Moment,
    },
}

/// Why a verdict changed, with the numbers behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// One bad or slow observation.
    FirstDoubt,
    /// This many of this many attempts in the window took longer than they should.
    SlowShare {
        /// Those that did.
        slow: u32,
        /// All.
        of: u32,
    },
    /// The doubt was not confirmed: this many good observations in a row.
    DoubtSettled(u32),
    /// This many bad live attempts in a row, from more than one call.
    BadAttempts(u32),
    /// This many bad ones among this many attempts in the window.
    BadShare {
        /// Bad attempts.
        bad: u32,
        /// All attempts.
        of: u32,
    },
    /// This many attempts hang, and none has ended well for this long.
    Stuck {
        /// Attempts that hang.
        hanging: u32,
        /// How long nothing has ended well.
        silent: Duration,
    },
    /// What hung has ended: well, or in a way that says nothing.
    CameLoose,
    /// This many bad probes in a row, and no live attempt that speaks against them.
    BadProbes(u32),
    /// This many good probes in a row, and the hold-down is over.
    GoodProbes(u32),
    /// A live attempt ended well although probes had taken the upstream down.
    LiveEvidence,
    /// This many visits of the trial ended well.
    TrialPassed(u32),
    /// No visit came, and this many more probes were good.
    TrialPassedByProbes(u32),
    /// A visit or probe of the trial was bad.
    TrialFailed(Cause),
    /// A row is to be tried again.
    HoldDownOver,
    /// No visit came to try a row; it gets traffic again, and one more failure is enough.
    Untested,
    /// The whole upstream fails, which explains why the row did.
    UpstreamFails,
    /// It is another host from now on.
    Replaced,
    /// Nothing was seen of a row for a while.
    Forgotten,
    /// Another process believed it, and this one goes on with that.
    Inherited,
}

/// A change of verdict. No change, no noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What was believed.
    pub from: Phase,
    /// What is believed now.
    pub to: Phase,
    /// Why.
    pub reason: Reason,
}

// === impl Thresholds ===

impl Thresholds {
    /// What is shipped.
    pub const SHIPPED: Thresholds = {
        const fn s(seconds: u64) -> Duration {
            Duration::from_secs(seconds)
        }
        Thresholds {
            fall: 3,
            rise: 2,
            window: s(5),
            bad_percent: 40,
            window_minimum: 10,
            evidence: s(10),
            stuck: s(3),
            hold_down: Backoff { first: s(2), cap: s(60) },
            decay: s(300),
            trial_visits: 3,
            trial_again: s(1),
            trial_patience: s(10),
            slow_after: s(1),
            slow_percent: 50,
        }
    };
}

// === impl RowId ===

impl RowId {
    /// What belongs to no row.
    pub const NONE: RowId = RowId(0);
}

// === impl Observation ===

impl Observation {
    /// The attempt it is about.
    pub fn attempt(&self) -> Option<Attempt> {
        match *self {
            Observation::Slow(attempt)
            | Observation::Live { attempt, .. }
            | Observation::Rejected { attempt, .. }
            | Observation::Dropped(attempt) => Some(attempt),
            Observation::Probe(_) | Observation::Tick => None,
        }
    }
}

// === impl Change ===

impl Change {
    /// Whether the belief itself changed, and not only a count inside it.
    pub(super) fn is_transition(&self) -> bool {
        std::mem::discriminant(&self.from) != std::mem::discriminant(&self.to)
            || matches!((self.from, self.to), (Phase::Down { cause: a, .. }, Phase::Down { cause: b, .. }) if a != b)
    }
}

// === impl Phase ===

impl Phase {
    /// Its name in metrics, logs and on the status page.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Well => "well",
            Phase::Doubtful => "doubtful",
            Phase::Stuck => "stuck",
            Phase::Down { .. } => "down",
            Phase::Trial { .. } => "trial",
        }
    }

    /// Every name [`Phase::name`] can give.
    pub const NAMES: [&'static str; 5] = ["well", "doubtful", "stuck", "down", "trial"];
}

// === impl Cause ===

impl Cause {
    /// Every name [`Cause::name`] can give.
    pub const NAMES: [&'static str; 2] = ["traffic", "probes"];

    /// Its name in logs and on the status page.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Traffic => "traffic",
            Cause::Probes => "probes",
        }
    }
}

// === impl Reason ===

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::FirstDoubt => write!(f, "one bad or slow observation"),
            Reason::DoubtSettled(n) => write!(f, "{n} good observations in a row"),
            Reason::BadAttempts(n) => write!(f, "{n} bad attempts in a row from several calls"),
            Reason::BadShare { bad, of } => {
                write!(f, "{bad} of {of} attempts in the window were bad")
            }
            Reason::Stuck { hanging, silent } => {
                write!(
                    f,
                    "{hanging} attempts hang and none ended well for {} ms",
                    silent.as_millis()
                )
            }
            Reason::CameLoose => write!(f, "an attempt ended well, or none hangs any more"),
            Reason::BadProbes(n) => {
                write!(f, "{n} bad probes in a row and no live attempt ended well")
            }
            Reason::GoodProbes(n) => {
                write!(f, "{n} good probes in a row and the hold-down is over")
            }
            Reason::LiveEvidence => write!(f, "a live attempt ended well although probes fail"),
            Reason::TrialPassed(n) => write!(f, "{n} visits on trial ended well"),
            Reason::TrialPassedByProbes(n) => write!(f, "no visit came and {n} probes were good"),
            Reason::TrialFailed(cause) => write!(f, "the trial failed by {}", cause.name()),
            Reason::SlowShare { slow, of } => {
                write!(f, "{slow} of {of} attempts in the window were slow")
            }
            Reason::HoldDownOver => write!(f, "the hold-down is over"),
            Reason::Untested => write!(f, "no visit came to try it"),
            Reason::UpstreamFails => write!(f, "the whole upstream fails"),
            Reason::Inherited => write!(f, "goes on with what was believed"),
            Reason::Forgotten => write!(f, "nothing was seen of it for a while"),
            Reason::Replaced => write!(f, "it is configured to be another host"),
        }
    }
}
