//! An edge with an origin and a monitor behind it, and calls that go through them.

mod place;
mod store;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use holdline_twilio::Form;
use tempfile::TempDir;
use twilio_sim::{Call, Company, Endpoint, Fetched, Line, Party, Seed, Transcript};
use url::Url;

pub use place::Place;
use place::Setting;

use crate::edge::Edge;
use crate::program::{Said, run};
pub use crate::requests::{ACCOUNT, PUBLIC_URL, TOKEN, call_sid, form, public_url};
use crate::requests::{get, open, post};
use crate::rest::{Recorder, RestApi};
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

/// A world that is to be.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Plan<'p> {
    parts: [Part; 2],
    upstreams: [(&'p str, &'p str); 2],
    drain: &'p str,
    public: &'p str,
    more: &'p str,
    file: Option<(&'p str, &'p str)>,
    disk_fails: bool,
    database: Option<&'p str>,
    recorder: Option<&'p Recorder>,
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
}

// === impl Plan ===

impl<'p> Plan<'p> {
    /// More lines in the edge's configuration.
    pub fn more(self, more: &'p str) -> Plan<'p> {
        Plan { more, ..self }
    }

    /// A file beside the edge's configuration: name and content.
    pub fn file(self, name: &'p str, text: &'p str) -> Plan<'p> {
        Plan { file: Some((name, text)), ..self }
    }

    /// A catalogue of the test's own.
    pub fn rows(self, rows: &'p str) -> Plan<'p> {
        self.more("[catalogue]\nfile = \"rows.toml\"").file("rows.toml", rows)
    }

    /// The listeners of the edge, as lines of their own behind everything else; no other.
    pub fn listeners(self, listeners: &'p str) -> Plan<'p> {
        Plan { public: "", more: listeners, ..self }
    }

    /// A drain time for the end.
    pub fn drain(self, drain: &'p str) -> Plan<'p> {
        Plan { drain, ..self }
    }

    /// The URL by which the edge knows the origin, in which `{address}` and `{port}` stand for those of
    /// the wire to it; and more lines of its section.
    pub fn origin(self, url: &'p str, lines: &'p str) -> Plan<'p> {
        Plan { upstreams: [(url, lines), self.upstreams[1]], ..self }
    }

    /// The same for the monitor.
    pub fn monitor(self, url: &'p str, lines: &'p str) -> Plan<'p> {
        Plan { upstreams: [self.upstreams[0], (url, lines)], ..self }
    }

    /// The database of the real upstreams, by URL, instead of a file of the world's own.
    pub fn database(self, url: &'p str) -> Plan<'p> {
        Plan { database: Some(url), ..self }
    }

    /// Lets Twilio's REST API only write down what it is asked for, instead of placing calls.
    pub fn recorded_by(self, recorder: &'p Recorder) -> Plan<'p> {
        Plan { recorder: Some(recorder), ..self }
    }

    /// Lays a disk under the edge that fails when [`World::disk`] tells it to.
    pub fn on_a_disk_that_fails(self) -> Plan<'p> {
        Plan { disk_fails: true, ..self }
    }

    /// Starts everything; returns once the edge accepts.
    pub async fn start(self) -> anyhow::Result<World> {
        World::assemble(self).await
    }
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

    /// A world that is to be started otherwise than usual.
    pub fn plan<'p>(origin: Part, monitor: Part) -> Plan<'p> {
        let usual = ("http://{address}", "");
        Plan {
            parts: [origin, monitor],
            upstreams: [usual; 2],
            drain: "0s",
            public: "public = \"127.0.0.1:0\"",
            more: "",
            file: None,
            disk_fails: false,
            database: None,
            recorder: None,
        }
    }

    async fn assemble(plan: Plan<'_>) -> anyhow::Result<World> {
        let folder = tempfile::tempdir()?;
        if let Some((name, text)) = plan.file {
            std::fs::write(folder.path().join(name), text)?;
        }
        let mut rest = RestApi::bind()?;
        let setting = setting(plan.database, &rest, &folder)?;
        let origin = Place::set("origin", plan.parts[0], &setting).await?;
        let monitor = Place::set("monitor", plan.parts[1], &setting).await?;
        let section = |place: &Place, (url, lines): (&str, &str)| {
            let address = place.wire.address();
            let url = url.replace("{address}", &address.to_string());
            let url = url.replace("{port}", &address.port().to_string());
            format!("[upstreams.{}]\nurl = \"{url}\"\n{lines}\n", place.role)
        };
        let config = format!(
            r#"environment = "development"
            public_url = "{PUBLIC_URL}"
            [listen]
            {}
            admin = "127.0.0.1:0"
            [admin]
            token = "env:HOLDLINE_ADMIN_TOKEN"
            [[twilio.account]]
            sid = "{ACCOUNT}"
            auth_tokens = ["env:TWILIO_AUTH_TOKEN"]
            {}
            {}
            [stop]
            drain = "{}"
            grace = "15s"
            {}"#,
            plan.public,
            section(&origin, plan.upstreams[0]),
            section(&monitor, plan.upstreams[1]),
            plan.drain,
            plan.more,
        );
        let path = folder.path().join(CONFIG);
        std::fs::write(&path, config)?;
        let mut edge_environment = environment();
        if plan.disk_fails {
            let faults = folder.path().join(FAULTS).display().to_string();
            edge_environment.insert("HOLDLINE_FAULTS", faults);
            edge_environment.insert("LD_PRELOAD", disk_that_fails(folder.path())?);
        }
        let edge = Edge::start("edge", &path, &edge_environment).await?;
        let seed = Seed::from_environment().map_err(anyhow::Error::msg)?;
        let company = open(seed, Some(edge.public), 20.0)?;
        match plan.recorder {
            Some(recorder) => rest.record(recorder)?,
            None => rest.serve(&company)?,
        }
        let database = plan.database.map(str::to_owned);
        Ok(World { edge, edge_environment, origin, monitor, company, rest, seed, folder, database })
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

    /// One signed POST to the edge, outside any call.
    pub async fn post(&self, path: &str, form: &Form) -> Fetched {
        post(&self.company, &public_url(path), form, "").await
    }

    /// Such a POST with an idempotency token.
    pub async fn post_with_token(&self, path: &str, form: &Form, token: &str) -> Fetched {
        post(&self.company, &public_url(path), form, token).await
    }

    /// One signed POST to an upstream itself, past the edge.
    pub async fn post_to(&self, place: &Place, path: &str, form: &Form) -> Fetched {
        match open(self.seed, Some(place.wire.address()), 1.0) {
            Ok(company) => post(&company, &public_url(path), form, "").await,
            Err(error) => unreachable!("the same settings were taken before: {error}"),
        }
    }

    /// The edge's status.
    pub async fn status(&self) -> anyhow::Result<serde_json::Value> {
        let (_, body) = self.get_admin("/status").await?;
        Ok(serde_json::from_str(&body)?)
    }

    /// A GET to the admin listener: status and body.
    pub async fn get_admin(&self, path: &str) -> anyhow::Result<(u16, String)> {
        // The edge's own listener is reached by its own address.
        get(&open(self.seed, None, 1.0)?, &self.edge.admin.join(path)?).await
    }

    /// A number of the edge's metrics, summed over all series of `name` whose labels hold `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> anyhow::Result<f64> {
        let (_, text) = self.get_admin("/metrics").await?;
        let of_name = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(labels)
        };
        Ok(text
            .lines()
            .filter(of_name)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Waits until the edge believes this of an upstream.
    pub async fn until(&self, upstream: &str, verdict: &str) -> anyhow::Result<()> {
        let believed =
            |status: &serde_json::Value| status["upstreams"][upstream]["verdict"] == verdict;
        self.until_status(believed).await.map(drop)
    }

    /// Waits until something is so of the edge's status; gives the status.
    pub async fn until_status(
        &self,
        is_so: impl Fn(&serde_json::Value) -> bool,
    ) -> anyhow::Result<serde_json::Value> {
        self.until_status_within(PATIENCE, is_so).await
    }

    /// Waits until the edge has delivered all that it kept: after many failures the origin is left alone
    /// for up to a minute, and a notice waits for the end of its hold.
    pub async fn until_spool_is_empty(&self) -> anyhow::Result<()> {
        let is_empty = |status: &serde_json::Value| status["spool"]["waiting"] == 0;
        self.until_status_within(PATIENCE * 10, is_empty).await.map(drop)
    }

    async fn until_status_within(
        &self,
        patience: Duration,
        is_so: impl Fn(&serde_json::Value) -> bool,
    ) -> anyhow::Result<serde_json::Value> {
        let begun = Instant::now();
        loop {
            let status = self.status().await?;
            if is_so(&status) {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                bail!("it was not so in time: {status:#}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a number of the edge's metrics is what it should be.
    pub async fn until_metric(&self, name: &str, labels: &str, number: f64) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let now = self.metric(name, labels).await?;
            if now == number {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{name}{{{labels}}} was not {number} in time, but {now}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A request to the admin plane by somebody who may change things: status and body.
    pub async fn manage(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> anyhow::Result<(u16, String)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let address = *self.edge.admin.socket_addrs(|| None)?.first().context("no address")?;
        let answer = self.raw_to(address, request.as_bytes()).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.context("no status")?, body.to_owned()))
    }

    /// An order to a real upstream, as a browser gives it: the status.
    pub async fn order(&self, place: &Place, path: &str, body: &str) -> anyhow::Result<u16> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: order\r\nAuthorization: Bearer {INSPECT_TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw_to(place.wire.address(), request.as_bytes()).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.context("no status")
    }

    /// What a place of a real upstream was told to show of itself.
    pub async fn inspect(&self, place: &Place, path: &str) -> anyhow::Result<serde_json::Value> {
        let url: Url = format!("http://{}{path}", place.wire.address()).parse()?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: inspect\r\nAuthorization: Bearer {INSPECT_TOKEN}\r\nConnection: close\r\n\r\n",
            url.path()
        );
        let answer = self.raw_to(place.wire.address(), request.as_bytes()).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Sends bytes to the edge and reads until it closes.
    pub async fn raw(&self, bytes: &[u8]) -> anyhow::Result<String> {
        self.raw_to(self.edge.public, bytes).await
    }

    /// Sends bytes to any address and reads until it closes.
    pub async fn raw_to(&self, address: SocketAddr, bytes: &[u8]) -> anyhow::Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // A connection that is reset after its answer has still answered.
        let _ = tokio::time::timeout(PATIENCE, read)
            .await
            .context("the connection was not closed in time")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Starts the real origin again after it was killed.
    pub async fn restart_origin(&mut self) -> anyhow::Result<()> {
        let setting = setting(self.database.as_deref(), &self.rest, &self.folder)?;
        self.origin.restart(&setting).await
    }

    /// Starts the real monitor again after it was killed.
    pub async fn restart_monitor(&mut self) -> anyhow::Result<()> {
        let setting = setting(self.database.as_deref(), &self.rest, &self.folder)?;
        self.monitor.restart(&setting).await
    }
}

fn setting<'s>(
    database: Option<&'s str>,
    rest: &RestApi,
    folder: &'s TempDir,
) -> anyhow::Result<Setting<'s>> {
    Ok(Setting { database, twilio: rest.url()?, folder })
}

/// Says how to have the same chance again, where a test has failed.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with the same choices: SIM_SEED={}", self.seed);
        }
    }
}

/// Builds the library that lets a disk fail.
fn disk_that_fails(folder: &Path) -> anyhow::Result<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/disk.c");
    let library = folder.join("disk.so");
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .context("running cc")?;
    anyhow::ensure!(built.success(), "{} could not be built", source.display());
    Ok(library.display().to_string())
}

fn environment() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("TWILIO_AUTH_TOKEN", TOKEN.to_owned()),
        ("HOLDLINE_ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
        ("HOLDLINE_ORIGIN_INSPECT_TOKEN", INSPECT_TOKEN.to_owned()),
    ])
}
