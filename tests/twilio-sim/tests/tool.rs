//! The program, as a person runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod application;

use std::process::Output;

use application::{ACCOUNT, App, Said, TOKEN, twiml};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

fn program(app: &App, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twilio-sim"));
    command
        .args(arguments)
        .args(["--account-sid", ACCOUNT, "--connect-to", &app.address.to_string()])
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .env_remove("SIM_SEED")
        .kill_on_drop(true);
    command
}

async fn run(app: &App, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = program(app, arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

const VOICE: [&str; 2] = ["--voice-url", "http://app.test/voice"];

#[tokio::test]
async fn a_call_is_made_and_told() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml("<Gather action=\"/keyed\"><Say>Your number</Say></Gather>"),
        "/keyed" => twiml("<Say>Thank you</Say>"),
        _ => Said::Status(500),
    })
    .await;
    let arguments = ["call", "--speed", "50", "--party", "number=12#", VOICE[0], VOICE[1]];
    let (code, told, _) = run(&app, &arguments).await;
    assert_eq!(code, Some(0), "{told}");
    for words in ["hears  Thank you", "keys   12#", "/keyed", "the document ended"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (code, told, _) = run(&app, &[&arguments[..], &["--json"]].concat()).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["call"]["ending"]), (Some(0), &"ran_out".into()));

    // A report that is refused is a fault, and the run can be had again.
    let report = ["--status-callback", "http://app.test/report", "--seed", "0x7"];
    let (code, _, said) = run(&app, &[&arguments[..], &report[..]].concat()).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("a report was not accepted /report"), "{said}");
    let again = said.lines().find(|line| line.contains("again with the same choices")).unwrap();
    assert!(again.ends_with("--seed 0x7") && again.matches("--seed").count() == 1, "{again}");
    assert!(again.contains("--party 'number=12#'"), "{again}");
}

#[tokio::test]
async fn calls_that_a_call_dialed_are_told_and_judged_too() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml("<Dial><Number statusCallback=\"/leg\">+15005550010</Number></Dial>"),
        _ => Said::Status(500),
    })
    .await;
    let arguments = ["call", "--speed", "50", "--people", "busy"];
    let (code, told, said) = run(&app, &[&arguments[..], &VOICE[..]].concat()).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("outbound-dial") && told.contains("nobody took the call: busy"),
        "{told}"
    );
    assert!(said.contains("a report was not accepted /leg"), "{said}");
}

#[tokio::test]
async fn arguments_at_fault_are_named() {
    let app = App::start(|_| twiml("")).await;
    for (arguments, word) in [
        (["--party", "dance"], "dance"),
        (["--seed", "x"], "\"x\" is no seed"),
        (["--speed", "0"], "--speed 0"),
        (["--people", "nobody"], "nobody"),
        (["--lose-reports", "7"], "lose_reports = 7"),
        (["--resolve", "app.test"], "HOST=ADDRESS:PORT"),
        (["--trust", "/no/such/file"], "/no/such/file"),
    ] {
        let (code, _, said) = run(&app, &[&["call"], &VOICE[..], &arguments[..]].concat()).await;
        assert!(code == Some(64) && said.contains(word), "{word}: {said}");
        assert!(!said.contains(TOKEN));
    }
}

#[tokio::test]
async fn a_load_is_run_and_summed_up() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml("<Gather action=\"/voice\"><Say>Press</Say></Gather>"),
        path if path.starts_with("/lead/") => twiml("<Say>Hello</Say>"),
        _ => Said::Status(204),
    })
    .await;
    let arguments = [
        "load",
        "--callers",
        "20",
        "--time",
        "2",
        "--ramp",
        "0.2",
        "--speed",
        "20",
        "--json",
        "--party",
        "Press=1; wait 1s-3s; repeat",
        "--status-callback",
        "http://app.test/status",
        "--people",
        "answers 1s; hang up 5s",
        "--lead-url",
        "http://app.test/lead/{n}",
        "--lead-status-callback",
        "http://app.test/ended/{n}",
    ];
    let (code, told, said) = run(&app, &[&arguments[..], &VOICE[..]].concat()).await;
    assert_eq!(code, Some(0), "{told}{said}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["summary"]["calls"].as_u64().unwrap() >= 40, "{told:#}");
    assert!(told["summary"]["webhooks"]["document"].as_u64().unwrap() >= 100, "{told:#}");
    assert_eq!(told["summary"]["breaches"], 0);
    assert!(told["own_cost"]["cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(app.asked().iter().any(|asked| asked.path.starts_with("/ended/")));
    assert!(said.contains("webhooks"), "progress: {said}");
}

#[tokio::test]
async fn a_company_is_served() {
    let app = App::start(|_| twiml("<Say>Hello</Say>")).await;
    let mut child = program(&app, &["serve", "--listen", "127.0.0.1:0", "--seed", "2a"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.strip_prefix("twilio-sim: http://").unwrap();
    let (address, seed) = address.split_once(' ').unwrap();
    assert_eq!(seed, "(seed 0x2a)");
    let page = app.company_with(|settings| settings.connecting = Default::default());
    let url = format!("http://{address}/control/report").parse().unwrap();
    let form = holdline_twilio::Form::default();
    let webhook = twilio_sim::Webhook {
        url: &url,
        method: http::Method::GET,
        form: &form,
        key: page.key(),
        idempotency_token: "",
    };
    let report = page.fetch(&webhook).await.result.unwrap();
    let report: Value = serde_json::from_slice(&report.body).unwrap();
    assert_eq!((&report["seed"], &report["live_calls"]), (&"0x2a".into(), &0.into()));
    child.kill().await.unwrap();
}
