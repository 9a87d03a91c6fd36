//! The token that opens what shows callbacks or changes anything.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::Holdline;

/// Why something was not done.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

/// What is told of something that was done, or why it was not.
pub(super) type Answer = Result<Json<Value>, Refused>;

// === impl Refused ===

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// Lets through only what brings the token.
pub(super) async fn only_with_token(
    State(holdline): State<Arc<Holdline>>,
    request: Request,
    next: Next,
) -> Response {
    let refuse = |status, what: &str| Refused(status, what.to_owned()).into_response();
    let Some(token) = &holdline.admin_token else {
        return refuse(StatusCode::FORBIDDEN, "no admin token is configured: set admin.token");
    };
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let fits = given.is_some_and(|given| given.ct_eq(token.expose_secret().as_bytes()).into());
    if fits {
        next.run(request).await
    } else {
        refuse(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong")
    }
}
