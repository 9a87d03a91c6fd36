//! Scripts: what callers ask, and what may be answered.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{book, say};
use crate::store::Store;

/// A script's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(rename = "question", default)]
    questions: Vec<Question>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    text: String,
    #[serde(rename = "response", default)]
    responses: Vec<Response>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    /// The key, which may have several digits: it is ended with star.
    key: i64,
    value: String,
    /// Whether the lead is called again.
    #[serde(default)]
    retry: bool,
}

// === impl File ===

impl File {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        faults.extend(text_fault("name", &self.name, 200));
        for (n, question) in self.questions.iter().enumerate() {
            let place = format!("question {}", n + 1);
            faults.extend(text_fault(&format!("{place}: text"), &question.text, 1000));
            let mut keys = BTreeSet::new();
            for Response { key, value, .. } in &question.responses {
                if !(1..=998).contains(key) {
                    faults.push(format!(
                        "{place}: key {key} is not one of 1 to 998 (0 is \"no response\", 999 ends the questions)"
                    ));
                }
                if !keys.insert(key) {
                    faults.push(format!("{place}: key {key} is there twice"));
                }
                faults.extend(text_fault(&format!("{place}: value of key {key}"), value, 200));
            }
        }
        faults
    }
}

/// What is wrong with a text that may have so many characters.
fn text_fault(place: &str, text: &str, most: usize) -> Option<String> {
    if text.trim().is_empty() {
        return Some(format!("{place} is empty"));
    }
    let length = text.chars().count();
    (length > most).then(|| format!("{place} has {length} characters; {most} are the most"))
}

pub(super) async fn import(store: &Store, account: i64, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file: File = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let faults = file.faults();
    if !faults.is_empty() {
        bail!("{}:\n  {}", path.display(), faults.join("\n  "));
    }
    let rows = file.questions.iter().map(|question| 2 + question.responses.len()).sum::<usize>();
    let mut ids = store.id_block(i64::try_from(rows)? + 1).await?;
    let mut id = || ids.next().context("there are no ids left");
    let mut writing = store.begin().await?;
    book::is_there(&mut writing, "accounts", account).await?;
    let script = id()?;
    sqlx::query("INSERT INTO scripts (id, account_id, name) VALUES (?, ?, ?)")
        .bind(script)
        .bind(account)
        .bind(file.name)
        .execute(writing.connection())
        .await?;
    for (position, question) in (0i64..).zip(file.questions) {
        let question_id = id()?;
        sqlx::query("INSERT INTO questions (id, script_id, position, content) VALUES (?, ?, ?, ?)")
            .bind(question_id)
            .bind(script)
            .bind(position)
            .bind(question.text)
            .execute(writing.connection())
            .await?;
        let none = Response { key: 0, value: "no response".into(), retry: false };
        for response in std::iter::once(none).chain(question.responses) {
            sqlx::query(
                "INSERT INTO possible_responses (id, question_id, keypad, value, retry) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(id()?)
            .bind(question_id)
            .bind(response.key)
            .bind(response.value)
            .bind(i64::from(response.retry))
            .execute(writing.connection())
            .await?;
        }
    }
    writing.commit().await?;
    say(&script.to_string())
}

pub(super) async fn list(store: &Store) -> anyhow::Result<()> {
    let query = "SELECT scripts.id, scripts.account_id AS account, scripts.name, questions.content AS question, \
                 possible_responses.keypad AS answer_key, possible_responses.value AS answer, \
                 possible_responses.retry AS call_again FROM scripts \
                 LEFT JOIN questions ON questions.script_id = scripts.id \
                 LEFT JOIN possible_responses ON possible_responses.question_id = questions.id \
                 ORDER BY scripts.id, questions.position, possible_responses.keypad";
    book::table(store, query).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_listed() {
        let file: File = toml::from_str(
            "name = ''\n[[question]]\ntext = 'How?'\n\
             response = [{ key = 0, value = 'a' }, { key = 1, value = 'b' }, { key = 1, value = '' }]",
        )
        .unwrap();
        let faults = file.faults();
        assert_eq!(faults.len(), 4, "{faults:?}");
    }
}
