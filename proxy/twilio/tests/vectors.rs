//! Every published signature vector, with and without the port.
//!
//! `tests/twilio_signatures.json` was collected from the tests of Twilio's official libraries and
//! from its security page; each vector names its source.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

use holdline_twilio::signature::{Content, Key};
use holdline_twilio::{AccountSid, Form, Keyring, PublicUrl, Signed, Unproven};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("twilio_signatures.json")).unwrap()
}

fn form_of(vector: &Value) -> Form {
    let pairs = vector["params"].as_array().unwrap();
    Form::from_pairs(
        pairs.iter().map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())),
    )
}

fn split(url: &str) -> (PublicUrl, &str) {
    let path = url.find("://").unwrap() + 3;
    let path = path + url[path..].find('/').unwrap();
    (PublicUrl::parse(&url[..path]).unwrap(), &url[path..])
}

/// The same URL with the port form that was not signed: without its port, or with the scheme's own.
/// A port that is not the scheme's own cannot be guessed from a URL without it, by any library.
fn other_port_form(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").unwrap();
    let slash = rest.find('/').unwrap();
    let (authority, path) = rest.split_at(slash);
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    let own = if scheme == "https" { ":443" } else { ":80" };
    match authority[host..].find(':') {
        Some(colon) if &authority[host + colon..] != own => None,
        Some(colon) => Some(format!("{scheme}://{}{path}", &authority[..host + colon])),
        None => Some(format!("{scheme}://{authority}{own}{path}")),
    }
}

#[track_caller]
fn prove(vector: &Value, url: &str) -> Result<(), Unproven> {
    let account: AccountSid = "AC0123456789abcdef0123456789abcdef".parse().unwrap();
    let mut ring = Keyring::default();
    ring.add_token(account, &vector["token"].as_str().unwrap().into());
    let (base, target) = split(url);
    let form = form_of(vector);
    let content = match vector["body"].as_str() {
        Some(body) => Content::Raw(body.as_bytes()),
        None => Content::Form(&form),
    };
    let proof = ring.prove(&Signed {
        signature: vector["expected"].as_str(),
        settings: None,
        base: &base,
        target,
        content,
        account: Some(account),
    });
    proof.map(drop)
}

#[test]
fn every_vector_is_signed_as_its_source_signs_it() {
    let all = vectors();
    for vector in all["vectors"].as_array().unwrap() {
        let key = Key::auth_token(&vector["token"].as_str().unwrap().into());
        let form = form_of(vector);
        let signature = key.sign(vector["signed_url"].as_str().unwrap(), "", Content::Form(&form));
        assert_eq!(signature, vector["expected"].as_str().unwrap(), "{}", vector["name"]);
    }
    assert_eq!(all["vectors"].as_array().unwrap().len(), 25);
}

#[test]
fn every_vector_is_proven_in_both_port_forms() {
    for vector in vectors()["vectors"].as_array().unwrap() {
        let url = vector["signed_url"].as_str().unwrap();
        assert_eq!(prove(vector, url), Ok(()), "{} as signed", vector["name"]);
        if let Some(other) = other_port_form(url) {
            assert_eq!(prove(vector, &other), Ok(()), "{} as {other}", vector["name"]);
        }
    }
}

#[test]
fn a_configured_port_of_any_kind_may_be_left_out_of_what_is_signed() {
    let vectors = vectors();
    let without =
        vectors["vectors"].as_array().unwrap().iter().find(|v| v["name"] == "base").unwrap();
    let url = without["signed_url"].as_str().unwrap().replace(".com/", ".com:8443/");
    assert_eq!(prove(without, &url), Ok(()));
}

#[test]
fn a_wrong_sort_order_is_not_produced() {
    for vector in vectors()["negative"].as_array().unwrap() {
        let key = Key::auth_token(&vector["token"].as_str().unwrap().into());
        let form = form_of(vector);
        let signature = key.sign(vector["url"].as_str().unwrap(), "", Content::Form(&form));
        assert_ne!(signature, vector["must_not_equal"].as_str().unwrap(), "{}", vector["name"]);
    }
}

#[test]
fn nothing_else_is_proven() {
    for vector in vectors()["vectors"].as_array().unwrap() {
        let url = vector["signed_url"].as_str().unwrap();
        assert!(prove(vector, &format!("{url}x")).is_err(), "{}: another path", vector["name"]);
        let mut other = vector.clone();
        other["token"] = "another token".into();
        assert!(prove(&other, url).is_err(), "{}: another token", vector["name"]);
        let mut other = vector.clone();
        if let Some(body) = vector["body"].as_str() {
            other["body"] = format!("{body} ").into();
        } else {
            let added = serde_json::json!(["Added", "1"]);
            other["params"].as_array_mut().unwrap().push(added);
        }
        assert!(prove(&other, url).is_err(), "{}: another body", vector["name"]);
    }
}

#[test]
fn a_body_without_its_hash_is_not_covered() {
    let mut vector = vectors()["vectors"][0].clone();
    vector["body"] = "{}".into();
    let url = vector["signed_url"].as_str().unwrap().to_owned();
    assert_eq!(prove(&vector, &url), Err(Unproven::BodyNotCovered));
}

#[test]
fn escapes_twilio_signs_undone_are_proven() {
    let token = "12345";
    let key = Key::auth_token(&token.into());
    let signature = key.sign("https://a.example", "/x?To=Forli'&From=a@b:1", Content::Empty);
    let vector =
        serde_json::json!({"token": token, "expected": signature, "params": [], "body": null});
    assert_eq!(prove(&vector, "https://a.example/x?To=Forli%27&From=a%40b%3A1"), Ok(()));
}
