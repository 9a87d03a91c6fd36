//! The report: one file that shows everything and asks nobody for anything.

use std::fmt::Write as _;

use super::svg::{escaped, timeline, trade_off};
use super::text::{name, percent, recommended, shown, time};
use super::{Kind, Tuned};
use crate::cli::when;

/// Sets whose verdicts are drawn.
pub(super) const DRAWN: usize = 8;

const HEAD: &str = "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
    <title>holdline tune</title><style>body{font:15px/1.5 sans-serif;max-width:900px;margin:2em auto;\
    padding:0 1em;color:#222}table{border-collapse:collapse;font-size:13px}td,th{padding:.2em .7em;\
    border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left;\
    font-family:monospace}.advice{background:#eef6ee;padding:.8em 1em;border-left:4px solid #2b8a3e}\
    svg{width:100%;height:auto}.key span{display:inline-block;padding:0 .6em;margin-right:.5em}</style>\
    </head><body>";

/// What the colours of the pictures mean.
const KEY: &str = "<p class=\"key\"><span style=\"background:#bfe3c0\">well</span>\
    <span style=\"background:#f4e3a1\">doubtful</span><span style=\"background:#f0b46a\">stuck</span>\
    <span style=\"background:#d9534f;color:#fff\">down</span>\
    <span style=\"background:#8ab6e6\">trial</span></p>";

/// The report on everything that came of it; `most` sets are listed.
pub(super) fn report(tuned: &Tuned, most: usize) -> String {
    let mut html = String::from(HEAD);
    let _ = write!(
        html,
        "<h1>Thresholds, side by side</h1><p class=\"advice\">{}</p>",
        escaped(&recommended(tuned))
    );
    html.push_str("<ul>");
    for world in &tuned.worlds {
        let from = match &world.kind {
            Kind::Past(past) => format!(", from {}", when::shown(past.began_ms)),
            Kind::Scenario(_) => String::new(),
        };
        let _ = write!(
            html,
            "<li><b>{}</b>{from}: {}</li>",
            escaped(&world.name),
            escaped(&world.what)
        );
    }
    html.push_str("</ul><h2>What each set costs</h2>");
    html.push_str(&trade_off(tuned));
    html.push_str(
        "<p>Each dot is a set: further left is noticed sooner, further down hurts fewer callers. A ring \
         in red takes down an origin that does not fail, more than once in two days; along the line lies what \
         can be had without that. Black is in force, green is best.</p>",
    );
    table(&mut html, tuned, most);
    for (number, world) in tuned.worlds.iter().enumerate() {
        let _ = write!(html, "<h2>{}: what is believed under each set</h2>", escaped(&world.name));
        html.push_str(&timeline(tuned, number, DRAWN));
        html.push_str(KEY);
    }
    html.push_str("</body></html>\n");
    html
}

fn table(html: &mut String, tuned: &Tuned, most: usize) {
    html.push_str("<table><tr>");
    for head in
        ["set", "detect", "longest", "needless a day", "flaps", "met bad", "back", "unknown"]
    {
        let _ = write!(html, "<th>{head}</th>");
    }
    html.push_str("</tr>");
    for ranked in shown(tuned, most) {
        html.push_str("<tr>");
        for cell in [
            name(tuned, ranked),
            time(ranked.detect()),
            time(ranked.detect_longest()),
            format!("{:.1}", ranked.needless_a_day()),
            ranked.flaps().to_string(),
            percent(ranked.met_bad_share()),
            time(ranked.back()),
            percent(ranked.unknown_share()),
        ] {
            let _ = write!(html, "<td>{}</td>", escaped(&cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
}
