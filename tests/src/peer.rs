//! Proxies and other programs under load, and what they cost.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::requests::{ACCOUNT, PUBLIC_URL, TOKEN};
use crate::tools::free_address;

/// Kernel clock ticks a second, as /proc counts them on Linux.
const TICKS: f64 = 100.0;

/// What the upstream of a benchmark answers.
pub const ANSWERS: &str = r#"location / {
    default_type text/xml;
    return 200 '<?xml version="1.0" encoding="UTF-8"?><Response><Gather finishOnKey="*" timeout="10" method="POST" action="/identify_caller?attempt=1"><Say>Hello. Key in your access number, then press star.</Say></Gather></Response>';
}"#;

/// A proxy under load.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    /// The process whose time is counted.
    worker: u32,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Asked, not killed: a master that is killed leaves its worker behind.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if !asked {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

// === impl Peer ===

impl Peer {
    /// A program with one process, once it accepts connections.
    pub fn of(name: &'static str, address: SocketAddr, child: Child) -> anyhow::Result<Peer> {
        let peer = Peer { name, address, worker: child.id(), child };
        peer.await_listener()?;
        Ok(peer)
    }

    /// CPU time it has used, user and system, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.worker)
    }

    /// Memory it holds, in MB.
    pub fn resident_mb(&self) -> anyhow::Result<f64> {
        resident_mb(self.worker)
    }

    /// The process that is counted.
    pub fn pid(&self) -> u32 {
        self.worker
    }

    fn await_listener(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            if begun.elapsed() > Duration::from_secs(15) {
                bail!("{} does not listen on {}", self.name, self.address);
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// Starts an edge with one worker in front of this origin, its spool and its log in a folder of its own.
pub fn start_holdline(folder: &Path, origin: SocketAddr, more: &str) -> anyhow::Result<Peer> {
    let address = free_address()?;
    start_holdline_at(folder, origin, address, &format!("public = \"{address}\""), more)
}

/// The same with listeners as written in `public`, of which one is at `address`.
pub fn start_holdline_at(
    folder: &Path,
    origin: SocketAddr,
    address: SocketAddr,
    public: &str,
    more: &str,
) -> anyhow::Result<Peer> {
    let admin = free_address()?;
    std::fs::create_dir_all(folder)?;
    let config = format!(
        r#"environment = "development"
        public_url = "{PUBLIC_URL}"
        [listen]
        {public}
        admin = "{admin}"
        [[twilio.account]]
        sid = "{ACCOUNT}"
        auth_tokens = ["env:TWILIO_AUTH_TOKEN"]
        [upstreams.origin]
        url = "http://{origin}"
        [upstreams.monitor]
        url = "http://{origin}"
        [runtime]
        threads = 1
        {more}"#
    );
    let file = folder.join("edge.toml");
    std::fs::write(&file, config)?;
    let mut binary = std::env::current_exe()?;
    binary.set_file_name("holdline");
    let child = Command::new(binary)
        .args(["serve", "--config"])
        .arg(&file)
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("edge.log"))?)
        .spawn()
        .context("starting holdline")?;
    Peer::of("holdline", address, child)
}

/// Starts nginx with one worker and this `location`. The one called "upstream" keeps no log.
pub fn start_nginx(folder: &Path, name: &'static str, location: &str) -> anyhow::Result<Peer> {
    let address = free_address()?;
    let home = folder.join(name);
    std::fs::create_dir_all(home.join("logs"))?;
    let log = if name == "upstream" {
        "off".to_owned()
    } else {
        home.join("access.log").display().to_string()
    };
    let config = format!(
        "daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{ access_log {log}; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
         fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n\
         keepalive_requests 100000000; server {{ listen {address} backlog=4096; {location} }} }}",
        home = home.display()
    );
    let file = home.join("nginx.conf");
    std::fs::write(&file, config)?;
    let child = Command::new("nginx")
        .arg("-p")
        .arg(&home)
        .arg("-c")
        .arg(&file)
        .spawn()
        .context("starting nginx")?;
    let mut peer = Peer { name, address, worker: child.id(), child };
    peer.await_listener()?;
    peer.worker = first_child(peer.child.id())?;
    Ok(peer)
}

/// Processor time that a process has used so far, in seconds.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field may hold blanks; times are the 14th and 15th of all.
    let (_, rest) = stat.rsplit_once(')').context("no command in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    Ok((ticks(11).context("no user time")? + ticks(12).context("no system time")?) / TICKS)
}

/// Memory that a process holds, in MB.
pub fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no number")?.parse::<f64>()? / 1024.0)
}

fn first_child(pid: u32) -> anyhow::Result<u32> {
    let begun = Instant::now();
    loop {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(child.parse()?);
        }
        if begun.elapsed() > Duration::from_secs(5) {
            bail!("process {pid} has no worker");
        }
    }
}
