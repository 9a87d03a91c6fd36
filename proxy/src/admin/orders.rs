//! Stance and drill over the admin plane.
//!
//! Whoever gives an order says for how long; whoever does not gets the usual time. What was ordered, and
//! what came of it, is written to the log under the target `audit` and to the journal.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use holdline_policy::Stance;
use serde::Deserialize;
use serde_json::json;

use super::Control;
use super::token::{Answer, Refused};
use crate::Holdline;
use crate::orders::{self, DrillEnd, DrillOrder, LONGEST_STANCE, STANCE_FOR};

/// The routes of orders.
pub(super) fn router() -> Router<Control> {
    Router::new()
        .route("/stance", get(stances).post(stance))
        .route("/drill", get(report).post(drill))
        .route("/drill/stop", post(stop_drill))
}

/// What is asked of a stance.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    stance: String,
    row: Option<String>,
    for_ms: Option<u64>,
}

impl From<orders::Refused> for Refused {
    fn from(why: orders::Refused) -> Refused {
        let status = match why {
            orders::Refused::NoDrill => StatusCode::NOT_FOUND,
            orders::Refused::Left => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        Refused(status, why.to_string())
    }
}

async fn stances(State(holdline): State<Arc<Holdline>>) -> Answer {
    Ok(Json(json!({ "stances": holdline.relay.orders.stances() })))
}

async fn stance(State(control): State<Control>, Json(asked): Json<Asked>) -> Answer {
    let holdline = control.current.load_full();
    let wrong = |what: String| Refused(StatusCode::UNPROCESSABLE_ENTITY, what);
    let names = Stance::ALL.map(Stance::name).join(", ");
    let stance = Stance::named(&asked.stance)
        .ok_or_else(|| wrong(format!("{:?} is not one of {names}", asked.stance)))?;
    let time = asked.for_ms.map_or(STANCE_FOR, Duration::from_millis);
    if time.is_zero() || time > LONGEST_STANCE {
        return Err(wrong("a stance lasts more than no time, and a day at most".to_owned()));
    }
    let rows = holdline.relay.catalogue.rows();
    if let Some(name) = &asked.row
        && rows.iter().all(|row| row.name != *name)
    {
        return Err(wrong(format!("there is no row {name:?}")));
    }
    let orders = &holdline.relay.orders;
    let order = orders.take_stance(stance, asked.row.as_deref(), time)?;
    // Whether a process that begins now would know of it.
    let kept = control.keeper.clone().keep_now().await;
    if let Err(error) = &kept {
        tracing::error!(%error, "an order could not be kept for a new process");
    }
    Ok(Json(json!({ "ordered": order, "stances": orders.stances(), "kept": kept.is_ok() })))
}

async fn drill(State(holdline): State<Arc<Holdline>>, Json(order): Json<DrillOrder>) -> Answer {
    let faults = order.faults(holdline.relay.catalogue.rows());
    if !faults.is_empty() {
        return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, faults.join("; ")));
    }
    let now = holdline.relay.clock.now();
    holdline.relay.orders.begin_drill(order, now, holdline.stale_after)?;
    report(State(holdline)).await
}

async fn stop_drill(State(holdline): State<Arc<Holdline>>) -> Answer {
    let report = holdline.relay.orders.end_drill(DrillEnd::Stopped)?;
    Ok(Json(json!(report)))
}

/// What came of the drill under way, or of the last one.
async fn report(State(holdline): State<Arc<Holdline>>) -> Answer {
    match holdline.relay.orders.report() {
        Some(report) => Ok(Json(json!(report))),
        None => Err(orders::Refused::NoDrill.into()),
    }
}
