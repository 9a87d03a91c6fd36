//! What the journal says, line by line.

use std::borrow::Cow;

use holdline_policy::{Change, Moment, Phase, Thresholds, Upstream, Verdict};
use serde::{Deserialize, Serialize};

use crate::clock::millis;

/// A name of ours: an upstream's, a row's, an outcome's.
pub type Name = Cow<'static, str>;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A probe ended.
    Probe {
        /// Whom it asked.
        upstream: Name,
        /// How: `good`, or what was wrong.
        result: Name,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// Attempts ended well, one after the other, in the time before.
    Run {
        /// Whom they asked.
        upstream: Name,
        /// For which row.
        row: Name,
        /// How many.
        n: u32,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// Visits were answered, or kept, without it having been asked, in the time before: it was left alone,
    /// barred, or had as many in flight as it may have.
    Unasked {
        /// Who was not asked.
        upstream: Name,
        /// For which row.
        row: Name,
        /// How many.
        n: u32,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// An attempt ended that tells more: badly, or late.
    Live {
        /// Whom it asked.
        upstream: Name,
        /// For which row.
        row: Name,
        /// What came of it.
        outcome: Name,
        /// Tells calls apart.
        call: Name,
        /// How long it took, in milliseconds.
        ms: u64,
        /// Whether it had been seen as slow before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        slow: bool,
    },
    /// An attempt has taken longer than an answer should, and goes on.
    Slow {
        /// Whom it asks.
        upstream: Name,
        /// For which row.
        row: Name,
        /// Tells calls apart.
        call: Name,
        /// How long it has taken, in milliseconds.
        ms: u64,
    },
    /// A slow attempt ended in a way that says nothing.
    Dropped {
        /// Whom it asked.
        upstream: Name,
        /// For which row.
        row: Name,
        /// Tells calls apart.
        call: Name,
        /// How long it took, in milliseconds.
        ms: u64,
    },
    /// A verdict changed.
    Change {
        /// On whom.
        upstream: Name,
        /// On which row of it, where the row fails alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        row: Option<Name>,
        /// What was believed.
        from: Name,
        /// What is believed now.
        to: Name,
        /// What took it down, where it is down.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Name>,
        /// Why.
        reason: String,
        /// The numbers behind it.
        numbers: Numbers,
    },
    /// The operator's order changed, or ended.
    Stance {
        /// What is ordered now.
        stance: Name,
        /// For which row; for all of them where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        row: Option<Name>,
        /// Until when, in milliseconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
        /// Why: `ordered`, `over`.
        why: Name,
    },
    /// A drill began, or ended.
    Drill {
        /// `began`, or how it ended.
        what: Name,
        /// Everything about it, as it is reported.
        drill: serde_json::Value,
    },
    /// Something happened to the process.
    Process {
        /// What: `started`, `reloaded`, `took_over`, `goes_on` (the process that had taken over is gone),
        /// `left` (another process has taken over, and this one ends), `stopped`.
        what: Name,
        /// Its process id.
        #[serde(default)]
        pid: u32,
        /// Its version.
        version: Name,
        /// The thresholds in force, by their names in the configuration.
        thresholds: serde_json::Value,
    },
}

/// The numbers behind a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Consecutive probes that were good.
    pub good_probes: u32,
    /// Consecutive probes that were bad.
    pub bad_probes: u32,
    /// Consecutive attempts that were good.
    pub good_attempts: u32,
    /// Consecutive attempts that were bad.
    pub bad_attempts: u32,
    /// Bad attempts in the window.
    pub window_bad: u32,
    /// All attempts in the window.
    pub window_of: u32,
    /// Attempts that hang.
    pub hanging: u32,
    /// How often it went down lately.
    pub flaps: u32,
    /// For how long it is held down, in milliseconds.
    pub hold_down_ms: u64,
}

// === impl What ===

impl What {
    /// A change of the verdict on `upstream`, or on a row of it, of which this is now believed.
    pub fn change(
        upstream: Upstream,
        row: Option<&str>,
        change: &Change,
        verdict: &Verdict,
        now: Moment,
        limits: &Thresholds,
    ) -> What {
        let cause = match change.to {
            Phase::Down { cause, .. } => Some(cause.name().into()),
            _ => None,
        };
        What::Change {
            upstream: upstream.name().into(),
            row: row.map(|row| row.to_owned().into()),
            from: change.from.name().into(),
            to: change.to.name().into(),
            cause,
            reason: change.reason.to_string(),
            numbers: Numbers::of(verdict, change.to, now, limits),
        }
    }

    /// Names the row it is about, where it is about one.
    pub fn name_row(&mut self, name: String) {
        if let What::Live { row, .. } | What::Slow { row, .. } | What::Dropped { row, .. } = self {
            *row = name.into();
        }
    }

    /// Its kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            What::Probe { .. } => "probe",
            What::Run { .. } => "run",
            What::Unasked { .. } => "unasked",
            What::Live { .. } => "live",
            What::Slow { .. } => "slow",
            What::Dropped { .. } => "dropped",
            What::Change { .. } => "change",
            What::Stance { .. } => "stance",
            What::Drill { .. } => "drill",
            What::Process { .. } => "process",
        }
    }

    /// Every kind there is.
    pub const KINDS: [&'static str; 10] = [
        "probe", "run", "unasked", "live", "slow", "dropped", "change", "stance", "drill",
        "process",
    ];

    /// Whom it is about.
    pub fn upstream(&self) -> Option<&str> {
        match self {
            What::Probe { upstream, .. }
            | What::Run { upstream, .. }
            | What::Unasked { upstream, .. }
            | What::Live { upstream, .. }
            | What::Slow { upstream, .. }
            | What::Dropped { upstream, .. }
            | What::Change { upstream, .. } => Some(upstream),
            What::Stance { .. } | What::Drill { .. } | What::Process { .. } => None,
        }
    }

    /// Which row it is about.
    pub fn row(&self) -> Option<&str> {
        match self {
            What::Run { row, .. }
            | What::Unasked { row, .. }
            | What::Live { row, .. }
            | What::Slow { row, .. }
            | What::Dropped { row, .. } => Some(row),
            What::Change { row, .. } | What::Stance { row, .. } => row.as_deref(),
            _ => None,
        }
    }
}

// === impl Numbers ===

impl Numbers {
    fn of(verdict: &Verdict, phase: Phase, now: Moment, limits: &Thresholds) -> Numbers {
        let window = verdict.window(now, limits);
        let hold_down = match phase {
            Phase::Down { until, .. } => until.since(now),
            _ => std::time::Duration::ZERO,
        };
        Numbers {
            good_probes: verdict.probe_streak().0,
            bad_probes: verdict.probe_streak().1,
            good_attempts: verdict.live_streak().0,
            bad_attempts: verdict.live_streak().1,
            window_bad: window.bad,
            window_of: window.total(),
            hanging: verdict.hanging(),
            flaps: verdict.flaps(),
            hold_down_ms: millis(hold_down),
        }
    }
}
