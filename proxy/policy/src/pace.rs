//! How often an upstream is probed, by what is believed of it.
//!
//! Seldom while it is well, quicker while in doubt, and quickest where it matters most: just after it
//! went down, because most failures are restarts of a few hundred milliseconds, and after the first
//! good probe, because then only `rise - 1` more stand between callers and their origin. Once those are
//! there as well, only the hold-down keeps it away, and nothing is learnt by asking more often.

use std::time::Duration;

use crate::moment::Moment;
use crate::verdict::{Phase, Verdict};

/// The steady part of the pace; the pace of an upstream that is down is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between probes of an upstream that is well.
    pub interval: Duration,
    /// Between probes of an upstream in doubt or on trial.
    pub quick: Duration,
}

const DOWN_FIRST: Duration = Duration::from_millis(100);
const DOWN_AFTER_A_MINUTE: Duration = Duration::from_millis(500);
const DOWN_LATER: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_secs(60);

// === impl Pace ===

impl Pace {
    /// What is shipped.
    pub const SHIPPED: Pace =
        Pace { interval: Duration::from_secs(1), quick: Duration::from_millis(250) };

    /// The wait before the next probe, without jitter. `rise`: good probes in a row that bring back what is
    /// down.
    pub fn wait(&self, verdict: &Verdict, rise: u32, now: Moment) -> Duration {
        let good = verdict.probe_streak().0;
        match verdict.phase() {
            Phase::Well => self.interval,
            Phase::Doubtful | Phase::Stuck | Phase::Trial { .. } => self.quick.min(self.interval),
            Phase::Down { .. } if (1..rise).contains(&good) => DOWN_FIRST,
            Phase::Down { until, .. } if good >= rise => {
                until.since(now).clamp(DOWN_FIRST, self.quick.max(DOWN_FIRST))
            }
            Phase::Down { .. } => {
                let down_for = now.since(verdict.since());
                if down_for >= MINUTE {
                    return DOWN_LATER;
                }
                let share = down_for.as_secs_f64() / MINUTE.as_secs_f64();
                DOWN_FIRST + (DOWN_AFTER_A_MINUTE - DOWN_FIRST).mul_f64(share)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Grade, Observation, Thresholds};

    #[test]
    fn the_pace_follows_the_verdict() {
        let second = Duration::from_secs(1);
        let limits = Thresholds { fall: 2, rise: 2, ..Thresholds::SHIPPED };
        let pace = Pace { interval: second, quick: Duration::from_millis(250) };
        let at = |ms| Moment::at(Duration::from_millis(ms));
        let mut verdict = Verdict::new(at(0));
        let waits = |verdict: &Verdict, ms| pace.wait(verdict, limits.rise, at(ms)).as_millis();
        assert_eq!(waits(&verdict, 0), 1000);
        verdict = verdict.step(Observation::Probe(Grade::Bad), at(0), &limits).0;
        assert_eq!(waits(&verdict, 0), 250);
        verdict = verdict.step(Observation::Probe(Grade::Bad), at(0), &limits).0;
        assert_eq!(
            [0, 30_000, 59_999, 60_000].map(|ms| waits(&verdict, ms)),
            [100, 300, 499, 3000]
        );
        verdict = verdict.step(Observation::Probe(Grade::Good), at(61_000), &limits).0;
        assert_eq!(waits(&verdict, 61_000), 100);
    }

    #[test]
    fn what_is_held_down_is_not_asked_more_often_than_helps() {
        let limits = Thresholds { fall: 1, rise: 2, ..Thresholds::SHIPPED };
        let pace = Pace::SHIPPED;
        let mut now = Moment::default();
        let mut verdict = Verdict::new(now);
        let mut see = |verdict: Verdict, grade| {
            now = now + Duration::from_millis(100);
            (verdict.step(Observation::Probe(grade), now, &limits).0, now)
        };
        // It flaps until it is held down for long.
        for _ in 0..4 {
            while !matches!(verdict.phase(), Phase::Well) {
                verdict = see(verdict, Grade::Good).0;
            }
            while !matches!(verdict.phase(), Phase::Down { .. }) {
                verdict = see(verdict, Grade::Bad).0;
            }
        }
        let wait = |(verdict, now): &(Verdict, Moment)| pace.wait(verdict, limits.rise, *now);
        let first = see(verdict, Grade::Good);
        assert_eq!(wait(&first), Duration::from_millis(100));
        let enough = see(first.0, Grade::Good);
        assert!(matches!(enough.0.phase(), Phase::Down { .. }));
        assert_eq!(wait(&enough), pace.quick);
    }
}
