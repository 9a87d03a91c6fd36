//! The chart: one line a failure, one bar a proxy.

use std::fmt::Write as _;

use super::{Entry, Report, time};

const ROW: usize = 15;
const LEFT: usize = 330;
const WIDTH: f64 = 420.0;

/// The share of callers begun in the failure's time who were not steered, and the waits, at the first rate.
pub(super) fn draw(report: &Report) -> String {
    let rate = report.rates().first().copied().unwrap_or_default();
    let mut body = String::new();
    let mut y = 60;
    for name in report.names() {
        let entries: Vec<&Entry> = report.of(rate, name).collect();
        let middle = y + entries.len() * ROW / 2 + 4;
        let _ = writeln!(body, "<text x=\"8\" y=\"{middle}\">{name}</text>");
        for entry in entries {
            draw_bar(&mut body, entry, y);
            y += ROW;
        }
        y += 12;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>.lost{{fill:#b3261e}}.dropped{{fill:#e8a33d}}.label{{font-size:10px;fill:#555}}.peer{{font-size:10px}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\">Callers who were not steered while the origin failed for 8 s, {rate} callers a second</text>\n\
         <rect class=\"lost\" x=\"8\" y=\"34\" width=\"12\" height=\"10\"/><text x=\"24\" y=\"43\">lost: no TwiML</text>\n\
         <rect class=\"dropped\" x=\"128\" y=\"34\" width=\"12\" height=\"10\"/><text x=\"144\" y=\"43\">dropped: a document that neither origin nor standby wrote; full width is all callers of those 8 s</text>\n\
         {body}</svg>\n",
        y + 8
    )
}

fn draw_bar(body: &mut String, entry: &Entry, y: usize) {
    let _ = writeln!(
        body,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"peer\">{}</text>",
        LEFT - 6,
        y + 10,
        entry.contender.name()
    );
    let failed = entry.rate as usize * 8;
    let mut x = LEFT as f64;
    let m = &entry.measured;
    for (class, count) in [("lost", m.lost), ("dropped", m.dropped)] {
        let width = (count as f64 / failed as f64).min(1.0) * WIDTH;
        if count > 0 {
            let _ = writeln!(
                body,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\"/>",
                width.max(1.0),
                ROW - 4
            );
            x += width.max(1.0);
        }
    }
    let label = format!("{} lost, {} dropped; p99 {}", m.lost, m.dropped, time(m.p99));
    let _ = writeln!(
        body,
        "<text x=\"{:.1}\" y=\"{}\" class=\"label\">{label}</text>",
        x + 5.0,
        y + 10
    );
}
