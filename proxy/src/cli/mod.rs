//! What people do with an edge from the command line, beside running it.

mod client;
mod import;
pub mod spool;
