//! The REST API, against Twilio's published description and with Twilio's own library.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod application;

use std::net::SocketAddr;
use std::sync::LazyLock;

use application::{ACCOUNT, App, Said, TOKEN, outbound, twiml};
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use twilio_sim::{Company, control, rest};

static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("openapi/twilio_api_v2010.json")).unwrap());

/// A schema of the description as JSON Schema: references resolved, `nullable` spelled out.
fn schema(part: &Value) -> Value {
    let Some(object) = part.as_object() else {
        return match part {
            Value::Array(parts) => parts.iter().map(schema).collect(),
            other => other.clone(),
        };
    };
    if let Some(Value::String(reference)) = object.get("$ref") {
        let name = reference.rsplit('/').next().unwrap();
        let mut resolved = schema(&DESCRIPTION["components"]["schemas"][name]);
        // Twilio's answers hold null where an enumeration has nothing to say yet.
        if resolved.get("enum").is_some() {
            resolved = json!({ "anyOf": [resolved, { "type": "null" }] });
        }
        return resolved;
    }
    let mut plain: serde_json::Map<String, Value> =
        object.iter().map(|(name, value)| (name.clone(), schema(value))).collect();
    if plain.remove("nullable") == Some(Value::Bool(true)) {
        plain = json!({ "anyOf": [plain, { "type": "null" }] }).as_object().unwrap().clone();
    }
    Value::Object(plain)
}

/// The description of an operation: the path with its variables, and the method.
fn operation(path: &str, method: &str) -> Value {
    let found = DESCRIPTION["paths"]
        .as_object()
        .unwrap()
        .iter()
        .find(|(pattern, _)| {
            let (pattern, path) = (pattern.split('/'), path.split('/'));
            pattern.clone().count() == path.clone().count()
                && pattern.zip(path).all(|(a, b)| a == b || a.starts_with('{'))
        })
        .unwrap_or_else(|| panic!("{path} is not in the description"));
    found.1[method.to_ascii_lowercase()].clone()
}

/// Every date is one of RFC 2822, which no schema checks.
fn check_dates(value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Some(text)) =
                    (name.starts_with("date_") || name.ends_with("_time"), value.as_str())
                    && name != "queue_time"
                {
                    jiff::fmt::rfc2822::parse(text).unwrap();
                }
                check_dates(value);
            }
        }
        Value::Array(values) => values.iter().for_each(check_dates),
        _ => {}
    }
}

struct Api {
    company: Company,
}

// === impl Api ===

impl Api {
    /// One request, whose parameters and answer must be as described.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let path = format!("/2010-04-01/Accounts/{ACCOUNT}{path}");
        let described = operation(&path, method);
        let known: Vec<String> = match method {
            "GET" => described["parameters"]
                .as_array()
                .map(|all| all.iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect())
                .unwrap_or_default(),
            _ => described["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
                ["properties"]
                .as_object()
                .map(|all| all.keys().cloned().collect())
                .unwrap_or_default(),
        };
        for (name, _) in parameters {
            assert!(known.iter().any(|other| other == name), "{method} {path} takes no {name}");
        }
        let (status, answer) = send(&self.company, TOKEN, method, &path, parameters).await;
        let schema_of =
            &described["responses"][status.as_str()]["content"]["application/json"]["schema"];
        if status.is_success() && schema_of.is_object() {
            let validator = jsonschema::validator_for(&schema(schema_of)).unwrap();
            let faults: Vec<String> = validator
                .iter_errors(&answer)
                .map(|e| format!("{e} at {}", e.instance_path()))
                .collect();
            assert!(faults.is_empty(), "{method} {path}: {faults:#?}\n{answer:#}");
            check_dates(&answer);
        } else if status.is_success() {
            let described_status = described["responses"].get(status.as_str());
            assert!(described_status.is_some(), "{method} {path} never answers {status}");
        }
        (status, answer)
    }
}

async fn send(
    company: &Company,
    token: &str,
    method: &str,
    path: &str,
    parameters: &[(&str, &str)],
) -> (StatusCode, Value) {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        form.append_pair(name, value);
    }
    let form = form.finish();
    let (target, body) = match method {
        "GET" if !form.is_empty() => (format!("{path}?{form}"), String::new()),
        _ => (path.to_owned(), form),
    };
    let pair = STANDARD.encode(format!("{ACCOUNT}:{token}"));
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::AUTHORIZATION, format!("Basic {pair}"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body))
        .unwrap();
    let response = rest::router(company.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    assert!(response.headers().contains_key("twilio-request-id"));
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// An application whose callers wait in a conference.
async fn application() -> App {
    App::start(|asked| match asked.path.as_str() {
        "/caller" => twiml("<Dial><Conference>room</Conference></Dial>"),
        "/status" => Said::Status(204),
        _ => twiml("<Say>Hello</Say>"),
    })
    .await
}

const TO: (&str, &str) = ("To", "+15005550010");
const FROM: (&str, &str) = ("From", "+15005550001");

#[tokio::test]
async fn every_answer_is_as_described() {
    let app = application().await;
    let company = app.company();
    company.put_at(TO.1, "answers 1s; leave 900s".parse().unwrap());
    let api = Api { company: company.clone() };
    let url = ("Url", "http://app.test/caller");
    let (status, call) = api
        .ask("POST", "/Calls.json", &[TO, FROM, url, ("StatusCallback", "http://app.test/status")])
        .await;
    assert_eq!((status, &call["status"]), (StatusCode::CREATED, &json!("queued")));
    let sid = call["sid"].as_str().unwrap();
    app.until_asked("/caller", 1).await;
    // The call joins a moment after it has its document.
    let room = loop {
        let (_, rooms) = api.ask("GET", "/Conferences.json", &[("FriendlyName", "room")]).await;
        if let Some(sid) = rooms["conferences"][0]["sid"].as_str() {
            break sid.to_owned();
        }
        tokio::task::yield_now().await;
    };
    let participant = format!("/Conferences/{room}/Participants/{sid}.json");
    for (method, path, parameters) in [
        ("GET", format!("/Calls/{sid}.json"), vec![]),
        ("GET", "/Calls.json".into(), vec![("Status", "in-progress"), ("PageSize", "1")]),
        ("GET", format!("/Conferences/{room}.json"), vec![]),
        ("GET", format!("/Conferences/{room}/Participants.json"), vec![("Muted", "false")]),
        ("GET", participant.clone(), vec![]),
        ("POST", participant.clone(), vec![("Muted", "true"), ("Hold", "true")]),
        ("POST", format!("/Calls/{sid}.json"), vec![("FallbackUrl", "http://app.test/f")]),
        ("DELETE", participant, vec![]),
        ("POST", format!("/Conferences/{room}.json"), vec![("Status", "completed")]),
        ("POST", format!("/Calls/{sid}.json"), vec![("Status", "completed")]),
    ] {
        let (status, answer) = api.ask(method, &path, &parameters).await;
        // Taken out of its conference, the call may have ended by itself.
        let ended = answer["code"] == 21220;
        assert!(status.is_success() || ended, "{method} {path}: {status} {answer}");
    }
    while company.find(sid).unwrap().record.lock().unwrap().transcript.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.ask("GET", &format!("/Calls/{sid}.json"), &[]).await.1["status"], "completed");
    assert_eq!(
        api.ask("DELETE", &format!("/Calls/{sid}.json"), &[]).await.0,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn what_is_demanded_is_missed() {
    let api = Api { company: application().await.company() };
    let described = operation(&format!("/2010-04-01/Accounts/{ACCOUNT}/Calls.json"), "POST");
    let body = &described["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"];
    let all = [TO, FROM, ("Url", "http://app.test/caller")];
    for required in body["required"].as_array().unwrap() {
        let others: Vec<_> = all.into_iter().filter(|(name, _)| name != required).collect();
        assert_eq!(others.len(), 2, "{required} is in the list");
        let (status, answer) = api.ask("POST", "/Calls.json", &others).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{required}: {answer}");
    }
}

#[tokio::test]
async fn who_asks_too_much_or_has_no_right_is_refused() {
    let app = application().await;
    let company = app.company_with(|settings| settings.mishaps.rest_at_once = 0);
    let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Calls.json");
    let (status, answer) = send(&company, TOKEN, "GET", &path, &[]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!(20429)));
    let company = app.company();
    let (status, answer) = send(&company, "wrong", "GET", &path, &[]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::UNAUTHORIZED, &json!(20003)));
    let other = "/2010-04-01/Accounts/AC00000000000000000000000000000000/Calls.json";
    let (status, answer) = send(&company, TOKEN, "GET", other, &[]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!(20404)));
    let (status, answer) = send(&company, TOKEN, "GET", "/2010-04-01/Nothing.json", &[]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!(20404)));
}

/// Serves both APIs.
async fn serve(company: Company) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = rest::router(company.clone()).merge(control::router(company));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn twilios_own_library_is_served() {
    let Ok(library) = std::env::var("HOLDLINE_ORACLE") else {
        panic!("HOLDLINE_ORACLE is not set: run `make test`, which fetches Twilio's library");
    };
    let app = application().await;
    let company = app.company();
    company.put_at(TO.1, "answers 1s; leave 5000s".parse().unwrap());
    company.put_at("+15005550011", "answers 1000s".parse().unwrap());
    let address = serve(company).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real_client.py");
    let output = tokio::process::Command::new("python3")
        .env("PYTHONPATH", library)
        .args([script, &format!("http://{address}"), ACCOUNT, TOKEN, "http://app.test"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "created": ["queued", "outbound-api", "+15005550010", "+15005550001", ACCOUNT],
        "answered": "in-progress",
        "rooms": [["room", "init"]],
        "participants": [[true, false]],
        "muted": true,
        "fetched": [true, "init"],
        "kicked": true,
        "over": "completed",
        "why": "last-participant-kicked",
        "redirected": "completed",
        "canceled": "canceled",
        "errors": {
            "not in progress": [400, 21220],
            "no such call": [404, 20404],
            "no such participant": [404, 20404],
            "no URL": [400, 21205],
            "wrong token": [401, 20003],
        },
        "listed": ["canceled", "completed", "completed"],
        "deleted": true,
        "left": 2,
    });
    assert_eq!(seen, expected, "{seen:#}");
    assert_eq!(app.asked_at("/elsewhere").len(), 1);
}

#[tokio::test]
async fn the_control_api_is_what_its_description_says() {
    let app = application().await;
    let company = app.company();
    let described: Value = serde_json::from_str(control::OPENAPI).unwrap();
    let ask = async |method: &str, path: &str, body: Value| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = control::router(company.clone()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    };
    let call = json!({ "to": "+15005550001", "voice_url": "http://app.test/caller",
                       "status_callback": "http://app.test/status", "party": "leave 900s" });
    let (_, made) = ask("POST", "/control/calls", call.clone()).await;
    let sid = made["sid"].as_str().unwrap().to_owned();
    let gone = "CA00000000000000000000000000000000";
    let mut answered = std::collections::BTreeSet::new();
    for (method, path, body, status) in [
        ("GET", "/control/openapi.json".to_owned(), json!({}), 200),
        ("GET", "/control/calls".into(), json!({}), 200),
        ("POST", "/control/calls".into(), call, 201),
        ("POST", "/control/calls".into(), json!({ "to": "+1", "voice_url": "x" }), 422),
        ("GET", format!("/control/calls/{sid}"), json!({}), 200),
        ("GET", format!("/control/calls/{gone}"), json!({}), 404),
        ("POST", format!("/control/calls/{sid}/keys"), json!({ "keys": "1" }), 204),
        ("POST", format!("/control/calls/{gone}/keys"), json!({ "keys": "1" }), 404),
        ("POST", format!("/control/calls/{sid}/hangup"), json!({}), 204),
        ("POST", format!("/control/calls/{gone}/hangup"), json!({}), 404),
        ("PUT", "/control/people/+1500".into(), json!({ "is": "busy" }), 204),
        ("PUT", "/control/people/+1500".into(), json!({ "is": "asleep" }), 422),
        ("GET", "/control/mishaps".into(), json!({}), 200),
        ("PUT", "/control/mishaps".into(), json!({ "repeat_reports": 0.5 }), 200),
        ("PUT", "/control/mishaps".into(), json!({ "repeat_reports": 5 }), 422),
        ("GET", "/control/report".into(), json!({}), 200),
    ] {
        let (seen, answer) = ask(method, &path, body).await;
        assert_eq!(seen, status, "{method} {path}: {answer}");
        let pattern =
            path.replace(&sid, "{sid}").replace(gone, "{sid}").replace("+1500", "{number}");
        let operation = &described["paths"][&pattern][method.to_ascii_lowercase()];
        assert!(
            operation["responses"][status.to_string()].is_object(),
            "{method} {pattern} {status}"
        );
        answered.insert((pattern, method.to_ascii_lowercase()));
    }
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            assert!(answered.contains(&(path.clone(), method.clone())), "{method} {path}");
        }
    }
    // The person hung up, and the transcript says so.
    app.until_asked("/status", 1).await;
    let over = loop {
        let (_, call) = ask("GET", &format!("/control/calls/{sid}"), json!({})).await;
        if call["transcript"].is_object() {
            break call;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(over["transcript"]["ending"], "party_left", "{over:#}");
    let (status, _) =
        ask("POST", &format!("/control/calls/{sid}/keys"), json!({"keys": "1"})).await;
    assert_eq!(status, 409);
    assert_eq!(ask("GET", "/control/mishaps", json!({})).await.1["repeat_reports"], 0.5);
}

#[tokio::test]
async fn another_fallback_can_be_named_in_the_middle_of_a_call() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/caller" => twiml("<Pause length=\"60\"/><Redirect>/broken</Redirect>"),
        "/broken" => Said::Status(500),
        _ => twiml("<Hangup/>"),
    })
    .await;
    let company = app.company();
    company.put_at(TO.1, "answers 1s".parse().unwrap());
    let call = company.outbound(outbound(TO.1, "/caller"));
    let sid = call.sid();
    call.handle();
    let heard = tokio::spawn(call.make());
    app.until_asked("/caller", 1).await;
    let api = Api { company };
    let fallback = ("FallbackUrl", "http://app.test/rescue");
    let (status, answer) = api.ask("POST", &format!("/Calls/{sid}.json"), &[fallback]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    heard.await.unwrap();
    assert_eq!(app.asked_at("/rescue").len(), 1);
}

#[tokio::test]
async fn a_redirect_by_the_api_needs_a_call_in_progress() {
    let app = application().await;
    let company = app.company();
    company.put_at(TO.1, "no answer".parse().unwrap());
    let call = company.outbound(outbound(TO.1, "/caller"));
    let sid = call.sid();
    call.handle();
    let api = Api { company };
    let path = format!("/Calls/{sid}.json");
    let to = ("Url", "http://app.test/x");
    let (status, answer) = api.ask("POST", &path, &[to]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!(21220)));
    let (status, answer) = api.ask("DELETE", &path, &[]).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!(20009)));
}
