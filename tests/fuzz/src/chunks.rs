//! The check of chunked bodies: how a body arrives does not matter, and what passes the check has a size
//! in front of every chunk.

#![no_main]

use holdline::listener::chunks::Chunks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut at_once = Chunks::default();
    let whole = at_once.read(data);
    let mut piecewise = Chunks::default();
    let pieces = data.chunks(1).try_for_each(|byte| piecewise.read(byte));
    assert_eq!(whole, pieces);
    if whole.is_ok() {
        assert_eq!(at_once, piecewise);
        // What another reader takes for a size stands where this one has read one.
        if let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(data) {
            let digits = data.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let said = u64::from_str_radix(std::str::from_utf8(&data[..digits]).unwrap(), 16);
            assert_eq!(said, Ok(size));
        }
    }
});
