//! What people see of a delivery: telephone numbers and whatever was keyed masked, unless they are asked
//! for.

use holdline_twilio::Form;
use serde_json::{Value, json};

use super::delivery::{Delivery, State, age_of, unix_ms};
use crate::ingress::split_target;

/// Whether telephone numbers and what was keyed are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// As they are.
    Shown,
    /// All but their last two digits as asterisks.
    Masked,
}

/// A delivery in a list.
pub fn listed(delivery: &Delivery) -> Value {
    json!({
        "id": delivery.id,
        "kind": delivery.kind.name(),
        "state": delivery.state.name(),
        "reason": delivery.state.reason(),
        "row": delivery.row,
        "call": delivery.call,
        "account": delivery.account,
        "first_seen": humantime::format_rfc3339_millis(delivery.first_seen()).to_string(),
        "age_s": age_of(delivery.place).as_secs(),
        "tries": delivery.tries,
        "setbacks": delivery.setbacks,
        "last_outcome": delivery.last_outcome,
        "due_in_ms": (delivery.state == State::Waiting).then(|| delivery.due_ms - unix_ms()),
        "bytes": delivery.size(),
    })
}

/// A delivery with its request.
pub fn shown(delivery: &Delivery, numbers: Numbers) -> Value {
    let mut value = listed(delivery);
    let (path, query) = split_target(&delivery.target);
    let fields: Vec<String> = String::from_utf8_lossy(&delivery.fields)
        .lines()
        .map(|line| if numbers == Numbers::Shown { line.to_owned() } else { masked_text(line) })
        .collect();
    let parameters = |text: &[u8]| match Form::parse(text) {
        Ok(form) => form
            .iter()
            .map(|(name, value)| {
                json!([
                    name,
                    if numbers == Numbers::Shown { value.to_owned() } else { masked(name, value) }
                ])
            })
            .collect::<Vec<_>>(),
        Err(_) => vec![json!(format!("{} bytes that are no form", text.len()))],
    };
    value["request"] = json!({
        "method": delivery.method,
        "path": if numbers == Numbers::Shown { path.to_owned() } else { masked_text(path) },
        "query": parameters(query.as_bytes()),
        "fields": fields,
        "body": parameters(&delivery.body),
        "signature": delivery.signature.as_deref().map(String::from_utf8_lossy),
        "client": delivery.client.map(|client| client.to_string()),
    });
    value
}

/// A parameter's value without telephone numbers and without what somebody keyed or said. A notice holds
/// a request of its own.
fn masked(name: &str, value: &str) -> String {
    const SAID: [&str; 4] = ["Digits", "SpeechResult", "UnstableSpeechResult", "TranscriptionText"];
    const TIMES: [&str; 2] = ["At", "Timestamp"];
    match name {
        "Sent" => masked_form(value),
        "Target" => match value.split_once('?') {
            Some((path, query)) => format!("{}?{}", masked_text(path), masked_form(query)),
            None => masked_text(value),
        },
        name if SAID.contains(&name) => "*".repeat(value.chars().count()),
        name if TIMES.contains(&name) => value.to_owned(),
        _ => masked_text(value),
    }
}

fn masked_form(text: &str) -> String {
    match Form::parse(text.as_bytes()) {
        Ok(form) => {
            let pairs: Vec<String> = form
                .iter()
                .map(|(name, value)| format!("{name}={}", masked(name, value)))
                .collect();
            pairs.join("&")
        }
        Err(_) => masked_text(text),
    }
}

/// A text in which every run of seven digits or more shows but its last two, blanks and what else stands
/// between the digits of a telephone number left as they are. Identifiers of Twilio's are kept.
fn masked_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(sid) = sid_at(rest) {
            flush(&mut run, &mut out);
            out.push_str(sid);
            rest = &rest[sid.len()..];
            continue;
        }
        if c.is_ascii_digit() || (!run.is_empty() && " -().+".contains(c)) {
            run.push(c);
        } else {
            flush(&mut run, &mut out);
            out.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    flush(&mut run, &mut out);
    out
}

/// One of Twilio's identifiers at the beginning of a text: two capitals and 32 hexadecimal digits.
fn sid_at(text: &str) -> Option<&str> {
    let sid = text.get(..34)?;
    let (kind, digits) = sid.split_at(2);
    let fits = kind.bytes().all(|byte| byte.is_ascii_uppercase())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then_some(sid)
}

fn flush(run: &mut String, out: &mut String) {
    let mut left = run.bytes().filter(u8::is_ascii_digit).count();
    let is_number = left >= 7;
    for c in run.drain(..) {
        if c.is_ascii_digit() {
            out.push(if is_number && left > 2 { '*' } else { c });
            left -= 1;
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::carried::tests::delivery;
    use super::*;

    #[test]
    fn numbers_are_masked_and_identifiers_are_not() {
        for (text, expect) in [
            ("+15005550006", "+*********06"),
            ("(500) 555-0006", "(***) ***-**06"),
            ("CA00000000000000000000000000000001", "CA00000000000000000000000000000001"),
            ("/calls/15005550006/x", "/calls/*********06/x"),
            ("200", "200"),
            ("", ""),
            ("%2B15005550006", "%2B*********06"),
            ("call 500 555 0006 now", "call *** *** **06 now"),
            ("x15005550006", "x*********06"),
        ] {
            assert_eq!(masked_text(text), expect);
        }
        assert_eq!(masked("Digits", "12*"), "***");
        assert_eq!(masked("SpeechResult", "my name"), "*******");
        assert_eq!(
            masked("Sent", "Digits=4711&From=%2B15005550006"),
            "Digits=****&From=+*********06"
        );
        assert_eq!(masked("Target", "/x?phone=5005550006&q=1"), "/x?phone=********06&q=1");
    }

    #[test]
    fn what_is_shown_tells_nothing_that_was_not_asked_for() {
        let text = shown(&delivery(), Numbers::Masked).to_string();
        assert!(!text.contains("5005550006") && !text.contains("5005550001"), "{text}");
        assert!(!text.contains("123"), "{text}");
        let text = shown(&delivery(), Numbers::Shown).to_string();
        assert!(text.contains("+15005550006") && text.contains("123"), "{text}");
    }
}
