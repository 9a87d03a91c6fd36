//! What the front door costs: TLS and HTTP/2 beside nginx with the same certificate, the memory of ten
//! thousand connections that do nothing, and what a thousand clients who send slowly do to others.
//!
//! One signed POST is sent over and over to each proxy in turn, both in front of one nginx that answers a
//! small TwiML document, each with one worker and an access log. CPU time is read from /proc. The edge
//! does its whole job; nginx passes the request through.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use holdline_tests::peer::{ANSWERS, Peer, resident_mb, start_holdline_at, start_nginx};
use holdline_tests::requests::{call_sid, form, signed_post};
use holdline_tests::tools::free_address;
use holdline_tests::{Authority, TlsClient};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

const PATH: &str = "/callin/create";
const NAME: &str = "edge.test";

/// Measures the front door.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds a measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Rounds; the middle one counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Clients that send slowly.
    #[arg(long, default_value_t = 1000)]
    slow: usize,
}

/// How a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    Http2,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    micros: f64,
    /// At 400 requests a second.
    milliseconds: f64,
}

struct Proxy {
    peer: Peer,
    plain: SocketAddr,
    tls: SocketAddr,
}

// === impl Way ===

impl Way {
    const ALL: [Way; 3] = [Way::Plain, Way::Tls, Way::Http2];

    fn name(self) -> &'static str {
        match self {
            Way::Plain => "HTTP/1.1",
            Way::Tls => "HTTP/1.1 over TLS 1.3",
            Way::Http2 => "HTTP/2 over TLS 1.3",
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let authority = Authority::new()?;
    authority.issue(&[NAME], "edge", folder.path())?;
    let upstream = start_nginx(folder.path(), "upstream", ANSWERS)?;
    let proxies = [nginx(folder.path(), &upstream)?, holdline(folder.path(), &upstream)?];
    costs(&proxies, folder.path(), &arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        memory(&proxies, &authority, arguments.idle).await?;
        slow_senders(&proxies[1], arguments.slow, arguments.seconds).await
    })
}

fn nginx(folder: &Path, upstream: &Peer) -> anyhow::Result<Proxy> {
    let tls = free_address()?;
    let at = folder.display();
    let location = format!(
        "location / {{ proxy_pass http://upstream; proxy_http_version 1.1; \
         proxy_set_header Connection ''; proxy_set_header X-Forwarded-For $remote_addr; }}\n\
         listen {tls} ssl http2 backlog=4096; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {at}/edge.pem; ssl_certificate_key {at}/edge.key;\n\
         keepalive_timeout 600s;\n\
         }} upstream upstream {{ server {}; keepalive 128; keepalive_requests 100000000;",
        upstream.address
    );
    let peer = start_nginx(folder, "nginx", &location)?;
    Ok(Proxy { plain: peer.address, peer, tls })
}

fn holdline(folder: &Path, upstream: &Peer) -> anyhow::Result<Proxy> {
    let (plain, tls) = (free_address()?, free_address()?);
    let at = folder.display();
    let public = format!(
        "public = [{{ address = \"{plain}\" }}, {{ address = \"{tls}\", tls = {{ certificates = \
         [{{ chain = \"{at}/edge.pem\", key = \"{at}/edge.key\" }}] }} }}]"
    );
    let more = "[trust]\nnetworks = [\"loopback\"]\n[limits]\nconnections = 15000\nidle = \"10m\"";
    let peer = start_holdline_at(&folder.join("edge"), upstream.address, plain, &public, more)?;
    Ok(Proxy { peer, plain, tls })
}

fn costs(proxies: &[Proxy], folder: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let body = form(&call_sid(7), &[("Digits", "7")]).encode();
    let file = folder.join("body");
    std::fs::write(&file, &body)?;
    let head = String::from_utf8(signed_post(PATH, &form(&call_sid(7), &[("Digits", "7")]), ""))?;
    let signature = head.lines().find_map(|line| line.strip_prefix("X-Twilio-Signature: "));
    let signature = signature.context("no signature")?;
    say("| way | proxy | CPU a request | of nginx | mean time at 400/s |\n|---|---|---|---|---|");
    for way in Way::ALL {
        let mut of_nginx = None;
        for proxy in proxies {
            let mut rounds = Vec::new();
            for _ in 0..arguments.rounds {
                let busy = h2load(proxy, way, &file, signature, arguments.seconds, None)?;
                let calm = h2load(proxy, way, &file, signature, arguments.seconds, Some(25))?;
                rounds.push(Measured { micros: busy.0, milliseconds: calm.1 });
            }
            rounds.sort_by(|a, b| a.micros.total_cmp(&b.micros));
            let Measured { micros, milliseconds } = rounds[rounds.len() / 2];
            let nginx = *of_nginx.get_or_insert(micros);
            say(&format!(
                "| {} | {} | {micros:.1} µs | {:.2} | {milliseconds:.2} ms |",
                way.name(),
                proxy.peer.name,
                micros / nginx
            ));
        }
    }
    Ok(())
}

/// Runs h2load with 16 clients, at a rate for each or as fast as it goes: CPU time a request in
/// microseconds, mean time in milliseconds.
fn h2load(
    proxy: &Proxy,
    way: Way,
    body: &Path,
    signature: &str,
    seconds: u32,
    rate: Option<u32>,
) -> anyhow::Result<(f64, f64)> {
    let mut command = Command::new("h2load");
    command.args(["-c16", "-t1", &format!("--duration={seconds}"), "-d"]).arg(body);
    command.args(["-H", "Content-Type: application/x-www-form-urlencoded", "-H"]);
    command.arg(format!("X-Twilio-Signature: {signature}"));
    if way != Way::Http2 {
        command.arg("--h1");
    }
    if let Some(rate) = rate {
        command.arg(format!("--rps={rate}"));
    }
    let url = match way {
        Way::Plain => format!("http://{}{PATH}", proxy.plain),
        _ => format!("https://{}{PATH}", proxy.tls),
    };
    let before = proxy.peer.cpu_seconds()?;
    let output = command.arg(url).output().context("running h2load")?;
    let used = proxy.peer.cpu_seconds()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |with: &str| text.lines().find(|line| line.starts_with(with));
    let status = line("status codes:").with_context(|| format!("h2load said:\n{text}"))?;
    let number = |text: &str| text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
    let good = status.strip_prefix("status codes:").and_then(number).context("no count")?;
    if good < 1.0 || !status.contains(" 0 3xx, 0 4xx, 0 5xx") {
        bail!("{} did not answer every request:\n{text}", proxy.peer.name);
    }
    let times = line("time for request:").context("no times")?;
    let mean = times.split_whitespace().nth(5).context("no mean")?;
    Ok((used * 1e6 / good, milliseconds(mean)?))
}

fn milliseconds(text: &str) -> anyhow::Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(Ok(number)) = text.strip_suffix(unit).map(str::parse::<f64>) {
            return Ok(number * factor);
        }
    }
    bail!("{text:?} is no time")
}

/// Memory of connections that have carried one request and are idle.
async fn memory(proxies: &[Proxy], authority: &Authority, count: usize) -> anyhow::Result<()> {
    say(&format!(
        "\n| {count} idle connections | proxy | memory before | with them | each |\n|---|---|---|---|---|"
    ));
    let client = TlsClient::new(authority, "http/1.1", &[&TLS13], None)?;
    for way in [Way::Plain, Way::Tls] {
        for proxy in proxies {
            let pid = proxy.peer.pid();
            let before = resident_mb(pid)?;
            let request = b"GET /holdline/health HTTP/1.1\r\nHost: edge.test\r\n\r\n";
            let (mut plain, mut tls) = (Vec::new(), Vec::new());
            let mut answer = [0; 1024];
            for _ in 0..count {
                match way {
                    Way::Plain => {
                        let mut stream = TcpStream::connect(proxy.plain).await?;
                        stream.write_all(request).await?;
                        ensure!(stream.read(&mut answer).await? > 0, "closed");
                        plain.push(stream);
                    }
                    _ => {
                        let mut stream = client.greet(proxy.tls, NAME).await?;
                        stream.write_all(request).await?;
                        ensure!(stream.read(&mut answer).await? > 0, "closed");
                        tls.push(stream);
                    }
                }
            }
            let with = resident_mb(pid)?;
            say(&format!(
                "| {} | {} | {before:.0} MB | {with:.0} MB | {:.1} KB |",
                way.name(),
                proxy.peer.name,
                (with - before) * 1024.0 / count as f64
            ));
        }
    }
    Ok(())
}

/// What callers notice of clients that send a byte now and then, and come again when they are cut off.
async fn slow_senders(proxy: &Proxy, count: usize, seconds: u32) -> anyhow::Result<()> {
    let time = Duration::from_secs(seconds.into()) * 2;
    let calm = visits(proxy.plain, time / 2).await?;
    let before = resident_mb(proxy.peer.pid())?;
    let mut senders = JoinSet::new();
    for _ in 0..count {
        let to = proxy.plain;
        senders.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(to).await else { continue };
                for byte in signed_post(PATH, &form(&call_sid(1), &[]), "").iter().cycle() {
                    if stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        });
    }
    sleep(Duration::from_secs(1)).await;
    let pressed = visits(proxy.plain, time).await?;
    let with = resident_mb(proxy.peer.pid())?;
    senders.shutdown().await;
    say("\n| one visit after another | p50 | p99 | memory |\n|---|---|---|---|");
    for (name, times, memory) in
        [("alone", calm, before), ("beside the slow senders", pressed, with)]
    {
        let at =
            |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        say(&format!("| {name} | {:.2} ms | {:.2} ms | {memory:.0} MB |", at(0.5), at(0.99)));
    }
    Ok(())
}

/// The times of visits over one connection, sorted.
async fn visits(to: SocketAddr, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let request = signed_post(PATH, &form(&call_sid(9), &[]), "");
    let request = String::from_utf8(request)?.replace("I-Twilio-Idempotency-Token: \r\n", "");
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (begun, mut times, mut answer) = (Instant::now(), Vec::new(), [0; 4096]);
    while begun.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        while !text.contains("</Response>") {
            let length = stream.read(&mut answer).await?;
            ensure!(length > 0, "a visit was cut: {text}");
            text.push_str(&String::from_utf8_lossy(&answer[..length]));
        }
        times.push(sent.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    times.sort();
    Ok(times)
}

#[expect(clippy::print_stdout, reason = "the figures are the program's output")]
fn say(line: &str) {
    println!("{line}");
}
