//! The tables of the call logic, a line for each stage and event.

use holdline_twilio::verbs::{Response, Verb};
use jiff::Timestamp;

use super::samples::{campaign, household, links, session, state};
use super::state::{Answer, CallStage, Decision, LeadCall, Mode, Session, Stage};
use super::step::{
    Context, Effect, Event, LegEnd, MovedTo, Placed, Reason, State, Step, Supply, step,
};

const NEW_CALL: i64 = 77;
const CALL: i64 = 50;

/// A state in which everything is there: household 1 is offered or called, by call 50.
fn scene(mode: Mode, phones_only: bool, stage: Stage) -> State {
    let mut scene = state(mode, session(stage, phones_only));
    let caller = scene.session.as_mut().unwrap();
    let called = matches!(
        stage,
        Stage::Dialing | Stage::Talking | Stage::Parting | Stage::Survey | Stage::WrapUp
    );
    if called || stage == Stage::Offered {
        caller.household = Some(1);
        scene.household = Some(household(1));
    }
    if called {
        caller.call = Some(CALL);
        scene.call = Some(call(&scene, stage));
    }
    scene
}

fn call(scene: &State, stage: Stage) -> LeadCall {
    let mut call = LeadCall::new(CALL, 3, scene.household.as_ref().unwrap(), Some(11));
    call.call_sid = Some("CA50".into());
    call.stage = CallStage::Ringing;
    if stage != Stage::Dialing {
        (call.stage, call.decision) = (CallStage::Connected, Some(Decision::Connect));
    }
    call
}

fn take(state: State, event: &Event) -> Step {
    let links = links();
    let context = Context { links: &links, now: Timestamp::UNIX_EPOCH, fresh_id: NEW_CALL };
    match step(state.clone(), event, Supply::NotAsked, context) {
        Ok(step) => step,
        Err(_) => step(state, event, Supply::Number(household(2)), context).unwrap(),
    }
}

/// What a step came to, in a line: the stage of the session, what is told, what is to be done.
fn line(step: &Step) -> String {
    let stage =
        step.state.session.as_ref().map_or("none", |session: &Session| session.stage.name());
    let effects: Vec<String> = step.effects.iter().map(effect).collect();
    format!("{stage} | {} | {}", told(&step.document), effects.join(", "))
}

fn told(document: &Response) -> String {
    let verb = |verb: &Verb| match verb {
        Verb::Say(text) => text.split(['.', ',']).next().unwrap_or_default().to_owned(),
        Verb::Play(_) => "plays".into(),
        Verb::PlayDigits(_) => "tones".into(),
        Verb::Pause(seconds) => format!("pauses {seconds}"),
        Verb::Gather(gather) => {
            format!("asks {:?}", gather.prompts[0].split('.').next().unwrap_or_default())
        }
        Verb::Redirect(url) => {
            let path = url.split('?').next().unwrap_or_default();
            format!("to {}", path.rsplit('/').next().unwrap_or_default())
        }
        Verb::Conference(conference) => format!("conference {}", conference.room),
        Verb::Hangup => "hangs up".into(),
    };
    document.verbs().iter().map(verb).collect::<Vec<_>>().join(", ")
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Tell { name, .. } => format!("tells {name}"),
        Effect::Keep { digits, .. } => format!("keeps {digits}"),
        Effect::Dial(id) => format!("dials {id}"),
        Effect::HangUp(id) => format!("hangs up {id}"),
        Effect::LetGo(id) => format!("lets go {id}"),
        Effect::EndCaller(_) => "ends caller".into(),
        Effect::MoveOn(_) => "moves on".into(),
        Effect::Part(_) => "parts".into(),
        Effect::PlayMessage(_) => "plays message".into(),
        Effect::SayMessageFailed(_) => "says failed".into(),
    }
}

fn decide(digits: Option<&str>) -> Event {
    Event::Decide { phone: Some("5005550101".into()), digits: digits.map(str::to_owned), asked: 0 }
}

fn question(number: usize) -> Event {
    Event::Question { call: Some(CALL), number, silent: false }
}

fn keyed(digits: &str) -> Event {
    Event::Keyed {
        call: Some(CALL),
        question_id: 1,
        number: 0,
        silent: false,
        digits: digits.into(),
    }
}

fn answered(by: &str) -> Event {
    Event::Answered { by: Some(by.into()), in_progress: true, call_sid: "CA50".into() }
}

fn ended(status: &str) -> Event {
    Event::LegEnded(LegEnd {
        call_sid: Some("CA50".into()),
        status: status.into(),
        answered_by: None,
        duration_s: Some(3),
        to: "+15005550101".into(),
    })
}

#[track_caller]
fn check(mode: Mode, phones_only: bool, stage: Stage, event: &Event, expect: &str) {
    let before = scene(mode, phones_only, stage);
    assert_eq!(line(&take(before, event)), expect, "{stage:?}, {event:?}");
}

#[test]
fn phones_only() {
    const READY: Event = Event::Ready { ends: true };
    let menu = |keys: &str| Event::Menu(keys.into());
    let (preview, power, predictive) = (Mode::Preview, Mode::Power, Mode::Predictive);
    for (mode, stage, event, expect) in [
        (preview, Stage::Menu, menu(""), "menu | asks \"To take calls, press star\" | "),
        (preview, Stage::Menu, menu("#"), "menu | You will wait on music, to callin_choice | "),
        (preview, Stage::Menu, menu("*"), "offered | asks \"Ann Lee\" | "),
        (
            power,
            Stage::Menu,
            menu("*"),
            "offered | Ann Lee, to conference_started_phones_only_power | ",
        ),
        (predictive, Stage::Menu, menu("*"), "waiting | conference key | "),
        (preview, Stage::Offered, decide(Some("*")), "dialing | conference key | dials 77"),
        (preview, Stage::Offered, decide(Some("#")), "idle | to ready_to_call | "),
        (
            preview,
            Stage::Offered,
            decide(Some("")),
            "offered | asks \"Star to call, pound to pass\" | ",
        ),
        (preview, Stage::Idle, decide(Some("#")), "idle | to ready_to_call | "),
        (preview, Stage::Dialing, decide(Some("#")), "dialing | conference key | "),
        (power, Stage::Offered, decide(None), "dialing | conference key | dials 77"),
        (power, Stage::Dialing, decide(None), "dialing | conference key | "),
        (
            power,
            Stage::Idle,
            READY,
            "offered | Ann Lee, to conference_started_phones_only_power | ",
        ),
        (
            power,
            Stage::Offered,
            READY,
            "offered | Ann Lee, to conference_started_phones_only_power | ",
        ),
        (power, Stage::Dialing, READY, "dialing | conference key | "),
        (power, Stage::Talking, READY, "survey | to gather_response | lets go 50"),
        (power, Stage::Parting, READY, "survey | to gather_response | "),
        (
            power,
            Stage::Survey,
            READY,
            "offered | Ann Lee, to conference_started_phones_only_power | ",
        ),
        (power, Stage::Ended, READY, "ended | hangs up | "),
        (power, Stage::Talking, question(0), "survey | asks \"How was it?\" | lets go 50"),
        (power, Stage::Parting, question(0), "survey | asks \"How was it?\" | "),
        (
            power,
            Stage::Dialing,
            Event::Question { call: Some(49), number: 0, silent: false },
            "dialing | to next_call | ",
        ),
        (power, Stage::Survey, question(1), "survey | asks \"Will they come?\" | "),
        (power, Stage::Survey, question(2), "idle | to next_call | "),
        (power, Stage::Dialing, question(0), "idle | to next_call | hangs up 50"),
        (power, Stage::Idle, question(0), "idle | to next_call | "),
        (
            predictive,
            Stage::Waiting,
            Event::Question { call: None, number: 0, silent: false },
            "idle | to next_call | ",
        ),
        (power, Stage::Survey, keyed("1"), "survey | to gather_response | keeps 1"),
        (power, Stage::Survey, keyed("7"), "survey | to gather_response | keeps 7"),
        (power, Stage::Survey, keyed("999"), "idle | to next_call | "),
        (power, Stage::Idle, keyed("1"), "idle | to next_call | keeps 1"),
        (power, Stage::Ended, keyed("1"), "ended | hangs up | keeps 1"),
        (
            power,
            Stage::Dialing,
            Event::SessionEnded { duration_s: None },
            "ended | hangs up | hangs up 50",
        ),
        (
            power,
            Stage::Talking,
            Event::SessionEnded { duration_s: None },
            "ended | hangs up | hangs up 50",
        ),
        (power, Stage::Idle, Event::Silent, "idle | hangs up | moves on"),
        (power, Stage::Parting, Event::Silent, "parting | hangs up | parts"),
        (power, Stage::Survey, Event::Silent, "survey | hangs up | "),
        (
            power,
            Stage::Idle,
            Event::Prohibited(Reason::Gate),
            "ended | Something went wrong on our side, hangs up | ",
        ),
    ] {
        check(mode, true, stage, &event, expect);
    }
}

#[test]
fn web() {
    const GO_ON: Event = Event::Ready { ends: true };
    let pause = |over: bool| Event::Pause { turn: Some(2), over };
    let late = |over: bool| Event::Pause { turn: Some(1), over };
    let order = Event::DialOrdered { phone: "5005550101".into() };
    for (stage, event, expect) in [
        (Stage::Idle, GO_ON, "offered | conference key | tells conference_started"),
        (Stage::Offered, GO_ON, "offered | conference key | "),
        (Stage::Dialing, GO_ON, "dialing | conference key | "),
        (
            Stage::Talking,
            GO_ON,
            "wrap_up | Now record how the call went, pauses 600 | lets go 50, tells caller_wrapup_voice_hit",
        ),
        (Stage::WrapUp, GO_ON, "offered | conference key | tells conference_started"),
        (Stage::Offered, order.clone(), "dialing | conference key | tells calling_voter, dials 77"),
        (Stage::Dialing, order.clone(), "dialing | hangs up | "),
        (Stage::Talking, order, "talking | hangs up | "),
        (
            Stage::Talking,
            pause(false),
            "wrap_up | Now record how the call went, pauses 600 | lets go 50, tells caller_wrapup_voice_hit",
        ),
        (
            Stage::WrapUp,
            pause(false),
            "wrap_up | Now record how the call went, pauses 600 | tells caller_wrapup_voice_hit",
        ),
        (Stage::Idle, pause(false), "idle | to continue_conf | "),
        (Stage::Offered, pause(false), "offered | to continue_conf | "),
        (
            Stage::Dialing,
            pause(false),
            "idle | Now record how the call went, pauses 600 | hangs up 50, moves on",
        ),
        (Stage::Dialing, late(false), "dialing | to continue_conf | "),
        (Stage::Talking, late(false), "talking | to continue_conf | "),
        (Stage::Talking, late(true), "ended | hangs up | hangs up 50, tells caller_disconnected"),
        (Stage::Talking, pause(true), "ended | hangs up | hangs up 50, tells caller_disconnected"),
        (
            Stage::Talking,
            Event::SessionEnded { duration_s: None },
            "ended | hangs up | hangs up 50, tells caller_disconnected",
        ),
        (
            Stage::WrapUp,
            Event::Replaced,
            "ended | hangs up | hangs up 50, tells caller_disconnected, ends caller",
        ),
        (Stage::Idle, Event::Silent, "idle | hangs up | moves on"),
        (Stage::Ended, Event::SessionEnded { duration_s: None }, "ended | hangs up | "),
        (
            Stage::WrapUp,
            Event::MessageFailed { call: CALL, why: "no".into() },
            "wrap_up | hangs up | tells message_drop_error, says failed",
        ),
    ] {
        check(Mode::Power, false, stage, &event, expect);
    }
}

#[test]
fn leads() {
    let disconnected = Event::Disconnected { recording: None };
    for (phones_only, stage, event, expect) in [
        (
            false,
            Stage::Dialing,
            answered("human"),
            "talking | conference key | tells voter_connected",
        ),
        (true, Stage::Dialing, answered("human"), "talking | conference key | "),
        (true, Stage::Talking, answered("human"), "talking | conference key | "),
        (true, Stage::Talking, answered("machine_start"), "talking | conference key | "),
        (true, Stage::Dialing, answered("machine_start"), "idle | hangs up | moves on"),
        (true, Stage::Dialing, answered("fax"), "idle | hangs up | moves on"),
        (true, Stage::Dialing, answered("unknown"), "talking | conference key | "),
        (
            false,
            Stage::Talking,
            disconnected.clone(),
            "wrap_up | hangs up | tells voter_disconnected",
        ),
        (true, Stage::Talking, disconnected.clone(), "parting | hangs up | parts"),
        (true, Stage::Dialing, disconnected.clone(), "dialing | hangs up | "),
        (true, Stage::Survey, disconnected, "survey | hangs up | "),
        (true, Stage::Dialing, ended("busy"), "idle | hangs up | moves on"),
        (false, Stage::Dialing, ended("busy"), "idle | hangs up | tells call_ended, moves on"),
        (true, Stage::Talking, ended("completed"), "parting | hangs up | parts"),
        (true, Stage::Survey, ended("completed"), "survey | hangs up | "),
        (
            true,
            Stage::Dialing,
            Event::Placed(Placed::Taken("CA50".into())),
            "dialing | hangs up | ",
        ),
        (true, Stage::Dialing, Event::HungUpOn, "idle | hangs up | moves on"),
        (true, Stage::Talking, Event::HungUpOn, "idle | hangs up | moves on"),
        (true, Stage::Survey, Event::HungUpOn, "idle | hangs up | moves on"),
        (true, Stage::Survey, Event::LeftAlone, "idle | hangs up | moves on"),
        (false, Stage::WrapUp, Event::LeftAlone, "wrap_up | hangs up | "),
        (false, Stage::Talking, Event::MessageOrdered, "talking | hangs up | "),
        (false, Stage::Dialing, Event::MessageOrdered, "dialing | hangs up | "),
    ] {
        check(Mode::Power, phones_only, stage, &event, expect);
    }
}

#[test]
fn a_message_is_left_where_that_is_allowed_and_once() {
    let mut before = scene(Mode::Power, false, Stage::Talking);
    before.campaign.manual_message = Some("http://edge.test/message".into());
    let after = take(before.clone(), &Event::MessageOrdered);
    assert_eq!(line(&after), "talking | hangs up | plays message");
    let played = take(before, &Event::MessagePlayed);
    assert_eq!(
        line(&played),
        "wrap_up | plays, hangs up | tells voter_disconnected, tells message_drop_success"
    );
    assert_eq!(line(&take(played.state, &Event::MessageOrdered)), "wrap_up | hangs up | ");
}

#[test]
fn a_lead_who_was_left_alone_was_not_talked_to() {
    let after = take(scene(Mode::Power, true, Stage::Survey), &Event::LeftAlone).state;
    let (call, household) = (after.call.unwrap(), after.household.unwrap());
    assert_eq!((call.outcome.unwrap().name(), household.place.name()), ("abandoned", "bin"));
    // Who was asked something after all was there.
    let mut keyed = scene(Mode::Power, true, Stage::Survey);
    keyed.answers = vec![Answer { question_id: 1, digits: "1".into() }];
    assert_eq!(line(&take(keyed, &Event::LeftAlone)), "survey | hangs up | ");
}

#[test]
fn a_message_is_heard_to_its_end() {
    let mut before = scene(Mode::Power, false, Stage::WrapUp);
    before.call.as_mut().unwrap().outcome = Some(super::state::Outcome::Delivered);
    let after = take(before, &Event::SessionEnded { duration_s: None });
    assert_eq!(line(&after), "ended | hangs up | tells caller_disconnected");
}

#[test]
fn a_lead_is_told_again_only_while_the_caller_is_there() {
    let there = scene(Mode::Power, true, Stage::Talking);
    let mut gone = there.clone();
    gone.session.as_mut().unwrap().free();
    assert_eq!(line(&take(there, &answered("human"))), "talking | conference key | ");
    assert_eq!(line(&take(gone, &answered("human"))), "idle | hangs up | ");
    // Nor into a room that the caller has left to answer questions: nobody talked with them.
    let asked = take(scene(Mode::Power, true, Stage::Survey), &answered("human"));
    assert_eq!(line(&asked), "idle | hangs up | moves on");
    assert_eq!(asked.state.call.unwrap().outcome.unwrap().name(), "abandoned");
}

#[test]
fn who_could_not_be_asked_is_called_again() {
    let ready = Event::Ready { ends: false };
    let mut unasked = scene(Mode::Power, true, Stage::Survey);
    unasked.answers.clear();
    let after = take(unasked, &ready).state;
    let before = after.household_before.unwrap();
    assert_eq!((before.place.name(), before.leads[0].completed), ("presented", false));
    let mut asked = scene(Mode::Power, true, Stage::Survey);
    asked.answers = vec![Answer { question_id: 1, digits: "1".into() }];
    let before = take(asked, &ready).state.household_before.unwrap();
    assert_eq!((before.place.name(), before.leads[0].completed), ("completed", true));
}

#[test]
fn nobody_is_called_for_a_caller_who_is_not_there() {
    // No key was pressed in the whole survey: back to the menu, and the lead is not done with.
    let silent = scene(Mode::Power, true, Stage::Survey);
    let event = Event::Question { call: Some(CALL), number: 2, silent: true };
    let after = take(silent, &event);
    assert_eq!(line(&after), "idle | to callin_choice | ");
    assert!(!after.state.household.unwrap().leads[0].completed);
    // Nor is somebody offered for ever to whom nobody says yes or no.
    let offered = scene(Mode::Preview, true, Stage::Offered);
    let nothing = |asked| Event::Decide { phone: None, digits: Some(String::new()), asked };
    let again = take(offered.clone(), &nothing(5));
    assert_eq!(line(&again), "offered | asks \"Star to call, pound to pass\" | ");
    let enough = take(offered, &nothing(6));
    assert_eq!(line(&enough), "idle | to callin_choice | ");
    assert_eq!(enough.state.household.unwrap().place.name(), "available");
}

#[test]
fn how_long_a_leg_was_up_is_kept_however_it_ended() {
    for stage in [Stage::Talking, Stage::Ended] {
        let ended = Event::SessionEnded { duration_s: Some(61) };
        let session = take(scene(Mode::Power, true, stage), &ended).state.session.unwrap();
        assert_eq!((session.stage, session.duration_s), (Stage::Ended, Some(61)));
    }
}

#[test]
fn what_was_blocked_meanwhile_is_not_called() {
    let mut before = scene(Mode::Preview, true, Stage::Offered);
    before.household.as_mut().unwrap().place = super::state::Place::Blocked;
    assert_eq!(line(&take(before, &decide(Some("*")))), "idle | to ready_to_call | ");
}

#[test]
fn an_answer_that_comes_late_counts() {
    let mut before = scene(Mode::Power, true, Stage::Survey);
    before.session.as_mut().unwrap().free();
    let event = Event::Keyed {
        call: Some(CALL),
        question_id: 2,
        number: 1,
        silent: false,
        digits: "2".into(),
    };
    let after = take(before, &event);
    assert_eq!(line(&after), "idle | to next_call | keeps 2");
    let household = after.state.household.unwrap();
    assert_eq!((household.place.name(), household.status.as_str()), ("bin", "retry"));
}

#[test]
fn a_call_that_is_refused_before_it_is_made() {
    for (placed, place) in [
        (Placed::NumberRefused, "failed"),
        (Placed::Refused, "bin"),
        (Placed::NotSent, "available"),
    ] {
        let mut before = scene(Mode::Power, true, Stage::Dialing);
        before.call.as_mut().unwrap().stage = CallStage::Placing;
        let after = take(before, &Event::Placed(placed.clone()));
        assert_eq!(line(&after), "idle | hangs up | moves on", "{placed:?}");
        assert_eq!(after.state.household.unwrap().place.name(), place, "{placed:?}");
    }
}

#[test]
fn a_call_that_was_given_up_before_twilio_took_it_is_ended() {
    let mut before = scene(Mode::Power, true, Stage::Dialing);
    before.call.as_mut().unwrap().stage = CallStage::Placing;
    let given_up = take(before, &Event::SessionEnded { duration_s: None }).state;
    let after = take(given_up, &Event::Placed(Placed::Taken("CA50".into())));
    assert_eq!(line(&after), "ended | hangs up | hangs up 50");
}

#[test]
fn a_call_that_is_found_out_too_late_is_ended_before_anybody_picks_up() {
    let mut before = scene(Mode::Power, true, Stage::Dialing);
    before.call.as_mut().unwrap().stage = CallStage::Placing;
    before.call.as_mut().unwrap().call_sid = None;
    let end = LegEnd {
        call_sid: None,
        status: "canceled".into(),
        answered_by: None,
        duration_s: None,
        to: String::new(),
    };
    let gone = take(before, &Event::LegEnded(end)).state;
    let after = take(gone, &Event::Placed(Placed::Taken("CA50".into())));
    assert_eq!(line(&after), "idle | hangs up | hangs up 50");
    let after = take(after.state, &answered("human"));
    assert_eq!(line(&after), "idle | hangs up | ");
}

#[test]
fn answers_decide_who_is_called_again() {
    let answer = |question_id: i64, digits: &str| Answer { question_id, digits: digits.into() };
    for (answers, place, status) in [
        (vec![answer(1, "1"), answer(2, "1")], "completed", "completed"),
        (vec![answer(1, "1"), answer(2, "2")], "bin", "retry"),
        (vec![answer(1, "1"), answer(2, "9")], "completed", "completed"),
        (vec![], "completed", "completed"),
    ] {
        let mut before = scene(Mode::Power, true, Stage::Survey);
        before.answers.clone_from(&answers);
        let household = take(before, &question(2)).state.household.unwrap();
        let found = (household.place.name(), household.leads[0].status.as_str());
        assert_eq!(found, (place, status), "{answers:?}");
    }
    // Somebody else of the household is still to be called.
    let mut before = scene(Mode::Power, true, Stage::Survey);
    let mut other = household(4).leads.remove(0);
    other.first_name = Some("Bo".into());
    before.household.as_mut().unwrap().leads.push(other);
    let after = take(before, &question(2)).state.household.unwrap();
    assert_eq!((after.place.name(), after.next_lead().unwrap().id), ("bin", 40));
}

#[test]
fn a_closed_gate_is_announced_wherever_it_is_met() {
    let mut closed = scene(Mode::Power, true, Stage::Offered);
    closed.campaign.quota.minutes_left = 0;
    let after = take(closed.clone(), &decide(None));
    assert_eq!(line(&after), "ended | The account has no calling credit left, hangs up | ");
    assert_eq!(after.state.household.unwrap().place.name(), "available");
    closed.session.as_mut().unwrap().stage = Stage::Idle;
    let after = take(closed.clone(), &Event::Ready { ends: false });
    assert_eq!(line(&after), "idle | The account has no calling credit left, hangs up | ");
    // A browser's order has nobody to announce it to: the caller is led to where it is said.
    let mut closed_page = scene(Mode::Power, false, Stage::Offered);
    closed_page.campaign.quota.minutes_left = 0;
    let order = Event::DialOrdered { phone: "5005550101".into() };
    let after = take(closed_page, &order);
    assert_eq!(line(&after), "idle | hangs up | moves on");
    assert_eq!(after.state.household.unwrap().place.name(), "available");
    // Whoever was given no campaign, or is not to call any more, is told so.
    let mut put_off = scene(Mode::Power, true, Stage::Idle);
    put_off.moved_to = MovedTo::Nothing;
    let after = take(put_off, &Event::Ready { ends: true });
    assert_eq!(line(&after), "ended | You are signed in, hangs up | ");
    // Of several reasons the most important one.
    closed.campaign = super::state::Campaign { active: false, ..campaign(Mode::Power) };
    let after = take(closed, &Event::Ready { ends: true });
    assert_eq!(line(&after), "ended | You are signed in, hangs up | ");
}

#[test]
fn who_was_moved_goes_on_in_the_other_campaign() {
    let mut moved = scene(Mode::Preview, false, Stage::WrapUp);
    moved.moved_to =
        MovedTo::Campaign(super::state::Campaign { id: 9, ..campaign(Mode::Predictive) });
    let after = take(moved, &Event::Ready { ends: true });
    assert_eq!(line(&after), "waiting | conference key | tells caller_reassigned");
    assert_eq!(after.state.session.unwrap().campaign_id, 9);
}
