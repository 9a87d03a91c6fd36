//! The dial-in: from a PIN to a session.

use super::documents::{self, Links};
use super::fit::{self, Hours, Quota, Unfit};
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
    /// The campaign, if one was given.
    pub campaign: Option<CampaignFacts>,
}

/// What is known of the caller's campaign and account.
#[derive(Debug, Clone)]
pub struct CampaignFacts {
    /// The campaign.
    pub id: i64,
    /// How it dials: preview, power or predictive.
    pub mode: String,
    /// When it may be called.
    pub hours: Hours,
    /// What the account may do.
    pub quota: Quota,
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
    pub mode: String,
    /// Whether there is a browser page.
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
    match fit::may_start(&campaign.quota, &campaign.hours, campaign.on_call, now) {
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
pub fn after_wrong_pin(links: &Links, attempt: u32) -> Response {
    match attempt {
        0 => documents::ask_pin(links, 1),
        attempt if attempt < TRIES => documents::wrong_pin(links, attempt + 1),
        _ => documents::wrong_pin_for_good(),
    }
}

/// What is said to a caller with a session.
pub fn welcome(links: &Links, phones_only: bool, caller: i64, session: i64, key: &str) -> Response {
    if phones_only {
        documents::menu(links, caller, session)
    } else {
        documents::caller_conference(links, caller, session, key)
    }
}

/// What a key pressed in the menu leads to.
pub fn menu_choice(links: &Links, digits: &str, caller: i64, session: i64) -> Response {
    match digits {
        "#" => documents::how_to(links, caller, session),
        "*" => documents::out_of_numbers(),
        _ => documents::menu(links, caller, session),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fit::Plan;

    fn candidate() -> Candidate {
        Candidate {
            caller_id: 7,
            active: true,
            phones_only: true,
            page_key: None,
            campaign: Some(CampaignFacts {
                id: 3,
                mode: "power".into(),
                hours: Hours { start: Some(0), end: Some(0), time_zone: "UTC".into() },
                quota: Quota {
                    plan: Plan::Trial,
                    provider_active: true,
                    minutes_left: 50,
                    callers_allowed: 5,
                    disable_calling: false,
                    disable_access: false,
                },
                on_call: 0,
            }),
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
            mode: "power".into(),
            phones_only: true,
            page_key: None,
        };
        check(Some(candidate()), &Identified::Open(session));
        check(None, &Identified::Unknown);
        check(Some(Candidate { active: false, ..candidate() }), &Identified::Unknown);
        check(Some(Candidate { campaign: None, ..candidate() }), &Identified::NoCampaign);
        let mut full = candidate();
        full.campaign.as_mut().unwrap().on_call = 5;
        check(Some(full), &Identified::Unfit(Unfit::NoSeat));
    }
}
