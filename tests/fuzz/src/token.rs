//! Hold tokens: what was sealed opens as it was, anything else does not open, and a token comes off a URL
//! as it went on.

#![no_main]

use std::sync::LazyLock;

use holdline::relay::hold::{HoldKeys, Token, strip, with_token};

static KEYS: LazyLock<HoldKeys> =
    LazyLock::new(|| HoldKeys::new(&[HoldKeys::draw().unwrap()]).unwrap());

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data).into_owned();
    assert_eq!(KEYS.open(&text), None);
    let (target, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let token = Token {
        delivery: target.to_owned(),
        row: rest.to_owned(),
        call: "CA".to_owned(),
        since_ms: data.len() as u64,
        holds: 1,
        may_have_run: data.len() % 2 == 0,
        carried: rest.split('\n').map(|line| (line.to_owned(), target.to_owned())).collect(),
    };
    let Some(sealed) = KEYS.seal(&token) else { return };
    assert_eq!(KEYS.open(&sealed), Some(token));
    let at = data.first().map_or(0, |&byte| usize::from(byte) % sealed.len());
    let mut other = sealed.clone().into_bytes();
    other[at] = if other[at] == b'A' { b'B' } else { b'A' };
    // The last letter may carry bits that say nothing.
    if at + 1 < other.len() {
        assert_eq!(KEYS.open(std::str::from_utf8(&other).unwrap()), None);
    }
    let back = with_token(target, &sealed);
    if strip(target).is_none() && !target.contains('#') {
        let (stripped, found) = strip(&back).expect("it was put on");
        assert_eq!(
            (stripped.trim_end_matches('?'), found),
            (target.trim_end_matches('?'), &*sealed)
        );
    }
});
