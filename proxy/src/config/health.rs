//! The numbers that steer the verdict, as written: one table of their keys, bounds and places, for the
//! configuration, for the journal, and for `holdline tune`.

use std::time::Duration;

use holdline_policy::{Pace, Thresholds};
use serde_json::{Map, Value, json};

use super::reader::Section;

/// By what upstreams are judged, and how often they are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judging {
    /// The thresholds of the verdict.
    pub thresholds: Thresholds,
    /// The pace of the probes.
    pub pace: Pace,
}

/// One number of `[health]`.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Its key.
    pub key: &'static str,
    kind: Kind,
}

/// Where it stands.
type At<T> = fn(&mut Judging) -> &mut T;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Number { at: At<u32>, least: u32, most: u32 },
    Time { at: At<Duration>, least: Duration, most: Duration },
}

/// All of them, in the order of the documentation.
pub const KNOBS: [Knob; 17] = {
    const fn number(key: &'static str, at: At<u32>, least: u32, most: u32) -> Knob {
        Knob { key, kind: Kind::Number { at, least, most } }
    }
    const fn time(key: &'static str, at: At<Duration>, least_ms: u64, most_s: u64) -> Knob {
        let (least, most) = (Duration::from_millis(least_ms), Duration::from_secs(most_s));
        Knob { key, kind: Kind::Time { at, least, most } }
    }
    [
        number("fall", |j| &mut j.thresholds.fall, 1, 100),
        number("rise", |j| &mut j.thresholds.rise, 1, 100),
        time("window", |j| &mut j.thresholds.window, 1000, 600),
        number("bad_percent", |j| &mut j.thresholds.bad_percent, 1, 100),
        number("window_minimum", |j| &mut j.thresholds.window_minimum, 2, 100_000),
        time("evidence", |j| &mut j.thresholds.evidence, 100, 600),
        time("stuck", |j| &mut j.thresholds.stuck, 1000, 45),
        time("slow_after", |j| &mut j.thresholds.slow_after, 10, 45),
        number("slow_percent", |j| &mut j.thresholds.slow_percent, 1, 100),
        time("hold_down", |j| &mut j.thresholds.hold_down.first, 1, 600),
        time("hold_down_cap", |j| &mut j.thresholds.hold_down.cap, 1, 3600),
        time("decay", |j| &mut j.thresholds.decay, 1000, 86_400),
        number("trial_visits", |j| &mut j.thresholds.trial_visits, 1, 100),
        time("trial_again", |j| &mut j.thresholds.trial_again, 100, 600),
        time("trial_patience", |j| &mut j.thresholds.trial_patience, 100, 600),
        time("interval", |j| &mut j.pace.interval, 50, 60),
        time("quick_interval", |j| &mut j.pace.quick, 50, 60),
    ]
};

// === impl Judging ===

impl Judging {
    /// What is shipped.
    pub const SHIPPED: Judging = Judging { thresholds: Thresholds::SHIPPED, pace: Pace::SHIPPED };

    /// What of it contradicts itself: a key each, and what would be right.
    pub fn contradictions(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        if self.pace.quick > self.pace.interval {
            found.push(("quick_interval", "must not be longer than interval"));
        }
        if self.thresholds.hold_down.first > self.thresholds.hold_down.cap {
            found.push(("hold_down", "must not be longer than hold_down_cap"));
        }
        found
    }

    /// As the journal has it: by key, times as `"750ms"`.
    pub fn written(&self) -> Value {
        let value = |knob: &Knob| (knob.key.to_owned(), knob.value(self));
        Value::Object(KNOBS.iter().map(value).collect::<Map<_, _>>())
    }

    /// The same, read again. What is missing or unknown is as it is shipped.
    pub fn read_again(written: &Value) -> Judging {
        let mut judging = Judging::SHIPPED;
        for knob in KNOBS {
            let text = match &written[knob.key] {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => continue,
            };
            // A number that was once allowed and is no longer says nothing.
            let _ = knob.set(&mut judging, &text);
        }
        judging
    }
}

// === impl Knob ===

impl Knob {
    /// The one of this key.
    pub fn of(key: &str) -> Option<Knob> {
        KNOBS.into_iter().find(|knob| knob.key == key)
    }

    /// Its value, as it is written.
    pub fn value(&self, judging: &Judging) -> Value {
        let mut judging = *judging;
        match self.kind {
            Kind::Number { at, .. } => json!(at(&mut judging)),
            Kind::Time { at, .. } => {
                json!(humantime::format_duration(*at(&mut judging)).to_string())
            }
        }
    }

    /// Sets it to what is written, or says what would be right.
    pub fn set(&self, judging: &mut Judging, text: &str) -> Result<(), String> {
        match self.kind {
            Kind::Number { at, least, most } => {
                let number = text.parse().ok().filter(|n| (least..=most).contains(n));
                let wrong =
                    || format!("{}: must be a whole number between {least} and {most}", self.key);
                *at(judging) = number.ok_or_else(wrong)?;
            }
            Kind::Time { at, least, most } => {
                let time = humantime::parse_duration(text).ok();
                let time = time.filter(|time| (least..=most).contains(time));
                let wrong = || {
                    let [least, most] = [least, most].map(humantime::format_duration);
                    format!("{}: must be a time between {least} and {most}", self.key)
                };
                *at(judging) = time.ok_or_else(wrong)?;
            }
        }
        Ok(())
    }

    fn read(&self, health: &mut Section<'_>, judging: &mut Judging) {
        match self.kind {
            Kind::Number { at, least, most } => {
                let at = at(judging);
                *at = health.number(self.key, *at, least, most);
            }
            Kind::Time { at, least, most } => {
                let at = at(judging);
                *at = health.duration_in(self.key, *at, least, most);
            }
        }
    }
}

/// Reads `[health]`: by what is judged, and after how long an upstream is unproven.
pub(super) fn read(health: &mut Section<'_>) -> (Judging, Duration) {
    let mut judging = Judging::SHIPPED;
    KNOBS.iter().for_each(|knob| knob.read(health, &mut judging));
    for (key, what) in judging.contradictions() {
        health.fault(key, what);
    }
    let s = Duration::from_secs;
    let stale_after = health.duration_in("stale_after", s(30), s(1), s(3600));
    if stale_after <= judging.pace.interval {
        health.fault("stale_after", "must be longer than interval");
    }
    (judging, stale_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut judging = Judging::SHIPPED;
        for (key, text) in [("fall", "7"), ("stuck", "4s 500ms"), ("quick_interval", "90ms")] {
            Knob::of(key).unwrap().set(&mut judging, text).unwrap();
        }
        assert_eq!(Judging::read_again(&judging.written()), judging);
        assert_eq!(judging.written()["stuck"], "4s 500ms");
        assert_eq!(Judging::read_again(&Value::Null), Judging::SHIPPED);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_what_would_be_right() {
        let mut judging = Judging::SHIPPED;
        let refused = |key: &str, text: &str, judging: &mut Judging| {
            Knob::of(key).unwrap().set(judging, text).unwrap_err()
        };
        let said = refused("fall", "0", &mut judging);
        assert_eq!(said, "fall: must be a whole number between 1 and 100");
        let said = refused("stuck", "1h", &mut judging);
        assert_eq!(said, "stuck: must be a time between 1s and 45s");
        assert_eq!(judging, Judging::SHIPPED);
    }

    #[test]
    fn every_default_is_within_its_bounds() {
        for knob in KNOBS {
            let Value::String(text) = knob.value(&Judging::SHIPPED) else { continue };
            let mut judging = Judging::SHIPPED;
            knob.set(&mut judging, &text).unwrap();
            assert_eq!(judging, Judging::SHIPPED, "{}", knob.key);
        }
        assert_eq!(Judging::SHIPPED.contradictions(), []);
    }
}
