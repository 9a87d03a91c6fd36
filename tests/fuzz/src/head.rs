//! The reader of heads: how a head arrives does not matter, and what it lets through, another reader
//! (httparse) reads as the same request.

#![no_main]

use holdline::listener::head::{HeadLimits, Reader};

const LIMITS: HeadLimits = HeadLimits { size: 2048, fields: 60 };

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let at_once = Reader::default().read(data, LIMITS);
    let mut reader = Reader::default();
    let piecewise = (1..=data.len()).find_map(|end| match reader.read(&data[..end], LIMITS) {
        Ok(None) => None,
        other => Some(other),
    });
    assert_eq!(piecewise.unwrap_or(Ok(None)), at_once);
    let Ok(Some(whole)) = at_once else { return };
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(&data[..whole.end]).expect("it is let through, so it can be read");
    assert_eq!(parsed, httparse::Status::Complete(whole.end), "both end in the same place");
    let values = |name: &str| {
        let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect::<Vec<_>>()
    };
    let (hosts, lengths, codings) =
        (values("host"), values("content-length"), values("transfer-encoding"));
    assert!(hosts.len() <= 1 && lengths.len() + codings.len() <= 1);
    assert!(request.version == Some(0) || hosts.len() == 1);
    assert_eq!(whole.is_chunked, codings.len() == 1);
});
