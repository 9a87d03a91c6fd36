//! The process over the admin plane: to read the configuration anew, and to leave everything to a new
//! process.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::oneshot;

use super::Control;
use super::token::{Answer, Refused};
use crate::reload::Reload;

/// The routes of the process.
pub(super) fn router() -> Router<Control> {
    Router::new().route("/reload", post(reload)).route("/upgrade", post(upgrade))
}

async fn reload(State(reload): State<Arc<Reload>>) -> Answer {
    tracing::info!(target: "audit", what = "reload", "asked for over the admin plane");
    // It goes on if whoever asked does not wait.
    let reloaded = tokio::spawn(async move { reload.now().await }).await;
    match reloaded.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(warnings) => Ok(Json(json!({ "reloaded": true, "warnings": warnings }))),
        Err(why) => Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, why)),
    }
}

async fn upgrade(State(control): State<Control>) -> Answer {
    const NO: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    tracing::info!(target: "audit", what = "upgrade", "asked for over the admin plane");
    let (asked, answer) = oneshot::channel();
    let busy = |_| Refused(NO, "an upgrade is under way, or the process ends".to_owned());
    control.upgrade.try_send(asked).map_err(busy)?;
    let ends = |_| Refused(NO, "the process ends".to_owned());
    match answer.await.map_err(ends)? {
        Ok(process) => Ok(Json(json!({ "upgraded": true, "process": process }))),
        Err(why) => Err(Refused(NO, why)),
    }
}
