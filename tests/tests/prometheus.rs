//! A real Prometheus scrapes a real edge, and judges what it reads by the rules that are shipped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdline_tests::tools::free_address;
use holdline_tests::world::{call_sid, form};
use holdline_tests::{Manner, Part, World};
use serde_json::Value;

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus; ended when this is dropped.
struct Prometheus {
    child: Child,
    address: std::net::SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes this edge, with the rules that are shipped.
    fn start(world: &World) -> Prometheus {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let rules = root.join("config/prometheus/alerts.yml");
        let edge = world.edge.admin.socket_addrs(|| None).unwrap()[0];
        let config = format!(
            "global: {{ scrape_interval: 200ms, evaluation_interval: 200ms }}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n  - job_name: holdline\n    static_configs: [{{ targets: [\"{edge}\"] }}]\n",
            rules.display()
        );
        let file = world.folder().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = free_address().unwrap();
        let log = std::fs::File::create(world.folder().join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", world.folder().join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus: run `make setup`, which installs it");
        Prometheus { child, address }
    }

    async fn get(&self, world: &World, path: &str) -> Value {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: prometheus\r\nConnection: close\r\n\r\n");
        let Ok(answer) = world.raw_to(self.address, request.as_bytes()).await else {
            return Value::Null;
        };
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        // What is sent in chunks holds one that is all of it.
        let json = body.find('{').zip(body.rfind('}')).map(|(from, to)| &body[from..=to]);
        serde_json::from_str(json.unwrap_or_default()).unwrap_or_default()
    }

    /// Waits until a query gives this number for its first series.
    async fn until(&self, world: &World, query: &str, number: &str) {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let begun = Instant::now();
        loop {
            let said = self.get(world, &path).await;
            if said["data"]["result"][0]["value"][1] == number {
                return;
            }
            let log = || std::fs::read_to_string(world.folder().join("prometheus.log"));
            assert!(begun.elapsed() < PATIENCE, "{query}: {said:#}\n{}", log().unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || b == b'_' => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[tokio::test]
async fn a_real_prometheus_reads_what_the_edge_says_and_the_rules_that_are_shipped() {
    let answers = Part::StandIn(Manner::Answers);
    let world = World::start(answers, answers).await.unwrap();
    let prometheus = Prometheus::start(&world);
    prometheus.until(&world, "up{job=\"holdline\"}", "1").await;
    prometheus.until(&world, "holdline_verdict{upstream=\"origin\",verdict=\"well\"}", "1").await;
    for n in 0..5 {
        world.post("/callin/create", &form(&call_sid(n), &[])).await.result.unwrap();
    }
    let visits = "holdline_visits_total{row=\"callin_create\",by=\"origin\"}";
    prometheus.until(&world, visits, "5").await;
    let answered = "holdline_probe_seconds_count{upstream=\"monitor\"} > bool 0";
    prometheus.until(&world, answered, "1").await;
    // An outage is seen, and every rule can be evaluated.
    world.origin.wire.cut().await;
    prometheus.until(&world, "holdline_verdict{upstream=\"origin\",verdict=\"down\"}", "1").await;
    let rules = prometheus.get(&world, "/api/v1/rules").await;
    let groups = rules["data"]["groups"].as_array().expect("groups");
    let all: Vec<&Value> =
        groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
    assert!(all.len() > 30, "{} rules", all.len());
    for rule in all {
        assert_eq!(
            (&rule["health"], &rule["type"]),
            (&"ok".into(), &"alerting".into()),
            "{rule:#}"
        );
    }
}
