//! The reader of forms: it does not panic, and what it read it writes so that it is read the same.

#![no_main]

use holdline_twilio::Form;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(form) = Form::parse(data) {
        let written = form.encode();
        assert_eq!(Form::parse(written.as_bytes()).as_ref(), Ok(&form), "{written}");
    }
});
