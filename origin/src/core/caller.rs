//! The caller's session: what each event makes of it.
//!
//! | stage | what leads on |
//! |---|---|
//! | menu | star: the next number |
//! | idle | the next number, or waiting (predictive) |
//! | offered | called, passed on, or offered again |
//! | dialing | somebody answers: talking. Nobody does, or star is pressed: idle |
//! | waiting | somebody answers: talking |
//! | talking | the lead leaves: parting, or wrap-up where there is a browser. The caller does: survey |
//! | parting | the caller comes from the conference: survey |
//! | survey | the last answer: idle |
//! | wrap-up | the browser says how it went: idle |

use holdline_twilio::verbs::Response;
use serde_json::json;

use super::documents;
use super::fit::Unfit;
use super::lead;
use super::links::Survey;
use super::offer::{decide, dial_ordered, fresh, offer, release};
use super::state::{Answer, CallStage, Decision, Session, Stage};
use super::step::{Effect, Event, Reason, Run, Told};

/// Keyed instead of an answer: no further questions.
const NO_MORE_QUESTIONS: &str = "999";

/// Takes a step that a caller's leg, or their browser, calls for. Without a session there is nothing to
/// be done but to hang up: an error would only make Twilio ask a fallback as hopeless as this.
pub(super) fn step(run: &mut Run<'_>, event: &Event) -> Told {
    let Some(session) = run.state.session.clone() else { return Ok(run.hang_up()) };
    if let Event::Keyed { call, question_id, number, silent, digits } = event {
        let survey = Asked { call: *call, number: *number, silent: *silent };
        return Ok(keyed(run, &session, survey, *question_id, digits));
    }
    if let Event::SessionEnded { duration_s } = event
        && let Some(session) = &mut run.state.session
    {
        session.duration_s = session.duration_s.or(*duration_s);
    }
    if !session.on_call() {
        return Ok(run.hang_up());
    }
    match event {
        Event::Menu(digits) => menu(run, &session, digits),
        Event::Ready { ends } => ready(run, *ends),
        Event::Decide { phone, digits, asked } => {
            decide(run, &session, phone.as_deref(), digits.as_deref(), *asked)
        }
        Event::Wait => wait(run),
        Event::Question { call, number, silent } => {
            let asked = Asked { call: *call, number: *number, silent: *silent };
            Ok(question(run, &session, asked))
        }
        Event::Pause { turn, over } => Ok(pause(run, &session, *turn, *over)),
        Event::DialOrdered { phone } => Ok(dial_ordered(run, &session, phone)),
        Event::Prohibited(reason) => Ok(prohibited(run, *reason)),
        Event::MessageFailed { call, .. } if session.call != Some(*call) => Ok(run.hang_up()),
        Event::MessageFailed { why, .. } => {
            let message = "The recording could not be played.";
            run.tell("message_drop_error", json!({ "message": message, "response": why }));
            run.then(Effect::SayMessageFailed(session.id));
            Ok(run.hang_up())
        }
        Event::Silent => {
            // The order to move on was lost on the way.
            match session.stage {
                Stage::Idle => run.then(Effect::MoveOn(session.id)),
                Stage::Parting => run.then(Effect::Part(session.id)),
                _ => {}
            }
            Ok(run.hang_up())
        }
        Event::Replaced => {
            run.end_session();
            run.then(Effect::EndCaller(session.id));
            Ok(run.hang_up())
        }
        _ => {
            run.end_session();
            Ok(run.hang_up())
        }
    }
}

fn menu(run: &mut Run<'_>, session: &Session, digits: &str) -> Told {
    let links = run.context.links;
    match digits {
        "#" => Ok(documents::how_to(links, session)),
        "*" => ready(run, false),
        _ => Ok(documents::menu(links, session)),
    }
}

/// What a caller hears who is ready for the next number: whatever there is to go on with, before that.
fn ready(run: &mut Run<'_>, ends: bool) -> Told {
    let Some(session) = run.state.session.clone() else { return Ok(run.hang_up()) };
    match session.stage {
        Stage::Ended => Ok(run.hang_up()),
        Stage::Offered => match (run.gate(), run.state.household.clone()) {
            (Err(reason), _) => {
                release(run);
                Ok(closed(run, reason, ends))
            }
            (Ok(()), Some(household)) => Ok(offer(run, &session, &household)),
            (Ok(()), None) => fresh(run, ends),
        },
        Stage::Dialing => Ok(conference(run, &session)),
        // The conference is over, though nobody has said so yet.
        Stage::Talking | Stage::Parting if session.phones_only => {
            let_go(run, &session);
            set_stage(run, Stage::Survey);
            let first = survey(run, &session, 0, false);
            Ok(documents::to_question(run.context.links, &session, &first))
        }
        Stage::Talking | Stage::Parting => {
            let_go(run, &session);
            Ok(wrap_up(run))
        }
        // The question could not be asked: who was asked nothing at all is called again.
        Stage::Survey if run.state.answers.is_empty() => {
            set_idle(run);
            fresh(run, ends)
        }
        Stage::Survey | Stage::WrapUp => {
            finish(run);
            fresh(run, ends)
        }
        Stage::Menu | Stage::Idle | Stage::Waiting => fresh(run, ends),
    }
}

fn wait(run: &mut Run<'_>) -> Told {
    let Some(session) = run.state.session.clone() else { return Ok(run.hang_up()) };
    set_stage(run, Stage::Waiting);
    Ok(conference(run, &session))
}

/// A place in a survey, as a request names it.
#[derive(Debug, Clone, Copy)]
struct Asked {
    call: Option<i64>,
    number: usize,
    silent: bool,
}

/// The caller has left the conference, or answered the question before this one.
fn question(run: &mut Run<'_>, session: &Session, asked: Asked) -> Response {
    let links = run.context.links;
    let Asked { call: about, number, silent } = asked;
    if about.is_some() && about != session.call {
        // It is about a call that is done with, and the next one may be under way.
        return documents::next_call(links, session);
    }
    match session.stage {
        Stage::Talking | Stage::Parting | Stage::Survey => {
            let_go(run, session);
            set_stage(run, Stage::Survey);
            let place = survey(run, session, number, silent);
            match run.state.questions.get(number) {
                Some(question) => documents::ask(links, session, &place, question),
                // Nobody has touched a key: it may be that nobody is there, and nobody is called for them.
                None if silent && run.state.answers.is_empty() => {
                    set_idle(run);
                    documents::to_menu(links, session)
                }
                None => {
                    finish(run);
                    documents::next_call(links, session)
                }
            }
        }
        Stage::Dialing => {
            // Star was pressed while it rang.
            run.give_up_call();
            set_idle(run);
            documents::next_call(links, session)
        }
        Stage::Waiting => {
            set_idle(run);
            documents::next_call(links, session)
        }
        // An order to move on has ended the conference, and its own document is on its way.
        _ => documents::next_call(links, session),
    }
}

/// An answer is kept whatever has become of the session meanwhile.
fn keyed(
    run: &mut Run<'_>,
    session: &Session,
    asked: Asked,
    question_id: i64,
    digits: &str,
) -> Response {
    let links = run.context.links;
    let about = asked.call.or(session.call);
    let silent = digits.is_empty() && (asked.silent || asked.number == 0);
    if let Some(call) = about.filter(|_| digits != NO_MORE_QUESTIONS && !digits.is_empty()) {
        run.then(Effect::Keep { call, question_id, digits: digits.to_owned() });
        if run.state.call.as_ref().map(|call| call.id) == about {
            let answers = &mut run.state.answers;
            answers.retain(|answer| answer.question_id != question_id);
            answers.push(Answer { question_id, digits: digits.to_owned() });
        }
    }
    let at_it = matches!(session.stage, Stage::Survey | Stage::Parting | Stage::Talking);
    let surveyed = at_it && session.call == about;
    if !surveyed {
        // It came late, and counts all the same.
        lead::dispose_again(&mut run.state);
    }
    match (session.on_call(), surveyed, digits) {
        (false, ..) => documents::hang_up(),
        (true, true, NO_MORE_QUESTIONS) => {
            finish(run);
            documents::next_call(links, session)
        }
        (true, true, _) => {
            let next = survey(run, session, asked.number + 1, silent);
            documents::to_question(links, session, &next)
        }
        // It was about a call that is done with.
        (true, false, _) => documents::next_call(links, session),
    }
}

fn pause(run: &mut Run<'_>, session: &Session, turn: Option<i64>, over: bool) -> Response {
    if over {
        run.end_session();
        return documents::hang_up();
    }
    if turn.is_some_and(|turn| turn != session.turn) {
        // It is about a call that is done with, and the next one may be under way.
        return documents::continue_conference(run.context.links, session);
    }
    match session.stage {
        Stage::Talking | Stage::WrapUp => {
            let_go(run, session);
            wrap_up(run)
        }
        Stage::Dialing => {
            // Star was pressed while it rang.
            run.give_up_call();
            set_idle(run);
            run.then(Effect::MoveOn(session.id));
            documents::wrap_up()
        }
        // Star was pressed on hold: back to it. Or an order to move on has ended the conference, and its
        // own document is on its way.
        _ => documents::continue_conference(run.context.links, session),
    }
}

/// The caller is out of the conference. Whoever was put through to it ends with it, but for a lead who
/// comes into it only now.
fn let_go(run: &mut Run<'_>, session: &Session) {
    let open = run.state.call.as_ref().filter(|call| call.stage != CallStage::Over);
    if let Some(id) = open.map(|call| call.id).filter(|_| session.stage == Stage::Talking) {
        run.then(Effect::LetGo(id));
    }
}

/// The caller writes down how the call went.
fn wrap_up(run: &mut Run<'_>) -> Response {
    set_stage(run, Stage::WrapUp);
    run.tell("caller_wrapup_voice_hit", json!({}));
    documents::wrap_up()
}

/// Says why calling cannot go on.
pub(super) fn closed(run: &mut Run<'_>, reason: Unfit, ends: bool) -> Response {
    if ends {
        run.end_session();
    } else {
        set_idle(run);
    }
    documents::unfit(reason)
}

fn prohibited(run: &mut Run<'_>, reason: Reason) -> Response {
    let gate = run.gate();
    let hours = &run.state.campaign.hours;
    let said = match (reason, gate) {
        (Reason::OutOfNumbers, _) => documents::out_of_numbers(),
        (Reason::Funds, _) => documents::unfit(Unfit::OutOfFunds),
        (Reason::Hours, _) => documents::unfit(Unfit::OutOfHours {
            start: hours.start.unwrap_or_default(),
            end: hours.end.unwrap_or_default(),
        }),
        (Reason::Gate, Err(reason)) => documents::unfit(reason),
        (Reason::Gate, Ok(())) => documents::retry(),
    };
    run.end_session();
    said
}

/// The caller is done with a call; the lead is done with, or called again, as the answers say.
fn finish(run: &mut Run<'_>) {
    let talked = run.state.call.as_ref().is_some_and(|call| {
        run.state.session.as_ref().is_some_and(|session| session.call == Some(call.id))
            && call.decision == Some(Decision::Connect)
    });
    let web = run.state.session.as_ref().is_some_and(|session| !session.phones_only);
    // Where there is a browser, it says how the call went, or the household is called again.
    if talked && !web {
        lead::dispose(&mut run.state);
    }
    set_idle(run);
}

fn survey(run: &Run<'_>, session: &Session, question: usize, silent: bool) -> Survey {
    let call = run.state.call.as_ref().filter(|call| session.call == Some(call.id));
    Survey { call: call.map(|call| call.id), lead: call.map(|call| call.lead_id), question, silent }
}

/// The caller's conference. Who leaves it is asked how it went, or writes it down.
pub(super) fn conference(run: &Run<'_>, session: &Session) -> Response {
    let links = run.context.links;
    let action = if session.phones_only {
        let call = run
            .state
            .call
            .as_ref()
            .filter(|call| call.session == Some(session.id) && call.stage != CallStage::Over);
        let survey = Survey {
            call: call.map(|call| call.id),
            lead: call.map(|call| call.lead_id),
            question: 0,
            silent: false,
        };
        links.survey(session, "gather_response", &survey)
    } else {
        links.pause(session)
    };
    documents::caller_conference(links, session, action)
}

pub(super) fn set_stage(run: &mut Run<'_>, stage: Stage) {
    if let Some(session) = &mut run.state.session {
        session.stage = stage;
    }
}

pub(super) fn set_idle(run: &mut Run<'_>) {
    if let Some(session) = &mut run.state.session {
        session.free();
    }
}
