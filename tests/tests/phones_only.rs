//! A caller with nothing but a telephone: the behavioural test cases T24 to T42, and what repetitions
//! come to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::spoken::{
    ask, ask_origin, caller_conference, gather, lead_conference, path_of, redirect, said,
    says_and_hangs_up,
};
use holdline_tests::world::{PUBLIC_URL, call_sid, form};
use holdline_tests::{Part, Recorder, World};
use twilio_sim::twiml::Verb;

const PREVIEW: &str = "1000001";
const POWER: &str = "1000002";
const PREDICTIVE: &str = "1000003";
const CALL: u64 = 1;

/// A caller who is signed in.
struct Caller {
    world: World,
    twilio: Recorder,
    session: String,
    id: String,
}

// === impl Caller ===

impl Caller {
    async fn sign_in(pin: &str) -> Caller {
        Caller::sign_in_after(pin, &[]).await
    }

    /// The same, where something was otherwise before.
    async fn sign_in_after(pin: &str, changes: &[&str]) -> Caller {
        let twilio = Recorder::default();
        let plan = World::plan(Part::Real, Part::Real);
        let world = plan.recorded_by(&twilio).start().await.unwrap();
        for change in changes {
            world.sql(change).await.unwrap();
        }
        let verbs = ask(&world, "/identify_caller?attempt=1", CALL, &[("Digits", pin)]).await;
        let action = path_of(&gather(&verbs[0]).action.url).to_owned();
        let (path, session) = action.split_once("?session_id=").unwrap();
        let id = path.split('/').nth(2).unwrap().to_owned();
        Caller { world, twilio, session: session.to_owned(), id }
    }

    fn path(&self, step: &str) -> String {
        format!("/caller/{}/{step}?session_id={}", self.id, self.session)
    }

    async fn step(&self, step: &str) -> Vec<Verb> {
        ask(&self.world, &self.path(step), CALL, &[]).await
    }

    async fn go(&self, path: &str) -> Vec<Verb> {
        ask(&self.world, path, CALL, &[]).await
    }

    async fn key(&self, path: &str, digits: &str) -> Vec<Verb> {
        ask(&self.world, path, CALL, &[("Digits", digits)]).await
    }

    async fn count(&self, select: &str) -> i64 {
        self.world.count(select).await.unwrap()
    }

    async fn handed_out(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM households WHERE place = 'presented'").await
    }

    async fn status(&self) -> String {
        let shown = self.world.inspect(&self.world.origin, "/inspect/callers").await.unwrap();
        shown["callers"][0]["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Has the next one called, and gives the leg, our name of the call, and where the caller's
    /// conference leads.
    async fn call_next(&self) -> (String, String, String) {
        let verbs = self.step("ready_to_call").await;
        let verbs = match &verbs[0] {
            Verb::Gather(gather) => self.key(path_of(&gather.action.url), "*").await,
            _ => self.go(redirect(&verbs[1..])).await,
        };
        let after = path_of(&caller_conference(&verbs)).to_owned();
        let dials = self.twilio.dials(1).await.unwrap();
        let url = dials.last().unwrap().form.get("Url").unwrap().to_owned();
        let id = path_of(&url).split('/').nth(2).unwrap().to_owned();
        let leg =
            format!("SELECT call_sid FROM lead_calls WHERE id = {id} AND call_sid IS NOT NULL");
        self.world.until_count(&leg.replace("call_sid FROM", "COUNT(*) FROM"), 1).await.unwrap();
        (self.world.column(&leg).await.unwrap().remove(0), id, after)
    }

    /// Somebody answers.
    async fn answered(&self, leg: &str, id: &str) -> Vec<Verb> {
        ask_origin(&self.world, &format!("/calls/{id}/incoming"), leg, &[("AnsweredBy", "human")])
            .await
    }
}

#[tokio::test]
async fn t24_a_lead_without_a_name_is_offered_without_one() {
    let nameless = "UPDATE leads SET first_name = NULL, last_name = NULL";
    let caller = Caller::sign_in_after(PREVIEW, &[nameless]).await;
    let verbs = caller.key(&caller.path("read_instruction_options"), "*").await;
    let asked = gather(&verbs[0]);
    let expected = caller.path("conference_started_phones_only_preview");
    assert_eq!(path_of(&asked.action.url), format!("{expected}&voter_id=1&phone=5005550101"));
    assert_eq!((asked.num_digits, asked.timeout, &*asked.finish_on_key), (Some(1), 10, "5"));
    assert_eq!(said(&asked.prompts[0]), "Star to call, pound to pass.");
}

#[tokio::test]
async fn t25_a_lead_is_offered_by_name_and_once() {
    let caller = Caller::sign_in(PREVIEW).await;
    let verbs = caller.step("ready_to_call").await;
    assert!(said(&gather(&verbs[0]).prompts[0]).starts_with("Ann Lee"), "{verbs:?}");
    // A repetition that no token tells is the same step, because nobody can mean it.
    assert_eq!(caller.step("ready_to_call").await, verbs);
    assert_eq!(caller.step("next_call").await, verbs);
    assert_eq!(caller.handed_out().await, 1);
}

#[tokio::test]
async fn t26_an_empty_list() {
    let caller = Caller::sign_in_after(PREVIEW, &["UPDATE households SET place = 'failed'"]).await;
    says_and_hangs_up(&caller.step("ready_to_call").await, "nobody left to call");
}

#[tokio::test]
async fn t27_power_says_the_name_and_goes_on() {
    let caller = Caller::sign_in(POWER).await;
    let verbs = caller.step("ready_to_call").await;
    assert_eq!(said(&verbs[0]), "Cy Okafor");
    let expected = caller.path("conference_started_phones_only_power");
    assert_eq!(redirect(&verbs[1..]), format!("{expected}&voter_id=3&phone=5005550103"));
}

#[tokio::test]
async fn t28_predictive_waits_in_the_conference() {
    let caller = Caller::sign_in(PREDICTIVE).await;
    let after = caller_conference(&caller.step("ready_to_call").await);
    assert_eq!(path_of(&after), format!("{}&question_number=0", caller.path("gather_response")));
    assert_eq!(
        caller.count("SELECT COUNT(*) FROM caller_sessions WHERE stage = 'waiting'").await,
        1
    );
    assert_eq!(caller.handed_out().await, 0);
    let after = caller_conference(&caller.step("conference_started_phones_only_predictive").await);
    assert_eq!(path_of(&after), format!("{}&question_number=0", caller.path("gather_response")));
}

#[tokio::test]
async fn t29_t30_t31_a_closed_gate_is_announced_and_hands_nothing_out() {
    for (change, words) in [
        ("UPDATE accounts SET minutes_allowed = 0", "no calling credit"),
        ("UPDATE accounts SET disable_calling = 1", "switched off"),
        ("UPDATE campaigns SET start_hour = NULL", "may be called from"),
    ] {
        for (step, ended) in [("ready_to_call", 1), ("next_call", 0)] {
            let caller = Caller::sign_in(PREVIEW).await;
            caller.world.sql(change).await.unwrap();
            says_and_hangs_up(&caller.step(step).await, words);
            assert_eq!(caller.handed_out().await, 0, "{change}");
            let ends = "SELECT COUNT(*) FROM caller_sessions WHERE on_call = 0";
            assert_eq!(caller.count(ends).await, ended, "{change}: {step}");
        }
    }
}

#[tokio::test]
async fn t32_a_number_at_which_nobody_is_left_is_passed_over() {
    let done = "UPDATE leads SET completed = 1 WHERE id = 1";
    let caller = Caller::sign_in_after(PREVIEW, &[done]).await;
    let verbs = caller.step("ready_to_call").await;
    assert_eq!(redirect(&verbs), caller.path("next_call"));
    let verbs = caller.step("next_call").await;
    assert!(said(&gather(&verbs[0]).prompts[0]).starts_with("Bo Diaz"), "{verbs:?}");
}

#[tokio::test]
async fn t33_t35_pound_passes_and_anything_else_asks_again() {
    let caller = Caller::sign_in(PREVIEW).await;
    let verbs = caller.step("ready_to_call").await;
    let first = path_of(&gather(&verbs[0]).action.url).to_owned();
    for keys in ["", "7"] {
        let verbs = caller.key(&first, keys).await;
        assert_eq!(said(&gather(&verbs[0]).prompts[0]), "Star to call, pound to pass.");
    }
    assert_eq!(redirect(&caller.key(&first, "#").await), caller.path("ready_to_call"));
    let verbs = caller.step("ready_to_call").await;
    assert!(said(&gather(&verbs[0]).prompts[0]).starts_with("Bo Diaz"), "{verbs:?}");
    // What was passed is decided: a late key about it passes nothing else.
    for keys in ["#", "*"] {
        assert_eq!(redirect(&caller.key(&first, keys).await), caller.path("ready_to_call"));
    }
    assert_eq!(caller.step("ready_to_call").await, verbs);
    let second = path_of(&gather(&verbs[0]).action.url).to_owned();
    assert_eq!(redirect(&caller.key(&second, "#").await), caller.path("ready_to_call"));
    says_and_hangs_up(&caller.step("ready_to_call").await, "nobody left to call");
    assert_eq!(caller.handed_out().await, 2);
    assert!(caller.twilio.asked().iter().all(|asked| asked.method == http::Method::GET));
}

#[tokio::test]
async fn t34_star_calls_once() {
    let caller = Caller::sign_in(PREVIEW).await;
    let verbs = caller.step("ready_to_call").await;
    let offer = path_of(&gather(&verbs[0]).action.url).to_owned();
    let verbs = caller.key(&offer, "*").await;
    let after = caller_conference(&verbs);
    let expected =
        format!("{}&question_number=0&voter_id=1&call_id=", caller.path("gather_response"));
    assert!(path_of(&after).starts_with(&expected), "{after}");
    // Star again, and again: the same conference, and no second call.
    assert_eq!(caller.key(&offer, "*").await, verbs);
    assert_eq!(caller.key(&offer, "#").await, verbs);
    let dials = caller.twilio.dials(1).await.unwrap();
    let dial = &dials[0].form;
    assert_eq!((dial.get("To"), dial.get("From")), (Some("5005550101"), Some("5005550001")));
    assert_eq!((dial.get("Timeout"), dial.get("MachineDetection")), (Some("15"), None));
    let callback = dial.get("StatusCallback").unwrap();
    assert!(callback.contains("/call_ended#") && callback.contains("rc=3"), "{callback}");
    assert_eq!(dial.get("Url"), dial.get("FallbackUrl"));
    caller.world.until_count("SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL", 0).await.unwrap();
    assert_eq!(caller.twilio.dials(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn t36_power_calls_once() {
    let caller = Caller::sign_in(POWER).await;
    let verbs = caller.step("ready_to_call").await;
    let call = redirect(&verbs[1..]).to_owned();
    let (first, second) = tokio::join!(caller.go(&call), caller.go(&call));
    assert_eq!(first, second);
    caller_conference(&first);
    assert_eq!(caller.twilio.dials(1).await.unwrap()[0].form.get("To"), Some("5005550103"));
    caller.world.until_count("SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL", 0).await.unwrap();
    assert_eq!(caller.twilio.dials(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn t37_to_t42_a_survey() {
    let caller = Caller::sign_in(POWER).await;
    let (leg, id, after) = caller.call_next().await;
    lead_conference(&caller.answered(&leg, &id).await);
    assert_eq!(caller.status().await, "On call");
    let verbs = caller.go(&after).await;
    let asked = gather(&verbs[0]);
    assert_eq!((asked.timeout, &*asked.finish_on_key, asked.num_digits), (60, "*", None));
    let prompts: Vec<&str> = asked.prompts.iter().map(said).collect();
    assert_eq!(
        prompts,
        [
            "How did the conversation go?",
            "Press 1 for Great.",
            "Press 2 for Super.",
            "Finish with star."
        ]
    );
    assert_eq!(caller.status().await, "Wrap up");
    let submit = path_of(&asked.action.url).to_owned();
    assert!(submit.contains("question_id=1") && submit.contains("voter_id=3"), "{submit}");
    let verbs = caller.key(&submit, "1").await;
    let next = redirect(&verbs).to_owned();
    assert!(next.contains("question_number=1") && next.contains("voter_id=3"), "{next}");
    let verbs = caller.go(&next).await;
    let submit = path_of(&gather(&verbs[0]).action.url).to_owned();
    // Keyed twice: the last one counts, and is kept once.
    caller.key(&submit, "1").await;
    let last = redirect(&caller.key(&submit, "2").await).to_owned();
    assert_eq!(redirect(&caller.go(&last).await), caller.path("next_call"));
    assert_eq!(caller.status().await, "On hold");
    let answers = caller
        .world
        .column(
            "SELECT value FROM answers JOIN possible_responses \
             ON possible_responses.id = answers.possible_response_id WHERE lead_id = 3 ORDER BY answers.question_id",
        )
        .await
        .unwrap();
    assert_eq!(answers, ["Great", "No"]);
    assert_eq!(caller.count("SELECT completed FROM leads WHERE id = 3").await, 1);
    assert_eq!(
        caller.count("SELECT COUNT(*) FROM households WHERE id = 3 AND place = 'completed'").await,
        1
    );
    // Over and done with: the end of the leg changes nothing any more.
    let ended = form(&leg, &[("CallStatus", "completed"), ("CallDuration", "20")]);
    caller.world.post(&format!("/calls/{id}/call_ended"), &ended).await.result.unwrap();
    assert_eq!(caller.status().await, "On hold");
}

#[tokio::test]
async fn an_answer_that_twilio_could_not_hand_in_is_asked_for_again() {
    let caller = Caller::sign_in(POWER).await;
    let (leg, id, after) = caller.call_next().await;
    caller.answered(&leg, &id).await;
    let verbs = caller.go(&after).await;
    let submit = path_of(&gather(&verbs[0]).action.url).to_owned();
    let failed = format!("{PUBLIC_URL}{submit}");
    let failed = [("ErrorCode", "11200"), ("ErrorUrl", failed.as_str())];
    let fallback = caller.path("ready_to_call");
    let again = ask_origin(&caller.world, &fallback, &call_sid(CALL), &failed).await;
    assert_eq!(again, verbs, "the same question");
    // Star alone leaves it out.
    let next = caller.key(&submit, "").await;
    assert!(redirect(&next).contains("question_number=1"), "{next:?}");
    assert_eq!(caller.count("SELECT COUNT(*) FROM answers").await, 0);
    // Twilio asks then, too.
    assert!(gather(&verbs[0]).action_on_empty);
}

#[tokio::test]
async fn t40_t41_a_survey_that_is_broken_off() {
    let caller = Caller::sign_in(POWER).await;
    let (leg, id, after) = caller.call_next().await;
    caller.answered(&leg, &id).await;
    let verbs = caller.go(&after).await;
    let submit = path_of(&gather(&verbs[0]).action.url).to_owned();
    assert_eq!(redirect(&caller.key(&submit, "999").await), caller.path("next_call"));
    assert_eq!(caller.count("SELECT COUNT(*) FROM answers").await, 0);
    // The next lead; the caller hangs up in the middle, and what was keyed is kept.
    let verbs = caller.step("next_call").await;
    let verbs = caller.go(redirect(&verbs[1..])).await;
    let after = caller_conference(&verbs);
    let call = after.rsplit_once("call_id=").unwrap().1.to_owned();
    caller.twilio.dials(2).await.unwrap();
    let bound =
        format!("SELECT COUNT(*) FROM lead_calls WHERE id = {call} AND call_sid IS NOT NULL");
    caller.world.until_count(&bound, 1).await.unwrap();
    let leg = format!("SELECT call_sid FROM lead_calls WHERE id = {call}");
    let leg = caller.world.column(&leg).await.unwrap().remove(0);
    caller.answered(&leg, &call).await;
    let verbs = caller.go(path_of(&after)).await;
    let submit = path_of(&gather(&verbs[0]).action.url).to_owned();
    let ended = form(&call_sid(CALL), &[("CallStatus", "completed")]);
    caller.world.post_to(&caller.world.origin, "/caller/end_session", &ended).await.result.unwrap();
    assert_eq!(caller.key(&submit, "2").await, [Verb::Hangup]);
    assert_eq!(caller.count("SELECT COUNT(*) FROM answers WHERE lead_id = 4").await, 1);
}

#[tokio::test]
async fn a_survey_that_is_not_asked_for_leads_on() {
    // Nothing was called yet.
    let caller = Caller::sign_in(PREDICTIVE).await;
    caller.step("ready_to_call").await;
    let verbs = caller.go(&format!("{}&question_number=0", caller.path("gather_response"))).await;
    assert_eq!(redirect(&verbs), caller.path("next_call"));
    // It still rings: the caller wants no more of it, and nobody is left to be surprised.
    let caller = Caller::sign_in(POWER).await;
    let (leg, id, after) = caller.call_next().await;
    assert_eq!(redirect(&caller.go(&after).await), caller.path("next_call"));
    assert_eq!(
        caller.twilio.changes(&leg, 1).await.unwrap()[0].form.get("Status"),
        Some("completed")
    );
    assert_eq!(caller.answered(&leg, &id).await, [Verb::Hangup]);
    assert_eq!(
        caller.count("SELECT COUNT(*) FROM lead_calls WHERE outcome = 'abandoned'").await,
        1
    );
}

#[tokio::test]
async fn the_hours_count_when_it_is_dialed_and_the_number_is_left_for_later() {
    let caller = Caller::sign_in(POWER).await;
    let verbs = caller.step("ready_to_call").await;
    caller.world.sql("UPDATE campaigns SET start_hour = NULL").await.unwrap();
    says_and_hangs_up(&caller.go(redirect(&verbs[1..])).await, "may be called from");
    assert_eq!(
        caller.count("SELECT COUNT(*) FROM households WHERE id = 3 AND place = 'available'").await,
        1
    );
    assert_eq!(caller.count("SELECT COUNT(*) FROM lead_calls").await, 0);
}

#[tokio::test]
async fn after_a_failure_only_what_never_arrived_is_done() {
    let caller = Caller::sign_in(PREVIEW).await;
    let again = |code: &'static str| [("ErrorCode", code), ("ErrorUrl", "http://edge.test/x")];
    for step in
        ["callin_choice", "ready_to_call", "next_call", "gather_response", "submit_response"]
    {
        let verbs =
            ask_origin(&caller.world, &caller.path(step), &call_sid(CALL), &again("11100")).await;
        says_and_hangs_up(&verbs, "Something went wrong");
    }
    assert_eq!(caller.handed_out().await, 0);
    let verbs =
        ask_origin(&caller.world, &caller.path("ready_to_call"), &call_sid(CALL), &again("11205"))
            .await;
    assert!(said(&gather(&verbs[0]).prompts[0]).starts_with("Ann Lee"), "{verbs:?}");
    // Before a session: nothing is made.
    let pin = [("Digits", POWER), ("ErrorCode", "12100"), ("ErrorUrl", "http://edge.test/x")];
    let verbs = ask_origin(&caller.world, "/identify_caller?attempt=1", &call_sid(9), &pin).await;
    says_and_hangs_up(&verbs, "Something went wrong");
    assert_eq!(caller.count("SELECT COUNT(*) FROM caller_sessions").await, 1);
}

#[tokio::test]
async fn a_lead_who_comes_in_when_the_caller_has_just_left_is_let_go_and_counted() {
    let caller = Caller::sign_in(POWER).await;
    let (leg, id, after) = caller.call_next().await;
    lead_conference(&caller.answered(&leg, &id).await);
    // Star was pressed in the same moment: the lead hears music, and nobody.
    gather(&caller.go(&after).await[0]);
    let end = caller.twilio.changes(&leg, 1).await.unwrap();
    assert_eq!(end[0].form.get("Status"), Some("completed"));
    let abandoned = "SELECT COUNT(*) FROM lead_calls WHERE outcome = 'abandoned'";
    caller.world.until_count(abandoned, 1).await.unwrap();
    assert_eq!(
        caller.count("SELECT COUNT(*) FROM households WHERE id = 3 AND place = 'bin'").await,
        1
    );
    assert_eq!(caller.count("SELECT completed FROM leads WHERE id = 3").await, 0);
    // And the caller, who was asked about a talk that was none, goes on.
    let led = caller.twilio.changes(&call_sid(CALL), 1).await.unwrap();
    assert!(led[0].form.get("Url").unwrap().contains("/ready_to_call?"), "{led:?}");
}
