//! Whether this process is there, and whether it can do its work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::App;

/// GET /live: the process answers.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// GET /ready: every dependency by name, with its state and how long it took to answer.
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let begun = std::time::Instant::now();
    let store = app.store.ping().await;
    let ready = store.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": ready,
        "role": app.role,
        "dependencies": [{
            "name": "store",
            "state": if ready { "up" } else { "down" },
            "reason": store.err().map(|error| error.to_string()),
            "latency_ms": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }],
    });
    (status, Json(body))
}
