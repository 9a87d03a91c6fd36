//! Configurations as people write them: those we ship load, and those that are wrong say all that is
//! wrong with them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdline::config::{Config, SignaturePolicy};
use holdline_policy::{Kind, Party, Upstream};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)
}

fn secrets() -> BTreeMap<String, String> {
    [
        ("TWILIO_ACCOUNT_SID", "AC0123456789abcdef0123456789abcdef"),
        ("TWILIO_AUTH_TOKEN", "hush"),
        ("HOLDLINE_ADMIN_TOKEN", "hush too"),
        ("HOLDLINE_HOLD_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Loads `text` and gives back its faults without the file's name.
fn faults_of(text: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    match Config::load_with(&path, environment) {
        Ok(_) => Vec::new(),
        Err(list) => {
            list.faults().iter().map(|fault| format!("{}: {}", fault.key, fault.what)).collect()
        }
    }
}

#[test]
fn every_shipped_configuration_loads() {
    for (name, monitor) in [
        ("development.toml", "127.0.0.1"),
        ("staging.toml", "impactdialing-staging.herokuapp.com"),
        ("production.toml", "impactdialing-monitor.herokuapp.com"),
        ("heroku.toml", "impactdialing-monitor.herokuapp.com"),
    ] {
        let config = Config::load_with(&shipped(name), &secrets()).unwrap();
        assert_eq!(
            config.environment,
            name.replace("heroku", "production").trim_end_matches(".toml")
        );
        assert_eq!(config.upstream(Upstream::Monitor).host, monitor);
        assert_eq!(config.signature, SignaturePolicy::Enforce);
    }
}

#[test]
fn what_production_names_are_the_defaults() {
    let [written, left_out] = ["production.toml", "staging.toml"]
        .map(|name| Config::load_with(&shipped(name), &secrets()).unwrap());
    assert_eq!(written.limits, left_out.limits);
    assert_eq!(written.journal, left_out.journal);
    let health = |config: &Config| (config.thresholds, config.pace, config.stale_after);
    assert_eq!(health(&written), health(&left_out));
    let text = std::fs::read_to_string(shipped("production.toml")).unwrap();
    for knob in holdline::config::health::KNOBS {
        assert!(text.contains(&format!("\n{} = ", knob.key)), "{} is not named", knob.key);
    }
}

#[test]
fn the_shipped_catalogue_has_a_row_for_every_endpoint() {
    let config = Config::load_with(&shipped("development.toml"), &secrets()).unwrap();
    let rows = config.catalogue.rows();
    let of = |kind| rows.iter().filter(|row| row.kind == kind).count();
    assert_eq!((of(Kind::Synchronous), of(Kind::Asynchronous), of(Kind::Media)), (27, 4, 1));
    for (path, party) in [
        ("/calls/1/incoming", Party::Callee),
        ("/calls/1/disconnected", Party::WebCaller),
        ("/callin/create", Party::PhonesOnlyCaller),
        ("/caller/start_calling", Party::WebCaller),
        ("/caller/1/conference_started_phones_only_preview", Party::PhonesOnlyCaller),
        ("/transfer/callee", Party::Callee),
        ("/transfer/7/connect", Party::Callee),
        ("/twiml/caller_sessions/7/dialing_prohibited", Party::WebCaller),
    ] {
        match config.catalogue.find("POST", path) {
            holdline_policy::Found::Row(_, row) => assert!(row.parties.contains(&party), "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[test]
fn a_callee_has_four_seconds_and_is_never_held() {
    let config = Config::load_with(&shipped("development.toml"), &secrets()).unwrap();
    for row in config.catalogue.rows().iter().filter(|row| row.kind == Kind::Synchronous) {
        let callee = row.parties.contains(&Party::Callee);
        assert_eq!(row.budget.as_secs(), if callee { 4 } else { 9 }, "{}", row.name);
        assert!(!callee || row.hold.is_none(), "{}", row.name);
    }
}

#[test]
fn every_fault_is_listed_at_once() {
    let text = r#"
        envirnoment = "production"
        public_url = "callbacks.example.com"
        [listen]
        public = "everywhere"
        [[twilio.account]]
        sid = "AC123"
        auth_tokens = ["hush", "env:NOT_SET"]
        [upstreams.origin]
        url = "http://origin.example.com/app?x=1"
        ca = "nowhere.pem"
        host = "a b"
        probe = { path = "ready", timeout = "1 fortnight" }
        [dns]
        servers = ["nobody", "127.0.0.53"]
        [health]
        fall = 0
        [static_twiml]
        folder = "nowhere"
        [hold]
        keys = ["env:NOT_SET"]
        [stop]
        drain = 10
    "#;
    let faults = faults_of(text, &BTreeMap::new());
    let expected = [
        "environment: is missing",
        "public_url: \"callbacks.example.com\" is not of the form https://host",
        "listen.public: \"everywhere\" is not an address such as \"127.0.0.1:8080\"",
        "listen.admin: is missing",
        "twilio.account[0].sid: not a AccountSid (two letters AC and 32 hexadecimal digits)",
        "twilio.account[0].auth_tokens: a secret is written as \"env:NAME\" or \"file:PATH\", never itself",
        "twilio.account[0].auth_tokens: the secret is missing: set the environment variable NOT_SET",
        "upstreams.origin.url: \"http://origin.example.com/app?x=1\" is not of the form https://host, http://host:port or https://host/path",
        "upstreams.origin.host: \"a b\" is not a host name, perhaps with a port",
        "dns.servers: \"nobody\" is not an address such as 127.0.0.53:53",
        "upstreams.origin.probe.path: \"ready\" is not a path that begins with /",
        "upstreams.origin.probe.timeout: \"1 fortnight\" is not a duration such as \"750ms\" or \"9s\"",
        "upstreams.monitor: is missing: say where it is, as url = \"https://host\"",
        "health.fall: must be a whole number between 1 and 100",
        "hold.keys: the secret is missing: set the environment variable NOT_SET",
        "stop.drain: must be text in quotes, not integer",
        "envirnoment: is not a known key",
    ];
    for expect in expected {
        assert!(faults.iter().any(|fault| fault == expect), "{expect:?} is not in {faults:#?}");
    }
    for begins in ["static_twiml.folder: ", "upstreams.origin.ca: \"nowhere.pem\" cannot be read: "]
    {
        assert!(faults.iter().any(|fault| fault.starts_with(begins)), "{begins:?}: {faults:#?}");
    }
    assert_eq!(faults.len(), expected.len() + 2, "{faults:#?}");
}

#[test]
fn what_is_said_of_tls_must_make_sense() {
    let development = std::fs::read_to_string(shipped("development.toml")).unwrap();
    let with = |lines: &str| {
        let origin = "url = \"http://127.0.0.1:8081\"";
        faults_of(&development.replace(origin, lines), &secrets())
    };
    for (lines, fault) in [
        ("url = \"http://a.test\"\nserver_name = \"a.test\"", "server_name: means nothing unless"),
        (
            "url = \"https://a.test\"\nserver_name = \"a b\"",
            "server_name: \"a b\" is not a host name",
        ),
        ("url = \"https://a.test\"\nca = \"c.toml\"", "ca: \"c.toml\" holds no certificate"),
    ] {
        let faults = with(lines);
        let expected = format!("upstreams.origin.{fault}");
        assert!(faults.len() == 1 && faults[0].starts_with(&expected), "{lines}: {faults:?}");
    }
    assert_eq!(with("url = \"https://[::1]:8443/app\""), Vec::<String>::new());
}

#[test]
fn a_catalogue_of_ones_own_is_checked_against_the_documents_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(shipped("development.toml")).unwrap();
    std::fs::write(folder.path().join("c.toml"), config + "\n[catalogue]\nfile = \"rows.toml\"\n")
        .unwrap();
    let rows = r#"
        [[row]]
        name = "a"
        path = "/a"
        kind = "synchronous"
        parties = ["callee", "nobody"]
        canned = "no-such"
        [[row]]
        name = "b"
        path = "/b"
        kind = "asynchronous"
        replay = "unsent"
    "#;
    std::fs::write(folder.path().join("rows.toml"), rows).unwrap();
    let list = Config::load_with(&folder.path().join("c.toml"), &secrets()).unwrap_err();
    let text = list.to_string();
    assert!(text.contains("rows.toml: row[0].parties: \"nobody\" is not one of callee"), "{text}");
    assert!(text.contains("row b: replay: an asynchronous row must be idempotent"), "{text}");
    std::fs::write(
        folder.path().join("rows.toml"),
        rows.replace(", \"nobody\"", "").replace("unsent", "idempotent"),
    )
    .unwrap();
    let list = Config::load_with(&folder.path().join("c.toml"), &secrets()).unwrap_err();
    assert!(
        list.to_string().contains("catalogue row a: there is no canned document \"no-such\""),
        "{list}"
    );
}

#[test]
fn the_spool_is_beside_the_configuration_unless_it_says_otherwise() {
    let config = Config::load_with(&shipped("development.toml"), &secrets()).unwrap();
    assert_eq!(config.spool.folder, shipped("spool"));
    let config = Config::load_with(&shipped("production.toml"), &secrets()).unwrap();
    assert_eq!(config.spool.folder, Path::new("/var/lib/holdline/spool"));
    let overridden = [("HOLDLINE__SPOOL__BACKOFF", "20m"), ("HOLDLINE__SPOOL__MAX_BYTES", "1KiB")];
    let mut environment = secrets();
    environment.extend(overridden.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let list = Config::load_with(&shipped("production.toml"), &environment).unwrap_err();
    let text = list.to_string();
    assert!(text.contains("spool.max_bytes: must be at least 1MiB"), "{text}");
    assert!(text.contains("spool.backoff: must be between 10ms and 10m"), "{text}");
}

#[test]
fn secrets_never_show() {
    let config = Config::load_with(&shipped("production.toml"), &secrets()).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hush") && !shown.contains("MDEyMzQ1Njc4"), "{shown}");
}
