//! A delivery as it is carried from one spool to another: a line of JSON that holds everything, to the
//! byte, and is not believed when it comes in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::delivery::{Delivery, Kind, State, unix_ms};
use crate::ingress::travels_on;

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
pub(super) mod tests {
    use super::*;

    /// A dead letter with everything in it.
    pub(in super::super) fn delivery() -> Delivery {
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
}
