//! What calls do, as an application sees it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod application;

use std::time::Duration;

use application::{ACCOUNT, App, Asked, HOST, Said, TOKEN, at, line, outbound, twiml};
use holdline_twilio::Form;
use holdline_twilio::signature::{Content, Key};
use twilio_sim::{
    Command, Ending, Endpoint, MachineDetection, Party, Purpose, Seed, Step, Transcript, breaches,
};

fn party(text: &str) -> Party {
    text.parse().unwrap()
}

fn statuses(heard: &Transcript) -> Vec<&str> {
    let became = heard.steps.iter().filter_map(|step| match step {
        Step::Became { status, .. } => Some(*status),
        _ => None,
    });
    became.collect()
}

/// Answers one path with these verbs, and all others with nothing.
fn at_path(path: &'static str, verbs: &'static str) -> impl Fn(&Asked) -> Said {
    move |asked| if asked.path == path { twiml(verbs) } else { Said::Status(204) }
}

#[tokio::test]
async fn a_request_is_what_twilio_sends() {
    let app = App::start(at_path("/voice", "<Say>Hello</Say>")).await;
    let heard = app.company().call(line("/voice"), Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::RanOut, "\n{heard}");
    assert_eq!(breaches(&heard), []);

    let asked = &app.asked_at("/voice")[0];
    for (name, value) in [
        ("AccountSid", ACCOUNT),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", heard.call_sid.as_str()),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("From", "+15005550006"),
        ("To", "+15005550001"),
        ("Caller", "+15005550006"),
        ("Called", "+15005550001"),
        ("ToCity", ""),
        ("StirVerstat", "TN-Validation-Passed-A"),
    ] {
        assert_eq!(asked.get(name), Some(value), "{name}");
    }
    for (name, value) in [
        ("user-agent", "TwilioProxy/1.1"),
        ("accept", "*/*"),
        ("x-home-region", "us1"),
        ("host", "app.test"),
        ("content-type", "application/x-www-form-urlencoded; charset=UTF-8"),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert_eq!(asked.header("i-twilio-idempotency-token").len(), 36);
    let pairs = asked.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let signature = Key::auth_token(&TOKEN.into()).sign(
        HOST,
        "/voice",
        Content::Form(&Form::from_pairs(pairs)),
    );
    assert_eq!(asked.header("x-twilio-signature"), signature);

    let report = &app.asked_at("/status")[0];
    assert_eq!(report.get("CallStatus"), Some("completed"));
    assert_eq!(report.get("SequenceNumber"), Some("0"));
    assert_eq!(report.get("CallbackSource"), Some("call-progress-events"));
    assert!(report.get("Timestamp").unwrap().ends_with("+0000"));
    assert!(report.get("CallDuration").is_some());
}

#[tokio::test]
async fn a_question_is_answered_fallen_through_or_sent_empty() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml(
            "<Gather numDigits=\"1\" action=\"/one\"><Say>Press one</Say></Gather>\
             <Gather timeout=\"3\" action=\"/never\"><Say>Silence</Say></Gather>\
             <Gather timeout=\"3\" actionOnEmptyResult=\"true\" action=\"/empty\"/>",
        ),
        "/one" => twiml("<Redirect method=\"GET\">/voice?again</Redirect>"),
        _ => twiml("<Hangup/>"),
    })
    .await;
    let company = app.company();
    let heard = company.call(line("/voice"), party("Press one=1")).make().await;
    assert_eq!(heard.ending, Ending::HungUp, "\n{heard}");
    let pressed = &app.asked_at("/one")[0];
    assert_eq!((pressed.get("Digits"), pressed.get("FinishedOnKey")), (Some("1"), Some("")));
    assert_eq!(pressed.get("CallStatus"), Some("in-progress"));
    let again = &app.asked_at("/voice")[1];
    assert_eq!((again.method.as_str(), again.get("Direction")), ("GET", Some("inbound")));
    assert!(app.asked_at("/never").is_empty());
    assert_eq!(app.asked_at("/empty")[0].get("Digits"), Some(""));
}

#[tokio::test]
async fn who_takes_too_long_has_not_answered() {
    let app = App::start(at_path(
        "/voice",
        "<Gather timeout=\"5\" action=\"/keyed\"><Say>Now</Say></Gather>",
    ))
    .await;
    let company = app.company();
    let heard = company.call(line("/voice"), party("wait 9s; Now=1")).make().await;
    assert_eq!(heard.ending, Ending::RanOut, "\n{heard}");
    assert!(app.asked_at("/keyed").is_empty());
    company.call(line("/voice"), party("wait 2s; Now=1#")).make().await;
    assert_eq!(app.asked_at("/keyed")[0].get("FinishedOnKey"), Some("#"));
}

#[tokio::test]
async fn an_error_is_followed_by_the_fallback_once() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => Said::Status(500),
        "/fallback" if asked.get("ErrorUrl") == Some("http://app.test/voice?a=1") => {
            twiml("<Redirect>/broken</Redirect>")
        }
        "/broken" => Said::Twiml("<Response><Say>".into()),
        "/fallback" => Said::Status(404),
        _ => Said::Status(204),
    })
    .await;
    let heard = app.company().call(line("/voice?a=1#rc=0"), Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::Apology(11200), "\n{heard}");
    let fallbacks = app.asked_at("/fallback");
    let codes: Vec<_> = fallbacks.iter().map(|asked| asked.get("ErrorCode").unwrap()).collect();
    assert_eq!(codes, ["11200", "12100"]);
    let tokens: Vec<_> =
        app.asked().iter().map(|a| a.header("i-twilio-idempotency-token").to_owned()).collect();
    assert!((1..tokens.len()).all(|n| !tokens[n..].contains(&tokens[n - 1])), "{tokens:?}");
    assert!(!breaches(&heard).is_empty());
}

#[tokio::test]
async fn a_loop_ends_and_is_an_error() {
    let app = App::start(at_path("/voice", "<Redirect/>")).await;
    let heard = app.company().call(line("/voice"), Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::Endless);
}

#[tokio::test]
async fn a_call_is_rejected_delayed_recorded_or_left() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/reject" => twiml("<Reject/>"),
        "/late" => twiml("<Pause length=\"2\"/><Say>Hello</Say><Reject/>"),
        "/record" => twiml("<Record action=\"/recorded\" timeout=\"2\"/>"),
        "/long" => twiml("<Play loop=\"0\">/music</Play>"),
        _ => Said::Status(204),
    })
    .await;
    let company = app.company();
    let rejected = company.call(line("/reject"), Party::silent()).make().await;
    assert_eq!(rejected.ending, Ending::Rejected { busy: false });
    assert_eq!(statuses(&rejected), ["no-answer"]);
    let late = company.call(line("/late"), Party::silent()).make().await;
    assert_eq!((late.ending, statuses(&late)), (Ending::HungUp, vec!["in-progress", "completed"]));
    company.call(line("/record"), party("=5")).make().await;
    let recorded = &app.asked_at("/recorded")[0];
    assert_eq!(recorded.get("Digits"), Some("5"));
    assert!(recorded.get("RecordingUrl").unwrap().contains("/Recordings/RE"));
    let left = company.call(line("/long"), party("hang up 7s")).make().await;
    assert_eq!(left.ending, Ending::PartyLeft, "\n{left}");
}

#[tokio::test]
async fn a_call_made_by_the_application_goes_through_its_states() {
    let app = App::start(at_path("/voice", "<Say>Hello</Say>")).await;
    let company = app.company();
    for (who, status, states) in [
        ("answers 2s; hang up 60s", "completed", vec!["ringing", "in-progress", "completed"]),
        ("busy", "busy", vec!["ringing", "busy"]),
        ("no answer", "no-answer", vec!["ringing", "no-answer"]),
        ("answers 30s", "no-answer", vec!["ringing", "no-answer"]),
        ("fails", "failed", vec!["ringing", "failed"]),
    ] {
        company.put_at("+15005550006", who.parse().unwrap());
        let before = app.asked().len();
        let heard = company.outbound(outbound("+15005550006", "/voice")).make().await;
        assert_eq!(statuses(&heard), states, "{who}\n{heard}");
        let mut asked = app.asked().split_off(before);
        let fetched = asked.iter().filter(|asked| asked.path == "/voice").count();
        assert_eq!(fetched, usize::from(status == "completed"), "{who}");
        asked.retain(|asked| asked.path == "/status");
        asked.sort_by_key(|asked| asked.get("SequenceNumber").unwrap().to_owned());
        let told: Vec<_> = asked.iter().map(|asked| asked.get("CallStatus").unwrap()).collect();
        let mut expected = vec!["initiated"];
        expected.extend(&states);
        assert_eq!(told, expected, "{who}");
        assert_eq!(asked[0].get("Direction"), Some("outbound-api"));
    }
}

#[tokio::test]
async fn a_machine_is_told_from_a_person() {
    let app = App::start(at_path("/voice", "<Say>Hello</Say>")).await;
    let company = app.company();
    let present = |message_end, waits| MachineDetection::Present {
        message_end,
        waits,
        asynchronous: Some(Endpoint::from(at("/decided"))),
    };
    for (who, machine, told) in [
        ("machine 2s", MachineDetection::Legacy { hang_up: false }, Some("machine")),
        ("answers 2s", MachineDetection::Legacy { hang_up: true }, Some("human")),
        ("machine 2s", present(false, true), Some("machine_start")),
        ("machine 2s", present(true, true), Some("machine_end_beep")),
        ("answers 2s", present(true, true), Some("human")),
        ("machine 2s", present(false, false), None),
    ] {
        company.put_at("+15005550006", who.parse().unwrap());
        let before = app.asked_at("/voice").len();
        let mut call = outbound("+15005550006", "/voice");
        call.machine = Some(machine.clone());
        company.outbound(call).make().await;
        let asked = &app.asked_at("/voice")[before];
        assert_eq!(asked.get("AnsweredBy"), told, "{who} {machine:?}");
    }
    // A machine's call is ended without a document; only the report says so.
    company.put_at("+15005550006", "machine 2s".parse().unwrap());
    let (voice, status) = (app.asked_at("/voice").len(), app.asked_at("/status").len());
    let mut call = outbound("+15005550006", "/voice");
    call.machine = Some(MachineDetection::Legacy { hang_up: true });
    call.events = vec!["completed".into()];
    let heard = company.outbound(call).make().await;
    assert_eq!(heard.ending, Ending::MachineLeft);
    assert_eq!(app.asked_at("/voice").len(), voice);
    assert_eq!(app.asked_at("/status")[status].get("AnsweredBy"), Some("machine"));
}

#[tokio::test]
async fn a_decision_beside_the_call_is_told_by_itself() {
    let app = App::start(at_path("/voice", "<Pause length=\"60\"/>")).await;
    let company = app.company();
    company.put_at("+15005550006", "machine 2s".parse().unwrap());
    let mut call = outbound("+15005550006", "/voice");
    call.machine = Some(MachineDetection::Present {
        message_end: false,
        waits: false,
        asynchronous: Some(Endpoint::from(at("/decided"))),
    });
    company.outbound(call).make().await;
    let decided = &app.asked_at("/decided")[0];
    assert_eq!(decided.get("AnsweredBy"), Some("machine_start"));
    assert_eq!(decided.get("MachineDetectionDuration"), Some("4000"));
}

#[tokio::test]
async fn reports_are_lost_repeated_overtaken_and_given_up_as_told() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml("<Hangup/>"),
        _ => Said::After(Duration::from_millis(300), Box::new(Said::Status(500))),
    })
    .await;
    let report = async |change: fn(&mut twilio_sim::Mishaps)| {
        let company = app.company_with(|settings| change(&mut settings.mishaps));
        let calls = (0..2).map(|_| tokio::spawn(company.call(line("/voice"), party("")).make()));
        let mut found = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            let heard = call.await.unwrap();
            found.extend(
                heard
                    .webhooks()
                    .filter(|webhook| webhook.purpose == Purpose::Status)
                    .map(|webhook| (webhook.status, webhook.error, webhook.token.clone())),
            );
        }
        found
    };
    assert_eq!(report(|mishaps| mishaps.lose_reports = 1.0).await, []);
    let twice = report(|mishaps| mishaps.repeat_reports = 1.0).await;
    assert_eq!(twice.len(), 4);
    assert_eq!(twice[0].2, twice[1].2, "the same token");
    assert_eq!((twice[0].0, twice[0].1), (Some(500), Some(15003)));
    let given_up = report(|mishaps| {
        mishaps.reports_at_once = 1;
        mishaps.report_expiry_s = 0.1;
    })
    .await;
    let errors: Vec<_> = given_up.iter().map(|(_, error, _)| error.unwrap()).collect();
    assert!(errors.contains(&15002) && errors.contains(&15003), "{errors:?}");
}

#[tokio::test]
async fn calls_begun_too_fast_are_queued_and_a_queued_call_is_cancelled_in_silence() {
    let app = App::start(at_path("/voice", "<Hangup/>")).await;
    let company = app.company_with(|settings| settings.mishaps.calls_a_second = 0.01);
    company.put_at("+15005550006", "answers 1s".parse().unwrap());
    company.outbound(outbound("+15005550006", "/voice")).make().await;
    let queued = company.outbound(outbound("+15005550006", "/voice"));
    let handle = queued.handle();
    let before = app.asked().len();
    handle.commands.send(Command::End(Ending::EndedByApi)).unwrap();
    let heard = queued.make().await;
    assert_eq!(heard.ending, Ending::NotTaken("canceled"), "\n{heard}");
    assert_eq!(app.asked().len(), before);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_choices() {
    let app = App::start(at_path("/voice", "<Gather><Say>q</Say></Gather><Hangup/>")).await;
    let run = async |seed: u64| {
        let company = app.company_with(|settings| settings.seed = Seed::from(seed));
        let mut told = Vec::new();
        for _ in 0..5 {
            let heard = company.outbound(outbound("+15005550006", "/voice")).make().await;
            let tokens: Vec<_> = heard
                .webhooks()
                .filter(|webhook| webhook.purpose == Purpose::Document)
                .map(|webhook| webhook.token.clone())
                .collect();
            told.push((heard.call_sid, heard.ending, tokens));
        }
        told
    };
    let (first, again, other) = (run(7).await, run(7).await, run(8).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[tokio::test]
async fn what_happens_during_a_request_is_heeded_after_it() {
    let app = App::start(at_path("/voice", "<Redirect/>")).await;
    let left = app.company().call(line("/voice"), party("hang up 1s")).make().await;
    assert_eq!(left.ending, Ending::PartyLeft, "\n{left}");
    let company = app.company();
    let call = company.call(line("/voice"), Party::silent());
    let handle = call.handle();
    let heard = tokio::spawn(call.make());
    app.until_asked("/voice", 3).await;
    handle.commands.send(Command::End(Ending::EndedByApi)).unwrap();
    assert_eq!(heard.await.unwrap().ending, Ending::EndedByApi);
}

#[tokio::test]
async fn who_is_hung_up_on_while_it_rings_did_not_answer() {
    let app = App::start(at_path("/voice", "<Hangup/>")).await;
    let company = app.company();
    company.put_at("+15005550006", "answers 14s".parse().unwrap());
    let call = company.outbound(outbound("+15005550006", "/voice"));
    call.handle().commands.send(Command::HangUp).unwrap();
    let heard = call.make().await;
    assert_eq!(statuses(&heard).last(), Some(&"no-answer"), "\n{heard}");
}

#[tokio::test]
async fn a_caller_may_be_told_that_the_line_is_busy_or_hang_up_on_a_recording() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/busy" => twiml("<Reject reason=\"busy\"/>"),
        "/record" => twiml("<Record action=\"/recorded\" timeout=\"60\"/>"),
        _ => Said::Status(204),
    })
    .await;
    let company = app.company();
    let busy = company.call(line("/busy"), Party::silent()).make().await;
    assert_eq!(statuses(&busy), ["busy"]);
    let left = company.call(line("/record"), party("hang up 9s")).make().await;
    assert_eq!(left.ending, Ending::PartyLeft, "\n{left}");
    assert_eq!(app.asked_at("/recorded")[0].get("Digits"), Some("hangup"));
}

#[tokio::test]
async fn a_url_that_cannot_be_asked_is_an_error_like_any_other() {
    let app = App::start(|asked| match asked.path.as_str() {
        "/voice" => twiml("<Redirect>http://[bad</Redirect>"),
        "/fallback" => twiml("<Say>Hello</Say>"),
        _ => Said::Status(204),
    })
    .await;
    let heard = app.company().call(line("/voice"), Party::silent()).make().await;
    assert_eq!(heard.ending, Ending::RanOut, "\n{heard}");
    assert_eq!(app.asked_at("/fallback")[0].get("ErrorCode"), Some("11100"));
}

#[tokio::test]
async fn reports_overtake_each_other_when_they_are_held_back() {
    let app = App::start(at_path("/voice", "<Hangup/>")).await;
    let company = app.company_with(|settings| {
        settings.mishaps.delay_reports_s = 0.3;
        settings.seed = Seed::from(3);
    });
    company.put_at("+15005550006", "answers 1s".parse().unwrap());
    let mut overtaken = false;
    for _ in 0..5 {
        let before = app.asked_at("/status").len();
        company.outbound(outbound("+15005550006", "/voice")).make().await;
        let told = app.asked_at("/status").split_off(before);
        let order: Vec<_> = told.iter().map(|asked| asked.get("SequenceNumber").unwrap()).collect();
        overtaken |= order != ["0", "1", "2", "3"];
        assert_eq!(order.len(), 4);
    }
    assert!(overtaken);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_do_not_disturb_each_others_choices() {
    let app = App::start(at_path("/voice", "<Gather timeout=\"2\"><Say>q</Say></Gather>")).await;
    let run = async || {
        let company = app.company_with(|settings| settings.seed = Seed::from(9));
        let calls: Vec<_> = (0..40)
            .map(|n| {
                let call = company.outbound(outbound(&format!("+150055500{n:02}"), "/voice"));
                tokio::spawn(call.make())
            })
            .collect();
        let mut told = Vec::new();
        for call in calls {
            let heard = call.await.unwrap();
            told.push((heard.to, heard.call_sid, heard.ending));
        }
        told
    };
    assert_eq!(run().await, run().await);
}
