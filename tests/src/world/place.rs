//! What stands behind the edge in one place.

use std::net::SocketAddr;

use anyhow::Context as _;
use tempfile::TempDir;
use url::Url;

use super::{DATABASE, Part, environment};
use crate::Program;
use crate::requests::{ACCOUNT, PUBLIC_URL};
use crate::stand_in::StandIn;
use crate::wire::Wire;

/// What real upstreams are started with.
pub(super) struct Setting<'s> {
    pub(super) database: Option<&'s str>,
    pub(super) twilio: String,
    pub(super) folder: &'s TempDir,
    pub(super) patience: &'s str,
}

/// One upstream of a world.
#[derive(Debug)]
pub struct Place {
    pub(super) role: &'static str,
    /// The wire to it.
    pub wire: Wire,
    /// The program, where it is real.
    pub program: Option<Program>,
    /// The stand-in, where it is one.
    pub stand_in: Option<StandIn>,
}

// === impl Place ===

impl Place {
    pub(super) async fn set(
        role: &'static str,
        part: Part,
        setting: &Setting<'_>,
    ) -> anyhow::Result<Place> {
        let nowhere: SocketAddr = "127.0.0.1:1".parse()?;
        let mut place =
            Place { role, wire: Wire::to(nowhere).await?, program: None, stand_in: None };
        match part {
            Part::Real => place.restart(setting).await?,
            Part::StandIn(manner) => {
                let stand_in = StandIn::start(manner).await?;
                place.wire.lead_to(stand_in.address());
                place.stand_in = Some(stand_in);
            }
            Part::Nothing => place.wire.cut().await,
        }
        Ok(place)
    }

    pub(super) async fn restart(&mut self, setting: &Setting<'_>) -> anyhow::Result<()> {
        let file = setting.folder.path().join(DATABASE).display().to_string();
        let arguments = [
            "--role",
            self.role,
            "--listen",
            "127.0.0.1:0",
            "--database",
            setting.database.unwrap_or(&file),
            "--twilio-url",
            &setting.twilio,
            // As fast as the company.
            "--speed",
            "20",
            "--patience",
            setting.patience,
            "--public-url",
            PUBLIC_URL,
            "--account-sid",
            ACCOUNT,
            "--sample",
        ];
        let mut program = Program::start(
            "holdline-origin",
            self.role,
            &arguments,
            &environment(),
            setting.folder.path(),
        )?;
        let url: Url = program.announced(&format!("{}: ", self.role)).await?.parse()?;
        self.wire.lead_to(*url.socket_addrs(|| None)?.first().context("no address")?);
        self.program = Some(program);
        Ok(())
    }

    /// Kills the real program.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.program.as_mut().context("not a real program")?.kill().await
    }

    /// The visits that reached the stand-in.
    pub fn reached(&self) -> Vec<crate::stand_in::Reached> {
        self.stand_in.as_ref().map(StandIn::reached).unwrap_or_default()
    }
}
