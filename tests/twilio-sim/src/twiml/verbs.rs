//! What a document tells the phone company to do, with Twilio's defaults filled in.

use http::Method;

/// One verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Speech.
    Say {
        /// What is said.
        text: String,
        /// How often.
        times: u32,
    },
    /// An audio file.
    Play {
        /// Where it is.
        url: String,
        /// How often.
        times: u32,
    },
    /// Tones.
    Tones(String),
    /// Silence, in seconds.
    Pause(u64),
    /// A question.
    Gather(Gather),
    /// A recording.
    Record(Record),
    /// Another document.
    Redirect(Target),
    /// Somebody else on the line.
    Dial(Dial),
    /// The end.
    Hangup,
    /// The end before answering, or a hang-up afterwards.
    Reject {
        /// Whether the caller is told that the line is busy.
        busy: bool,
    },
    /// A verb of Twilio's that is not modelled, by name; it takes no time.
    NotModelled(String),
}

/// Where to go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL; empty for the document's own.
    pub url: String,
    /// The method.
    pub method: Method,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    /// Where the keys go.
    pub action: Target,
    /// The keys that end the input; none if the attribute is empty.
    pub finish_on_key: String,
    /// How many keys end it.
    pub num_digits: Option<usize>,
    /// Seconds to wait for a key.
    pub timeout: u64,
    /// Whether no keys at all are sent too.
    pub action_on_empty: bool,
    /// What sounds meanwhile.
    pub prompts: Vec<Verb>,
}

/// A recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where the call goes afterwards.
    pub action: Target,
    /// Seconds of silence that end it.
    pub timeout: u64,
    /// Seconds it may last.
    pub max_length: u64,
    /// The keys that end it.
    pub finish_on_key: String,
}

/// Somebody else on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Where the call goes afterwards; none for the next verb.
    pub action: Option<Target>,
    /// Seconds to let it ring.
    pub timeout: u64,
    /// Seconds the connection may last.
    pub time_limit: u64,
    /// Whether star ends the connection.
    pub hangup_on_star: bool,
    /// What the other side sees.
    pub caller_id: Option<String>,
    /// Whether it is recorded.
    pub record: bool,
    /// Whom.
    pub whom: Whom,
}

/// Whom a `Dial` connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Everybody in a conference.
    Conference(Conference),
    /// The first of these to answer.
    Legs(Vec<Leg>),
    /// Nobody that is modelled.
    Nobody,
}

/// One party to ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Its number, or `client:name`.
    pub to: String,
    /// A document it hears before it is connected.
    pub url: Option<Target>,
    /// What is told about its progress.
    pub callbacks: Callbacks,
}

/// Where progress is reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Callbacks {
    /// Where to, and how.
    pub target: Option<Target>,
    /// Which events.
    pub events: Vec<String>,
}

/// A conference, as one participant enters it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conference {
    /// Its name.
    pub room: String,
    /// Whether the participant is heard.
    pub muted: bool,
    /// Whether it starts when the participant enters.
    pub starts: bool,
    /// Whether it ends when the participant leaves.
    pub ends: bool,
    /// The participant's label.
    pub label: Option<String>,
    /// What is heard until it starts; none for music of the company's.
    pub wait: Option<Target>,
    /// How many may be in it.
    pub most: usize,
    /// What is told about it.
    pub callbacks: Callbacks,
}

// === impl Target ===

impl Default for Target {
    fn default() -> Target {
        Target { url: String::new(), method: Method::POST }
    }
}
