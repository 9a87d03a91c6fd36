//! The dial-in: from a PIN to a session.

use super::documents;
use super::fit::{self, Unfit};
use super::links::Links;
use super::state::{Campaign, Mode};
use holdline_twilio::verbs::Response;
use jiff::Timestamp;

/// Tries at a PIN; the last one is followed by a hangup.
const TRIES: u32 = 3;

/// A caller whose PIN was keyed, with all that decides whether calling may start.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The caller.
    pub caller_id: i64,
    /// Whether the caller may call at all.
    pub active: bool,
    /// Whether there is a browser page.
    pub phones_only: bool,
    /// The page's key, where the PIN was the page's own.
    pub page_key: Option<String>,
    /// The campaign, if one was given that was not archived.
    pub campaign: Option<Campaign>,
    /// Sessions of the account that are on call.
    pub on_call: i64,
}

/// What became of a PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identified {
    /// Nobody's PIN, or not of somebody who may call.
    Unknown,
    /// The caller has no campaign.
    NoCampaign,
    /// Calling may not start.
    Unfit(Unfit),
    /// A session is to be opened.
    Open(NewSession),
}

/// The session to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// The caller.
    pub caller_id: i64,
    /// The campaign.
    pub campaign_id: i64,
    /// How it dials.
    pub mode: Mode,
    /// Whether there is no browser page.
    pub phones_only: bool,
    /// The page's key; without one, the session gets a fresh key.
    pub page_key: Option<String>,
}

/// Decides what a PIN leads to.
pub fn identify(candidate: Option<Candidate>, now: Timestamp) -> Identified {
    let Some(candidate) = candidate.filter(|candidate| candidate.active) else {
        return Identified::Unknown;
    };
    let Some(campaign) = candidate.campaign else { return Identified::NoCampaign };
    match fit::may_start(&campaign.quota, &campaign.hours, candidate.on_call, now) {
        Err(reason) => Identified::Unfit(reason),
        Ok(()) => Identified::Open(NewSession {
            caller_id: candidate.caller_id,
            campaign_id: campaign.id,
            mode: campaign.mode,
            phones_only: candidate.phones_only,
            page_key: candidate.page_key,
        }),
    }
}

/// What is said after a wrong PIN. An absent attempt, or 0, means that nothing was keyed yet.
fn after_wrong_pin(links: &Links, attempt: u32) -> Response {
    match attempt {
        0 => documents::ask_pin(links, 1),
        attempt if attempt < TRIES => documents::wrong_pin(links, attempt + 1),
        _ => documents::wrong_pin_for_good(),
    }
}

/// What is said to whoever opens no session.
pub fn refusal(links: &Links, refused: &Identified, attempt: u32) -> Response {
    match refused {
        Identified::Unknown => after_wrong_pin(links, attempt),
        Identified::NoCampaign => documents::no_campaign(),
        Identified::Unfit(reason) => documents::unfit(*reason),
        Identified::Open(_) => documents::hang_up(),
    }
}

/// The first prompt of the dial-in.
pub fn first_prompt(links: &Links) -> Response {
    documents::ask_pin(links, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate() -> Candidate {
        Candidate {
            caller_id: 7,
            active: true,
            phones_only: true,
            page_key: None,
            campaign: Some(crate::core::samples::campaign(Mode::Power)),
            on_call: 0,
        }
    }

    #[track_caller]
    fn check(candidate: Option<Candidate>, expect: &Identified) {
        assert_eq!(identify(candidate, Timestamp::UNIX_EPOCH), *expect);
    }

    #[test]
    fn only_an_active_caller_with_a_fit_campaign_gets_a_session() {
        let session = NewSession {
            caller_id: 7,
            campaign_id: 3,
            mode: Mode::Power,
            phones_only: true,
            page_key: None,
        };
        check(Some(candidate()), &Identified::Open(session));
        check(None, &Identified::Unknown);
        check(Some(Candidate { active: false, ..candidate() }), &Identified::Unknown);
        check(Some(Candidate { campaign: None, ..candidate() }), &Identified::NoCampaign);
        check(Some(Candidate { on_call: 5, ..candidate() }), &Identified::Unfit(Unfit::NoSeat));
    }
}
