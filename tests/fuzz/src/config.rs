//! The configuration: whatever is written, faults are told and nothing panics.

#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use holdline::config::Config;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::temp_dir().join(format!("holdline-fuzz-{}.toml", std::process::id()))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Files named in it would be those of the machine.
    if memchr::memmem::find(data, b"/")
        .is_some_and(|_| memchr::memmem::find(data, b"dev").is_some())
    {
        return;
    }
    std::fs::write(&*FILE, data).unwrap();
    let environment =
        BTreeMap::from([("TWILIO_AUTH_TOKEN".to_owned(), "not to be told".to_owned())]);
    match Config::load_with(&FILE, &environment) {
        Ok(config) => assert!(!format!("{config:?}").contains("not to be told")),
        Err(faults) => {
            assert!(!faults.faults().is_empty());
            assert!(!faults.to_string().contains("not to be told"));
        }
    }
});
