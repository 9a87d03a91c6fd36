//! Reading TwiML as Twilio does, for Voice.
//!
//! Unknown verbs are skipped with warning 12200, as Twilio does; a document that is not well-formed,
//! or whose root is not `Response`, is an error (12100, 12102).

use roxmltree::{Document, Node};

/// One verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Speech.
    Say(String),
    /// An audio file, or tones.
    Play(String),
    /// Silence, in seconds.
    Pause(u64),
    /// A question.
    Gather(Gather),
    /// Another document.
    Redirect {
        /// Where; empty for this document's own URL.
        url: String,
        /// How.
        method: String,
    },
    /// A conference.
    Conference(Conference),
    /// The end.
    Hangup,
    /// The end, before answering.
    Reject,
    /// A verb that is not modelled, by name.
    Other(String),
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    /// Where the keys go; empty for this document's own URL.
    pub action: String,
    /// How.
    pub method: String,
    /// The key that ends the input; none if the attribute is empty.
    pub finish_on_key: Option<char>,
    /// How many keys end it.
    pub num_digits: Option<usize>,
    /// Seconds to wait for a key.
    pub timeout: u64,
    /// Whether no keys at all are sent too.
    pub action_on_empty: bool,
    /// What sounds meanwhile.
    pub prompts: Vec<Verb>,
}

/// `Dial` around a `Conference`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conference {
    /// Its name.
    pub room: String,
    /// Where the call goes afterwards.
    pub action: Option<String>,
    /// How.
    pub method: String,
    /// Whether star leaves it.
    pub hangup_on_star: bool,
    /// What is heard until it starts.
    pub wait_url: Option<String>,
    /// How that is fetched.
    pub wait_method: String,
}

/// Twilio's error for a document that cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwimlError(pub u32);

/// A document that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its verbs.
    pub verbs: Vec<Verb>,
    /// Warnings, by Twilio's number.
    pub warnings: Vec<u32>,
}

/// Twilio's limit on a document.
pub const MAX_BYTES: usize = 64 * 1024;

/// Reads a body with its content type, as the Debugger would report it.
pub fn read(content_type: Option<&str>, body: &[u8]) -> Result<Script, TwimlError> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match media_type.to_ascii_lowercase().as_str() {
        "text/xml" | "application/xml" | "text/html" | "text/plain" => {}
        _ => return Err(TwimlError(12300)),
    }
    if body.len() > MAX_BYTES {
        return Err(TwimlError(11750));
    }
    let text = std::str::from_utf8(body).map_err(|_| TwimlError(12100))?;
    let document = Document::parse(text).map_err(|_| TwimlError(12100))?;
    let root = document.root_element();
    if root.tag_name().name() != "Response" {
        return Err(TwimlError(12102));
    }
    let mut warnings = Vec::new();
    let verbs = verbs_of(root, &mut warnings);
    Ok(Script { verbs, warnings })
}

fn verbs_of(parent: Node<'_, '_>, warnings: &mut Vec<u32>) -> Vec<Verb> {
    parent.children().filter(Node::is_element).map(|node| verb_of(node, warnings)).collect()
}

fn verb_of(node: Node<'_, '_>, warnings: &mut Vec<u32>) -> Verb {
    let text: String = node.descendants().filter(Node::is_text).filter_map(|n| n.text()).collect();
    let text = text.trim().to_owned();
    let attribute = |name: &str| node.attribute(name);
    let method = || attribute("method").unwrap_or("POST").to_owned();
    match node.tag_name().name() {
        "Say" => Verb::Say(text),
        "Play" => Verb::Play(attribute("digits").map_or(text, str::to_owned)),
        "Pause" => Verb::Pause(attribute("length").and_then(|n| n.parse().ok()).unwrap_or(1)),
        "Gather" => Verb::Gather(Gather {
            action: attribute("action").unwrap_or_default().to_owned(),
            method: method(),
            finish_on_key: attribute("finishOnKey").unwrap_or("#").chars().next(),
            num_digits: attribute("numDigits").and_then(|n| n.parse().ok()),
            timeout: attribute("timeout").and_then(|n| n.parse().ok()).unwrap_or(5),
            action_on_empty: attribute("actionOnEmptyResult") == Some("true"),
            prompts: verbs_of(node, warnings),
        }),
        "Redirect" => Verb::Redirect { url: text, method: method() },
        "Dial" => dial_of(node, method()),
        "Hangup" => Verb::Hangup,
        "Reject" => Verb::Reject,
        name => {
            warnings.push(12200);
            Verb::Other(name.to_owned())
        }
    }
}

fn dial_of(node: Node<'_, '_>, method: String) -> Verb {
    let Some(room) = node.children().find(|n| n.tag_name().name() == "Conference") else {
        return Verb::Other("Dial".into());
    };
    Verb::Conference(Conference {
        room: room.text().unwrap_or_default().trim().to_owned(),
        action: node.attribute("action").map(str::to_owned),
        method,
        hangup_on_star: node.attribute("hangupOnStar") == Some("true"),
        wait_url: room.attribute("waitUrl").map(str::to_owned),
        wait_method: room.attribute("waitMethod").unwrap_or("POST").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fails(content_type: Option<&str>, body: &str, code: u32) {
        assert_eq!(read(content_type, body.as_bytes()), Err(TwimlError(code)), "{body:?}");
    }

    #[test]
    fn faults_have_twilios_numbers() {
        let xml = Some("text/xml");
        fails(None, "<Response/>", 12300);
        fails(Some("application/json"), "{}", 12300);
        fails(xml, "", 12100);
        fails(xml, " <?xml version='1.0'?><Response/>", 12100);
        fails(xml, "<Response><Say>", 12100);
        fails(xml, "<html/>", 12102);
        fails(xml, &format!("<Response>{}</Response>", " ".repeat(MAX_BYTES)), 11750);
    }

    #[test]
    fn defaults_are_twilios() {
        let script = read(Some("text/html; charset=x"), b"<Response><Gather><Say>q</Say></Gather><Pause/><Redirect>/x</Redirect><Shout/></Response>").unwrap();
        let Verb::Gather(gather) = &script.verbs[0] else { panic!("{script:?}") };
        assert_eq!(
            (gather.finish_on_key, gather.timeout, gather.method.as_str()),
            (Some('#'), 5, "POST")
        );
        assert_eq!(script.verbs[1], Verb::Pause(1));
        assert_eq!(script.warnings, [12200]);
    }
}
