//! What must hold on every run, whatever else happens.

use std::fmt;

use serde::Serialize;

use crate::transcript::{Ending, Purpose, Transcript, WebhookStep};
use crate::webhook::overrides::TOTAL;

/// Something that must not happen, and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// On which call.
    pub call_sid: String,
    /// What.
    pub what: Fault,
    /// At which path, where it was a request.
    pub path: String,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A person got no answer that could be carried out, and heard Twilio's apology.
    Unanswered,
    /// A person waited longer than Twilio does.
    Late,
    /// A request was made again while the one before may still have been running.
    RanTwice,
    /// A report was not accepted.
    ReportRefused,
    /// A call went round in circles.
    Endless,
}

/// Everything on a call that must not happen.
pub fn breaches(transcript: &Transcript) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut note = |what: Fault, path: &str| {
        let call_sid = transcript.call_sid.clone();
        found.push(Breach { call_sid, what, path: path.to_owned() });
    };
    match transcript.ending {
        Ending::Apology(_) => {
            let last = transcript.documents().last().map_or("", |webhook| webhook.path.as_str());
            note(Fault::Unanswered, last);
        }
        Ending::Endless => note(Fault::Endless, ""),
        _ => {}
    }
    for webhook in transcript.webhooks() {
        for fault in faults(webhook) {
            note(fault, &webhook.path);
        }
    }
    found
}

/// What of a request must not happen, whether it belonged to a call or not.
pub fn faults(webhook: &WebhookStep) -> Vec<Fault> {
    let limit = u64::try_from(TOTAL.as_millis()).unwrap_or(u64::MAX);
    let accepted = webhook.status.is_some_and(|status| (200..300).contains(&status));
    [
        (webhook.purpose.is_waited_for() && webhook.took_ms >= limit, Fault::Late),
        (ran_twice(webhook), Fault::RanTwice),
        (webhook.purpose == Purpose::Status && !accepted, Fault::ReportRefused),
    ]
    .into_iter()
    .filter_map(|(happened, fault)| happened.then_some(fault))
    .collect()
}

/// Whether a request followed one that had been sent and that nothing had come back for.
fn ran_twice(webhook: &WebhookStep) -> bool {
    webhook.attempts.windows(2).any(|pair| pair[0].sent && pair[0].status.is_none())
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Fault::Unanswered => "a person got no answer",
            Fault::Late => "a person waited longer than Twilio does",
            Fault::RanTwice => "a request was repeated while the first may still have run",
            Fault::ReportRefused => "a report was not accepted",
            Fault::Endless => "the call went round in circles",
        };
        write!(f, "{}: {what} {}", self.call_sid, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::Step;
    use crate::webhook::Attempt;

    fn webhook(purpose: Purpose, status: Option<u16>, took_ms: u64) -> WebhookStep {
        let attempt = Attempt { at_ms: 0, took_ms, sent: true, status };
        WebhookStep {
            at_ms: 0,
            purpose,
            url: String::new(),
            path: "/x".into(),
            token: String::new(),
            status,
            answered_by: None,
            took_ms,
            error: None,
            attempts: vec![attempt],
        }
    }

    #[track_caller]
    fn check(ending: Ending, webhooks: Vec<WebhookStep>, expect: &[Fault]) {
        let transcript = Transcript {
            call_sid: "CA1".into(),
            parent_call_sid: None,
            from: "+1".into(),
            to: "+2".into(),
            direction: "inbound",
            steps: webhooks.into_iter().map(Step::Webhook).collect(),
            ending,
        };
        let found: Vec<Fault> = breaches(&transcript).into_iter().map(|b| b.what).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn what_must_not_happen_is_found() {
        let document = |took| webhook(Purpose::Document, Some(200), took);
        check(Ending::HungUp, vec![document(9000)], &[]);
        check(Ending::HungUp, vec![document(15_000)], &[Fault::Late]);
        check(Ending::Apology(11200), vec![document(1)], &[Fault::Unanswered]);
        check(Ending::Endless, vec![], &[Fault::Endless]);
        let report = |status| webhook(Purpose::Status, status, 1);
        check(Ending::HungUp, vec![report(Some(204))], &[]);
        check(Ending::HungUp, vec![report(Some(503))], &[Fault::ReportRefused]);
        check(Ending::HungUp, vec![report(None)], &[Fault::ReportRefused]);
    }

    #[test]
    fn a_retry_after_an_unanswered_request_may_have_run_twice() {
        let mut twice = webhook(Purpose::Document, Some(200), 1);
        let silent = Attempt { at_ms: 0, took_ms: 1, sent: true, status: None };
        twice.attempts.insert(0, silent.clone());
        check(Ending::HungUp, vec![twice.clone()], &[Fault::RanTwice]);
        twice.attempts[0] = Attempt { sent: false, ..silent };
        check(Ending::HungUp, vec![twice], &[]);
    }
}
