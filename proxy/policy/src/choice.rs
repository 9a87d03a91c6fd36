//! Whom to ask next, and when to stop asking.
//!
//! A [`Course`] is the way of one visit through its upstreams. It is told how each attempt ended and
//! says what to do next; it never asks the same upstream twice for one visit, because an upstream
//! that has just failed is the least likely to answer. Whatever it says, the caller of the course
//! still answers: [`Step::Stop`] means a canned document, not silence.

use std::time::Duration;

use crate::budget::Budget;
use crate::catalogue::{Kind, Party, Replay, Row, Upstream};
use crate::deadline::Deadline;
use crate::moment::Moment;
use crate::outcome::Ended;
use crate::stance::Stance;
use crate::verdict::{Cause, Phase};

/// What a visit may do with an upstream at the moment it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Ask it.
    Serving,
    /// It hangs, and may be slow or dead. A visit that may be repeated asks it and another at once; any
    /// other asks it after all that serve.
    Stuck,
    /// It is on trial, which may go wrong. Only a visit that may be repeated tries it; any other asks it
    /// after all that serve.
    OnTrial,
    /// Only probes say that it is down. One visit at a time that may be repeated asks it and another at
    /// once, so that a wrong probe path does not idle a healthy upstream; no other does.
    Suspected,
    /// It fails visits to this row, and others not. A visit that may be repeated asks it after all others.
    FailsAlone,
    /// Leave it alone; only a report that cannot be kept may ask it, after all others.
    Out,
    /// The operator orders that it is not asked. Nobody does.
    Barred,
}

/// The access to each upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Access to the origin.
    pub origin: Access,
    /// Access to the monitor.
    pub monitor: Access,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask `upstream`, for at most `slice`.
    Try {
        /// Whom to ask.
        upstream: Upstream,
        /// For how long.
        slice: Duration,
    },
    /// Answer with a canned document.
    Stop(Stopped),
}

/// Why no further attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stopped {
    /// No upstream may be asked, or all have been.
    NobodyLeft,
    /// Too little time is left.
    NoTime,
    /// The last attempt may have run, and the row must not run twice.
    MayHaveRun,
    /// Who is left is believed to be down, and has been asked too often after others failed.
    BudgetSpent,
    /// An upstream is still being asked; the caller hears something meanwhile.
    Overdue,
}

/// The way of one visit through its upstreams.
#[derive(Debug, Clone)]
pub struct Course {
    deadline: Deadline,
    replay: Replay,
    standing: Standing,
    /// Whether turning to an upstream that is down is paid for.
    pays: bool,
    order: [Option<Upstream>; Upstream::COUNT],
    next: usize,
}

// === impl Access ===

impl Access {
    /// What visits may do with an upstream of which this is believed.
    pub fn to(upstream: Upstream, phase: Phase) -> Access {
        match phase {
            Phase::Well | Phase::Doubtful => Access::Serving,
            Phase::Stuck => Access::Stuck,
            Phase::Trial { .. } => Access::OnTrial,
            // Probes that are wrong must not idle the origin. What is there to help must be proven to.
            Phase::Down { cause: Cause::Probes, .. } if upstream == Upstream::Origin => {
                Access::Suspected
            }
            Phase::Down { .. } => Access::Out,
        }
    }

    /// What visits to a row may do, by what is believed of the row itself.
    pub fn to_row(phase: Phase) -> Access {
        match phase {
            Phase::Well | Phase::Doubtful => Access::Serving,
            Phase::Stuck => Access::Stuck,
            Phase::Trial { .. } => Access::OnTrial,
            Phase::Down { .. } => Access::FailsAlone,
        }
    }

    /// Whether nobody has to wait for it: it is tried, and another is asked at the same moment.
    pub fn is_tried(self) -> bool {
        matches!(self, Access::Stuck | Access::OnTrial | Access::Suspected)
    }
}

// === impl Standing ===

impl Standing {
    /// The standing by what is believed of the upstreams.
    pub fn of_upstreams([origin, monitor]: [Phase; Upstream::COUNT]) -> Standing {
        Standing {
            origin: Access::to(Upstream::Origin, origin),
            monitor: Access::to(Upstream::Monitor, monitor),
        }
    }

    /// The standing for visits to a row that has this access of its own to each upstream. A row that fails
    /// everywhere is better asked than not: then it counts only what is believed of the upstreams.
    #[must_use]
    pub fn for_row(self, row: &Row, [origin, monitor]: [Access; Upstream::COUNT]) -> Standing {
        let narrowed = |upstream, own| if upstream == Access::Serving { own } else { upstream };
        let own = Standing {
            origin: narrowed(self.origin, origin),
            monitor: narrowed(self.monitor, monitor),
        };
        let serves = |upstream: &Upstream| own.of(*upstream) == Access::Serving;
        if row.chain.iter().any(serves) { own } else { self }
    }

    /// The standing under the operator's orders.
    #[must_use]
    pub fn under(self, stance: Stance) -> Standing {
        match stance {
            Stance::Automatic => self,
            Stance::Monitor => Standing { origin: Access::Barred, ..self },
            Stance::Canned => Standing { origin: Access::Barred, monitor: Access::Barred },
        }
    }

    /// The access to one upstream.
    pub fn of(&self, upstream: Upstream) -> Access {
        match upstream {
            Upstream::Origin => self.origin,
            Upstream::Monitor => self.monitor,
        }
    }
}

// === impl Stopped ===

impl Stopped {
    /// A short constant name, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Stopped::NobodyLeft => "nobody_left",
            Stopped::NoTime => "no_time",
            Stopped::MayHaveRun => "may_have_run",
            Stopped::BudgetSpent => "budget_spent",
            Stopped::Overdue => "overdue",
        }
    }

    /// Every name [`Stopped::name`] can give.
    pub const NAMES: [&'static str; 5] =
        ["nobody_left", "no_time", "may_have_run", "budget_spent", "overdue"];
}

// === impl Course ===

impl Course {
    /// The course of a visit to `row`. A report that can be kept is handed only to who serves.
    pub fn new(row: &Row, standing: &Standing, deadline: Deadline) -> Course {
        let report = row.kind == Kind::Asynchronous;
        let repeatable = row.replay == Replay::Idempotent;
        let first = |access| match access {
            Access::Serving => true,
            Access::Stuck | Access::OnTrial | Access::Suspected => repeatable && !report,
            Access::FailsAlone | Access::Out | Access::Barred => false,
        };
        let last = |access| match access {
            Access::Serving | Access::Suspected | Access::Out | Access::Barred => false,
            Access::Stuck | Access::OnTrial => !repeatable,
            Access::FailsAlone => repeatable && !report,
        };
        Course::by(row, standing, deadline, first, last)
    }

    /// The course of a report that cannot be kept. It is lost if nobody takes it; even an upstream that
    /// is left alone is better than none.
    pub fn at_any_price(row: &Row, standing: &Standing, deadline: Deadline) -> Course {
        let serving = |access| access == Access::Serving;
        let asked = |access| !serving(access) && access != Access::Barred;
        Course::by(row, standing, deadline, serving, asked)
    }

    fn by(
        row: &Row,
        standing: &Standing,
        deadline: Deadline,
        first: impl Fn(Access) -> bool,
        last: impl Fn(Access) -> bool,
    ) -> Course {
        let mut order = [None; Upstream::COUNT];
        let firsts = row.chain.iter().filter(|upstream| first(standing.of(**upstream)));
        let lasts = row.chain.iter().filter(|upstream| last(standing.of(**upstream)));
        for (slot, upstream) in order.iter_mut().zip(firsts.chain(lasts)) {
            *slot = Some(*upstream);
        }
        // A callee is not made to wait, and a report not lost, for want of a budget.
        let pays = row.kind == Kind::Synchronous && !row.parties.contains(&Party::Callee);
        let (replay, standing) = (row.replay, *standing);
        Course { deadline, replay, standing, pays, order, next: 0 }
    }

    /// The first step.
    pub fn begin(&mut self, now: Moment) -> Step {
        let Some(upstream) = self.order.get(self.next).copied().flatten() else {
            return Step::Stop(Stopped::NobodyLeft);
        };
        self.next += 1;
        let others = self.order[self.next..].iter().flatten().count();
        // Where a failure after sending ends the course, keeping time for others would be waste:
        // they are asked only if nothing was sent, and connecting is limited on its own.
        let others = if self.replay == Replay::Idempotent { others } else { 0 };
        match self.deadline.slice(now, others) {
            Some(slice) => Step::Try { upstream, slice },
            None => Step::Stop(Stopped::NoTime),
        }
    }

    /// Whether another upstream may be asked while one that was sent the visit is still at it.
    pub fn may_ask_alongside(&self) -> bool {
        self.replay == Replay::Idempotent && self.order[self.next..].iter().any(Option::is_some)
    }

    /// The step after an attempt that was not good.
    pub fn after(&mut self, ended: Ended, now: Moment, retries: &Budget) -> Step {
        if ended.allows_another(self.replay) {
            self.another(now, retries)
        } else {
            Step::Stop(Stopped::MayHaveRun)
        }
    }

    /// Another attempt, after one or beside it. To turn to an upstream that serves is what it is
    /// there for; to turn to one that is believed to be down may keep it down, and is paid for.
    pub fn another(&mut self, now: Moment, retries: &Budget) -> Step {
        let next = self.order.get(self.next).copied().flatten();
        let costs = next.is_some_and(|upstream| {
            matches!(
                self.standing.of(upstream),
                Access::Suspected | Access::FailsAlone | Access::Out
            )
        });
        if costs && self.pays && !retries.spend() {
            return Step::Stop(Stopped::BudgetSpent);
        }
        self.begin(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RowSpec;
    use crate::outcome::{Outcome, Sent};
    use Access::{FailsAlone, OnTrial, Out, Serving, Stuck, Suspected};

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn course(replay: Replay, origin: Access, monitor: Access) -> Course {
        let row = Row::new(RowSpec { replay, ..RowSpec::example() }).unwrap();
        Course::new(&row, &Standing { origin, monitor }, Deadline::new(Moment::at(ms(0)), ms(9000)))
    }

    fn ended(outcome: Outcome, sent: Sent) -> Ended {
        Ended { outcome, sent }
    }

    #[track_caller]
    fn asks(step: Step, upstream: Upstream, slice: Duration) {
        assert_eq!(step, Step::Try { upstream, slice });
    }

    #[test]
    fn origin_then_monitor_then_canned() {
        let mut course = course(Replay::Idempotent, Serving, Serving);
        asks(course.begin(Moment::at(ms(0))), Upstream::Origin, ms(4375));
        let failed = ended(Outcome::Status(500), Sent::Something);
        asks(
            course.after(failed, Moment::at(ms(50)), &Budget::default()),
            Upstream::Monitor,
            ms(8700),
        );
        assert_eq!(
            course.after(failed, Moment::at(ms(60)), &Budget::default()),
            Step::Stop(Stopped::NobodyLeft)
        );
    }

    #[test]
    fn a_row_that_must_not_run_twice_stops_once_sent() {
        let mut unsent = course(Replay::Unsent, Serving, Serving);
        asks(unsent.begin(Moment::at(ms(0))), Upstream::Origin, ms(8750));
        let refused = ended(Outcome::Refused, Sent::Nothing);
        asks(
            unsent.after(refused, Moment::at(ms(1)), &Budget::default()),
            Upstream::Monitor,
            ms(8749),
        );
        let broken = ended(Outcome::Broken, Sent::Something);
        assert_eq!(
            unsent.after(broken, Moment::at(ms(2)), &Budget::default()),
            Step::Stop(Stopped::MayHaveRun)
        );
    }

    #[test]
    fn what_is_out_is_not_asked() {
        let mut down = course(Replay::Idempotent, Out, Serving);
        asks(down.begin(Moment::at(ms(0))), Upstream::Monitor, ms(8750));
        let mut none = course(Replay::Idempotent, Out, Out);
        assert_eq!(none.begin(Moment::at(ms(0))), Step::Stop(Stopped::NobodyLeft));
    }

    #[test]
    fn what_only_probes_suspect_is_tried_at_once_if_the_visit_may_be_repeated() {
        let mut twice = course(Replay::Idempotent, Suspected, Serving);
        asks(twice.begin(Moment::at(ms(0))), Upstream::Origin, ms(4375));
        assert!(twice.may_ask_alongside());
        let mut once = course(Replay::Unsent, Suspected, Serving);
        asks(once.begin(Moment::at(ms(0))), Upstream::Monitor, ms(8750));
        let refused = ended(Outcome::Refused, Sent::Nothing);
        let step = once.after(refused, Moment::at(ms(0)), &Budget::default());
        assert_eq!(step, Step::Stop(Stopped::NobodyLeft));
    }

    #[test]
    fn where_a_row_fails_it_is_asked_last_and_only_if_it_may_be_repeated() {
        let mut twice = course(Replay::Idempotent, FailsAlone, Serving);
        asks(twice.begin(Moment::at(ms(0))), Upstream::Monitor, ms(4375));
        let failed = ended(Outcome::TimedOut, Sent::Something);
        asks(
            twice.after(failed, Moment::at(ms(10)), &Budget::default()),
            Upstream::Origin,
            ms(8740),
        );
        let mut once = course(Replay::Unsent, FailsAlone, Out);
        assert_eq!(once.begin(Moment::at(ms(0))), Step::Stop(Stopped::NobodyLeft));
    }

    #[test]
    fn a_report_that_can_be_kept_is_handed_only_to_who_serves() {
        let spec = RowSpec { kind: Kind::Asynchronous, canned: None, ..RowSpec::example() };
        let row = Row::new(spec).unwrap();
        let deadline = Deadline::new(Moment::at(ms(0)), ms(9000));
        for access in [Stuck, OnTrial, Suspected, FailsAlone, Out] {
            let mut report =
                Course::new(&row, &Standing { origin: access, monitor: Serving }, deadline);
            asks(report.begin(Moment::at(ms(0))), Upstream::Monitor, ms(8750));
            let mut kept =
                Course::new(&row, &Standing { origin: access, monitor: access }, deadline);
            assert_eq!(kept.begin(Moment::at(ms(0))), Step::Stop(Stopped::NobodyLeft));
        }
    }

    #[test]
    fn a_report_that_cannot_be_kept_asks_even_those_that_are_left_alone() {
        let spec = RowSpec { kind: Kind::Asynchronous, canned: None, ..RowSpec::example() };
        let row = Row::new(spec).unwrap();
        let deadline = Deadline::new(Moment::at(ms(0)), ms(9000));
        let standing = Standing { origin: Out, monitor: Serving };
        let mut report = Course::at_any_price(&row, &standing, deadline);
        asks(report.begin(Moment::at(ms(0))), Upstream::Monitor, ms(4375));
        let failed = ended(Outcome::Status(500), Sent::Something);
        asks(
            report.after(failed, Moment::at(ms(0)), &Budget::default()),
            Upstream::Origin,
            ms(8750),
        );
    }

    #[test]
    fn what_hangs_or_is_on_trial_is_tried_by_visits_that_may_be_repeated() {
        for origin in [Stuck, OnTrial] {
            let mut twice = course(Replay::Idempotent, origin, Serving);
            asks(twice.begin(Moment::at(ms(0))), Upstream::Origin, ms(4375));
            assert!(twice.may_ask_alongside());
            let mut once = course(Replay::Unsent, origin, Serving);
            asks(once.begin(Moment::at(ms(0))), Upstream::Monitor, ms(8750));
            let refused = ended(Outcome::Refused, Sent::Nothing);
            let step = once.after(refused, Moment::at(ms(0)), &Budget::default());
            asks(step, Upstream::Origin, ms(8750));
            let mut alone = course(Replay::Unsent, origin, Out);
            asks(alone.begin(Moment::at(ms(0))), Upstream::Origin, ms(8750));
        }
    }

    #[test]
    fn turning_to_what_is_down_is_paid_for_when_it_is_decided() {
        let retries = Budget::default();
        let failed = ended(Outcome::Status(500), Sent::Something);
        let decide = |monitor: Access| {
            let mut course = course(Replay::Idempotent, FailsAlone, monitor);
            let first = course.begin(Moment::at(ms(0)));
            (first, course.after(failed, Moment::at(ms(0)), &retries))
        };
        for _ in 0..20 {
            asks(decide(Serving).1, Upstream::Origin, ms(8750));
        }
        assert_eq!(decide(Serving).1, Step::Stop(Stopped::BudgetSpent));
        // Nobody pays for the first attempt, nor for turning to an upstream that serves.
        asks(decide(FailsAlone).0, Upstream::Origin, ms(4375));
        let mut course = course(Replay::Idempotent, Serving, Serving);
        course.begin(Moment::at(ms(0)));
        asks(course.after(failed, Moment::at(ms(0)), &retries), Upstream::Monitor, ms(8750));
        // And a callee never does.
        let spec = RowSpec { parties: vec![Party::Callee], hold: None, ..RowSpec::example() };
        let standing = Standing { origin: FailsAlone, monitor: Serving };
        let deadline = Deadline::new(Moment::at(ms(0)), ms(9000));
        let mut callee = Course::new(&Row::new(spec).unwrap(), &standing, deadline);
        callee.begin(Moment::at(ms(0)));
        asks(callee.after(failed, Moment::at(ms(0)), &retries), Upstream::Origin, ms(8750));
    }

    #[test]
    fn a_monitor_that_is_known_to_be_down_is_never_chosen() {
        let until = Moment::at(ms(0));
        for cause in [Cause::Probes, Cause::Traffic] {
            let down = Phase::Down { cause, until };
            let standing = Standing::of_upstreams([Phase::Well, down]);
            assert_eq!(standing, Standing { origin: Serving, monitor: Out });
            let mut course = course(Replay::Idempotent, standing.origin, standing.monitor);
            course.begin(Moment::at(ms(0)));
            let failed = ended(Outcome::Status(500), Sent::Something);
            let next = course.after(failed, Moment::at(ms(0)), &Budget::default());
            assert_eq!(next, Step::Stop(Stopped::NobodyLeft));
        }
    }

    #[test]
    fn a_row_that_fails_alone_goes_to_who_serves_it() {
        let row = Row::new(RowSpec::example()).unwrap();
        let down = Phase::Down { cause: Cause::Traffic, until: Moment::at(ms(0)) };
        let trial = Phase::Trial { visits: 0, quiet_since: Moment::at(ms(0)) };
        let both = Standing { origin: Serving, monitor: Serving };
        for (phase, access) in [(down, FailsAlone), (trial, OnTrial), (Phase::Stuck, Stuck)] {
            assert_eq!(Access::to_row(phase), access);
            let own = both.for_row(&row, [access, Serving]);
            assert_eq!(own, Standing { origin: access, monitor: Serving });
            // Nobody is better.
            let alone = Standing { origin: Serving, monitor: Out };
            assert_eq!(alone.for_row(&row, [access, Serving]), alone);
            assert_eq!(both.for_row(&row, [access, FailsAlone]), both);
            // Where the operator bars the one that serves it, the other is asked all the same.
            let ordered = both.under(Stance::Monitor);
            assert_eq!(ordered.for_row(&row, [Serving, access]), ordered);
        }
    }

    #[test]
    fn nobody_asks_what_the_operator_bars() {
        let spec = RowSpec { kind: Kind::Asynchronous, canned: None, ..RowSpec::example() };
        let row = Row::new(spec).unwrap();
        let deadline = Deadline::new(Moment::at(ms(0)), ms(9000));
        let both = Standing { origin: Serving, monitor: Out };
        let mut monitor = Course::at_any_price(&row, &both.under(Stance::Monitor), deadline);
        asks(monitor.begin(Moment::at(ms(0))), Upstream::Monitor, ms(8750));
        for course in [Course::new, Course::at_any_price] {
            let mut canned = course(&row, &both.under(Stance::Canned), deadline);
            assert_eq!(canned.begin(Moment::at(ms(0))), Step::Stop(Stopped::NobodyLeft));
        }
    }

    #[test]
    fn no_attempt_begins_without_time() {
        let mut late = course(Replay::Idempotent, Serving, Serving);
        assert_eq!(late.begin(Moment::at(ms(8800))), Step::Stop(Stopped::NoTime));
    }
}
