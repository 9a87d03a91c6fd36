//! The sets of thresholds that are tried.

use anyhow::{Context as _, bail, ensure};
use holdline_policy::tune::Set;
use serde_json::{Map, Value};

use crate::config::health::KNOBS;
use crate::config::{Judging, Knob};

/// As many sets as anybody could want to wait for.
const MOST: usize = 10_000;
/// What is tried when nobody says what: the thresholds that matter most.
const USUAL: [&str; 4] =
    ["fall=2,3,4,5", "rise=1,2,3", "interval=500ms,1s,2s", "stuck=2500ms,3s,5s"];

/// All of them; the first is what is in force, and behind it those that change less come first.
pub(super) struct Sets {
    pub(super) all: Vec<Judging>,
}

// === impl Sets ===

impl Sets {
    /// What is in force, and beside it either one set with some thresholds changed, or every combination of
    /// a grid.
    pub(super) fn of(in_force: Judging, set: &[String], grid: &[String]) -> anyhow::Result<Sets> {
        let mut base = in_force;
        for text in set {
            let (knob, value) = parsed(text)?;
            knob.set(&mut base, value).map_err(anyhow::Error::msg)?;
        }
        let usual = set.is_empty() && grid.is_empty();
        let grid: Vec<&str> = match usual {
            true => USUAL.to_vec(),
            false => grid.iter().map(String::as_str).collect(),
        };
        let mut tried = vec![base];
        for text in grid {
            let (knob, values) = parsed(text)?;
            let mut more = Vec::new();
            for (judging, value) in
                tried.iter().flat_map(|judging| values.split(',').map(move |v| (judging, v)))
            {
                let mut judging = *judging;
                knob.set(&mut judging, value.trim()).map_err(anyhow::Error::msg)?;
                more.push(judging);
            }
            ensure!(more.len() <= MOST, "that would be {} sets; {MOST} are enough", more.len());
            tried = more;
        }
        let mut all = vec![in_force];
        for mut judging in tried {
            // What contradicts itself is not asked of anybody: an interval brings its own haste.
            judging.pace.quick = judging.pace.quick.min(judging.pace.interval);
            if let Some((key, what)) = judging.contradictions().first() {
                bail!("{key}: {what}");
            }
            if !all.contains(&judging) {
                all.push(judging);
            }
        }
        let changes = |judging: &Judging| {
            KNOBS.iter().filter(|knob| knob.value(judging) != knob.value(&in_force)).count()
        };
        all.sort_by_key(changes);
        ensure!(all.len() > 1, "the set that was asked for is the one in force; change something");
        Ok(Sets { all })
    }

    pub(super) fn set(&self, index: usize) -> Set {
        let Judging { thresholds, pace } = self.all[index];
        Set { thresholds, pace }
    }

    /// Whether any two of them differ in this.
    pub(super) fn differ_in(&self, key: &str) -> bool {
        self.differing().any(|knob| knob.key == key)
    }

    /// The keys in which any two of them differ.
    fn differing(&self) -> impl Iterator<Item = &'static Knob> {
        let differs = |knob: &&Knob| {
            let first = knob.value(&self.all[0]);
            self.all.iter().any(|judging| knob.value(judging) != first)
        };
        KNOBS.iter().filter(differs)
    }

    /// A set, in the keys in which sets differ: `fall=3 rise=2`.
    pub(super) fn in_words(&self, index: usize) -> String {
        let judging = &self.all[index];
        let word = |knob: &Knob| format!("{}={}", knob.key, plain(&knob.value(judging)));
        self.differing().map(word).collect::<Vec<_>>().join(" ")
    }

    /// The same as an object.
    pub(super) fn as_json(&self, index: usize) -> Value {
        let judging = &self.all[index];
        let pairs = KNOBS.iter().map(|knob| (knob.key.to_owned(), knob.value(judging)));
        Value::Object(pairs.collect::<Map<_, _>>())
    }
}

/// A value without its quotes, and without blanks.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace(' ', ""),
        other => other.to_string(),
    }
}

fn parsed(text: &str) -> anyhow::Result<(Knob, &str)> {
    let (key, value) =
        text.split_once('=').with_context(|| format!("{text:?} is not KEY=VALUE"))?;
    let known = || KNOBS.map(|knob| knob.key).join(", ");
    let knob = Knob::of(key.trim())
        .with_context(|| format!("there is no threshold {key:?}; there are {}", known()))?;
    Ok((knob, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(set: &[&str], grid: &[&str]) -> anyhow::Result<Sets> {
        let owned =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Sets::of(Judging::SHIPPED, &owned(set), &owned(grid))
    }

    #[test]
    fn a_grid_is_every_combination_beside_what_is_in_force() {
        assert_eq!(sets(&[], &[]).unwrap().all.len(), 4 * 3 * 3 * 3);
        let two = sets(&[], &["fall=2,4", "stuck=2s,5s"]).unwrap();
        let words: Vec<String> = (0..two.all.len()).map(|set| two.in_words(set)).collect();
        let expected = [
            "fall=3 stuck=3s",
            "fall=2 stuck=2s",
            "fall=2 stuck=5s",
            "fall=4 stuck=2s",
            "fall=4 stuck=5s",
        ];
        assert_eq!(words, expected);
        // What changes less comes first.
        let less = sets(&[], &["fall=2,3", "stuck=2s,3s"]).unwrap();
        let words: Vec<String> = (0..less.all.len()).map(|set| less.in_words(set)).collect();
        let expected = ["fall=3 stuck=3s", "fall=2 stuck=3s", "fall=3 stuck=2s", "fall=2 stuck=2s"];
        assert_eq!(words, expected);
        let one = sets(&["fall=2"], &["rise=1,3"]).unwrap();
        assert_eq!(one.in_words(2), "fall=2 rise=3");
    }

    #[test]
    fn what_cannot_be_tried_is_refused_with_what_would_be_right() {
        let refused = |set: &[&str], grid: &[&str]| sets(set, grid).err().unwrap().to_string();
        assert!(
            refused(&["fell=2"], &[]).contains("there is no threshold \"fell\"; there are fall,")
        );
        assert_eq!(refused(&["fall"], &[]), "\"fall\" is not KEY=VALUE");
        assert!(refused(&[], &["fall=2,200"]).contains("between 1 and 100"));
        assert!(refused(&["fall=3"], &[]).contains("is the one in force"));
    }
}
