//! The phone company: live calls, webhooks, conferences and a REST API, as Twilio has them.
//!
//! It signs, waits, gives up, tries again and falls back by Twilio's rules, walks the verbs of what it
//! gets, and writes down everything that happened. It has a reader of TwiML of its own: were it to
//! share one with the product, one mistake would hide in both. What it models, what not, and what is
//! unconfirmed at Twilio stands in its README.

pub mod call;
pub mod company;
pub mod control;
pub mod invariants;
pub mod load;
pub mod mishaps;
pub mod party;
pub mod rest;
pub mod rooms;
pub mod seed;
pub mod summary;
pub mod transcript;
pub mod twiml;
pub mod webhook;

pub use call::{Call, Command, Endpoint, Line, MachineDetection, Moment, Outbound, Source};
pub use company::{Company, Settings};
pub use invariants::{Breach, Fault, breaches};
pub use mishaps::Mishaps;
pub use party::{Act, Lead, Party, Pickup, Population, Span};
pub use seed::Seed;
pub use transcript::{Ending, Purpose, Step, Transcript, WebhookStep};
pub use webhook::{Connecting, Fetched, Received, Webhook};
