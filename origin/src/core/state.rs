//! What a step of the call logic starts from and ends with: a caller's session, the call to a lead, the
//! household it is made to. Values only; nothing here knows where they are kept.

use super::fit::{Hours, Quota};

/// An enum whose values have names, under which they are kept.
macro_rules! named {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Its name.
            $vis fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The value of that name.
            $vis fn named(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use named;

named! {
    /// How a campaign dials.
    pub enum Mode {
        /// The caller sees whom, and says when.
        Preview = "preview",
        /// The next one is dialed as soon as the caller is free.
        Power = "power",
        /// More are dialed than there are callers.
        Predictive = "predictive",
    }
}

named! {
    /// Where a caller's session is.
    pub enum Stage {
        /// In the menu; calling has not begun.
        Menu = "menu",
        /// On hold, with nobody offered, called or talked to.
        Idle = "idle",
        /// A household was handed out, and is not dialed yet.
        Offered = "offered",
        /// It is being called.
        Dialing = "dialing",
        /// Waits for whoever answers (predictive).
        Waiting = "waiting",
        /// Talks to a lead.
        Talking = "talking",
        /// The lead is gone, and the caller has not come from the conference yet.
        Parting = "parting",
        /// Is asked how it went, on the phone.
        Survey = "survey",
        /// Writes down how it went, in the browser.
        WrapUp = "wrap_up",
        /// Has ended.
        Ended = "ended",
    }
}

named! {
    /// Where a call to a lead is.
    pub enum CallStage {
        /// To be placed; Twilio may have been asked, and has not confirmed.
        Placing = "placing",
        /// Twilio has taken it.
        Ringing = "ringing",
        /// The lead talks to the caller.
        Connected = "connected",
        /// The leg is over, or was never made.
        Over = "over",
    }
}

named! {
    /// What was decided when the leg was answered. It is decided once.
    pub enum Decision {
        /// Put through to the caller.
        Connect = "connect",
        /// Nobody was there to talk: hung up.
        Abandon = "abandon",
        /// A machine: hung up.
        Machine = "machine",
        /// A machine: the recording was played to it.
        Message = "message",
    }
}

named! {
    /// How a call came out.
    pub enum Outcome {
        /// It was talked.
        Success = "completed",
        /// Nobody picked up.
        NoAnswer = "no answer",
        /// The line was busy.
        Busy = "busy",
        /// The number cannot be called.
        Failed = "failed",
        /// It was given up before anybody answered.
        Cancelled = "cancelled",
        /// A person picked up and nobody was there.
        Abandoned = "abandoned",
        /// A machine, or a person who hung up before anything was said.
        Machine = "hangup or answering machine",
        /// The recording was left.
        Delivered = "message delivered",
    }
}

named! {
    /// Where a household is in the dial queue: in one place at a time.
    pub enum Place {
        /// May be handed out.
        Available = "available",
        /// Was handed out.
        Presented = "presented",
        /// Waits to be available again.
        Bin = "bin",
        /// Must not be called.
        Blocked = "blocked",
        /// Is done.
        Completed = "completed",
        /// Cannot be called.
        Failed = "failed",
    }
}

/// A caller's phone leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session.
    pub id: i64,
    /// Whose.
    pub caller_id: i64,
    /// What for.
    pub campaign_id: i64,
    /// The leg.
    pub call_sid: String,
    /// Name of the conference and of the browser's channel.
    pub key: String,
    /// Whether there is no browser page.
    pub phones_only: bool,
    /// Where it is.
    pub stage: Stage,
    /// Who was handed out to it.
    pub household: Option<i64>,
    /// The call that it waits for, or talks in, or is asked about.
    pub call: Option<i64>,
    /// How often it was done with a call, and led out of the conference: what is said of leaving the
    /// conference is said of one turn.
    pub turn: i64,
    /// How long the leg was up, in seconds, once that was reported.
    pub duration_s: Option<i64>,
}

/// A dial of a household, and the leg it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadCall {
    /// Our own name of it, in its URLs.
    pub id: i64,
    /// What for.
    pub campaign_id: i64,
    /// Whom.
    pub household_id: i64,
    /// The person of the household who is meant.
    pub lead_id: i64,
    /// For whom; nobody yet where it is dialed ahead.
    pub session: Option<i64>,
    /// The number.
    pub phone: String,
    /// The leg, once it is known.
    pub call_sid: Option<String>,
    /// Where it is.
    pub stage: CallStage,
    /// What was decided when it was answered.
    pub decision: Option<Decision>,
    /// How it came out, once that is known.
    pub outcome: Option<Outcome>,
    /// Nobody waits for it any more: it is to be ended, or not to be begun.
    pub given_up: bool,
    /// Whether the household was put back, or away.
    pub settled: bool,
    /// What Twilio said last.
    pub twilio_status: Option<String>,
    /// Who answered, where that was detected.
    pub answered_by: Option<String>,
    /// How long it lasted, in seconds.
    pub duration_s: Option<i64>,
    /// The recording, and its seconds.
    pub recording: Option<(String, i64)>,
    /// Whether its end was reported.
    pub ended: bool,
}

/// A number of a campaign, and who can be reached there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Household {
    /// The household.
    pub id: i64,
    /// The number.
    pub phone: String,
    /// Where in the queue.
    pub place: Place,
    /// How the last call came out, or `not called`, `retry`.
    pub status: String,
    /// Whether the recording was left there.
    pub message_left: bool,
    /// Who can be reached, in order.
    pub leads: Vec<Lead>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// The person.
    pub id: i64,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// The team's own number.
    pub custom_id: Option<String>,
    /// How the last talk came out.
    pub status: String,
    /// Needs no further call.
    pub completed: bool,
    /// Has been talked to.
    pub dispositioned: bool,
    /// Is to be called again.
    pub call_back: bool,
}

/// What is known of a campaign and its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// The campaign.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// How it dials.
    pub mode: Mode,
    /// Whether it was not archived.
    pub active: bool,
    /// When it may be called.
    pub hours: Hours,
    /// What the account may do.
    pub quota: Quota,
    /// Whether talks are recorded.
    pub record: bool,
    /// Whether machines are told from people.
    pub detect_machines: bool,
    /// The recording that is left with machines.
    pub message: Option<String>,
    /// The recording that callers may leave.
    pub manual_message: Option<String>,
    /// Whether who was left a message is called again.
    pub call_back_after_message: bool,
    /// The number that is shown.
    pub caller_id: String,
}

/// A question of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The question.
    pub id: i64,
    /// What is asked.
    pub text: String,
    /// What may be keyed.
    pub responses: Vec<PossibleResponse>,
}

/// An answer that a question knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossibleResponse {
    /// The answer.
    pub id: i64,
    /// The key.
    pub keypad: i64,
    /// What it means.
    pub value: String,
    /// Whether the lead is to be called again.
    pub retry: bool,
}

/// An answer that was keyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub question_id: i64,
    /// What was keyed.
    pub digits: String,
}

// === impl Stage ===

impl Stage {
    /// What supervisors are shown.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Menu | Stage::Idle | Stage::Offered | Stage::Dialing | Stage::Waiting => {
                "On hold"
            }
            Stage::Talking => "On call",
            Stage::Parting | Stage::Survey | Stage::WrapUp => "Wrap up",
            Stage::Ended => "",
        }
    }
}

// === impl Session ===

impl Session {
    /// Whether the leg is up.
    pub fn on_call(&self) -> bool {
        self.stage != Stage::Ended
    }

    /// On hold, with nothing that waits.
    pub fn free(&mut self) {
        let called = !matches!(
            self.stage,
            Stage::Menu | Stage::Idle | Stage::Offered | Stage::Waiting | Stage::Ended
        );
        self.turn += i64::from(called);
        (self.stage, self.household, self.call) = (Stage::Idle, None, None);
    }
}

// === impl LeadCall ===

impl LeadCall {
    /// A call that is about to be placed.
    pub fn new(id: i64, campaign_id: i64, household: &Household, session: Option<i64>) -> LeadCall {
        LeadCall {
            id,
            campaign_id,
            household_id: household.id,
            lead_id: household.next_lead().map_or(0, |lead| lead.id),
            session,
            phone: household.phone.clone(),
            call_sid: None,
            stage: CallStage::Placing,
            decision: None,
            outcome: None,
            given_up: false,
            settled: false,
            twilio_status: None,
            answered_by: None,
            duration_s: None,
            recording: None,
            ended: false,
        }
    }
}

// === impl Household ===

impl Household {
    /// Whom to ask for: somebody who was not talked to yet, else whoever is not done with.
    pub fn next_lead(&self) -> Option<&Lead> {
        let mut left = self.leads.iter().filter(|lead| !lead.completed);
        left.clone().find(|lead| !lead.dispositioned).or_else(|| left.next())
    }
}

// === impl Lead ===

impl Lead {
    /// First and last name, where both are known.
    pub fn name(&self) -> Option<String> {
        let filled = |name: &Option<String>| name.clone().filter(|name| !name.trim().is_empty());
        Some(format!("{} {}", filled(&self.first_name)?, filled(&self.last_name)?))
    }
}
