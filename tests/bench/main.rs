//! What the edge costs, beside nginx and Envoy passing the same request through.
//!
//! One signed POST is sent over and over by wrk to each proxy in turn, all in front of one nginx that
//! answers a small TwiML document. Each proxy has one worker and writes its access log to a file. What
//! is compared is CPU time a request, user and system, read from /proc: it depends far less on what
//! else the machine does than requests a second. The edge does its whole job meanwhile: proof,
//! judgement, signing, metrics, log.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Parser;
use holdline_tests::peer::{ANSWERS, Peer, start_holdline, start_nginx};
use holdline_tests::requests::{ACCOUNT, PUBLIC_URL, TOKEN};
use holdline_tests::tools::{binary_of_wheel, free_address};
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};

const PATH: &str = "/callin/create";

/// Compares CPU time a request.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds a proxy and round.
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// Rounds; the middle one counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Measured {
    micros: f64,
    a_second: f64,
    memory_mb: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let upstream = start_nginx(folder.path(), "upstream", ANSWERS)?;
    let peers = [
        start_nginx(
            folder.path(),
            "nginx",
            &PASSES.replace("UPSTREAM", &upstream.address.to_string()),
        )?,
        start_envoy(folder.path(), upstream.address)?,
        start_holdline(&folder.path().join("edge"), upstream.address, "")?,
    ];
    let script = folder.path().join("signed.lua");
    std::fs::write(&script, wrk_script())?;
    let mut rows: Vec<Vec<Measured>> = vec![Vec::new(); peers.len()];
    for peer in &peers {
        load(peer, &script, 1, arguments.connections)?;
    }
    for round in 1..=arguments.rounds {
        for (peer, row) in peers.iter().zip(&mut rows) {
            let measured = load(peer, &script, arguments.seconds, arguments.connections)?;
            say(&format!(
                "round {round}  {:<9} {:6.1} µs of CPU a request, {:7.0} requests/s",
                peer.name, measured.micros, measured.a_second
            ));
            row.push(measured);
        }
    }
    report(&peers, &mut rows);
    Ok(())
}

fn report(peers: &[Peer], rows: &mut [Vec<Measured>]) {
    let middle = |row: &mut Vec<Measured>| {
        row.sort_by(|a, b| a.micros.total_cmp(&b.micros));
        row[row.len() / 2]
    };
    let middles: Vec<Measured> = rows.iter_mut().map(middle).collect();
    say("\n| proxy | CPU a request | of nginx | requests/s | memory |\n|---|---|---|---|---|");
    for (peer, measured) in peers.iter().zip(&middles) {
        say(&format!(
            "| {} | {:.1} µs | {:.2} | {:.0} | {:.0} MB |",
            peer.name,
            measured.micros,
            measured.micros / middles[0].micros,
            measured.a_second,
            measured.memory_mb
        ));
    }
}

/// Runs wrk against one peer and counts its worker's time.
fn load(peer: &Peer, script: &Path, seconds: u32, connections: u32) -> anyhow::Result<Measured> {
    let before = peer.cpu_seconds()?;
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("http://{}{PATH}", peer.address))
        .output()
        .context("running wrk")?;
    let used = peer.cpu_seconds()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("{} did not answer every request:\n{text}", peer.name);
    }
    let requests: f64 = text
        .lines()
        .find(|line| line.contains("requests in"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("wrk said:\n{text}"))?;
    Ok(Measured {
        micros: used * 1e6 / requests,
        a_second: requests / f64::from(seconds),
        memory_mb: peer.resident_mb()?,
    })
}

const PASSES: &str = "location / {
    proxy_pass http://upstream;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_set_header X-Forwarded-For $remote_addr;
}
} upstream upstream { server UPSTREAM; keepalive 128; keepalive_requests 100000000;";

fn start_envoy(folder: &Path, upstream: SocketAddr) -> anyhow::Result<Peer> {
    let address = free_address()?;
    let endpoint =
        |at: SocketAddr| format!("{{ address: {}, port_value: {} }}", at.ip(), at.port());
    let config = format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {listen} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: origin }} }}]
  clusters:
  - name: origin
    connect_timeout: 1s
    load_assignment:
      cluster_name: origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {to} }} }} }}] }}]
"#,
        listen = endpoint(address),
        to = endpoint(upstream),
        log = folder.join("envoy-access.log").display(),
    );
    let file = folder.join("envoy.yaml");
    std::fs::write(&file, config)?;
    let log = std::fs::File::create(folder.join("envoy.log"))?;
    let child = Command::new(binary_of_wheel("envoy")?)
        .args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"])
        .arg(&file)
        .stderr(log.try_clone()?)
        .stdout(log)
        .spawn()
        .context("starting envoy")?;
    Peer::of("envoy", address, child)
}

fn wrk_script() -> String {
    let form = Form::from_pairs([
        ("AccountSid", ACCOUNT),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", "CA0123456789abcdef0123456789abcdef"),
        ("CallStatus", "in-progress"),
        ("Called", "+15005550001"),
        ("CalledCity", ""),
        ("CalledCountry", "US"),
        ("CalledState", ""),
        ("CalledZip", ""),
        ("Caller", "+15005550006"),
        ("CallerCity", ""),
        ("CallerCountry", "US"),
        ("CallerState", "CA"),
        ("CallerZip", ""),
        ("Direction", "inbound"),
        ("From", "+15005550006"),
        ("FromCity", ""),
        ("FromCountry", "US"),
        ("FromState", "CA"),
        ("FromZip", ""),
        ("StirVerstat", "TN-Validation-Passed-A"),
        ("To", "+15005550001"),
        ("ToCity", ""),
        ("ToCountry", "US"),
        ("ToState", ""),
        ("ToZip", ""),
    ]);
    let signature = Key::auth_token(&TOKEN.into()).sign(PUBLIC_URL, PATH, Content::Form(&form));
    format!(
        "wrk.method = \"POST\"\nwrk.body = \"{}\"\n\
         wrk.headers[\"Content-Type\"] = \"application/x-www-form-urlencoded; charset=UTF-8\"\n\
         wrk.headers[\"X-Twilio-Signature\"] = \"{signature}\"\n\
         wrk.headers[\"User-Agent\"] = \"TwilioProxy/1.1\"\nwrk.headers[\"Accept\"] = \"*/*\"\n\
         -- Each request is a webhook of its own: one that came twice would be answered from memory.\n\
         local n, begun = 0, os.time()\n\
         function request()\n\
         n = n + 1\n\
         wrk.headers[\"I-Twilio-Idempotency-Token\"] =\n\
         string.format(\"%08x-0a3a-4f9e-9a55-%012x\", begun, n)\n\
         return wrk.format()\n\
         end\n",
        form.encode()
    )
}

#[expect(clippy::print_stdout, reason = "the table is the program's output")]
fn say(text: &str) {
    println!("{text}");
}
