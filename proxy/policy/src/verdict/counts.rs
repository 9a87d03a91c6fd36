//! What the verdict counts: outcomes in a row, and calls that speak.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::words::{Grade, RowId};
use crate::moment::Moment;

/// Truly consecutive outcomes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Streak {
    pub(super) good: u32,
    pub(super) bad: u32,
}

/// Whether one thing or more than one was seen. Two are all that is ever asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Distinct<T> {
    #[default]
    None,
    One(T),
    Several,
}

/// What was seen last, and the last that was another: enough to tell one from several within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Latest<T> {
    latest: Option<(T, Moment)>,
    other: Option<(T, Moment)>,
}

// === impl Streak ===

impl Streak {
    pub(super) fn count(&mut self, grade: Grade) {
        *self = match grade {
            Grade::Good => Streak { good: self.good.saturating_add(1), bad: 0 },
            Grade::Bad => Streak { good: 0, bad: self.bad.saturating_add(1) },
        };
    }
}

// === impl Distinct ===

impl<T: Copy + PartialEq> Distinct<T> {
    pub(super) fn add(&mut self, seen: T) {
        *self = match *self {
            Distinct::None => Distinct::One(seen),
            Distinct::One(known) if known == seen => Distinct::One(known),
            Distinct::One(_) | Distinct::Several => Distinct::Several,
        };
    }
}

impl Distinct<RowId> {
    /// The same rows under other numbers; one that is gone is one like no other.
    pub(super) fn renumbered(self, number: impl Fn(RowId) -> Option<RowId>) -> Distinct<RowId> {
        match self {
            Distinct::One(row) => number(row).map_or(Distinct::Several, Distinct::One),
            other => other,
        }
    }
}

// === impl Latest ===

impl<T> Default for Latest<T> {
    fn default() -> Latest<T> {
        Latest { latest: None, other: None }
    }
}

impl<T: Copy + PartialEq> Latest<T> {
    pub(super) fn note(&mut self, seen: T, now: Moment) {
        if self.latest.is_some_and(|(known, _)| known != seen) {
            self.other = self.latest;
        }
        self.latest = Some((seen, now));
    }

    /// Whether one or several were seen within this time.
    pub(super) fn within(&self, time: Duration, now: Moment) -> Distinct<T> {
        let lately = |seen: Option<(T, Moment)>| seen.filter(|(_, at)| now.since(*at) <= time);
        match (lately(self.latest), lately(self.other)) {
            (Some((seen, _)), None) => Distinct::One(seen),
            (Some(_), Some(_)) => Distinct::Several,
            (None, _) => Distinct::None,
        }
    }

    /// Whether any other was seen within this time.
    pub(super) fn another(&self, than: T, time: Duration, now: Moment) -> bool {
        let mut seen = [self.latest, self.other].into_iter().flatten();
        seen.any(|(known, at)| known != than && now.since(at) <= time)
    }
}

impl Latest<RowId> {
    /// The same rows under other numbers, without those that are gone.
    pub(super) fn renumbered(self, number: impl Fn(RowId) -> Option<RowId>) -> Latest<RowId> {
        let same =
            |seen: Option<(RowId, Moment)>| seen.and_then(|(row, at)| Some((number(row)?, at)));
        Latest { latest: same(self.latest), other: same(self.other) }
    }
}
