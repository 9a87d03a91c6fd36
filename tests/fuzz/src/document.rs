//! The judge of documents: it does not panic, and agrees with another reader of XML.

#![no_main]

use bytes::Bytes;
use holdline_twilio::Document;
use holdline_twilio::document::Refusal;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let ours = Document::check(Bytes::copy_from_slice(data));
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(ours.is_err(), "passed what is not UTF-8");
        return;
    };
    if has_what_the_other_reads_differently(text) {
        return;
    }
    let theirs = roxmltree::Document::parse(text)
        .is_ok_and(|document| document.root_element().tag_name().name() == "Response");
    match &ours {
        // These are not faults of XML.
        Err(
            Refusal::TooLarge
            | Refusal::TooDeep
            | Refusal::WrongVersion
            | Refusal::BeforeDeclaration,
        ) => {}
        _ => assert_eq!(ours.is_ok(), theirs, "{ours:?}"),
    }
});

/// The other reader resolves namespaces and document types, which TwiML has not, does not look into
/// instructions and declarations, and takes a byte order mark.
fn has_what_the_other_reads_differently(text: &str) -> bool {
    text.contains(':')
        || text.contains("xml")
        || text.contains("<!D")
        || text.contains("<?")
        || text.contains('\u{feff}')
}
