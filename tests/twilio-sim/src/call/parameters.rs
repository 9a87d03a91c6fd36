//! The parameters of a request (`twilio.com/docs/voice/twiml`, "Twilio's request to your
//! application").

use holdline_twilio::Form;

use super::Call;
use crate::company::lock;

// === impl Call ===

impl Call {
    /// The standard parameters, then those of the occasion.
    pub(super) fn parameters(&self, extra: &[(String, String)]) -> Form {
        let record = lock(&self.record).clone();
        let (from, to) = (record.from.as_str(), record.to.as_str());
        // What the network says of a caller is known of calls that come in only.
        let state = if record.direction == "inbound" { "CA" } else { "" };
        let mut form = Form::from_pairs([
            ("AccountSid", self.company.account_sid()),
            ("ApiVersion", "2010-04-01"),
            ("CallSid", record.sid.as_str()),
            ("CallStatus", record.status),
            ("Called", to),
            ("CalledCity", ""),
            ("CalledCountry", "US"),
            ("CalledState", ""),
            ("CalledZip", ""),
            ("Caller", from),
            ("CallerCity", ""),
            ("CallerCountry", "US"),
            ("CallerState", state),
            ("CallerZip", ""),
            ("Direction", record.direction),
            ("From", from),
            ("FromCity", ""),
            ("FromCountry", "US"),
            ("FromState", state),
            ("FromZip", ""),
            ("To", to),
            ("ToCity", ""),
            ("ToCountry", "US"),
            ("ToState", ""),
            ("ToZip", ""),
        ]);
        if record.direction == "inbound" {
            form.push("StirVerstat", "TN-Validation-Passed-A");
        }
        if let Some(parent) = &record.parent {
            form.push("ParentCallSid", parent);
        }
        if let Some(answered_by) = record.answered_by {
            form.push("AnsweredBy", answered_by);
        }
        for (name, value) in extra {
            form.push(name, value);
        }
        form
    }
}
