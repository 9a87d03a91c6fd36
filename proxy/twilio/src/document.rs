//! Judgement: which bytes are a TwiML document Twilio will carry out.
//!
//! Refused is only what Twilio refuses (errors 11750, 12100, 12101 and 12102); everything it merely
//! warns about (12200) passes and is counted, because a false refusal costs a call. The judge does
//! not trust a content type: it reads the bytes.

use bytes::Bytes;

use crate::vocabulary;
use crate::xml::{Fault, FaultKind, Scanner, Token};

/// Twilio's limit on a document, 64 kB (error 11750).
pub const MAX_BYTES: usize = 64 * 1024;

/// Bytes that passed the check. There is no other way to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(Bytes);

/// How often a document does what Twilio warns about (12200) but carries out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Warnings {
    /// Elements Twilio does not know.
    pub unknown_elements: u32,
    /// Attributes the element does not take.
    pub unknown_attributes: u32,
    /// Elements in a place they do not belong.
    pub odd_nesting: u32,
}

/// Why bytes are no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// No bytes at all, or only white space.
    #[error("empty")]
    Empty,
    /// More than [`MAX_BYTES`].
    #[error("larger than 64 KiB")]
    TooLarge,
    /// Not UTF-8.
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// A byte order mark or white space stands before the XML declaration.
    #[error("something stands before the XML declaration")]
    BeforeDeclaration,
    /// An HTML page, most often an error page.
    #[error("an HTML page")]
    Html,
    /// JSON.
    #[error("JSON")]
    Json,
    /// Text without markup, which Twilio would read aloud.
    #[error("plain text")]
    PlainText,
    /// The document ends before its root does.
    #[error("cut off after {at} bytes")]
    CutOff {
        /// Length of what there is.
        at: usize,
    },
    /// Not well-formed.
    #[error("not well-formed at byte {at}: expected {expected}")]
    Malformed {
        /// Offset of the fault.
        at: usize,
        /// What would have been right there.
        expected: &'static str,
    },
    /// A second root, or text beside the root.
    #[error("something stands beside the root at byte {at}")]
    BesideRoot {
        /// Offset of the second root.
        at: usize,
    },
    /// The document type defines entities.
    #[error("defines entities")]
    Entities,
    /// Declares an encoding other than UTF-8.
    #[error("declares an encoding other than UTF-8")]
    Encoding,
    /// Nested deeper than any TwiML.
    #[error("nested too deep")]
    TooDeep,
    /// The root is not `Response`.
    #[error("the root is not Response")]
    WrongRoot,
    /// `Response` has a version Twilio does not know.
    #[error("unknown version of Response")]
    WrongVersion,
}

// === impl Document ===

impl Document {
    /// Checks `bytes` and keeps them as they are.
    pub fn check(bytes: Bytes) -> Result<(Document, Warnings), Refusal> {
        let warnings = judge(&bytes)?;
        Ok((Document(bytes), warnings))
    }

    /// The same document in memory of its own: whoever keeps it keeps nothing that it was read into.
    #[must_use]
    pub fn detached(&self) -> Document {
        Document(Bytes::copy_from_slice(&self.0))
    }

    /// The bytes that were checked.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

// === impl Warnings ===

impl Warnings {
    /// All warnings together.
    pub fn total(&self) -> u32 {
        self.unknown_elements + self.unknown_attributes + self.odd_nesting
    }
}

// === impl Refusal ===

impl Refusal {
    /// A short constant name, for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Empty => "empty",
            Refusal::TooLarge => "too_large",
            Refusal::NotUtf8 { .. } => "not_utf8",
            Refusal::BeforeDeclaration => "before_declaration",
            Refusal::Html => "html",
            Refusal::Json => "json",
            Refusal::PlainText => "plain_text",
            Refusal::CutOff { .. } => "cut_off",
            Refusal::Malformed { .. } => "malformed",
            Refusal::BesideRoot { .. } => "beside_root",
            Refusal::Entities => "entities",
            Refusal::Encoding => "encoding",
            Refusal::TooDeep => "too_deep",
            Refusal::WrongRoot => "wrong_root",
            Refusal::WrongVersion => "wrong_version",
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        let at = fault.at;
        match fault.kind {
            FaultKind::Unfinished => Refusal::CutOff { at },
            FaultKind::Syntax(expected) => Refusal::Malformed { at, expected },
            FaultKind::BesideRoot => Refusal::BesideRoot { at },
            FaultKind::Entities => Refusal::Entities,
            FaultKind::Encoding => Refusal::Encoding,
            FaultKind::TooDeep => Refusal::TooDeep,
        }
    }
}

fn judge(bytes: &[u8]) -> Result<Warnings, Refusal> {
    if bytes.len() > MAX_BYTES {
        return Err(Refusal::TooLarge);
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Refusal::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|e| Refusal::NotUtf8 { at: e.valid_up_to() })?;
    let refused = match walk(text) {
        Ok(warnings) => return Ok(warnings),
        Err(refusal) => refusal,
    };
    // Only a document that failed is looked at again, to name the failure in words a person on call
    // recognises: an error page is more telling than "not well-formed at byte 9".
    Err(recognise(text).unwrap_or(refused))
}

fn recognise(text: &str) -> Option<Refusal> {
    let trimmed = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    let starts = |prefix: &str| {
        trimmed.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    };
    // Whole pages, and what PHP and bare frameworks write in the middle of one.
    const PAGES: [&str; 8] =
        ["<!doctype html", "<html", "<head", "<body", "<br", "<b>", "<h1", "<div"];
    if PAGES.iter().any(|page| starts(page)) {
        Some(Refusal::Html)
    } else if trimmed.len() < text.len() && starts("<?xml") {
        Some(Refusal::BeforeDeclaration)
    } else if trimmed.starts_with(['{', '[']) {
        Some(Refusal::Json)
    } else if text.starts_with('\u{feff}') {
        Some(Refusal::BeforeDeclaration)
    } else if !trimmed.starts_with('<') {
        Some(Refusal::PlainText)
    } else {
        None
    }
}

fn walk(text: &str) -> Result<Warnings, Refusal> {
    let mut scanner = Scanner::new(text);
    let mut warnings = Warnings::default();
    let mut open: Vec<&str> = Vec::with_capacity(8);
    while let Some(token) = scanner.next()? {
        match token {
            Token::Start(name) => {
                match open.last() {
                    None if name != "Response" => return Err(Refusal::WrongRoot),
                    None => {}
                    Some(parent) => warn_of_element(parent, name, &mut warnings),
                }
                open.push(name);
            }
            Token::Attribute(name, value) => {
                let owner = open.last().copied().unwrap_or_default();
                if open.len() == 1 && name == "version" && value != "1.0" {
                    return Err(Refusal::WrongVersion);
                }
                let known = vocabulary::element(owner)
                    .is_none_or(|element| vocabulary::lists(element.attributes, name));
                if !known && !is_namespace(name) {
                    warnings.unknown_attributes += 1;
                }
            }
            Token::End => drop(open.pop()),
            Token::Text => {}
        }
    }
    Ok(warnings)
}

fn warn_of_element(parent: &str, name: &str, warnings: &mut Warnings) {
    if vocabulary::is_opaque(parent) {
        return;
    }
    let placed =
        vocabulary::element(parent).is_none_or(|element| vocabulary::lists(element.children, name));
    if vocabulary::element(name).is_none() && !vocabulary::is_opaque(name) {
        warnings.unknown_elements += 1;
    } else if !placed {
        warnings.odd_nesting += 1;
    }
}

fn is_namespace(attribute: &str) -> bool {
    attribute == "xmlns"
        || attribute.starts_with("xmlns:")
        || attribute.starts_with("xml:")
        || attribute.starts_with("xsi:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(twiml: &str, expect: &str) {
        let got = match Document::check(Bytes::copy_from_slice(twiml.as_bytes())) {
            Ok((_, warnings)) if warnings.total() == 0 => "passes".to_owned(),
            Ok((_, w)) => format!(
                "passes with {} elements, {} attributes, {} nesting",
                w.unknown_elements, w.unknown_attributes, w.odd_nesting
            ),
            Err(refusal) => format!("refused: {refusal}"),
        };
        assert_eq!(got, expect, "{twiml:?}");
    }

    #[test]
    fn what_twilio_carries_out_passes() {
        check("<Response/>", "passes");
        check("<Response></Response>\n<!-- done -->\n", "passes");
        check(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Say voice='alice'>a &amp; b &#65; &#x1F600;</Say><Hangup/></Response>",
            "passes",
        );
        check(
            "<?xml version='1.0' encoding='utf-8' standalone='yes'?><Response><Say><![CDATA[1 < 2]]></Say></Response>",
            "passes",
        );
        check("<?xml version='1.0' encoding='ISO-8859-1'?><Response/>", "passes");
        check("<!DOCTYPE Response><Response/>", "passes");
        check("\n <Response/>", "passes");
        check("<Response version=\"1.0\"/>", "passes");
        check(
            "<Response><Gather numDigits=\"1\"><Say>hi</Say></Gather><Say>J\u{fc}rg <emphasis>x</emphasis></Say></Response>",
            "passes",
        );
    }

    #[test]
    fn what_twilio_warns_about_passes_with_a_count() {
        check(
            "<Response><say>hi</say></Response>",
            "passes with 1 elements, 0 attributes, 0 nesting",
        );
        check(
            "<Response><Say Voice='x' bogus='1'>hi</Say></Response>",
            "passes with 0 elements, 2 attributes, 0 nesting",
        );
        check(
            "<Response><Gather><Hangup/></Gather></Response>",
            "passes with 0 elements, 0 attributes, 1 nesting",
        );
        check(
            "<Response><New><Deep/></New></Response>",
            "passes with 2 elements, 0 attributes, 0 nesting",
        );
    }

    #[test]
    fn what_twilio_refuses_fails_with_its_reason() {
        check("", "refused: empty");
        check(" \n\t", "refused: empty");
        check(
            " <?xml version=\"1.0\"?><Response/>",
            "refused: something stands before the XML declaration",
        );
        check("\u{feff}<Response/>", "refused: something stands before the XML declaration");
        check("<!DOCTYPE html><html><body>oops</body></html>", "refused: an HTML page");
        check("<html><head><title>500</title><br></html>", "refused: an HTML page");
        check("{\"error\":\"x\"}", "refused: JSON");
        check("Internal Server Error", "refused: plain text");
        check("<response/>", "refused: the root is not Response");
        check("<Responses/>", "refused: the root is not Response");
        check("<Response version='2'/>", "refused: unknown version of Response");
        check("<Response/><Response/>", "refused: something stands beside the root at byte 11");
        check("<Response/>trailing", "refused: something stands beside the root at byte 11");
        check(
            "<Response><Say>a & b</Say></Response>",
            "refused: not well-formed at byte 17: expected &amp; or a known entity",
        );
        check(
            "<Response><Say>&nbsp;</Say></Response>",
            "refused: not well-formed at byte 15: expected &amp; or a known entity",
        );
        check(
            "<Response><Say></Response>",
            "refused: not well-formed at byte 15: expected the end tag of the open element",
        );
        check(
            "<Response><Say a=1/></Response>",
            "refused: not well-formed at byte 17: expected a quoted value",
        );
        check(
            "<Response><Say a='1' a='2'/></Response>",
            "refused: not well-formed at byte 22: expected each attribute once",
        );
        check(
            "<Response><Say a='1'b='2'/></Response>",
            "refused: not well-formed at byte 20: expected a blank before an attribute",
        );
        check(
            "<Response><Say a='<'/></Response>",
            "refused: not well-formed at byte 18: expected &lt; in a value",
        );
        check(
            "<Response><!-- a -- b --></Response>",
            "refused: not well-formed at byte 19: expected no -- inside a comment",
        );
        check(
            "<Response>\u{1}</Response>",
            "refused: not well-formed at byte 10: expected a character XML allows",
        );
        check(
            "<?x[ml version='1.0'?><Response/>",
            "refused: not well-formed at byte 3: expected a blank after an instruction's target",
        );
        check(
            "<Response/><?xml version='1.0'?>",
            "refused: not well-formed at byte 16: expected the XML declaration at the very start",
        );
        check(
            "<?xml encoding='UTF-8'?><Response/>",
            "refused: not well-formed at byte 5: expected a version",
        );
        check(
            "<Response>&#0;</Response>",
            "refused: not well-formed at byte 10: expected &amp; or a known entity",
        );
        check(
            "<?xml version='1.0' encoding='UTF-16'?><Response/>",
            "refused: declares an encoding other than UTF-8",
        );
        check(
            "<?xml version='1.0' encoding='ISO-8859-1'?><Response>\u{fc}</Response>",
            "refused: declares an encoding other than UTF-8",
        );
        check(
            "<!DOCTYPE r [<!ENTITY a \"b\">]><Response>&a;</Response>",
            "refused: defines entities",
        );
        check(&format!("<Response>{}", "<a>".repeat(100)), "refused: nested too deep");
        check(
            &format!("<Response>{}</Response>", "x".repeat(MAX_BYTES)),
            "refused: larger than 64 KiB",
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        let refusal =
            Document::check(Bytes::from_static(b"<Response>\xff</Response>")).unwrap_err();
        assert_eq!(refusal, Refusal::NotUtf8 { at: 10 });
    }

    const WHOLE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c --><Response>\n<Gather action=\"/a?b=1&amp;c=2\" finishOnKey='*'><Say>Hello &#65; <![CDATA[<x>]]></Say></Gather><Redirect>/x</Redirect></Response>";

    #[test]
    fn cut_at_every_byte_it_is_refused() {
        check(WHOLE, "passes");
        for len in 0..WHOLE.len() {
            let cut = Bytes::copy_from_slice(&WHOLE.as_bytes()[..len]);
            assert!(Document::check(cut).is_err(), "passed when cut after {len}");
        }
    }

    // Another reader judges the same documents, edited behind the declaration. It resolves namespaces
    // and reads entity definitions, neither of which TwiML has, and is lax about instructions; the
    // edits therefore make none of these.
    const DECLARATION: usize = 38;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_another_reader(
            edits in proptest::collection::vec((DECLARATION..WHOLE.len(), "[<>/&;='\"a! \\-\\[\\]#x]{0,3}", 0usize..4), 0..4),
        ) {
            let mut text = WHOLE.to_owned();
            for (at, insert, remove) in edits {
                let at = at.min(text.len());
                let end = (at + remove).min(text.len());
                text.replace_range(at..end, &insert);
            }
            let theirs = roxmltree::Document::parse(&text)
                .is_ok_and(|doc| doc.root_element().tag_name().name() == "Response");
            let ours = Document::check(Bytes::from(text.clone()));
            prop_assert!(ours.is_ok() == theirs, "{:?}: ours {:?}, theirs {}", text, ours, theirs);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::check(Bytes::from(bytes));
        }
    }
}
