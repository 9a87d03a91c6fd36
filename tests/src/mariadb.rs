//! A MariaDB server of a test's own: its own data, and a socket instead of a port.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, Executor as _, MySqlConnection};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long it may take to be there.
const START: Duration = Duration::from_secs(60);

/// A running server. It is killed when this is dropped.
#[derive(Debug)]
pub struct MariaDb {
    child: Child,
    folder: TempDir,
}

// === impl MariaDb ===

impl MariaDb {
    /// Starts a server with an empty database.
    pub async fn start() -> anyhow::Result<MariaDb> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let made = Command::new("mariadb-install-db")
            .arg(format!("--datadir={}", data.display()))
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(as_root())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("running mariadb-install-db: `make setup` installs it")?;
        if !made.status.success() {
            bail!("mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));
        }
        let log = std::fs::File::create(folder.path().join("log"))?;
        let socket = folder.path().join("socket");
        let child = Command::new(server()?)
            .args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=64M"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", folder.path().join("pid").display()))
            .args(as_root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("starting mariadbd")?;
        let server = MariaDb { child, folder };
        server.until_it_answers().await?;
        Ok(server)
    }

    /// The database, for the origin.
    pub fn url(&self) -> String {
        format!("mysql://root@localhost/holdline?socket={}", self.socket())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().context("the server has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process number")?;
        Ok(kill_process(pid, signal)?)
    }

    fn socket(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        let url = format!("mysql://root@localhost/?socket={}", self.socket());
        let begun = Instant::now();
        loop {
            match MySqlConnection::connect(&url).await {
                Ok(mut connection) => {
                    connection.execute("CREATE DATABASE holdline").await?;
                    return Ok(connection.close().await?);
                }
                Err(error) if begun.elapsed() > START => {
                    let log = std::fs::read_to_string(self.folder.path().join("log"));
                    bail!(
                        "mariadbd did not answer: {error}; it said:\n{}",
                        log.unwrap_or_default()
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// It does not want to be run by root unless it is told so.
fn as_root() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}

/// Debian keeps the server where only root looks.
fn server() -> anyhow::Result<&'static str> {
    let places = ["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd", "/usr/bin/mariadbd"];
    let place = places.into_iter().find(|place| Path::new(place).exists());
    place.context("mariadbd is not installed: `make setup` does that")
}
