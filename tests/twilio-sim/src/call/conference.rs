//! Being in a conference: waiting, talking, leaving (`twilio.com/docs/voice/twiml/conference`).

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use url::Url;

use super::{Call, Command, Endpoint, Flow, Next, Purpose, Step, resolve, script_of};
use crate::party::Act;
use crate::rooms::{Listener, RoomEvent, Shut};
use crate::transcript::Ending;
use crate::twiml::{self, Conference, Dial, Verb};

/// Error: a participant with this label is in the conference already.
const LABEL_TAKEN: u32 = 16025;
/// Warning: the conference is full.
const FULL: u32 = 13227;

/// How a stay in a conference ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// It was over, or it was left by star, or its time was.
    Ended,
    /// It was never joined.
    Failed,
}

// === impl Call ===

impl Call {
    pub(super) async fn confer(
        &mut self,
        dial: &Dial,
        conference: &Conference,
        base: Option<&Url>,
    ) -> Flow<Stay> {
        let target = conference.callbacks.target.as_ref();
        let listener = target.and_then(|target| {
            let url = resolve(base, &target.url)?;
            Some(Listener::new(url, target.method.clone(), conference.callbacks.events.clone()))
        });
        let sid = self.sid();
        let (seat, under_way, events) = match self.company.join(conference, &sid, listener) {
            Ok(joined) => joined,
            Err(shut) => {
                let code = if shut == Shut::LabelTaken { LABEL_TAKEN } else { FULL };
                self.note(Step::Warned { code }).await;
                return Ok(Stay::Failed);
            }
        };
        if !under_way && !self.wait_music(conference, base).await {
            return Ok(Stay::Failed);
        }
        let what = format!("[conference {}]", conference.room);
        let at_ms = self.at_ms();
        self.note(Step::Heard { at_ms, what }).await;
        let stay = self.stay(dial, under_way, events).await;
        drop(seat);
        stay
    }

    async fn stay(
        &mut self,
        dial: &Dial,
        under_way: bool,
        mut events: UnboundedReceiver<RoomEvent>,
    ) -> Flow<Stay> {
        if self.party.is_done() && self.leaves_at.is_none() && !self.guided {
            // Whoever has nothing left to do does not stay for ever.
            return Err(Next::End(Ending::PartyLeft));
        }
        let limit = self.after(dial.time_limit as f64);
        let joined = Instant::now();
        let mut since = under_way.then_some(joined);
        let mut plan = self.plan(joined, since);
        loop {
            let until = plan.unwrap_or(limit).min(limit);
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(RoomEvent::UnderWay) if since.is_none() => {
                        since = Some(Instant::now());
                        plan = plan.or_else(|| self.plan(joined, since));
                    }
                    Some(RoomEvent::UnderWay) => {}
                    Some(RoomEvent::Alone) => since = None,
                    Some(RoomEvent::Over) | None => return Ok(self.conference_over()),
                },
                command = self.command_before(until) => match command? {
                    Some(Command::Press(keys)) if keys.contains('*') => {
                        if self.press_star(dial).await { return Ok(Stay::Ended); }
                    }
                    Some(command) => self.obey(command)?,
                    None if until == limit => return Ok(self.conference_over()),
                    None => {
                        let waited = matches!(self.party.next_act(), Some(Act::Wait(_)));
                        let left = !waited && self.press_star(dial).await;
                        self.conference_act_done();
                        if left { return Ok(Stay::Ended); }
                        plan = self.plan(joined, since);
                    }
                },
            }
        }
    }

    /// When the person will do what is next for them in a conference they joined at one time, and in
    /// which they have had company since another.
    fn plan(&mut self, joined: Instant, since: Option<Instant>) -> Option<Instant> {
        let (from, span) = match self.party.next_act() {
            Some(Act::Wait(span)) => (Instant::now(), *span),
            Some(Act::Leave(span)) => (joined, *span),
            Some(Act::Talk(span)) => (since?, *span),
            Some(Act::Press { .. } | Act::HangUp(_)) | None => (since?, self.party.usual_talk()?),
        };
        let seconds = span.draw(&mut self.dice);
        Some(from + (self.after(seconds) - Instant::now()))
    }

    /// The person's plans for a conference end with it.
    fn conference_over(&mut self) -> Stay {
        if matches!(self.party.next_act(), Some(Act::Leave(_) | Act::Talk(_))) {
            self.act_done();
        }
        Stay::Ended
    }

    /// What was due in the conference is done; what is usual is not due but once more.
    fn conference_act_done(&mut self) {
        if matches!(self.party.next_act(), Some(Act::Wait(_) | Act::Leave(_) | Act::Talk(_))) {
            self.act_done();
        }
    }

    /// Whether star ends the stay.
    async fn press_star(&mut self, dial: &Dial) -> bool {
        let at_ms = self.at_ms();
        self.note(Step::Pressed { at_ms, keys: "*".into() }).await;
        dial.hangup_on_star
    }

    /// Fetches what is heard while nobody is there. If that fails, the conference is not joined.
    async fn wait_music(&mut self, conference: &Conference, base: Option<&Url>) -> bool {
        let Some(wait) = conference.wait.as_ref().filter(|wait| !wait.url.is_empty()) else {
            return true;
        };
        let Some(url) = resolve(base, &wait.url) else { return false };
        let endpoint = Endpoint { url, method: wait.method.clone() };
        let fetched = self.fetch(Purpose::Media, &endpoint, &[]).await;
        let fault = match fetched {
            Err(code) => Some(code),
            Ok(received) => match script_of(&received) {
                Err(code) => Some(code),
                Ok(script) => {
                    let heard = script.verbs.iter().any(|verb| !matches!(verb, Verb::Hangup));
                    let audio = matches!(
                        script.verbs.as_slice(),
                        [Verb::Play { url, .. }, Verb::Hangup] if url.is_empty()
                    );
                    let fits = audio || twiml::check_wait(&script).is_ok();
                    (!heard || !fits).then_some(twiml::VERB_IN_WAIT)
                }
            },
        };
        if let Some(code) = fault {
            self.mark_last(code);
        }
        self.tell_last().await;
        fault.is_none()
    }
}
