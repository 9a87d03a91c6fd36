//! A call as a live thing: it fetches documents, carries them out, and comes to an end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use holdline_twilio::Form;
use holdline_twilio::signature::Key;
use http::Method;
use tokio::sync::{mpsc, oneshot};
use url::Url;

use crate::client::{self, Fetched, Received, Webhook};
use crate::party::{Act, Party};
use crate::transcript::{Ending, Step, Transcript, WebhookStep};
use crate::twiml::{self, Conference, Gather, Script, Verb};

/// A call with more documents than this goes round in circles.
const MOST_DOCUMENTS: usize = 200;
/// Spoken words a second, roughly.
const WORDS_A_SECOND: f64 = 3.0;

/// A telephone number and what is configured for it.
#[derive(Debug, Clone)]
pub struct Line {
    /// The account.
    pub account_sid: String,
    /// Its auth token, as a key.
    pub key: Key,
    /// Asked for the first document.
    pub voice_url: Url,
    /// Asked when a document cannot be had or carried out.
    pub fallback_url: Option<Url>,
    /// Told when the call is over.
    pub status_callback: Option<Url>,
    /// Where to connect instead of what the host names resolve to.
    pub connect_to: Option<SocketAddr>,
    /// How much faster than in reality speech, pauses and waiting pass. Time limits stay real.
    pub speed: f64,
}

/// A call from a person to a line.
#[derive(Debug)]
pub struct Call {
    line: Line,
    party: Party,
    sid: String,
    from: String,
    begun: Instant,
    heard: String,
    steps: Vec<Step>,
    documents: usize,
    watcher: Option<Watcher>,
}

/// A step that has just happened. The call goes on when this is dropped.
#[derive(Debug)]
pub struct Moment {
    /// What happened.
    pub step: Step,
    _go_on: oneshot::Sender<()>,
}

type Watcher = mpsc::UnboundedSender<Moment>;

/// Where a call goes next.
enum Next {
    Document { url: Url, method: Method, extra: Vec<(String, String)> },
    End(Ending),
}

// === impl Call ===

impl Call {
    /// A call that is about to be made.
    pub fn new(line: Line, party: Party) -> Call {
        let sid = format!("CA{}", random_hex());
        Call {
            line,
            party,
            sid,
            from: "+15005550006".into(),
            begun: Instant::now(),
            heard: String::new(),
            steps: Vec::new(),
            documents: 0,
            watcher: None,
        }
    }

    /// Tells `watcher` every step as it happens, and waits until it has dropped it.
    #[must_use]
    pub fn watched_by(mut self, watcher: Watcher) -> Call {
        self.watcher = Some(watcher);
        self
    }

    /// The call's identifier.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// Makes the call, from the first document to the status callback.
    pub async fn make(mut self) -> Transcript {
        self.begun = Instant::now();
        let url = self.line.voice_url.clone();
        let mut next = Next::Document { url, method: Method::POST, extra: Vec::new() };
        let ending = loop {
            match next {
                Next::End(ending) => break ending,
                Next::Document { .. } if self.documents >= MOST_DOCUMENTS => break Ending::Endless,
                Next::Document { url, method, extra } => {
                    next = self.document(url, method, extra).await
                }
            }
        };
        self.report_the_end().await;
        Transcript { call_sid: self.sid, steps: self.steps, ending }
    }

    async fn document(&mut self, url: Url, method: Method, extra: Vec<(String, String)>) -> Next {
        match self.fetch_script("document", &url, method, &extra).await {
            Ok(script) => self.carry_out(script, &url).await,
            Err(code) => self.fall_back(code, &url).await,
        }
    }

    /// A fatal error is followed by the fallback URL, at once and once.
    async fn fall_back(&mut self, code: u32, failed: &Url) -> Next {
        let Some(fallback) = self.line.fallback_url.clone() else {
            return Next::End(Ending::Apology(code));
        };
        let extra =
            vec![("ErrorCode".into(), code.to_string()), ("ErrorUrl".into(), failed.to_string())];
        match self.fetch_script("fallback", &fallback, Method::POST, &extra).await {
            Ok(script) => self.carry_out(script, &fallback).await,
            Err(code) => Next::End(Ending::Apology(code)),
        }
    }

    async fn carry_out(&mut self, script: Script, url: &Url) -> Next {
        for code in script.warnings {
            self.note(Step::Warned { code }).await;
        }
        let first_is_reject = matches!(script.verbs.first(), Some(Verb::Reject));
        if first_is_reject && self.documents == 1 {
            return Next::End(Ending::Rejected);
        }
        for verb in script.verbs {
            let next = match verb {
                Verb::Say(_) | Verb::Play(_) | Verb::Pause(_) => {
                    self.sound(&verb).await;
                    None
                }
                Verb::Gather(gather) => self.gather(gather, url).await,
                Verb::Redirect { url: to, method } => Some(follow(url, &to, &method, Vec::new())),
                Verb::Conference(conference) => self.conference(conference, url).await,
                Verb::Hangup | Verb::Reject => Some(Next::End(Ending::HungUp)),
                Verb::Other(_) => None,
            };
            if let Some(next) = next {
                return next;
            }
        }
        Next::End(Ending::RanOut)
    }

    async fn sound(&mut self, verb: &Verb) {
        let (what, seconds) = match verb {
            Verb::Say(text) => {
                (text.clone(), text.split_whitespace().count() as f64 / WORDS_A_SECOND)
            }
            Verb::Play(what) => (format!("[plays {what}]"), 1.0),
            Verb::Pause(seconds) => (format!("[pause of {seconds} s]"), *seconds as f64),
            _ => return,
        };
        if matches!(verb, Verb::Say(_)) {
            self.heard.push_str(&what);
            self.heard.push(' ');
        }
        self.note(Step::Heard { at_ms: self.at_ms(), what }).await;
        self.pass(seconds).await;
    }

    async fn gather(&mut self, gather: Gather, url: &Url) -> Option<Next> {
        // A key stops the prompts; a person who knows what to press does not hear them out.
        let spoken: Vec<&str> = gather
            .prompts
            .iter()
            .filter_map(|verb| if let Verb::Say(text) = verb { Some(text.as_str()) } else { None })
            .collect();
        let heard = format!("{}{}", self.heard, spoken.join(" "));
        let pressed = self.party.at_question(&heard);
        for prompt in &gather.prompts {
            self.sound(prompt).await;
        }
        let (digits, finished_on) = match &pressed {
            Some(keys) => {
                self.heard.clear();
                self.note(Step::Pressed { at_ms: self.at_ms(), keys: keys.clone() }).await;
                input(keys, &gather)
            }
            None => (String::new(), None),
        };
        if digits.is_empty() && finished_on.is_none() {
            self.pass(gather.timeout as f64).await;
        }
        if digits.is_empty() && !gather.action_on_empty {
            return None;
        }
        let mut extra = vec![("Digits".to_owned(), digits)];
        extra.push(("FinishedOnKey".to_owned(), finished_on.map(String::from).unwrap_or_default()));
        Some(follow(url, &gather.action, &gather.method, extra))
    }

    async fn conference(&mut self, conference: Conference, url: &Url) -> Option<Next> {
        if let Some(wait) = &conference.wait_url {
            self.wait_music(url, wait, &conference.wait_method).await;
        }
        self.note(Step::Heard {
            at_ms: self.at_ms(),
            what: format!("[conference {}]", conference.room),
        })
        .await;
        let (stay, leaves) = match self.party.in_conference() {
            Act::Leave(stay) => (stay, conference.hangup_on_star),
            Act::HangUp(stay) => (stay, false),
            Act::Press { .. } => (Duration::ZERO, false),
        };
        self.pass(stay.as_secs_f64()).await;
        if !leaves {
            return Some(Next::End(Ending::PartyLeft));
        }
        self.note(Step::Pressed { at_ms: self.at_ms(), keys: "*".into() }).await;
        let action = conference.action?;
        let extra = vec![("DialCallStatus".to_owned(), "answered".to_owned())];
        Some(follow(url, &action, &conference.method, extra))
    }

    async fn wait_music(&mut self, url: &Url, wait: &str, method: &str) {
        let Ok(wait) = url.join(wait) else { return };
        let method = if method == "GET" { Method::GET } else { Method::POST };
        let fetched = self.fetch("media", &wait, method, &[]).await;
        let playable = fetched.result.as_ref().is_ok_and(|received| {
            received.status == 200
                && received
                    .header("content-type")
                    .is_some_and(|kind| kind.starts_with("audio/") || kind.contains("xml"))
        });
        if !playable {
            self.mark_last(11200);
        }
        self.tell_last().await;
    }

    /// The status callback: sent once, and once more only if no connection could be made.
    async fn report_the_end(&mut self) {
        let Some(url) = self.line.status_callback.clone() else { return };
        let extra = vec![
            ("CallDuration".to_owned(), self.begun.elapsed().as_secs().to_string()),
            ("Timestamp".to_owned(), rfc2822_now()),
            ("CallbackSource".to_owned(), "call-progress-events".to_owned()),
            ("SequenceNumber".to_owned(), "0".to_owned()),
        ];
        let fetched = self.fetch("status", &url, Method::POST, &extra).await;
        match fetched.result {
            Ok(received) if received.status >= 400 => self.mark_last(15003),
            _ => {}
        }
        self.tell_last().await;
    }

    async fn fetch_script(
        &mut self,
        purpose: &'static str,
        url: &Url,
        method: Method,
        extra: &[(String, String)],
    ) -> Result<Script, u32> {
        self.documents += 1;
        let fetched = self.fetch(purpose, url, method, extra).await;
        let script = fetched.result.and_then(|received| script_of(&received));
        if let Err(code) = script {
            self.mark_last(code);
        }
        self.tell_last().await;
        script
    }

    async fn fetch(
        &mut self,
        purpose: &'static str,
        url: &Url,
        method: Method,
        extra: &[(String, String)],
    ) -> Fetched {
        let form =
            if purpose == "media" { Form::default() } else { self.parameters(purpose, extra) };
        let at_ms = self.at_ms();
        let token = format!("{}-{}", &self.sid[2..10], random_hex());
        let webhook = Webhook {
            url,
            method,
            form: &form,
            key: &self.line.key,
            idempotency_token: &token,
            connect_to: self.line.connect_to,
        };
        let fetched = client::fetch(&webhook).await;
        let received = fetched.result.as_ref().ok();
        self.steps.push(Step::Webhook(WebhookStep {
            at_ms,
            purpose,
            path: url.path().to_owned(),
            status: received.map(|received| received.status),
            answered_by: received
                .and_then(|received| received.header("holdline-answered-by"))
                .map(str::to_owned),
            took_ms: u64::try_from(fetched.took.as_millis()).unwrap_or(u64::MAX),
            error: fetched.result.as_ref().err().copied(),
        }));
        fetched
    }

    /// The standard parameters (twilio.com/docs/voice/twiml), then those of the occasion.
    fn parameters(&self, purpose: &str, extra: &[(String, String)]) -> Form {
        let status = match (purpose, self.documents) {
            ("status", _) => "completed",
            (_, 1) => "ringing",
            _ => "in-progress",
        };
        let (to, from) = ("+15005550001", self.from.as_str());
        let mut form = Form::from_pairs([
            ("AccountSid", self.line.account_sid.as_str()),
            ("ApiVersion", "2010-04-01"),
            ("CallSid", self.sid.as_str()),
            ("CallStatus", status),
            ("Called", to),
            ("CalledCity", ""),
            ("CalledCountry", "US"),
            ("CalledState", ""),
            ("CalledZip", ""),
            ("Caller", from),
            ("CallerCity", ""),
            ("CallerCountry", "US"),
            ("CallerState", "CA"),
            ("CallerZip", ""),
            ("Direction", "inbound"),
            ("From", from),
            ("FromCity", ""),
            ("FromCountry", "US"),
            ("FromState", "CA"),
            ("FromZip", ""),
            ("StirVerstat", "TN-Validation-Passed-A"),
            ("To", to),
            ("ToCity", ""),
            ("ToCountry", "US"),
            ("ToState", ""),
            ("ToZip", ""),
        ]);
        for (name, value) in extra {
            form.push(name, value);
        }
        form
    }

    fn mark_last(&mut self, code: u32) {
        if let Some(Step::Webhook(webhook)) = self.steps.last_mut() {
            webhook.error = Some(code);
        }
    }

    async fn note(&mut self, step: Step) {
        self.steps.push(step);
        self.tell_last().await;
    }

    async fn tell_last(&self) {
        if let (Some(watcher), Some(step)) = (&self.watcher, self.steps.last()) {
            let (go_on, gone_on) = oneshot::channel();
            // Nobody has to watch to the end; and a moment is dropped, never answered.
            if watcher.send(Moment { step: step.clone(), _go_on: go_on }).is_ok() {
                let _ = gone_on.await;
            }
        }
    }

    fn at_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn pass(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds / self.line.speed)).await;
    }
}

fn script_of(received: &Received) -> Result<Script, u32> {
    match received.status {
        200..300 => {
            twiml::read(received.header("content-type"), &received.body).map_err(|error| error.0)
        }
        _ => Err(11200),
    }
}

fn follow(current: &Url, to: &str, method: &str, extra: Vec<(String, String)>) -> Next {
    match current.join(to) {
        Ok(url) => {
            let method =
                if method.eq_ignore_ascii_case("GET") { Method::GET } else { Method::POST };
            Next::Document { url, method, extra }
        }
        Err(_) => Next::End(Ending::Apology(11100)),
    }
}

/// What keys mean to a question: the digits, and the key that ended them.
fn input(keys: &str, gather: &Gather) -> (String, Option<char>) {
    let mut digits = String::new();
    for key in keys.chars() {
        if Some(key) == gather.finish_on_key {
            return (digits, Some(key));
        }
        digits.push(key);
        if gather.num_digits == Some(digits.len()) {
            break;
        }
    }
    (digits, None)
}

fn random_hex() -> String {
    let mut bytes = [0u8; 16];
    // Without randomness identifiers repeat, which a test will notice.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As Twilio writes dates: RFC 2822, GMT.
fn rfc2822_now() -> String {
    jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(finish_on_key: Option<char>, num_digits: Option<usize>) -> Gather {
        Gather {
            action: String::new(),
            method: "POST".into(),
            finish_on_key,
            num_digits,
            timeout: 5,
            action_on_empty: false,
            prompts: Vec::new(),
        }
    }

    #[test]
    fn keys_end_at_the_finish_key_or_the_number_of_digits() {
        let gather = question(Some('*'), None);
        assert_eq!(input("1234567*", &gather), ("1234567".into(), Some('*')));
        assert_eq!(input("12", &gather), ("12".into(), None));
        assert_eq!(input("#", &question(Some('5'), Some(1))), ("#".into(), None));
        assert_eq!(input("#", &question(Some('#'), None)), (String::new(), Some('#')));
    }
}
