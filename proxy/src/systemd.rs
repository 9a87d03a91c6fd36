//! What a service manager is told: that the edge is ready, is stopping, is another process now, and is
//! alive. Without one that listens (`NOTIFY_SOCKET`) nothing is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::workers::Handles;

/// Clients are served.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The process is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A process goes on in place of the one that was the service's: another, or this one again.
pub fn is_now(id: u32) {
    tell(&[NotifyState::MainPid(id)]);
}

/// Says again and again that the edge is alive, as long as every thread of the data plane does what it
/// is asked, and the process is the one that serves; ends with the process.
pub async fn keep_alive(workers: Handles, serving: Arc<AtomicBool>) {
    let Some(limit) = watchdog() else { return };
    loop {
        let alive = workers.all().map(|thread| {
            let (done, seen) = oneshot::channel();
            thread.spawn(async move { done.send(()) });
            seen
        });
        let alive = timeout(limit, futures::future::join_all(alive)).await.is_ok();
        if alive && serving.load(Ordering::Acquire) {
            tell(&[NotifyState::Watchdog]);
        }
        sleep(limit / 3).await;
    }
}

/// How often the service manager wants to hear from us. The variable that names the process is left
/// aside: after an upgrade it names another one.
fn watchdog() -> Option<Duration> {
    let micros = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros)).filter(|limit| !limit.is_zero())
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
