//! The beginning of a call that the application makes: it is queued, rings, and is taken or not.
//!
//! The order of events is that of `twilio.com/docs/voice/api/call-resource`; what machine detection
//! does is described there and in `twilio.com/docs/voice/answering-machine-detection`.

use jiff::Timestamp;

use super::{Call, Command, Endpoint, Flow, MachineDetection, Next, Step};
use crate::company::lock;
use crate::party::Pickup;
use crate::transcript::Ending;

/// How long a person or machine is listened to before it is told which it is, in seconds.
const DECISION: f64 = 4.0;
/// How long a machine's message lasts, in seconds.
const MESSAGE: f64 = 12.0;
/// Twilio lets it ring this much longer than asked for, in seconds.
const TIMEOUT_BUFFER: u64 = 5;

// === impl Call ===

impl Call {
    /// Rings until somebody answers; an end if nobody does.
    pub(super) async fn ring(&mut self) -> Flow<()> {
        let queued = self.company.queue_time();
        lock(&self.record).queued_for = queued;
        let begins = tokio::time::Instant::now() + queued;
        while let Some(command) = self.command_before(begins).await? {
            // A call that is canceled in the queue is not reported at all.
            if matches!(command, Command::End(_)) {
                self.events.clear();
            }
            self.obey_unanswered(command)?;
        }
        self.report("initiated", &[]);
        self.become_("ringing").await;
        self.report("ringing", &[]);
        let patience = (self.timeout + TIMEOUT_BUFFER) as f64;
        let (after, taken) = match self.pickup {
            Pickup::Human(span) | Pickup::Machine(span) => (span.draw(&mut self.dice), None),
            Pickup::Busy => (1.0, Some("busy")),
            Pickup::NoAnswer => (patience, Some("no-answer")),
            Pickup::Fails => (0.5, Some("failed")),
        };
        let until = self.after(after.min(patience));
        while let Some(command) = self.command_before(until).await? {
            self.obey_unanswered(command)?;
        }
        if let Some(status) = taken.or((after > patience).then_some("no-answer")) {
            return Err(Next::End(Ending::NotTaken(status)));
        }
        self.ends_at = Some(self.after(self.time_limit as f64));
        self.begin_act();
        self.answer().await;
        self.tell_machine_from_person().await
    }

    /// Before a call is answered, it can only be ended.
    fn obey_unanswered(&mut self, command: Command) -> Flow<()> {
        match command {
            Command::End(_) => Err(Next::End(Ending::NotTaken("canceled"))),
            Command::Redirect(redirect) => {
                if let Some(source) = self.take_over(*redirect) {
                    self.source = source;
                }
                Ok(())
            }
            other => self.obey(other),
        }
    }

    /// Somebody is on the line.
    pub(super) async fn answer(&mut self) {
        lock(&self.record).answered = Some(Timestamp::now());
        self.become_("in-progress").await;
        self.report("answered", &[]);
    }

    async fn tell_machine_from_person(&mut self) -> Flow<()> {
        let Some(detection) = self.machine.clone() else { return Ok(()) };
        let is_machine = matches!(self.pickup, Pickup::Machine(_));
        match detection {
            MachineDetection::Legacy { hang_up } => {
                self.pass(DECISION).await?;
                lock(&self.record).answered_by = Some(if is_machine { "machine" } else { "human" });
                if is_machine && hang_up {
                    return Err(Next::End(Ending::MachineLeft));
                }
            }
            MachineDetection::Present { message_end, asynchronous, waits } => {
                let (took, who) = match (is_machine, message_end) {
                    (false, _) => (DECISION, "human"),
                    (true, false) => (DECISION, "machine_start"),
                    (true, true) => (DECISION + MESSAGE, "machine_end_beep"),
                };
                if waits {
                    self.pass(took).await?;
                    lock(&self.record).answered_by = Some(who);
                } else {
                    self.decide_beside(took, who, asynchronous);
                }
            }
        }
        Ok(())
    }

    /// The decision comes while the call goes on, and is only told.
    fn decide_beside(&mut self, took: f64, who: &'static str, to: Option<Endpoint>) {
        let Some(endpoint) = to else { return };
        let extra = [
            ("AnsweredBy".to_owned(), who.to_owned()),
            ("MachineDetectionDuration".to_owned(), format!("{:.0}", took * 1000.0)),
        ];
        let form = self.parameters(&extra);
        let (company, at, record) = (self.company.clone(), self.after(took), self.record.clone());
        let (begun, dice) = (self.begun, self.names.fork());
        self.reports.spawn(async move {
            tokio::time::sleep_until(at).await;
            if lock(&record).ended.is_some() {
                return Vec::new();
            }
            lock(&record).answered_by = Some(who);
            company.report(&endpoint.url, endpoint.method, &form, dice, begun).await
        });
    }

    pub(super) async fn become_(&mut self, status: &'static str) {
        {
            let mut record = lock(&self.record);
            record.status = status;
            record.updated = Timestamp::now();
        }
        self.note(Step::Became { at_ms: self.at_ms(), status }).await;
    }
}
