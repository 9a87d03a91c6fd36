//! The edge as a process, with the places where it listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use anyhow::Context as _;
use url::Url;

use crate::program::Program;

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    program: Program,
    /// Where it listens for Twilio.
    pub public: SocketAddr,
    /// Where it listens for operators.
    pub admin: Url,
}

// === impl Edge ===

impl Edge {
    /// Starts one; returns once it accepts.
    pub async fn start(
        label: &str,
        config: &Path,
        environment: &BTreeMap<&str, String>,
    ) -> anyhow::Result<Edge> {
        let folder = config.parent().context("the configuration is in no folder")?;
        let config = config.display().to_string();
        let arguments = ["serve", "--config", &config];
        let mut program = Program::start("holdline", label, &arguments, environment, folder)?;
        let public: Url = program.announced("holdline: public ").await?.parse()?;
        let admin: Url = program.announced("holdline: admin ").await?.parse()?;
        let public = *public.socket_addrs(|| None)?.first().context("no public address")?;
        Ok(Edge { program, public, admin })
    }
}

/// A process like any other.
impl Deref for Edge {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Edge {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}
