//! Whether an upstream's answer will do.

use holdline_policy::Outcome;
use holdline_twilio::Document;
use http::HeaderValue;

use super::mend::body_of;
use crate::telemetry::Metrics;
use crate::upstream::http1::{Cloudflare, Reply};

/// A judge of answers.
pub(super) type Judge<T> = fn(Reply, &Metrics) -> Result<T, Unfit>;

/// Why an answer will not do.
pub(super) struct Unfit {
    pub(super) outcome: Outcome,
    pub(super) judged: Option<&'static str>,
}

/// An answer that will do, with what Twilio would warn about.
pub(super) struct Judged {
    pub(super) document: Document,
    pub(super) cookies: Vec<HeaderValue>,
    pub(super) warnings: u32,
}

pub(super) fn judge_document(reply: Reply, metrics: &Metrics) -> Result<Judged, Unfit> {
    if reply.status != 200 {
        return Err(unfit(&reply));
    }
    match Document::check(body_of(&reply, metrics)) {
        Ok((document, warnings)) => {
            Ok(Judged { document, cookies: reply.cookies, warnings: warnings.total() })
        }
        Err(refusal) => Err(Unfit { outcome: Outcome::NotTwiml, judged: Some(refusal.name()) }),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is a judge like any other")]
pub(super) fn judge_receipt(reply: Reply, _: &Metrics) -> Result<(), Unfit> {
    match reply.status {
        200..300 => Ok(()),
        _ => Err(unfit(&reply)),
    }
}

/// What an answer with another status than hoped for comes to. The network in front of an upstream may
/// say that it never reached it (Cloudflare's 521, 523, 525 and 526), or that it would not (a challenge,
/// a block); the upstream itself, that it did not begin. In none of these has anything run, and in all of
/// Cloudflare's own the upstream is not there for us, whatever the status.
fn unfit(reply: &Reply) -> Unfit {
    let status = reply.status;
    let own = reply.cloudflare == Cloudflare::Passed && is_block(&reply.body);
    let (outcome, judged) = match status {
        521 | 523 | 525 | 526 => (Outcome::NotRun(status), Some("cloudflare_error")),
        520..=530 => (Outcome::Status(status), Some("cloudflare_error")),
        _ if reply.cloudflare == Cloudflare::Challenged => {
            (Outcome::NotRun(status), Some("cloudflare_challenge"))
        }
        403 | 429 if own => (Outcome::NotRun(status), Some("cloudflare_block")),
        503 if reply.not_run => (Outcome::NotRun(503), None),
        _ => (Outcome::Status(status), None),
    };
    Unfit { outcome, judged }
}

/// Whether a body is what Cloudflare says when it blocks a request or limits its rate (1xxx), to
/// programs or to people.
fn is_block(body: &[u8]) -> bool {
    let says = |what: &[u8]| memchr::memmem::find(body, what).is_some();
    let number = body.strip_prefix(b"error code: ").map(<[u8]>::trim_ascii);
    let number =
        number.is_some_and(|n| n.len() == 4 && n[0] == b'1' && n.iter().all(u8::is_ascii_digit));
    number || says(b"cf-error-details") || says(b"cf-error-code")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_pages_of_cloudflare_are_told_from_those_of_an_application() {
        use Cloudflare::{Challenged, No, Passed};
        for (status, cloudflare, body, outcome, judged) in [
            (521, Passed, "", Outcome::NotRun(521), Some("cloudflare_error")),
            (520, Passed, "", Outcome::Status(520), Some("cloudflare_error")),
            (530, Passed, "error code: 1016", Outcome::Status(530), Some("cloudflare_error")),
            (403, Challenged, "<html>", Outcome::NotRun(403), Some("cloudflare_challenge")),
            (403, Passed, "error code: 1020", Outcome::NotRun(403), Some("cloudflare_block")),
            (
                429,
                Passed,
                "<p id=cf-error-code>1015",
                Outcome::NotRun(429),
                Some("cloudflare_block"),
            ),
            (403, Passed, "no such user", Outcome::Status(403), None),
            (403, No, "error code: 1020", Outcome::Status(403), None),
            (403, Passed, "error code: 17 is yours", Outcome::Status(403), None),
            (502, Passed, "<html>", Outcome::Status(502), None),
        ] {
            let reply = Reply {
                status,
                not_run: false,
                cloudflare,
                cookies: Vec::new(),
                content_coding: None,
                content_type: None,
                location: None,
                body: Bytes::from_static(body.as_bytes()),
                keeps: false,
            };
            let unfit = unfit(&reply);
            assert_eq!((unfit.outcome, unfit.judged), (outcome, judged), "{status} {body}");
        }
    }
}
