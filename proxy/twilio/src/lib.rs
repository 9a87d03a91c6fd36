//! What both ends of a Twilio callback must agree on.
//!
//! The edge and the application behind it share these six modules and nothing else: how a form is
//! read, which identifiers exist, how a request is signed, which documents Twilio accepts, and how
//! one is written. Nothing here does IO, holds state or knows of the other crates.
//!
//! The check ([`document`]) and the writer ([`verbs`]) deliberately share no model of TwiML: a
//! mistake in one must not be able to hide in the other.

pub mod document;
pub mod form;
pub mod public_url;
pub mod sid;
pub mod signature;
pub mod verbs;
mod vocabulary;
mod xml;

pub use document::{Document, Refusal, Warnings};
pub use form::{Form, FormError};
pub use public_url::PublicUrl;
pub use sid::{AccountSid, CallSid, ConferenceSid};
pub use signature::{Key, Keyring, Proof, Signed, Unproven};
