//! What people do with an edge from the command line, beside running it.

mod client;
pub mod cloudflare;
mod import;
pub mod spool;
pub mod status;
