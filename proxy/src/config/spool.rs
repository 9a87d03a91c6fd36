//! The spool as written.

use std::path::Path;
use std::time::Duration;

use holdline_policy::backoff::Backoff;
use holdline_policy::redelivery::Patience;

use super::reader::Section;
use crate::spool::SpoolConfig;

/// Reads `[spool]`. The folder is named relative to `folder`.
pub(super) fn read(spool: &mut Section<'_>, folder: &Path) -> SpoolConfig {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let name = spool.text("folder").unwrap_or_else(|| "spool".into());
    let modes = [("when_needed", false), ("always", true)];
    let most_bytes = spool.size("max_bytes").unwrap_or(4 * 1024 * 1024 * 1024);
    if most_bytes < 1024 * 1024 {
        spool.fault("max_bytes", "must be at least 1MiB");
    }
    let backoff = Backoff {
        first: spool.duration_in("backoff", s(1), ms(10), s(600)),
        cap: spool.duration_in("backoff_cap", s(900), ms(10), s(1800)),
    };
    if backoff.first > backoff.cap {
        spool.fault("backoff", "must not be longer than backoff_cap");
    }
    SpoolConfig {
        folder: folder.join(name),
        always: spool.choice("mode", &modes).unwrap_or(false),
        confirm_within: spool.duration_in("confirm_within", s(2), ms(100), s(8)),
        try_for: spool.duration_in("try_for", s(10), ms(100), s(45)),
        parallel: spool.number("parallel", 32, 1, 256),
        patience: Patience {
            backoff,
            most_setbacks: spool.number("max_tries", 50, 1, 1_000_000),
            longest: spool.duration_in("max_age", s(72 * 3600), s(1), s(365 * 86_400)),
        },
        most_entries: spool.number("max_entries", 1_000_000, 1, 100_000_000).into(),
        most_bytes: most_bytes as u64,
        keep_delivered: spool.duration_in("keep_delivered", s(3600), s(0), s(30 * 86_400)),
    }
}
