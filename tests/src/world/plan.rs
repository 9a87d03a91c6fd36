//! A world before it is started: what stands where, and what is otherwise than usual.

use std::path::Path;

use anyhow::Context as _;
use twilio_sim::Seed;

use super::place::Place;
use super::{CONFIG, FAULTS, Part, World, environment, setting};
use crate::edge::Edge;
use crate::requests::{ACCOUNT, PUBLIC_URL, open};
use crate::rest::{Recorder, RestApi};

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
    patience: &'p str,
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

    /// Lets Twilio's REST API only write down what it is asked for, instead of placing calls. What was
    /// not reported is not looked up in the course of a test, unless it is to be.
    pub fn recorded_by(self, recorder: &'p Recorder) -> Plan<'p> {
        Plan { recorder: Some(recorder), patience: "600", ..self }
    }

    /// For how many seconds the real upstreams wait for what is to be reported, before they look it up.
    pub fn patience(self, patience: &'p str) -> Plan<'p> {
        Plan { patience, ..self }
    }

    /// Lays a disk under the edge that fails when [`World::disk`] tells it to.
    pub fn on_a_disk_that_fails(self) -> Plan<'p> {
        Plan { disk_fails: true, ..self }
    }

    /// Starts everything; returns once the edge accepts.
    pub async fn start(self) -> anyhow::Result<World> {
        self.assemble().await
    }

    async fn assemble(self) -> anyhow::Result<World> {
        let folder = tempfile::tempdir()?;
        if let Some((name, text)) = self.file {
            std::fs::write(folder.path().join(name), text)?;
        }
        let mut rest = RestApi::bind()?;
        let setting = setting(self.database, &rest, &folder, self.patience)?;
        let origin = Place::set("origin", self.parts[0], &setting).await?;
        let monitor = Place::set("monitor", self.parts[1], &setting).await?;
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
            self.public,
            section(&origin, self.upstreams[0]),
            section(&monitor, self.upstreams[1]),
            self.drain,
            self.more,
        );
        let path = folder.path().join(CONFIG);
        std::fs::write(&path, config)?;
        let mut edge_environment = environment();
        if self.disk_fails {
            let faults = folder.path().join(FAULTS).display().to_string();
            edge_environment.insert("HOLDLINE_FAULTS", faults);
            edge_environment.insert("LD_PRELOAD", disk_that_fails(folder.path())?);
        }
        let edge = Edge::start("edge", &path, &edge_environment).await?;
        let seed = Seed::from_environment().map_err(anyhow::Error::msg)?;
        let company = open(seed, Some(edge.public), 20.0)?;
        match self.recorder {
            Some(recorder) => rest.record(recorder)?,
            None => rest.serve(&company)?,
        }
        let database = self.database.map(str::to_owned);
        let patience = self.patience.to_owned();
        Ok(World {
            edge,
            edge_environment,
            origin,
            monitor,
            company,
            rest,
            seed,
            folder,
            database,
            patience,
        })
    }
}

// === impl World ===

impl World {
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
            patience: "1",
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
