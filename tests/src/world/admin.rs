//! The edge's admin plane: what it says, and what it is told.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{ADMIN_TOKEN, PATIENCE, World};
use crate::requests::{get, open};

// === impl World ===

impl World {
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
}
