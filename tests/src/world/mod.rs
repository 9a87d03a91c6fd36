//! An edge with an origin and a monitor behind it, and calls that go through them.

mod admin;
mod ask;
mod place;
mod plan;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use twilio_sim::{Call, Company, Endpoint, Line, Party, Seed, Transcript};

pub use place::Place;
use place::Setting;
pub use plan::Plan;

use crate::edge::Edge;
use crate::program::{Said, run};
use crate::requests::open;
pub use crate::requests::{ACCOUNT, PUBLIC_URL, TOKEN, call_sid, form, public_url};
use crate::rest::RestApi;
use crate::stand_in::Manner;

/// Opens the origin's inspection endpoints.
pub const INSPECT_TOKEN: &str = "a token to inspect";
/// Opens what changes something on the admin plane.
pub const ADMIN_TOKEN: &str = "a token to change things";
/// The edge's configuration.
const CONFIG: &str = "edge.toml";
/// Says how the edge's disk fails.
const FAULTS: &str = "faults";
/// The database of origin and monitor.
const DATABASE: &str = "origin.sqlite";
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands behind the edge in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The real program.
    Real,
    /// A stand-in.
    StandIn(Manner),
    /// Nothing: connections are refused.
    Nothing,
}

/// An edge, an origin and a monitor.
#[derive(Debug)]
pub struct World {
    /// The edge.
    pub edge: Edge,
    edge_environment: BTreeMap<&'static str, String>,
    /// The origin.
    pub origin: Place,
    /// The monitor.
    pub monitor: Place,
    /// The phone company, in which time passes twenty times as fast as in reality.
    pub company: Company,
    /// Its REST API.
    rest: RestApi,
    seed: Seed,
    folder: TempDir,
    /// The origin's database, where it is not a file of this world.
    database: Option<String>,
    /// How soon its real upstreams look up what was not reported, in seconds.
    patience: String,
}

// === impl World ===

impl World {
    /// Starts everything; returns once the edge accepts.
    pub async fn start(origin: Part, monitor: Part) -> anyhow::Result<World> {
        World::plan(origin, monitor).start().await
    }

    /// The edge's configuration.
    pub fn config(&self) -> std::path::PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// Puts another text in place of one in the edge's configuration.
    pub fn reconfigure(&self, text: &str, by: &str) -> anyhow::Result<()> {
        let before = std::fs::read_to_string(self.config())?;
        anyhow::ensure!(before.contains(text), "{text:?} is not in the configuration");
        Ok(std::fs::write(self.config(), before.replace(text, by))?)
    }

    /// Another phone company for the same edge, in which time passes as fast as this.
    pub fn company_at(&self, speed: f64) -> anyhow::Result<Company> {
        // Calls of two companies must not be taken for one another.
        open(self.seed.child(speed.to_bits()), Some(self.edge.public), speed)
    }

    /// Chance that hangs on this world's seed.
    pub fn chance(&self) -> twilio_sim::seed::Dice {
        self.seed.dice("the test's own", 0)
    }

    /// A phone company that asks this address instead of the edge, and whose REST API the origin is given.
    pub fn company_for_origin(
        &mut self,
        address: SocketAddr,
        speed: f64,
    ) -> anyhow::Result<Company> {
        let company = open(self.seed.child(3), Some(address), speed)?;
        self.rest.serve(&company)?;
        Ok(company)
    }

    /// Where the edge listens for Twilio.
    pub fn public(&self) -> SocketAddr {
        self.edge.public
    }

    /// The folder that everything is kept in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the edge again after it has ended, with what it had kept.
    pub async fn restart_edge(&mut self) -> anyhow::Result<()> {
        self.edge = self.another_edge("edge").await?;
        self.seed = self.seed.child(1);
        self.company = open(self.seed, Some(self.edge.public), 20.0)?;
        self.rest.serve(&self.company)
    }

    /// Runs `holdline spool` for this world's edge: with what was configured, and its token.
    pub async fn spool(&self, arguments: &[&str], input: &str) -> anyhow::Result<Said> {
        let config = self.folder.path().join(CONFIG).display().to_string();
        let admin = *self.edge.admin.socket_addrs(|| None)?.first().context("no address")?;
        let admin = admin.to_string();
        let whole = [&["spool", "--config", &config, "--admin", &admin], arguments].concat();
        run("holdline", &whole, &environment(), input).await
    }

    /// Runs another tool for this world's edge: with what was configured, its token, and where it is.
    pub async fn tool(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let config = self.config().display().to_string();
        let admin = *self.edge.admin.socket_addrs(|| None)?.first().context("no address")?;
        let admin = admin.to_string();
        let (command, rest) = arguments.split_first().context("no command")?;
        let mut whole = vec![*command, "--config", &config];
        if matches!(*command, "stance" | "drill" | "status") {
            whole.extend(["--admin", &admin]);
        }
        whole.extend(rest);
        run("holdline", &whole, &environment(), "").await
    }

    /// Runs `holdline check` on this world's configuration.
    pub async fn check(&self) -> anyhow::Result<Said> {
        let config = self.folder.path().join(CONFIG).display().to_string();
        run("holdline", &["check", "--config", &config], &environment(), "").await
    }

    /// Starts another edge with the same configuration, and the same folder.
    pub async fn another_edge(&self, label: &str) -> anyhow::Result<Edge> {
        Edge::start(label, &self.folder.path().join(CONFIG), &self.edge_environment).await
    }

    /// The same, with these environment variables too.
    pub async fn another_edge_with(
        &self,
        label: &str,
        more: &[(&'static str, String)],
    ) -> anyhow::Result<Edge> {
        let mut environment = self.edge_environment.clone();
        environment.extend(more.iter().cloned());
        Edge::start(label, &self.config(), &environment).await
    }

    /// Starts another edge with the same configuration from a copy of the program, which is put in place
    /// at a path.
    pub async fn another_edge_from(&self, copy: &Path, label: &str) -> anyhow::Result<Edge> {
        std::fs::copy(crate::program::binary("holdline")?, copy)?;
        let program = copy.display().to_string();
        Edge::start_from(&program, label, &self.config(), &self.edge_environment).await
    }

    /// Lets calls go somewhere else than to the edge itself.
    pub fn calls_go_to(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        self.company = open(self.seed, Some(address), 20.0)?;
        self.rest.serve(&self.company)
    }

    /// Lets the edge's disk fail from now on: `write`, `sync`, `full` or `half`; nothing mends it.
    pub fn disk(&self, fault: &str) -> anyhow::Result<()> {
        // Put in place as a whole, because it is read at any moment.
        let (new, faults) =
            (self.folder.path().join("faults.new"), self.folder.path().join(FAULTS));
        std::fs::write(&new, fault)?;
        Ok(std::fs::rename(new, faults)?)
    }

    /// A call that is about to be made to the dial-in number.
    pub fn call(&self, party: Party) -> Call {
        self.company.call(self.line("/callin/create"), party)
    }

    /// A telephone line whose voice URL has this path.
    pub fn line(&self, path: &str) -> Line {
        Line {
            number: "+15005550001".into(),
            voice: Endpoint::from(public_url(path)),
            fallback: None,
            status: Some(Endpoint::from(public_url("/caller/end_session"))),
        }
    }

    /// Makes a call to its end.
    pub async fn hear(&self, party: Party) -> Transcript {
        self.call(party).make().await
    }

    /// Starts the real origin again after it was killed.
    pub async fn restart_origin(&mut self) -> anyhow::Result<()> {
        let setting = setting(self.database.as_deref(), &self.rest, &self.folder, &self.patience)?;
        self.origin.restart(&setting).await
    }

    /// Starts the real monitor again after it was killed.
    pub async fn restart_monitor(&mut self) -> anyhow::Result<()> {
        let setting = setting(self.database.as_deref(), &self.rest, &self.folder, &self.patience)?;
        self.monitor.restart(&setting).await
    }
}

fn setting<'s>(
    database: Option<&'s str>,
    rest: &RestApi,
    folder: &'s TempDir,
    patience: &'s str,
) -> anyhow::Result<Setting<'s>> {
    Ok(Setting { database, twilio: rest.url()?, folder, patience })
}

/// Says how to have the same chance again, where a test has failed.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with the same choices: SIM_SEED={}", self.seed);
        }
    }
}

fn environment() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("TWILIO_AUTH_TOKEN", TOKEN.to_owned()),
        ("HOLDLINE_ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
        ("HOLDLINE_ORIGIN_INSPECT_TOKEN", INSPECT_TOKEN.to_owned()),
    ])
}
