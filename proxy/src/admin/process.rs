//! The process over the admin plane: to read the configuration anew.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use super::Control;
use super::token::{Answer, Refused};
use crate::reload::Reload;

/// The routes of the process.
pub(super) fn router() -> Router<Control> {
    Router::new().route("/reload", post(reload))
}

async fn reload(State(reload): State<Arc<Reload>>) -> Answer {
    tracing::info!(target: "audit", what = "reload", "asked for over the admin plane");
    match reload.now().await {
        Ok(warnings) => Ok(Json(json!({ "reloaded": true, "warnings": warnings }))),
        Err(why) => Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, why)),
    }
}
