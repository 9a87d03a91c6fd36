//! What many calls came to, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::invariants::{Breach, breaches, faults};
use crate::transcript::{Ending, Transcript, WebhookStep};

/// Breaches that are kept in full; the others are only counted.
const MOST_BREACHES: usize = 20;
/// A latency beyond this is counted as this, in milliseconds.
const LONGEST_MS: usize = 20_000;

/// What many calls came to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Calls that have ended.
    pub calls: u64,
    /// Calls on which a person heard Twilio's apology.
    pub apologies: u64,
    /// Requests, by what they were for.
    pub webhooks: BTreeMap<&'static str, u64>,
    /// Documents, by who answered them.
    pub answered_by: BTreeMap<String, u64>,
    /// Errors, by Twilio's number.
    pub errors: BTreeMap<u32, u64>,
    /// What must not happen, how often.
    pub breaches: u64,
    /// The first of them.
    pub first_breaches: Vec<Breach>,
    /// Requests that a person waited for, by milliseconds.
    #[serde(skip)]
    waits: Vec<u32>,
}

/// Times that so many of the requests took at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half of them.
    pub p50_ms: u64,
    /// 99 in 100.
    pub p99_ms: u64,
    /// 999 in 1000.
    pub p999_ms: u64,
    /// All.
    pub max_ms: u64,
}

/// What the simulator itself cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OwnCost {
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// Processor time it used, in seconds.
    pub cpu_seconds: f64,
}

// === impl Summary ===

impl Default for Summary {
    fn default() -> Summary {
        Summary {
            calls: 0,
            apologies: 0,
            webhooks: BTreeMap::new(),
            answered_by: BTreeMap::new(),
            errors: BTreeMap::new(),
            breaches: 0,
            first_breaches: Vec::new(),
            waits: vec![0; LONGEST_MS + 1],
        }
    }
}

impl Summary {
    /// Takes in a call that has ended.
    pub fn add(&mut self, transcript: &Transcript) {
        self.calls += 1;
        self.apologies += u64::from(matches!(transcript.ending, Ending::Apology(_)));
        for webhook in transcript.webhooks() {
            self.count(webhook);
        }
        breaches(transcript).into_iter().for_each(|breach| self.add_breach(breach));
    }

    /// Takes in a request that belonged to no call.
    pub fn add_webhook(&mut self, webhook: &WebhookStep) {
        self.count(webhook);
        for what in faults(webhook) {
            let (call_sid, path) = ("no call".to_owned(), webhook.path.clone());
            self.add_breach(Breach { call_sid, what, path });
        }
    }

    fn add_breach(&mut self, breach: Breach) {
        self.breaches += 1;
        if self.first_breaches.len() < MOST_BREACHES {
            self.first_breaches.push(breach);
        }
    }

    fn count(&mut self, webhook: &WebhookStep) {
        *self.webhooks.entry(webhook.purpose.name()).or_default() += 1;
        if let Some(code) = webhook.error {
            *self.errors.entry(code).or_default() += 1;
        }
        if webhook.purpose.is_waited_for() {
            let by = webhook.answered_by.clone().unwrap_or_else(|| "-".into());
            *self.answered_by.entry(by).or_default() += 1;
            let took = usize::try_from(webhook.took_ms).unwrap_or(LONGEST_MS);
            self.waits[took.min(LONGEST_MS)] += 1;
        }
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.webhooks.values().sum()
    }

    /// How long people waited.
    pub fn waits(&self) -> Quantiles {
        let total: u64 = self.waits.iter().map(|&n| u64::from(n)).sum();
        let at = |share: f64| {
            let rank = ((total as f64 * share).ceil() as u64).max(1);
            let mut seen = 0;
            let found = self.waits.iter().position(|&n| {
                seen += u64::from(n);
                seen >= rank
            });
            found.unwrap_or(0) as u64
        };
        Quantiles { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), max_ms: at(1.0) }
    }

    /// All of it, with what it cost, as JSON.
    pub fn to_json(&self, cost: &OwnCost) -> serde_json::Value {
        serde_json::json!({ "summary": self, "waits": self.waits(), "own_cost": cost })
    }

    /// All of it, with what it cost, for people.
    pub fn to_text(&self, cost: &OwnCost) -> String {
        let list =
            |pairs: Vec<String>| if pairs.is_empty() { "none".into() } else { pairs.join(", ") };
        let by = |map: &BTreeMap<&str, u64>| map.iter().map(|(k, n)| format!("{n} {k}")).collect();
        let (waits, total) = (self.waits(), self.total());
        let mut text = format!(
            "calls      {} ({} heard the apology)\n\
             webhooks   {total} ({:.0} a second): {}\n\
             answered   {}\n\
             waiting    p50 {} ms, p99 {} ms, p99.9 {} ms, longest {} ms\n\
             errors     {}\n\
             breaches   {}\n",
            self.calls,
            self.apologies,
            total as f64 / cost.seconds.max(0.001),
            list(by(&self.webhooks)),
            list(self.answered_by.iter().map(|(k, n)| format!("{n} by {k}")).collect()),
            waits.p50_ms,
            waits.p99_ms,
            waits.p999_ms,
            waits.max_ms,
            list(self.errors.iter().map(|(code, n)| format!("{n} × {code}")).collect()),
            self.breaches,
        );
        for breach in &self.first_breaches {
            text.push_str(&format!("           {breach}\n"));
        }
        text.push_str(&format!("simulator  {cost}"));
        if total > 0 {
            let each = cost.cpu_seconds * 1e6 / total as f64;
            text.push_str(&format!(", {each:.0} µs a webhook"));
        }
        text
    }
}

// === impl OwnCost ===

impl OwnCost {
    /// Since `begun`, when the process had used `cpu_before`.
    pub fn since(begun: std::time::Instant, cpu_before: Duration) -> OwnCost {
        OwnCost {
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: cpu_time().saturating_sub(cpu_before).as_secs_f64(),
        }
    }
}

impl fmt::Display for OwnCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.cpu_seconds / self.seconds.max(0.001);
        write!(f, "{:.1} s, {share:.0} % of one core", self.seconds)
    }
}

/// Processor time this process has used.
pub fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap_or_default(),
        u32::try_from(spent.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::Purpose;

    fn webhook(took_ms: u64, error: Option<u32>) -> WebhookStep {
        WebhookStep {
            at_ms: 0,
            purpose: Purpose::Document,
            url: String::new(),
            path: "/x".into(),
            token: String::new(),
            status: Some(200),
            answered_by: Some("origin".into()),
            took_ms,
            error,
            attempts: Vec::new(),
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut summary = Summary::default();
        assert_eq!(summary.waits().max_ms, 0);
        for took in 1..=1000 {
            summary.add_webhook(&webhook(took, None));
        }
        summary.add_webhook(&webhook(99_999, Some(11200)));
        let waits = summary.waits();
        assert_eq!((waits.p50_ms, waits.p99_ms), (501, 991));
        assert_eq!((waits.p999_ms, waits.max_ms), (1000, LONGEST_MS as u64));
        assert_eq!(summary.errors[&11200], 1);
        let cost = OwnCost { seconds: 10.0, cpu_seconds: 1.0 };
        let text = summary.to_text(&cost);
        assert!(text.contains("1001 by origin") && text.contains("10 % of one core"), "{text}");
        assert_eq!(summary.to_json(&cost)["waits"]["p50_ms"], 501);
    }
}
