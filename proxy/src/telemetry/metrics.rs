//! Every metric of the edge, in one place.
//!
//! Names carry their unit; labels are closed sets (rows are those of the catalogue). What a visit counts
//! is looked up once for each configuration, so that counting on the way is an atomic addition and nothing
//! more. `docs/metrics.md` lists them all, and a test compares the two.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdline_policy::{Kind, Outcome, Phase, Stopped, Upstream};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::spool::SpoolMetrics;
use crate::answer::{AnsweredBy, Refusal};
use crate::listener::Closed;
use crate::listener::tls::Identity;
use crate::orders::{DrillEnd, Mode};
use crate::relay::late::FATES;
use crate::relay::mend;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    visits: IntCounterVec,
    unwritten: IntCounterVec,
    visit_seconds: HistogramVec,
    attempts: [Vec<(&'static str, IntCounter)>; 2],
    attempt_seconds: [Histogram; 2],
    probes: IntCounterVec,
    probe_seconds: HistogramVec,
    refusals: IntCounterVec,
    verdicts: IntGaugeVec,
    /// Visits that have begun and not ended.
    pub visits_in_flight: IntGauge,
    /// Proven visits and streams that have begun and not ended.
    pub requests_in_flight: IntGauge,
    /// Documents that failed the check, by reason.
    pub judgement_refusals: IntCounterVec,
    /// Visits that were not proven and let through, because failures of proof are only reported.
    pub let_through: IntCounter,
    /// What Twilio would warn about (12200) in documents that passed.
    pub twiml_warnings: IntCounter,
    /// Callbacks that were neither kept nor taken.
    pub callback_lost: IntCounter,
    /// The spool.
    pub spool: SpoolMetrics,
    /// Hold tokens that came back, by what became of them.
    pub hold_tokens: IntCounterVec,
    /// Answers that came after the caller was put on hold, by what became of them.
    pub late_answers: IntCounterVec,
    /// Requests that came twice, and requests to fallback URLs, by what became of them.
    pub repeats: IntCounterVec,
    /// Answers in which something was put right before they were judged.
    pub answers_mended: IntCounterVec,
    /// Visits for which two upstreams were asked at once, because one took longer than usual.
    pub hedges: IntCounter,
    /// After how long another upstream is asked alongside, by row; set when it is asked for.
    pub hedge_after: GaugeVec,
    /// Visits for which asking stopped without an answer, by reason.
    pub stopped: IntCounterVec,
    verdict_changes: IntCounterVec,
    row_fails_alone: IntGaugeVec,
    /// Whether probes and attempts say different things; set when it is asked for.
    pub disagreement: IntGaugeVec,
    /// The share of attempts that took longer than they should; set when it is asked for.
    pub slow_share: GaugeVec,
    /// When an upstream last answered well; set when it is asked for.
    pub proven: GaugeVec,
    /// Whether it has not for long; set when it is asked for.
    pub stale: IntGaugeVec,
    /// What the operator orders.
    pub stance: IntGaugeVec,
    /// Whether a drill lasts.
    pub drill_active: IntGauge,
    /// Drills that have ended, by how.
    pub drills: IntCounterVec,
    /// Attempts that a drill let fail, by how.
    pub drill_attempts: IntCounterVec,
    /// Entries written to the journal.
    pub journal_entries: IntCounter,
    /// Entries that could not be written.
    pub journal_lost: IntCounter,
    /// Size of the journal.
    pub journal_bytes: IntGauge,
    /// Observations that the watchman could not take.
    pub observations_lost: IntCounter,
    /// Lines of the visit log that could not be written.
    pub log_lines_lost: IntCounter,
    /// Panics while answering; each got the row's canned answer, a report 503.
    pub panics: IntCounter,
    /// Attempts in flight, by upstream.
    pub attempts_in_flight: IntGaugeVec,
    /// Seconds since the process, or the first that it was handed over from, was started.
    pub uptime_seconds: IntGauge,
    /// When this process was started.
    pub started: Gauge,
    /// Connections accepted.
    pub connections: IntCounter,
    /// Connections open; set when it is asked for.
    pub connections_open: IntGauge,
    connections_closed: IntCounterVec,
    certificate_expiry: GaugeVec,
    /// The names that are shown there, by listener.
    certificates_shown: Mutex<HashMap<SocketAddr, Vec<String>>>,
    certificate_reads: IntCounterVec,
    shed: IntCounterVec,
    reloads: IntCounterVec,
    /// When the configuration in force was read.
    pub configured: Gauge,
}

/// A request that counts as being in flight, until dropped.
#[derive(Debug)]
pub struct InFlight(IntGauge);

/// What visits count, by row: looked up once for each catalogue.
#[derive(Debug)]
pub struct RowCounts(Vec<RowMetrics>);

#[derive(Debug)]
struct RowMetrics {
    kind: Kind,
    by: [IntCounter; AnsweredBy::ALL.len()],
    unwritten: IntCounter,
    seconds: Histogram,
}

/// A good answer takes milliseconds, a hedge 2.5 s, a budget 4 or 9 s, Twilio 15 s.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 4.0, 9.0, 15.0];

/// A probe takes milliseconds; one is late after a second, and a monitor that needs five is no help.
const PROBE_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0];

/// What becomes of requests that come twice, and of those to fallback URLs.
const REPEATS: [&str; 6] = [
    "waited",
    "again",
    "fallback_answered",
    "fallback_delivered",
    "fallback_unknown",
    "fallback_refused",
];

/// What may be shed: what no row lists, and the kinds of rows.
const SHED: [&str; 4] = ["unlisted", "media", "asynchronous", "synchronous"];

// === impl Metrics ===

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let make = Maker(&registry);
        let visits = make.counters(
            "holdline_visits_total",
            "Visits to a row, by who answered.",
            &["row", "by"],
        )?;
        let unwritten = make.counters(
            "holdline_visits_lost_total",
            "Visits whose answer could not be handed over whole, by row.",
            &["row"],
        )?;
        let visit_seconds = make.histograms(
            "holdline_visit_seconds",
            "Time from a visit's header to its answer, by row.",
            &["row"],
        )?;
        let attempts = make.counters(
            "holdline_attempts_total",
            "Attempts at an upstream, by what came of them.",
            &["upstream", "outcome"],
        )?;
        let attempt_seconds = make.histograms(
            "holdline_attempt_seconds",
            "Time an attempt took, by upstream.",
            &["upstream"],
        )?;
        let started = make
            .float_gauge("holdline_started_timestamp_seconds", "When this process was started.")?;
        started.set(unix_seconds());
        let metrics = Metrics {
            visits,
            unwritten,
            visit_seconds,
            attempts: Upstream::ALL.map(|upstream| {
                let counter = |name| (name, attempts.with_label_values(&[upstream.name(), name]));
                Outcome::NAMES.into_iter().map(counter).collect()
            }),
            attempt_seconds: Upstream::ALL
                .map(|upstream| attempt_seconds.with_label_values(&[upstream.name()])),
            probes: make.counters(
                "holdline_probes_total",
                "Probes, by result.",
                &["upstream", "result"],
            )?,
            probe_seconds: make.histograms_of(
                "holdline_probe_seconds",
                "Time until an upstream answered a probe, be it too late to be good.",
                &["upstream"],
                &PROBE_SECONDS,
            )?,
            refusals: make.counters(
                "holdline_refusals_total",
                "Requests refused, by reason.",
                &["reason"],
            )?,
            verdicts: make.gauges(
                "holdline_verdict",
                "1 for what is believed of an upstream.",
                &["upstream", "verdict"],
            )?,
            visits_in_flight: make
                .gauge("holdline_visits_in_flight", "Visits that have begun and not ended.")?,
            requests_in_flight: make.gauge(
                "holdline_requests_in_flight",
                "Proven visits, and requests that are streamed, that have not ended.",
            )?,
            judgement_refusals: make.counters(
                "holdline_judgement_refusals_total",
                "Answers of upstreams that were no TwiML document, by reason.",
                &["reason"],
            )?,
            let_through: make.counter(
                "holdline_unproven_let_through_total",
                "Visits that were not proven and let through, because that is only reported.",
            )?,
            twiml_warnings: make.counter(
                "holdline_twiml_warnings_total",
                "What Twilio would warn about (12200) in documents that passed.",
            )?,
            callback_lost: make.counter(
                "holdline_callback_lost_total",
                "Callbacks that were neither kept nor taken; Twilio was told so.",
            )?,
            spool: SpoolMetrics::new(&make)?,
            hold_tokens: make.counters(
                "holdline_hold_tokens_total",
                "Hold tokens that came back, by what became of them.",
                &["fate"],
            )?,
            late_answers: make.counters(
                "holdline_late_answers_total",
                "Answers that came after the caller was put on hold, by what became of them.",
                &["fate"],
            )?,
            repeats: make.counters(
                "holdline_repeats_total",
                "Requests that came twice, and requests to fallback URLs, by what became of them.",
                &["what"],
            )?,
            answers_mended: make.counters(
                "holdline_answers_mended_total",
                "Answers of upstreams in which something was put right before they were judged.",
                &["what"],
            )?,
            hedges: make.counter(
                "holdline_hedges_total",
                "Visits for which two upstreams were asked at once.",
            )?,
            hedge_after: make.float_gauges(
                "holdline_hedge_after_seconds",
                "After how long another upstream is asked alongside, by row.",
                &["row"],
            )?,
            stopped: make.counters(
                "holdline_visits_stopped_total",
                "Visits for which asking stopped without an answer, by reason.",
                &["reason"],
            )?,
            verdict_changes: make.counters(
                "holdline_verdict_changes_total",
                "Changes of what is believed of an upstream.",
                &["upstream", "to"],
            )?,
            row_fails_alone: make.gauges(
                "holdline_row_fails_alone",
                "1 while a row fails although others of the upstream do not.",
                &["upstream", "row"],
            )?,
            disagreement: make.gauges(
                "holdline_disagreement",
                "1 while probes and visits say different things of an upstream.",
                &["upstream", "bad"],
            )?,
            slow_share: make.float_gauges(
                "holdline_slow_share",
                "The share of attempts in the window that took longer than they should.",
                &["upstream"],
            )?,
            proven: make.float_gauges(
                "holdline_proven_timestamp_seconds",
                "When a probe or an attempt last ended well.",
                &["upstream"],
            )?,
            stale: make.gauges(
                "holdline_stale",
                "1 while nothing has ended well for long.",
                &["upstream"],
            )?,
            stance: make.gauges(
                "holdline_stance",
                "1 for what the operator orders, for all rows or for some.",
                &["stance"],
            )?,
            drill_active: make.gauge("holdline_drill_active", "1 while a drill lasts.")?,
            drills: make.counters("holdline_drills_total", "Drills that have ended.", &["end"])?,
            drill_attempts: make.counters(
                "holdline_drill_attempts_total",
                "Attempts that a drill let fail.",
                &["mode"],
            )?,
            journal_entries: make.counter(
                "holdline_journal_entries_total",
                "Entries for the journal of health, those that were lost among them.",
            )?,
            journal_lost: make.counter(
                "holdline_journal_lost_total",
                "Entries that could not be written, or not fast enough.",
            )?,
            journal_bytes: make.gauge("holdline_journal_bytes", "Size of the journal.")?,
            observations_lost: make.counter(
                "holdline_observations_lost_total",
                "Observations dropped because the watchman could not keep up.",
            )?,
            log_lines_lost: make.counter(
                "holdline_log_lines_lost_total",
                "Lines of the visit log that could not be written, or not fast enough.",
            )?,
            panics: make.counter(
                "holdline_panics_total",
                "Panics while answering; each got the row's canned answer, a report 503.",
            )?,
            attempts_in_flight: make.gauges(
                "holdline_attempts_in_flight",
                "Attempts at an upstream that have not ended.",
                &["upstream"],
            )?,
            uptime_seconds: make
                .gauge("holdline_uptime_seconds", "Time since the process started.")?,
            started,
            connections: make
                .counter("holdline_connections_total", "Connections of clients accepted.")?,
            connections_open: make
                .gauge("holdline_connections_open", "Connections of clients that are open.")?,
            connections_closed: make.counters(
                "holdline_connections_closed_total",
                "Connections that the edge closed before the client wanted it, by reason.",
                &["reason"],
            )?,
            certificates_shown: Mutex::default(),
            certificate_expiry: make.float_gauges(
                "holdline_certificate_expiry_timestamp_seconds",
                "When a certificate that is shown to clients runs out.",
                &["listener", "name"],
            )?,
            certificate_reads: make.counters(
                "holdline_certificate_reads_total",
                "Times that changed certificate files were read, by result.",
                &["result"],
            )?,
            shed: make.counters(
                "holdline_shed_total",
                "Requests not given to an upstream because there were too many, by kind.",
                &["kind"],
            )?,
            reloads: make.counters(
                "holdline_reloads_total",
                "Times the configuration was read anew, by result.",
                &["result"],
            )?,
            configured: make.float_gauge(
                "holdline_configuration_timestamp_seconds",
                "When the configuration in force was read.",
            )?,
            registry,
        };
        for reason in Refusal::names() {
            metrics.refusals.with_label_values(&[reason]);
        }
        for what in REPEATS {
            metrics.repeats.with_label_values(&[what]);
        }
        for what in mend::NAMES {
            metrics.answers_mended.with_label_values(&[what]);
        }
        for reason in Stopped::NAMES {
            metrics.stopped.with_label_values(&[reason]);
        }
        for end in DrillEnd::NAMES {
            metrics.drills.with_label_values(&[end]);
        }
        for mode in Mode::ALL {
            metrics.drill_attempts.with_label_values(&[mode.name()]);
        }
        for why in Closed::ALL {
            metrics.connections_closed.with_label_values(&[why.name()]);
        }
        for upstream in Upstream::ALL {
            for phase in Phase::NAMES {
                metrics.verdict_changes.with_label_values(&[upstream.name(), phase]);
            }
        }
        for kind in SHED {
            metrics.shed.with_label_values(&[kind]);
        }
        for result in ["done", "refused"] {
            metrics.reloads.with_label_values(&[result]);
        }
        for fate in FATES {
            metrics.late_answers.with_label_values(&[fate]);
        }
        Ok(metrics)
    }

    /// What visits to these rows count. A row of an earlier catalogue goes on where it was.
    pub fn rows<'r>(&self, rows: impl Iterator<Item = (&'r str, Kind)>) -> RowCounts {
        let of = |(name, kind)| RowMetrics {
            kind,
            by: AnsweredBy::ALL.map(|by| self.visits.with_label_values(&[name, by.name()])),
            unwritten: self.unwritten.with_label_values(&[name]),
            seconds: self.visit_seconds.with_label_values(&[name]),
        };
        RowCounts(rows.map(of).collect())
    }

    /// Counts an attempt.
    pub fn attempt(&self, upstream: Upstream, outcome: &'static str, took: Duration) {
        let counters = &self.attempts[upstream.index()];
        if let Some((_, counter)) = counters.iter().find(|(name, _)| *name == outcome) {
            counter.inc();
        }
        if outcome != Outcome::Full.name() {
            self.attempt_seconds[upstream.index()].observe(took.as_secs_f64());
        }
    }

    /// Counts a probe.
    pub fn probe(&self, upstream: Upstream, result: &'static str) {
        self.probes.with_label_values(&[upstream.name(), result]).inc();
    }

    /// Notes how long an upstream took to answer a probe.
    pub fn probe_answered(&self, upstream: Upstream, took: Duration) {
        self.probe_seconds.with_label_values(&[upstream.name()]).observe(took.as_secs_f64());
    }

    /// Counts a connection that was closed.
    pub fn closed(&self, why: Closed) {
        self.connections_closed.with_label_values(&[why.name()]).inc();
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }

    /// One more request is in flight.
    pub fn begin(&self) -> InFlight {
        self.requests_in_flight.inc();
        InFlight(self.requests_in_flight.clone())
    }

    /// Counts a request of this kind that was not given to an upstream, because there were too many.
    pub fn shed(&self, kind: &str) {
        self.shed.with_label_values(&[kind]).inc();
    }

    /// Counts a reading of certificates, and shows when those that were read run out.
    pub fn certificates_read(&self, result: &str, read: Option<(SocketAddr, &Identity)>) {
        self.certificate_reads.with_label_values(&[result]).inc();
        if let Some((address, identity)) = read {
            self.certificates(address, Some(identity));
        }
    }

    /// Shows when the certificates of a listener run out, and no others of that listener; of several with
    /// one name, the first that does.
    pub fn certificates(&self, address: SocketAddr, identity: Option<&Identity>) {
        let mut ends = BTreeMap::new();
        for certificate in identity.into_iter().flat_map(|identity| &identity.certificates) {
            let until = certificate.until.duration_since(UNIX_EPOCH).unwrap_or_default();
            let end = ends.entry(certificate.name().to_owned()).or_insert(until);
            *end = until.min(*end);
        }
        let listener = address.to_string();
        let mut shown = self.certificates_shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.insert(address, ends.keys().cloned().collect());
        for gone in before.into_iter().flatten().filter(|name| !ends.contains_key(name)) {
            // It was there.
            let _ = self.certificate_expiry.remove_label_values(&[&listener, &gone]);
        }
        for (name, end) in ends {
            self.certificate_expiry.with_label_values(&[&listener, &name]).set(end.as_secs_f64());
        }
    }

    /// Counts a refusal.
    pub fn refusal(&self, refusal: Refusal) {
        self.refusals.with_label_values(&[refusal.name()]).inc();
    }

    /// Shows a verdict.
    pub fn verdict(&self, upstream: Upstream, phase: Phase) {
        for name in Phase::NAMES {
            let on = i64::from(name == phase.name());
            self.verdicts.with_label_values(&[upstream.name(), name]).set(on);
        }
    }

    /// Counts a change of verdict, and shows it.
    pub fn verdict_changed(&self, upstream: Upstream, phase: Phase) {
        self.verdict(upstream, phase);
        self.verdict_changes.with_label_values(&[upstream.name(), phase.name()]).inc();
    }

    /// Shows the verdict on a row that is judged by itself.
    pub fn row_verdict(&self, upstream: Upstream, row: &str, phase: Phase) {
        let fails = !matches!(phase, Phase::Well | Phase::Doubtful);
        self.row_fails_alone.with_label_values(&[upstream.name(), row]).set(fails.into());
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl RowCounts ===

impl RowCounts {
    /// Counts a visit.
    pub fn visit(&self, row: usize, by: AnsweredBy, written: bool, took: Duration) {
        let Some(row) = self.0.get(row) else { return };
        row.by[by.index()].inc();
        row.seconds.observe(took.as_secs_f64());
        if !written {
            row.unwritten.inc();
        }
    }

    /// Visits to rows of this kind that were answered by `by`.
    pub fn answered(&self, kind: Kind, by: AnsweredBy) -> u64 {
        self.0.iter().filter(|row| row.kind == kind).map(|row| row.by[by.index()].get()).sum()
    }

    /// Visits whose answer could not be handed over, over all rows.
    pub fn unwritten(&self) -> u64 {
        self.0.iter().map(|row| row.unwritten.get()).sum()
    }
}

/// Makes metrics and registers them.
pub(super) struct Maker<'r>(&'r Registry);

impl Maker<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let metric = IntCounter::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let metric = IntGauge::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<GaugeVec> {
        let metric = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn float_gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        let metric = Gauge::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<Histogram> {
        let metric =
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        self.histograms_of(name, help, labels, &SECONDS)
    }

    fn histograms_of(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let metric =
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// Now, in seconds since 1970.
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The documentation names every metric, and no other.
    #[test]
    fn every_metric_is_documented_and_the_reverse() {
        let metrics = Metrics::new().unwrap();
        metrics.rows([("a", Kind::Synchronous)].into_iter());
        metrics.shed("synchronous");
        metrics.reloaded("done");
        metrics.certificates_read("read", None);
        metrics.certificate_expiry.with_label_values(&["a", "b"]);
        metrics.judgement_refusals.with_label_values(&["html"]);
        metrics.hedge_after.with_label_values(&["a"]);
        metrics.hold_tokens.with_label_values(&["good"]);
        metrics.verdict_changed(Upstream::Origin, Phase::Well);
        metrics.row_verdict(Upstream::Origin, "a", Phase::Stuck);
        metrics.disagreement.with_label_values(&["origin", "probes"]);
        metrics.slow_share.with_label_values(&["origin"]);
        metrics.proven.with_label_values(&["origin"]);
        metrics.stale.with_label_values(&["origin"]);
        metrics.stance.with_label_values(&["automatic"]);
        metrics.attempts_in_flight.with_label_values(&["origin"]);
        metrics.probe(Upstream::Origin, "good");
        metrics.probe_answered(Upstream::Origin, Duration::ZERO);
        let text = metrics.render();
        let helped = |line: &str| {
            line.strip_prefix("# HELP ").map(|rest| rest.split(' ').next().unwrap_or("").to_owned())
        };
        let exposed: BTreeSet<String> = text.lines().filter_map(helped).collect();
        let named = |line: &str| {
            line.strip_prefix("| `").and_then(|rest| rest.split('`').next()).map(str::to_owned)
        };
        let documented: BTreeSet<String> = include_str!("../../../docs/metrics.md")
            .lines()
            .filter_map(named)
            .filter(|name| name.starts_with("holdline_"))
            .collect();
        assert_eq!(exposed, documented);
    }
}
