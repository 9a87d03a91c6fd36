//! What the tests of the call logic start from.

use super::fit::{Hours, Plan, Quota};
use super::links::Links;
use super::state::{
    Campaign, Household, Lead, Mode, Place, PossibleResponse, Question, Session, Stage,
};
use super::step::{MovedTo, State};

pub(crate) fn links() -> Links {
    Links::new("http://edge.test", Some("http://other.test"))
}

pub(crate) fn campaign(mode: Mode) -> Campaign {
    Campaign {
        id: 3,
        name: "Campaign".into(),
        mode,
        active: true,
        hours: Hours { start: Some(0), end: Some(0), time_zone: "UTC".into() },
        quota: Quota {
            plan: Plan::Trial,
            provider_active: true,
            minutes_left: 50,
            callers_allowed: 5,
            disable_calling: false,
            disable_access: false,
        },
        record: false,
        detect_machines: true,
        message: None,
        manual_message: None,
        call_back_after_message: false,
        caller_id: "5005550001".into(),
    }
}

pub(crate) fn session(stage: Stage, phones_only: bool) -> Session {
    Session {
        id: 11,
        caller_id: 7,
        campaign_id: 3,
        call_sid: "CA0".into(),
        key: "key".into(),
        phones_only,
        stage,
        household: None,
        call: None,
        turn: 2,
        duration_s: None,
    }
}

pub(crate) fn household(id: i64) -> Household {
    Household {
        id,
        phone: format!("50055501{id:02}"),
        place: Place::Presented,
        status: "not called".into(),
        message_left: false,
        leads: vec![Lead {
            id: id * 10,
            first_name: Some("Ann".into()),
            last_name: Some("Lee".into()),
            custom_id: None,
            status: "not called".into(),
            completed: false,
            dispositioned: false,
            call_back: false,
        }],
    }
}

pub(crate) fn questions() -> Vec<Question> {
    let response = |id: i64, keypad: i64, value: &str, retry: bool| PossibleResponse {
        id,
        keypad,
        value: value.into(),
        retry,
    };
    vec![
        Question {
            id: 1,
            text: "How was it?".into(),
            responses: vec![
                response(1, 0, "no response", false),
                response(2, 1, "Great", false),
                response(3, 2, "Super", false),
            ],
        },
        Question {
            id: 2,
            text: "Will they come?".into(),
            responses: vec![
                response(4, 0, "no response", false),
                response(5, 1, "Yes", false),
                response(6, 2, "Ask again", true),
            ],
        },
    ]
}

pub(crate) fn state(mode: Mode, session: Session) -> State {
    State {
        session: Some(session),
        call: None,
        household: None,
        household_before: None,
        campaign: campaign(mode),
        moved_to: MovedTo::Nobody,
        questions: questions(),
        answers: Vec::new(),
    }
}
