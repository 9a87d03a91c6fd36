//! The limits on what clients may send, as written.

use std::time::Duration;

use super::reader::Section;
use crate::listener::head::HeadLimits;

/// How much is taken in, and how long it may take to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The head of a request.
    pub head: HeadLimits,
    /// How long a head may take, from its first byte.
    pub head_time: Duration,
    /// How long a report's body may take; a question has half its row's budget.
    pub body_time: Duration,
    /// How long the PROXY header and the TLS handshake may take, each.
    pub handshake_time: Duration,
    /// How long a connection may be idle.
    pub idle: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address outside the trusted networks.
    pub connections_per_address: u32,
    /// Requests in flight. See [`Limits::has_room`].
    pub requests: i64,
}

/// What a request is worth when there are too many: the first to go is listed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// A page or a browser: it can be asked for again.
    Passed,
    /// A report: it can be kept.
    Reported,
    /// A question: somebody waits on the phone.
    Asked,
}

// === impl Limits ===

impl Limits {
    /// Whether there is room for one more request of this worth beside so many in flight: proven visits,
    /// and what is streamed. Whoever is not proven takes no room from those who are. The last
    /// quarter is kept from what is only passed through, the last eighth from reports.
    pub fn has_room(&self, worth: Worth, in_flight: i64) -> bool {
        let share = match worth {
            Worth::Passed => self.requests * 3 / 4,
            Worth::Reported => self.requests * 7 / 8,
            Worth::Asked => self.requests,
        };
        in_flight < share
    }
}

/// Reads `[limits]`.
pub(super) fn read(limits: &mut Section<'_>) -> Limits {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let size = limits.size("header_size").unwrap_or(32 * 1024);
    if !(1024..=256 * 1024).contains(&size) {
        limits.fault("header_size", "must be between 1KiB and 256KiB");
    }
    Limits {
        head: HeadLimits { size, fields: limits.number("header_fields", 100, 10, 250) as usize },
        head_time: limits.duration_in("header_time", s(2), ms(100), s(60)),
        body_time: limits.duration_in("body_time", s(2), ms(100), s(60)),
        handshake_time: limits.duration_in("handshake_time", s(5), ms(100), s(60)),
        idle: limits.duration_in("idle", s(60), s(1), s(3600)),
        connections: limits.number("connections", 16_384, 16, 1_000_000) as usize,
        connections_per_address: limits.number("connections_per_address", 256, 1, 1_000_000),
        requests: limits.number("requests", 4096, 8, 1_000_000).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_wait_goes_first() {
        let faults = super::super::faults::Faults::default();
        let environment = std::collections::BTreeMap::new();
        let source =
            super::super::reader::Source { file: "", environment: &environment, faults: &faults };
        let limits = read(&mut Section::root(source, toml::Table::new()));
        let limits = Limits { requests: 80, ..limits };
        let last = |worth| (0..200).take_while(|&n| limits.has_room(worth, n)).count();
        assert_eq!([Worth::Passed, Worth::Reported, Worth::Asked].map(last), [60, 70, 80]);
    }
}
