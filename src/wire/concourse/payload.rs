//! Reading a JSON object key by key, gathering every problem instead of stopping at the first.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::wire::escape::escape;
use crate::wire::problems::unknown;

/// All that is wrong with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError(pub Vec<String>);

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid payload ({})", self.0.join(", "))
    }
}

impl std::error::Error for PayloadError {}

/// Problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    /// `value` if nothing was wrong. A missing value always comes with a problem that says why.
    pub(super) fn or<T>(self, value: Option<T>) -> Result<T, PayloadError> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(PayloadError(self.0)),
        }
    }
}

/// A JSON object whose keys are taken out one by one.
pub(super) struct Fields {
    /// What to call the object: `source`, `params`; empty for the payload itself.
    what: &'static str,
    map: Map<String, Value>,
    /// Every key that could have been given here.
    known: Vec<&'static str>,
}

impl Fields {
    /// The payload itself.
    pub(super) fn request(text: &[u8], known: &[&'static str], problems: &mut Problems) -> Result<Self, PayloadError> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| PayloadError(vec![format!("stdin is no JSON: {}", escape(&error.to_string()))]))?;
        Ok(Self::of("", Some(value), known, problems))
    }

    pub(super) fn of(
        what: &'static str,
        value: Option<Value>,
        known: &[&'static str],
        problems: &mut Problems,
    ) -> Self {
        let map = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                problems.add(format!("{} must be an object", if what.is_empty() { "stdin" } else { what }));
                Map::new()
            }
        };
        Self { what, map, known: known.to_vec() }
    }

    /// Says which keys are valid here, before they are taken.
    pub(super) fn expect(&mut self, known: &[&'static str]) {
        self.known.extend_from_slice(known);
    }

    /// The object at `key`; an empty one when missing.
    pub(super) fn object(&mut self, key: &'static str, problems: &mut Problems) -> Fields {
        Fields::of(key, self.take(key), &[], problems)
    }

    /// The value at `key` unless it is missing or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// Whether the key was given and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// Whether the value at `key` is an object.
    pub(super) fn is_object(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_object)
    }

    /// Sets `key` to true.
    pub(super) fn put_flag(&mut self, key: &str) {
        self.map.insert(key.to_owned(), Value::Bool(true));
    }

    /// Text. A number counts as its spelling: YAML makes numbers of locks called `1`.
    pub(super) fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                problems.add(format!("{} must be text", self.name(key)));
                None
            }
        }
    }

    /// Text in the form of `T`.
    pub(super) fn parsed<T: std::str::FromStr<Err: fmt::Display>>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(key, problems)?;
        text.parse().map_err(|error| problems.add(format!("{}: {error}", self.name(key)))).ok()
    }

    pub(super) fn flag(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            Value::String(text) if text == "true" || text == "false" => Some(text == "true"),
            _ => {
                problems.add(format!("{} must be true or false", self.name(key)));
                None
            }
        }
    }

    /// A whole number from 1.
    pub(super) fn count(&mut self, key: &'static str, problems: &mut Problems) -> Option<u32> {
        let value = self.take(key)?;
        let number = match &value {
            Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.filter(|n| *n > 0);
        if number.is_none() {
            problems.add(format!("{} must be a whole number from 1", self.name(key)));
        }
        number
    }

    /// A whole number, also a negative one.
    pub(super) fn integer(&mut self, key: &'static str, problems: &mut Problems) -> Option<i32> {
        let value = self.take(key)?;
        let number = match &value {
            Value::Number(number) => number.as_i64().and_then(|n| i32::try_from(n).ok()),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            problems.add(format!("{} must be a whole number", self.name(key)));
        }
        number
    }

    pub(super) fn duration(&mut self, key: &'static str, problems: &mut Problems) -> Option<Duration> {
        let text = self.text(key, problems)?;
        super::parse_duration(&text).map_err(|why| problems.add(format!("{} {why}", self.name(key)))).ok()
    }

    /// Names with text values.
    pub(super) fn labels(&mut self, key: &'static str, problems: &mut Problems) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let map = match self.take(key) {
            None => return labels,
            Some(Value::Object(map)) => map,
            Some(_) => {
                problems.add(format!("{} must be an object of names and values", self.name(key)));
                return labels;
            }
        };
        for (name, value) in map {
            match value {
                Value::String(text) => labels.insert(name, text),
                Value::Number(number) => labels.insert(name, number.to_string()),
                Value::Bool(flag) => labels.insert(name, flag.to_string()),
                _ => {
                    problems.add(format!("{}.{} must be text", self.name(key), escape(&name)));
                    None
                }
            };
        }
        labels
    }

    /// What to call `key` in a message.
    pub(super) fn name(&self, key: &str) -> String {
        if self.what.is_empty() { key.to_owned() } else { format!("{}.{key}", self.what) }
    }

    /// Names every key that is left over, with the nearest valid one.
    pub(super) fn finish(self, problems: &mut Problems) {
        let what = if self.what.is_empty() { "key".to_owned() } else { format!("{} key", self.what) };
        for key in self.map.keys().filter(|key| !self.known.contains(&key.as_str())) {
            problems.add(unknown(&what, key, &self.known));
        }
    }
}
