//! What a person on the phone does.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

/// A person who follows a script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    acts: VecDeque<Act>,
}

/// One thing a person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Presses keys as soon as a question is heard that contains these words.
    Press {
        /// Words that must have been heard since the last keys; empty for any question.
        hearing: String,
        /// The keys.
        keys: String,
    },
    /// Stays in a conference for this long, then presses star.
    Leave(Duration),
    /// Stays in a conference for this long, then hangs up.
    HangUp(Duration),
}

// === impl Party ===

impl Party {
    /// A person who does nothing but listen.
    pub fn silent() -> Party {
        Party::default()
    }

    /// Adds an act.
    #[must_use]
    pub fn then(mut self, act: Act) -> Party {
        self.acts.push_back(act);
        self
    }

    /// Adds keys for a question.
    #[must_use]
    pub fn press(self, hearing: &str, keys: &str) -> Party {
        self.then(Act::Press { hearing: hearing.to_owned(), keys: keys.to_owned() })
    }

    /// Whether everything was done.
    pub fn is_done(&self) -> bool {
        self.acts.is_empty()
    }

    /// The keys pressed at a question, `heard` being everything since the last keys.
    pub(crate) fn at_question(&mut self, heard: &str) -> Option<String> {
        match self.acts.front() {
            Some(Act::Press { hearing, .. }) if heard.contains(hearing.as_str()) => {}
            _ => return None,
        }
        match self.acts.pop_front() {
            Some(Act::Press { keys, .. }) => Some(keys),
            _ => None,
        }
    }

    /// What is done in a conference.
    pub(crate) fn in_conference(&mut self) -> Act {
        match self.acts.front() {
            Some(Act::Leave(_) | Act::HangUp(_)) => self.acts.pop_front(),
            _ => None,
        }
        .unwrap_or(Act::HangUp(Duration::ZERO))
    }
}

/// `"access number=1234567*; menu=#; leave 20s; hang up 5s"`: acts in order, separated by semicolons.
impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Party, String> {
        let mut party = Party::silent();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let seconds = |rest: &str| {
                let number = rest.trim().trim_end_matches('s').parse::<f64>();
                number.ok().filter(|n| *n >= 0.0).map(Duration::from_secs_f64)
            };
            let act = if let Some((hearing, keys)) = part.split_once('=') {
                Some(Act::Press {
                    hearing: hearing.trim().to_owned(),
                    keys: keys.trim().to_owned(),
                })
            } else if let Some(rest) = part.strip_prefix("leave") {
                seconds(rest).map(Act::Leave)
            } else if let Some(rest) = part.strip_prefix("hang up") {
                seconds(rest).map(Act::HangUp)
            } else {
                None
            };
            let wrong = || {
                format!("{part:?} is none of \"words heard=keys\", \"leave 20s\", \"hang up 5s\"")
            };
            party = party.then(act.ok_or_else(wrong)?);
        }
        Ok(party)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_are_done_in_order_and_only_when_their_words_are_heard() {
        let mut party: Party = "access number=12*; menu=#; leave 2s".parse().unwrap();
        assert_eq!(party.at_question("the menu"), None);
        assert_eq!(party.at_question("key in your access number"), Some("12*".into()));
        assert_eq!(party.at_question("the menu"), Some("#".into()));
        assert_eq!(party.in_conference(), Act::Leave(Duration::from_secs(2)));
        assert!(party.is_done());
        assert!("jump".parse::<Party>().is_err());
    }
}
