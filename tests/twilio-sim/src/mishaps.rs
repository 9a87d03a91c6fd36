//! What goes wrong by chance, or is limited.

use serde::{Deserialize, Serialize};

/// What goes wrong by chance, or is limited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mishaps {
    /// The share of reports that are never sent.
    pub lose_reports: f64,
    /// The share of reports that are sent twice.
    pub repeat_reports: f64,
    /// Reports are held back by up to this many real seconds each, so that they overtake each other.
    pub delay_reports_s: f64,
    /// Reports that may be on their way at once; the others queue.
    pub reports_at_once: usize,
    /// Real seconds after which a queued report is given up (error 15002).
    pub report_expiry_s: f64,
    /// REST requests that may run at once; the others get 429 (error 20429).
    pub rest_at_once: usize,
    /// Calls a second that are begun; the others are queued. Zero: no limit.
    pub calls_a_second: f64,
    /// Real seconds that a REST answer takes.
    pub rest_delay_s: f64,
}

// === impl Mishaps ===

impl Default for Mishaps {
    fn default() -> Mishaps {
        Mishaps {
            lose_reports: 0.0,
            repeat_reports: 0.0,
            delay_reports_s: 0.0,
            reports_at_once: 1000,
            report_expiry_s: 60.0,
            rest_at_once: 100,
            calls_a_second: 0.0,
            rest_delay_s: 0.0,
        }
    }
}

impl Mishaps {
    /// What of it cannot be meant.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, share) in
            [("lose_reports", self.lose_reports), ("repeat_reports", self.repeat_reports)]
        {
            if !(0.0..=1.0).contains(&share) {
                faults.push(format!("{name} = {share} is no share: write a number from 0 to 1"));
            }
        }
        for (name, seconds) in [
            ("delay_reports_s", self.delay_reports_s),
            ("report_expiry_s", self.report_expiry_s),
            ("calls_a_second", self.calls_a_second),
            ("rest_delay_s", self.rest_delay_s),
        ] {
            if !(0.0..=3600.0).contains(&seconds) {
                faults.push(format!("{name} = {seconds} is not between 0 and 3600"));
            }
        }
        faults
    }
}
