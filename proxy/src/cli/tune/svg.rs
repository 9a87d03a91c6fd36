//! The pictures: drawn by hand, because a report must show them without asking anybody.

use std::fmt::Write as _;
use std::time::Duration;

use holdline_policy::tune::{FEW_A_DAY, Happened, Ranked, Score, Span};
use holdline_policy::{Moment, Phase};

use super::{Tuned, text};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 360.0;
/// Around what is drawn: left, top, right, bottom.
const MARGIN: [f64; 4] = [70.0, 20.0, 20.0, 50.0];

/// A scale from values to places.
struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

// === impl Scale ===

impl Scale {
    /// A scale on which all of these have a place, and some air around them.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Scale {
        let most = values.clone().fold(0.0, f64::max);
        let least = values.fold(most, f64::min);
        let air = if most > least { (most - least) * 0.1 } else { most.max(1.0) * 0.1 };
        Scale { least: (least - air).max(0.0), most: most + air, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * (value - self.least) / (self.most - self.least)
    }

    /// Round values along it, five or so.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let step = round_step((self.most - self.least) / 5.0);
        let (first, most) = ((self.least / step).ceil(), self.most);
        let steps = ((self.most - self.least) / step) as u32;
        (0..=steps).map(move |n| (first + f64::from(n)) * step).filter(move |value| *value <= most)
    }
}

/// One, two or five of some power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
    steps.into_iter().find(|round| *round >= step).unwrap_or(power)
}

/// What each set costs: how long a failure goes unnoticed against what it does to callers, by how often it
/// takes down an origin that does not fail.
pub(super) fn trade_off(tuned: &Tuned) -> String {
    let detect = |ranked: &Ranked| ranked.detect().map_or(0.0, |time| time.as_secs_f64());
    let met = |ranked: &Ranked| ranked.met_bad_share() * 100.0;
    let across = Scale::around(tuned.ranked.iter().map(detect), MARGIN[0], WIDTH - MARGIN[2]);
    let up = Scale::around(tuned.ranked.iter().map(met), HEIGHT - MARGIN[3], MARGIN[1]);
    let mut svg = begin(HEIGHT);
    axes(&mut svg, &across, &up);
    let needless = |ranked: &&Ranked| ranked.needless_a_day() <= FEW_A_DAY;
    let places = tuned.ranked.iter().filter(needless).map(|ranked| (detect(ranked), met(ranked)));
    curve(&mut svg, places.collect(), &across, &up);
    label(&mut svg, WIDTH / 2.0, HEIGHT - 8.0, "middle", "time to detect, s");
    let turned = format!("transform=\"rotate(-90 14 {})\"", HEIGHT / 2.0);
    let _ = write!(
        svg,
        "<text x=\"14\" y=\"{}\" text-anchor=\"middle\" {turned}>visits that met a failing origin, %</text>",
        HEIGHT / 2.0
    );
    let best = tuned.ranked.first().map(|ranked| ranked.set);
    // What matters most is drawn last, over the others.
    for ranked in tuned.ranked.iter().rev() {
        let class = match ranked.set {
            0 => "force",
            set if Some(set) == best => "best",
            _ if ranked.needless_a_day() > FEW_A_DAY => "needless",
            _ => "other",
        };
        let (x, y) = (across.place(detect(ranked)), up.place(met(ranked)));
        let title = escaped(&format!(
            "{}: detected after {}, {} met it, {:.1} needless failovers a day, back after {}",
            text::name(tuned, ranked),
            text::time(ranked.detect()),
            text::percent(ranked.met_bad_share()),
            ranked.needless_a_day(),
            text::time(ranked.back()),
        ));
        let size = if matches!(class, "force" | "best") { 7 } else { 4 };
        let _ = write!(
            svg,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\"><title>{title}</title></circle>"
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The edge of what can be had without needless failovers: no set is better in both respects.
fn curve(svg: &mut String, mut places: Vec<(f64, f64)>, across: &Scale, up: &Scale) {
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut points = String::new();
    let mut lowest = f64::INFINITY;
    for (detect, met) in places {
        if met < lowest {
            lowest = met;
            let _ = write!(points, "{:.1},{:.1} ", across.place(detect), up.place(met));
        }
    }
    let _ = write!(svg, "<polyline class=\"curve\" points=\"{}\"/>", points.trim_end());
}

/// What was believed under each set, one line a set, below what was really so.
pub(super) fn timeline(tuned: &Tuned, world: usize, most: usize) -> String {
    let (truth, sets) = (tuned.worlds[world].happened(), text::shown(tuned, most));
    let rows: Vec<(String, &Score)> =
        sets.map(|ranked| (text::name(tuned, ranked), &ranked.scores[world])).collect();
    let (begins, ends) = around_outages(truth);
    let length = ends.since(begins).as_secs_f64();
    let left = 12.0 + 6.3 * rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) as f64;
    let most = length.max(0.001);
    let across = Scale { least: 0.0, most, from: left, to: WIDTH - MARGIN[2] };
    let height = 60.0 + 22.0 * (rows.len() + 1) as f64;
    let mut svg = begin(height);
    let place = |at: Moment| across.place(at.since(begins).as_secs_f64().min(length));
    label(&mut svg, left - 8.0, 24.0, "end", "really failing");
    for outage in truth.outages.iter().filter(|o| o.to >= begins && o.from <= ends) {
        bar(&mut svg, place(outage.from), place(outage.to), 12.0, "failing", "failing");
    }
    for (row, (name, score)) in rows.iter().enumerate() {
        let top = 34.0 + 22.0 * row as f64;
        label(&mut svg, left - 8.0, top + 12.0, "end", name);
        spans(&mut svg, &score.timeline, (begins, ends), top, place);
    }
    let bottom = height - 20.0;
    for tick in across.ticks() {
        let x = across.place(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"8\" x2=\"{x:.1}\" y2=\"{:.1}\"/>",
            bottom - 8.0
        );
        label(&mut svg, x, bottom + 4.0, "middle", &format!("{tick} s"));
    }
    svg.push_str("</svg>");
    svg
}

fn spans(
    svg: &mut String,
    timeline: &[Span],
    (begins, ends): (Moment, Moment),
    top: f64,
    place: impl Fn(Moment) -> f64,
) {
    for (number, span) in timeline.iter().enumerate() {
        let until = timeline.get(number + 1).map_or(ends, |next| next.from).min(ends);
        if until < begins || span.from > ends {
            continue;
        }
        let title = match span.phase {
            Phase::Down { cause, .. } => format!("down by {}", cause.name()),
            phase => phase.name().to_owned(),
        };
        bar(svg, place(span.from.max(begins)), place(until), top, span.phase.name(), &title);
    }
}

/// The time around the outages; all of it where there are none. What lasts for days shows no seconds.
fn around_outages(truth: &Happened) -> (Moment, Moment) {
    const BEFORE: Duration = Duration::from_secs(10);
    const BEHIND: Duration = Duration::from_secs(30);
    let Some(first) = truth.outages.first() else { return (truth.begins, truth.ends) };
    // The first that stand together: pictures of more are read by nobody.
    let mut to = first.to;
    for outage in truth.outages.iter() {
        if outage.from.since(to) <= BEHIND {
            to = outage.to;
        }
    }
    let from = Moment::at(first.from.since_start().saturating_sub(BEFORE));
    (from.max(truth.begins), (to + BEHIND).min(truth.ends))
}

fn begin(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"11\">{STYLE}<rect width=\"{WIDTH}\" height=\"{height}\" \
         class=\"paper\"/>"
    )
}

/// In each picture by itself, so that it can be taken out of the report.
const STYLE: &str = "<style>.paper{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#888}text{fill:#333}\
    .well{fill:#bfe3c0}.doubtful{fill:#f4e3a1}.stuck{fill:#f0b46a}.down{fill:#d9534f}.trial{fill:#8ab6e6}\
    .curve{fill:none;stroke:#2b8a3e;stroke-dasharray:4 3}.failing{fill:#444}.other{fill:#9aa7b3}.needless{fill:none;stroke:#d9534f;stroke-width:1.5}\
    .force{fill:#333}.best{fill:#2b8a3e}</style>";

fn axes(svg: &mut String, across: &Scale, up: &Scale) {
    for tick in across.ticks() {
        let x = across.place(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>",
            up.to, up.from
        );
        label(svg, x, up.from + 16.0, "middle", &rounded(tick));
    }
    for tick in up.ticks() {
        let y = up.place(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>",
            across.from, across.to
        );
        label(svg, across.from - 6.0, y + 4.0, "end", &rounded(tick));
    }
}

fn rounded(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn bar(svg: &mut String, from: f64, to: f64, top: f64, class: &str, title: &str) {
    let width = (to - from).max(1.0);
    let title = escaped(title);
    let _ = write!(
        svg,
        "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"16\">\
         <title>{title}</title></rect>"
    );
}

/// Text as it may stand in HTML and XML.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
