//! Conferences and their participants (`twilio.com/docs/voice/api/conference-resource`).

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Named, Parameters, Rest, RestError, page};
use crate::company::rfc2822;
use crate::rooms::{Participant, Reason, Room};

type Answer = Result<Json<Value>, RestError>;

/// Error: something that exists at Twilio and not here.
const NOT_MODELLED: u32 = 20001;

pub(super) async fn list(State(rest): State<Rest>, RawQuery(query): RawQuery) -> Answer {
    let query = Parameters::read(query.unwrap_or_default().as_bytes());
    let wanted = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
    let rooms: Vec<Value> = rest.company.rooms(|rooms| {
        rooms
            .all()
            .into_iter()
            .filter(|room| wanted("FriendlyName", &room.name) && wanted("Status", room.status()))
            .map(|room| shown(&rest, room))
            .collect()
    });
    let path = format!("/2010-04-01/Accounts/{}/Conferences.json", rest.company.account_sid());
    Ok(page("conferences", &path, &query, &rooms))
}

pub(super) async fn fetch(State(rest): State<Rest>, Named(sid): Named) -> Answer {
    look(&rest, &sid, |room| Ok(Json(shown(&rest, room))))
}

pub(super) async fn update(State(rest): State<Rest>, Named(sid): Named, body: Bytes) -> Answer {
    let parameters = Parameters::read(&body);
    if parameters.get("AnnounceUrl").is_some() {
        return Err(RestError::bad(NOT_MODELLED, "AnnounceUrl is not modelled"));
    }
    if parameters.get("Status") == Some("completed") {
        rest.company.rooms(|rooms| {
            let name = rooms.name_of(&sid).map(str::to_owned);
            if let Some(name) = name {
                rooms.end(&name, Reason::ByApi, None);
            }
        });
    }
    look(&rest, &sid, |room| Ok(Json(shown(&rest, room))))
}

pub(super) async fn participants(
    State(rest): State<Rest>,
    Path((_, sid)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Parameters::read(query.unwrap_or_default().as_bytes());
    let found = look(&rest, &sid, |room| {
        let wanted = |one: &&Participant| {
            query.is("Muted").is_none_or(|muted| muted == one.muted)
                && query.is("Hold").is_none_or(|hold| hold == one.hold)
        };
        let of_room = room.participants.iter().filter(wanted);
        let shown = of_room.map(|one| shown_participant(&rest, &sid, one));
        Ok(shown.collect::<Vec<Value>>())
    })?;
    let account = rest.company.account_sid();
    let path = format!("/2010-04-01/Accounts/{account}/Conferences/{sid}/Participants.json");
    Ok(page("participants", &path, &query, &found))
}

pub(super) async fn participant(
    State(rest): State<Rest>,
    Path((_, sid, _)): Path<(String, String, String)>,
    Named(call): Named,
) -> Answer {
    look(&rest, &sid, |room| {
        let found = room.participants.iter().find(|one| one.call_sid == call);
        let found = found.ok_or_else(|| RestError::not_found("The requested participant"))?;
        Ok(Json(shown_participant(&rest, &sid, found)))
    })
}

pub(super) async fn update_participant(
    State(rest): State<Rest>,
    Path((_, sid, _)): Path<(String, String, String)>,
    Named(call): Named,
    body: Bytes,
) -> Answer {
    let parameters = Parameters::read(&body);
    for name in ["AnnounceUrl", "HoldUrl", "WaitUrl", "Coaching"] {
        if parameters.get(name).is_some() {
            return Err(RestError::bad(NOT_MODELLED, format!("{name} is not modelled")));
        }
    }
    let changed = rest.company.rooms(|rooms| {
        let one = rooms.participant_mut(&sid, &call)?;
        one.muted = parameters.is("Muted").unwrap_or(one.muted);
        one.hold = parameters.is("Hold").unwrap_or(one.hold);
        one.ends = parameters.is("EndConferenceOnExit").unwrap_or(one.ends);
        Some(shown_participant(&rest, &sid, one))
    });
    changed.map(Json).ok_or_else(|| RestError::not_found("The requested participant"))
}

pub(super) async fn kick(
    State(rest): State<Rest>,
    Path((_, sid, _)): Path<(String, String, String)>,
    Named(call): Named,
) -> Result<StatusCode, RestError> {
    rest.company
        .rooms(|rooms| {
            rooms.participant_mut(&sid, &call)?;
            let name = rooms.name_of(&sid)?.to_owned();
            rooms.leave(&name, &call, true);
            Some(StatusCode::NO_CONTENT)
        })
        .ok_or_else(|| RestError::not_found("The requested participant"))
}

fn look<T>(
    rest: &Rest,
    sid: &str,
    show: impl FnOnce(&Room) -> Result<T, RestError>,
) -> Result<T, RestError> {
    rest.company.rooms(|rooms| {
        let room = rooms.by_sid(sid);
        show(room.ok_or_else(|| RestError::not_found("The requested conference"))?)
    })
}

fn shown(rest: &Rest, room: &Room) -> Value {
    let account = rest.company.account_sid();
    let uri = format!("/2010-04-01/Accounts/{account}/Conferences/{}", room.sid);
    json!({
        "sid": room.sid,
        "account_sid": account,
        "friendly_name": room.name,
        "status": room.status(),
        "region": "us1",
        "date_created": rfc2822(room.created),
        "date_updated": rfc2822(room.updated),
        "api_version": "2010-04-01",
        "reason_conference_ended": room.ended.as_ref().map(|(reason, _)| reason.name()),
        "call_sid_ending_conference": room.ended.as_ref().and_then(|(_, by)| by.clone()),
        "uri": format!("{uri}.json"),
        "subresource_uris": {
            "participants": format!("{uri}/Participants.json"),
            "recordings": format!("{uri}/Recordings.json"),
        },
    })
}

fn shown_participant(rest: &Rest, room: &str, one: &Participant) -> Value {
    let account = rest.company.account_sid();
    let call = &one.call_sid;
    json!({
        "account_sid": account,
        "call_sid": call,
        "conference_sid": room,
        "label": one.label,
        "muted": one.muted,
        "hold": one.hold,
        "coaching": false,
        "call_sid_to_coach": null,
        "start_conference_on_enter": one.starts,
        "end_conference_on_exit": one.ends,
        "status": "connected",
        "queue_time": null,
        "date_created": rfc2822(one.joined),
        "date_updated": rfc2822(one.joined),
        "uri": format!(
            "/2010-04-01/Accounts/{account}/Conferences/{room}/Participants/{call}.json"
        ),
    })
}
