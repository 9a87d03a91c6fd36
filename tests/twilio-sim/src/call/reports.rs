//! Reports of a call's progress, and its end.
//!
//! Each is a request of its own, beside the call; nothing orders their arrival, which is why they are
//! numbered (`twilio.com/docs/voice/api/call-resource`, "StatusCallback").

use std::sync::Arc;

use jiff::Timestamp;

use super::{Call, Endpoint, Step};
use crate::company::{lock, rfc2822};
use crate::transcript::{Ending, Transcript};

// === impl Call ===

impl Call {
    /// Sends the report of an event, if it is wanted.
    pub(super) fn report(&mut self, event: &str, more: &[(String, String)]) {
        let Some(Endpoint { url, method }) = self.status.clone() else { return };
        if !self.events.iter().any(|wanted| wanted == event) {
            return;
        }
        let mut extra = vec![
            ("CallbackSource".to_owned(), "call-progress-events".to_owned()),
            ("Timestamp".to_owned(), rfc2822(Timestamp::now())),
            ("SequenceNumber".to_owned(), self.sequence.to_string()),
        ];
        if event == "initiated" {
            extra.push(("CallStatus".to_owned(), "initiated".to_owned()));
        }
        extra.extend_from_slice(more);
        self.sequence += 1;
        let mut form = self.parameters(&[]);
        for (name, value) in &extra {
            // The status of the event, not of the call, where they differ.
            if form.get(name).is_some() {
                let others = form.iter().filter(|(other, _)| other != name);
                form = holdline_twilio::Form::from_pairs(others);
            }
            form.push(name, value);
        }
        let (company, begun, dice) = (self.company.clone(), self.begun, self.names.fork());
        self.reports.spawn(async move { company.report(&url, method, &form, dice, begun).await });
    }

    /// Ends the call: its status, its last report, its transcript.
    pub(super) async fn end(mut self, ending: Ending) -> Transcript {
        let now = Timestamp::now();
        let (status, seconds) = {
            let mut record = lock(&self.record);
            record.status = last_status(ending, record.answered.is_some());
            record.ended = Some(now);
            record.updated = now;
            let talked = record.answered.map_or(0.0, |since| {
                (now.duration_since(since).as_secs_f64() * self.company.speed()).round()
            });
            (record.status, talked)
        };
        self.note(Step::Became { at_ms: self.at_ms(), status }).await;
        let code = match status {
            "completed" => "200",
            "busy" => "486",
            "no-answer" | "canceled" => "487",
            _ => "404",
        };
        self.report(
            "completed",
            &[
                ("CallDuration".to_owned(), seconds.to_string()),
                ("Duration".to_owned(), (seconds / 60.0).ceil().to_string()),
                ("SipResponseCode".to_owned(), code.to_owned()),
            ],
        );
        while let Some(steps) = self.reports.join_next().await {
            for step in steps.unwrap_or_default() {
                self.note(Step::Webhook(step)).await;
            }
        }
        let record = lock(&self.record).clone();
        let transcript = Transcript {
            call_sid: record.sid.clone(),
            parent_call_sid: record.parent,
            from: record.from,
            to: record.to,
            direction: record.direction,
            steps: std::mem::take(&mut self.steps),
            ending,
        };
        lock(&self.record).transcript = Some(Arc::new(transcript.clone()));
        self.company.ended(&transcript);
        transcript
    }
}

/// Twilio's status of a call that has ended.
pub(super) fn last_status(ending: Ending, answered: bool) -> &'static str {
    match ending {
        Ending::NotTaken(status) => status,
        Ending::Rejected { busy: true } => "busy",
        Ending::Rejected { busy: false } => "no-answer",
        _ if answered => "completed",
        Ending::EndedByApi | Ending::ParentEnded => "canceled",
        _ => "no-answer",
    }
}
