//! The harness: real processes, real wires, and faults that are made on purpose.
//!
//! A [`World`] is an edge with an origin and a monitor behind it, each reached over a [`Wire`] that can
//! be cut, delayed or throttled. An upstream is either the real program or a [`StandIn`] that
//! misbehaves in a stated way. Calls are made by `twilio-sim`. Every port is one that was free; nothing
//! waits by sleeping for what it can wait for by looking.

pub mod campaign;
pub mod cloudflare;
pub mod echo;
pub mod edge;
pub mod harm;
pub mod load;
pub mod mariadb;
pub mod name_server;
pub mod peer;
pub mod program;
pub mod reports;
pub mod requests;
pub mod rest;
pub mod spoken;
pub mod stand_in;
pub mod tls_client;
pub mod tls_front;
pub mod tools;
pub mod wire;
pub mod world;

pub use cloudflare::Cloudflare;
pub use echo::{Echo, Read};
pub use edge::Edge;
pub use harm::Felt;
pub use load::{Load, Tally};
pub use name_server::NameServer;
pub use program::Program;
pub use reports::{Report, Sender, Taken, Taker, Taking};
pub use rest::{Asked, Recorder};
pub use stand_in::{Manner, StandIn};
pub use tls_client::TlsClient;
pub use tls_front::{Authority, TlsFront};
pub use wire::Wire;
pub use world::{Part, Plan, World};
