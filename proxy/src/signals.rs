//! What the process is told by signals.

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// What the process is told from outside.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    upgrade: unix::Signal,
    _too_large: unix::Signal,
}

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// To end (SIGTERM, SIGINT).
    Stop,
    /// To read its configuration anew (SIGHUP).
    Reload,
    /// To leave everything to a new process (SIGUSR2).
    Upgrade,
}

// === impl Signals ===

impl Signals {
    /// Listens to signals from now on.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            // A limit on the size of files is a full disk like any other, and no reason to end.
            _too_large: signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?,
        })
    }

    /// The next thing it is told.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::Reload,
            _ = self.upgrade.recv() => Told::Upgrade,
        }
    }

    /// Waits until it is told to stop; notes whether it was told to reload meanwhile. An upgrade is under
    /// way already.
    pub async fn stop(&mut self, reload: &mut bool) {
        loop {
            match self.next().await {
                Told::Stop => return,
                Told::Reload => *reload = true,
                Told::Upgrade => {}
            }
        }
    }
}
