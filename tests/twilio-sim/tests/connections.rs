//! What happens when calls are connected: dialed parties and conferences.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod application;

use application::{App, Said, at, line, outbound, twiml};
use twilio_sim::{Command, Ending, Endpoint, Party, Purpose, Step};

fn party(text: &str) -> Party {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_dialed_party_is_whispered_to_and_connected() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml(
            "<Dial action=\"/after\"><Number>+15005550010</Number>\
             <Number url=\"/whisper\" statusCallback=\"/leg\" \
             statusCallbackEvent=\"answered completed\">+15005550011</Number></Dial>",
        ),
        "/whisper" => twiml("<Say>A call for you</Say>"),
        "/after" => twiml("<Say>Bye</Say>"),
        _ => Said::Status(204),
    })
    .await;
    let company = app.company();
    company.put_at("+15005550010", "no answer".parse().unwrap());
    company.put_at("+15005550011", "answers 2s; hang up 20s".parse().unwrap());
    let heard = company.call(line("/voice"), Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::RanOut, "\n{heard}");
    let whisper = &app.asked_at("/whisper")[0];
    assert_eq!(whisper.get("ParentCallSid"), Some(heard.call_sid.as_str()));
    assert_eq!(whisper.get("Direction"), Some("outbound-dial"));
    let after = &app.asked_at("/after")[0];
    assert_eq!(after.get("DialCallStatus"), Some("completed"));
    assert_eq!(after.get("DialCallSid"), whisper.get("CallSid"));
    assert!(after.get("DialCallDuration").is_some());
    app.until_asked("/leg", 2).await;
}

#[tokio::test]
async fn what_becomes_of_a_dial_is_told_to_its_action() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml("<Dial action=\"/after\" timeout=\"10\">+15005550010</Dial>"),
        "/plain" => twiml("<Dial>+15005550010</Dial><Redirect>/next</Redirect>"),
        "/whispers" => {
            twiml("<Dial action=\"/after\"><Number url=\"/voice\">+15005550010</Number></Dial>")
        }
        _ => twiml("<Hangup/>"),
    })
    .await;
    let company = app.company();
    for (who, told) in [("busy", "busy"), ("no answer", "no-answer"), ("fails", "failed")] {
        company.put_at("+15005550010", who.parse().unwrap());
        let before = app.asked_at("/after").len();
        company.call(line("/voice"), Party::silent()).make().await;
        let after = &app.asked_at("/after")[before];
        assert_eq!(after.get("DialCallStatus"), Some(told), "{who}");
    }
    company.call(line("/plain"), Party::silent()).make().await;
    assert_eq!(app.asked_at("/next").len(), 1);
    // A document that dials may not be heard before the connection (13201).
    company.put_at("+15005550010", "answers 2s; hang up 20s".parse().unwrap());
    let before = app.asked_at("/after").len();
    company.call(line("/whispers"), Party::silent()).make().await;
    assert_eq!(app.asked_at("/after")[before].get("DialCallStatus"), Some("completed"));
}

const CALLER: &str = "<Dial hangupOnStar=\"true\" action=\"/left\">\
    <Conference startConferenceOnEnter=\"false\" endConferenceOnExit=\"true\" waitUrl=\"/music\" \
    waitMethod=\"GET\" statusCallback=\"/room\" statusCallbackEvent=\"start end join leave\">\
    room</Conference></Dial>";
const LEAD: &str = "<Dial action=\"/parted\"><Conference endConferenceOnExit=\"true\">room\
    </Conference></Dial>";

/// An application with a caller who waits in a conference, and leads who come into it.
async fn conference() -> App {
    App::start(|asked| match asked.path.as_str() {
        "/caller" => twiml(CALLER),
        "/lead" => twiml(LEAD),
        "/music" => Said::With(200, vec![("content-type", "audio/mpeg".into())], vec![1; 9]),
        "/room" | "/status" => Said::Status(204),
        _ => twiml("<Hangup/>"),
    })
    .await
}

#[tokio::test]
async fn a_conference_brings_a_caller_and_a_lead_together() {
    let app = conference().await;
    let company = app.company();
    company.put_at("+15005550010", "answers 2s; hang up 30s".parse().unwrap());
    let caller = tokio::spawn(company.call(line("/caller"), party("talk 500s; =1")).make());
    app.until_asked("/music", 1).await;
    let lead = company.outbound(outbound("+15005550010", "/lead")).make().await;
    assert_eq!(lead.ending, Ending::PartyLeft, "\n{lead}");
    // The lead's leaving ends it, and the caller goes on.
    let caller = caller.await.unwrap();
    assert_eq!(caller.ending, Ending::HungUp, "\n{caller}");
    let left = &app.asked_at("/left")[0];
    assert_eq!(left.get("DialCallStatus"), Some("answered"));
    assert_eq!((left.get("DialCallSid"), left.get("DialCallDuration")), (None, None));
    let told = app.until_asked("/room", 6).await;
    let mut events: Vec<_> =
        told.iter().map(|asked| asked.get("StatusCallbackEvent").unwrap()).collect();
    events.sort_unstable();
    assert_eq!(
        events,
        [
            "conference-end",
            "conference-start",
            "participant-join",
            "participant-join",
            "participant-leave",
            "participant-leave"
        ]
    );
    let ended = told
        .iter()
        .find(|asked| asked.get("StatusCallbackEvent") == Some("conference-end"))
        .unwrap();
    assert_eq!(
        ended.get("ReasonConferenceEnded"),
        Some("participant-with-end-conference-on-exit-left")
    );
    assert_eq!(ended.get("CallSidEndingConference"), Some(lead.call_sid.as_str()));
}

#[tokio::test]
async fn star_leaves_a_conference_and_the_music_must_play() {
    let app = conference().await;
    let heard = app.company().call(line("/caller"), party("leave 9s")).make().await;
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    assert_eq!(app.asked_at("/left").len(), 1);
    let music = heard.webhooks().find(|webhook| webhook.purpose == Purpose::Media).unwrap();
    assert_eq!((music.status, music.error), (Some(200), None));

    let silent = App::start(|asked| match asked.path.as_str() {
        "/caller" => twiml(CALLER),
        "/music" => Said::Status(500),
        _ => twiml("<Hangup/>"),
    })
    .await;
    let heard = silent.company().call(line("/caller"), party("leave 9s")).make().await;
    assert_eq!(silent.asked_at("/left")[0].get("DialCallStatus"), Some("failed"), "\n{heard}");
}

#[tokio::test]
async fn a_call_redirected_in_a_dial_asks_its_action_too_and_heeds_only_the_new_document() {
    let app = conference().await;
    let company = app.company();
    let call = company.call(line("/caller"), party("talk 500s; =1"));
    let handle = call.handle();
    let heard = tokio::spawn(call.make());
    app.until_asked("/music", 1).await;
    let redirect = twilio_sim::call::Redirect {
        source: Some(twilio_sim::Source::Endpoint(Endpoint::from(at("/new")))),
        fallback: None,
        status: None,
    };
    handle.commands.send(Command::Redirect(Box::new(redirect))).unwrap();
    let heard = heard.await.unwrap();
    let purposes: Vec<_> = heard
        .webhooks()
        .filter(|webhook| webhook.path != "/status")
        .map(|webhook| (webhook.purpose, webhook.path.as_str()))
        .collect();
    assert_eq!(
        purposes,
        [
            (Purpose::Document, "/caller"),
            (Purpose::Media, "/music"),
            (Purpose::Disregarded, "/left"),
            (Purpose::Document, "/new"),
        ],
        "\n{heard}"
    );
    assert_eq!(app.asked_at("/left")[0].get("DialCallStatus"), Some("completed"));
}

#[tokio::test]
async fn a_script_that_repeats_goes_from_conference_to_conference() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" | "/left" => twiml(CALLER),
        "/music" => Said::With(200, vec![("content-type", "audio/mpeg".into())], vec![1; 9]),
        _ => Said::Status(204),
    })
    .await;
    let company = app.company();
    let call = company.call(line("/voice"), party("wait 1s; leave 5s; repeat"));
    let handle = call.handle();
    let heard = tokio::spawn(call.make());
    app.until_asked("/left", 3).await;
    handle.commands.send(Command::HangUp).unwrap();
    assert_eq!(heard.await.unwrap().ending, Ending::PartyLeft);
}

#[tokio::test]
async fn the_time_of_a_connection_runs_once_somebody_answers_and_star_ends_it() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml("<Dial action=\"/after\" timeLimit=\"5\">+15005550010</Dial>"),
        "/starred" => {
            twiml("<Dial action=\"/after\" hangupOnStar=\"true\" record=\"true\"><Number statusCallback=\"/leg\" statusCallbackEvent=\"answered\">+15005550010</Number></Dial>")
        }
        "/redirected" => twiml(
            "<Dial action=\"/in_vain\"><Number statusCallback=\"/leg\" statusCallbackEvent=\"answered\">+15005550010</Number></Dial>",
        ),
        _ => twiml("<Hangup/>"),
    })
    .await;
    let company = app.company();
    company.put_at("+15005550010", "answers 12s; hang up 600s".parse().unwrap());
    company.call(line("/voice"), Party::silent()).make().await;
    let after = &app.asked_at("/after")[0];
    assert_eq!(after.get("DialCallStatus"), Some("completed"));
    assert_eq!(after.get("DialBridged"), Some("true"));

    let call = company.call(line("/starred"), Party::silent());
    let handle = call.handle();
    let heard = tokio::spawn(call.make());
    app.until_asked("/leg", 1).await;
    handle.commands.send(Command::Press("*".into())).unwrap();
    heard.await.unwrap();
    let after = &app.asked_at("/after")[1];
    assert_eq!(after.get("DialCallStatus"), Some("completed"));
    assert!(after.get("RecordingUrl").is_some() && after.get("DialCallSid").is_some());

    let call = company.call(line("/redirected"), Party::silent());
    let handle = call.handle();
    let heard = tokio::spawn(call.make());
    app.until_asked("/leg", 2).await;
    let source = Some(twilio_sim::Source::Twiml("<Response><Hangup/></Response>".into()));
    let redirect = twilio_sim::call::Redirect { source, fallback: None, status: None };
    handle.commands.send(Command::Redirect(Box::new(redirect))).unwrap();
    assert_eq!(heard.await.unwrap().ending, Ending::HungUp);
    assert_eq!(app.asked_at("/in_vain").len(), 1);
    company.settled().await;
    assert!(company.calls().iter().all(|record| record.ended.is_some()));
}

#[tokio::test]
async fn a_label_is_taken_once_and_a_full_conference_is_not_joined() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/labelled" => twiml(
            "<Dial><Conference participantLabel=\"x\">room</Conference></Dial><Say>Taken</Say>",
        ),
        _ => {
            twiml("<Dial><Conference maxParticipants=\"1\">room</Conference></Dial><Say>Full</Say>")
        }
    })
    .await;
    let company = app.company();
    let first =
        tokio::spawn(company.call(line("/labelled"), party("leave 900s; hang up 1s")).make());
    while company.rooms(|rooms| rooms.all().is_empty()) {
        tokio::task::yield_now().await;
    }
    for (path, words, code) in [("/labelled", "Taken", 16025), ("/full", "Full", 13227)] {
        let heard = company.call(line(path), party("leave 1s")).make().await;
        assert!(heard.heard().contains(words), "\n{heard}");
        let warned =
            heard.steps.iter().any(|step| matches!(step, Step::Warned { code: c } if *c == code));
        assert!(warned, "\n{heard}");
    }
    first.abort();
}
