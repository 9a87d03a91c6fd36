//! What holds the house together: modules say what they are for, every row of the failure table names a
//! scenario that there is, and crates depend on nothing they must not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file of ours, with its text.
fn sources() -> Vec<(String, String)> {
    let mut folders: Vec<PathBuf> =
        ["proxy", "origin", "tests"].iter().map(|name| root().join(name)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(silent, [""; 0]);
}

#[test]
fn every_row_of_the_failure_table_has_its_scenario() {
    let table = std::fs::read_to_string(root().join("docs/failure-table.md")).unwrap();
    let named: BTreeSet<&str> = table
        .lines()
        .filter(|line| line.starts_with('|') && line.ends_with("` |"))
        .filter_map(|line| line.rsplit('`').nth(1))
        .collect();
    let scenarios = sources();
    let exists = |name: &str| {
        let signature = format!("async fn {name}()");
        scenarios
            .iter()
            .any(|(file, text)| file.starts_with("tests/tests/") && text.contains(&signature))
    };
    let missing: Vec<&&str> = named.iter().filter(|name| !exists(name)).collect();
    assert!(named.len() > 20, "the table was not read: {named:?}");
    assert!(missing.is_empty(), "no such scenario: {missing:?}");
}

#[test]
fn every_alert_speaks_of_metrics_that_exist_and_has_its_section() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (alerts, metrics) = (read("config/prometheus/alerts.yml"), read("docs/metrics.md"));
    let operating = read("docs/operating.md");
    let mut known: BTreeSet<String> = BTreeSet::new();
    for line in metrics.lines() {
        if let Some(name) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
            known.insert(name.to_owned());
            known.insert(format!("{name}_bucket"));
        }
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: BTreeSet<&str> =
        alerts.split(|c: char| !word(c)).filter(|text| text.starts_with("holdline_")).collect();
    let unknown: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(named.len() > 8 && unknown.is_empty(), "no such metric: {unknown:?}");
    let sections: BTreeSet<String> = operating
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_ascii_lowercase)
        .collect();
    let books: Vec<&str> =
        alerts.lines().filter_map(|line| line.split("docs/operating.md#").nth(1)).collect();
    let missing: Vec<&&str> = books.iter().filter(|name| !sections.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/operating.md says nothing of {missing:?}");
    assert_eq!(books.len(), alerts.matches("- alert:").count());
}

#[test]
fn every_alert_is_tested() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (alerts, tests) =
        (read("config/prometheus/alerts.yml"), read("tests/prometheus/alerts.test.yml"));
    let named = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let untested: Vec<&str> = named
        .filter(|name| {
            !tests.lines().any(|line| {
                line.contains("alertname")
                    && line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *name)
            })
        })
        .collect();
    assert_eq!(untested, [""; 0]);
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (dashboard, metrics) = (read("config/grafana/holdline.json"), read("docs/metrics.md"));
    let known: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("| `").and_then(|rest| rest.split('`').next()))
        .collect();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let shown = dashboard.split(|c: char| !word(c)).filter(|text| text.starts_with("holdline_"));
    let is_known = |name: &&str| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        known.contains(*name) || base.is_some_and(|base| known.contains(base))
    };
    let unknown: BTreeSet<&str> = shown.filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "no such metric: {unknown:?}");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 20));
}

#[test]
fn crates_depend_on_nothing_they_must_not() {
    let manifest =
        |folder: &str| std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let ours = |folder: &str| -> Vec<String> {
        let text = manifest(folder);
        let depends =
            |name: &&str| text.lines().any(|line| line.starts_with(&format!("{name}.workspace")));
        ["holdline", "holdline-policy", "holdline-twilio", "holdline-origin", "twilio-sim"]
            .iter()
            .filter(|name| depends(name))
            .map(|name| (*name).to_owned())
            .collect()
    };
    assert_eq!(ours("proxy/policy"), [""; 0]);
    assert_eq!(ours("proxy/twilio"), [""; 0]);
    assert_eq!(ours("proxy"), ["holdline-policy", "holdline-twilio"]);
    assert_eq!(ours("origin"), ["holdline-twilio"]);
    assert_eq!(ours("tests/twilio-sim"), ["holdline-twilio"]);
    // The simulator shares the signature and the form with the product, and no model of TwiML.
    for (name, text) in sources() {
        if name.starts_with("tests/twilio-sim/") {
            for shared in
                ["holdline_twilio::verbs", "holdline_twilio::document", "holdline_twilio::Document"]
            {
                assert!(!text.contains(shared), "{name} uses {shared}");
            }
        }
    }
}
