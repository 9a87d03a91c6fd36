//! Attempts that ended well, gathered into runs: there are too many of them to write each down, and one
//! is like the other.

use std::collections::HashMap;
use std::time::Duration;

use holdline_policy::{Moment, RowId, Upstream};

/// How long a run may become. A window of the verdict is ten times as long at the least.
const LONGEST: Duration = Duration::from_millis(500);

/// Runs under way.
#[derive(Debug, Default)]
pub struct Runs(HashMap<(Upstream, RowId), Run>);

#[derive(Debug)]
struct Run {
    n: u32,
    began: Moment,
}

// === impl Runs ===

impl Runs {
    /// Adds attempts that have ended by now.
    pub fn add(&mut self, upstream: Upstream, row: RowId, n: u32, now: Moment) {
        let run = self.0.entry((upstream, row)).or_insert(Run { n: 0, began: now });
        run.n = run.n.saturating_add(n);
    }

    /// Takes out the runs of an upstream, because something else follows.
    pub fn end_of(
        &mut self,
        upstream: Upstream,
        now: Moment,
    ) -> impl Iterator<Item = (RowId, u32, Duration)> + use<> {
        self.take(now, move |of, _| of == upstream).map(|(_, row, n, time)| (row, n, time))
    }

    /// Takes out the runs that are long enough.
    pub fn ended(
        &mut self,
        now: Moment,
    ) -> impl Iterator<Item = (Upstream, RowId, u32, Duration)> + use<> {
        self.take(now, |_, time| time >= LONGEST)
    }

    fn take(
        &mut self,
        now: Moment,
        which: impl Fn(Upstream, Duration) -> bool,
    ) -> std::vec::IntoIter<(Upstream, RowId, u32, Duration)> {
        let mut taken = Vec::new();
        self.0.retain(|(upstream, row), run| {
            let time = now.since(run.began);
            let take = which(*upstream, time);
            if take {
                taken.push((*upstream, *row, run.n, time));
            }
            !take
        });
        taken.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_when_it_is_long_or_something_follows() {
        let at = |ms| Moment::at(Duration::from_millis(ms));
        let mut runs = Runs::default();
        runs.add(Upstream::Origin, RowId(1), 3, at(0));
        runs.add(Upstream::Monitor, RowId(1), 1, at(100));
        runs.add(Upstream::Origin, RowId(1), 2, at(400));
        assert_eq!(runs.ended(at(499)).count(), 0);
        let ended: Vec<_> = runs.ended(at(500)).collect();
        assert_eq!(ended, [(Upstream::Origin, RowId(1), 5, Duration::from_millis(500))]);
        assert_eq!(runs.end_of(Upstream::Origin, at(501)).count(), 0);
        let rest: Vec<_> = runs.end_of(Upstream::Monitor, at(501)).collect();
        assert_eq!(rest, [(RowId(1), 1, Duration::from_millis(401))]);
    }
}
