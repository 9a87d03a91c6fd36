//! The application behind the edge: the call logic of a telephone canvassing service.
//!
//! Each layer knows only those before it: [`core`] decides without IO, [`store`] keeps, [`twilio`] asks
//! Twilio, [`work`] does what is not asked for by a request, [`web`] speaks with Twilio and with
//! operators. The same program is the monitor host when it is told that role: it answers from the same
//! store, under the same delivery ids, so that whichever of the two a request reaches, it runs once.

pub mod admin;
pub mod core;
pub mod metrics;
pub mod store;
pub mod twilio;
pub mod web;
pub mod work;
