//! Whether a campaign may be called now, and if not, why.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// An account's plan and what is left of its quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Which rules apply.
    pub plan: Plan,
    /// Whether the subscription is paid; only some plans ask.
    pub provider_active: bool,
    /// Allowed less used less pending; may be negative.
    pub minutes_left: i64,
    /// Seats.
    pub callers_allowed: i64,
    /// Calling is switched off.
    pub disable_calling: bool,
    /// Everything is switched off.
    pub disable_access: bool,
}

/// A subscription's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Free, small, always active.
    Trial,
    /// Basic, pro and business: metered, and active only while paid.
    Subscribed,
    /// Unlimited seats, metered minutes.
    PerMinute,
    /// Unmetered.
    Enterprise,
    /// A plan this version does not know; it allows nothing.
    Unknown,
}

/// When a campaign may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    /// From this hour on; `None` together with the end: never.
    pub start: Option<i8>,
    /// Until before this hour.
    pub end: Option<i8>,
    /// By the clock of this zone (IANA name).
    pub time_zone: String,
}

/// Why calling cannot start, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unfit {
    /// Calling is switched off.
    Disabled,
    /// No minutes are left, or the subscription is not paid.
    OutOfFunds,
    /// The campaign was archived.
    NoCampaign,
    /// All seats are taken.
    NoSeat,
    /// Outside the campaign's hours.
    OutOfHours {
        /// First open hour.
        start: i8,
        /// First closed hour.
        end: i8,
    },
}

/// Whether a plan of that name has talks recorded.
pub fn may_record(plan: &str) -> bool {
    !matches!(plan, "basic" | "pro")
}

/// Whether a plan of that name may dial ahead.
pub fn may_predict(plan: &str) -> bool {
    plan != "basic"
}

// === impl Plan ===

impl Plan {
    /// The plan of that name.
    pub fn named(name: &str) -> Plan {
        match name {
            "trial" => Plan::Trial,
            "basic" | "pro" | "business" => Plan::Subscribed,
            "per_minute" => Plan::PerMinute,
            "enterprise" => Plan::Enterprise,
            _ => Plan::Unknown,
        }
    }
}

// === impl Quota ===

impl Quota {
    fn calling_enabled(&self) -> bool {
        !self.disable_access && !self.disable_calling && self.plan != Plan::Unknown
    }

    fn is_funded(&self) -> bool {
        match self.plan {
            Plan::Enterprise => true,
            Plan::PerMinute | Plan::Trial => self.minutes_left > 0,
            Plan::Subscribed => self.minutes_left > 0 && self.provider_active,
            Plan::Unknown => false,
        }
    }

    /// Whether one more caller has a seat beside those on call.
    fn has_seat(&self, on_call: i64) -> bool {
        match self.plan {
            Plan::Enterprise | Plan::PerMinute => true,
            Plan::Trial | Plan::Subscribed => on_call < self.callers_allowed,
            Plan::Unknown => false,
        }
    }
}

// === impl Hours ===

impl Hours {
    /// Whether calling is open at `now`. Equal hours mean all day; a start after the end spans
    /// midnight; without hours, or in a zone nobody knows, calling is closed.
    pub fn are_open(&self, now: Timestamp) -> bool {
        let (Some(start), Some(end)) = (self.start, self.end) else { return false };
        let Ok(zone) = TimeZone::get(&self.time_zone) else { return false };
        let hour = now.to_zoned(zone).hour();
        match start.cmp(&end) {
            std::cmp::Ordering::Less => (start..end).contains(&hour),
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Greater => hour >= start || hour < end,
        }
    }
}

/// Whether one more caller may start: switched off, then funds, then seats, then hours.
pub fn may_start(quota: &Quota, hours: &Hours, on_call: i64, now: Timestamp) -> Result<(), Unfit> {
    match may_dial(quota, hours, now) {
        Err(reason @ (Unfit::Disabled | Unfit::OutOfFunds)) => Err(reason),
        _ if !quota.has_seat(on_call) => Err(Unfit::NoSeat),
        otherwise => otherwise,
    }
}

/// Whether those who have started may go on: switched off, then funds, then hours.
pub fn may_dial(quota: &Quota, hours: &Hours, now: Timestamp) -> Result<(), Unfit> {
    if !quota.calling_enabled() {
        Err(Unfit::Disabled)
    } else if !quota.is_funded() {
        Err(Unfit::OutOfFunds)
    } else if !hours.are_open(now) {
        Err(Unfit::OutOfHours {
            start: hours.start.unwrap_or_default(),
            end: hours.end.unwrap_or_default(),
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Quota {
        Quota {
            plan: Plan::Trial,
            provider_active: true,
            minutes_left: 50,
            callers_allowed: 5,
            disable_calling: false,
            disable_access: false,
        }
    }

    fn hours(start: i8, end: i8) -> Hours {
        Hours { start: Some(start), end: Some(end), time_zone: "America/New_York".into() }
    }

    /// Noon in New York, in winter.
    fn noon() -> Timestamp {
        "2026-01-15T17:00:00Z".parse().unwrap()
    }

    #[track_caller]
    fn check(quota: &Quota, hours: &Hours, on_call: i64, expect: Result<(), Unfit>) {
        assert_eq!(may_start(quota, hours, on_call, noon()), expect);
    }

    #[test]
    fn reasons_have_their_precedence() {
        let mut worst =
            Quota { disable_calling: true, minutes_left: 0, callers_allowed: 0, ..quota() };
        let closed = hours(9, 10);
        check(&worst, &closed, 0, Err(Unfit::Disabled));
        worst.disable_calling = false;
        check(&worst, &closed, 0, Err(Unfit::OutOfFunds));
        worst.minutes_left = 1;
        check(&worst, &closed, 0, Err(Unfit::NoSeat));
        worst.callers_allowed = 1;
        check(&worst, &closed, 0, Err(Unfit::OutOfHours { start: 9, end: 10 }));
        check(&worst, &hours(9, 21), 0, Ok(()));
    }

    #[test]
    fn the_last_seat_can_be_taken_and_no_further() {
        check(&quota(), &hours(0, 0), 4, Ok(()));
        check(&quota(), &hours(0, 0), 5, Err(Unfit::NoSeat));
        check(&Quota { plan: Plan::PerMinute, ..quota() }, &hours(0, 0), 500, Ok(()));
    }

    #[test]
    fn plans_differ_in_what_they_ask() {
        let poor = Quota { minutes_left: -3, provider_active: false, ..quota() };
        for (name, expect) in [
            ("trial", Err(Unfit::OutOfFunds)),
            ("business", Err(Unfit::OutOfFunds)),
            ("per_minute", Err(Unfit::OutOfFunds)),
            ("enterprise", Ok(())),
            ("platinum", Err(Unfit::Disabled)),
        ] {
            check(&Quota { plan: Plan::named(name), ..poor.clone() }, &hours(0, 0), 0, expect);
        }
        let unpaid = Quota { provider_active: false, ..quota() };
        check(
            &Quota { plan: Plan::Subscribed, ..unpaid.clone() },
            &hours(0, 0),
            0,
            Err(Unfit::OutOfFunds),
        );
        check(&unpaid, &hours(0, 0), 0, Ok(()));
    }

    #[test]
    fn hours_are_the_zones_and_may_span_midnight() {
        for (start, end, open) in [
            (9, 21, true),
            (12, 13, true),
            (9, 12, false),
            (13, 9, false),
            (21, 13, true),
            (0, 0, true),
        ] {
            assert_eq!(hours(start, end).are_open(noon()), open, "{start} to {end}");
        }
        assert!(!Hours { start: None, ..hours(0, 0) }.are_open(noon()));
        assert!(!Hours { time_zone: "Nowhere/Land".into(), ..hours(0, 0) }.are_open(noon()));
    }
}
