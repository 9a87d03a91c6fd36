//! The journal as written.

use std::path::Path;
use std::time::Duration;

use super::reader::Section;
use crate::journal::JournalConfig;

/// Reads `[journal]`. The folder is named relative to `folder`.
pub(super) fn read(journal: &mut Section<'_>, folder: &Path) -> JournalConfig {
    let (s, day) = (Duration::from_secs, Duration::from_secs(86_400));
    let name = journal.text("folder").unwrap_or_else(|| "journal".into());
    let most_bytes = journal.size("max_bytes").unwrap_or(256 * 1024 * 1024);
    if most_bytes < 1024 * 1024 {
        journal.fault("max_bytes", "must be at least 1MiB");
    }
    JournalConfig {
        folder: folder.join(name),
        most_bytes: most_bytes as u64,
        longest: journal.duration_in("max_age", day * 7, s(60), day * 365),
        state_longest: journal.duration_in("state_max_age", s(600), s(0), day),
    }
}
