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
    /// Where it listens for Twilio: the first listener.
    pub public: SocketAddr,
    /// All of them.
    pub listeners: Vec<SocketAddr>,
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
        Edge::start_from("holdline", label, config, environment).await
    }

    /// Starts one from another place than where it was built.
    pub async fn start_from(
        program: &str,
        label: &str,
        config: &Path,
        environment: &BTreeMap<&str, String>,
    ) -> anyhow::Result<Edge> {
        let folder = config.parent().context("the configuration is in no folder")?;
        let config = config.display().to_string();
        let arguments = ["serve", "--config", &config];
        let mut program = Program::start(program, label, &arguments, environment, folder)?;
        let (public, admin) =
            program.announced_until("holdline: public ", "holdline: admin ").await?;
        let mut listeners = Vec::new();
        for url in public {
            let url: Url = url.parse()?;
            listeners.extend(url.socket_addrs(|| None)?);
        }
        let public = *listeners.first().context("no public address")?;
        Ok(Edge { program, public, listeners, admin: admin.parse()? })
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
