//! Finding the row: a path that an application would read as a row's is that row or is refused, however
//! it is spelled.

#![no_main]

use std::sync::LazyLock;

use holdline::ingress::Head;
use holdline::listener::head::HeadLimits;
use holdline_policy::catalogue::RowSpec;
use holdline_policy::{Catalogue, Found};
use http::{HeaderMap, HeaderValue, Method, header};

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let row = |name: &str, path: &str| RowSpec {
        name: name.into(),
        path: path.into(),
        ..RowSpec::example()
    };
    Catalogue::new(vec![row("one", "/calls/{id}/incoming"), row("two", "/calls")]).unwrap()
});
static FIELDS: LazyLock<HeaderMap> =
    LazyLock::new(|| HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("edge.test"))]));

/// Whether another reader of URLs takes the path for a row's, with escapes undone before it is taken
/// apart, or after.
fn is_a_row(target: &str) -> bool {
    let Ok(url) = url::Url::parse(&format!("http://edge.test{target}")) else { return false };
    let undone =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = undone(url.path());
    let before: Vec<&str> = path.split(['/', '\\']).filter(|word| !word.is_empty()).collect();
    let after: Vec<String> = url.path_segments().into_iter().flatten().map(undone).collect();
    let after: Vec<&str> =
        after.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    [before, after].iter().any(|words| matches!(words[..], ["calls"] | ["calls", _, "incoming"]))
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let head = Head { method: &Method::POST, target: data, needs_host: true, fields: &FIELDS };
    const LIMITS: HeadLimits = HeadLimits { size: 4096, fields: 10 };
    if head.check(LIMITS).is_err() {
        return;
    }
    let target = std::str::from_utf8(data).expect("the check lets only ASCII through");
    let listed = !matches!(head.place(&CATALOGUE), Found::Unlisted);
    assert!(listed || head.resembles_a_row(&CATALOGUE) || !is_a_row(target), "{target}");
});
