//! The call logic, without IO: what is known and what happened go in, what is said and what changes
//! come out.

pub mod callin;
pub mod documents;
pub mod fit;
pub mod notice;
