//! The journal as written.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};

use super::reader::Section;
use crate::journal::JournalConfig;

/// Reads `[journal]`. The folder is named relative to `folder`. One that cannot be written keeps nobody
/// from serving, and is warned of.
pub(super) fn read(
    journal: &mut Section<'_>,
    folder: &Path,
    warnings: &mut Vec<String>,
) -> JournalConfig {
    let (s, day) = (Duration::from_secs, Duration::from_secs(86_400));
    let name = journal.text("folder").unwrap_or_else(|| "journal".into());
    let most_bytes = journal.size("max_bytes").unwrap_or(256 * 1024 * 1024);
    if most_bytes < 1024 * 1024 {
        journal.fault("max_bytes", "must be at least 1MiB");
    }
    let folder = folder.join(name);
    let place = folder.ancestors().find(|place| place.exists() || place.as_os_str().is_empty());
    let place = place.filter(|place| !place.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if access(place, Access::WRITE_OK).is_err() {
        let folder = folder.display();
        warnings.push(format!(
            "journal.folder: {folder} cannot be written: what happens is not kept, and a new process knows \
             nothing of what was believed and ordered"
        ));
    }
    JournalConfig {
        folder,
        most_bytes: most_bytes as u64,
        longest: journal.duration_in("max_age", day * 7, s(60), day * 365),
        state_longest: journal.duration_in("state_max_age", s(600), s(0), day),
    }
}
