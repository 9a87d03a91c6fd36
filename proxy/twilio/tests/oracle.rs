//! Signatures against Twilio's official Python library, on random requests.
//!
//! `make setup` puts the library into `target/oracle`; `HOLDLINE_ORACLE` names another folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

mod oracle_process;

use std::cell::RefCell;

use holdline_twilio::signature::{Content, Key};
use holdline_twilio::{AccountSid, Form, Keyring, PublicUrl, Signed};
use oracle_process::Oracle;
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Names repeat often, so that repeated pairs do; values hold anything.
fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        "[A-Za-z]{1,12}",
        "[ab]",
        "(Digits|From|CallSid|Reason|ReasonConferenceEnded)",
        "\\PC{0,4}"
    ];
    let value = prop_oneof!["[0-9+*#]{0,12}", "[xy]", "\\PC{0,20}", "[ \t]{0,3}"];
    proptest::collection::vec((name, value), 0..12)
}

fn base() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "https://callbacks.example.com",
            "https://Callbacks.Example.com",
            "https://callbacks.example.com:443",
            "https://callbacks.example.com:8443",
            "http://callbacks.example.com",
            "http://callbacks.example.com:8080",
        ][..],
    )
}

const TARGET: &str = "(/[a-z0-9_.%-]{0,8}){1,4}(\\?[a-z]{1,4}=[A-Za-z0-9+%._-]{0,9}(&[a-z]{1,4}=[A-Za-z0-9+._-]{0,9}){0,3})?";

fn account() -> AccountSid {
    "AC0123456789abcdef0123456789abcdef".parse().unwrap()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn signatures_are_those_of_the_official_library() {
    let oracle = RefCell::new(Oracle::start("oracle.py"));
    proptest!(cases(2000), |(pairs in pairs(), base in base(), target in TARGET, token in "[ -~]{1,40}", sha256: bool)| {
        let form = Form::from_pairs(pairs.iter().map(|(name, value)| (name, value)));
        let key = if sha256 { Key::shared(&token.as_str().into()) } else { Key::auth_token(&token.as_str().into()) };
        let algorithm = if sha256 { "HMAC_SHA256" } else { "HMAC_SHA1" };
        let ours = key.sign(base, &target, Content::Form(&form));
        let question = json!({
            "token": token, "url": format!("{base}{target}"), "pairs": pairs, "algorithm": algorithm, "signature": ours,
        });
        let theirs = oracle.borrow_mut().ask(&question);
        prop_assert_eq!(&theirs["signature"], &json!(ours));
        prop_assert_eq!(&theirs["valid"], &json!(true));
    });
}

#[test]
fn what_the_library_accepts_is_proven_and_what_it_refuses_is_not() {
    let oracle = RefCell::new(Oracle::start("oracle.py"));
    proptest!(cases(1000), |(pairs in pairs(), base in base(), signed_base in base(), target in TARGET, tamper in 0u8..4)| {
        let form = Form::from_pairs(pairs.iter().map(|(name, value)| (name, value)));
        let key = Key::auth_token(&"token".into());
        let signature = key.sign(signed_base, &target, Content::Form(&form));
        let mut received = pairs.clone();
        if tamper == 0 {
            received.push(("Tampered".into(), "1".into()));
        }
        let question = json!({
            "token": "token", "url": format!("{base}{target}"), "pairs": received, "algorithm": null, "signature": signature,
        });
        let theirs = oracle.borrow_mut().ask(&question)["valid"].clone();
        let mut ring = Keyring::default();
        ring.add_token(account(), &"token".into());
        let form = Form::from_pairs(received.iter().map(|(name, value)| (name, value)));
        let ours = ring.prove(&Signed {
            signature: Some(&signature),
            settings: None,
            base: &PublicUrl::parse(base).unwrap(),
            target: &target,
            content: Content::Form(&form),
            account: Some(account()),
        });
        prop_assert_eq!(json!(ours.is_ok()), theirs, "{} signed as {}: {:?}", base, signed_base, ours);
    });
}

#[test]
fn json_bodies_are_covered_by_their_hash() {
    let oracle = RefCell::new(Oracle::start("oracle.py"));
    proptest!(cases(300), |(body in "\\PC{1,60}", tamper: bool)| {
        let hash: String = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let (base, target) = ("https://callbacks.example.com", format!("/json?a=1&bodySHA256={hash}"));
        let signature = Key::auth_token(&"token".into()).sign(base, &target, Content::Empty);
        let received = if tamper { format!("{body} ") } else { body.clone() };
        let question = json!({
            "token": "token", "url": format!("{base}{target}"), "pairs": [], "algorithm": null, "signature": signature,
            "body": received,
        });
        let theirs = oracle.borrow_mut().ask(&question)["valid"].clone();
        let mut ring = Keyring::default();
        ring.add_token(account(), &"token".into());
        let ours = ring.prove(&Signed {
            signature: Some(&signature),
            settings: None,
            base: &PublicUrl::parse(base).unwrap(),
            target: &target,
            content: Content::Raw(received.as_bytes()),
            account: None,
        });
        prop_assert_eq!(json!(ours.is_ok()), theirs);
        prop_assert_eq!(ours.is_ok(), !tamper);
    });
}
