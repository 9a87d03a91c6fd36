//! The reader of PROXY headers: how a header arrives does not matter, and it takes no more than there is.

#![no_main]

use holdline::listener::proxy_protocol::read;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let at_once = read(data);
    let piecewise = (0..=data.len()).find_map(|end| match read(&data[..end]) {
        Ok(None) => None,
        other => Some(other),
    });
    assert_eq!(piecewise.unwrap_or(Ok(None)), at_once);
    if let Ok(Some(said)) = at_once {
        assert!(said.length <= data.len() && said.length > 0);
    }
});
