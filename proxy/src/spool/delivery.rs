//! One callback as it is kept: everything that is needed to deliver it as if it had just come.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdline_policy::redelivery::Death;

/// What an entry of the table costs beside its texts, in bytes; measured, and rounded up.
const OVERHEAD: usize = 400;

/// A callback, kept to the byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the order of arrival: nanoseconds since 1970, and no two alike.
    pub place: i64,
    /// What it is.
    pub kind: Kind,
    /// The delivery id.
    pub id: String,
    /// What is delivered one after the other: the CallSid, else the ConferenceSid, else the delivery id,
    /// which nothing else has.
    pub order: String,
    /// The row's name.
    pub row: String,
    /// The account.
    pub account: Option<String>,
    /// The call.
    pub call: Option<String>,
    /// The method.
    pub method: String,
    /// Path and query, as received.
    pub target: String,
    /// The fields that travel on, as they stand in a header block.
    pub fields: Vec<u8>,
    /// The body.
    pub body: Bytes,
    /// Twilio's own signature.
    pub signature: Option<Vec<u8>>,
    /// Who connected to the edge.
    pub client: Option<IpAddr>,
    /// Where it stands.
    pub state: State,
    /// When it is tried next, in milliseconds since 1970.
    pub due_ms: i64,
    /// How often it was tried.
    pub tries: u32,
    /// How often the application refused it while it took others.
    pub setbacks: u32,
    /// What came of the last try.
    pub last_outcome: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub tried_ms: Option<i64>,
    /// When a person had it sent again, in milliseconds since 1970.
    pub revived_ms: Option<i64>,
}

/// What is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What Twilio has sent.
    Callback,
    /// What the edge itself tells the application.
    Notice,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It is to be delivered.
    Waiting,
    /// An upstream has taken it.
    Delivered,
    /// It is tried no more, and kept until a person decides.
    Dead(Option<Death>),
}

// === impl Delivery ===

impl Delivery {
    /// How much of the spool it takes up, in bytes.
    pub fn size(&self) -> usize {
        OVERHEAD + self.target.len() + self.fields.len() + self.body.len()
    }

    /// When it first arrived.
    pub fn first_seen(&self) -> SystemTime {
        arrived(self.place)
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        age_of(self.place)
    }

    /// For how long it has been tried: since it came, or since a person had it sent again.
    pub fn waiting(&self) -> Duration {
        self.revived_ms.map_or(self.age(), |ms| age_of(ms.saturating_mul(1_000_000)))
    }
}

/// Without what callers say and who they are.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("row", &self.row)
            .field("call", &self.call)
            .field("state", &self.state)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}

// === impl Kind ===

impl Kind {
    /// Its name in tools.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Callback => "callback",
            Kind::Notice => "notice",
        }
    }

    /// Every name [`Kind::name`] can give, in the order of the codes in the table.
    pub const NAMES: [&'static str; 2] = ["callback", "notice"];

    pub(super) const fn code(self) -> i64 {
        self as i64
    }

    pub(super) const fn of(code: i64) -> Kind {
        if code == 1 { Kind::Notice } else { Kind::Callback }
    }
}

// === impl State ===

impl State {
    /// Its name in tools and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Delivered => "delivered",
            State::Dead(_) => "dead",
        }
    }

    /// Every name [`State::name`] can give.
    pub const NAMES: [&'static str; 3] = ["waiting", "delivered", "dead"];

    /// As it stands in the table.
    pub(super) const fn code(self) -> i64 {
        match self {
            State::Waiting => 0,
            State::Delivered => 1,
            State::Dead(_) => 2,
        }
    }

    /// Why it is dead, if it is.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            State::Dead(Some(death)) => Some(death.name()),
            _ => None,
        }
    }

    /// From the table.
    pub(super) fn of(code: i64, reason: Option<&str>) -> State {
        let death = [Death::Gone, Death::TooManyTries, Death::TooOld]
            .into_iter()
            .find(|death| Some(death.name()) == reason);
        match code {
            0 => State::Waiting,
            1 => State::Delivered,
            _ => State::Dead(death),
        }
    }
}

/// When what has this place arrived.
fn arrived(place: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(place).unwrap_or(0))
}

/// How long ago that was.
pub(super) fn age_of(place: i64) -> Duration {
    SystemTime::now().duration_since(arrived(place)).unwrap_or_default()
}

/// Milliseconds since 1970.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
