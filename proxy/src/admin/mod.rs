//! The admin plane: metrics, liveness, readiness and status, on a listener and a runtime of its own,
//! so that it answers when the data plane does not.

mod health;
mod orders;
mod process;
mod spool;
mod token;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use holdline_policy::hedge::Latency;
use holdline_policy::{Kind, Row, Upstream};
use serde_json::{Value, json};
use token::only_with_token;
use tokio::sync::mpsc;

use crate::answer::AnsweredBy;
use crate::clock::millis;
use crate::listener::clients::Clients;
use crate::relay::Relay;
use crate::reload::Reload;
use crate::running::UpgradeAsked;
use crate::spool::{Condition, State as Standing};
use crate::state::Keeper;
use crate::{Current, Holdline};

/// What the admin plane shows and steers.
#[derive(Clone)]
pub struct Control {
    /// The configuration in force.
    pub current: Current,
    /// Reads it anew.
    pub reload: Arc<Reload>,
    /// Leaves everything to a new process.
    pub upgrade: mpsc::Sender<UpgradeAsked>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// Writes down what a new process goes on with.
    pub keeper: Arc<Keeper>,
}

impl FromRef<Control> for Arc<Reload> {
    fn from_ref(control: &Control) -> Arc<Reload> {
        control.reload.clone()
    }
}

impl FromRef<Control> for Arc<Holdline> {
    fn from_ref(control: &Control) -> Arc<Holdline> {
        control.current.load_full()
    }
}

/// The admin plane's routes.
pub fn router(control: Control) -> Router {
    let guarded = spool::router().merge(process::router()).merge(orders::router());
    let guarded = guarded.layer(from_fn_with_state(control.clone(), only_with_token));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .merge(guarded)
        .with_state(control)
}

async fn metrics(State(control): State<Control>) -> Response {
    let holdline = control.current.load();
    let relay = &holdline.relay;
    let metrics = &relay.metrics;
    for target in relay.targets.iter() {
        metrics
            .attempts_in_flight
            .with_label_values(&[target.which.name()])
            .set(target.in_flight().into());
    }
    metrics.connections_open.set(i64::try_from(control.clients.count()).unwrap_or(i64::MAX));
    for (row, latency) in rows(relay) {
        metrics
            .hedge_after
            .with_label_values(&[&row.name])
            .set(latency.hedge_after().as_secs_f64());
    }
    show_spool(relay);
    health::show(&holdline);
    let uptime = holdline.uptime().as_secs();
    metrics.uptime_seconds.set(i64::try_from(uptime).unwrap_or(i64::MAX));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
}

/// Ready means: takes visits. An edge whose upstreams are all down is ready, because it can still
/// hold callers; one that is stopping is not.
async fn ready(State(holdline): State<Arc<Holdline>>) -> Response {
    match holdline.ready.load(Ordering::Acquire) {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
    }
}

async fn status(State(holdline): State<Arc<Holdline>>) -> Json<Value> {
    let relay = &holdline.relay;
    let answered = |by| relay.row_counts.answered(Kind::Synchronous, by);
    let delivered = |by| relay.row_counts.answered(Kind::Asynchronous, by);
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "environment": holdline.environment,
        "ready": holdline.ready.load(Ordering::Acquire),
        "uptime_ms": millis(holdline.uptime()),
        "visits": {
            "in_flight": relay.metrics.visits_in_flight.get(),
            "steered": answered(AnsweredBy::Origin) + answered(AnsweredBy::Monitor),
            "steered_by_origin": answered(AnsweredBy::Origin),
            "steered_by_monitor": answered(AnsweredBy::Monitor),
            "held": answered(AnsweredBy::Hold),
            "dropped": answered(AnsweredBy::Canned),
            "lost": relay.row_counts.unwritten(),
        },
        "callbacks": {
            "delivered": delivered(AnsweredBy::Origin) + delivered(AnsweredBy::Monitor),
            "kept": delivered(AnsweredBy::Spool),
            "lost": relay.metrics.callback_lost.get(),
        },
        "spool": spool_status(relay),
        "upstreams": {
            "origin": health::upstream(&holdline, Upstream::Origin),
            "monitor": health::upstream(&holdline, Upstream::Monitor),
        },
        "stances": relay.orders.stances(),
        "drill": relay.orders.report().filter(|report| report.end.is_none()),
        "rows": rows(relay)
            .map(|(row, latency)| {
                let learned = json!({
                    "p99_ms": latency.p99().map(millis),
                    "hedge_after_ms": millis(latency.hedge_after()),
                });
                (row.name.clone(), learned)
            })
            .collect::<serde_json::Map<_, _>>(),
    }))
}

fn spool_status(relay: &Relay) -> Value {
    let (spool, metrics) = (&relay.spool, &relay.metrics.spool);
    let contents = spool.contents();
    json!({
        "condition": spool.condition().name(),
        "keeps": spool.keeps(),
        "waiting": contents.waiting,
        "dead": contents.dead,
        "remembered": contents.delivered,
        "bytes": contents.bytes,
        "oldest_ms": contents.oldest_age().map(millis),
        "accepted": metrics.accepted.get(),
        "delivered": metrics.delivered.get(),
        "set_aside": metrics.set_aside.get(),
    })
}

/// Brings the gauges of the spool up to date.
fn show_spool(relay: &Relay) {
    let (spool, metrics) = (&relay.spool, &relay.metrics.spool);
    let contents = spool.contents();
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let counts = [contents.waiting, contents.delivered, contents.dead];
    for (state, count) in Standing::NAMES.into_iter().zip(counts) {
        metrics.entries.with_label_values(&[state]).set(number(count));
    }
    metrics.bytes.set(number(contents.bytes));
    metrics.oldest_seconds.set(contents.oldest_age().unwrap_or_default().as_secs_f64());
    metrics.keeps.set(spool.keeps().into());
    metrics.replays.set((spool.condition() == Condition::Ready).into());
}

/// The rows of which a time is learned, and what was learned.
fn rows(relay: &Relay) -> impl Iterator<Item = (&Row, &Latency)> {
    let latencies = relay.latencies.iter().map(Arc::as_ref);
    let rows = relay.catalogue.rows().iter().zip(latencies);
    rows.filter(|(row, _)| row.kind == Kind::Synchronous)
}
