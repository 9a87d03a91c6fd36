//! Holdline: an edge proxy that keeps phone calls alive when the application behind them fails.
//!
//! A request goes one way, and each stage consumes what the last one made:
//!
//! ```text
//! socket → listener → ingress → Arrival → catalogue → Visit → proof → Proven<Visit> → relay → Answer → socket
//! what only brings news: relay → spool → upstream, at once or later
//! attempts and probes → Observation → watchman → Health → read by relay and admin
//! ```
//!
//! [`Holdline::answer`] is that story. What decides is the crate `holdline-policy`, and what Twilio means is
//! `holdline-twilio`.

pub mod admin;
pub mod answer;
pub mod assembly;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod handover;
pub mod ingress;
pub mod journal;
pub mod listener;
pub mod orders;
pub mod probe;
pub mod process;
pub mod proof;
pub mod record;
pub mod relay;
pub mod reload;
pub mod running;
pub mod serve;
pub mod signals;
pub mod spool;
pub mod state;
pub mod systemd;
pub mod telemetry;
pub mod trust;
pub mod upstream;
pub mod watchman;
pub mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use holdline_policy::{Access, Moment, Pace, Upstream};
use secrecy::SecretString;

use crate::answer::{Answer, Health, Refusal};
use crate::config::{Judging, Limits, Stop, Unlisted};
use crate::ingress::Arrival;
use crate::proof::Prover;
use crate::record::Record;
use crate::relay::Relay;
use crate::telemetry::VisitLog;
use crate::trust::Trust;

/// The configuration in force: whoever begins something takes it from here, and ends it under the one
/// it began with.
pub type Current = Arc<ArcSwap<Holdline>>;

/// The edge under one configuration, apart from the sockets it listens on.
pub struct Holdline {
    /// The configuration's name.
    pub environment: String,
    /// Opens what shows callbacks or changes anything on the admin plane.
    pub admin_token: Option<SecretString>,
    /// When the process was started, or the first of those that it was handed over from.
    pub started: Moment,
    /// Whether visits are wanted.
    pub ready: Arc<AtomicBool>,
    /// What happens to paths the catalogue does not list.
    pub unlisted: Unlisted,
    /// How often upstreams are probed.
    pub pace: Pace,
    /// After how long an upstream that has not answered well is unproven.
    pub stale_after: Duration,
    /// Whom it believes when it says who the client is.
    pub trust: Trust,
    /// How much is taken in.
    pub limits: Limits,
    /// How it ends.
    pub stop: Stop,
    /// What proofs are checked against.
    pub prover: Prover,
    /// What answers.
    pub relay: Arc<Relay>,
    /// Where each visit leaves its line.
    pub visits: VisitLog,
}

// === impl Holdline ===

impl Holdline {
    /// How long ago the process was started, or the first of those that it was handed over from.
    pub fn uptime(&self) -> Duration {
        self.relay.clock.now().since(self.started)
    }

    /// By what its upstreams are judged.
    pub fn judging(&self) -> Judging {
        Judging { thresholds: *self.relay.watch.thresholds(), pace: self.pace }
    }

    /// The way of a request: read it, prove it, answer it.
    pub async fn answer(&self, arrival: Arrival, row: usize, record: &mut Record) -> Answer {
        let visit = match arrival.visit(row) {
            Ok(visit) => visit,
            Err(refusal) => return Answer::Refusal(refusal),
        };
        record.call = visit.call;
        match self.prover.prove(visit) {
            Ok((proven, reported)) => {
                record.reported = reported;
                let _in_flight = self.relay.metrics.begin();
                self.relay.answer(proven, record).await
            }
            Err(unproven) => Answer::Refusal(Refusal::Unproven(unproven)),
        }
    }

    /// Whether this edge can serve callers, for whoever sends them here or elsewhere. It says nothing
    /// that helps a stranger.
    pub fn health(&self) -> Health {
        let standing = self.relay.standing();
        let answers = |upstream: &Upstream| {
            matches!(standing.of(*upstream), Access::Serving | Access::OnTrial)
        };
        if !self.ready.load(Ordering::Acquire) {
            Health::Stopping
        } else if !Upstream::ALL.iter().any(answers) {
            Health::Canned
        } else if !self.relay.spool.keeps() {
            Health::NotKeeping
        } else {
            Health::Serving
        }
    }
}
