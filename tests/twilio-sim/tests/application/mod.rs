//! An application for the phone company to ask: it answers as it is told and remembers everything.

#![allow(dead_code, unreachable_pub, reason = "each test file includes it and uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use twilio_sim::{
    Company, Connecting, Endpoint, Line, Mishaps, Outbound, Population, Seed, Settings, Source,
};
use url::Url;

pub const ACCOUNT: &str = "ACdddddddddddddddddddddddddddddddd";
pub const TOKEN: &str = "a token for tests";
/// The host of every URL; calls connect to the application's port.
pub const HOST: &str = "http://app.test";

/// A request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub target: String,
    pub headers: HeaderMap,
    pub parameters: Vec<(String, String)>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Said {
    Twiml(String),
    Status(u16),
    With(u16, Vec<(&'static str, String)>, Vec<u8>),
    After(Duration, Box<Said>),
    Never,
}

/// An application.
pub struct App {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    seed: Seed,
    task: JoinHandle<()>,
}

// === impl Asked ===

impl Asked {
    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

// === impl Said ===

/// A document with these verbs.
pub fn twiml(verbs: &str) -> Said {
    Said::Twiml(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>{verbs}</Response>"))
}

// === impl App ===

impl App {
    /// An application that answers every request as `answer` says.
    pub async fn start(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (answer, seen) = (Arc::new(answer), asked.clone());
        let service = Router::new().fallback(move |request: Request| {
            let (answer, seen) = (answer.clone(), seen.clone());
            async move {
                let asked = read(request).await;
                seen.lock().unwrap().push(asked.clone());
                say(answer(&asked)).await
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        App { address, asked, seed: Seed::from_environment().unwrap(), task }
    }

    /// A server that sends these bytes to whoever has sent it a request, and closes.
    pub async fn raw(bytes: &'static [u8]) -> App {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 16 * 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(bytes).await;
            }
        });
        App { address, asked: Arc::default(), seed: Seed::from_environment().unwrap(), task }
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// What was asked at a path.
    pub fn asked_at(&self, path: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path == path).collect()
    }

    /// Waits until a path was asked so often.
    pub async fn until_asked(&self, path: &str, times: usize) -> Vec<Asked> {
        for _ in 0..4000 {
            let asked = self.asked_at(path);
            if asked.len() >= times {
                return asked;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path} was not asked {times} times: {:#?}", self.asked());
    }

    /// A company whose requests come here.
    pub fn company(&self) -> Company {
        self.company_with(|_| {})
    }

    /// A company, set up differently.
    pub fn company_with(&self, change: impl FnOnce(&mut Settings)) -> Company {
        let mut settings = Settings {
            account_sid: ACCOUNT.into(),
            auth_token: TOKEN.into(),
            connecting: Connecting { connect_to: Some(self.address), ..Connecting::default() },
            seed: self.seed,
            speed: 50.0,
            mishaps: Mishaps::default(),
            people: Population::default(),
        };
        change(&mut settings);
        Company::open(settings).unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with the same choices: SIM_SEED={}", self.seed);
        }
        self.task.abort();
    }
}

/// A URL of the application.
pub fn at(path: &str) -> Url {
    Url::parse(&format!("{HOST}{path}")).unwrap()
}

/// A line whose voice URL has this path, with a fallback and a status callback.
pub fn line(path: &str) -> Line {
    Line {
        number: "+15005550001".into(),
        voice: Endpoint::from(at(path)),
        fallback: Some(Endpoint::from(at("/fallback"))),
        status: Some(Endpoint::from(at("/status"))),
    }
}

/// A call to a number, with all its events reported.
pub fn outbound(to: &str, path: &str) -> Outbound {
    Outbound {
        to: to.into(),
        from: "+15005550001".into(),
        source: Source::Endpoint(Endpoint::from(at(path))),
        fallback: None,
        status: Some(Endpoint::from(at("/status"))),
        events: ["initiated", "ringing", "answered", "completed"].map(String::from).into(),
        timeout: 15,
        time_limit: 14_400,
        machine: None,
    }
}

async fn read(request: Request) -> Asked {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let pairs = |bytes: &[u8]| -> Vec<(String, String)> {
        url::form_urlencoded::parse(bytes).into_owned().collect()
    };
    let mut parameters = pairs(parts.uri.query().unwrap_or_default().as_bytes());
    parameters.extend(pairs(&body));
    Asked {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        parameters,
    }
}

async fn say(said: Said) -> Response {
    match said {
        Said::Twiml(text) => ([("content-type", "text/xml")], text).into_response(),
        Said::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Said::With(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(Bytes::from(body))).unwrap()
        }
        Said::After(time, said) => {
            tokio::time::sleep(time).await;
            Box::pin(say(*said)).await
        }
        Said::Never => std::future::pending().await,
    }
}
