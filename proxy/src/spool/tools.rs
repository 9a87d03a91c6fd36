//! What people see of the spool, and what they carry from one to another.
//!
//! A delivery is shown with telephone numbers and whatever was keyed masked, unless they are asked for;
//! it is carried as a line of JSON that holds everything, to the byte.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdline_twilio::Form;
use http::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tokio::sync::oneshot;

use super::delivery::{Delivery, Kind, State, age_of, unix_ms};
use super::job::{Job, Part};
use super::store;
use super::{Filter, OpenFault, Place, Spool};
use crate::ingress::{split_target, travels_on};

/// Deliveries of one page.
pub const PAGE: u32 = 200;

/// Whether telephone numbers and what was keyed are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// As they are.
    Shown,
    /// All but their last two digits as asterisks.
    Masked,
}

/// Why a tool's work was not done.
#[derive(Debug, thiserror::Error)]
pub enum ToolFault {
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] OpenFault),
    /// The spool could not be read or written.
    #[error("the spool cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    /// Nothing was changed.
    #[error("the spool cannot be written; nothing was changed")]
    NotWritten,
    /// The filter means nothing.
    #[error("{0}")]
    Filter(String),
}

/// A reader of a spool's file, whoever else writes to it.
#[derive(Debug)]
pub struct Reader(SqliteConnection);

// === impl Reader ===

impl Reader {
    /// Opens the spool in a folder.
    pub async fn open(folder: &Path) -> Result<Reader, OpenFault> {
        Ok(Reader(Place::new(folder.to_owned()).connect_to_read().await?))
    }

    /// Opens a spool's file under whatever name.
    pub async fn open_file(file: &Path) -> Result<Reader, OpenFault> {
        Ok(Reader(Place::connect_to(file).await?))
    }

    /// One page of what a filter chooses, behind the place `after`.
    pub async fn page(&mut self, filter: &Filter, after: i64) -> Result<Vec<Delivery>, ToolFault> {
        check(filter)?;
        Ok(store::list(&mut self.0, filter, after, PAGE).await?)
    }

    /// The same of a file that may be damaged: what can be read, and the fault that ended it.
    pub async fn readable(
        &mut self,
        filter: &Filter,
        after: i64,
    ) -> (Vec<Delivery>, Option<ToolFault>) {
        let (found, fault) = store::readable(&mut self.0, filter, after, PAGE).await;
        (found, fault.map(ToolFault::from))
    }

    /// How many a filter chooses, and the place of the last of them.
    pub async fn count(&mut self, filter: &Filter) -> Result<(u64, i64), ToolFault> {
        check(filter)?;
        Ok(store::count(&mut self.0, filter).await?)
    }
}

// === impl Spool ===

impl Spool {
    /// A reader of its file.
    pub async fn reader(&self) -> Result<Reader, OpenFault> {
        Reader::open(&self.config.folder).await
    }

    /// Sends again what a filter chooses, from the first try on; how many. What was delivered is only sent
    /// again where the filter says so.
    pub async fn send_again(&self, filter: &Filter) -> Result<u64, ToolFault> {
        check(filter)?;
        let mut count = 0;
        for filter in filter.of_a_replay() {
            count += self.in_parts(&filter, Job::Replay).await?;
        }
        Ok(count)
    }

    /// Removes what a filter chooses; how many.
    pub async fn remove(&self, filter: &Filter) -> Result<u64, ToolFault> {
        check(filter)?;
        self.in_parts(filter, Job::Remove).await
    }

    /// Does something to all that a filter chooses, part by part, so that others write in between.
    async fn in_parts(
        &self,
        filter: &Filter,
        job: fn(Filter, i64, oneshot::Sender<Part>) -> Job,
    ) -> Result<u64, ToolFault> {
        let (mut after, mut count) = (0, 0);
        loop {
            let part = self.job(|done| job(filter.clone(), after, done)).await?;
            count += part.count;
            match part.more {
                Some(place) => after = place,
                None => return Ok(count),
            }
        }
    }

    /// Takes in what another spool has kept; how many were new.
    pub async fn import(&self, deliveries: Vec<Delivery>) -> Result<u64, ToolFault> {
        self.job(|done| Job::Import(deliveries, done)).await
    }

    async fn job<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, ToolFault> {
        let (done, result) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| ToolFault::NotWritten)?;
        result.await.map_err(|_| ToolFault::NotWritten)
    }
}

fn check(filter: &Filter) -> Result<(), ToolFault> {
    filter.fault().map_or(Ok(()), |fault| Err(ToolFault::Filter(fault)))
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

/// A delivery as it is carried from one spool to another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    place: i64,
    #[serde(default)]
    kind: String,
    id: String,
    ordered_by: String,
    row: String,
    account: Option<String>,
    call: Option<String>,
    method: String,
    target: String,
    /// The header block, in base64.
    fields: String,
    /// In base64.
    body: String,
    /// In base64.
    signature: Option<String>,
    client: Option<String>,
    state: String,
    reason: Option<String>,
    due_ms: i64,
    tries: u32,
    setbacks: u32,
    last_outcome: Option<String>,
    #[serde(default)]
    tried_ms: Option<i64>,
    #[serde(default)]
    revived_ms: Option<i64>,
}

impl From<&Delivery> for Carried {
    fn from(delivery: &Delivery) -> Carried {
        Carried {
            place: delivery.place,
            kind: delivery.kind.name().to_owned(),
            id: delivery.id.clone(),
            ordered_by: delivery.order.clone(),
            row: delivery.row.clone(),
            account: delivery.account.clone(),
            call: delivery.call.clone(),
            method: delivery.method.clone(),
            target: delivery.target.clone(),
            fields: STANDARD.encode(&delivery.fields),
            body: STANDARD.encode(&delivery.body),
            signature: delivery.signature.as_ref().map(|bytes| STANDARD.encode(bytes)),
            client: delivery.client.map(|client| client.to_string()),
            state: delivery.state.name().to_owned(),
            reason: delivery.state.reason().map(str::to_owned),
            due_ms: delivery.due_ms,
            tries: delivery.tries,
            setbacks: delivery.setbacks,
            last_outcome: delivery.last_outcome.clone(),
            tried_ms: delivery.tried_ms,
            revived_ms: delivery.revived_ms,
        }
    }
}

impl TryFrom<Carried> for Delivery {
    type Error = String;

    /// What would not make a request is refused: a header block that ends early, a method or target with
    /// blanks in it.
    fn try_from(carried: Carried) -> Result<Delivery, String> {
        let decode = |what: &str, text: &str| {
            STANDARD.decode(text).map_err(|_| format!("{}: {what} is not base64", carried.id))
        };
        let fields = decode("fields", &carried.fields)?;
        let body = decode("body", &carried.body)?;
        let signature =
            carried.signature.as_ref().map(|text| decode("signature", text)).transpose()?;
        let token =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_request = token(&carried.id)
            && token(&carried.method)
            && token(&carried.target)
            && carried.target.starts_with('/')
            && is_header_block(&fields);
        if !is_request {
            return Err(format!("{}: is no request", carried.id));
        }
        // Whoever's clock was ahead must not make all that comes later look as if it had just come.
        let now = unix_ms().saturating_mul(1_000_000);
        if carried.place <= 0 || carried.place > now.saturating_add(AHEAD) {
            return Err(format!("{}: its place is no time that has been", carried.id));
        }
        let Some(code) = State::NAMES.iter().position(|name| *name == carried.state) else {
            return Err(format!("{}: {:?} is no state", carried.id, carried.state));
        };
        Ok(Delivery {
            place: carried.place,
            kind: if carried.kind == Kind::Notice.name() { Kind::Notice } else { Kind::Callback },
            order: carried.ordered_by,
            row: carried.row,
            account: carried.account,
            call: carried.call,
            method: carried.method,
            target: carried.target,
            fields,
            body: Bytes::from(body),
            signature,
            client: carried.client.and_then(|client| client.parse().ok()),
            state: State::of(code as i64, carried.reason.as_deref()),
            due_ms: carried.due_ms.max(0),
            tries: carried.tries,
            setbacks: carried.setbacks,
            last_outcome: carried.last_outcome,
            tried_ms: carried.tried_ms,
            revived_ms: carried.revived_ms,
            id: carried.id,
        })
    }
}

/// How far another edge's clock may be ahead: an hour, in nanoseconds.
const AHEAD: i64 = 3_600_000_000_000;

/// Whether these are header fields that travel on to an upstream, and nothing else.
fn is_header_block(fields: &[u8]) -> bool {
    const FIELDS: usize = 200;
    let whole = [fields, b"\r\n"].concat();
    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let Ok(httparse::Status::Complete((length, headers))) =
        httparse::parse_headers(&whole, &mut headers)
    else {
        return false;
    };
    let travels = |name: &str| HeaderName::try_from(name).is_ok_and(|name| travels_on(&name));
    length == whole.len() && headers.iter().all(|header| travels(header.name))
}

#[cfg(test)]
mod tests {
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

    fn delivery() -> Delivery {
        Delivery {
            place: 1_700_000_000_000_000_000,
            kind: Kind::Notice,
            id: "d1".into(),
            order: "CA1".into(),
            row: "call_ended".into(),
            account: Some("AC1".into()),
            call: None,
            method: "POST".into(),
            target: "/x?From=%2B15005550006".into(),
            fields: b"a: b\r\n".to_vec(),
            body: Bytes::from_static(b"Digits=123&To=%2B15005550001"),
            signature: Some(b"sig\xff".to_vec()),
            client: Some([127, 0, 0, 1].into()),
            state: State::Dead(Some(holdline_policy::redelivery::Death::Gone)),
            due_ms: 5,
            tries: 2,
            setbacks: 1,
            last_outcome: Some("status_4xx".into()),
            tried_ms: None,
            revived_ms: Some(7),
        }
    }

    #[test]
    fn what_is_carried_arrives_as_it_was() {
        let line = serde_json::to_string(&Carried::from(&delivery())).unwrap();
        let carried: Carried = serde_json::from_str(&line).unwrap();
        assert_eq!(Delivery::try_from(carried), Ok(delivery()));
        for (wrong, right) in [
            ("/x y", "/x?From=%2B15005550006"),
            ("lost", "dead"),
            (&STANDARD.encode("a: b\r\n\r\nGET / HTTP/1.1\r\n"), &STANDARD.encode("a: b\r\n")),
            (&STANDARD.encode("\r\nGET / HTTP/1.1\r\n"), &STANDARD.encode("a: b\r\n")),
            (&STANDARD.encode("Content-Length: 9\r\n"), &STANDARD.encode("a: b\r\n")),
            ("\"place\":-5", "\"place\":1700000000000000000"),
            ("\"place\":9000000000000000000", "\"place\":1700000000000000000"),
        ] as [(&str, &str); 7]
        {
            let carried: Carried = serde_json::from_str(&line.replace(right, wrong)).unwrap();
            assert!(Delivery::try_from(carried).is_err(), "{wrong}");
        }
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
