//! What a call is made of, and what it can be told.

use http::Method;
use url::Url;

use crate::transcript::Ending;

/// A URL and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL.
    pub url: Url,
    /// GET or POST.
    pub method: Method,
}

/// A telephone number of the account and what is configured for it.
#[derive(Debug, Clone)]
pub struct Line {
    /// The number.
    pub number: String,
    /// Asked for the first document.
    pub voice: Endpoint,
    /// Asked when a document cannot be had or carried out.
    pub fallback: Option<Endpoint>,
    /// Told when the call is over.
    pub status: Option<Endpoint>,
}

/// A call that the application makes.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Whom it calls.
    pub to: String,
    /// What they see.
    pub from: String,
    /// What is carried out once they answer.
    pub source: Source,
    /// Asked when a document cannot be had or carried out.
    pub fallback: Option<Endpoint>,
    /// Told about its progress.
    pub status: Option<Endpoint>,
    /// Which events, in Twilio's words.
    pub events: Vec<String>,
    /// Seconds to let it ring.
    pub timeout: u64,
    /// Seconds it may last.
    pub time_limit: u64,
    /// Whether a machine is told from a person, and what follows.
    pub machine: Option<MachineDetection>,
}

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It is fetched.
    Endpoint(Endpoint),
    /// It was given.
    Twiml(String),
}

/// How a machine is told from a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineDetection {
    /// The older way: says `human` or `machine`.
    Legacy {
        /// A machine's call is ended, and nothing is asked for it.
        hang_up: bool,
    },
    /// The present way.
    Present {
        /// Waits for the end of the machine's message.
        message_end: bool,
        /// Told beside the call, which does not wait.
        asynchronous: Option<Endpoint>,
        /// Whether the call waits for the decision.
        waits: bool,
    },
}

/// What a call can be told from outside.
#[derive(Debug)]
pub enum Command {
    /// Carries out something else from now on.
    Redirect(Box<Redirect>),
    /// Ends; whoever is on it hears nothing more.
    End(Ending),
    /// The person presses keys at the next question.
    Press(String),
    /// The person hangs up.
    HangUp,
}

/// Something else to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// What; none for what is being carried out.
    pub source: Option<Source>,
    /// Asked from now on when a document fails; none for what was asked before.
    pub fallback: Option<Endpoint>,
    /// Told about progress from now on; none for whoever was told before.
    pub status: Option<Endpoint>,
}

// === impl Endpoint ===

impl From<Url> for Endpoint {
    fn from(url: Url) -> Endpoint {
        Endpoint { url, method: Method::POST }
    }
}
