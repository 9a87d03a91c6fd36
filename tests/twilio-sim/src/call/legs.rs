//! Dialing others: they ring at once, the first to answer is connected, the rest are given up
//! (`twilio.com/docs/voice/twiml/dial`).

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use url::Url;

use super::conference::Stay;
use super::reports::last_status;
use super::{Call, Command, Endpoint, Flow, Next, Purpose, Step, follow, resolve};
use crate::company::{Handle, lock};
use crate::transcript::Ending;
use crate::twiml::{self, Dial, Leg, Verb, Whom};

/// What the call that dialed is told by the one it dialed.
#[derive(Debug)]
enum Told {
    Answered(usize),
    Over { leg: usize, status: &'static str },
}

// === impl Call ===

impl Call {
    /// Connects the call to others, and goes where the document says afterwards.
    pub(super) async fn dial(&mut self, dial: Dial, base: Option<&Url>) -> Flow<Option<Next>> {
        let status = |status: &str| vec![("DialCallStatus".to_owned(), status.to_owned())];
        let connected = match &dial.whom {
            Whom::Conference(conference) => {
                self.confer(&dial, conference, base).await.map(|stay| match stay {
                    Stay::Ended => status("answered"),
                    Stay::Failed => status("failed"),
                })
            }
            Whom::Legs(legs) => self.ring_legs(&dial, legs, base).await,
            Whom::Nobody => Ok(status("failed")),
        };
        match connected {
            Ok(mut extra) => {
                if dial.record {
                    extra.extend(self.recording());
                }
                Ok(dial.action.map(|action| follow(base, &action, extra)))
            }
            Err(next) => {
                self.ask_in_vain(&dial, base, &next).await;
                Err(next)
            }
        }
    }

    /// Redirected in the middle of a `Dial`, Twilio asks its action too, and heeds only the new
    /// document (measured, see `twilio.md` section 6).
    async fn ask_in_vain(&mut self, dial: &Dial, base: Option<&Url>, next: &Next) {
        let (Next::Redirected(_), Some(action)) = (next, &dial.action) else { return };
        let extra = vec![("DialCallStatus".to_owned(), "completed".to_owned())];
        if let Next::Document(fetch) = follow(base, action, extra) {
            // Whatever it says means nothing, an error included.
            let _ = self.fetch(Purpose::Disregarded, &fetch.endpoint, &fetch.extra).await;
            self.tell_last().await;
        }
    }

    async fn ring_legs(
        &mut self,
        dial: &Dial,
        legs: &[Leg],
        base: Option<&Url>,
    ) -> Flow<Vec<(String, String)>> {
        let (tell, mut told) = unbounded_channel();
        let handles: Vec<Handle> = legs
            .iter()
            .enumerate()
            .map(|(number, leg)| self.begin_leg(dial, leg, base, number, tell.clone()))
            .collect();
        drop(tell);
        let what =
            format!("[dials {}]", legs.iter().map(|leg| &*leg.to).collect::<Vec<_>>().join(", "));
        let at_ms = self.at_ms();
        self.note(Step::Heard { at_ms, what }).await;
        let _hung_up = HangUpLegs(&handles);
        let mut over = vec![false; legs.len()];
        let (mut connected, mut last) = (None, (0, "no-answer"));
        // The time runs once somebody is connected.
        let mut limit = self.after(f64::MAX);
        loop {
            tokio::select! {
                biased;
                event = told.recv() => match event {
                    Some(Told::Answered(leg)) if connected.is_none() => {
                        connected = Some((leg, Instant::now()));
                        limit = self.after(dial.time_limit as f64);
                        for (number, handle) in handles.iter().enumerate() {
                            if number != leg {
                                let _ = handle.commands.send(Command::End(Ending::ParentEnded));
                            }
                        }
                    }
                    Some(Told::Answered(_)) => {}
                    Some(Told::Over { leg, .. }) if connected.is_some_and(|(with, _)| with == leg) => {
                        return Ok(self.dialed(&handles, connected, last));
                    }
                    Some(Told::Over { leg, status }) => {
                        last = (leg, status);
                        over[leg] = true;
                        if over.iter().all(|over| *over) && connected.is_none() {
                            return Ok(self.dialed(&handles, connected, last));
                        }
                    }
                    None => return Ok(self.dialed(&handles, connected, last)),
                },
                command = self.command_before(limit) => match command? {
                    Some(Command::Press(keys)) if dial.hangup_on_star && keys.contains('*') => {
                        return Ok(self.dialed(&handles, connected, last));
                    }
                    Some(command) => self.obey(command)?,
                    None => return Ok(self.dialed(&handles, connected, last)),
                },
            }
        }
    }

    /// What the action of a `Dial` is told.
    fn dialed(
        &self,
        handles: &[Handle],
        connected: Option<(usize, Instant)>,
        (last, status): (usize, &'static str),
    ) -> Vec<(String, String)> {
        let (leg, status, seconds) = match connected {
            Some((leg, since)) => {
                let felt = since.elapsed().as_secs_f64() * self.company.speed();
                (leg, "completed", felt.round())
            }
            None => (last, status, 0.0),
        };
        let sid = lock(&handles[leg].record).sid.clone();
        vec![
            ("DialCallStatus".to_owned(), status.to_owned()),
            ("DialCallSid".to_owned(), sid),
            ("DialCallDuration".to_owned(), seconds.to_string()),
            ("DialBridged".to_owned(), connected.is_some().to_string()),
        ]
    }

    fn begin_leg(
        &mut self,
        dial: &Dial,
        leg: &Leg,
        base: Option<&Url>,
        number: usize,
        tell: UnboundedSender<Told>,
    ) -> Handle {
        let parent = lock(&self.record).clone();
        let from = dial.caller_id.clone().unwrap_or(parent.from);
        let dice = self.names.fork();
        let numbers = (from.as_str(), leg.to.as_str());
        let mut call =
            Call::new(&self.company, "outbound-dial", numbers, Some(parent.sid), None, dice);
        call.timeout = dial.timeout;
        call.tied = true;
        let endpoint = |target: &twiml::Target| {
            let url = resolve(base, &target.url)?;
            Some(Endpoint { url, method: target.method.clone() })
        };
        call.status = leg.callbacks.target.as_ref().and_then(endpoint);
        if !leg.callbacks.events.is_empty() {
            call.events.clone_from(&leg.callbacks.events);
        }
        let whisper = leg.url.as_ref().and_then(endpoint);
        let handle = call.handle();
        let busy = self.company.busy();
        tokio::spawn(async move {
            call.be_dialed(whisper, number, tell).await;
            drop(busy);
        });
        handle
    }

    /// The life of a call that was dialed by another.
    async fn be_dialed(
        mut self,
        whisper: Option<Endpoint>,
        number: usize,
        tell: UnboundedSender<Told>,
    ) {
        self.begun = tokio::time::Instant::now();
        let ending = match self.bridge(whisper, number, &tell).await {
            Ok(()) => Ending::HungUp,
            Err(Next::End(ending)) => ending,
            // Redirected, it goes its own way; the call that dialed it is alone.
            Err(next) => {
                let _ = tell.send(Told::Over { leg: number, status: "completed" });
                self.tied = false;
                self.walk(next).await
            }
        };
        let status = last_status(ending, lock(&self.record).answered.is_some());
        // The call that dialed it may be gone.
        let _ = tell.send(Told::Over { leg: number, status });
        self.end(ending).await;
    }

    async fn bridge(
        &mut self,
        whisper: Option<Endpoint>,
        number: usize,
        tell: &UnboundedSender<Told>,
    ) -> Flow<()> {
        self.ring().await?;
        if let Some(endpoint) = whisper {
            self.whisper(&endpoint).await?;
        }
        let _ = tell.send(Told::Answered(number));
        loop {
            self.pass(86_400.0).await?;
        }
    }

    /// What a dialed party hears before it is connected.
    async fn whisper(&mut self, endpoint: &Endpoint) -> Flow<()> {
        let script = self.fetch_script(Purpose::Document, endpoint, &[]).await;
        let checked = script
            .and_then(|script| twiml::check_whisper(&script).map(|()| script).map_err(|e| e.0));
        let script = checked.map_err(|code| Next::End(Ending::Apology(code)))?;
        for verb in script.verbs {
            match verb {
                Verb::Hangup => return Err(Next::End(Ending::HungUp)),
                verb => self.sound(&verb, Some(&endpoint.url)).await?,
            }
        }
        Ok(())
    }
}

/// Ends the dialed calls when the one that dialed them goes on.
struct HangUpLegs<'a>(&'a [Handle]);

impl Drop for HangUpLegs<'_> {
    fn drop(&mut self) {
        for handle in self.0 {
            // Those that are over do not hear it.
            let _ = handle.commands.send(Command::End(Ending::ParentEnded));
        }
    }
}
