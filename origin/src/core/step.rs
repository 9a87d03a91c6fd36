//! One step of the call logic: from a state and an event to the next state, to what has to be done
//! besides, and to what Twilio is told.
//!
//! A step is pure. What it cannot know before it is under way, which number comes next or which caller
//! has waited longest, it asks for by ending with a [`Want`]; the same step is then taken again from the
//! same state with the supply. Asking for nothing it changes nothing, so that whoever supplies need not
//! know when a number is due.
//!
//! A repeated event finds the state that the first one left, and every rule is written from the state:
//! a number is handed out only to a session that has none, a household is dialed once for each time it
//! was handed out, a leg is decided upon once. That, and not a memory of requests, is what makes steps
//! harmless to repeat.

use holdline_twilio::verbs::Response;
use jiff::Timestamp;
use serde_json::Value;

use super::fit::{self, Unfit};
use super::links::Links;
use super::state::{
    Answer, CallStage, Campaign, Household, LeadCall, Outcome, Place, Question, Session, Stage,
};
use super::{caller, documents, lead};

/// All that a step may look at and change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The caller's session, if there is one.
    pub session: Option<Session>,
    /// The call to a lead that it is about.
    pub call: Option<LeadCall>,
    /// The household that is offered, or called.
    pub household: Option<Household>,
    /// The household before that one.
    pub household_before: Option<Household>,
    /// The campaign.
    pub campaign: Campaign,
    /// Whom the caller was moved to meanwhile.
    pub moved_to: MovedTo,
    /// The script's questions, in order.
    pub questions: Vec<Question>,
    /// What was keyed about the call.
    pub answers: Vec<Answer>,
}

/// Whom a caller was moved to in the course of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MovedTo {
    /// Nobody: the caller stays.
    Nobody,
    /// Another campaign.
    Campaign(Campaign),
    /// No campaign: there is nobody to call for, or the caller is not to call any more.
    Nothing,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A key was pressed in the menu; empty: the menu was asked for.
    Menu(String),
    /// The caller is ready for the next number. Whether a closed gate ends the session.
    Ready {
        /// It does.
        ends: bool,
    },
    /// The caller decides about the household that was offered; `None`: it is dialed at once.
    Decide {
        /// The number that the decision is about, where it says so.
        phone: Option<String>,
        /// The key.
        digits: Option<String>,
        /// How often that was asked before.
        asked: u32,
    },
    /// The caller waits for whoever answers.
    Wait,
    /// The caller has left the conference, or comes from a question.
    Question {
        /// The call that is asked about, where the request says so.
        call: Option<i64>,
        /// The number of the question.
        number: usize,
        /// Whether nothing was keyed to any question before it.
        silent: bool,
    },
    /// An answer was keyed.
    Keyed {
        /// The call that was asked about, where the request says so.
        call: Option<i64>,
        /// The question.
        question_id: i64,
        /// Its number.
        number: usize,
        /// Whether nothing was keyed to any question before it.
        silent: bool,
        /// The keys.
        digits: String,
    },
    /// A web caller has left the conference.
    Pause {
        /// In which turn, where the request says so.
        turn: Option<i64>,
        /// Whether the leg is over.
        over: bool,
    },
    /// The browser orders the household that is offered to be dialed.
    DialOrdered {
        /// The number.
        phone: String,
    },
    /// The caller's session is closed, and why is said.
    Prohibited(Reason),
    /// The caller's leg is over.
    SessionEnded {
        /// How long it was up, in seconds, where that is said.
        duration_s: Option<i64>,
    },
    /// The same browser page has come in on another leg.
    Replaced,
    /// The recording that a caller wanted to leave could not be played.
    MessageFailed {
        /// The call to the lead who was to hear it.
        call: i64,
        /// Why.
        why: String,
    },
    /// Nothing has happened in a session for a while, whose leg is up.
    Silent,
    /// A lead's leg was answered.
    Answered {
        /// Twilio's word for who.
        by: Option<String>,
        /// Whether the leg is still up.
        in_progress: bool,
        /// The leg.
        call_sid: String,
    },
    /// The lead has left the conference.
    Disconnected {
        /// The recording, and its seconds.
        recording: Option<(String, i64)>,
    },
    /// The recording is played to the lead.
    MessagePlayed,
    /// A caller orders the recording to be played.
    MessageOrdered,
    /// A lead's leg is over.
    LegEnded(LegEnd),
    /// What became of the order to call.
    Placed(Placed),
    /// An edge hung up on whoever picked up.
    HungUpOn,
    /// A lead was let go who was alone in the conference: the caller had just left it.
    LeftAlone,
    /// An answer has come in that was keyed earlier.
    AnswerCameLate,
}

/// Why a session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Whatever closes the gate now.
    Gate,
    /// Nobody is left.
    OutOfNumbers,
    /// The hours.
    Hours,
    /// The funds.
    Funds,
}

/// How a lead's leg ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegEnd {
    /// The leg, where it is known.
    pub call_sid: Option<String>,
    /// Twilio's status.
    pub status: String,
    /// Who answered, where that was detected.
    pub answered_by: Option<String>,
    /// How long it lasted, in seconds.
    pub duration_s: Option<i64>,
    /// The number that was called.
    pub to: String,
}

/// What became of the order to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// Twilio calls; the leg.
    Taken(String),
    /// Twilio refuses the number.
    NumberRefused,
    /// Twilio refuses for another reason, or cannot be reached.
    Refused,
    /// It was not to be dialed any more: given up, or outside the hours.
    NotSent,
}

/// What has to be done besides.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Twilio is to place this call.
    Dial(i64),
    /// This call is to be ended.
    HangUp(i64),
    /// The same, after a while, if it is not over by then: the caller has left a conference that the lead
    /// may have come into just now.
    LetGo(i64),
    /// The caller's own leg is to be ended.
    EndCaller(i64),
    /// The caller of this session is to be led on.
    MoveOn(i64),
    /// The same, after a while, if the caller has not come from the conference by then: a lead who was
    /// gone before joining it has not ended it.
    Part(i64),
    /// The recording is to be played to the lead of this call.
    PlayMessage(i64),
    /// The caller of this session is to hear that it could not be.
    SayMessageFailed(i64),
    /// A browser is told something.
    Tell {
        /// Which.
        channel: String,
        /// What happened.
        name: &'static str,
        /// With what.
        data: Value,
    },
    /// An answer is to be kept.
    Keep {
        /// The call that was asked about.
        call: i64,
        /// The question.
        question_id: i64,
        /// What was keyed.
        digits: String,
    },
}

/// What a step needs before it can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The next number of this campaign, whether or not anybody is left to call there.
    AnyNumber(i64),
    /// The next number of this campaign that somebody is left to call at.
    GoodNumber(i64),
    /// The caller of this campaign who has waited longest.
    Caller(i64),
}

/// What was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supply {
    /// Nothing was asked for yet.
    NotAsked,
    /// A household, which is this session's now.
    Number(Household),
    /// A caller, who waits no more.
    Caller(Session),
    /// There is none.
    None,
}

/// Where and when a step is taken.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// Where documents lead.
    pub links: &'c Links,
    /// When it is.
    pub now: Timestamp,
    /// An id for a call that the step may make.
    pub fresh_id: i64,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The state now.
    pub state: State,
    /// What has to be done besides.
    pub effects: Vec<Effect>,
    /// What Twilio is told.
    pub document: Response,
}

/// A step under way.
pub(super) struct Run<'c> {
    pub(super) state: State,
    pub(super) supply: Supply,
    pub(super) context: Context<'c>,
    pub(super) effects: Vec<Effect>,
}

/// A step's document, or what it needs first.
pub(super) type Told = Result<Response, Want>;

/// Takes a step. Fails with what it needs first, where it needs anything.
pub fn step(
    state: State,
    event: &Event,
    supply: Supply,
    context: Context<'_>,
) -> Result<Step, Want> {
    let mut run = Run { state, supply, context, effects: Vec::new() };
    let document = match event {
        Event::Menu(_)
        | Event::Ready { .. }
        | Event::Decide { .. }
        | Event::Wait
        | Event::Question { .. }
        | Event::Keyed { .. }
        | Event::Pause { .. }
        | Event::DialOrdered { .. }
        | Event::Prohibited(_)
        | Event::SessionEnded { .. }
        | Event::Replaced
        | Event::Silent
        | Event::MessageFailed { .. } => caller::step(&mut run, event)?,
        _ => lead::step(&mut run, event)?,
    };
    Ok(Step { state: run.state, effects: run.effects, document })
}

// === impl Run ===

impl Run<'_> {
    /// Whether the campaign may be called now.
    pub(super) fn gate(&self) -> Result<(), Unfit> {
        gate(&self.state.campaign, self.context.now)
    }

    pub(super) fn then(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Tells the browser of the session something, if there is one.
    pub(super) fn tell(&mut self, name: &'static str, data: Value) {
        let web = self.state.session.as_ref().filter(|session| !session.phones_only);
        if let Some(channel) = web.map(|session| session.key.clone()) {
            self.then(Effect::Tell { channel, name, data });
        }
    }

    /// Ends the session. A lead who is still being called for it is let go.
    pub(super) fn end_session(&mut self) {
        let Some(session) = self.state.session.as_mut().filter(|session| session.on_call()) else {
            return;
        };
        let (key, stage) = (session.key.clone(), session.stage);
        let call = session.call;
        session.free();
        session.stage = Stage::Ended;
        // Whether it rings, or was put through to a conference that nobody is in any more.
        // But for one that a recording plays to.
        let own = self.state.call.as_ref().filter(|own| Some(own.id) == call);
        if own.is_some_and(|own| own.outcome != Some(Outcome::Delivered)) {
            self.give_up_call();
        }
        // What was keyed before the caller hung up counts; who was not asked anything is called again.
        if matches!(stage, Stage::Parting | Stage::Survey) && !self.state.answers.is_empty() {
            lead::dispose(&mut self.state);
        }
        self.tell("caller_disconnected", serde_json::json!({ "pusher_key": key }));
    }

    /// Ends a call that nobody waits for any more.
    pub(super) fn give_up_call(&mut self) {
        let open = self.state.call.as_mut().filter(|call| call.stage != CallStage::Over);
        if let Some(call) = open {
            call.given_up = true;
            let id = call.id;
            self.then(Effect::HangUp(id));
        }
    }

    /// Leads the caller of a call that came to nothing on to the next one.
    pub(super) fn move_on(&mut self) {
        let call = self.state.call.as_ref().map(|call| call.id);
        let waits = |session: &&mut Session| {
            session.stage == Stage::Dialing && call.is_some() && session.call == call
        };
        if let Some(session) = self.state.session.as_mut().filter(waits) {
            session.free();
            let id = session.id;
            self.then(Effect::MoveOn(id));
        }
    }

    /// Puts the household of a call that came to nothing back.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        let campaign = &self.state.campaign;
        let back = self.state.household.as_ref().map(|household| household.place_after(campaign));
        let place =
            if outcome == Outcome::Failed { Place::Failed } else { back.unwrap_or(Place::Bin) };
        self.settle_at(outcome, place);
    }

    /// Puts the household of a call that came to nothing to a place; one that was put somewhere else
    /// meanwhile, as a blocked one is, stays there.
    pub(super) fn settle_at(&mut self, outcome: Outcome, place: Place) {
        let state = &mut self.state;
        let (Some(call), Some(household)) = (&mut state.call, &mut state.household) else { return };
        call.outcome = Some(outcome);
        if call.settled {
            return;
        }
        call.settled = true;
        household.status = outcome.name().to_owned();
        if household.place == Place::Presented {
            household.place = place;
        }
    }

    /// The end of a call without a word.
    pub(super) fn hang_up(&self) -> Response {
        documents::hang_up()
    }
}

/// Whether a campaign may be called at `now`.
pub fn gate(campaign: &Campaign, now: Timestamp) -> Result<(), Unfit> {
    if campaign.active {
        fit::may_dial(&campaign.quota, &campaign.hours, now)
    } else {
        Err(Unfit::NoCampaign)
    }
}

// === impl Household ===

impl Household {
    /// Where a household goes after a call: it is called again if somebody is left to call, unless all
    /// it was to get is the recording, and that was left.
    pub(super) fn place_after(&self, campaign: &Campaign) -> Place {
        let somebody = self.next_lead().is_some();
        let message =
            campaign.message.is_none() || campaign.call_back_after_message || !self.message_left;
        if somebody && message { Place::Bin } else { Place::Completed }
    }
}
