//! What is done with a request that Twilio sends because another one failed.
//!
//! Only where the failure says that the first request never got here is it done; even then it may have
//! (a slow answer looks the same to Twilio), which is why every step can be repeated.

use holdline_twilio::Form;

/// Errors after which the request is done begin so: of the way to us. The request may not have arrived.
const TRANSPORT: &str = "112";
/// So does Twilio's own failure.
const TWILIOS_OWN: &str = "12400";

/// What failed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'f> {
    /// Twilio's number for it.
    pub code: &'f str,
    /// The URL that was asked.
    pub url: &'f str,
}

/// Who waits for the answer, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A lead: hung up on.
    Lead,
    /// A caller: asked to dial in again.
    Caller,
    /// A web caller whose conference has ended: the session is over.
    Pausing,
    /// Whoever it is, the answer costs nothing or is the end: it is done.
    Anybody,
}

/// What is answered instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// Hung up.
    HangUp,
    /// Asked to dial in again.
    DialInAgain,
    /// The session is ended, and hung up.
    EndSession,
}

// === impl Failure ===

impl<'f> Failure<'f> {
    /// The step that was asked for: the last part of the URL's path.
    pub fn step(&self) -> &'f str {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// The parameters of the URL; none where they cannot be read.
    pub fn query(&self) -> Form {
        let url = self.url.split('#').next().unwrap_or_default();
        let query = url.split_once('?').map_or("", |(_, query)| query);
        Form::parse(query.as_bytes()).unwrap_or_default()
    }
}

/// What failed before this request; both parameters have to be there, since recordings are reported
/// with an `ErrorCode` as well.
pub fn failure(form: &Form) -> Option<Failure<'_>> {
    Some(Failure { code: form.filled("ErrorCode")?, url: form.filled("ErrorUrl")? })
}

/// What a request is answered instead of being done; none: it is done. `switch` says whether requests
/// after a failure are done at all.
pub fn instead(failure: Failure<'_>, asker: Asker, switch: bool) -> Option<Instead> {
    let transport = failure.code.len() == 5 && failure.code.starts_with(TRANSPORT);
    if switch && (transport || failure.code == TWILIOS_OWN) {
        return None;
    }
    match asker {
        Asker::Lead => Some(Instead::HangUp),
        Asker::Caller => Some(Instead::DialInAgain),
        Asker::Pausing => Some(Instead::EndSession),
        Asker::Anybody => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, asker: Asker, switch: bool, expect: Option<Instead>) {
        let form = Form::from_pairs([("ErrorCode", code), ("ErrorUrl", "http://a/b")]);
        assert_eq!(instead(failure(&form).unwrap(), asker, switch), expect, "{code}");
    }

    #[test]
    fn only_what_never_arrived_is_done() {
        for code in ["11200", "11201", "11205", "11210", "11217", "12400"] {
            check(code, Asker::Lead, true, None);
            check(code, Asker::Lead, false, Some(Instead::HangUp));
        }
        for code in ["11100", "12100", "13201", "112", "0"] {
            check(code, Asker::Lead, true, Some(Instead::HangUp));
            check(code, Asker::Caller, true, Some(Instead::DialInAgain));
            check(code, Asker::Pausing, true, Some(Instead::EndSession));
            check(code, Asker::Anybody, true, None);
        }
    }

    #[test]
    fn an_error_code_alone_is_no_failure() {
        for pairs in
            [[("ErrorCode", "0"), ("ErrorUrl", "")], [("ErrorCode", ""), ("ErrorUrl", "x")]]
        {
            assert_eq!(failure(&Form::from_pairs(pairs)), None);
        }
    }
}
