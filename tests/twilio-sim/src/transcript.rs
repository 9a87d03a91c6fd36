//! What happened on a call, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::webhook::Attempt;

/// Everything that happened on one call.
#[derive(Debug, Clone, Serialize)]
pub struct Transcript {
    /// The call.
    pub call_sid: String,
    /// The call that dialed it.
    pub parent_call_sid: Option<String>,
    /// Who called.
    pub from: String,
    /// Who was called.
    pub to: String,
    /// `inbound`, `outbound-api` or `outbound-dial`.
    pub direction: &'static str,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// How it ended.
    pub ending: Ending,
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// A request to the application.
    Webhook(WebhookStep),
    /// The call's status changed.
    Became {
        /// When, in milliseconds of real time since the call began.
        at_ms: u64,
        /// Twilio's name of the status.
        status: &'static str,
    },
    /// Something the person heard.
    Heard {
        /// When.
        at_ms: u64,
        /// What.
        what: String,
    },
    /// Keys the person pressed.
    Pressed {
        /// When.
        at_ms: u64,
        /// Which; a PIN in a test, never a real one.
        keys: String,
    },
    /// A warning of Twilio's.
    Warned {
        /// Its number.
        code: u32,
    },
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A document: what to do next.
    Document,
    /// The document that takes the place of one that failed.
    Fallback,
    /// A document whose answer means nothing: the action of a `Dial` that was interrupted.
    Disregarded,
    /// A report of progress.
    Status,
    /// Music, or what else is heard while waiting.
    Media,
}

/// One request to the application.
#[derive(Debug, Clone, Serialize)]
pub struct WebhookStep {
    /// When it was sent.
    pub at_ms: u64,
    /// What it was for.
    pub purpose: Purpose,
    /// Where to.
    pub url: String,
    /// Its path, without the query.
    pub path: String,
    /// What repeated requests are told by.
    pub token: String,
    /// The status that came back; none if nothing did.
    pub status: Option<u16>,
    /// What the edge said about who answered.
    pub answered_by: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Twilio's error number, if it was one.
    pub error: Option<u32>,
    /// The requests made for it, retries and redirects included.
    pub attempts: Vec<Attempt>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A document said so.
    HungUp,
    /// A document came to its end.
    RanOut,
    /// The person hung up.
    PartyLeft,
    /// A document said so before answering.
    Rejected {
        /// Whether the caller was told that the line is busy.
        busy: bool,
    },
    /// Nobody took the call; Twilio's status says why.
    NotTaken(&'static str),
    /// A machine took it, and the caller wanted none.
    MachineLeft,
    /// The application ended it by the REST API.
    EndedByApi,
    /// The call that dialed it ended.
    ParentEnded,
    /// The person heard Twilio's apology, after this error.
    Apology(u32),
    /// More documents than any sane call has: a loop.
    Endless,
}

// === impl Purpose ===

impl Purpose {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Document => "document",
            Purpose::Fallback => "fallback",
            Purpose::Disregarded => "disregarded",
            Purpose::Status => "status",
            Purpose::Media => "media",
        }
    }

    /// Whether a person waits for it.
    pub const fn is_waited_for(self) -> bool {
        matches!(self, Purpose::Document | Purpose::Fallback)
    }
}

// === impl Transcript ===

impl Transcript {
    /// The requests.
    pub fn webhooks(&self) -> impl Iterator<Item = &WebhookStep> {
        self.steps.iter().filter_map(|step| match step {
            Step::Webhook(webhook) => Some(webhook),
            _ => None,
        })
    }

    /// Requests that a person waited for: documents and fallbacks.
    pub fn documents(&self) -> impl Iterator<Item = &WebhookStep> {
        self.webhooks().filter(|webhook| webhook.purpose.is_waited_for())
    }

    /// Who answered the documents, in order.
    pub fn answered_by(&self) -> Vec<&str> {
        self.documents().map(|webhook| webhook.answered_by.as_deref().unwrap_or("?")).collect()
    }

    /// Everything the person heard, in one text.
    pub fn heard(&self) -> String {
        let heard = self.steps.iter().filter_map(|step| match step {
            Step::Heard { what, .. } => Some(what.as_str()),
            _ => None,
        });
        heard.collect::<Vec<_>>().join(" | ")
    }

    /// Whether the person never heard Twilio's apology, and no request failed on the way.
    pub fn is_unbroken(&self) -> bool {
        !matches!(self.ending, Ending::Apology(_) | Ending::Endless)
            && self.documents().all(|webhook| webhook.error.is_none())
    }

    /// The longest a person waited for a document, in milliseconds.
    pub fn longest_wait_ms(&self) -> u64 {
        self.documents().map(|webhook| webhook.took_ms).max().unwrap_or(0)
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} from {} to {}", self.call_sid, self.direction, self.from, self.to)?;
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        write!(f, "            {}", self.ending)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |webhook: &WebhookStep| match webhook.purpose {
            // It may be another host's.
            Purpose::Fallback => webhook.url.split('?').next().unwrap_or_default().to_owned(),
            _ => webhook.path.clone(),
        };
        let second = |at_ms: &u64| format!("{:7.3} s", *at_ms as f64 / 1000.0);
        match self {
            Step::Webhook(webhook) => {
                let by = webhook.answered_by.as_deref().unwrap_or("-");
                let status = webhook.status.map_or("---".into(), |status| status.to_string());
                write!(
                    f,
                    "{}   {:<8} {:<42} {status} by {by:<8} in {:>5} ms",
                    second(&webhook.at_ms),
                    webhook.purpose.name(),
                    place(webhook),
                    webhook.took_ms
                )?;
                if webhook.attempts.len() > 1 {
                    write!(f, " ({} requests)", webhook.attempts.len())?;
                }
                webhook.error.map_or(Ok(()), |code| write!(f, "  error {code}"))
            }
            Step::Became { at_ms, status } => write!(f, "{}     is     {status}", second(at_ms)),
            Step::Heard { at_ms, what } => write!(f, "{}     hears  {what}", second(at_ms)),
            Step::Pressed { at_ms, keys } => write!(f, "{}     keys   {keys}", second(at_ms)),
            Step::Warned { code } => write!(f, "              warning {code}"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::HungUp => write!(f, "the application ended the call"),
            Ending::RanOut => write!(f, "the document ended, and with it the call"),
            Ending::PartyLeft => write!(f, "the person hung up"),
            Ending::Rejected { .. } => write!(f, "the call was rejected"),
            Ending::NotTaken(status) => write!(f, "nobody took the call: {status}"),
            Ending::MachineLeft => write!(f, "a machine took the call, and it was ended"),
            Ending::EndedByApi => write!(f, "the application ended the call by the REST API"),
            Ending::ParentEnded => write!(f, "the other side ended the call"),
            Ending::Apology(code) => {
                write!(f, "the person heard the apology (error {code}) and was cut off")
            }
            Ending::Endless => write!(f, "the call went round in circles and was ended"),
        }
    }
}
