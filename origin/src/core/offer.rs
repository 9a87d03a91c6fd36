//! Numbers for callers: handed out, shown, decided about, and dialed.

use holdline_twilio::verbs::Response;
use serde_json::{Value, json};

use super::caller::{closed, conference, set_idle, set_stage};
use super::documents;
use super::fit::Unfit;
use super::state::{Household, LeadCall, Mode, Place, Session, Stage};
use super::step::{Effect, MovedTo, Run, Supply, Told, Want};

/// How often a caller is asked again whether to call somebody: a minute and a half in all.
const MOST_ASKED: u32 = 6;

/// The next number, or the conference of who waits.
pub(super) fn fresh(run: &mut Run<'_>, ends: bool) -> Told {
    let moved_to = std::mem::replace(&mut run.state.moved_to, MovedTo::Nobody);
    if moved_to == MovedTo::Nothing {
        return Ok(closed(run, Unfit::NoCampaign, ends));
    }
    let was_moved = moved_to != MovedTo::Nobody;
    if let MovedTo::Campaign(campaign) = moved_to {
        if let Some(session) = &mut run.state.session {
            session.campaign_id = campaign.id;
        }
        run.state.campaign = campaign;
    }
    if let Err(reason) = run.gate() {
        return Ok(closed(run, reason, ends));
    }
    if run.state.campaign.mode == Mode::Predictive {
        set_stage(run, Stage::Waiting);
        tell_next(run, was_moved, None);
        let Some(session) = run.state.session.clone() else { return Ok(run.hang_up()) };
        return Ok(conference(run, &session));
    }
    let Some(session) = run.state.session.clone() else { return Ok(run.hang_up()) };
    let campaign = run.state.campaign.id;
    match std::mem::replace(&mut run.supply, Supply::NotAsked) {
        Supply::Number(household) => Ok(handed_out(run, &household, was_moved)),
        Supply::None => {
            set_idle(run);
            if session.phones_only {
                return Ok(documents::out_of_numbers());
            }
            tell_next(run, was_moved, Some(json!({ "campaign_out_of_leads": true })));
            Ok(conference(run, &session))
        }
        _ if session.phones_only => Err(Want::AnyNumber(campaign)),
        _ => Err(Want::GoodNumber(campaign)),
    }
}

/// A household was handed out to the caller.
fn handed_out(run: &mut Run<'_>, household: &Household, was_moved: bool) -> Response {
    run.state.household_before = run.state.household.replace(household.clone());
    let Some(session) = &mut run.state.session else { return run.hang_up() };
    if household.next_lead().is_none() {
        // Nobody is left to call there: it stays handed out until it is looked at again, and the caller
        // gets another.
        session.free();
        let session = session.clone();
        return documents::next_call(run.context.links, &session);
    }
    (session.stage, session.household, session.call) = (Stage::Offered, Some(household.id), None);
    let session = session.clone();
    let shown = shown(household);
    tell_next(run, was_moved, Some(shown));
    offer(run, &session, household)
}

/// What a browser is told of the next number.
fn tell_next(run: &mut Run<'_>, was_moved: bool, shown: Option<Value>) {
    let campaign = &run.state.campaign;
    let mut data = shown.unwrap_or_else(|| json!({}));
    data["dialer"] = campaign.mode.name().into();
    if was_moved {
        data["campaign_name"] = campaign.name.clone().into();
        data["campaign_id"] = campaign.id.into();
        data["campaign_type"] = campaign.mode.name().into();
    }
    let name = match (was_moved, campaign.mode) {
        (true, _) => "caller_reassigned",
        (false, Mode::Predictive) => "caller_connected_dialer",
        (false, _) => "conference_started",
    };
    run.tell(name, data);
}

/// What a browser is shown of a household.
pub(super) fn shown(household: &Household) -> Value {
    let members = household.leads.iter().filter(|lead| !lead.completed).map(|lead| {
        let fields = json!({
            "first_name": lead.first_name, "last_name": lead.last_name, "custom_id": lead.custom_id,
        });
        json!({ "id": lead.id, "fields": fields, "custom_fields": {} })
    });
    json!({ "phone": household.phone, "members": members.collect::<Vec<_>>() })
}

pub(super) fn offer(run: &Run<'_>, session: &Session, household: &Household) -> Response {
    let (links, phone) = (run.context.links, &household.phone);
    let Some(lead) = household.next_lead() else { return documents::next_call(links, session) };
    match (session.phones_only, run.state.campaign.mode) {
        (false, _) => conference(run, session),
        (true, Mode::Preview) => documents::offer(links, session, phone, lead, 0),
        (true, _) => documents::call_next(links, session, phone, lead),
    }
}

/// The caller decides about what was offered: once, however often the decision is told.
pub(super) fn decide(
    run: &mut Run<'_>,
    session: &Session,
    phone: Option<&str>,
    digits: Option<&str>,
    asked: u32,
) -> Told {
    let links = run.context.links;
    let household = run.state.household.clone().filter(|household| {
        session.stage == Stage::Offered && phone.is_none_or(|phone| phone == household.phone)
    });
    if household.as_ref().is_some_and(|household| household.place != Place::Presented) {
        // It was blocked meanwhile.
        set_idle(run);
        return Ok(documents::ready_to_call(links, session));
    }
    match (household, digits) {
        (Some(household), None | Some("*")) => Ok(match run.gate() {
            Ok(()) => dial(run, &household),
            Err(reason) => {
                release(run);
                closed(run, reason, true)
            }
        }),
        (Some(_), Some("#")) => {
            set_idle(run);
            Ok(documents::ready_to_call(links, session))
        }
        // Nobody decides: it may be that nobody is there.
        (Some(_), Some("")) if asked >= MOST_ASKED => {
            release(run);
            set_idle(run);
            Ok(documents::to_menu(links, session))
        }
        (Some(household), Some(_)) => Ok(match household.next_lead() {
            Some(lead) => documents::offer(links, session, &household.phone, lead, asked + 1),
            None => documents::next_call(links, session),
        }),
        // Decided already: it is being called.
        (None, _) if session.stage == Stage::Dialing => Ok(conference(run, session)),
        (None, _) => Ok(documents::ready_to_call(links, session)),
    }
}

/// Calls the household.
fn dial(run: &mut Run<'_>, household: &Household) -> Response {
    let Some(session) = &mut run.state.session else { return documents::hang_up() };
    let id = run.context.fresh_id;
    (session.stage, session.call) = (Stage::Dialing, Some(id));
    let session = session.clone();
    run.state.call = Some(LeadCall::new(id, session.campaign_id, household, Some(session.id)));
    run.tell("calling_voter", json!({}));
    run.then(Effect::Dial(id));
    conference(run, &session)
}

/// The browser orders what is offered to be dialed; anything else is a repetition. A caller who may not
/// call now is led on, to where the reason is said.
pub(super) fn dial_ordered(run: &mut Run<'_>, session: &Session, phone: &str) -> Response {
    let offered = run
        .state
        .household
        .clone()
        .filter(|household| session.stage == Stage::Offered && household.phone == phone);
    match offered {
        Some(household) if run.gate().is_ok() => dial(run, &household),
        Some(_) => {
            release(run);
            set_idle(run);
            run.then(Effect::MoveOn(session.id));
            documents::hang_up()
        }
        None => documents::hang_up(),
    }
}

/// Puts a household that was not called back, behind all others.
pub(super) fn release(run: &mut Run<'_>) {
    if let Some(household) = &mut run.state.household
        && household.place == Place::Presented
    {
        household.place = Place::Available;
    }
}
