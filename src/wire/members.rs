//! JSON objects that are read member by member, so that all problems are collected instead of only the first. Concourse
//! payloads and the bodies of the contracts are read this way. Bodies of our own API are read along their schema
//! ([`super::json`]).

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::problems::{Problems, nearest, quoted, unknown};
use super::text::parse_duration;

/// A JSON object whose members are taken out one at a time. `null` counts as missing.
#[derive(Default)]
pub struct Members {
    /// Its place in the request, such as `source` or `node`. Empty for the request itself.
    at: String,
    map: Map<String, Value>,
    /// Every member that is valid here.
    known: Vec<&'static str>,
    /// It was written as YAML, where a lock called `1` is a number. Numbers and booleans then count as text.
    from_yaml: bool,
}

impl Members {
    /// The request itself. A duplicate member makes it invalid.
    pub fn parse(what: &str, text: &[u8], problems: &mut Problems) -> Option<Self> {
        match strict(text) {
            Ok(Value::Object(map)) => Some(Self { map, ..Self::default() }),
            Ok(_) => {
                problems.add("", format!("{what} must be a JSON object"));
                None
            }
            Err(error) => {
                problems.add("", format!("{what} is not valid JSON: {error}"));
                None
            }
        }
    }

    /// The object `value` at `at`, or an empty object if there is none.
    pub fn of(at: &str, value: Option<Value>, problems: &mut Problems) -> Self {
        let map = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                problems.add_about(at, format!("{at} must be an object"));
                Map::new()
            }
        };
        Self { at: at.to_owned(), map, ..Self::default() }
    }

    /// As written in YAML: a number is accepted where a text is expected, and `"true"` is true.
    #[must_use]
    pub fn from_yaml(self) -> Self {
        Self { from_yaml: true, ..self }
    }

    /// Declares which members are valid here, before they are taken.
    pub fn expect(&mut self, known: &[&'static str]) {
        self.known.extend_from_slice(known);
    }

    /// The object at `key`, or an empty object if it is missing.
    #[must_use]
    pub fn object(&mut self, key: &str, problems: &mut Problems) -> Self {
        let value = self.take(key);
        Self { from_yaml: self.from_yaml, ..Self::of(&self.path(key), value, problems) }
    }

    /// The value at `key` unless it is missing or null.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// Whether the member was given and has not been taken yet.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// Whether the value at `key` is a text that is empty or only white space.
    #[must_use]
    pub fn is_empty_text(&self, key: &str) -> bool {
        self.map.get(key).and_then(Value::as_str).is_some_and(|text| text.trim().is_empty())
    }

    /// Whether the value at `key` is an address that begins with http:// or https://.
    #[must_use]
    pub fn is_web_address(&self, key: &str) -> bool {
        let text = self.map.get(key).and_then(Value::as_str).unwrap_or_default().trim_start().to_ascii_lowercase();
        text.starts_with("http://") || text.starts_with("https://")
    }

    /// Whether the value at `key` is an object.
    #[must_use]
    pub fn is_object(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_object)
    }

    /// Whether one of these members is missing only because its name is misspelt. [`Self::finish`] says which it is.
    #[must_use]
    pub fn is_misspelt(&self, keys: &[&str]) -> bool {
        let unknown = self.map.keys().filter(|key| !self.known.contains(&key.as_str()));
        unknown.filter_map(|key| nearest(key, self.known.iter().copied())).any(|meant| keys.contains(&meant))
    }

    /// Records a problem with the member `key`.
    pub fn wrong(&self, key: &str, what: impl Display, problems: &mut Problems) {
        problems.add(&self.path(key), what);
    }

    /// A text.
    pub fn text(&mut self, key: &str, problems: &mut Problems) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            Value::Number(number) if self.from_yaml => Some(number.to_string()),
            _ => {
                self.wrong(key, "must be a string", problems);
                None
            }
        }
    }

    /// A text in the form of `T`.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str, problems: &mut Problems) -> Option<T> {
        let text = self.text(key, problems)?;
        problems.parse(&self.path(key), &text)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, problems: &mut Problems) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            Value::String(text) if self.from_yaml && (text == "true" || text == "false") => Some(text == "true"),
            _ => {
                self.wrong(key, "must be true or false", problems);
                None
            }
        }
    }

    /// A whole number, at least 1.
    pub fn count(&mut self, key: &str, problems: &mut Problems) -> Option<u32> {
        let value = self.take(key)?;
        let count = self.number(&value).filter(|count| *count > 0);
        if count.is_none() {
            self.wrong(key, "must be a whole number of at least 1", problems);
        }
        count
    }

    /// A whole number, which may be negative.
    pub fn integer(&mut self, key: &str, problems: &mut Problems) -> Option<i32> {
        let value = self.take(key)?;
        let integer = self.number(&value);
        if integer.is_none() {
            self.wrong(key, "must be a whole number", problems);
        }
        integer
    }

    fn number<T: TryFrom<i64> + FromStr>(&self, value: &Value) -> Option<T> {
        match value {
            Value::Number(number) => number.as_i64().and_then(|number| T::try_from(number).ok()),
            Value::String(text) if self.from_yaml => text.parse().ok(),
            _ => None,
        }
    }

    /// A duration such as `90s`.
    pub fn duration(&mut self, key: &str, problems: &mut Problems) -> Option<Duration> {
        let text = self.text(key, problems)?;
        parse_duration(&text).map_err(|why| self.wrong(key, why, problems)).ok()
    }

    /// A list of `T`. `what` says in a message what its items are.
    pub fn list<T: DeserializeOwned>(&mut self, key: &str, what: &str, problems: &mut Problems) -> Option<Vec<T>> {
        let list = serde_json::from_value(self.take(key)?).ok();
        if list.is_none() {
            self.wrong(key, format!("must be a list of {what}"), problems);
        }
        list
    }

    /// A duration such as `90s`, or a whole number of seconds.
    pub fn duration_or_seconds(&mut self, key: &str, problems: &mut Problems) -> Option<Duration> {
        if let Some(seconds) = self.map.get(key).and_then(Value::as_u64) {
            self.take(key);
            return Some(Duration::from_secs(seconds));
        }
        self.duration(key, problems)
    }

    /// Labels: names with text values.
    pub fn labels(&mut self, key: &str, problems: &mut Problems) -> BTreeMap<String, String> {
        let map = match self.take(key) {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                self.wrong(key, "must be an object of names and values", problems);
                Map::new()
            }
        };
        let mut labels = Self { map, at: self.path(key), from_yaml: self.from_yaml, known: Vec::new() };
        let names: Vec<String> = labels.map.keys().cloned().collect();
        let value = |name: String| match labels.map.get(&name) {
            Some(Value::Bool(flag)) if labels.from_yaml => Some((name, flag.to_string())),
            _ => labels.text(&name, problems).map(|text| (name, text)),
        };
        names.into_iter().filter_map(value).collect()
    }

    /// What to call `key` in a message.
    #[must_use]
    pub fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Reports every member that is left over, with the nearest valid name.
    pub fn finish(self, problems: &mut Problems) {
        let what = if self.at.is_empty() { "key".to_owned() } else { format!("{} key", self.at) };
        for key in self.map.keys().filter(|key| !self.known.contains(&key.as_str())) {
            problems.add_misplaced(&self.path(key), unknown(&what, key, &self.known));
        }
    }
}

/// Reads JSON and refuses duplicate members: two readers could take different values from them.
///
/// # Errors
/// It is not valid JSON, or has a duplicate member.
pub fn strict(text: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Strict>(text).map(|Strict(value)| value)
}

/// A JSON value without duplicate members.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Strict(value) = members.next_value()?;
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("member {} is given twice", quoted(&name))));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}
