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
    /// A request that is only streamed found no origin.
    BadGateway,
    /// The request is refused.
    Refusal(Refusal),
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// The request line or header cannot be used.
    #[error("the request is malformed")]
    BadRequest,
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
            Answer::CallbackLost | Answer::BadGateway | Answer::Refusal(_) => AnsweredBy::Nobody,
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
            Answer::BadGateway => {
                Some((TEXT, Bytes::from_static(b"the application cannot be reached\n")))
            }
            Answer::Refusal(refusal) => Some((TEXT, Bytes::from(format!("{refusal}\n")))),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

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
            Refusal::BodyTooSlow => 408,
            Refusal::HeaderTooLarge => 431,
            Refusal::BadForm | Refusal::BadRequest => 400,
            Refusal::Unproven(_) => 403,
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
            Refusal::BadForm => "bad_form",
            Refusal::BadRequest => "bad_request",
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
    pub const NAMES: [&'static str; 14] = [
        "unlisted",
        "wrong_method",
        "body_too_large",
        "body_too_slow",
        "header_too_large",
        "bad_form",
        "bad_request",
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
