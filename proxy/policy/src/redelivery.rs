//! What becomes of a callback that is kept, and how fast those that wait are delivered.
//!
//! Two fears stand against each other: to give up a callback that the application would have taken
//! later, and to let one that it never takes stand in the way of others. So whatever the application
//! may yet take is tried again; only a failure that is the callback's own counts against it, which is
//! one while others were taken. And an application that has just come back is not flattened by what
//! has gathered: a [`Throttle`] begins with one delivery at a time and widens while all goes well.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::choice::Access;
use crate::moment::Moment;
use crate::outcome::Outcome;
use crate::verdict::Grade;

/// After so many setbacks a callback steps aside: younger ones of its call do not wait for it.
pub const STEPS_ASIDE: u32 = 3;

/// How long and how often a callback is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Between tries.
    pub backoff: Backoff,
    /// Setbacks after which it is a dead letter.
    pub most_setbacks: u32,
    /// Age at which it is a dead letter.
    pub longest: Duration,
}

/// One try that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// What came of it.
    pub outcome: Outcome,
    /// Whether the application has taken others since this one was last tried.
    pub others_were_taken: bool,
    /// Setbacks before this try.
    pub setbacks: u32,
    /// How long the callback has been waiting.
    pub age: Duration,
}

/// What becomes of a callback after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was taken.
    Delivered,
    /// It is tried again.
    Again {
        /// Whether the failure was its own.
        setback: bool,
    },
    /// It is tried no more.
    Dead(Death),
}

/// Why a callback is tried no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Death {
    /// The application knows no such thing (404 or 410).
    Gone,
    /// It was refused too often while others were taken.
    TooManyTries,
    /// It is too old.
    TooOld,
}

/// Whether an outcome says that the application believes the edge itself to be a stranger: a secret is
/// wrong, and a person has to act. Such a failure is nobody's setback.
pub fn is_taken_for_a_stranger(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Status(401 | 403))
}

// === impl Tried ===

impl Tried {
    /// What becomes of the callback.
    pub fn fate(self, patience: &Patience) -> Fate {
        let setback = self.others_were_taken
            && !is_taken_for_a_stranger(self.outcome)
            // It was not even asked.
            && self.outcome != Outcome::Full;
        match self.outcome {
            Outcome::Good => Fate::Delivered,
            Outcome::Status(404 | 410) => Fate::Dead(Death::Gone),
            _ if self.age >= patience.longest => Fate::Dead(Death::TooOld),
            _ if setback && self.setbacks + 1 >= patience.most_setbacks => {
                Fate::Dead(Death::TooManyTries)
            }
            _ => Fate::Again { setback },
        }
    }
}

// === impl Death ===

impl Death {
    /// Its name in the spool, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Death::Gone => "gone",
            Death::TooManyTries => "too_many_tries",
            Death::TooOld => "too_old",
        }
    }

    /// Every name [`Death::name`] can give.
    pub const NAMES: [&'static str; 3] = ["gone", "too_many_tries", "too_old"];
}

/// How soon the throttle may widen again.
const WIDENS_EVERY: Duration = Duration::from_secs(1);
/// So few failures say nothing of the number of deliveries.
const FEW: u32 = 3;
/// The share of failures, one in so many, above which it does not widen.
const FAILURES_OF: u32 = 5;
/// Between deliveries to an upstream that is believed to be down.
const WHILE_DOWN: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(30) };

/// How many deliveries may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    most: u32,
    width: u32,
    /// When it last changed or was looked at anew.
    changed: Moment,
    /// Deliveries since then that ended well, and that did not.
    good: u32,
    bad: u32,
    /// Failures in a row while the upstream was believed to be down.
    in_vain: u32,
    not_before: Moment,
}

// === impl Throttle ===

impl Throttle {
    /// A throttle that lets one through at first, and in the end `most`.
    pub fn new(most: u32, now: Moment) -> Throttle {
        let not_before = Moment::at(Duration::ZERO);
        Throttle { most, width: 1, changed: now, good: 0, bad: 0, in_vain: 0, not_before }
    }

    /// The most there may be under way from now on.
    pub fn set_most(&mut self, most: u32) {
        self.most = most;
        self.width = self.width.clamp(1, most.max(1));
    }

    /// How many deliveries may be under way now, to an upstream with this access.
    pub fn width(&mut self, access: Access, now: Moment) -> u32 {
        if access == Access::Serving {
            self.not_before = Moment::at(Duration::ZERO);
            self.in_vain = 0;
            let enough = self.good > self.bad.saturating_mul(FAILURES_OF);
            if enough && now.since(self.changed) >= WIDENS_EVERY {
                self.change(self.width.saturating_mul(2), now);
            }
            return self.width;
        }
        // Whatever comes after this is a return from an outage.
        self.change(1, now);
        let tried = access == Access::OnTrial || now >= self.not_before;
        u32::from(tried && access != Access::Barred)
    }

    /// A delivery is over.
    pub fn ended(&mut self, outcome: Outcome, access: Access, now: Moment) {
        match outcome.grade() {
            Some(Grade::Good) => {
                self.good = self.good.saturating_add(1);
                self.in_vain = 0;
            }
            // An upstream that refuses one callback has no trouble with their number; one that had no room
            // was not even asked.
            None => {}
            _ if access != Access::Serving => {
                self.not_before = now + WHILE_DOWN.wait(self.in_vain);
                self.in_vain = self.in_vain.saturating_add(1);
            }
            _ => {
                self.bad = self.bad.saturating_add(1);
                if self.bad >= FEW && self.bad > self.good {
                    self.change(self.width / 2, now);
                }
            }
        }
    }

    fn change(&mut self, width: u32, now: Moment) {
        self.width = width.clamp(1, self.most.max(1));
        (self.changed, self.good, self.bad) = (now, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: Patience = Patience {
        backoff: Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(900) },
        most_setbacks: 5,
        longest: Duration::from_secs(3600),
    };

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    #[track_caller]
    fn check(outcome: Outcome, others_were_taken: bool, setbacks: u32, age_s: u64, expect: Fate) {
        let age = Duration::from_secs(age_s);
        let tried = Tried { outcome, others_were_taken, setbacks, age };
        assert_eq!(tried.fate(&PATIENCE), expect, "{tried:?}");
    }

    #[test]
    fn what_becomes_of_a_callback() {
        let (again, setback) = (Fate::Again { setback: false }, Fate::Again { setback: true });
        check(Outcome::Good, true, 9, 9999, Fate::Delivered);
        for gone in [404, 410] {
            check(Outcome::Status(gone), false, 0, 0, Fate::Dead(Death::Gone));
        }
        for refused in [Outcome::Status(500), Outcome::Status(422), Outcome::TimedOut] {
            check(refused, true, 0, 0, setback);
            check(refused, true, 4, 0, Fate::Dead(Death::TooManyTries));
            // While nobody is taken, nobody is to blame.
            check(refused, false, 99, 3599, again);
            check(refused, false, 0, 3600, Fate::Dead(Death::TooOld));
        }
        // A wrong secret must not eat callbacks.
        for stranger in [401, 403] {
            check(Outcome::Status(stranger), true, 99, 0, again);
        }
        check(Outcome::Full, true, 99, 0, again);
    }

    #[test]
    fn every_death_is_listed() {
        for death in [Death::Gone, Death::TooManyTries, Death::TooOld] {
            assert!(Death::NAMES.contains(&death.name()));
        }
    }

    #[test]
    fn after_an_outage_it_widens_while_all_goes_well() {
        let mut throttle = Throttle::new(16, at(0));
        let mut widths = Vec::new();
        for second in 0..6 {
            throttle.ended(Outcome::Good, Access::Serving, at(second * 1000));
            widths.push(throttle.width(Access::Serving, at((second + 1) * 1000)));
        }
        assert_eq!(widths, [2, 4, 8, 16, 16, 16]);
        // Nothing went well since: nothing widens.
        let mut idle = Throttle::new(16, at(0));
        assert_eq!(idle.width(Access::Serving, at(60_000)), 1);
    }

    #[test]
    fn failures_narrow_it_and_an_outage_begins_anew() {
        let mut throttle = Throttle { width: 16, ..Throttle::new(16, at(0)) };
        let mut fails = |outcome, times| {
            (0..times).for_each(|_| throttle.ended(outcome, Access::Serving, at(1)));
            throttle.width(Access::Serving, at(2))
        };
        assert_eq!(fails(Outcome::Status(500), 2), 16);
        assert_eq!(fails(Outcome::Status(500), 1), 8);
        // A callback that is refused says nothing of their number, nor do a few among many.
        assert_eq!(fails(Outcome::Status(404), 9), 8);
        assert_eq!(fails(Outcome::Good, 9), 8);
        assert_eq!(fails(Outcome::Status(500), 2), 8);
        assert_eq!(throttle.width(Access::Serving, at(2000)), 8, "too many for it to widen");
        throttle.width(Access::Out, at(4000));
        assert_eq!(throttle.width(Access::Serving, at(4001)), 1);
    }

    #[test]
    fn one_at_a_time_while_down_and_ever_more_seldom() {
        let mut throttle = Throttle::new(16, at(0));
        assert_eq!(throttle.width(Access::Out, at(0)), 1);
        throttle.ended(Outcome::Refused, Access::Out, at(0));
        assert_eq!(throttle.width(Access::Out, at(999)), 0);
        assert_eq!(throttle.width(Access::Out, at(1000)), 1);
        throttle.ended(Outcome::Refused, Access::Suspected, at(1000));
        assert_eq!(throttle.width(Access::Stuck, at(2999)), 0);
        // A trial needs somebody who tries.
        assert_eq!(throttle.width(Access::OnTrial, at(2999)), 1);
        assert_eq!(throttle.width(Access::Serving, at(2999)), 1);
    }

    proptest! {
        #[test]
        fn it_is_never_wider_than_allowed_nor_shut_for_an_upstream_that_serves(
            most in 1u32..100,
            steps in prop::collection::vec((0u64..5000, 0usize..4, 0usize..5), 1..200),
        ) {
            let mut throttle = Throttle::new(most, at(0));
            let mut now = 0;
            for (passed, outcome, access) in steps {
                now += passed;
                let outcome =
                    [Outcome::Good, Outcome::Status(500), Outcome::Full, Outcome::Status(404)][outcome];
                let access = [
                    Access::Serving, Access::Stuck, Access::OnTrial, Access::Suspected, Access::Out,
                ][access];
                throttle.ended(outcome, access, at(now));
                let width = throttle.width(access, at(now));
                prop_assert!(width <= most);
                match access {
                    Access::Serving | Access::OnTrial => prop_assert!(width >= 1),
                    _ => prop_assert!(width <= 1),
                }
            }
        }
    }
}
