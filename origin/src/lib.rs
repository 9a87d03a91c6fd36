//! The application behind the edge: the call logic of a telephone canvassing service.
//!
//! Three layers, each knowing only the one before it: [`core`] decides without IO, [`store`] keeps,
//! [`web`] speaks with Twilio. The same program is the monitor host when it is told that role: it
//! answers from the same store, under the same delivery ids, so that whichever of the two a request
//! reaches, it runs once.

pub mod core;
pub mod store;
pub mod web;
