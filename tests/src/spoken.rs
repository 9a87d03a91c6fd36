//! What callers and leads are told, and what must be so of it.
//!
//! A check that fails ends the test, at the line that made it.

#![allow(clippy::panic, clippy::expect_used, reason = "a test that cannot go on fails")]

use http::Method;
use twilio_sim::twiml::{self, Conference, Dial, Gather, Target, Verb, Whom};

use crate::World;
use crate::world::{PUBLIC_URL, call_sid, form};

/// The verbs of the answer through the edge: the origin's, or the monitor's where the origin could not
/// have their store in time.
pub async fn ask(world: &World, path: &str, call: u64, more: &[(&str, &str)]) -> Vec<Verb> {
    let received = world.post(path, &form(&call_sid(call), more)).await.result.expect("an answer");
    let by = received.header("holdline-answered-by");
    assert!(matches!(by, Some("origin" | "monitor")), "{by:?}");
    twiml::read(received.header("content-type"), &received.body).expect("a document").verbs
}

/// What a verb says.
#[track_caller]
pub fn said(verb: &Verb) -> &str {
    match verb {
        Verb::Say { text, .. } => text,
        other => panic!("{other:?} says nothing"),
    }
}

/// Checks that these words are said, and no more.
#[track_caller]
pub fn says_and_hangs_up(verbs: &[Verb], words: &str) {
    assert_eq!(verbs.len(), 2, "{verbs:?}");
    assert!(said(&verbs[0]).contains(words), "{verbs:?}");
    assert_eq!(verbs[1], Verb::Hangup);
}

/// What a verb asks.
#[track_caller]
pub fn gather(verb: &Verb) -> &Gather {
    match verb {
        Verb::Gather(gather) => gather,
        other => panic!("{other:?} asks nothing"),
    }
}

/// Checks that the verbs are the menu, and gives back its action.
#[track_caller]
pub fn menu(verbs: &[Verb]) -> String {
    assert_eq!(verbs.len(), 1, "{verbs:?}");
    let gather = gather(&verbs[0]);
    assert_eq!((&*gather.finish_on_key, gather.timeout, gather.num_digits), ("5", 10, Some(1)));
    let action = &gather.action.url;
    assert!(action.contains("/read_instruction_options?session_id="), "{action}");
    action.clone()
}

/// Asks the origin itself, past the edge.
pub async fn ask_origin(world: &World, path: &str, call: &str, more: &[(&str, &str)]) -> Vec<Verb> {
    let received =
        world.post_to(&world.origin, path, &form(call, more)).await.result.expect("an answer");
    assert_eq!(received.status, 200, "{path}");
    twiml::read(received.header("content-type"), &received.body).expect("a document").verbs
}

/// Checks that the verbs are a conference, and gives it back with its Dial.
#[track_caller]
pub fn conference(verbs: &[Verb]) -> (&Dial, &Conference) {
    match verbs {
        [Verb::Dial(dial @ Dial { whom: Whom::Conference(conference), .. })] => (dial, conference),
        other => panic!("{other:?} is no conference"),
    }
}

/// Checks that the verbs are a caller's conference, and gives back where it leads.
#[track_caller]
pub fn caller_conference(verbs: &[Verb]) -> String {
    let (dial, conference) = conference(verbs);
    assert!(dial.hangup_on_star && !conference.starts && conference.ends, "{verbs:?}");
    assert_eq!(conference.wait, Some(music()));
    dial.action.as_ref().expect("an action").url.clone()
}

/// Checks that the verbs are a lead's conference, and gives it back with its Dial.
#[track_caller]
pub fn lead_conference(verbs: &[Verb]) -> (&Dial, &Conference) {
    let (dial, conference) = conference(verbs);
    assert!(!dial.hangup_on_star && conference.starts && conference.ends, "{verbs:?}");
    assert_eq!(conference.wait, Some(music()));
    (dial, conference)
}

/// Checks that the verbs are a redirect alone, and gives back where to.
#[track_caller]
pub fn redirect(verbs: &[Verb]) -> &str {
    match verbs {
        [Verb::Redirect(Target { url, method: Method::POST })] => path_of(url),
        other => panic!("{other:?} is no redirect"),
    }
}

/// A URL of the edge's without the edge.
#[track_caller]
pub fn path_of(url: &str) -> &str {
    url.strip_prefix(PUBLIC_URL).unwrap_or_else(|| panic!("{url} leads elsewhere"))
}

fn music() -> Target {
    Target { url: format!("{PUBLIC_URL}/media/hold-music"), method: Method::GET }
}
