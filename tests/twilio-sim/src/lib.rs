//! The phone company: places calls against webhooks and treats them as Twilio does.
//!
//! It signs, waits, gives up and falls back by Twilio's rules, walks the verbs of what it gets, and
//! writes down everything that happened. It has a reader of TwiML of its own: were it to share one
//! with the product, one mistake would hide in both. What it models, and what not, is in its README.

pub mod call;
pub mod client;
pub mod party;
pub mod transcript;
pub mod twiml;

pub use call::{Call, Line, Moment};
pub use party::{Act, Party};
pub use transcript::{Ending, Step, Transcript, WebhookStep};
