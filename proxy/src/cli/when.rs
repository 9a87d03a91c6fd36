//! Times as people give them: `2030-01-31T12:00:00Z`, or how long ago, `24h`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};

use crate::clock::millis;
use crate::journal::Range;

/// From when on and until when, as it was asked; all of it where nothing was.
pub(super) fn range(since: Option<&str>, until: Option<&str>) -> anyhow::Result<Range> {
    let ms = |text: Option<&str>, default| text.map_or(Ok(default), moment);
    let range = Range { since: ms(since, 0)?, until: ms(until, u64::MAX)? };
    ensure!(range.since <= range.until, "since is later than until");
    Ok(range)
}

/// A time, in milliseconds since 1970.
fn moment(text: &str) -> anyhow::Result<u64> {
    let at = match humantime::parse_duration(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH),
        Err(_) => humantime::parse_rfc3339_weak(text).ok().with_context(|| {
            format!("{text:?} is neither a time (2030-01-31T12:00:00Z) nor how long ago (24h)")
        })?,
    };
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(millis(since))
}

/// A time in milliseconds since 1970, for people.
pub(super) fn shown(ms: u64) -> String {
    // The last moment that can be written.
    const LATEST: u64 = 253_402_300_799_999;
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(LATEST));
    humantime::format_rfc3339_millis(at).to_string()
}
