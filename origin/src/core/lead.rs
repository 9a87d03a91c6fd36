//! The call to a lead: what each event makes of it, and of the caller it is for.
//!
//! | stage | what leads on |
//! |---|---|
//! | placing | Twilio takes it: ringing. Twilio refuses: over |
//! | ringing | answered, and a caller is there: connected. Answered otherwise, or not at all: over |
//! | connected | the leg ends: over |

use holdline_twilio::verbs::Response;
use serde_json::json;

use super::documents;
use super::offer::shown;
use super::state::{CallStage, Decision, LeadCall, Mode, Outcome, Place, Question, Session, Stage};
use super::step::{Effect, Event, LegEnd, Placed, Run, State, Supply, Told, Want};

/// Takes a step that a lead's leg calls for. A leg that nobody knows is hung up on.
pub(super) fn step(run: &mut Run<'_>, event: &Event) -> Told {
    let Some(call) = run.state.call.clone() else { return Ok(run.hang_up()) };
    match event {
        Event::Answered { by, in_progress, call_sid } => {
            answered(run, &call, by.as_deref(), *in_progress, call_sid)
        }
        Event::Disconnected { recording } => Ok(disconnected(run, recording.as_ref())),
        Event::MessagePlayed => Ok(message_played(run)),
        Event::MessageOrdered => {
            let may = run.state.campaign.manual_message.is_some()
                && call.stage == CallStage::Connected
                && call.outcome != Some(Outcome::Delivered);
            if may {
                run.then(Effect::PlayMessage(call.id));
            }
            Ok(run.hang_up())
        }
        Event::LegEnded(end) => Ok(ended(run, &call, end)),
        Event::Placed(placed) => Ok(self::placed(run, &call, placed)),
        Event::HungUpOn => Ok(hung_up_on(run, &call)),
        Event::LeftAlone => Ok(left_alone(run, &call)),
        Event::AnswerCameLate => {
            dispose_again(&mut run.state);
            Ok(run.hang_up())
        }
        // Every other event is the caller's.
        _ => Ok(run.hang_up()),
    }
}

/// Whether that is Twilio's word for a machine: alone in the older detection, with what it was doing in
/// the newer one (`twilio.com/docs/voice/answering-machine-detection`).
pub fn is_machine(answered_by: Option<&str>) -> bool {
    answered_by.is_some_and(|by| by.starts_with("machine") || by == "fax")
}

/// Somebody, or something, picked up. It is decided once what becomes of that; a repetition is told the
/// same, because a lead who talks must not be hung up on.
fn answered(
    run: &mut Run<'_>,
    call: &LeadCall,
    by: Option<&str>,
    in_progress: bool,
    call_sid: &str,
) -> Told {
    if let Some(decision) = call.decision {
        let late = decision == Decision::Connect && call.stage != CallStage::Over;
        if late && caller_in_the_room(run, call).is_none() {
            // They were not told in time: the caller has left the room, and nobody talked with them.
            return Ok(left_alone(run, call));
        }
        return Ok(document(run, call, decision));
    }
    let human = in_progress && !is_machine(by);
    // What was under way when the leg ended can do nothing for it any more.
    let open = call.stage != CallStage::Over;
    if open && human && call.session.is_none() && run.state.campaign.mode == Mode::Predictive {
        match std::mem::replace(&mut run.supply, Supply::NotAsked) {
            Supply::NotAsked => return Err(Want::Caller(call.campaign_id)),
            Supply::Caller(mut session) => {
                (session.stage, session.call) = (Stage::Dialing, Some(call.id));
                session.household = Some(call.household_id);
                run.state.session = Some(session);
            }
            _ => {}
        }
    }
    let waits =
        run.state.session.as_ref().is_some_and(|session| {
            session.stage == Stage::Dialing && session.call == Some(call.id)
        });
    let decision = match (human, open && waits, open && message_to_leave(run)) {
        (true, true, _) => Decision::Connect,
        (true, false, _) => Decision::Abandon,
        (false, _, true) => Decision::Message,
        (false, _, false) => Decision::Machine,
    };
    if let Some(call) = &mut run.state.call {
        call.call_sid.get_or_insert_with(|| call_sid.to_owned());
        call.answered_by = by.map(str::to_owned);
        call.decision = Some(decision);
        if let (Decision::Connect, Some(session)) = (decision, &run.state.session) {
            (call.stage, call.session) = (CallStage::Connected, Some(session.id));
        } else if call.stage == CallStage::Placing {
            call.stage = CallStage::Ringing;
        }
    }
    match decision {
        Decision::Connect => connect(run, call),
        Decision::Abandon => run.settle(Outcome::Abandoned),
        Decision::Machine => {
            run.settle(Outcome::Machine);
            run.move_on();
        }
        Decision::Message => {
            if let Some(household) = &mut run.state.household {
                household.message_left = true;
            }
            run.settle(Outcome::Delivered);
            run.move_on();
        }
    }
    Ok(document(run, call, decision))
}

fn connect(run: &mut Run<'_>, call: &LeadCall) {
    if let Some(session) = &mut run.state.session {
        session.stage = Stage::Talking;
    }
    let dialer = run.state.campaign.mode;
    let mut data = json!({ "call_id": call.id, "call_sid": run.state.call.as_ref().and_then(|call| call.call_sid.clone()), "dialer": dialer.name() });
    match (dialer, &run.state.household) {
        (Mode::Predictive, household) => {
            data["household"] = household.as_ref().map(shown).unwrap_or_default();
            run.tell("voter_connected_dialer", data);
        }
        _ => run.tell("voter_connected", data),
    }
}

/// The caller whom this lead was put through to, unless they have left the room, or talk in it with
/// somebody else.
fn caller_in_the_room<'r>(run: &'r Run<'_>, call: &LeadCall) -> Option<&'r Session> {
    let is_there =
        |session: &&Session| session.stage == Stage::Talking && session.call == Some(call.id);
    run.state.session.as_ref().filter(is_there)
}

/// What the leg is told for what was decided.
fn document(run: &Run<'_>, call: &LeadCall, decision: Decision) -> Response {
    match (decision, caller_in_the_room(run, call), &run.state.campaign.message) {
        (Decision::Connect, Some(session), _) => documents::lead_conference(
            run.context.links,
            call.id,
            &session.key,
            run.state.campaign.record,
        ),
        (Decision::Message, _, Some(recording)) => documents::leave_message(recording),
        _ => documents::hang_up(),
    }
}

/// Whether the recording is to be left with a machine: once for each household.
fn message_to_leave(run: &Run<'_>) -> bool {
    run.state.campaign.message.is_some()
        && run.state.household.as_ref().is_some_and(|household| !household.message_left)
}

fn disconnected(run: &mut Run<'_>, recording: Option<&(String, i64)>) -> Response {
    if let (Some(call), Some(recording)) = (&mut run.state.call, recording) {
        call.recording = Some(recording.clone());
    }
    talk_is_over(run);
    documents::hang_up()
}

/// The lead is gone from the conference: whoever talked is asked how it went. Once: a caller who is done
/// with this call is left alone.
fn talk_is_over(run: &mut Run<'_>) {
    let call = run.state.call.as_ref().map(|call| call.id);
    let talks = |session: &&mut Session| {
        session.stage == Stage::Talking && call.is_some() && session.call == call
    };
    let Some(session) = run.state.session.as_mut().filter(talks) else { return };
    if session.phones_only {
        session.stage = Stage::Parting;
        let id = session.id;
        run.then(Effect::Part(id));
    } else {
        session.stage = Stage::WrapUp;
        run.tell("voter_disconnected", json!({}));
    }
}

fn message_played(run: &mut Run<'_>) -> Response {
    let Some(recording) = run.state.campaign.manual_message.clone() else {
        return documents::hang_up();
    };
    if let (Some(call), Some(household)) = (&mut run.state.call, &mut run.state.household) {
        call.outcome = Some(Outcome::Delivered);
        household.message_left = true;
    }
    talk_is_over(run);
    run.tell("message_drop_success", json!({}));
    documents::leave_message(&recording)
}

/// The leg is over. Whatever was decided about it stays.
fn ended(run: &mut Run<'_>, before: &LeadCall, end: &LegEnd) -> Response {
    if before.ended {
        return documents::hang_up();
    }
    if let Some(call) = &mut run.state.call {
        if let Some(sid) = &end.call_sid {
            call.call_sid.get_or_insert_with(|| sid.clone());
        }
        (call.ended, call.stage) = (true, CallStage::Over);
        call.twilio_status = Some(end.status.clone());
        call.duration_s = end.duration_s;
        if let Some(by) = &end.answered_by {
            call.answered_by = Some(by.clone());
        }
    }
    let campaign_type = run.state.campaign.mode.name();
    let said = json!({ "status": end.status, "campaign_type": campaign_type, "number": end.to });
    run.tell("call_ended", said);
    match before.decision {
        Some(Decision::Connect) => {
            if let Some(call) = &mut run.state.call {
                call.outcome.get_or_insert(Outcome::Success);
            }
            talk_is_over(run);
        }
        // It was settled when it was decided.
        Some(_) => {}
        None => {
            run.settle(outcome(end));
            if run.state.campaign.mode != Mode::Predictive {
                run.move_on();
            }
        }
    }
    documents::hang_up()
}

/// How a call came out that asked for no document.
fn outcome(end: &LegEnd) -> Outcome {
    if is_machine(end.answered_by.as_deref()) {
        return Outcome::Machine;
    }
    match end.status.as_str() {
        "busy" => Outcome::Busy,
        "failed" => Outcome::Failed,
        "canceled" => Outcome::Cancelled,
        // Picked up, and gone before anything could be said.
        "completed" => Outcome::Machine,
        _ => Outcome::NoAnswer,
    }
}

fn placed(run: &mut Run<'_>, before: &LeadCall, placed: &Placed) -> Response {
    let refused = match placed {
        Placed::Taken(sid) => {
            if let Some(call) = &mut run.state.call {
                call.call_sid.get_or_insert_with(|| sid.clone());
                if call.stage == CallStage::Placing {
                    call.stage = CallStage::Ringing;
                }
            }
            // Nobody waits for it any more, or it was taken for one that was never made.
            let unknown = before.stage == CallStage::Over && before.call_sid.is_none();
            if unknown || (before.given_up && before.stage != CallStage::Over) {
                run.then(Effect::HangUp(before.id));
            }
            return documents::hang_up();
        }
        // What was reported of the leg before the answer came says more.
        _ if before.stage != CallStage::Placing => return documents::hang_up(),
        Placed::NumberRefused => (Outcome::Failed, Place::Failed),
        // It is not the number's fault.
        Placed::Refused => (Outcome::Failed, Place::Bin),
        // Nobody's telephone rang: whoever comes next may call there.
        Placed::NotSent => (Outcome::Cancelled, Place::Available),
    };
    if let Some(call) = &mut run.state.call {
        call.stage = CallStage::Over;
    }
    let (outcome, place) = refused;
    run.settle_at(outcome, place);
    run.move_on();
    documents::hang_up()
}

/// An edge answered a leg in our place, and could only hang up.
fn hung_up_on(run: &mut Run<'_>, before: &LeadCall) -> Response {
    // It was decided otherwise, and the decision did not reach the lead: whoever was to talk is led on.
    let nothing_keyed = run.state.answers.is_empty();
    let waits = |session: &&mut Session| {
        let at_it = matches!(session.stage, Stage::Talking | Stage::Parting)
            || (session.stage == Stage::Survey && nothing_keyed);
        at_it && session.call == Some(before.id)
    };
    let at_it = run.state.session.as_mut().filter(waits).map(|session| {
        session.free();
        session.id
    });
    if let Some(id) = at_it {
        run.then(Effect::MoveOn(id));
    }
    if !before.settled {
        if let Some(call) = &mut run.state.call {
            call.decision = Some(Decision::Abandon);
        }
        run.settle(Outcome::Abandoned);
    }
    run.move_on();
    documents::hang_up()
}

/// A lead came into a conference that the caller had just left, and was let go: nobody talked with them.
fn left_alone(run: &mut Run<'_>, before: &LeadCall) -> Response {
    if before.settled || before.decision != Some(Decision::Connect) || !run.state.answers.is_empty()
    {
        return documents::hang_up();
    }
    hung_up_on(run, before)
}

/// The caller says how the talk came out. The lead is done with if no answer asks for another call;
/// the others of the household are still to be called.
pub(super) fn dispose(state: &mut State) {
    let (Some(call), Some(household)) = (&mut state.call, &mut state.household) else { return };
    call.settled = true;
    if call.outcome != Some(Outcome::Delivered) {
        call.outcome = Some(Outcome::Success);
    }
    let again = state.answers.iter().any(|answer| {
        let question = state.questions.iter().find(|question| question.id == answer.question_id);
        question.is_some_and(|question| asks_again(question, &answer.digits))
    });
    let status = if again { "retry" } else { Outcome::Success.name() };
    if let Some(lead) = household.leads.iter_mut().find(|lead| lead.id == call.lead_id) {
        (lead.dispositioned, lead.completed, lead.call_back) = (true, !again, again);
        lead.status = status.to_owned();
    }
    household.status = status.to_owned();
    if matches!(household.place, Place::Presented | Place::Bin | Place::Completed) {
        household.place = household.place_after(&state.campaign);
    }
}

/// An answer has come after the caller was done with the call, or gone: it is taken into account.
pub(super) fn dispose_again(state: &mut State) {
    let Some(call) = &state.call else { return };
    let left = state.session.as_ref().is_none_or(|session| {
        call.session == Some(session.id) && !(session.on_call() && session.call == Some(call.id))
    });
    if left && call.decision == Some(Decision::Connect) && !state.answers.is_empty() {
        dispose(state);
    }
}

/// Whether what was keyed asks for another call.
fn asks_again(question: &Question, digits: &str) -> bool {
    let keyed = digits.parse::<i64>().ok();
    question.responses.iter().any(|response| Some(response.keypad) == keyed && response.retry)
}
