//! The metrics of the spool.

use holdline_policy::Outcome;
use holdline_policy::redelivery::Death;
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::metrics::Maker;
use crate::spool::{NotKept, State};

/// What is counted of the spool.
#[derive(Debug)]
pub struct SpoolMetrics {
    /// What is in it, by state; set when it is asked for.
    pub entries: IntGaugeVec,
    /// How much that is, in bytes; set when it is asked for.
    pub bytes: IntGauge,
    /// The age of the oldest callback that waits; set when it is asked for.
    pub oldest_seconds: Gauge,
    /// Whether it keeps what it is given; set when it is asked for.
    pub keeps: IntGauge,
    /// Whether it is replayed from this process; set when it is asked for.
    pub replays: IntGauge,
    /// Callbacks and notices that were kept.
    pub accepted: IntCounter,
    /// Callbacks that were not kept, by reason.
    pub refused: IntCounterVec,
    /// Kept callbacks that an upstream has taken.
    pub delivered: IntCounter,
    /// Tries at delivering, by what came of them.
    pub tries: IntCounterVec,
    /// Callbacks that became dead letters, by reason.
    pub dead: IntCounterVec,
    /// Callbacks that the application refused because it did not believe who sent them.
    pub strangers: IntCounter,
    /// Callbacks handed to an upstream only because they could not be kept.
    pub passed_through: IntCounter,
    /// Spools that were damaged and set aside.
    pub set_aside: IntCounter,
    /// Time a commit took.
    pub commit_seconds: Histogram,
}

/// A fast disk commits in less than a millisecond, a slow one in some ten; seconds mean trouble.
const COMMIT_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 1.0, 4.0];

// === impl SpoolMetrics ===

impl SpoolMetrics {
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<SpoolMetrics> {
        let metrics = SpoolMetrics {
            entries: make.gauges("holdline_spool_entries", "What is kept, by state.", &["state"])?,
            bytes: make.gauge("holdline_spool_bytes", "What is kept, in bytes.")?,
            oldest_seconds: make.float_gauge(
                "holdline_spool_oldest_seconds",
                "Age of the oldest callback that waits; 0 if none does.",
            )?,
            keeps: make.gauge(
                "holdline_spool_keeps",
                "1 while the spool keeps what it is given, 0 while it is full or fails.",
            )?,
            replays: make
                .gauge("holdline_spool_replays", "1 while this process replays the spool.")?,
            accepted: make.counter("holdline_spool_accepted_total", "Callbacks that were kept.")?,
            refused: make.counters(
                "holdline_spool_refused_total",
                "Callbacks that could not be kept, by reason.",
                &["reason"],
            )?,
            delivered: make.counter(
                "holdline_spool_delivered_total",
                "Kept callbacks that an upstream has taken.",
            )?,
            tries: make.counters(
                "holdline_spool_tries_total",
                "Tries at delivering what is kept, by what came of them.",
                &["outcome"],
            )?,
            dead: make.counters(
                "holdline_spool_dead_total",
                "Callbacks that became dead letters, by reason.",
                &["reason"],
            )?,
            strangers: make.counter(
                "holdline_spool_strangers_total",
                "Callbacks refused with 401 or 403: the application does not believe who sent them.",
            )?,
            passed_through: make.counter(
                "holdline_spool_passed_through_total",
                "Callbacks handed to an upstream only because they could not be kept.",
            )?,
            set_aside: make.counter(
                "holdline_spool_set_aside_total",
                "Spools that were damaged and set aside.",
            )?,
            commit_seconds: make.histogram(
                "holdline_spool_commit_seconds",
                "Time a commit took.",
                &COMMIT_SECONDS,
            )?,
        };
        for state in State::NAMES {
            metrics.entries.with_label_values(&[state]);
        }
        for reason in NotKept::NAMES {
            metrics.refused.with_label_values(&[reason]);
        }
        for outcome in Outcome::NAMES {
            metrics.tries.with_label_values(&[outcome]);
        }
        for reason in Death::NAMES {
            metrics.dead.with_label_values(&[reason]);
        }
        Ok(metrics)
    }
}
