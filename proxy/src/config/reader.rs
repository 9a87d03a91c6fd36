//! Reading a TOML table key by key, so that every fault is found and not only the first.
//!
//! A [`Section`] gives out each key once, checked and with its default; what nobody asked for by the
//! time it is dropped is an unknown key. serde's `deny_unknown_fields` stops at the first fault, and
//! a person mending a configuration at night should not have to start the edge five times.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::{Table, Value};

use super::faults::Faults;
use super::secrets;
use secrecy::SecretString;

/// Environment variables that override keys: `HOLDLINE__LISTEN__PUBLIC` is `listen.public`.
pub const OVERRIDE_PREFIX: &str = "HOLDLINE__";

/// Everything a reader needs beside the table.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file's name, for faults.
    pub file: &'a str,
    /// Environment variables.
    pub environment: &'a BTreeMap<String, String>,
    /// Where faults go.
    pub faults: &'a Faults,
}

/// A table being read.
#[derive(Debug)]
pub struct Section<'a> {
    source: Source<'a>,
    path: String,
    table: Table,
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The whole file, with the environment's overrides laid over it.
    pub fn root(source: Source<'a>, mut table: Table) -> Section<'a> {
        for (name, text) in source.environment {
            let Some(path) = name.strip_prefix(OVERRIDE_PREFIX) else { continue };
            let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
            if !lay_over(&mut table, &keys, text) {
                source.faults.add(name, "", "names a key inside something that is no table");
            }
        }
        Section { source, path: String::new(), table }
    }

    /// A table inside this one; empty when it is not written.
    pub fn section(&mut self, key: &str) -> Section<'a> {
        let path = self.path_of(key);
        let table = match self.table.remove(key) {
            Some(Value::Table(table)) => table,
            Some(_) => {
                self.fault(key, "must be a table");
                Table::new()
            }
            None => Table::new(),
        };
        Section { source: self.source, path, table }
    }

    /// Whether a key is written.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether a key is written as text.
    pub fn is_text(&self, key: &str) -> bool {
        matches!(self.table.get(key), Some(Value::String(_)))
    }

    /// An environment variable.
    pub fn variable(&self, name: &str) -> Option<&'a str> {
        self.source.environment.get(name).map(String::as_str)
    }

    /// A list of tables, `[[key]]`.
    pub fn list(&mut self, key: &str) -> Vec<Section<'a>> {
        let path = self.path_of(key);
        let items = match self.table.remove(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.fault(key, "must be a list of tables");
                Vec::new()
            }
        };
        let mut sections = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item {
                Value::Table(table) => sections.push(Section { source: self.source, path, table }),
                _ => self.source.faults.add(self.source.file, &path, "must be a table"),
            }
        }
        sections
    }

    /// Text.
    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key)? {
            Value::String(text) => Some(text),
            other => {
                self.fault(key, &format!("must be text in quotes, not {}", other.type_str()));
                None
            }
        }
    }

    /// Text that must be written.
    pub fn required(&mut self, key: &str) -> Option<String> {
        let written = self.has(key);
        let text = self.text(key);
        if !written {
            self.fault(key, "is missing");
        }
        text
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let items = match self.table.remove(key)? {
            Value::Array(items) => items,
            _ => {
                self.fault(key, "must be a list of texts");
                return None;
            }
        };
        let texts: Option<Vec<String>> =
            items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect();
        if texts.is_none() {
            self.fault(key, "must hold nothing but texts");
        }
        texts
    }

    /// Text read by `parse`; `expected` says what would be right.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(&text);
        if value.is_none() {
            self.fault(key, &format!("{text:?} is not {expected}"));
        }
        value
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let expected =
            words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        self.parsed(key, &format!("one of {expected}"), |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// A duration with its unit, `"750ms"`, `"9s"`, `"2m"`.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        self.parsed(key, "a duration such as \"750ms\" or \"9s\"", |text| {
            humantime::parse_duration(text).ok()
        })
    }

    /// A duration with a default, which must lie in a range.
    pub fn duration_in(
        &mut self,
        key: &str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        match self.duration(key) {
            Some(value) if value < least || value > most => {
                let range = format!(
                    "must be between {} and {}",
                    humantime::format_duration(least),
                    humantime::format_duration(most)
                );
                self.fault(key, &range);
                default
            }
            Some(value) => value,
            None => default,
        }
    }

    /// A size in bytes with its unit, `"64KiB"`.
    pub fn size(&mut self, key: &str) -> Option<usize> {
        self.parsed(key, "a size such as \"64KiB\"", parse_size)
    }

    /// A whole number with a default, which must lie in a range.
    pub fn number(&mut self, key: &str, default: u32, least: u32, most: u32) -> u32 {
        let Some(value) = self.table.remove(key) else { return default };
        let number = match &value {
            Value::Integer(number) => Some(*number),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match number.and_then(|n| u32::try_from(n).ok()).filter(|n| (least..=most).contains(n)) {
            Some(number) => number,
            None => {
                self.fault(key, &format!("must be a whole number between {least} and {most}"));
                default
            }
        }
    }

    /// Yes or no, with a default.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.table.remove(key) {
            None => default,
            Some(Value::Boolean(value)) => value,
            Some(_) => {
                self.fault(key, "must be true or false");
                default
            }
        }
    }

    /// A secret: `"env:NAME"` or `"file:PATH"`.
    pub fn secret(&mut self, key: &str) -> Option<SecretString> {
        let reference = self.text(key)?;
        self.resolve_secret(key, &reference)
    }

    /// Resolves one reference to a secret, read from `key`.
    pub fn resolve_secret(&self, key: &str, reference: &str) -> Option<SecretString> {
        match secrets::resolve(reference, self.source.environment) {
            Ok(secret) => Some(secret),
            Err(why) => {
                self.fault(key, &why);
                None
            }
        }
    }

    /// Notes a fault at `key`.
    pub fn fault(&self, key: &str, what: &str) {
        let path = self.path_of(key);
        let variable = format!("{OVERRIDE_PREFIX}{}", path.replace('.', "__").to_ascii_uppercase());
        let place = if self.source.environment.contains_key(&variable) {
            &variable
        } else {
            self.source.file
        };
        self.source.faults.add(place, &path, what);
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// Whatever nobody asked for is a key nobody knows.
impl Drop for Section<'_> {
    fn drop(&mut self) {
        for key in self.table.keys() {
            self.fault(key, "is not a known key");
        }
    }
}

fn lay_over(table: &mut Table, keys: &[String], text: &str) -> bool {
    match keys {
        [] => false,
        [key] => {
            let value = match text {
                "true" => Value::Boolean(true),
                "false" => Value::Boolean(false),
                _ => Value::String(text.to_owned()),
            };
            table.insert(key.clone(), value);
            true
        }
        [key, rest @ ..] => {
            match table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new())) {
                Value::Table(inner) => lay_over(inner, rest, text),
                _ => false,
            }
        }
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        toml: &str,
        environment: &[(&str, &str)],
        with: impl FnOnce(&mut Section<'_>),
    ) -> String {
        let faults = Faults::default();
        let environment: BTreeMap<String, String> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let source = Source { file: "f.toml", environment: &environment, faults: &faults };
        let mut section = Section::root(source, toml.parse().unwrap());
        with(&mut section);
        drop(section);
        match faults.into_result() {
            Ok(()) => String::new(),
            Err(list) => list
                .faults()
                .iter()
                .map(|f| format!("{}|{}|{}\n", f.place, f.key, f.what))
                .collect(),
        }
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let faults = read("a = 1\nwait = \"soon\"\nn = 7\n[t]\nodd = 1", &[], |root| {
            root.text("a");
            root.duration("wait");
            root.number("n", 1, 1, 5);
            root.section("t");
            root.required("gone");
        });
        assert_eq!(
            faults,
            "f.toml|a|must be text in quotes, not integer\n\
             f.toml|wait|\"soon\" is not a duration such as \"750ms\" or \"9s\"\n\
             f.toml|n|must be a whole number between 1 and 5\n\
             f.toml|t.odd|is not a known key\n\
             f.toml|gone|is missing\n"
        );
    }

    #[test]
    fn the_environment_overrides_and_is_named_in_faults() {
        let environment = [("HOLDLINE__T__N", "9"), ("HOLDLINE__T__ON", "true"), ("OTHER", "x")];
        let faults = read("[t]\nn = 1", &environment, |root| {
            let mut t = root.section("t");
            assert!(t.flag("on", false));
            assert_eq!(t.number("n", 1, 1, 5), 1);
        });
        assert_eq!(faults, "HOLDLINE__T__N|t.n|must be a whole number between 1 and 5\n");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("64KiB"), Some(65536));
        assert_eq!(parse_size("2 MiB"), Some(2 * 1024 * 1024));
        assert_eq!([parse_size("64"), parse_size("KiB"), parse_size("1kb")], [None; 3]);
    }
}
