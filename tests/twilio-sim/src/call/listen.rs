//! What a person hears, and the keys they answer with.

use url::Url;

use super::{Call, Flow, Next, Purpose, Step, follow};
use crate::party::Act;
use crate::transcript::Ending;
use crate::twiml::{Gather, Record, Verb};

/// Words spoken in a second, roughly.
const WORDS_A_SECOND: f64 = 3.0;
/// How long a file plays, whatever is in it, in seconds.
const FILE: f64 = 1.0;
/// How long a tone lasts, in seconds.
const TONE: f64 = 0.2;

// === impl Call ===

impl Call {
    /// Lets a sound be heard to its end.
    pub(super) async fn sound(&mut self, verb: &Verb, base: Option<&Url>) -> Flow<()> {
        let (what, seconds, times) = match verb {
            Verb::Say { text, times } => {
                self.heard.push_str(text);
                self.heard.push(' ');
                (text.clone(), text.split_whitespace().count() as f64 / WORDS_A_SECOND, *times)
            }
            Verb::Play { url, times } => {
                let place = super::resolve(base, url).map_or_else(|| url.clone(), String::from);
                (format!("[plays {place}]"), FILE, *times)
            }
            Verb::Tones(digits) => (format!("[tones {digits}]"), TONE * digits.len() as f64, 1),
            Verb::Pause(seconds) => (format!("[pause of {seconds} s]"), *seconds as f64, 1),
            _ => return Ok(()),
        };
        let at_ms = self.at_ms();
        self.note(Step::Heard { at_ms, what }).await;
        self.pass(seconds * f64::from(times)).await
    }

    pub(super) async fn gather(
        &mut self,
        gather: Gather,
        base: Option<&Url>,
    ) -> Flow<Option<Next>> {
        for prompt in &gather.prompts {
            self.sound(prompt, base).await?;
        }
        let (mut keys, left) = self.keys_for_question(gather.timeout as f64).await?;
        if keys.is_empty() {
            keys = self.keys_within(left).await?;
        }
        let (digits, finished_on) = input(&keys, &gather);
        let complete = finished_on.is_some()
            || gather.num_digits.is_some_and(|most| digits.chars().count() >= most);
        if !keys.is_empty() {
            self.heard.clear();
            let at_ms = self.at_ms();
            self.note(Step::Pressed { at_ms, keys }).await;
            if !complete {
                // Twilio waits for further keys.
                self.pass(gather.timeout as f64).await?;
            }
        }
        if digits.is_empty() && !gather.action_on_empty {
            return Ok(None);
        }
        let finished_on = finished_on.map(String::from).unwrap_or_default();
        let extra = vec![("Digits".to_owned(), digits), ("FinishedOnKey".to_owned(), finished_on)];
        Ok(Some(follow(base, &gather.action, extra)))
    }

    /// What the person presses at a question, and how much of their time for it is left: nothing if
    /// they are waiting for other words, or take longer than the question does.
    async fn keys_for_question(&mut self, patience: f64) -> Flow<(String, f64)> {
        let mut left = patience;
        while let Some(Act::Wait(span)) = self.party.next_act() {
            let seconds = span.draw(&mut self.dice);
            self.pass(seconds.min(left)).await?;
            self.act_done();
            if seconds >= left {
                return Ok((String::new(), 0.0));
            }
            left -= seconds;
        }
        if let Some(Act::Press { hearing, keys }) = self.party.next_act()
            && self.heard.contains(hearing.as_str())
        {
            let keys = keys.clone();
            self.act_done();
            return Ok((keys, left));
        }
        if let Some(keys) = self.party.habit_at(&self.heard, &mut self.dice) {
            return Ok((keys, left));
        }
        Ok((std::mem::take(&mut self.keyed), left))
    }

    /// A recording: of silence, unless the person presses a key or hangs up.
    pub(super) async fn record_speech(
        &mut self,
        record: &Record,
        base: Option<&Url>,
    ) -> Flow<Next> {
        let seconds = record.timeout.min(record.max_length) as f64;
        let at_ms = self.at_ms();
        self.note(Step::Heard { at_ms, what: "[is recorded]".into() }).await;
        let mut extra = self.recording();
        extra.push(("RecordingDuration".to_owned(), seconds.to_string()));
        match self.keys_while_recorded(seconds).await {
            Ok(keys) => {
                let ended_by = keys.chars().find(|key| record.finish_on_key.contains(*key));
                extra.extend(ended_by.map(|key| ("Digits".to_owned(), key.to_string())));
                Ok(follow(base, &record.action, extra))
            }
            Err(Next::End(Ending::PartyLeft)) => {
                extra.push(("Digits".to_owned(), "hangup".to_owned()));
                if let Next::Document(fetch) = follow(base, &record.action, extra) {
                    // Nobody is left to hear what it says.
                    let _ = self.fetch(Purpose::Disregarded, &fetch.endpoint, &fetch.extra).await;
                    self.tell_last().await;
                }
                Err(Next::End(Ending::PartyLeft))
            }
            Err(next) => Err(next),
        }
    }

    async fn keys_while_recorded(&mut self, seconds: f64) -> Flow<String> {
        let (keys, left) = self.keys_for_question(seconds).await?;
        if keys.is_empty() { self.keys_within(left).await } else { Ok(keys) }
    }

    /// The parameters of a recording that has been made.
    pub(super) fn recording(&mut self) -> Vec<(String, String)> {
        let (account, sid) = (self.company.account_sid(), self.names.sid("RE"));
        let url = format!("https://api.twilio.com/2010-04-01/Accounts/{account}/Recordings/{sid}");
        vec![("RecordingUrl".to_owned(), url), ("RecordingSid".to_owned(), sid)]
    }
}

/// What keys mean to a question: the digits, and the key that ended them.
fn input(keys: &str, gather: &Gather) -> (String, Option<char>) {
    let mut digits = String::new();
    for key in keys.chars() {
        if gather.finish_on_key.contains(key) {
            return (digits, Some(key));
        }
        digits.push(key);
        if gather.num_digits == Some(digits.len()) {
            break;
        }
    }
    (digits, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twiml::Target;

    fn question(finish_on_key: &str, num_digits: Option<usize>) -> Gather {
        Gather {
            action: Target::default(),
            finish_on_key: finish_on_key.into(),
            num_digits,
            timeout: 5,
            action_on_empty: false,
            prompts: Vec::new(),
        }
    }

    #[test]
    fn keys_end_at_the_finish_key_or_the_number_of_digits() {
        let gather = question("*", None);
        assert_eq!(input("1234567*", &gather), ("1234567".into(), Some('*')));
        assert_eq!(input("12", &gather), ("12".into(), None));
        assert_eq!(input("#", &question("5", Some(1))), ("#".into(), None));
        assert_eq!(input("#", &question("#", None)), (String::new(), Some('#')));
        assert_eq!(input("12#", &question("", None)), ("12#".into(), None));
    }
}
