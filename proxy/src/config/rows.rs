//! The catalogue as written in TOML, turned into rows.

use std::time::Duration;

use holdline_policy::catalogue::LARGEST_BODY;
use holdline_policy::{Catalogue, Kind, Party, Replay, RowSpec, Upstream};

use super::reader::Section;

const BUDGET: Duration = Duration::from_secs(9);
const CALLEE_BUDGET: Duration = Duration::from_secs(4);

/// Reads all `[[row]]` tables. Faults of single keys and of rows as a whole both end up in the list.
pub(super) fn read(root: &mut Section<'_>) -> Option<Catalogue> {
    let specs: Vec<RowSpec> =
        root.list("row").into_iter().filter_map(|mut row| read_row(&mut row)).collect();
    if specs.is_empty() {
        root.fault("row", "the catalogue needs at least one row");
    }
    match Catalogue::new(specs) {
        Ok(catalogue) => Some(catalogue),
        Err(faults) => {
            for fault in faults {
                root.fault(&format!("row {}", fault.row), &fault.what);
            }
            None
        }
    }
}

fn read_row(row: &mut Section<'_>) -> Option<RowSpec> {
    let name = row.required("name");
    let path = row.required("path");
    let kinds = [
        ("synchronous", Kind::Synchronous),
        ("asynchronous", Kind::Asynchronous),
        ("media", Kind::Media),
    ];
    if !row.has("kind") {
        row.fault("kind", "is missing");
    }
    let kind = row.choice("kind", &kinds);
    let parties = words(
        row,
        "parties",
        &[
            ("callee", Party::Callee),
            ("phones_only_caller", Party::PhonesOnlyCaller),
            ("web_caller", Party::WebCaller),
        ],
    );
    let parties = parties.unwrap_or_default();
    let usual = if kind == Some(Kind::Synchronous) && parties.contains(&Party::Callee) {
        CALLEE_BUDGET
    } else {
        BUDGET
    };
    let replay = row.choice(
        "replay",
        &[
            ("unsent", Replay::Unsent),
            ("refused", Replay::Refused),
            ("idempotent", Replay::Idempotent),
        ],
    );
    let chain = words(row, "chain", &Upstream::ALL.map(|upstream| (upstream.name(), upstream)));
    let spec = RowSpec {
        methods: row.texts("methods").unwrap_or_else(|| vec!["POST".into()]),
        query: row.texts("query").unwrap_or_default(),
        budget: row.duration("budget").unwrap_or(usual),
        body_limit: row.size("body_limit").unwrap_or(LARGEST_BODY),
        canned: row.text("canned"),
        hold: row.duration("hold"),
        saves: row.flag("saves", false),
        notices: row.has("notices").then(|| row.flag("notices", false)),
        // The safest class is the one that never repeats anything.
        replay: replay.unwrap_or(Replay::Unsent),
        // Reports are kept for the origin; only a row that says so hands them to the monitor.
        chain: chain.unwrap_or_else(|| match kind {
            Some(Kind::Asynchronous) => vec![Upstream::Origin],
            _ => Upstream::ALL.to_vec(),
        }),
        parties,
        name: name?,
        path: path?,
        kind: kind?,
    };
    Some(spec)
}

fn words<T: Copy>(row: &mut Section<'_>, key: &str, known: &[(&str, T)]) -> Option<Vec<T>> {
    let texts = row.texts(key)?;
    let mut values = Vec::with_capacity(texts.len());
    for text in texts {
        match known.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => values.push(*value),
            None => {
                let expected = known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
                row.fault(key, &format!("{text:?} is not one of {expected}"));
            }
        }
    }
    Some(values)
}
