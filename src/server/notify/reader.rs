//! Reading a mapping of a YAML file, with every fault at its line.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::settings::of_words;
use crate::wire::problems::unknown;
use crate::wire::yaml::{Kind, Node};

/// The most faults that are named; more help nobody.
const SHOWN: usize = 50;

/// What is wrong, each with its line.
#[derive(Debug, Default)]
pub struct Faults(Vec<(u64, String)>);

impl Faults {
    pub fn add(&mut self, line: u64, what: impl Into<String>) {
        self.0.push((line, what.into()));
    }

    /// All of them in the order of their lines, or the first ones and how many more there are.
    #[must_use]
    pub fn done(mut self) -> Vec<(u64, String)> {
        self.0.sort();
        self.0.dedup();
        if self.0.len() > SHOWN {
            let (more, line) = (self.0.len() - SHOWN, self.0[SHOWN].0);
            self.0.truncate(SHOWN);
            self.0.push((line, format!("and {more} more faults from here on")));
        }
        self.0
    }
}

/// Reads one mapping.
pub struct Reader<'n, 'f> {
    node: &'n Node,
    /// What the mapping is about, for messages; may be empty.
    what: &'f str,
    dir: &'f Path,
    faults: &'f mut Faults,
}

impl<'n, 'f> Reader<'n, 'f> {
    pub fn new(node: &'n Node, what: &'f str, dir: &'f Path, faults: &'f mut Faults) -> Self {
        if !matches!(node.kind, Kind::Map(_)) {
            faults.add(node.at.line, format!("{} must be a mapping", if what.is_empty() { "the file" } else { what }));
        }
        Self { node, what, dir, faults }
    }

    /// Records a fault. Returns `None` for convenience.
    pub fn fault<T>(&mut self, line: u64, what: impl Display) -> Option<T> {
        let text = if self.what.is_empty() { what.to_string() } else { format!("{}: {what}", self.what) };
        self.faults.add(line, text);
        None
    }

    /// Allows only these keys.
    pub fn only(&mut self, keys: &[&str]) {
        self.only_or(keys, keys);
    }

    /// Allows only these keys, of all that exist.
    pub fn only_or(&mut self, keys: &[&str], all: &[&str]) {
        for entry in self.node.entries().iter().filter(|entry| !keys.contains(&entry.key.as_str())) {
            let text = if all.contains(&entry.key.as_str()) {
                format!("{} is not for this kind of target", entry.key)
            } else {
                unknown("key", &entry.key, keys)
            };
            let _: Option<()> = self.fault(entry.at.line, text);
        }
    }

    /// A text, and its line.
    pub fn text(&mut self, key: &str) -> Option<(u64, &'n str)> {
        let entry = self.node.entry(key)?;
        match entry.value.as_text() {
            Some(text) => Some((entry.at.line, text)),
            None => self.fault(entry.at.line, format!("{key} must be a text; put it into quotes if it is one")),
        }
    }

    /// A text that must be there.
    pub fn required(&mut self, key: &str) -> Option<(u64, &'n str)> {
        if self.node.entry(key).is_none() {
            return self.fault(self.node.at.line, format!("{key} is missing"));
        }
        self.text(key).filter(|(_, text)| !text.is_empty())
    }

    /// One of these words.
    pub fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let entry = self.node.entry(key)?;
        self.known(key, &entry.value, words)
    }

    /// One of these words, as an item.
    pub fn known<T: Copy>(&mut self, what: &str, node: &Node, words: &[(&str, T)]) -> Option<T> {
        let Some(given) = node.as_text() else {
            return self.fault(node.at.line, format!("{what} must be a word"));
        };
        of_words(what, given, words).map_or_else(|why| self.fault(node.at.line, why), Some)
    }

    /// An item as a value of a type.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, what: &str, node: &Node) -> Option<T> {
        match node.as_text().map(str::parse) {
            Some(Ok(value)) => Some(value),
            Some(Err(why)) => self.fault(node.at.line, format!("{what}: {why}")),
            None => self.fault(node.at.line, format!("{what}: each must be a text; put it into quotes")),
        }
    }

    /// The items of a list that must be there.
    pub fn list(&mut self, key: &str, max: usize) -> &'n [Node] {
        match self.node.entry(key) {
            None => self.fault(self.node.at.line, format!("{key} is missing")).unwrap_or_default(),
            Some(entry) => match &entry.value.kind {
                Kind::List(items) if items.len() <= max => items,
                Kind::List(_) => {
                    self.fault(entry.at.line, format!("{key} has more than {max} items")).unwrap_or_default()
                }
                _ => self.fault(entry.at.line, format!("{key} must be a list")).unwrap_or_default(),
            },
        }
    }

    /// The items of a list, or one item in its place; none if it is not there.
    pub fn list_or_one(&mut self, key: &str, max: usize) -> &'n [Node] {
        match self.node.entry(key) {
            None => &[],
            Some(entry) if matches!(entry.value.kind, Kind::List(_)) => self.list(key, max),
            Some(entry) => std::slice::from_ref(&entry.value),
        }
    }

    /// The path of a file. `read` tries to use it, so that a wrong one is found at once.
    pub fn file<T>(&mut self, key: &str, read: impl FnOnce(&Path) -> Result<T, String>) -> Option<PathBuf> {
        let (line, name) = self.text(key)?;
        let file = self.dir.join(name);
        match read(&file) {
            Ok(_) => Some(file),
            Err(why) => self.fault(line, format!("{key}: {why}")),
        }
    }
}
