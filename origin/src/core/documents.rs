//! What callers hear: the documents of the call logic and their wording.

use holdline_twilio::verbs::{Conference, Gather, Response, Verb};

use super::fit::Unfit;
use super::links::{Links, Survey};
use super::state::{Lead, Question, Session};

/// How long a caller may take to write down how a call went, in seconds.
const WRAP_UP_S: u32 = 600;
const ASK_PIN: &str = "Hello. Key in your access number, then press star.";
const WRONG_PIN: &str = "That access number was not recognised.";
const NO_CAMPAIGN: &str =
    "You are signed in, but nobody has given you a campaign yet. Ask your administrator.";
const MENU: &str = "To take calls, press star. To hear how it works, press pound.";
const HOW_TO: &str = "You will wait on music. When it stops somebody is on the line, so speak straight away. \
                      To finish a call press star, do not hang up; you will then key in the result.";
const OUT_OF_NUMBERS: &str = "There is nobody left to call on this list.";
const OUT_OF_FUNDS: &str = "The account has no calling credit left. Tell your administrator.";
const DISABLED: &str = "Calling is switched off for this account. Tell your administrator.";
const SKIP_OR_DIAL: &str = "Star to call, pound to pass.";
const SUBMIT: &str = "Finish with star.";
const WRAP_UP: &str = "Now record how the call went.";
const RETRY: &str = "Something went wrong on our side. Hang up and dial in again.";
const MESSAGE_FAILED: &str = "The recording could not be played. Try again if they are still there; \
                              otherwise save the result.";
const NO_SEAT: &str = "All caller seats are in use. Wait for one to free up, or ask for more.";

/// Ends the call without a word.
pub fn hang_up() -> Response {
    Response::new().hangup()
}

/// Says one thing and ends the call.
fn say_and_hang_up(text: &str) -> Response {
    Response::new().say(text).hangup()
}

/// Asks for a PIN; `attempt` is the number of this try.
pub fn ask_pin(links: &Links, attempt: u32) -> Response {
    Response::new().then(pin_gather(links, attempt))
}

/// Says that the PIN was wrong and asks again.
pub fn wrong_pin(links: &Links, next_attempt: u32) -> Response {
    Response::new().say(WRONG_PIN).then(pin_gather(links, next_attempt))
}

/// Says that the PIN was wrong for the last time.
pub fn wrong_pin_for_good() -> Response {
    say_and_hang_up(WRONG_PIN)
}

/// Nobody gave the caller a campaign.
pub fn no_campaign() -> Response {
    say_and_hang_up(NO_CAMPAIGN)
}

/// Cannot go on; the caller is to dial in again.
pub fn retry() -> Response {
    say_and_hang_up(RETRY)
}

/// The list is exhausted.
pub fn out_of_numbers() -> Response {
    say_and_hang_up(OUT_OF_NUMBERS)
}

/// Why calling cannot start.
pub fn unfit(reason: Unfit) -> Response {
    match reason {
        Unfit::Disabled => say_and_hang_up(DISABLED),
        Unfit::NoCampaign => no_campaign(),
        Unfit::OutOfFunds => say_and_hang_up(OUT_OF_FUNDS),
        Unfit::NoSeat => say_and_hang_up(NO_SEAT),
        Unfit::OutOfHours { start, end } => say_and_hang_up(&format!(
            "This list may be called from {} until {}. Call in again then.",
            spoken_hour(start),
            spoken_hour(end)
        )),
    }
}

/// The menu of a caller without a browser. The key that ends the input is 5, so that star and pound
/// arrive as digits.
pub fn menu(links: &Links, session: &Session) -> Response {
    Response::new().then(Verb::Gather(Gather {
        action: links.step(session, "read_instruction_options"),
        finish_on_key: '5',
        timeout: 10,
        num_digits: Some(1),
        on_empty: false,
        prompts: vec![MENU.into()],
    }))
}

/// How calling works, and back to the menu.
pub fn how_to(links: &Links, session: &Session) -> Response {
    Response::new().say(HOW_TO).redirect(links.step(session, "callin_choice"))
}

/// Offers a lead to call or to pass, for the so manieth time, the first being 0; then the name is spoken.
/// Who takes longer to decide is asked again.
pub fn offer(links: &Links, session: &Session, phone: &str, lead: &Lead, asked: u32) -> Response {
    let name = lead.name().filter(|_| asked == 0);
    let prompt =
        name.map_or_else(|| SKIP_OR_DIAL.to_owned(), |name| format!("{name}. {SKIP_OR_DIAL}"));
    Response::new().then(Verb::Gather(Gather {
        action: links.decide(session, lead.id, phone, asked),
        finish_on_key: '5',
        timeout: 10,
        num_digits: Some(1),
        on_empty: true,
        prompts: vec![prompt],
    }))
}

/// Says who is called next, and goes on to calling.
pub fn call_next(links: &Links, session: &Session, phone: &str, lead: &Lead) -> Response {
    let url = links.dial(session, "conference_started_phones_only_power", lead.id, phone);
    let document = Response::new();
    match lead.name() {
        Some(name) => document.say(name),
        None => document,
    }
    .redirect(url)
}

/// Back to the menu, which ends the call of whoever is not there.
pub fn to_menu(links: &Links, session: &Session) -> Response {
    Response::new().redirect(links.step(session, "callin_choice"))
}

/// On to the next call.
pub fn next_call(links: &Links, session: &Session) -> Response {
    Response::new().redirect(links.step(session, "next_call"))
}

/// On to the next number.
pub fn ready_to_call(links: &Links, session: &Session) -> Response {
    Response::new().redirect(links.step(session, "ready_to_call"))
}

/// Back to the conference.
pub fn continue_conference(links: &Links, session: &Session) -> Response {
    Response::new().redirect(links.step(session, "continue_conf"))
}

/// On to a question, the first being 0.
pub fn to_question(links: &Links, session: &Session, survey: &Survey) -> Response {
    Response::new().redirect(links.survey(session, "gather_response", survey))
}

/// A question, its answers but the default one, and how to end the input; nothing but that leaves the
/// question out.
pub fn ask(links: &Links, session: &Session, survey: &Survey, question: &Question) -> Response {
    let read_out = question.responses.iter().filter(|response| response.keypad != 0);
    let choices =
        read_out.map(|response| format!("Press {} for {}.", response.keypad, response.value));
    let prompts = std::iter::once(question.text.clone())
        .chain(choices)
        .chain(std::iter::once(SUBMIT.to_owned()));
    Response::new().then(Verb::Gather(Gather {
        action: links.answer(session, survey, question.id),
        finish_on_key: '*',
        timeout: 60,
        num_digits: None,
        on_empty: true,
        prompts: prompts.collect(),
    }))
}

/// A caller's conference, where leads will be put through. Who leaves it goes on at `action`.
pub fn caller_conference(links: &Links, session: &Session, action: String) -> Response {
    Response::new().then(Verb::Conference(Conference {
        room: session.key.clone(),
        action: Some(action),
        hangup_on_star: true,
        record: None,
        start_on_enter: Some(false),
        end_on_exit: true,
        beep: true,
        muted: None,
        wait_url: links.hold_music(),
    }))
}

/// Puts a lead through to the caller of this conference. The arrival starts it, and ends the music.
pub fn lead_conference(links: &Links, call: i64, room: &str, record: bool) -> Response {
    Response::new().then(Verb::Conference(Conference {
        room: room.to_owned(),
        action: Some(links.lead(call, "disconnected")),
        hangup_on_star: false,
        record: Some(record),
        start_on_enter: None,
        end_on_exit: true,
        beep: false,
        muted: None,
        wait_url: links.hold_music(),
    }))
}

/// Lets a supervisor hear a conference, and speak there unless muted.
pub fn supervise(links: &Links, room: &str, muted: bool) -> Response {
    Response::new().then(Verb::Conference(Conference {
        room: room.to_owned(),
        action: None,
        hangup_on_star: true,
        record: None,
        start_on_enter: Some(false),
        end_on_exit: false,
        beep: false,
        muted: Some(muted),
        wait_url: links.hold_music(),
    }))
}

/// Leaves a recording, and ends the call.
pub fn leave_message(recording: &str) -> Response {
    Response::new().then(Verb::Play(recording.to_owned())).hangup()
}

/// Time to write down how the call went; then the call ends.
pub fn wrap_up() -> Response {
    Response::new().say(WRAP_UP).then(Verb::Pause(WRAP_UP_S))
}

/// The recording could not be left.
pub fn message_failed() -> Response {
    Response::new().say(MESSAGE_FAILED).then(Verb::Pause(WRAP_UP_S))
}

fn pin_gather(links: &Links, attempt: u32) -> Verb {
    Verb::Gather(Gather {
        action: links.identify(attempt),
        finish_on_key: '*',
        timeout: 10,
        num_digits: None,
        on_empty: false,
        prompts: vec![ASK_PIN.into()],
    })
}

fn spoken_hour(hour: i8) -> String {
    match hour.rem_euclid(24) {
        0 => "midnight".into(),
        12 => "noon".into(),
        morning @ 1..12 => format!("{morning} AM"),
        afternoon => format!("{} PM", afternoon - 12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_spoken_as_people_say_them() {
        let spoken: Vec<_> = [0, 1, 11, 12, 13, 23, 24].map(spoken_hour).into();
        assert_eq!(spoken, ["midnight", "1 AM", "11 AM", "noon", "1 PM", "11 PM", "midnight"]);
    }
}
