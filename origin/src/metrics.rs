//! What the origin counts. Names and meanings are in docs/origin.md, and a test holds the two equal.

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::store::outbox::Kind;
use crate::twilio::Trouble;

/// Steps of the latency histogram, in seconds: from an idle store to the edge's patience.
const SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    fallback: IntCounterVec,
    orders: IntCounterVec,
    orders_waiting: IntGauge,
    order_age: IntGauge,
    twilio: IntCounterVec,
    reconciled: IntCounterVec,
    charged: IntCounter,
}

// === impl Metrics ===

impl Metrics {
    /// Counters at zero. Fails only where two have one name.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "holdline_origin_request_seconds",
                "Time to answer a request of Twilio's",
            )
            .buckets(SECONDS.to_vec()),
            &["row"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let charged = IntCounter::new(
            "holdline_origin_minutes_charged_total",
            "Minutes of calls that were charged to accounts",
        )?;
        registry.register(Box::new(charged.clone()))?;
        Ok(Metrics {
            requests: counter(
                "holdline_origin_requests_total",
                "Requests of Twilio's that were answered, by row and status",
                &["row", "status"],
            )?,
            seconds,
            fallback: counter(
                "holdline_origin_fallback_requests_total",
                "Requests that Twilio sent because another one failed, by its error",
                &["row", "code", "done"],
            )?,
            orders: counter(
                "holdline_origin_orders_total",
                "Orders of the outbox, by what came of a try",
                &["kind", "result"],
            )?,
            orders_waiting: gauge(
                "holdline_origin_orders_waiting",
                "Orders of the outbox that are not carried out yet",
            )?,
            order_age: gauge(
                "holdline_origin_order_age_milliseconds",
                "For how long the oldest order has been due",
            )?,
            twilio: counter(
                "holdline_origin_twilio_requests_total",
                "Requests to Twilio's REST API, by what is known of them",
                &["result"],
            )?,
            reconciled: counter(
                "holdline_origin_reconciled_total",
                "What was found out by looking it up, because it was not reported",
                &["what"],
            )?,
            charged,
            registry,
        })
    }

    /// All of them, as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    pub(crate) fn request(&self, row: &str, status: u16, seconds: f64) {
        self.requests.with_label_values(&[row, &status.to_string()]).inc();
        self.seconds.with_label_values(&[row]).observe(seconds);
    }

    /// A request that Twilio sent because another one failed. A code is Twilio's, of five digits; anything
    /// else would be a label without bounds.
    pub(crate) fn fallback(&self, row: &str, code: &str, done: bool) {
        let known = code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_digit());
        let code = if known { code } else { "other" };
        let done = if done { "yes" } else { "no" };
        self.fallback.with_label_values(&[row, code, done]).inc();
    }

    pub(crate) fn order(&self, kind: Kind, result: &str) {
        self.orders.with_label_values(&[kind.name(), result]).inc();
    }

    pub(crate) fn orders_waiting(&self, count: i64, age_ms: i64) {
        self.orders_waiting.set(count);
        self.order_age.set(age_ms);
    }

    pub(crate) fn twilio(&self, trouble: Option<&Trouble>) {
        let result = trouble.map_or("answered", Trouble::name);
        self.twilio.with_label_values(&[result]).inc();
    }

    pub(crate) fn charged(&self, minutes: i64) {
        self.charged.inc_by(u64::try_from(minutes).unwrap_or(0));
    }

    pub(crate) fn reconciled(&self, what: &str) {
        self.reconciled.with_label_values(&[what]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_is_described_and_nothing_else_is() {
        let metrics = Metrics::new().unwrap();
        metrics.request("row", 200, 0.1);
        metrics.fallback("row", "11200", true);
        metrics.order(Kind::Dial, "done");
        metrics.twilio(None);
        metrics.reconciled("leg closed");
        let families = metrics.registry.gather();
        let counted: BTreeSet<&str> = families.iter().map(|family| family.name()).collect();
        let page = include_str!("../../docs/origin.md");
        let described: BTreeSet<&str> = page
            .split('`')
            .filter(|word| word.starts_with("holdline_origin_"))
            .map(|word| word.split('{').next().unwrap())
            .collect();
        assert_eq!(counted, described);
    }
}
