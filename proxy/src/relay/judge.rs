//! Whether an upstream's answer will do.

use holdline_policy::Outcome;
use holdline_twilio::Document;
use http::HeaderValue;

use super::mend::body_of;
use crate::telemetry::Metrics;
use crate::upstream::http1::Reply;

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
        return Err(Unfit { outcome: status_outcome(reply.status, reply.not_run), judged: None });
    }
    match Document::check(body_of(&reply, metrics)) {
        Ok((document, warnings)) => {
            Ok(Judged { document, cookies: reply.cookies, warnings: warnings.total() })
        }
        Err(refusal) => Err(Unfit { outcome: Outcome::NotTwiml, judged: Some(refusal.name()) }),
    }
}

pub(super) fn judge_receipt(
    Reply { status, not_run, .. }: Reply,
    _: &Metrics,
) -> Result<(), Unfit> {
    match status {
        200..300 => Ok(()),
        _ => Err(Unfit { outcome: status_outcome(status, not_run), judged: None }),
    }
}

/// Statuses by which the network in front of an upstream says that it never reached it (Cloudflare's
/// 521, 523, 525 and 526), or the upstream itself that it did not begin.
fn status_outcome(status: u16, not_run: bool) -> Outcome {
    match status {
        521 | 523 | 525 | 526 => Outcome::NotRun(status),
        503 if not_run => Outcome::NotRun(503),
        status => Outcome::Status(status),
    }
}
