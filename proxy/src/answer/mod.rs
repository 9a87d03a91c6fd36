//! What leaves for Twilio.
//!
//! An [`Answer`] that carries TwiML carries a [`Document`], never bytes: there is no way to send a
//! body that was not judged. What each answer means for the caller is said by [`AnsweredBy`], which
//! is also the label of the metric and the value of the `Holdline-Answered-By` header.

mod canned;
mod template;

use bytes::Bytes;
use holdline_policy::Upstream;
use holdline_twilio::{Document, Unproven};
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::listener::head::Malformed;

pub use canned::{Audio, CannedSet};
pub use template::{HoldTemplate, TemplateFault};

/// What leaves for Twilio.
#[derive(Debug, Clone)]
pub enum Answer {
    /// TwiML.
    Document {
        /// What Twilio is to do.
        document: Document,
        /// Who said so.
        by: AnsweredBy,
        /// The upstream's cookies; Twilio keeps them for the call.
        cookies: Vec<HeaderValue>,
    },
    /// Audio of ours.
    Audio(Audio),
    /// A report has been taken.
    Receipt(Upstream),
    /// A report is on disk.
    Kept,
    /// A report could be neither handed on nor kept: it is lost unless Twilio repeats it.
    CallbackLost,
    /// Whether this edge can serve callers.
    Health(Health),
    /// A request that is only streamed found no origin.
    BadGateway,
    /// The request is refused.
    Refusal(Refusal),
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnsweredBy {
    /// The origin: the call is steered.
    Origin,
    /// The monitor: the call is steered.
    Monitor,
    /// A hold document: the call is held.
    Hold,
    /// A final canned document.
    Canned,
    /// The spool: a report is kept.
    Spool,
    /// Nobody: a refusal, or a callback that was lost.
    Nobody,
}

/// Whether an edge can serve callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It can, as it should.
    Serving,
    /// It answers everybody canned: it reaches no upstream.
    Canned,
    /// It steers callers, but can keep no report.
    NotKeeping,
    /// It is about to end.
    Stopping,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not a catalogued path.
    #[error("there is no such endpoint")]
    Unlisted,
    /// A catalogued path, but not with this method.
    #[error("this endpoint does not take this method")]
    WrongMethod,
    /// The body is longer than the row allows.
    #[error("the body is too large")]
    BodyTooLarge,
    /// The body did not arrive whole in time.
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    /// The header block is larger than allowed.
    #[error("the header fields are too large")]
    HeaderTooLarge,
    /// The body is no form although it says so, or it cannot be read at all.
    #[error("the form cannot be read")]
    BadForm,
    /// The header block did not arrive whole in time.
    #[error("the header did not arrive in time")]
    HeaderTooSlow,
    /// The head could be read in more than one way, or in none.
    #[error("the request is malformed: {0}")]
    Malformed(Malformed),
    /// The request cannot be used, though its head can be read.
    #[error("the request is malformed")]
    BadRequest,
    /// There are as many connections as allowed.
    #[error("there are too many connections; try again")]
    TooManyConnections,
    /// There are as many requests as allowed, and this one can wait.
    #[error("there are too many requests; try again")]
    Busy,
    /// The request does not come from Twilio.
    #[error("the signature is not valid")]
    Unproven(Unproven),
}

// === impl Answer ===

impl Answer {
    /// A canned document.
    pub fn canned(document: Document) -> Answer {
        Answer::Document { document, by: AnsweredBy::Canned, cookies: Vec::new() }
    }

    /// The same answer, in memory of its own.
    #[must_use]
    pub fn detached(&self) -> Answer {
        match self {
            Answer::Document { document, by, cookies } => Answer::Document {
                document: document.detached(),
                by: *by,
                cookies: cookies.clone(),
            },
            other => other.clone(),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Answer::Document { .. } | Answer::Audio(_) => 200,
            Answer::Receipt(_) | Answer::Kept => 204,
            Answer::CallbackLost => 503,
            Answer::Health(Health::Stopping) => 503,
            Answer::Health(_) => 200,
            Answer::BadGateway => 502,
            Answer::Refusal(refusal) => refusal.status(),
        }
    }

    /// Who answered.
    pub fn by(&self) -> AnsweredBy {
        match self {
            Answer::Document { by, .. } => *by,
            Answer::Audio(_) => AnsweredBy::Canned,
            Answer::Receipt(upstream) => (*upstream).into(),
            Answer::Kept => AnsweredBy::Spool,
            Answer::CallbackLost | Answer::Health(_) | Answer::BadGateway | Answer::Refusal(_) => {
                AnsweredBy::Nobody
            }
        }
    }

    /// Content type and body, where there is one.
    pub fn content(&self) -> Option<(&'static str, Bytes)> {
        match self {
            Answer::Document { document, .. } => {
                Some(("text/xml; charset=utf-8", document.bytes().clone()))
            }
            Answer::Audio(audio) => Some((audio.content_type, audio.bytes.clone())),
            Answer::Receipt(_) | Answer::Kept => None,
            Answer::CallbackLost => Some((
                TEXT,
                Bytes::from_static(b"the report could be neither delivered nor kept\n"),
            )),
            Answer::Health(health) => Some((TEXT, Bytes::from_static(health.text().as_bytes()))),
            Answer::BadGateway => {
                Some((TEXT, Bytes::from_static(b"the application cannot be reached\n")))
            }
            Answer::Refusal(refusal) => Some((TEXT, Bytes::from(format!("{refusal}\n")))),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

// === impl Health ===

impl Health {
    /// What whoever asks is told. A check may look for the first word.
    pub const fn text(self) -> &'static str {
        match self {
            Health::Serving => "serving\n",
            Health::Canned => "degraded: no application can be reached\n",
            Health::NotKeeping => "degraded: reports cannot be kept\n",
            Health::Stopping => "stopping\n",
        }
    }
}

// === impl AnsweredBy ===

impl AnsweredBy {
    /// Its name in the header, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            AnsweredBy::Origin => "origin",
            AnsweredBy::Monitor => "monitor",
            AnsweredBy::Hold => "hold",
            AnsweredBy::Canned => "canned",
            AnsweredBy::Spool => "spool",
            AnsweredBy::Nobody => "nobody",
        }
    }

    /// All of them, in the order of their indexes.
    pub const ALL: [AnsweredBy; 6] = [
        AnsweredBy::Origin,
        AnsweredBy::Monitor,
        AnsweredBy::Hold,
        AnsweredBy::Canned,
        AnsweredBy::Spool,
        AnsweredBy::Nobody,
    ];

    /// Its place in [`AnsweredBy::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl From<Upstream> for AnsweredBy {
    fn from(upstream: Upstream) -> AnsweredBy {
        match upstream {
            Upstream::Origin => AnsweredBy::Origin,
            Upstream::Monitor => AnsweredBy::Monitor,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Refusal::Unlisted => 404,
            Refusal::WrongMethod => 405,
            Refusal::BodyTooLarge => 413,
            Refusal::BodyTooSlow | Refusal::HeaderTooSlow => 408,
            Refusal::HeaderTooLarge => 431,
            Refusal::BadForm | Refusal::BadRequest | Refusal::Malformed(_) => 400,
            Refusal::Unproven(_) => 403,
            Refusal::TooManyConnections | Refusal::Busy => 503,
        }
    }

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Unlisted => "unlisted",
            Refusal::WrongMethod => "wrong_method",
            Refusal::BodyTooLarge => "body_too_large",
            Refusal::BodyTooSlow => "body_too_slow",
            Refusal::HeaderTooLarge => "header_too_large",
            Refusal::HeaderTooSlow => "header_too_slow",
            Refusal::BadForm => "bad_form",
            Refusal::Malformed(malformed) => malformed.name(),
            Refusal::BadRequest => "bad_request",
            Refusal::TooManyConnections => "too_many_connections",
            Refusal::Busy => "busy",
            Refusal::Unproven(Unproven::Missing) => "signature_missing",
            Refusal::Unproven(Unproven::Malformed) => "signature_malformed",
            Refusal::Unproven(Unproven::UnknownAccount) => "unknown_account",
            Refusal::Unproven(Unproven::UnknownKey) => "unknown_key",
            Refusal::Unproven(Unproven::UnknownAlgorithm) => "unknown_algorithm",
            Refusal::Unproven(Unproven::BodyNotCovered) => "body_not_covered",
            Refusal::Unproven(Unproven::Mismatch) => "signature_mismatch",
        }
    }

    /// Every name [`Refusal::name`] can give.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Refusal::NAMES.into_iter().chain(Malformed::ALL.map(Malformed::name))
    }

    const NAMES: [&'static str; 17] = [
        "unlisted",
        "wrong_method",
        "body_too_large",
        "body_too_slow",
        "header_too_large",
        "header_too_slow",
        "bad_form",
        "bad_request",
        "too_many_connections",
        "busy",
        "signature_missing",
        "signature_malformed",
        "unknown_account",
        "unknown_key",
        "unknown_algorithm",
        "body_not_covered",
        "signature_mismatch",
    ];

    /// Whether the connection must end, because the rest of the request was not read.
    pub const fn closes(self) -> bool {
        !matches!(self, Refusal::BadForm | Refusal::Unproven(_))
    }
}
