//! The lead's leg: the behavioural test cases T43 to T60, over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use holdline_tests::spoken::{ask, ask_origin, lead_conference, path_of, says_and_hangs_up};
use holdline_tests::world::{PUBLIC_URL, call_sid, form};
use holdline_tests::{Part, Recorder, World};
use twilio_sim::twiml::Verb;

const PAGE: &str = "page-of-web-preview";
const CALLER: i64 = 4;
const CALL: u64 = 1;
const HUMAN: [(&str, &str); 1] = [("AnsweredBy", "human")];
const MACHINE: [(&str, &str); 1] = [("AnsweredBy", "machine_start")];
const DETECT: &str = "UPDATE campaigns SET detect_machines = 1";
const LEAVE: &str =
    "UPDATE campaigns SET detect_machines = 1, use_recordings = 1, recording_id = 1";
const BY_HAND: &str = "UPDATE campaigns SET drop_by_hand = 1, recording_id = 1";

/// A web caller for whom a lead is being called.
struct Dialing {
    world: World,
    twilio: Recorder,
    /// Our name of the call.
    id: String,
    /// The lead's leg.
    leg: String,
}

// === impl Dialing ===

impl Dialing {
    async fn start() -> Dialing {
        Dialing::start_after(&[]).await
    }

    async fn start_after(changes: &[&str]) -> Dialing {
        let twilio = Recorder::default();
        let world = World::plan(Part::Real, Part::Real).recorded_by(&twilio).start().await.unwrap();
        for change in changes {
            world.sql(change).await.unwrap();
        }
        ask(&world, "/caller/start_calling", CALL, &[("session_key", PAGE)]).await;
        let (id, leg) = dial(&world, &twilio, 1).await;
        Dialing { world, twilio, id, leg }
    }

    async fn lead(&self, step: &str, more: &[(&str, &str)]) -> Vec<Verb> {
        ask(&self.world, &format!("/calls/{}/{step}", self.id), sid_number(&self.leg), more).await
    }

    /// A report of the leg's end.
    async fn ended(&self, status: &str, more: &[(&str, &str)]) {
        let always = [("CallStatus", status), ("To", "+15005550101")];
        let form = form(&self.leg, &[&always[..], more].concat());
        let path = format!("/calls/{}/call_ended", self.id);
        let answer = self.world.post_to(&self.world.origin, &path, &form).await.result.unwrap();
        assert_eq!(answer.status, 204);
    }

    async fn events(&self) -> Vec<(String, serde_json::Value)> {
        let path = format!("/inspect/events/{PAGE}");
        let events = self.world.inspect(&self.world.origin, &path).await.unwrap();
        let event = |event: &serde_json::Value| {
            (event["event"].as_str().unwrap().to_owned(), event["data"].clone())
        };
        events.as_array().unwrap().iter().map(event).collect()
    }

    async fn told(&self, name: &str) -> Vec<serde_json::Value> {
        let events = self.events().await;
        events.into_iter().filter(|(told, _)| told == name).map(|(_, data)| data).collect()
    }

    async fn status(&self) -> serde_json::Value {
        let shown = self.world.inspect(&self.world.origin, "/inspect/callers").await.unwrap();
        shown["callers"][0]["status"].clone()
    }

    async fn ringing(&self) -> serde_json::Value {
        let shown = self.world.inspect(&self.world.origin, "/inspect/campaigns").await.unwrap();
        shown[0]["ringing_lines"].clone()
    }

    async fn outcome(&self) -> String {
        let select = format!("SELECT COALESCE(outcome, '') FROM lead_calls WHERE id = {}", self.id);
        self.world.column(&select).await.unwrap().remove(0)
    }

    async fn place(&self) -> String {
        self.world.column("SELECT place FROM households WHERE id = 1").await.unwrap().remove(0)
    }

    /// Where the caller was led, in order.
    async fn led(&self, count: usize) -> Vec<String> {
        let led = self.twilio.changes(&call_sid(CALL), count).await.unwrap();
        led.iter().map(|asked| path_of(asked.form.get("Url").unwrap()).to_owned()).collect()
    }

    async fn nobody_was_led(&self) {
        let pending = "SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL";
        self.world.until_count(pending, 0).await.unwrap();
        let led = self.twilio.changes(&call_sid(CALL), 0).await.unwrap();
        assert!(led.is_empty(), "{led:?}");
    }
}

/// Orders the household that is offered to be dialed; our name of the call, and the leg.
async fn dial(world: &World, twilio: &Recorder, count: usize) -> (String, String) {
    let offered = "SELECT CONCAT(caller_sessions.id, ' ', phone) FROM households JOIN caller_sessions \
                   ON caller_sessions.household_id = households.id";
    let offered = world.column(offered).await.unwrap().remove(0);
    let (session, phone) = offered.split_once(' ').unwrap();
    let order = format!("{{\"session_id\": {session}, \"phone\": \"{phone}\"}}");
    let path = format!("/call_center/api/{CALLER}/call_voter");
    for _ in 0..2 {
        // The second is one too many, before anybody has answered.
        assert_eq!(world.order(&world.origin, &path, &order).await.unwrap(), 200);
    }
    let dials = twilio.dials(count).await.unwrap();
    let id = path_of(dials.last().unwrap().form.get("Url").unwrap()).split('/').nth(2).unwrap();
    let bound = format!("SELECT COUNT(*) FROM lead_calls WHERE id = {id} AND call_sid IS NOT NULL");
    world.until_count(&bound, 1).await.unwrap();
    let leg = format!("SELECT call_sid FROM lead_calls WHERE id = {id}");
    (id.to_owned(), world.column(&leg).await.unwrap().remove(0))
}

/// The number of a CallSid.
fn sid_number(sid: &str) -> u64 {
    u64::from_str_radix(&sid[2..], 16).unwrap()
}

#[tokio::test]
async fn t43_a_person_is_put_through_once_and_for_all() {
    let lead = Dialing::start().await;
    assert_eq!(lead.ringing().await, 1);
    let verbs = lead.lead("incoming", &HUMAN).await;
    let (dial, conference) = lead_conference(&verbs);
    assert_eq!((conference.room.as_str(), dial.record), (PAGE, false));
    let after = path_of(&dial.action.as_ref().unwrap().url).to_owned();
    assert_eq!(after, format!("/calls/{}/disconnected", lead.id));
    assert_eq!((lead.status().await, lead.ringing().await), ("On call".into(), 0.into()));
    let told = lead.told("voter_connected").await;
    assert_eq!(told[0]["call_id"].to_string(), lead.id);
    // Again, and by another name of the same thing: the same, and nobody is hung up on.
    assert_eq!(lead.lead("incoming", &HUMAN).await, verbs);
    assert_eq!(lead.lead("incoming", &MACHINE).await, verbs);
    let unnamed = ask(&lead.world, "/calls/0/incoming", sid_number(&lead.leg), &HUMAN).await;
    assert_eq!(unnamed, verbs);
    assert_eq!(lead.told("voter_connected").await.len(), 1);
}

#[tokio::test]
async fn t44_talks_are_recorded_where_the_account_says_so() {
    let lead = Dialing::start_after(&["UPDATE accounts SET record_calls = 1"]).await;
    assert!(lead_conference(&lead.lead("incoming", &HUMAN).await).0.record);
    let recording = [("RecordingUrl", "https://api.twilio.com/r"), ("RecordingDuration", "12")];
    lead.lead("disconnected", &recording).await;
    let kept =
        "SELECT COUNT(*) FROM lead_calls WHERE recording_s = 12 AND recording_url LIKE 'https%'";
    assert_eq!(lead.world.count(kept).await.unwrap(), 1);
}

#[tokio::test]
async fn t45_t46_t52_whoever_has_waited_longest_talks_first() {
    let twilio = Recorder::default();
    let world = World::plan(Part::Real, Part::Real).recorded_by(&twilio).start().await.unwrap();
    world.sql("UPDATE callers SET campaign_id = 3 WHERE id IN (4, 6)").await.unwrap();
    for (call, page) in [(1, "page-of-web-predictive"), (2, PAGE)] {
        ask(&world, "/caller/start_calling", call, &[("session_key", page)]).await;
    }
    for n in 1..=4 {
        let insert = format!(
            "INSERT INTO lead_calls (id, campaign_id, household_id, lead_id, phone, stage, created_ms, checked_ms) \
             VALUES ({n}, 3, 5, 5, '5005550104', 'ringing', 0, 9999999999999)"
        );
        world.sql(&insert).await.unwrap();
    }
    let answer = async |n: u64, by| ask(&world, &format!("/calls/{n}/incoming"), 100 + n, by).await;
    // A machine takes nobody's turn.
    assert_eq!(answer(1, &MACHINE).await, [Verb::Hangup]);
    for (n, page) in [(2, "page-of-web-predictive"), (3, PAGE)] {
        let verbs = answer(n, &HUMAN).await;
        assert_eq!(lead_conference(&verbs).1.room, page);
        assert_eq!(answer(n, &HUMAN).await, verbs);
    }
    assert_eq!(answer(4, &HUMAN).await, [Verb::Hangup]);
    let outcomes = world
        .column("SELECT COALESCE(outcome, 'talks') FROM lead_calls ORDER BY id")
        .await
        .unwrap();
    assert_eq!(outcomes, ["hangup or answering machine", "talks", "talks", "abandoned"]);
    let led = twilio.asked();
    assert!(led.iter().all(|asked| asked.method == http::Method::GET), "{led:?}");
}

#[tokio::test]
async fn t47_who_has_hung_up_meanwhile_leaves_nobody_on_the_line() {
    let lead = Dialing::start().await;
    let ended = form(&call_sid(CALL), &[("CallStatus", "completed")]);
    lead.world.post("/caller/end_session", &ended).await.result.unwrap();
    // The lead is let go before anybody picks up, if it can be.
    let end = lead.twilio.changes(&lead.leg, 1).await.unwrap();
    assert_eq!(end[0].form.get("Status"), Some("completed"));
    assert_eq!(lead.lead("incoming", &HUMAN).await, [Verb::Hangup]);
    assert_eq!((lead.outcome().await.as_str(), lead.place().await.as_str()), ("abandoned", "bin"));
}

#[tokio::test]
async fn t48_who_talks_with_another_lead_is_not_disturbed() {
    let lead = Dialing::start().await;
    let other = "INSERT INTO lead_calls (id, campaign_id, household_id, lead_id, session_id, phone, stage, \
                 created_ms, checked_ms) SELECT 1, 1, 2, 2, id, '5005550102', 'ringing', 0, 9999999999999 \
                 FROM caller_sessions";
    lead.world.sql(other).await.unwrap();
    lead_conference(&lead.lead("incoming", &HUMAN).await);
    assert_eq!(ask(&lead.world, "/calls/1/incoming", 77, &HUMAN).await, [Verb::Hangup]);
    assert_eq!(lead.status().await, "On call");
    let outcome = lead.world.column("SELECT outcome FROM lead_calls WHERE id = 1").await.unwrap();
    assert_eq!(outcome, ["abandoned"]);
}

#[tokio::test]
async fn t49_a_machine_is_hung_up_on_and_the_caller_goes_on() {
    let lead = Dialing::start_after(&[DETECT]).await;
    let dial = lead.twilio.dials(1).await.unwrap();
    assert_eq!(dial[0].form.get("MachineDetection"), Some("Enable"));
    assert_eq!(lead.lead("incoming", &MACHINE).await, [Verb::Hangup]);
    assert!(lead.led(1).await[0].starts_with("/caller/4/continue_conf?session_id="));
    assert_eq!(lead.outcome().await, "hangup or answering machine");
    assert_eq!(lead.place().await, "bin");
    // The end of the leg leads nobody a second time.
    lead.ended("completed", &MACHINE).await;
    let pending = "SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL";
    lead.world.until_count(pending, 0).await.unwrap();
    assert_eq!(lead.led(1).await.len(), 1);
}

#[tokio::test]
async fn t50_t51_a_message_is_left_once() {
    let lead = Dialing::start_after(&[LEAVE]).await;
    let dial = lead.twilio.dials(1).await.unwrap();
    assert_eq!(dial[0].form.get("MachineDetection"), Some("DetectMessageEnd"));
    assert_eq!(dial[0].form.get("Timeout"), Some("30"));
    let by = [("AnsweredBy", "machine_end_beep")];
    let verbs = lead.lead("incoming", &by).await;
    assert!(matches!(&verbs[..], [Verb::Play { .. }, Verb::Hangup]), "{verbs:?}");
    assert_eq!(lead.lead("incoming", &by).await, verbs);
    assert_eq!(lead.outcome().await, "message delivered");
    // All it was to get, it got.
    assert_eq!(lead.place().await, "completed");
    lead.ended("completed", &by).await;
    assert_eq!(lead.outcome().await, "message delivered");
    let again = Dialing::start_after(&[LEAVE, "UPDATE households SET message_left = 1"]).await;
    assert_eq!(again.lead("incoming", &by).await, [Verb::Hangup]);
}

#[tokio::test]
async fn t53_after_a_failure_that_may_have_arrived_nothing_is_counted() {
    let lead = Dialing::start().await;
    let failed =
        [("AnsweredBy", "human"), ("ErrorCode", "11100"), ("ErrorUrl", "http://edge.test/x")];
    let path = format!("/calls/{}/incoming", lead.id);
    assert_eq!(ask_origin(&lead.world, &path, &lead.leg, &failed).await, [Verb::Hangup]);
    assert_eq!((lead.ringing().await, lead.outcome().await.as_str()), (1.into(), ""));
    let arrived =
        [("AnsweredBy", "human"), ("ErrorCode", "11200"), ("ErrorUrl", "http://edge.test/x")];
    lead_conference(&ask_origin(&lead.world, &path, &lead.leg, &arrived).await);
    let metrics = lead.world.raw_to(
        lead.world.origin.wire.address(),
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    let metrics = metrics.await.unwrap();
    for line in [
        "holdline_origin_fallback_requests_total{code=\"11100\",done=\"no\",row=\"lead_answered\"} 1",
        "holdline_origin_fallback_requests_total{code=\"11200\",done=\"yes\",row=\"lead_answered\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn t54_when_the_lead_has_gone_the_caller_writes() {
    let lead = Dialing::start().await;
    // Not before there was anybody to go.
    assert_eq!(lead.lead("disconnected", &[]).await, [Verb::Hangup]);
    assert_eq!(lead.status().await, "On hold");
    lead.lead("incoming", &HUMAN).await;
    for _ in 0..2 {
        assert_eq!(lead.lead("disconnected", &[]).await, [Verb::Hangup]);
    }
    assert_eq!(lead.status().await, "Wrap up");
    assert_eq!(lead.told("voter_disconnected").await.len(), 1);
}

#[tokio::test]
async fn a_leg_whose_last_document_failed_does_not_go_back_into_the_room() {
    let lead = Dialing::start().await;
    lead.lead("incoming", &HUMAN).await;
    let failed = format!("{PUBLIC_URL}/calls/{}/disconnected", lead.id);
    let more = [("CallStatus", "in-progress"), ("ErrorCode", "11200"), ("ErrorUrl", &*failed)];
    assert_eq!(lead.lead("incoming", &more).await, [Verb::Hangup]);
    assert_eq!(lead.told("voter_disconnected").await.len(), 1);
    assert_eq!(lead.status().await, "Wrap up");
}

#[tokio::test]
async fn an_order_that_comes_when_calling_is_closed_leads_the_caller_to_the_reason() {
    let twilio = Recorder::default();
    let world = World::plan(Part::Real, Part::Real).recorded_by(&twilio).start().await.unwrap();
    ask(&world, "/caller/start_calling", CALL, &[("session_key", PAGE)]).await;
    world.sql("UPDATE accounts SET minutes_allowed = 0").await.unwrap();
    let phone =
        world.column("SELECT phone FROM households WHERE place = 'presented'").await.unwrap();
    let session =
        world.column("SELECT CONCAT(id, '') FROM caller_sessions").await.unwrap().remove(0);
    let order = format!("{{\"session_id\": {session}, \"phone\": \"{}\"}}", phone[0]);
    let path = format!("/call_center/api/{CALLER}/call_voter");
    assert_eq!(world.order(&world.origin, &path, &order).await.unwrap(), 200);
    let led = twilio.changes(&call_sid(CALL), 1).await.unwrap();
    let to = path_of(led[0].form.get("Url").unwrap()).to_owned();
    assert!(to.ends_with("/dialing_prohibited"), "{to}");
    says_and_hangs_up(&ask(&world, &to, CALL, &[]).await, "no calling credit");
    assert!(twilio.dials(0).await.unwrap().is_empty());
    let available = "SELECT COUNT(*) FROM households WHERE place = 'presented'";
    assert_eq!(world.count(available).await.unwrap(), 0);
}

#[tokio::test]
async fn t55_whoever_was_not_reached_is_put_back_and_the_caller_goes_on() {
    for (status, outcome) in
        [("busy", "busy"), ("no-answer", "no answer"), ("canceled", "cancelled")]
    {
        let lead = Dialing::start().await;
        lead.ended(status, &[]).await;
        assert_eq!(lead.ringing().await, 0);
        assert_eq!(lead.told("call_ended").await[0]["status"], status);
        assert!(lead.led(1).await[0].starts_with("/caller/4/continue_conf?"));
        assert_eq!((lead.outcome().await.as_str(), lead.place().await.as_str()), (outcome, "bin"));
        // Once, however often it is told.
        lead.ended(status, &[]).await;
        assert_eq!(lead.told("call_ended").await.len(), 1);
        let pending = "SELECT COUNT(*) FROM outbox WHERE done_ms IS NULL";
        lead.world.until_count(pending, 0).await.unwrap();
        assert_eq!(lead.led(1).await.len(), 1);
    }
}

#[tokio::test]
async fn t55_a_machine_that_twilio_has_hung_up_on_is_no_answer_either() {
    let lead = Dialing::start_after(&[DETECT]).await;
    lead.ended("completed", &MACHINE).await;
    assert_eq!(lead.outcome().await, "hangup or answering machine");
    assert_eq!(lead.led(1).await.len(), 1);
}

#[tokio::test]
async fn t56_in_a_predictive_campaign_nobody_is_led() {
    let predictive = "UPDATE campaigns SET mode = 'predictive' WHERE id = 1";
    let lead = Dialing::start().await;
    lead.world.sql(predictive).await.unwrap();
    lead.ended("no-answer", &[]).await;
    assert_eq!(lead.ringing().await, 0);
    lead.nobody_was_led().await;
}

#[tokio::test]
async fn t57_the_end_of_a_talk_leads_nobody() {
    let lead = Dialing::start().await;
    lead.lead("incoming", &HUMAN).await;
    lead.ended("completed", &[("CallDuration", "30")]).await;
    assert_eq!((lead.ringing().await, lead.outcome().await.as_str()), (0.into(), "completed"));
    // The safety net: whoever was not told otherwise that the lead has gone.
    assert_eq!(lead.status().await, "Wrap up");
    lead.nobody_was_led().await;
}

#[tokio::test]
async fn t58_a_number_that_cannot_be_called_is_never_offered_again() {
    let mut lead = Dialing::start().await;
    lead.ended("failed", &[]).await;
    assert_eq!((lead.outcome().await.as_str(), lead.place().await.as_str()), ("failed", "failed"));
    lead.led(1).await;
    // Recycling, which is done at the start, takes what rests, and leaves what failed.
    let rests =
        "UPDATE households SET score = 0, place = CASE WHEN id = 3 THEN 'bin' ELSE place END";
    lead.world.sql(rests).await.unwrap();
    lead.world.origin.kill().await.unwrap();
    lead.world.restart_origin().await.unwrap();
    let recycled = "SELECT COUNT(*) FROM households WHERE id = 3 AND place = 'available'";
    lead.world.until_count(recycled, 1).await.unwrap();
    assert_eq!(lead.place().await, "failed");
}

#[tokio::test]
async fn a_number_that_twilio_refuses_is_never_offered_again_and_the_account_is_no_number() {
    for ((status, code), place) in
        [((400, 21211), "failed"), ((401, 20003), "bin"), ((400, 21212), "bin")]
    {
        let twilio = Recorder::default();
        let world = World::plan(Part::Real, Part::Real).recorded_by(&twilio).start().await.unwrap();
        ask(&world, "/caller/start_calling", CALL, &[("session_key", PAGE)]).await;
        twilio.refuse(Some((status, code)));
        let session = world.count("SELECT id FROM caller_sessions").await.unwrap();
        let order = format!("{{\"session_id\": {session}, \"phone\": \"5005550101\"}}");
        let path = format!("/call_center/api/{CALLER}/call_voter");
        assert_eq!(world.order(&world.origin, &path, &order).await.unwrap(), 200);
        twilio.dials(1).await.unwrap();
        twilio.refuse(None);
        twilio.changes(&call_sid(CALL), 1).await.unwrap();
        let found = "SELECT place FROM households WHERE id = 1";
        assert_eq!(world.column(found).await.unwrap(), [place], "{code}");
        let outcome = world.column("SELECT outcome FROM lead_calls").await.unwrap();
        assert_eq!(outcome, ["failed"]);
    }
}

#[tokio::test]
async fn t59_a_message_that_the_caller_leaves() {
    let lead = Dialing::start_after(&[BY_HAND]).await;
    lead.lead("incoming", &HUMAN).await;
    let path = format!("/call_center/api/{}/drop_message", lead.leg);
    assert_eq!(lead.world.order(&lead.world.origin, &path, "").await.unwrap(), 200);
    let led = lead.twilio.changes(&lead.leg, 1).await.unwrap();
    let url = path_of(led[0].form.get("Url").unwrap()).to_owned();
    assert_eq!(url, format!("/calls/{}/play_message", lead.id));
    let verbs = lead.lead("play_message", &[]).await;
    assert!(matches!(&verbs[..], [Verb::Play { .. }, Verb::Hangup]), "{verbs:?}");
    assert_eq!(lead.told("message_drop_success").await.len(), 1);
    assert_eq!(lead.outcome().await, "message delivered");
    lead.ended("completed", &[]).await;
    assert_eq!(lead.outcome().await, "message delivered");
}

#[tokio::test]
async fn t60_a_message_that_cannot_be_left() {
    let lead = Dialing::start_after(&[BY_HAND]).await;
    lead.lead("incoming", &HUMAN).await;
    lead.twilio.refuse(Some((400, 21220)));
    let path = format!("/call_center/api/{}/drop_message", lead.leg);
    assert_eq!(lead.world.order(&lead.world.origin, &path, "").await.unwrap(), 200);
    let said = lead.twilio.changes(&call_sid(CALL), 1).await.unwrap();
    let url = path_of(said[0].form.get("Url").unwrap());
    assert!(url.starts_with("/caller/4/play_message_error?"), "{url}");
    let told = lead.told("message_drop_error").await;
    assert!(told[0]["response"].as_str().unwrap().contains("21220"), "{told:?}");
    let verbs = ask(&lead.world, url, CALL, &[]).await;
    assert!(matches!(&verbs[..], [Verb::Say { .. }, Verb::Pause(600)]), "{verbs:?}");
}
