//! What people on the phone do.
//!
//! A [`Party`] is a script of acts. A [`Lead`] is somebody who is rung up: how they take it, and what
//! they do then. A [`Population`] is a mixture of leads. All three are written as text; a time may be
//! a range (`3s-12s`), from which chance draws.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

use crate::seed::Dice;

/// A time, or a range of times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    from: f64,
    to: f64,
}

/// A person who follows a script.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Party {
    acts: VecDeque<Act>,
    /// The whole script, if it starts over when it is done.
    again: Option<VecDeque<Act>>,
    /// What the person does whenever there is occasion, beside the script: keys, and talks.
    habits: Vec<Act>,
}

/// One thing a person does.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Presses keys as soon as a question is heard that contains these words.
    Press {
        /// Words that must have been heard since the last keys; empty for any question.
        hearing: String,
        /// The keys.
        keys: String,
    },
    /// At a question or in a conference, takes time before the next act.
    Wait(Span),
    /// Stays in a conference for this long after joining it, then presses star.
    Leave(Span),
    /// Talks in a conference for this long after it has started, then presses star.
    Talk(Span),
    /// Hangs up this long after the act before, wherever that is.
    HangUp(Span),
}

/// How somebody who is rung up takes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pickup {
    /// A person answers after ringing this long.
    Human(Span),
    /// A machine answers after ringing this long.
    Machine(Span),
    /// The line is busy.
    Busy,
    /// Nobody answers.
    NoAnswer,
    /// The call cannot be completed.
    Fails,
}

/// Somebody who is rung up.
#[derive(Debug, Clone, PartialEq)]
pub struct Lead {
    /// How they take it.
    pub pickup: Pickup,
    /// What they do then.
    pub party: Party,
}

/// A mixture of leads, each with its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Population(Vec<(f64, Lead)>);

// === impl Span ===

impl Span {
    /// A time of so many seconds.
    pub const fn seconds(seconds: f64) -> Span {
        Span { from: seconds, to: seconds }
    }

    /// A time from the range, in seconds.
    pub fn draw(self, dice: &mut Dice) -> f64 {
        dice.between(self.from, self.to)
    }
}

impl From<Duration> for Span {
    fn from(time: Duration) -> Span {
        Span::seconds(time.as_secs_f64())
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let number = |text: &str| {
            let number = text.trim().trim_end_matches('s').parse::<f64>().ok();
            number.filter(|seconds| (0.0..=86_400.0).contains(seconds))
        };
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Span { from, to }),
            _ => Err(format!("{text:?} is no time: write \"5s\" or \"3s-12s\"")),
        }
    }
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
        self.acts.is_empty() && self.habits.is_empty()
    }

    /// The keys that the person presses whenever these words are heard; of several, chance decides.
    pub(crate) fn habit_at(&self, heard: &str, dice: &mut Dice) -> Option<String> {
        let keys = self.habits.iter().find_map(|habit| match habit {
            Act::Press { hearing, keys } if heard.contains(hearing.as_str()) => Some(keys),
            _ => None,
        })?;
        let choices: Vec<&str> = keys.split('|').collect();
        let chosen = dice.between(0.0, choices.len() as f64) as usize;
        choices.get(chosen).or(choices.last()).map(|keys| (*keys).to_owned())
    }

    /// How long the person usually talks.
    pub(crate) fn usual_talk(&self) -> Option<Span> {
        self.habits.iter().find_map(|habit| match habit {
            Act::Talk(span) => Some(*span),
            _ => None,
        })
    }

    /// What is to be done next.
    pub(crate) fn next_act(&self) -> Option<&Act> {
        self.acts.front()
    }

    /// The next act was done.
    pub(crate) fn done(&mut self) {
        self.acts.pop_front();
        if self.acts.is_empty()
            && let Some(again) = &self.again
        {
            self.acts = again.clone();
        }
    }
}

/// `"access number=1234567*; menu=#; wait 2s-5s; leave 20s; hang up 5s; repeat"`: acts in order. And
/// `"always how was it=1*|2*; always talk 5s-20s"`: what is done whenever there is occasion.
impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Party, String> {
        let mut party = Party::silent();
        for part in parts(text) {
            if part == "repeat" {
                party.again = Some(party.acts.clone());
                continue;
            }
            if let Some(habit) = part.strip_prefix("always ") {
                party.habits.push(self::habit(habit.trim())?);
                continue;
            }
            if party.again.is_some() {
                return Err(format!("{part:?} would never be done: nothing follows \"repeat\""));
            }
            party = party.then(act(part)?);
        }
        if party.again.as_ref().is_some_and(|acts| !acts.iter().any(answers_something)) {
            return Err("\"repeat\" needs keys, \"leave\" or \"talk\" before it".into());
        }
        Ok(party)
    }
}

/// Whether an act waits for something of the application's, so that it cannot be done for ever at once.
fn answers_something(act: &Act) -> bool {
    matches!(act, Act::Press { .. } | Act::Leave(_) | Act::Talk(_))
}

fn habit(part: &str) -> Result<Act, String> {
    match act(part)? {
        habit @ (Act::Press { .. } | Act::Talk(_)) => Ok(habit),
        _ => Err(format!("{part:?} cannot be done always: only keys and \"talk 5s\" can")),
    }
}

fn act(part: &str) -> Result<Act, String> {
    if let Some((hearing, keys)) = part.split_once('=') {
        return Ok(Act::Press { hearing: hearing.trim().into(), keys: keys.trim().into() });
    }
    for (word, make) in [
        ("wait", Act::Wait as fn(Span) -> Act),
        ("leave", Act::Leave),
        ("talk", Act::Talk),
        ("hang up", Act::HangUp),
    ] {
        if let Some(rest) = part.strip_prefix(word) {
            return rest.trim().parse().map(make);
        }
    }
    Err(format!(
        "{part:?} is none of \"words heard=keys\", \"wait 2s\", \"leave 20s\", \"talk 20s\", \"hang up 5s\", \"repeat\", \"always ...\""
    ))
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty())
}

// === impl Lead ===

/// `"answers 3s-12s; hang up 20s"`, `"machine 4s; hang up 15s"`, `"busy"`, `"no answer"`, `"fails"`.
impl FromStr for Lead {
    type Err = String;

    fn from_str(text: &str) -> Result<Lead, String> {
        let (first, rest) = text.trim().split_once(';').unwrap_or((text.trim(), ""));
        let pickup = match first.trim() {
            "busy" => Pickup::Busy,
            "no answer" => Pickup::NoAnswer,
            "fails" => Pickup::Fails,
            other => match (other.strip_prefix("answers"), other.strip_prefix("machine")) {
                (Some(span), _) => Pickup::Human(span.trim().parse()?),
                (_, Some(span)) => Pickup::Machine(span.trim().parse()?),
                _ => {
                    return Err(format!(
                        "{other:?} is none of \"answers 3s\", \"machine 3s\", \"busy\", \"no answer\", \"fails\""
                    ));
                }
            },
        };
        Ok(Lead { pickup, party: rest.parse()? })
    }
}

// === impl Population ===

impl Population {
    /// Most people: half of them answer and talk for a while.
    pub const DEFAULT: &str = "50 answers 4s-15s; hang up 10s-60s \
                               | 20 machine 10s-20s; hang up 20s | 20 no answer | 9 busy | 1 fails";

    /// One of them.
    pub fn draw(&self, dice: &mut Dice) -> Lead {
        let total: f64 = self.0.iter().map(|(weight, _)| weight).sum();
        let mut left = dice.between(0.0, total);
        for (weight, lead) in &self.0 {
            left -= weight;
            if left < 0.0 {
                return lead.clone();
            }
        }
        // There is one at least, and rounding may leave nothing for it.
        self.0.last().map_or_else(Population::nobody, |(_, lead)| lead.clone())
    }

    fn nobody() -> Lead {
        Lead { pickup: Pickup::NoAnswer, party: Party::silent() }
    }
}

/// [`Population::DEFAULT`].
impl Default for Population {
    fn default() -> Population {
        Population::DEFAULT.parse().unwrap_or(Population(Vec::new()))
    }
}

/// `"60 answers 3s; hang up 9s | 40 busy"`: weights and leads, separated by bars.
impl FromStr for Population {
    type Err = String;

    fn from_str(text: &str) -> Result<Population, String> {
        let mut mixture = Vec::new();
        for part in text.split('|').map(str::trim).filter(|part| !part.is_empty()) {
            let (weight, lead) = match part.split_once(' ') {
                Some((weight, lead)) if weight.parse::<f64>().is_ok_and(|w| w > 0.0) => {
                    (weight.parse().unwrap_or(1.0), lead)
                }
                _ => (1.0, part),
            };
            mixture.push((weight, lead.parse()?));
        }
        if mixture.is_empty() {
            return Err(
                "a population needs somebody: \"60 answers 3s; hang up 9s | 40 busy\"".into()
            );
        }
        Ok(Population(mixture))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn acts_are_done_in_order_and_start_over_where_they_repeat() {
        let mut party: Party = "access number=12*; leave 2s; repeat".parse().unwrap();
        let first = party.next_act().unwrap().clone();
        party.done();
        assert_eq!(party.next_act(), Some(&Act::Leave(Span::seconds(2.0))));
        party.done();
        assert_eq!(party.next_act(), Some(&first));
        let mut once: Party = "a=1".parse().unwrap();
        once.done();
        assert!(once.is_done());
    }

    #[test]
    fn habits_are_no_acts_and_are_never_done_with() {
        let party: Party = "a=1; always how was it=1*|2*; always talk 5s".parse().unwrap();
        let mut dice = Seed::from(7).dice("party", 0);
        let mut keys: Vec<_> =
            (0..50).map(|_| party.habit_at("and how was it?", &mut dice).unwrap()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys, ["1*", "2*"]);
        assert_eq!(party.habit_at("something else", &mut dice), None);
        assert_eq!(party.usual_talk(), Some(Span::seconds(5.0)));
        assert!(matches!(party.next_act(), Some(Act::Press { .. })) && !party.is_done());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_place() {
        for (text, word) in [
            ("jump", "jump"),
            ("always leave 2s", "always"),
            ("leave soon", "soon"),
            ("hang up 9s-3s", "9s-3s"),
            ("repeat; a=1", "a=1"),
            ("hang up 2s; repeat", "repeat"),
            ("wait 0s; repeat", "repeat"),
        ] {
            let error = text.parse::<Party>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!("answers".parse::<Lead>().is_err());
        assert!("sleeps".parse::<Lead>().is_err());
        assert!("".parse::<Population>().is_err());
    }

    #[test]
    fn a_population_is_drawn_by_its_weights() {
        let population: Population = "75 answers 1s-3s; hang up 5s | 25 busy".parse().unwrap();
        let mut dice = Seed::from(7).dice("lead", 0);
        let humans = (0..1000)
            .filter(|_| matches!(population.draw(&mut dice).pickup, Pickup::Human(_)))
            .count();
        assert!((700..800).contains(&humans), "{humans}");
        assert_eq!(Population::default().0.len(), 5);
    }
}
