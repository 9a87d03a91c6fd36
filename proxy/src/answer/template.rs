//! The hold document: TwiML with three places to fill.

use bytes::Bytes;
use holdline_twilio::{Document, Refusal};

/// A hold document with places for the pause, the method and the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldTemplate {
    /// Literal text, each piece but the last followed by the place of the same index.
    pieces: Vec<String>,
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Seconds,
    Method,
    Return,
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// A place is missing, unknown or used twice.
    #[error("must use {{{{seconds}}}}, {{{{method}}}} and {{{{return}}}} once each")]
    Places,
    /// Filled in, it is no document.
    #[error("{0}")]
    NoDocument(Refusal),
}

const PLACES: [(&str, Place); 3] =
    [("seconds", Place::Seconds), ("method", Place::Method), ("return", Place::Return)];

// === impl HoldTemplate ===

impl HoldTemplate {
    /// Parses a template and proves that it gives a document when filled.
    pub fn parse(bytes: &[u8]) -> Result<HoldTemplate, TemplateFault> {
        let text = String::from_utf8_lossy(bytes);
        let mut pieces = Vec::new();
        let mut places = Vec::new();
        let mut rest: &str = &text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or(TemplateFault::Places)?;
            let known = PLACES.iter().find(|(known, _)| *known == name.trim());
            pieces.push(before.to_owned());
            places.push(known.ok_or(TemplateFault::Places)?.1);
            rest = after;
        }
        pieces.push(rest.to_owned());
        let once =
            PLACES.iter().all(|(_, place)| places.iter().filter(|p| *p == place).count() == 1);
        if !once {
            return Err(TemplateFault::Places);
        }
        let template = HoldTemplate { pieces, places };
        template.fill(8, "POST", "/a?b=1&c=%22<>").map_err(TemplateFault::NoDocument)?;
        Ok(template)
    }

    /// The document with a pause of `seconds`, and the way back to `url` by `method`.
    pub fn fill(&self, seconds: u64, method: &str, url: &str) -> Result<Document, Refusal> {
        let mut out = String::with_capacity(256 + url.len());
        for (index, piece) in self.pieces.iter().enumerate() {
            out.push_str(piece);
            match self.places.get(index) {
                Some(Place::Seconds) => out.push_str(&seconds.to_string()),
                Some(Place::Method) => escape_into(&mut out, method),
                Some(Place::Return) => escape_into(&mut out, url),
                None => {}
            }
        }
        Document::check(Bytes::from(out)).map(|(document, _)| document)
    }
}

fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_filled_and_escaped() {
        let text = b"<Response><Pause length=\"{{seconds}}\"/><Redirect method=\"{{method}}\">{{return}}</Redirect></Response>";
        let document =
            HoldTemplate::parse(text).unwrap().fill(4, "POST", "/x?a=1&holdline=t").unwrap();
        assert_eq!(
            document.bytes(),
            "<Response><Pause length=\"4\"/><Redirect method=\"POST\">/x?a=1&amp;holdline=t</Redirect></Response>"
        );
    }

    #[test]
    fn a_template_that_cannot_work_is_refused() {
        let broken = b"<Response><Pause length=\"{{seconds}}\"><Redirect method=\"{{method}}\">{{return}}</Redirect></Response>";
        assert!(matches!(HoldTemplate::parse(broken), Err(TemplateFault::NoDocument(_))));
        for text in
            ["<Response/>", "{{seconds}}{{seconds}}{{method}}{{return}}", "{{other}}", "{{seconds"]
        {
            assert_eq!(HoldTemplate::parse(text.as_bytes()), Err(TemplateFault::Places), "{text}");
        }
    }
}
