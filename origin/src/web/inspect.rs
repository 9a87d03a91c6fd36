//! What an operator, and a test, may look at: who is on call, and what browsers were told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::App;

/// GET /inspect/callers.
pub(super) async fn callers(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    authorise(&app, &headers)?;
    let on_call = app.store.callers_on_call().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({ "callers_logged_in": on_call })))
}

/// GET /inspect/events/{channel}.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Path(channel): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    authorise(&app, &headers)?;
    let events =
        app.store.browser_events(&channel).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let shown: Vec<Value> = events
        .into_iter()
        .map(|event| json!({ "sequence": event.sequence, "event": event.name, "data": event.data }))
        .collect();
    Ok(Json(Value::Array(shown)))
}

/// Without a configured token these endpoints do not exist.
fn authorise(app: &App, headers: &HeaderMap) -> Result<(), StatusCode> {
    let token = app.inspect_token.as_ref().ok_or(StatusCode::NOT_FOUND)?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Comparing digests takes the same time whatever the two texts have in common.
    let same = Sha256::digest(given) == Sha256::digest(token.expose_secret());
    if same { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
}
