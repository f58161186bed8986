//! YAML with positions: a tree whose every value knows its line and column, for files that people write.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};

/// A place in a file. Lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl Position {
    pub const START: Self = Self { line: 1, column: 1 };

    fn of(location: Location) -> Self {
        Self { line: location.line().max(1), column: location.column().max(1) }
    }
}

/// A value. A value that stands behind an anchor has the position of its definition, which is the text to correct.
pub struct Node {
    pub at: Position,
    pub kind: Kind,
}

pub enum Kind {
    Map(Vec<Entry>),
    List(Vec<Node>),
    /// Text, a number, a boolean or null.
    Scalar(Value),
}

pub struct Entry {
    pub key: String,
    pub at: Position,
    pub value: Node,
}

/// What is wrong with the YAML itself.
pub struct Broken {
    pub at: Position,
    pub why: String,
}

/// Parses one document. Merge keys (`<<`) are resolved, and `yes` and `no` are booleans, as in Concourse.
///
/// # Errors
/// It is not valid YAML.
pub fn parse(text: &str) -> Result<Node, Broken> {
    serde_saphyr::from_str(text).map_err(|error| {
        let at = error.location().map_or(Position::START, Position::of);
        // Without the excerpt of the file, the place, and advice for users of the crate.
        let text = error.without_snippet().to_string();
        let line = text.lines().next().unwrap_or_default();
        let why = [" at line ", "; use ", ", set "].iter().fold(line, |why, end| why.split(end).next().unwrap_or(why));
        Broken { at, why: why.to_owned() }
    })
}

impl Node {
    /// The value of a member.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A member that is not null.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key && !matches!(entry.value.kind, Kind::Scalar(Value::Null)))
    }

    /// The members of a map; nothing for any other value.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        if let Kind::Map(entries) = &self.kind { entries } else { &[] }
    }

    /// The items of a list; nothing for any other value.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Kind::List(items) = &self.kind { items } else { &[] }
    }

    /// The text of a member.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::as_text)
    }

    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Kind::Scalar(Value::String(text)) = &self.kind { Some(text) } else { None }
    }

    /// Whether a member is `true`.
    #[must_use]
    pub fn is_true(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Self { kind: Kind::Scalar(Value::Bool(true)), .. }))
    }

    /// Whether this value is a text with a `((var))` in it, whose value only Concourse knows.
    #[must_use]
    pub fn is_var(&self) -> bool {
        self.as_text().is_some_and(has_var)
    }

    /// Whether there is a `((var))` anywhere in this value.
    #[must_use]
    pub fn has_var(&self) -> bool {
        match &self.kind {
            Kind::Map(entries) => entries.iter().any(|entry| entry.value.has_var()),
            Kind::List(items) => items.iter().any(Self::has_var),
            Kind::Scalar(_) => self.is_var(),
        }
    }

    /// As Concourse sends it to a resource.
    #[must_use]
    pub fn json(&self) -> Value {
        match &self.kind {
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.json())).collect::<Map<_, _>>(),
            ),
            Kind::List(items) => items.iter().map(Self::json).collect(),
            Kind::Scalar(value) => value.clone(),
        }
    }
}

/// Whether there is a `((var))` in a text.
#[must_use]
pub fn has_var(text: &str) -> bool {
    text.split_once("((").is_some_and(|(_, rest)| rest.contains("))"))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::<Kind>::deserialize(deserializer).map(|node| Self { at: Position::of(node.defined), kind: node.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }
    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Bool(flag)))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Kind, E> {
        Ok(Kind::Scalar(number.into()))
    }
    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(text.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Kind, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = members.next_key::<Spanned<String>>()? {
            let value = members.next_value()?;
            map.push(Entry { key: key.value, at: Position::of(key.defined), value });
        }
        Ok(Kind::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        parse(text).unwrap_or_else(|broken| panic!("{}:{}: {}", broken.at.line, broken.at.column, broken.why))
    }

    #[test]
    fn every_value_knows_its_line() {
        let text = "a: &here\n  b: 1\nlist:\n- x: ((v))\n- <<: *here\n  c: yes\n";
        let node = read(text);
        let second = &node.get("list").expect("it is there").items()[1];
        assert_eq!(second.json(), serde_json::json!({"b": 1, "c": true}));
        assert_eq!(second.entry("b").map(|b| b.value.at.line), Some(2), "where it is defined");
        assert_eq!(second.entry("c").map(|c| c.at), Some(Position { line: 6, column: 3 }));
        assert!(node.has_var() && !second.has_var());
    }

    #[test]
    fn broken_yaml_is_told_with_its_line() {
        for (text, line) in [("a: [1\nb: 2\n", 2), ("a: 1\nb: {{old}}\n", 2), ("a: 1\na: 2\n", 2)] {
            let broken = parse(text).err().expect("it is broken");
            assert!(broken.at.line >= line && !broken.why.is_empty(), "{text}: {:?} {}", broken.at, broken.why);
            assert!(!broken.why.contains("Options"), "{}", broken.why);
        }
    }
}
