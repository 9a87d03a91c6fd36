//! What is decided, without any IO: the time and every fact are arguments.

pub mod state;

pub mod callin;
pub mod fallback;
pub mod fit;
pub mod notice;

pub mod step;

mod caller;
mod lead;
mod offer;

pub mod documents;
pub mod links;

pub use lead::is_machine;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tables;
