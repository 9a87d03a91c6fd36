//! What upstreams send when something is wrong with them, and what Twilio's own library writes when
//! nothing is.
//!
//! The bad documents are in `bad_documents`, each named after the reason for which it is refused; they
//! are written in the manner of the servers they are named after. The good ones come from the official
//! library, which `make setup` puts into `target/oracle`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod oracle_process;

use std::path::Path;

use bytes::Bytes;
use holdline_twilio::Document;
use holdline_twilio::document::{MAX_BYTES, Refusal};
use oracle_process::Oracle;
use serde_json::json;

fn judge(bytes: &[u8]) -> Result<u32, Refusal> {
    Document::check(Bytes::copy_from_slice(bytes)).map(|(_, warnings)| warnings.total())
}

#[test]
fn every_bad_document_is_refused_for_its_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_documents");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (reason, _) = name.split_once("--").expect("a reason in the name");
        let refusal = judge(&std::fs::read(&path).unwrap()).expect_err(name);
        assert_eq!(refusal.name(), reason, "{name}: {refusal}");
        seen += 1;
    }
    assert!(seen > 30, "only {seen} documents");
}

#[test]
fn sizes_and_depths_are_bounded_where_they_are_said_to_be() {
    let say = |length: usize| {
        let (before, after) = ("<Response><Say>", "</Say></Response>");
        let text = "x".repeat(length - before.len() - after.len());
        format!("{before}{text}{after}")
    };
    assert_eq!(judge(say(MAX_BYTES).as_bytes()), Ok(0));
    assert_eq!(judge(say(MAX_BYTES + 1).as_bytes()), Err(Refusal::TooLarge));
    let nested = |depth: usize| {
        format!("<Response>{}{}</Response>", "<a>".repeat(depth), "</a>".repeat(depth))
    };
    assert!(judge(nested(30).as_bytes()).is_ok());
    assert_eq!(judge(nested(5000).as_bytes()), Err(Refusal::TooDeep));
}

/// Everything the library has a name for, once with every attribute it takes, and then at random.
#[test]
fn whatever_the_official_library_writes_passes() {
    let mut oracle = Oracle::start("twiml.py");
    let every = oracle.ask(&json!({ "every": true }));
    let every = every["documents"].as_array().unwrap().clone();
    assert!(every.len() > 80, "only {} documents", every.len());
    let random = (0..400).flat_map(|seed| {
        oracle.ask(&json!({ "seed": seed, "count": 5 }))["documents"].as_array().unwrap().clone()
    });
    for (number, document) in every.iter().cloned().chain(random).enumerate() {
        let text = document.as_str().unwrap();
        let judged = judge(text.as_bytes());
        let warnings = judged.unwrap_or_else(|refusal| panic!("{refusal}:\n{text}"));
        // What the library offers for voice, this crate's vocabulary knows.
        assert!(warnings == 0 || number >= every.len(), "{warnings} warnings:\n{text}");
        if number % 20 == 0 {
            for cut in 0..text.len() {
                assert!(
                    judge(&text.as_bytes()[..cut]).is_err(),
                    "passed when cut after {cut}:\n{text}"
                );
            }
        }
    }
}
