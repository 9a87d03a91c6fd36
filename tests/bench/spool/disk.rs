//! The disk itself, and others who keep things on it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdline_tests::Report;
use holdline_tests::peer::Peer;
use holdline_tests::tools::free_address;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::load::Latencies;
use super::{Row, rate};

/// What a write-ahead log appends for a commit of one callback: some pages.
const APPENDED: usize = 16 * 1024;

/// How long the disk takes to have written what it was given.
pub(crate) fn syncs(folder: &Path, time: Duration) -> anyhow::Result<Latencies> {
    let mut file = File::create(folder.join("syncs"))?;
    let bytes = vec![7; APPENDED];
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        file.write_all(&bytes)?;
        let before = Instant::now();
        file.sync_data()?;
        times.push(before.elapsed());
    }
    Ok(Latencies::of(times))
}

/// SQLite with the same settings, and a commit for every callback.
pub(crate) async fn one_commit_a_callback(
    folder: &Path,
    time: Duration,
    connections: usize,
) -> anyhow::Result<Row> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("alone.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let table = "CREATE TABLE callbacks (place INTEGER PRIMARY KEY, id TEXT UNIQUE, request BLOB)";
    sqlx::raw_sql(table).execute(&mut connection).await?;
    let connection = Arc::new(Mutex::new(connection));
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..connections)
        .map(|client| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let number = times.len() as u64;
                    let request = Report { call: client as u64, number }.request();
                    let begun = Instant::now();
                    sqlx::query("INSERT INTO callbacks (id, request) VALUES (?, ?)")
                        .bind(format!("{client:012}-{number:012}"))
                        .bind(request)
                        .execute(&mut *connection.lock().await)
                        .await?;
                    times.push(begun.elapsed());
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    row("SQLite, one commit a callback", tasks, time).await
}

/// Redis that syncs its log before it answers.
pub(crate) async fn redis(
    folder: &Path,
    time: Duration,
    connections: usize,
) -> anyhow::Result<Row> {
    let address = free_address()?;
    let home = folder.join("redis");
    std::fs::create_dir_all(&home)?;
    let child = Command::new("redis-server")
        .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir"])
        .arg(&home)
        .stdout(Stdio::null())
        .spawn()
        .context("starting redis-server")?;
    let redis = Peer::of("redis", address, child)?;
    let end = Instant::now() + time;
    let tasks: Vec<_> = (0..connections)
        .map(|client| {
            let address = redis.address;
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut times = Vec::new();
                while Instant::now() < end {
                    let number = times.len() as u64;
                    let request = Report { call: client as u64, number }.request();
                    let mut command =
                        format!("*3\r\n$5\r\nRPUSH\r\n$9\r\ncallbacks\r\n${}\r\n", request.len())
                            .into_bytes();
                    command.extend_from_slice(&request);
                    command.extend_from_slice(b"\r\n");
                    let begun = Instant::now();
                    stream.write_all(&command).await?;
                    let mut answer = [0; 64];
                    let read = stream.read(&mut answer).await?;
                    anyhow::ensure!(answer[..read].starts_with(b":"), "redis refused");
                    times.push(begun.elapsed());
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    row("Redis, appendfsync always", tasks, time).await
}

async fn row(
    who: &'static str,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<Vec<Duration>>>>,
    time: Duration,
) -> anyhow::Result<Row> {
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let latencies = Latencies::of(times);
    Ok(Row { who, a_second: rate(latencies.count() as u64, time), latencies })
}
