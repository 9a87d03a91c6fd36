//! The REST API that an application calls: calls, conferences, participants.
//!
//! Shapes are those of Twilio's published OpenAPI document; a test checks every answer against it.
//! What is accepted and does nothing is named in the README.

mod calls;
mod conferences;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use url::Url;

use crate::call::Endpoint;
use crate::company::Company;

/// What Twilio answers when something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RestError {
    status: u16,
    code: u32,
    message: String,
}

/// What every handler needs.
#[derive(Debug, Clone)]
struct Rest {
    company: Company,
    running: Arc<AtomicUsize>,
}

/// The last part of a path, which Twilio writes with `.json` behind it.
struct Named(String);

/// The API as a service.
pub fn router(company: Company) -> Router {
    let rest = Rest { company, running: Arc::new(AtomicUsize::new(0)) };
    let account = Router::new()
        .route("/Calls.json", get(calls::list).post(calls::create))
        .route("/Calls/{name}", get(calls::fetch).post(calls::update).delete(calls::delete))
        .route("/Conferences.json", get(conferences::list))
        .route("/Conferences/{name}", get(conferences::fetch).post(conferences::update))
        .route("/Conferences/{conference}/Participants.json", get(conferences::participants))
        .route(
            "/Conferences/{conference}/Participants/{name}",
            get(conferences::participant)
                .post(conferences::update_participant)
                .delete(conferences::kick),
        );
    Router::new()
        .nest("/2010-04-01/Accounts/{account}", account)
        .fallback(|| async { RestError::not_found("The requested resource") })
        .layer(middleware::from_fn_with_state(rest.clone(), guard))
        .with_state(rest)
}

/// Who may ask, how many at once, and how long it takes.
async fn guard(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let mishaps = rest.company.mishaps();
    let running = rest.running.fetch_add(1, Ordering::AcqRel) + 1;
    let _one_less = OneLess(rest.running.clone());
    let id = rest.company.dice("REST request").sid("RQ");
    let mut response = if running > mishaps.rest_at_once {
        RestError::new(429, 20429, "Too Many Requests").into_response()
    } else if let Err(error) = authorised(&rest.company, &request) {
        error.into_response()
    } else {
        tokio::time::sleep(Duration::from_secs_f64(mishaps.rest_delay_s)).await;
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        ("twilio-concurrent-requests", running.to_string()),
        ("twilio-request-id", id),
        ("twilio-request-duration", format!("{:.3}", begun.elapsed().as_secs_f64())),
    ] {
        headers.extend(
            HeaderValue::try_from(value)
                .ok()
                .map(|value| (header::HeaderName::from_static(name), value)),
        );
    }
    response
}

/// A request that is over, even if whoever made it did not wait for that.
struct OneLess(Arc<AtomicUsize>);

impl Drop for OneLess {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn authorised(company: &Company, request: &Request) -> Result<(), RestError> {
    let refused = || RestError::new(401, 20003, "Authenticate");
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let pair = given
        .and_then(|text| text.strip_prefix("Basic "))
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(refused)?;
    let (user, password) = pair.split_once(':').ok_or_else(refused)?;
    if user != company.account_sid() || !company.is_token(password) {
        return Err(refused());
    }
    let account = request.uri().path().split('/').nth(3);
    if account.is_some_and(|account| account != company.account_sid()) {
        return Err(RestError::not_found("The requested account"));
    }
    Ok(())
}

// === impl RestError ===

impl RestError {
    fn new(status: u16, code: u32, message: impl Into<String>) -> RestError {
        RestError { status, code, message: message.into() }
    }

    fn not_found(what: &str) -> RestError {
        RestError::new(404, 20404, format!("{what} was not found"))
    }

    fn bad(code: u32, message: impl Into<String>) -> RestError {
        RestError::new(400, code, message)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status,
        });
        let mut response = (status, Json(body)).into_response();
        if self.status == 401 {
            let realm = HeaderValue::from_static("Basic realm=\"Twilio API\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}

// === impl Named ===

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, RestError> {
        let missing = || RestError::not_found("The requested resource");
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state);
        let Path(parts) = path.await.map_err(|_| missing())?;
        let last = parts.into_iter().last().ok_or_else(missing)?.1;
        Ok(Named(last.trim_end_matches(".json").to_owned()))
    }
}

/// The parameters of a request: form pairs, in order, some of them more than once.
struct Parameters(Vec<(String, String)>);

// === impl Parameters ===

impl Parameters {
    fn read(body: &[u8]) -> Parameters {
        Parameters(url::form_urlencoded::parse(body).into_owned().collect())
    }

    /// The last value under a name; an empty one is none.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn all(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.clone()).collect()
    }

    fn is(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A URL and its method; `code` is the error for one that cannot be asked. Host names with an
    /// underscore are refused by Twilio.
    fn endpoint(&self, name: &str, method: &str, code: u32) -> Result<Option<Endpoint>, RestError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let url = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some_and(|host| !host.contains('_'))
        });
        let Some(url) = url else {
            return Err(RestError::bad(code, format!("{name} is not a valid URL: {text}")));
        };
        let get = self.get(method).is_some_and(|method| method.eq_ignore_ascii_case("GET"));
        let method = if get { http::Method::GET } else { http::Method::POST };
        Ok(Some(Endpoint { url, method }))
    }
}

/// One page of a list, as Twilio frames it.
fn page(
    key: &str,
    path: &str,
    query: &Parameters,
    items: &[serde_json::Value],
) -> Json<serde_json::Value> {
    let number = |name: &str, default: usize| {
        query.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (size, page) = (number("PageSize", 50).clamp(1, 1000), number("Page", 0));
    let start = page.saturating_mul(size).min(items.len());
    let end = (start + size).min(items.len());
    let uri = |page: usize| format!("{path}?PageSize={size}&Page={page}");
    Json(json!({
        key: items[start..end],
        "page": page,
        "page_size": size,
        "start": start,
        "end": end.saturating_sub(1),
        "uri": uri(page),
        "first_page_uri": uri(0),
        "next_page_uri": (end < items.len()).then(|| uri(page + 1)),
        "previous_page_uri": page.checked_sub(1).map(uri),
    }))
}
