//! What people do with an edge from the command line, beside running it.

mod client;
pub mod cloudflare;
pub mod history;
mod import;
pub mod orders;
pub mod spool;
pub mod status;
pub mod tune;
mod when;
