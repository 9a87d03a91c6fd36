//! What callers hear: the documents of the call logic and their wording.

use holdline_twilio::verbs::{Conference, Gather, Response, Verb};

use super::fit::Unfit;

/// Where the URLs in documents lead: the public URL of the edge.
#[derive(Debug, Clone)]
pub struct Links {
    base: String,
}

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
const NO_SEAT: &str = "All caller seats are in use. Wait for one to free up, or ask for more.";

// === impl Links ===

impl Links {
    /// Links below `base`, a URL without a trailing slash.
    pub fn new(base: &str) -> Links {
        Links { base: base.trim_end_matches('/').to_owned() }
    }

    fn identify(&self, attempt: u32) -> String {
        format!("{}/identify_caller?attempt={attempt}", self.base)
    }

    fn caller(&self, caller: i64, step: &str, session: i64) -> String {
        format!("{}/caller/{caller}/{step}?session_id={session}", self.base)
    }

    fn hold_music(&self) -> String {
        format!("{}/media/hold-music", self.base)
    }
}

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

/// The list is exhausted.
pub fn out_of_numbers() -> Response {
    say_and_hang_up(OUT_OF_NUMBERS)
}

/// Why calling cannot start.
pub fn unfit(reason: Unfit) -> Response {
    match reason {
        Unfit::Disabled => say_and_hang_up(DISABLED),
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
pub fn menu(links: &Links, caller: i64, session: i64) -> Response {
    Response::new().then(Verb::Gather(Gather {
        action: links.caller(caller, "read_instruction_options", session),
        finish_on_key: '5',
        timeout: 10,
        num_digits: Some(1),
        prompts: vec![MENU.into()],
    }))
}

/// How calling works, and back to the menu.
pub fn how_to(links: &Links, caller: i64, session: i64) -> Response {
    Response::new().say(HOW_TO).redirect(links.caller(caller, "callin_choice", session))
}

/// A web caller's conference, where leads will be put through.
pub fn caller_conference(links: &Links, caller: i64, session: i64, room: &str) -> Response {
    Response::new().then(Verb::Conference(Conference {
        room: room.into(),
        action: Some(links.caller(caller, "pause", session)),
        hangup_on_star: true,
        start_on_enter: false,
        end_on_exit: true,
        beep: true,
        wait_url: links.hold_music(),
    }))
}

fn pin_gather(links: &Links, attempt: u32) -> Verb {
    Verb::Gather(Gather {
        action: links.identify(attempt),
        finish_on_key: '*',
        timeout: 10,
        num_digits: None,
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
