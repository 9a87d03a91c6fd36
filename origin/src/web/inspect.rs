//! What an operator, and a test, may look at: who is on call, and what browsers were told.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::App;

/// GET /inspect/callers.
pub(super) async fn callers(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    authorise(&app, &headers)?;
    let callers = app.store.callers_on_call().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({ "callers_logged_in": callers.len(), "callers": callers })))
}

/// GET /metrics: no more than numbers, for whoever reaches this host.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl axum::response::IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], app.metrics.text())
}

/// GET /inspect/campaigns: what goes on in each, and where its numbers are.
pub(super) async fn campaigns(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    authorise(&app, &headers)?;
    let campaigns = app.store.campaigns().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(Value::Array(campaigns)))
}

/// What of a channel is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    /// Only what came behind this place.
    #[serde(default)]
    after: i64,
}

/// GET /inspect/events/{channel}: what a browser was told, in order; with `?after=N` only what is new.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Path(channel): Path<String>,
    Query(After { after }): Query<After>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    authorise(&app, &headers)?;
    let events = app
        .store
        .browser_events(&channel, after)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let shown: Vec<Value> = events
        .into_iter()
        .map(|event| json!({ "sequence": event.sequence, "event": event.name, "data": event.data }))
        .collect();
    Ok(Json(Value::Array(shown)))
}

/// Without a configured token these endpoints do not exist.
pub(super) fn authorise(app: &App, headers: &HeaderMap) -> Result<(), StatusCode> {
    let token = app.inspect_token.as_ref().ok_or(StatusCode::NOT_FOUND)?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Comparing digests takes the same time whatever the two texts have in common.
    let same = Sha256::digest(given) == Sha256::digest(token.expose_secret());
    if same { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
}
