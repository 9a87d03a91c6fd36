//! Conferences: who is in which, and what becomes of them.
//!
//! A conference is under way once two are in it and one of those who may start it has come; before,
//! and when only one is left, they hear waiting music. It ends when one who may end it leaves, when
//! the last one leaves, or by the REST API. Whether Twilio counts one who may start it alone as a
//! start is not documented; what is heard is the same.

use std::collections::{HashMap, VecDeque};

use http::Method;
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;
use url::Url;

use crate::twiml::Conference;

/// What a participant is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomEvent {
    /// Somebody can be talked to.
    UnderWay,
    /// Nobody is there any more.
    Alone,
    /// The conference is over, or the participant was taken out.
    Over,
}

/// Why a conference ended, in Twilio's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// One whose leaving ends it hung up or moved on.
    EndingParticipantLeft,
    /// One whose leaving ends it was taken out.
    EndingParticipantKicked,
    /// The last one was taken out.
    LastKicked,
    /// The last one left.
    LastLeft,
    /// By the REST API.
    ByApi,
}

/// One conference.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its identifier.
    pub sid: String,
    /// Its name.
    pub name: String,
    /// When it came to be.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Whether it was ever under way.
    pub started: bool,
    /// Why it ended, and by whose leaving.
    pub ended: Option<(Reason, Option<String>)>,
    /// Who is in it.
    pub participants: Vec<Participant>,
    listener: Option<Listener>,
}

/// Who is told about a conference: the first participant to name one decides.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where to, and how.
    pub url: Url,
    /// How.
    pub method: Method,
    /// Twilio's names of the events.
    pub events: Vec<String>,
    sequence: u64,
}

/// A report about a conference that is to be sent.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where to.
    pub url: Url,
    /// How.
    pub method: Method,
    /// The parameters.
    pub parameters: Vec<(&'static str, String)>,
}

/// One participant.
#[derive(Debug, Clone)]
pub struct Participant {
    /// Their call.
    pub call_sid: String,
    /// Their label.
    pub label: Option<String>,
    /// Whether they are not heard.
    pub muted: bool,
    /// Whether they are on hold.
    pub hold: bool,
    /// Whether they may start it.
    pub starts: bool,
    /// Whether it ends when they leave.
    pub ends: bool,
    /// When they joined.
    pub joined: Timestamp,
    events: UnboundedSender<RoomEvent>,
}

/// All conferences of an account.
#[derive(Debug, Default)]
pub struct Rooms {
    live: HashMap<String, Room>,
    past: VecDeque<Room>,
    reports: Vec<Report>,
}

/// Why somebody cannot join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// It is full.
    Full,
    /// Somebody in it has the same label (`twilio.com/docs/api/errors/16025`).
    LabelTaken,
}

/// Ended conferences that are remembered.
const MOST_PAST: usize = 1000;

// === impl Rooms ===

impl Rooms {
    /// Puts a participant in; says whether somebody can be talked to already. `sid` is for a new
    /// conference.
    pub fn join(
        &mut self,
        conference: &Conference,
        sid: impl FnOnce() -> String,
        call_sid: &str,
        listener: Option<Listener>,
        events: UnboundedSender<RoomEvent>,
    ) -> Result<bool, Shut> {
        let now = Timestamp::now();
        let room = self.live.entry(conference.room.clone()).or_insert_with(|| Room {
            sid: sid(),
            name: conference.room.clone(),
            created: now,
            updated: now,
            started: false,
            ended: None,
            participants: Vec::new(),
            listener: None,
        });
        if room.participants.len() >= conference.most {
            return Err(Shut::Full);
        }
        let same = |other: &Participant| other.label.is_some() && other.label == conference.label;
        if room.participants.iter().any(same) {
            return Err(Shut::LabelTaken);
        }
        room.participants.push(Participant {
            call_sid: call_sid.to_owned(),
            label: conference.label.clone(),
            muted: conference.muted,
            hold: false,
            starts: conference.starts,
            ends: conference.ends,
            joined: now,
            events,
        });
        room.updated = now;
        room.listener = room.listener.take().or(listener);
        let was_started = room.started;
        let may_start = room.started || room.participants.iter().any(|one| one.starts);
        room.started |= may_start && room.participants.len() > 1;
        if room.started {
            room.tell(RoomEvent::UnderWay);
        }
        let joined = room.participants.last().cloned();
        self.reports.extend(room.report("participant-join", joined.as_ref()));
        if room.started && !was_started {
            self.reports.extend(room.report("conference-start", None));
        }
        Ok(room.started)
    }

    /// Takes a participant out, if they are still in.
    pub fn leave(&mut self, name: &str, call_sid: &str, kicked: bool) {
        let Some(room) = self.live.get_mut(name) else { return };
        let Some(place) = room.participants.iter().position(|one| one.call_sid == call_sid) else {
            return;
        };
        let gone = room.participants.remove(place);
        room.updated = Timestamp::now();
        // They know if they left by themselves.
        let _ = gone.events.send(RoomEvent::Over);
        self.reports.extend(room.report("participant-leave", Some(&gone)));
        let reason = match (gone.ends, room.participants.is_empty(), kicked) {
            (true, _, false) => Reason::EndingParticipantLeft,
            (true, _, true) => Reason::EndingParticipantKicked,
            (false, true, false) => Reason::LastLeft,
            (false, true, true) => Reason::LastKicked,
            (false, false, _) => {
                if room.participants.len() == 1 {
                    room.tell(RoomEvent::Alone);
                }
                return;
            }
        };
        self.end(name, reason, Some(call_sid.to_owned()));
    }

    /// Ends a conference.
    pub fn end(&mut self, name: &str, reason: Reason, by: Option<String>) {
        let Some(mut room) = self.live.remove(name) else { return };
        room.tell(RoomEvent::Over);
        for gone in std::mem::take(&mut room.participants) {
            self.reports.extend(room.report("participant-leave", Some(&gone)));
        }
        room.ended = Some((reason, by));
        room.updated = Timestamp::now();
        self.reports.extend(room.report("conference-end", None));
        self.past.push_back(room);
        if self.past.len() > MOST_PAST {
            self.past.pop_front();
        }
    }

    /// The reports that have come up since this was last asked.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// The conference's name, while it is not over.
    pub fn name_of(&self, sid: &str) -> Option<&str> {
        self.live.values().find(|room| room.sid == sid).map(|room| room.name.as_str())
    }

    /// All of them, the newest first.
    pub fn all(&self) -> Vec<&Room> {
        let mut rooms: Vec<&Room> = self.live.values().chain(&self.past).collect();
        rooms.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.sid.cmp(&b.sid)));
        rooms
    }

    /// One of them.
    pub fn by_sid(&self, sid: &str) -> Option<&Room> {
        self.live.values().chain(&self.past).find(|room| room.sid == sid)
    }

    /// One participant of a conference that is not over, to be changed.
    pub fn participant_mut(&mut self, sid: &str, call_sid: &str) -> Option<&mut Participant> {
        let room = self.live.values_mut().find(|room| room.sid == sid)?;
        room.updated = Timestamp::now();
        room.participants.iter_mut().find(|one| one.call_sid == call_sid)
    }
}

// === impl Room ===

impl Room {
    /// Twilio's word for where it is in its life.
    pub fn status(&self) -> &'static str {
        match (&self.ended, self.started) {
            (Some(_), _) => "completed",
            (None, true) => "in-progress",
            (None, false) => "init",
        }
    }

    /// The report of an event, if somebody wants it (`twilio.com/docs/voice/twiml/conference`).
    fn report(&mut self, event: &str, participant: Option<&Participant>) -> Option<Report> {
        let short = event.trim_start_matches("conference-").trim_start_matches("participant-");
        let (sid, name) = (self.sid.clone(), self.name.clone());
        let ended = self.ended.clone();
        let listener = self.listener.as_mut()?;
        if !listener.events.iter().any(|wanted| wanted == short) {
            return None;
        }
        let mut parameters = vec![
            ("ConferenceSid", sid),
            ("FriendlyName", name),
            ("StatusCallbackEvent", event.to_owned()),
            ("SequenceNumber", listener.sequence.to_string()),
        ];
        listener.sequence += 1;
        if let Some((reason, by)) = ended {
            parameters.push(("ReasonConferenceEnded", reason.name().to_owned()));
            parameters.extend(by.map(|sid| ("CallSidEndingConference", sid)));
        }
        if let Some(one) = participant {
            let is = |flag: bool| flag.to_string();
            parameters.extend([
                ("CallSid", one.call_sid.clone()),
                ("Muted", is(one.muted)),
                ("Hold", is(one.hold)),
                ("Coaching", is(false)),
                ("StartConferenceOnEnter", is(one.starts)),
                ("EndConferenceOnExit", is(one.ends)),
            ]);
            parameters.extend(one.label.clone().map(|label| ("ParticipantLabel", label)));
        }
        Some(Report { url: listener.url.clone(), method: listener.method.clone(), parameters })
    }

    fn tell(&self, event: RoomEvent) {
        for participant in &self.participants {
            // Whoever has just gone need not know.
            let _ = participant.events.send(event);
        }
    }
}

// === impl Report ===

impl Report {
    /// Tells it from the reports of other conferences and events.
    pub fn name(&self) -> String {
        let values = self.parameters.iter().map(|(_, value)| value.as_str());
        values.collect::<Vec<_>>().join(" ")
    }
}

// === impl Listener ===

impl Listener {
    /// Somebody who wants these events.
    pub fn new(url: Url, method: Method, events: Vec<String>) -> Listener {
        Listener { url, method, events, sequence: 0 }
    }
}

// === impl Reason ===

impl Reason {
    /// Twilio's word.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::EndingParticipantLeft => "participant-with-end-conference-on-exit-left",
            Reason::EndingParticipantKicked => "participant-with-end-conference-on-exit-kicked",
            Reason::LastKicked => "last-participant-kicked",
            Reason::LastLeft => "last-participant-left",
            Reason::ByApi => "conference-ended-via-api",
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::twiml::{Callbacks, Conference};

    fn seat(starts: bool, ends: bool) -> Conference {
        Conference {
            room: "r".into(),
            muted: false,
            starts,
            ends,
            label: None,
            wait: None,
            most: 3,
            callbacks: Callbacks::default(),
        }
    }

    fn join(
        rooms: &mut Rooms,
        who: &str,
        seat: &Conference,
    ) -> (Result<bool, Shut>, UnboundedReceiver<RoomEvent>) {
        let (sender, receiver) = unbounded_channel();
        let url = Url::parse("http://edge.test/room").unwrap();
        let events = vec!["start".to_owned(), "end".to_owned()];
        let listener = Some(Listener::new(url, Method::POST, events));
        (rooms.join(seat, || "CF1".into(), who, listener, sender), receiver)
    }

    #[test]
    fn a_conference_starts_with_one_who_may_start_it_and_ends_with_one_who_ends_it() {
        let mut rooms = Rooms::default();
        let (alone, mut caller) = join(&mut rooms, "caller", &seat(false, true));
        assert_eq!(alone, Ok(false));
        let (waiting, _second) = join(&mut rooms, "second", &seat(false, false));
        assert_eq!(waiting, Ok(false));
        let (started, mut lead) = join(&mut rooms, "lead", &seat(true, true));
        assert_eq!(started, Ok(true));
        assert_eq!(caller.try_recv(), Ok(RoomEvent::UnderWay));
        assert_eq!(lead.try_recv(), Ok(RoomEvent::UnderWay));
        assert_eq!(join(&mut rooms, "fourth", &seat(true, true)).0, Err(Shut::Full));
        rooms.leave("r", "lead", false);
        assert_eq!(caller.try_recv(), Ok(RoomEvent::Over));
        assert_eq!(rooms.by_sid("CF1").unwrap().status(), "completed");
        assert_eq!(
            rooms.by_sid("CF1").unwrap().ended,
            Some((Reason::EndingParticipantLeft, Some("lead".into())))
        );
        let told: Vec<String> =
            rooms.take_reports().into_iter().map(|report| report.parameters[2].1.clone()).collect();
        assert_eq!(told, ["conference-start", "conference-end"]);
    }

    #[test]
    fn one_left_alone_hears_music_and_the_last_to_leave_ends_it() {
        let mut rooms = Rooms::default();
        let (_, mut one) = join(&mut rooms, "one", &seat(true, false));
        let (_, _two) = join(&mut rooms, "two", &seat(true, false));
        assert_eq!(one.try_recv(), Ok(RoomEvent::UnderWay));
        rooms.leave("r", "two", false);
        assert_eq!(one.try_recv(), Ok(RoomEvent::Alone));
        rooms.leave("r", "one", true);
        let (reason, _) = rooms.by_sid("CF1").unwrap().ended.clone().unwrap();
        assert_eq!(reason, Reason::LastKicked);
    }

    #[test]
    fn a_label_is_one_participants() {
        let mut rooms = Rooms::default();
        let labelled = Conference { label: Some("x".into()), ..seat(true, false) };
        assert!(join(&mut rooms, "one", &labelled).0.is_ok());
        assert_eq!(join(&mut rooms, "two", &labelled).0, Err(Shut::LabelTaken));
    }
}
