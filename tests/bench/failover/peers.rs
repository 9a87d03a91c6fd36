//! The proxies that are compared, each with configurations of its own in `peers/`: the best that we could
//! find, and one in which what its documentation gives a default for is left at that.
//!
//! In a configuration, `{listen}`, `{origin}` and `{standby}` stand for addresses (`{origin_ip}` and
//! `{origin_port}` for their parts). A line with `{cap}` or `{half_cap}` is there only in a run in which the
//! origin has a limit, which is that number of requests in flight, or half of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use holdline_tests::tools::{binary_of_wheel, free_address};
use holdline_tests::world::{ACCOUNT, TOKEN};
use rustix::process::{Pid, Signal, kill_process};

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Holdline,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Traefik,
}

/// How a proxy is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Settings {
    /// As well as its documentation allows.
    Best,
    /// Health checks switched on, and every number of theirs left at the documented default.
    Default,
}

/// A proxy in certain settings. The edge is measured as it is shipped: its best are its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contender {
    /// Which proxy.
    pub(crate) peer: Peer,
    /// In which settings.
    pub(crate) settings: Settings,
}

/// A running proxy; ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    peer: Peer,
    log: PathBuf,
    child: Child,
}

/// What is written for callers about whom no upstream cared.
const CANNED: &str = "<?xml version=\"1.0\"?><Response><Say>canned</Say><Hangup/></Response>";

// === impl Peer ===

impl Peer {
    /// All of them.
    pub(crate) const ALL: [Peer; 6] =
        [Peer::Holdline, Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Caddy, Peer::Traefik];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Holdline => "holdline",
            Peer::Nginx => "nginx",
            Peer::Haproxy => "HAProxy",
            Peer::Envoy => "Envoy",
            Peer::Caddy => "Caddy",
            Peer::Traefik => "Traefik",
        }
    }

    /// The program and its arguments, before the name of its first file.
    fn command(self) -> anyhow::Result<(PathBuf, &'static [&'static str])> {
        let ours = || -> anyhow::Result<PathBuf> {
            let mut path = std::env::current_exe()?;
            path.set_file_name("holdline");
            Ok(path)
        };
        Ok(match self {
            Peer::Holdline => (ours()?, &["serve", "--config"]),
            Peer::Nginx => ("nginx".into(), &["-c"]),
            Peer::Haproxy => ("haproxy".into(), &["-q", "-db", "-f"]),
            Peer::Envoy => (
                binary_of_wheel("envoy")?,
                &["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"],
            ),
            Peer::Caddy => {
                (binary_of_wheel("caddy")?, &["run", "--adapter", "caddyfile", "--config"])
            }
            Peer::Traefik => (binary_of_wheel("traefik")?, &["--configfile"]),
        })
    }
}

// === impl Contender ===

impl Contender {
    /// These proxies in these settings; the edge once.
    pub(crate) fn all(peers: &[Peer], settings: &[Settings]) -> Vec<Contender> {
        let mut all = Vec::new();
        for &peer in peers {
            let settings = if peer == Peer::Holdline { &[Settings::Best] } else { settings };
            all.extend(settings.iter().map(|&settings| Contender { peer, settings }));
        }
        all
    }

    /// Its name in a table.
    pub(crate) fn name(self) -> String {
        match self.settings {
            Settings::Best => self.peer.name().to_owned(),
            Settings::Default => format!("{} (defaults)", self.peer.name()),
        }
    }

    /// Its configuration: name and text of each file.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        use Settings::{Best, Default};
        match (self.peer, self.settings) {
            (Peer::Holdline, _) => &[
                ("edge.toml", include_str!("peers/holdline.toml")),
                ("rows.toml", include_str!("peers/holdline-rows.toml")),
            ],
            (Peer::Nginx, Best) => &[("nginx.conf", include_str!("peers/nginx.conf"))],
            (Peer::Nginx, Default) => &[("nginx.conf", include_str!("peers/nginx-defaults.conf"))],
            (Peer::Haproxy, Best) => &[("haproxy.cfg", include_str!("peers/haproxy.cfg"))],
            (Peer::Haproxy, Default) => {
                &[("haproxy.cfg", include_str!("peers/haproxy-defaults.cfg"))]
            }
            (Peer::Envoy, Best) => &[("envoy.yaml", include_str!("peers/envoy.yaml"))],
            (Peer::Envoy, Default) => &[("envoy.yaml", include_str!("peers/envoy-defaults.yaml"))],
            (Peer::Caddy, Best) => &[("Caddyfile", include_str!("peers/Caddyfile"))],
            (Peer::Caddy, Default) => &[("Caddyfile", include_str!("peers/Caddyfile-defaults"))],
            (Peer::Traefik, Best) => &[
                ("traefik.yaml", include_str!("peers/traefik.yaml")),
                ("routes.yaml", include_str!("peers/traefik-routes.yaml")),
            ],
            (Peer::Traefik, Default) => &[
                ("traefik.yaml", include_str!("peers/traefik.yaml")),
                ("routes.yaml", include_str!("peers/traefik-defaults-routes.yaml")),
            ],
        }
    }

    /// Starts it between callers and two upstreams, the first of which may have at most `cap` requests in
    /// flight; returns once it listens.
    pub(crate) fn start(
        self,
        folder: &Path,
        origin: SocketAddr,
        standby: SocketAddr,
        cap: Option<u32>,
    ) -> anyhow::Result<Proxy> {
        let address = free_address()?;
        let filled = |text: &str| {
            let mut text = with_cap(text, cap);
            for (name, at) in [("listen", address), ("origin", origin), ("standby", standby)] {
                text = text
                    .replace(&format!("{{{name}}}"), &at.to_string())
                    .replace(&format!("{{{name}_ip}}"), &at.ip().to_string())
                    .replace(&format!("{{{name}_port}}"), &at.port().to_string());
            }
            text.replace("{folder}", &folder.display().to_string()).replace("{account}", ACCOUNT)
        };
        for (name, text) in self.files() {
            std::fs::write(folder.join(name), filled(text))?;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length";
        std::fs::write(
            folder.join("canned.http"),
            format!("{head}: {}\r\n\r\n{CANNED}", CANNED.len()),
        )?;
        let log = folder.join("proxy.log");
        let output = std::fs::File::create(&log)?;
        let (program, arguments) = self.peer.command()?;
        let first = self.files().first().context("no file")?.0;
        let child = Command::new(program)
            .args(arguments)
            .arg(folder.join(first))
            .current_dir(folder)
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", self.name()))?;
        let proxy = Proxy { address, peer: self.peer, log, child };
        proxy.listens().with_context(|| format!("{} said:\n{}", self.name(), proxy.log()))?;
        Ok(proxy)
    }
}

/// A configuration with the lines that are about the origin's limit, or without them.
fn with_cap(text: &str, cap: Option<u32>) -> String {
    match cap {
        Some(cap) => text
            .replace("{cap}", &cap.to_string())
            .replace("{half_cap}", &(cap / 2).max(1).to_string()),
        None => text.split_inclusive('\n').filter(|line| !line.contains("cap}")).collect(),
    }
}

// === impl Proxy ===

impl Proxy {
    /// Whether the edge said that the origin was down; none for the others.
    pub(crate) fn said_down(&self) -> Option<bool> {
        self.said(r#""to":"down""#)
    }

    /// Whether the edge said that it doubted the origin; none for the others.
    pub(crate) fn said_doubtful(&self) -> Option<bool> {
        self.said(r#""to":"doubtful""#)
    }

    fn said(&self, what: &str) -> Option<bool> {
        let of_origin = |line: &str| line.contains(r#""upstream":"origin""#) && line.contains(what);
        (self.peer == Peer::Holdline).then(|| self.log().lines().any(of_origin))
    }

    /// What it wrote.
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn listens(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("nothing listens on {}", self.address);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Asked, not killed: a master that is killed leaves its worker behind.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(3) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
