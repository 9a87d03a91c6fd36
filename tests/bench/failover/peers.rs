//! The proxies that are compared, each with a configuration of its own in `peers/`.

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

/// A running proxy; ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
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

    /// Its configuration: name and text of each file.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Peer::Holdline => &[
                ("edge.toml", include_str!("peers/holdline.toml")),
                ("rows.toml", include_str!("peers/holdline-rows.toml")),
            ],
            Peer::Nginx => &[("nginx.conf", include_str!("peers/nginx.conf"))],
            Peer::Haproxy => &[("haproxy.cfg", include_str!("peers/haproxy.cfg"))],
            Peer::Envoy => &[("envoy.yaml", include_str!("peers/envoy.yaml"))],
            Peer::Caddy => &[("Caddyfile", include_str!("peers/Caddyfile"))],
            Peer::Traefik => &[
                ("traefik.yaml", include_str!("peers/traefik.yaml")),
                ("routes.yaml", include_str!("peers/traefik-routes.yaml")),
            ],
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

    /// Starts it between callers and two upstreams; returns once it listens.
    pub(crate) fn start(
        self,
        folder: &Path,
        origin: SocketAddr,
        standby: SocketAddr,
    ) -> anyhow::Result<Proxy> {
        let address = free_address()?;
        let filled = |text: &str| {
            let mut text = text.to_owned();
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
        let log = std::fs::File::create(folder.join("proxy.log"))?;
        let (program, arguments) = self.command()?;
        let first = self.files().first().context("no file")?.0;
        let child = Command::new(program)
            .args(arguments)
            .arg(folder.join(first))
            .current_dir(folder)
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.name()))?;
        let proxy = Proxy { address, child };
        proxy.listens().with_context(|| {
            let log = std::fs::read_to_string(folder.join("proxy.log")).unwrap_or_default();
            format!("{} said:\n{log}", self.name())
        })?;
        Ok(proxy)
    }
}

// === impl Proxy ===

impl Proxy {
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
