//! Writing TwiML: one type a verb, so that a document that does not exist cannot be written.
//!
//! Only the verbs that Holdline's own documents need. The XML itself, escaping above all, is
//! quick-xml's work. Everything is written as UTF-8 behind a declaration, as Twilio's samples are.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

/// A TwiML document under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    verbs: Vec<Verb>,
}

/// One step of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Speaks a text.
    Say(String),
    /// Plays an audio file.
    Play(String),
    /// Sends keypad tones, `w` being a pause of half a second.
    PlayDigits(String),
    /// Waits, in whole seconds.
    Pause(u32),
    /// Asks for keys.
    Gather(Gather),
    /// Goes on with another document, fetched by POST.
    Redirect(String),
    /// Puts the call into a conference.
    Conference(Conference),
    /// Ends the call.
    Hangup,
}

/// A question answered with keys. While it is asked only speech and pauses may sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    /// Where the keys are posted.
    pub action: String,
    /// The key that ends the input.
    pub finish_on_key: char,
    /// Seconds to wait for the next key.
    pub timeout: u32,
    /// How many keys there are, if that is known.
    pub num_digits: Option<u32>,
    /// Whether Twilio asks the action also where no key was pressed but the last; otherwise it goes on
    /// behind the Gather.
    pub on_empty: bool,
    /// What is spoken meanwhile, one `Say` each.
    pub prompts: Vec<String>,
}

/// `Dial` around a `Conference`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conference {
    /// The conference's name.
    pub room: String,
    /// Where Twilio goes when this party has left.
    pub action: Option<String>,
    /// Whether `*` leaves the conference.
    pub hangup_on_star: bool,
    /// Whether what is said is recorded; Twilio's default is not.
    pub record: Option<bool>,
    /// Whether this party's arrival starts it; Twilio's default is that it does.
    pub start_on_enter: Option<bool>,
    /// Whether this party's leaving ends it.
    pub end_on_exit: bool,
    /// Whether others hear a tone when this party comes or goes.
    pub beep: bool,
    /// Whether this party can only listen; Twilio's default is not.
    pub muted: Option<bool>,
    /// What is heard until it starts; fetched by GET.
    pub wait_url: String,
}

// === impl Response ===

impl Response {
    /// A document without verbs.
    pub fn new() -> Response {
        Response::default()
    }

    /// Appends a verb.
    #[must_use]
    pub fn then(mut self, verb: Verb) -> Response {
        self.verbs.push(verb);
        self
    }

    /// Appends speech.
    #[must_use]
    pub fn say(self, text: impl Into<String>) -> Response {
        self.then(Verb::Say(text.into()))
    }

    /// Appends the end of the call.
    #[must_use]
    pub fn hangup(self) -> Response {
        self.then(Verb::Hangup)
    }

    /// Appends a redirect.
    #[must_use]
    pub fn redirect(self, url: impl Into<String>) -> Response {
        self.then(Verb::Redirect(url.into()))
    }

    /// The verbs in order.
    pub fn verbs(&self) -> &[Verb] {
        &self.verbs
    }

    /// The document as XML.
    pub fn to_xml(&self) -> String {
        let mut bytes = Vec::with_capacity(512);
        // Writing to memory cannot fail; were it to, an empty document would be refused by the check.
        if self.write(&mut Writer::new(&mut bytes)).is_err() {
            bytes.clear();
        }
        String::from_utf8(bytes).unwrap_or_default()
    }

    fn write(&self, writer: &mut Writer<&mut Vec<u8>>) -> std::io::Result<()> {
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        writer
            .create_element("Response")
            .write_inner_content(|inside| self.verbs.iter().try_for_each(|verb| verb.write(inside)))
            .map(drop)
    }
}

// === impl Verb ===

impl Verb {
    fn write(&self, writer: &mut Writer<&mut Vec<u8>>) -> std::io::Result<()> {
        match self {
            Verb::Say(text) => text_element(writer, "Say", text),
            Verb::Play(url) => text_element(writer, "Play", url),
            Verb::PlayDigits(digits) => writer
                .create_element("Play")
                .with_attribute(("digits", digits.as_str()))
                .write_empty()
                .map(drop),
            Verb::Pause(seconds) => {
                let seconds = seconds.to_string();
                writer
                    .create_element("Pause")
                    .with_attribute(("length", seconds.as_str()))
                    .write_empty()
                    .map(drop)
            }
            Verb::Gather(gather) => gather.write(writer),
            Verb::Redirect(url) => text_element(writer, "Redirect", url),
            Verb::Conference(conference) => conference.write(writer),
            Verb::Hangup => writer.create_element("Hangup").write_empty().map(drop),
        }
    }
}

impl Gather {
    fn write(&self, writer: &mut Writer<&mut Vec<u8>>) -> std::io::Result<()> {
        let finish = self.finish_on_key.to_string();
        let timeout = self.timeout.to_string();
        let digits = self.num_digits.map(|n| n.to_string());
        let mut element = writer.create_element("Gather");
        if let Some(digits) = &digits {
            element = element.with_attribute(("numDigits", digits.as_str()));
        }
        if self.on_empty {
            element = element.with_attribute(("actionOnEmptyResult", "true"));
        }
        element
            .with_attributes([
                ("finishOnKey", finish.as_str()),
                ("timeout", timeout.as_str()),
                ("method", "POST"),
                ("action", self.action.as_str()),
            ])
            .write_inner_content(|inside| {
                self.prompts.iter().try_for_each(|prompt| text_element(inside, "Say", prompt))
            })
            .map(drop)
    }
}

impl Conference {
    fn write(&self, writer: &mut Writer<&mut Vec<u8>>) -> std::io::Result<()> {
        let flag = |on: bool| if on { "true" } else { "false" };
        let mut dial = writer
            .create_element("Dial")
            .with_attribute(("hangupOnStar", flag(self.hangup_on_star)));
        if let Some(action) = &self.action {
            dial = dial.with_attribute(("action", action.as_str()));
        }
        if let Some(record) = self.record {
            dial = dial.with_attribute(("record", flag(record)));
        }
        dial.write_inner_content(|inside| {
            let mut conference = inside.create_element("Conference");
            for (name, on) in
                [("startConferenceOnEnter", self.start_on_enter), ("muted", self.muted)]
            {
                if let Some(on) = on {
                    conference = conference.with_attribute((name, flag(on)));
                }
            }
            conference
                .with_attributes([
                    ("endConferenceOnExit", flag(self.end_on_exit)),
                    ("beep", flag(self.beep)),
                    ("waitUrl", self.wait_url.as_str()),
                    ("waitMethod", "GET"),
                ])
                .write_text_content(BytesText::new(&self.room))
                .map(drop)
        })
        .map(drop)
    }
}

fn text_element(writer: &mut Writer<&mut Vec<u8>>, name: &str, text: &str) -> std::io::Result<()> {
    // Characters that XML cannot carry at all would make Twilio refuse the whole document.
    let clean: String =
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    writer.create_element(name).write_text_content(BytesText::new(&clean)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;
    use bytes::Bytes;
    use proptest::prelude::*;

    #[test]
    fn documents_are_written_as_twilio_samples_are() {
        let document = Response::new()
            .say("Fish & <chips>")
            .then(Verb::Gather(Gather {
                action: "/a?b=1&c=2".into(),
                finish_on_key: '*',
                timeout: 10,
                num_digits: Some(1),
                on_empty: true,
                prompts: vec!["Key it in".into()],
            }))
            .then(Verb::Pause(3))
            .redirect("/next?x=1&y=2");
        assert_eq!(
            document.to_xml(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Say>Fish &amp; &lt;chips&gt;</Say>\
             <Gather numDigits=\"1\" actionOnEmptyResult=\"true\" finishOnKey=\"*\" timeout=\"10\" method=\"POST\" action=\"/a?b=1&amp;c=2\"><Say>Key it in</Say></Gather>\
             <Pause length=\"3\"/><Redirect>/next?x=1&amp;y=2</Redirect></Response>"
        );
    }

    #[test]
    fn a_conference_names_its_room() {
        let document = Response::new().then(Verb::Conference(Conference {
            room: "k".into(),
            action: Some("/caller/1/pause".into()),
            hangup_on_star: true,
            record: Some(true),
            start_on_enter: Some(false),
            end_on_exit: true,
            beep: true,
            muted: None,
            wait_url: "/music".into(),
        }));
        assert_eq!(
            document.to_xml(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Dial hangupOnStar=\"true\" action=\"/caller/1/pause\" record=\"true\">\
             <Conference startConferenceOnEnter=\"false\" endConferenceOnExit=\"true\" beep=\"true\" waitUrl=\"/music\" waitMethod=\"GET\">k</Conference></Dial></Response>"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_spoken_passes_the_check(text in ".*", url in ".*") {
            let xml = Response::new().say(text).then(Verb::PlayDigits("w".into())).redirect(url).hangup().to_xml();
            let (_, warnings) = Document::check(Bytes::from(xml)).unwrap();
            prop_assert_eq!(warnings.total(), 0);
        }
    }
}
