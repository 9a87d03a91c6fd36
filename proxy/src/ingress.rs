//! From a request on the wire to a [`Visit`].
//!
//! What is kept of a request is what the rest of the way needs: target and body to the byte, and the
//! header fields that may travel on. Hop-by-hop fields end here (RFC 9110 section 7.6.1), and so do
//! forwarding fields and fields under our own name, which only we may set.

use std::net::IpAddr;

use bytes::Bytes;
use holdline_policy::{Catalogue, Found, Moment};
use holdline_twilio::signature::Content;
use holdline_twilio::{AccountSid, CallSid, Form};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::answer::Refusal;
use crate::listener::head::HeadLimits;
use crate::upstream::http1::push_field;

/// The path below which only the edge itself asks an application.
const OURS: &str = "/holdline/";

/// Fields of Twilio's that the way needs by name.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
const SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");
const IDEMPOTENCY_TOKEN: HeaderName = HeaderName::from_static("i-twilio-idempotency-token");

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When it began.
    pub at: Moment,
    /// Its method.
    pub method: Method,
    /// Path and query, to the byte.
    pub target: String,
    /// The fields that may travel on, as they stand in a header block.
    pub fields: Vec<u8>,
    /// Twilio's proof.
    pub signature: Option<HeaderValue>,
    /// Which shared key made it.
    pub settings: Option<HeaderValue>,
    /// What Twilio tells repeated requests by.
    pub idempotency_token: Option<HeaderValue>,
    /// Whether the body says that it is a form.
    pub is_form: bool,
    /// The body, whole.
    pub body: Bytes,
    /// Who the client is.
    pub client: Option<IpAddr>,
    /// Whether there are too many requests to ask an upstream now.
    pub shed: bool,
}

/// An arrival placed in the catalogue, its parameters read.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The request.
    pub arrival: Arrival,
    /// The row's index in the catalogue.
    pub row: usize,
    /// The parameters: of the body, or of the query where there is no form body.
    pub form: Form,
    /// The account.
    pub account: Option<AccountSid>,
    /// The call.
    pub call: Option<CallSid>,
    /// Whether the signature received is the one we would make ourselves for the same request; the
    /// proof says so.
    pub signature_is_current: bool,
}

/// The head of a request, before its body is read.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Path and query, as received.
    pub target: &'a [u8],
    /// Whether the protocol demands a `Host` field.
    pub needs_host: bool,
    /// All fields.
    pub fields: &'a HeaderMap,
}

// === impl Head ===

impl Head<'_> {
    /// Refuses what no endpoint could make sense of.
    pub fn check(&self, limits: HeadLimits) -> Result<(), Refusal> {
        let fields: usize =
            self.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if fields + self.target.len() > limits.size || self.fields.len() > limits.fields {
            return Err(Refusal::HeaderTooLarge);
        }
        let hosts = self.fields.get_all(header::HOST).iter().count();
        let target_fine = self.target.first() == Some(&b'/')
            && self.target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#');
        let nominated = Nominated::of(self.fields).0.len();
        let host_fine = hosts == 1 || (hosts == 0 && !self.needs_host);
        if !target_fine || !host_fine || nominated > MOST_NOMINATED {
            return Err(Refusal::BadRequest);
        }
        Ok(())
    }

    /// Finds the row.
    pub fn place<'c>(&self, catalogue: &'c Catalogue) -> Found<'c> {
        catalogue.find(self.method.as_str(), self.path())
    }

    /// Whether the path, as some application may read it, could be one the catalogue lists. Such a
    /// request must not pass the proof by being spelled another way. One that leads upwards is read in
    /// too many ways.
    pub fn resembles_a_row(&self, catalogue: &Catalogue) -> bool {
        let paths = readings(self.path());
        paths.iter().any(|segments| segments.iter().any(|segment| segment == ".."))
            || paths.iter().flat_map(|segments| spellings(segments)).any(|path| {
                // What the edge itself sends to the application goes below this path.
                path.starts_with(OURS)
                    || !matches!(catalogue.find(self.method.as_str(), &path), Found::Unlisted)
            })
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        split_target(self.target()).0
    }

    /// The request without its body.
    pub fn arrival(&self, at: Moment, client: Option<IpAddr>) -> Arrival {
        let nominated = Nominated::of(self.fields);
        let mut fields = Vec::with_capacity(512);
        let cookies = cookies(self.fields);
        for (name, value) in self.fields {
            let joined = cookies.is_some() && name == header::COOKIE;
            if travels_on(name) && !nominated.holds(name) && !joined {
                push_field(&mut fields, name.as_str(), value.as_bytes());
            }
        }
        if let Some(cookies) = cookies {
            push_field(&mut fields, header::COOKIE.as_str(), &cookies);
        }
        let is_form = self
            .fields
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| is_form_type(value.as_bytes()));
        Arrival {
            at,
            method: self.method.clone(),
            target: self.target().to_owned(),
            fields,
            signature: self.fields.get(SIGNATURE).cloned(),
            settings: self.fields.get(SETTINGS).cloned(),
            idempotency_token: self.fields.get(IDEMPOTENCY_TOKEN).cloned(),
            is_form,
            body: Bytes::new(),
            client,
            shed: false,
        }
    }

    fn target(&self) -> &str {
        // `check` lets only ASCII through; anything else is no path that a row could have.
        std::str::from_utf8(self.target).unwrap_or_default()
    }
}

// === impl Arrival ===

impl Arrival {
    /// The query without its `?`; empty if there is none.
    pub fn query(&self) -> &str {
        split_target(&self.target).1
    }

    /// Reads the parameters and makes the arrival a visit to `row`.
    pub fn visit(self, row: usize) -> Result<Visit, Refusal> {
        let parameters = if self.is_form { self.body.as_ref() } else { self.query().as_bytes() };
        let form = Form::parse(parameters).map_err(|_| Refusal::BadForm)?;
        let account = form.get("AccountSid").and_then(|text| text.parse().ok());
        let call = form.get("CallSid").and_then(|text| text.parse().ok());
        Ok(Visit { arrival: self, row, form, account, call, signature_is_current: false })
    }
}

// === impl Visit ===

impl Visit {
    /// What Twilio's signature covers beside the URL.
    pub fn content(&self) -> Content<'_> {
        if self.arrival.is_form {
            Content::Form(&self.form)
        } else if self.arrival.body.is_empty() {
            Content::Empty
        } else {
            Content::Raw(&self.arrival.body)
        }
    }
}

/// The cookies, put together as HTTP/1 has them, where they came in pieces (RFC 9113 section 8.2.3).
pub fn cookies(fields: &HeaderMap) -> Option<Vec<u8>> {
    let mut pieces = fields.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let (first, second) = (pieces.next()?, pieces.next()?);
    Some(pieces.fold([first, second].join(&b"; "[..]), |all, piece| [&all, piece].join(&b"; "[..])))
}

/// The segments of a path as lenient applications read them, empty and single dots left out: with its
/// escapes undone before it is taken apart, or after.
fn readings(path: &str) -> [Vec<String>; 2] {
    const SLASHES: [char; 2] = ['/', '\\'];
    let tell = |segment: &&str| !matches!(*segment, "" | ".");
    let undone = unescaped(path);
    let before = undone.split(SLASHES).filter(tell).map(str::to_owned).collect();
    let each = path.split(SLASHES).map(unescaped);
    // A slash inside of a segment is none between two.
    let each = each.map(|segment| segment.replace(SLASHES, "_"));
    let after = each.filter(|segment| tell(&segment.as_str())).collect();
    [before, after]
}

/// A path as applications spell the same thing: as it is, in lower case, without parameters (`;x=1`), and
/// without the ending that says in which format the answer should be (`.json`).
fn spellings(segments: &[String]) -> [String; 3] {
    let path = format!("/{}", segments.join("/"));
    let lower = path.to_ascii_lowercase();
    let plain = segments.iter().map(|segment| segment.split(';').next().unwrap_or_default());
    let mut plain = plain.collect::<Vec<_>>().join("/");
    plain.insert(0, '/');
    plain.make_ascii_lowercase();
    if let Some(dot) = plain.rfind('.').filter(|dot| !plain[*dot..].contains('/')) {
        plain.truncate(dot);
    }
    [path, lower, plain]
}

/// A text with its percent-escapes undone, and those that come to light by that.
fn unescaped(text: &str) -> String {
    let mut undone = unescaped_once(text);
    for _ in 0..3 {
        let again = unescaped_once(&undone);
        if again == undone {
            break;
        }
        undone = again;
    }
    undone
}

fn unescaped_once(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut undone = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |n: usize| bytes.get(at + n).and_then(|&d| char::from(d).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                undone.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                undone.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&undone).into_owned()
}

/// Splits a target into path and query.
pub fn split_target(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// Whether a content type is that of a form.
pub fn is_form_type(value: &[u8]) -> bool {
    let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// The fields that `Connection` may name. Each of them is compared with every field.
const MOST_NOMINATED: usize = 8;

/// The fields that `Connection` names as belonging to this hop.
struct Nominated<'a>(Vec<&'a [u8]>);

impl<'a> Nominated<'a> {
    fn of(fields: &'a HeaderMap) -> Nominated<'a> {
        let lists = fields.get_all(header::CONNECTION).iter();
        let names = lists.flat_map(|list| list.as_bytes().split(|&byte| byte == b','));
        let named = names.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
        // One more than is let in is enough to refuse.
        Nominated(named.take(MOST_NOMINATED + 1).collect())
    }

    fn holds(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }
}

/// Whether a field of a visit may travel on to an upstream.
pub fn travels_on(name: &HeaderName) -> bool {
    const ENDS_HERE: [&str; 15] = [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-twilio-signature",
        // It describes Twilio's signature, and ours is made with the auth token.
        "x-twilio-webhooks-signature-settings",
    ];
    !ENDS_HERE.iter().any(|field| reads_as(name, field)) && !speaks_for_us(name)
}

/// Whether a field of a request that is only streamed may pass on. What ends with this hop the framework
/// knows; what only looks like it, it does not.
pub fn passes_on(name: &HeaderName) -> bool {
    let looks_like_it = || name.as_str().contains('_') && !travels_on(name);
    !speaks_for_us(name) && !looks_like_it()
}

/// Whether a field says what only we may say: who the client is, which path is meant, or anything under
/// our own name.
fn speaks_for_us(name: &HeaderName) -> bool {
    const WHO_ASKS: [&str; 11] = [
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "cf-pseudo-ipv4",
        "cf-visitor",
        "forwarded",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        // Some applications take these for the path, which was checked.
        "x-original-url",
        "x-real-ip",
        "x-rewrite-url",
    ];
    ["holdline-", "x-forwarded-"].iter().any(|prefix| {
        let start = name.as_str().get(..prefix.len());
        start.is_some_and(|start| same(start, prefix))
    }) || WHO_ASKS.iter().any(|field| reads_as(name, field))
}

/// Whether applications read a name as that of `field`: many cannot tell `_` from `-`.
fn reads_as(name: &HeaderName, field: &str) -> bool {
    name.as_str().len() == field.len() && same(name.as_str(), field)
}

fn same(text: &str, field: &str) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    text.bytes().zip(field.bytes()).all(|(a, b)| dash(a) == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 1024, fields: 20 };

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn head<'a>(target: &'a str, fields: &'a HeaderMap) -> Head<'a> {
        Head { method: &Method::POST, target: target.as_bytes(), needs_host: true, fields }
    }

    #[test]
    fn what_no_endpoint_could_make_sense_of_is_refused() {
        let host = map(&[("host", "a")]);
        assert_eq!(head("/x?y=%20", &host).check(LIMITS), Ok(()));
        for target in ["", "x", "http://a/x", "/x y", "/x#y", "/\u{fc}"] {
            assert_eq!(head(target, &host).check(LIMITS), Err(Refusal::BadRequest), "{target}");
        }
        assert_eq!(head("/", &map(&[])).check(LIMITS), Err(Refusal::BadRequest));
        assert_eq!(
            head("/", &map(&[("host", "a"), ("host", "b")])).check(LIMITS),
            Err(Refusal::BadRequest)
        );
        let many = HeaderValue::try_from("x,".repeat(MOST_NOMINATED + 1)).unwrap();
        let mut names_many = host.clone();
        names_many.append(header::CONNECTION, many);
        assert_eq!(head("/", &names_many).check(LIMITS), Err(Refusal::BadRequest));
        let long = "/".repeat(LIMITS.size + 1);
        assert_eq!(head(&long, &host).check(LIMITS), Err(Refusal::HeaderTooLarge));
    }

    #[test]
    fn a_row_spelled_another_way_is_recognised() {
        let row = holdline_policy::RowSpec {
            path: "/calls/{id}/incoming".into(),
            ..holdline_policy::RowSpec::example()
        };
        let catalogue = Catalogue::new(vec![row]).unwrap();
        let host = map(&[("host", "a")]);
        for target in [
            "/calls/7/%69ncoming",
            "//calls/7/incoming",
            "/calls/7/incoming/",
            "/a/../calls/7/incoming?x",
            "/calls%2F7/incoming",
            "/calls%5C7\\incoming",
            "/calls/a%2Fb/%69ncoming",
            "/x/..//calls//..",
            "/%2e%2E/x",
            "/%68oldline/notices",
            "/Calls/7/INCOMING",
            "/calls/7/incoming.json",
            "/calls;a=b/7/incoming;jsessionid=1",
            "/calls/7/%2569ncoming",
        ] {
            assert!(head(target, &host).resembles_a_row(&catalogue), "{target}");
        }
        for target in ["/calls/7/pages", "/a//b/./c%2Fd", "/a..b/...", "/holdline"] {
            assert!(!head(target, &host).resembles_a_row(&catalogue), "{target}");
        }
    }

    #[test]
    fn only_end_to_end_fields_travel_on() {
        let fields = map(&[
            ("host", "a"),
            ("content-type", "application/x-www-form-urlencoded; charset=UTF-8"),
            ("connection", "close, X-Odd"),
            ("x-odd", "1"),
            ("x-twilio-webhooks-signature-settings", "key=k,algorithm=HMAC_SHA256"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("cf-connecting-ip", "1.2.3.4"),
            ("content_length", "7"),
            ("holdline-delivery", "forged"),
            ("holdline_delivery", "forged"),
            ("i-twilio-idempotency-token", "t"),
            ("cookie", "a=b"),
        ]);
        let arrival = head("/x", &fields).arrival(Moment::default(), None);
        assert_eq!(
            String::from_utf8(arrival.fields).unwrap(),
            "content-type: application/x-www-form-urlencoded; charset=UTF-8\r\n\
             i-twilio-idempotency-token: t\r\ncookie: a=b\r\n"
        );
        assert!(arrival.is_form);
    }
}
