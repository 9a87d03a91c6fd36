//! Reading TwiML as Twilio does, for Voice.
//!
//! A reader of its own, on another XML parser than the product's. What Twilio only warns about is
//! skipped with the warning's number; what it refuses is an error with that number. The sources are
//! the pages on TwiML, its verbs and the error dictionary (`twilio.com/docs/voice/twiml`,
//! `twilio.com/docs/api/errors`).

mod verbs;

use http::Method;
use roxmltree::{Document, Node};

pub use verbs::{Callbacks, Conference, Dial, Gather, Leg, Record, Target, Verb, Whom};

/// Twilio's limit on a document.
pub const MAX_BYTES: usize = 64 * 1024;

/// A document cannot be had.
pub const RETRIEVAL: u32 = 11200;
/// A document is larger than 64 kB.
pub const TOO_LARGE: u32 = 11750;
/// A chunked answer has no body.
pub const CHUNKED_EMPTY: u32 = 11770;
/// A document is no XML that can be parsed.
pub const PARSE: u32 = 12100;
/// The root has a version that is not known.
pub const VERSION: u32 = 12101;
/// The root is not `Response`.
pub const ROOT: u32 = 12102;
/// Warning: a verb or attribute that is not known, or not there.
pub const SCHEMA: u32 = 12200;
/// The content type cannot be used.
pub const CONTENT_TYPE: u32 = 12300;
/// Warning: `Dial` with both a conference and other parties.
pub const DIAL_MIXED: u32 = 13000;
/// `Dial` in a document that a dialed party hears before it is connected.
pub const DIAL_IN_WHISPER: u32 = 13201;
/// A verb that waiting music may not have.
pub const VERB_IN_WAIT: u32 = 13238;
/// A relative URL in TwiML that was given instead of a URL.
pub const RELATIVE: u32 = 15004;

/// Twilio's error for a document that cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwimlError(pub u32);

/// A document that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// Its verbs.
    pub verbs: Vec<Verb>,
    /// Warnings, by Twilio's number.
    pub warnings: Vec<u32>,
}

/// Verbs of Twilio's that exist and do nothing here.
const NOT_MODELLED: [&str; 11] = [
    "Connect", "Echo", "Enqueue", "Leave", "Queue", "Sms", "Pay", "Prompt", "Start", "Stop",
    "Refer",
];

/// Reads a body with its content type.
///
/// XML and HTML types are TwiML; audio is played; plain text is TwiML if it is that, and read aloud
/// otherwise; anything else cannot be used (`twilio.com/docs/voice/twiml`, "MIME types").
pub fn read(content_type: Option<&str>, body: &[u8]) -> Result<Script, TwimlError> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    if body.len() > MAX_BYTES && !media_type.starts_with("audio/") {
        return Err(TwimlError(TOO_LARGE));
    }
    match media_type.as_str() {
        "text/xml" | "application/xml" | "text/html" => parse(body),
        "text/plain" => Ok(parse(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            Script { verbs: vec![Verb::Say { text, times: 1 }, Verb::Hangup], warnings: Vec::new() }
        })),
        audio if audio.starts_with("audio/") => Ok(Script {
            verbs: vec![Verb::Play { url: String::new(), times: 1 }, Verb::Hangup],
            warnings: Vec::new(),
        }),
        _ => Err(TwimlError(CONTENT_TYPE)),
    }
}

/// Reads a document that is TwiML.
pub fn parse(body: &[u8]) -> Result<Script, TwimlError> {
    // A byte order mark, or anything else before the declaration, is "content in prolog".
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(TwimlError(PARSE));
    }
    let text = std::str::from_utf8(body).map_err(|_| TwimlError(PARSE))?;
    let document = Document::parse(text).map_err(|_| TwimlError(PARSE))?;
    let root = document.root_element();
    if root.tag_name().name() != "Response" {
        return Err(TwimlError(ROOT));
    }
    if root.attribute("version").is_some_and(|version| version != "1" && version != "1.0") {
        return Err(TwimlError(VERSION));
    }
    let mut warnings = Vec::new();
    let verbs = verbs_of(root, &["*"], &mut warnings);
    Ok(Script { verbs, warnings })
}

/// The children that are verbs. Where only some may stand, the others are skipped with a warning.
fn verbs_of(parent: Node<'_, '_>, allowed: &[&str], warnings: &mut Vec<u32>) -> Vec<Verb> {
    let mut verbs = Vec::new();
    for node in parent.children().filter(Node::is_element) {
        let name = node.tag_name().name();
        if allowed != ["*"] && !allowed.contains(&name) {
            warnings.push(SCHEMA);
        } else {
            verbs.extend(verb_of(node, warnings));
        }
    }
    verbs
}

fn verb_of(node: Node<'_, '_>, warnings: &mut Vec<u32>) -> Option<Verb> {
    let name = node.tag_name().name();
    let known: &[&str] = match name {
        "Say" => &["voice", "language", "loop"],
        "Play" => &["loop", "digits"],
        "Pause" => &["length"],
        "Gather" => &GATHER,
        "Record" => &RECORD,
        "Redirect" => &["method"],
        "Dial" => &DIAL,
        "Hangup" => &[],
        "Reject" => &["reason"],
        _ if NOT_MODELLED.contains(&name) => return Some(Verb::NotModelled(name.to_owned())),
        _ => {
            warnings.push(SCHEMA);
            return None;
        }
    };
    warn_of_attributes(node, known, warnings);
    if !matches!(name, "Say" | "Gather" | "Dial") {
        warnings.extend(node.children().filter(Node::is_element).map(|_| SCHEMA));
    }
    Some(match name {
        "Say" => Verb::Say { text: text_of(node), times: times(node) },
        "Play" => match node.attribute("digits") {
            Some(digits) => Verb::Tones(digits.to_owned()),
            None => Verb::Play { url: text_of(node), times: times(node) },
        },
        "Pause" => Verb::Pause(number(node, "length", 1)),
        "Gather" => Verb::Gather(Gather {
            action: action(node),
            finish_on_key: node.attribute("finishOnKey").unwrap_or("#").to_owned(),
            num_digits: node.attribute("numDigits").and_then(|n| n.parse().ok()),
            timeout: number(node, "timeout", 5),
            action_on_empty: is(node, "actionOnEmptyResult", false),
            prompts: verbs_of(node, &["Say", "Play", "Pause"], warnings),
        }),
        "Record" => Verb::Record(Record {
            action: action(node),
            timeout: number(node, "timeout", 5),
            max_length: number(node, "maxLength", 3600),
            finish_on_key: node.attribute("finishOnKey").unwrap_or("1234567890*#").to_owned(),
        }),
        "Redirect" => Verb::Redirect(Target { url: text_of(node), method: method(node, "method") }),
        "Dial" => Verb::Dial(dial_of(node, warnings)),
        "Hangup" => Verb::Hangup,
        _ => Verb::Reject { busy: node.attribute("reason") == Some("busy") },
    })
}

const GATHER: [&str; 18] = [
    "debug",
    "input",
    "action",
    "method",
    "timeout",
    "speechTimeout",
    "numDigits",
    "finishOnKey",
    "partialResultCallback",
    "partialResultCallbackMethod",
    "language",
    "hints",
    "bargeIn",
    "profanityFilter",
    "speechModel",
    "enhanced",
    "actionOnEmptyResult",
    "maxSpeechTime",
];
const RECORD: [&str; 13] = [
    "action",
    "method",
    "timeout",
    "finishOnKey",
    "maxLength",
    "playBeep",
    "trim",
    "recordingStatusCallback",
    "recordingStatusCallbackMethod",
    "recordingStatusCallbackEvent",
    "transcribe",
    "transcribeCallback",
    "recordingConfigurationId",
];
const DIAL: [&str; 21] = [
    "action",
    "method",
    "timeout",
    "timeLimit",
    "hangupOnStar",
    "callerId",
    "record",
    "recordingStatusCallback",
    "recordingStatusCallbackMethod",
    "recordingStatusCallbackEvent",
    "recordingTrack",
    "trim",
    "answerOnBridge",
    "ringTone",
    "sequential",
    "referUrl",
    "referMethod",
    "recordingConfigurationId",
    "events",
    "passports",
    "callReason",
];

const CONFERENCE: [&str; 22] = [
    "muted",
    "beep",
    "startConferenceOnEnter",
    "endConferenceOnExit",
    "participantLabel",
    "waitUrl",
    "waitMethod",
    "maxParticipants",
    "record",
    "region",
    "trim",
    "coach",
    "statusCallback",
    "statusCallbackMethod",
    "statusCallbackEvent",
    "recordingStatusCallback",
    "recordingStatusCallbackMethod",
    "recordingStatusCallbackEvent",
    "eventCallbackUrl",
    "jitterBufferSize",
    "recordingTrack",
    "recordingConfigurationId",
];
const LEG: [&str; 16] = [
    "url",
    "method",
    "sendDigits",
    "statusCallback",
    "statusCallbackMethod",
    "statusCallbackEvent",
    "byoc",
    "machineDetection",
    "machineDetectionTimeout",
    "machineDetectionSpeechThreshold",
    "machineDetectionSpeechEndThreshold",
    "machineDetectionSilenceTimeout",
    "amdStatusCallback",
    "amdStatusCallbackMethod",
    "username",
    "password",
];

fn dial_of(node: Node<'_, '_>, warnings: &mut Vec<u32>) -> Dial {
    let elements: Vec<_> = node.children().filter(Node::is_element).collect();
    let conference = elements.iter().find(|noun| noun.tag_name().name() == "Conference");
    if conference.is_some() && elements.len() > 1 {
        warnings.push(DIAL_MIXED);
    }
    let whom = match conference {
        Some(noun) => {
            warn_of_attributes(*noun, &CONFERENCE, warnings);
            Whom::Conference(conference_of(*noun))
        }
        None => {
            let mut legs: Vec<Leg> =
                elements.iter().filter_map(|noun| leg_of(*noun, warnings)).collect();
            let bare = text_of(node);
            if elements.is_empty() && !bare.is_empty() {
                legs.push(Leg { to: bare, url: None, callbacks: Callbacks::default() });
            }
            if legs.is_empty() { Whom::Nobody } else { Whom::Legs(legs) }
        }
    };
    Dial {
        action: node.attribute("action").map(|_| action(node)),
        timeout: number(node, "timeout", 30).clamp(5, 600),
        time_limit: number(node, "timeLimit", 14_400),
        hangup_on_star: is(node, "hangupOnStar", false),
        caller_id: node.attribute("callerId").map(str::to_owned),
        record: node
            .attribute("record")
            .is_some_and(|how| !matches!(how, "false" | "do-not-record")),
        whom,
    }
}

fn leg_of(node: Node<'_, '_>, warnings: &mut Vec<u32>) -> Option<Leg> {
    let to = match node.tag_name().name() {
        "Number" | "Sip" => text_of(node),
        "Client" => {
            let identity = node.children().find(|child| child.tag_name().name() == "Identity");
            format!("client:{}", text_of(identity.unwrap_or(node)))
        }
        "Queue" | "Application" | "WhatsApp" | "Sim" => return None,
        _ => {
            warnings.push(SCHEMA);
            return None;
        }
    };
    warn_of_attributes(node, &LEG, warnings);
    let url = node.attribute("url").map(|url| target(url, node, "method"));
    Some(Leg { to, url, callbacks: callbacks_of(node) })
}

fn conference_of(node: Node<'_, '_>) -> Conference {
    Conference {
        room: text_of(node),
        muted: is(node, "muted", false),
        starts: is(node, "startConferenceOnEnter", true),
        ends: is(node, "endConferenceOnExit", false),
        label: node.attribute("participantLabel").map(str::to_owned),
        wait: node.attribute("waitUrl").map(|url| target(url, node, "waitMethod")),
        most: usize::try_from(number(node, "maxParticipants", 250).clamp(1, 250)).unwrap_or(250),
        callbacks: callbacks_of(node),
    }
}

fn callbacks_of(node: Node<'_, '_>) -> Callbacks {
    let url = node.attribute("statusCallback");
    let events = node.attribute("statusCallbackEvent").unwrap_or_default();
    Callbacks {
        target: url.map(|url| target(url, node, "statusCallbackMethod")),
        events: events.split_whitespace().map(str::to_owned).collect(),
    }
}

fn warn_of_attributes(node: Node<'_, '_>, known: &[&str], warnings: &mut Vec<u32>) {
    let unknown = node.attributes().filter(|attribute| !known.contains(&attribute.name()));
    warnings.extend(unknown.map(|_| SCHEMA));
}

/// Whether a document may be heard by those who wait for a conference to start.
pub fn check_wait(script: &Script) -> Result<(), TwimlError> {
    let fine = |verb: &Verb| {
        matches!(verb, Verb::Say { .. } | Verb::Play { .. } | Verb::Pause(_) | Verb::Redirect(_))
    };
    if script.verbs.iter().all(fine) { Ok(()) } else { Err(TwimlError(VERB_IN_WAIT)) }
}

/// Whether a document may be heard by a dialed party before it is connected.
pub fn check_whisper(script: &Script) -> Result<(), TwimlError> {
    let dials = script.verbs.iter().any(|verb| matches!(verb, Verb::Dial(_)));
    if dials { Err(TwimlError(DIAL_IN_WHISPER)) } else { Ok(()) }
}

/// Whether a document that was given instead of a URL names only absolute URLs.
pub fn check_inline(script: &Script) -> Result<(), TwimlError> {
    let relative = |target: &Target| url::Url::parse(&target.url).is_err();
    let bad = script.verbs.iter().any(|verb| match verb {
        Verb::Redirect(target) => relative(target),
        Verb::Gather(gather) => relative(&gather.action),
        Verb::Record(record) => relative(&record.action),
        Verb::Dial(dial) => dial.action.as_ref().is_some_and(relative),
        _ => false,
    });
    if bad { Err(TwimlError(RELATIVE)) } else { Ok(()) }
}

fn text_of(node: Node<'_, '_>) -> String {
    let text: String = node.descendants().filter(Node::is_text).filter_map(|n| n.text()).collect();
    text.trim().to_owned()
}

fn action(node: Node<'_, '_>) -> Target {
    target(node.attribute("action").unwrap_or_default(), node, "method")
}

fn target(url: &str, node: Node<'_, '_>, method_name: &str) -> Target {
    Target { url: url.trim().to_owned(), method: method(node, method_name) }
}

fn method(node: Node<'_, '_>, name: &str) -> Method {
    let get = node.attribute(name).is_some_and(|method| method.eq_ignore_ascii_case("GET"));
    if get { Method::GET } else { Method::POST }
}

fn number(node: Node<'_, '_>, name: &str, default: u64) -> u64 {
    node.attribute(name).and_then(|text| text.trim().parse().ok()).unwrap_or(default)
}

fn is(node: Node<'_, '_>, name: &str, default: bool) -> bool {
    node.attribute(name).map_or(default, |text| text == "true")
}

/// How often something sounds: `loop="0"` means until hang-up, which is a thousand times.
fn times(node: Node<'_, '_>) -> u32 {
    match number(node, "loop", 1) {
        0 => 1000,
        times => u32::try_from(times).unwrap_or(1000).min(1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fails(content_type: Option<&str>, body: &str, code: u32) {
        assert_eq!(read(content_type, body.as_bytes()), Err(TwimlError(code)), "{body:?}");
    }

    #[track_caller]
    fn script(body: &str) -> Script {
        read(Some("text/xml"), format!("<Response>{body}</Response>").as_bytes()).unwrap()
    }

    #[test]
    fn faults_have_twilios_numbers() {
        let xml = Some("text/xml");
        fails(None, "<Response/>", CONTENT_TYPE);
        fails(Some("application/json"), "{}", CONTENT_TYPE);
        fails(xml, "", PARSE);
        fails(xml, " <?xml version='1.0'?><Response/>", PARSE);
        fails(xml, "\u{feff}<Response/>", PARSE);
        fails(xml, "<Response><Say>", PARSE);
        fails(xml, "<html/>", ROOT);
        fails(xml, "<Response version='2'/>", VERSION);
        fails(xml, &format!("<Response>{}</Response>", " ".repeat(MAX_BYTES)), TOO_LARGE);
    }

    #[test]
    fn plain_text_is_read_aloud_unless_it_is_a_document() {
        let text = read(Some("text/plain"), b"NullPointerException at line 7").unwrap();
        let said = Verb::Say { text: "NullPointerException at line 7".into(), times: 1 };
        assert_eq!(text.verbs, [said, Verb::Hangup]);
        let document = read(Some("text/plain"), b"<Response><Pause/></Response>").unwrap();
        assert_eq!(document.verbs, [Verb::Pause(1)]);
        let audio = read(Some("audio/mpeg"), &[0; MAX_BYTES + 1]).unwrap();
        assert_eq!(audio.verbs[1], Verb::Hangup);
    }

    #[test]
    fn defaults_are_twilios() {
        let read = script("<Gather><Say>q</Say></Gather><Pause/><Record/><Dial>+1</Dial>");
        let [Verb::Gather(gather), Verb::Pause(1), Verb::Record(record), Verb::Dial(dial)] =
            read.verbs.as_slice()
        else {
            panic!("{read:?}")
        };
        assert_eq!((gather.finish_on_key.as_str(), gather.timeout), ("#", 5));
        assert_eq!(gather.action, Target::default());
        assert_eq!((record.timeout, record.max_length), (5, 3600));
        assert_eq!((dial.timeout, dial.time_limit, &dial.action), (30, 14_400, &None));
        let dialed = script("<Dial><Conference>r</Conference></Dial>");
        let Verb::Dial(Dial { whom: Whom::Conference(room), .. }) = &dialed.verbs[0] else {
            panic!("{dialed:?}")
        };
        assert_eq!((room.starts, room.ends, room.muted, room.most), (true, false, false, 250));
    }

    #[test]
    fn what_is_unknown_or_misplaced_is_skipped_with_a_warning() {
        for (body, verbs, warnings) in [
            ("<Shout/>", 0, vec![SCHEMA]),
            ("<say>x</say>", 0, vec![SCHEMA]),
            ("<Say Voice='x'>x</Say>", 1, vec![SCHEMA]),
            ("<Gather><Hangup/></Gather>", 1, vec![SCHEMA]),
            ("<Dial><Fax>1</Fax></Dial>", 1, vec![SCHEMA]),
            ("<Dial><Conference Muted='x'>r</Conference></Dial>", 1, vec![SCHEMA]),
            ("<Dial><Number href='x'>1</Number></Dial>", 1, vec![SCHEMA]),
            ("<Hangup><Say/></Hangup>", 1, vec![SCHEMA]),
            ("<Dial><Conference>r</Conference><Number>1</Number></Dial>", 1, vec![DIAL_MIXED]),
            ("<Echo/>", 1, vec![]),
        ] {
            let read = script(body);
            assert_eq!((read.verbs.len(), read.warnings), (verbs, warnings), "{body}");
        }
    }

    #[test]
    fn some_documents_may_not_hold_some_verbs() {
        assert_eq!(check_wait(&script("<Play>x</Play><Redirect/>")), Ok(()));
        assert_eq!(check_wait(&script("<Hangup/>")), Err(TwimlError(VERB_IN_WAIT)));
        let dials = script("<Dial>+1</Dial>");
        assert_eq!(check_whisper(&dials), Err(TwimlError(DIAL_IN_WHISPER)));
        assert_eq!(check_inline(&dials), Ok(()));
        assert_eq!(check_inline(&script("<Redirect>/x</Redirect>")), Err(TwimlError(RELATIVE)));
        assert_eq!(check_inline(&script("<Gather/>")), Err(TwimlError(RELATIVE)));
    }
}
