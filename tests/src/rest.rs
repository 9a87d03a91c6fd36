//! Twilio's REST API, for a world's origin: the phone company's own, or one that only writes down what
//! it is asked for.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::{Json, Router};
use bytes::Bytes;
use holdline_twilio::Form;
use serde_json::json;
use tokio::task::JoinHandle;
use twilio_sim::{Company, rest};

/// The legs of a recorder have numbers above this one.
const LEGS: usize = 0x1000;
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A REST API at an address that stays, whoever serves it.
#[derive(Debug)]
pub(crate) struct RestApi {
    listener: TcpListener,
    serving: Option<JoinHandle<()>>,
}

// === impl RestApi ===

impl RestApi {
    /// Takes an address; requests wait until they are served.
    pub(crate) fn bind() -> anyhow::Result<RestApi> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        listener.set_nonblocking(true)?;
        Ok(RestApi { listener, serving: None })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// Lets this company serve it from now on.
    pub(crate) fn serve(&mut self, company: &Company) -> anyhow::Result<()> {
        self.serve_api(rest::router(company.clone()))
    }

    /// Lets only be written down what is asked for.
    pub(crate) fn record(&mut self, recorder: &Recorder) -> anyhow::Result<()> {
        self.serve_api(Router::new().fallback(record).with_state(recorder.clone()))
    }

    fn serve_api(&mut self, api: Router) -> anyhow::Result<()> {
        self.stop();
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        self.serving = Some(tokio::spawn(async move {
            // It ends when it is stopped.
            let _ = axum::serve(listener, api).await;
        }));
        Ok(())
    }

    /// Serves it no more; requests wait.
    pub(crate) fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

impl Drop for RestApi {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an application asked Twilio's REST API for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: http::Method,
    /// The call that it was about; none where one was to be made, or looked for.
    pub call: Option<String>,
    /// The parameters.
    pub form: Form,
}

/// A Twilio that writes down what it is asked for, and does nothing: its calls ring for ever.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    asked: Vec<Asked>,
    refusal: Option<(u16, u32)>,
    statuses: HashMap<String, &'static str>,
    placed: Vec<serde_json::Value>,
}

// === impl Recorder ===

impl Recorder {
    /// All that was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// From now on whatever is to be changed is refused, with this status and error; or nothing is.
    pub fn refuse(&self, refusal: Option<(u16, u32)>) {
        self.lock().refusal = refusal;
    }

    /// What this call is found to be from now on, where it is looked up.
    pub fn is_now(&self, call: &str, status: &'static str) {
        self.lock().statuses.insert(call.to_owned(), status);
    }

    /// A call to this number that was placed although nobody was told, and what it is.
    pub fn has_placed(&self, call: &str, to: &str, status: &'static str) {
        let created = jiff::fmt::rfc2822::to_string(&jiff::Zoned::now()).unwrap_or_default();
        let call = json!({ "sid": call, "to": to, "status": status, "date_created": created });
        self.lock().placed.push(call);
    }

    /// The calls that were to be made, once there are so many.
    pub async fn dials(&self, count: usize) -> anyhow::Result<Vec<Asked>> {
        self.until(count, |asked| asked.method == http::Method::POST && asked.call.is_none()).await
    }

    /// The changes of this call, once there are so many.
    pub async fn changes(&self, call: &str, count: usize) -> anyhow::Result<Vec<Asked>> {
        let of = |asked: &Asked| {
            asked.method == http::Method::POST && asked.call.as_deref() == Some(call)
        };
        self.until(count, of).await
    }

    async fn until(&self, count: usize, is: impl Fn(&Asked) -> bool) -> anyhow::Result<Vec<Asked>> {
        let begun = Instant::now();
        loop {
            let found: Vec<Asked> = self.asked().into_iter().filter(|asked| is(asked)).collect();
            if found.len() >= count {
                return Ok(found);
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "not asked for: {:?}", self.asked());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn answer(
        &self,
        method: &http::Method,
        uri: &http::Uri,
        body: &[u8],
    ) -> (u16, serde_json::Value) {
        let path = uri.path();
        let query = Form::parse(uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        let call = (name != "Calls").then(|| name.to_owned());
        let form = Form::parse(body).unwrap_or_default();
        let mut recorded = self.lock();
        recorded.asked.push(Asked { method: method.clone(), call: call.clone(), form });
        let number = recorded.asked.len();
        let changes = method == http::Method::POST;
        match (recorded.refusal.filter(|_| changes), call) {
            (Some((status, code)), _) => (status, json!({ "code": code, "message": "refused" })),
            (None, None) if !changes => {
                let wanted = |call: &&serde_json::Value| query.get("To") == call["to"].as_str();
                let calls: Vec<_> = recorded.placed.iter().filter(wanted).collect();
                (200, json!({ "calls": calls }))
            }
            (None, call) => {
                let sid = call.unwrap_or_else(|| format!("CA{:032x}", LEGS + number));
                let created = if changes { 201 } else { 200 };
                let status = recorded.statuses.get(&sid).copied().unwrap_or("in-progress");
                (created, json!({ "sid": sid, "status": status }))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn record(
    State(recorder): State<Recorder>,
    method: http::Method,
    uri: http::Uri,
    body: Bytes,
) -> (http::StatusCode, Json<serde_json::Value>) {
    let (status, answer) = recorder.answer(&method, &uri, &body);
    (http::StatusCode::from_u16(status).unwrap_or_default(), Json(answer))
}
