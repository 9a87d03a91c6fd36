//! `holdline status`: what a running edge says of itself, for people and for whoever watches over it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use http::StatusCode;

use super::client::Client;
use crate::config::Reach;

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    /// The edge's configuration: it says where its admin plane is.
    #[arg(long, value_name = "FILE", env = "HOLDLINE_CONFIG")]
    config: PathBuf,
    /// Its admin plane, where that is not what is configured.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Says nothing; the exit code says whether it is ready.
    #[arg(long)]
    quiet: bool,
}

/// Asks; gives what there is to say, and whether the edge is ready.
pub async fn run(arguments: StatusArguments) -> anyhow::Result<(String, bool)> {
    let reach = Reach::load(&arguments.config)?;
    let admin = arguments.admin.or(reach.admin).context("listen.admin is not configured")?;
    let client = Client::new(admin, None);
    let ready = client.get("/ready").await?.0 == StatusCode::OK;
    if arguments.quiet {
        return Ok((String::new(), ready));
    }
    let (_, status) = client.get("/status").await?;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    Ok((serde_json::to_string_pretty(&status)?, ready))
}
