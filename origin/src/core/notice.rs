//! What a notice of the edge means: which of what was said to it in our place has to be made good.

use holdline_twilio::Form;

use super::is_machine;

/// A notice, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `answered-without-origin` or `late-answer-not-fetched`.
    pub what: String,
    /// The catalogue's row.
    pub row: String,
    /// The call.
    pub call: Option<String>,
    /// The delivery id of the visit.
    pub delivery: String,
    /// When the visit came (RFC 3339).
    pub at: String,
    /// Its path and query.
    pub target: String,
    /// Its parameters.
    pub sent: Form,
    /// Who answered: `canned`, `hold`, `monitor`, `origin`.
    pub answered_by: String,
    /// With what.
    pub answer: String,
}

/// What has to be made good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A caller's answer to a question was not stored.
    Answer(Keyed),
    /// A person picked up, and was hung up on; our own name of the call, where the request had it.
    AbandonedLead(Option<i64>),
    /// Nothing.
    Noted,
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The call that was asked about, where the request named it.
    pub call_id: Option<i64>,
    /// The question.
    pub question_id: i64,
    /// The lead; empty where none was named.
    pub voter_id: String,
    /// What was keyed.
    pub digits: String,
}

// === impl Notice ===

impl Notice {
    /// Reads the parameters of a notice; none if one that it needs is missing.
    pub fn read(form: &Form) -> Option<Notice> {
        let text = |name: &str| form.get(name).unwrap_or_default().to_owned();
        Some(Notice {
            what: form.filled("Notice")?.to_owned(),
            row: form.filled("Row")?.to_owned(),
            call: form.filled("CallSid").map(str::to_owned),
            delivery: form.filled("Delivery")?.to_owned(),
            at: text("At"),
            target: form.filled("Target")?.to_owned(),
            sent: Form::parse(text("Sent").as_bytes()).unwrap_or_default(),
            answered_by: text("AnsweredBy"),
            answer: text("Answer"),
        })
    }

    /// What has to be made good.
    pub fn meaning(&self) -> Meaning {
        if self.what != "answered-without-origin" {
            return Meaning::Noted;
        }
        match self.row.as_str() {
            "submit_response" => self.keyed().map_or(Meaning::Noted, Meaning::Answer),
            // The monitor, which is our twin, has connected whoever could be connected.
            "lead_answered"
                if self.answered_by == "canned" && !is_machine(self.sent.get("AnsweredBy")) =>
            {
                let name =
                    self.target.strip_prefix("/calls/").and_then(|rest| rest.split('/').next());
                Meaning::AbandonedLead(name.and_then(|name| name.parse().ok()))
            }
            _ => Meaning::Noted,
        }
    }

    fn keyed(&self) -> Option<Keyed> {
        let (_, query) = self.target.split_once('?')?;
        let query = Form::parse(query.as_bytes()).ok()?;
        Some(Keyed {
            call_id: query.get("call_id").and_then(|id| id.parse().ok()),
            question_id: query.get("question_id")?.parse().ok()?,
            voter_id: query.get("voter_id").unwrap_or_default().to_owned(),
            digits: self.sent.filled("Digits")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(row: &str, what: &str, by: &str, target: &str, sent: &str, expect: &Meaning) {
        let form = Form::from_pairs([
            ("Notice", what),
            ("Row", row),
            ("Delivery", "d"),
            ("Target", target),
            ("Sent", sent),
            ("AnsweredBy", by),
        ]);
        assert_eq!(Notice::read(&form).unwrap().meaning(), *expect);
    }

    #[test]
    fn what_a_notice_means() {
        const WITHOUT: &str = "answered-without-origin";
        let submit = "/caller/3/submit_response?session_id=7&question_id=2&voter_id=9&call_id=5";
        let keyed =
            Keyed { call_id: Some(5), question_id: 2, voter_id: "9".into(), digits: "1".into() };
        let answer = Meaning::Answer(keyed);
        check("submit_response", WITHOUT, "canned", submit, "Digits=1", &answer);
        check("submit_response", WITHOUT, "hold", submit, "Digits=1&From=x", &answer);
        check("submit_response", WITHOUT, "canned", submit, "Digits=", &Meaning::Noted);
        check("submit_response", WITHOUT, "canned", "/x", "Digits=1", &Meaning::Noted);
        check(
            "submit_response",
            "late-answer-not-fetched",
            "origin",
            submit,
            "Digits=1",
            &Meaning::Noted,
        );
        let incoming = "/calls/7/incoming";
        check("lead_answered", WITHOUT, "canned", incoming, "", &Meaning::AbandonedLead(Some(7)));
        check(
            "lead_answered",
            WITHOUT,
            "canned",
            incoming,
            "AnsweredBy=human",
            &Meaning::AbandonedLead(Some(7)),
        );
        check("lead_answered", WITHOUT, "canned", incoming, "AnsweredBy=machine", &Meaning::Noted);
        check("lead_answered", WITHOUT, "monitor", incoming, "", &Meaning::Noted);
        check("pause", WITHOUT, "canned", "/x", "", &Meaning::Noted);
        assert_eq!(Notice::read(&Form::default()), None);
    }
}
