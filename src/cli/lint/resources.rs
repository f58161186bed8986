//! The resources of a pipeline that are Locker's, or that may become Locker's.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::wire::concourse::Source;
use crate::wire::yaml::{Node, Position};

/// The address that replaces one which only Concourse knows.
const SOME_URL: &str = "http://a-var.invalid";

/// What a resource type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Locker,
    /// pool-resource: Concourse's own type `pool`, or its image.
    PoolResource,
    /// The resource type of the old locker.
    LockerResource,
}

pub(super) struct Resource<'p> {
    pub name: &'p str,
    pub kind: Type,
    /// The place of its name.
    pub at: Position,
    /// The place of its type.
    pub type_at: Position,
    /// Whether the pipeline declares its type. If not, the type is one of Concourse's own.
    pub is_declared: bool,
    own: Option<&'p Node>,
    /// `defaults` of the type, which Concourse puts below the source.
    defaults: Option<&'p Node>,
}

/// The resources of `pipeline` that matter here, by name. `ours` are types that the user has named.
pub(super) fn find<'p>(pipeline: &'p Node, ours: &[String]) -> BTreeMap<&'p str, Resource<'p>> {
    let types: BTreeMap<&str, &Node> = named(pipeline, "resource_types").collect();
    let read = |(name, node): (&'p str, &'p Node)| {
        let (type_name, declared) = (node.text("type")?, types.get(node.text("type")?).copied());
        let own = node.get("source");
        let defaults = declared.and_then(|declared| declared.get("defaults"));
        let has = |key: &str| [own, defaults].into_iter().flatten().any(|source| source.entry(key).is_some());
        let place = |key: &str| node.entry(key).map_or(node.at, |entry| entry.at);
        let kind = classify(type_name, declared, ours, &has)?;
        let (at, type_at) = (place("name"), place("type"));
        Some((name, Resource { name, kind, at, type_at, is_declared: declared.is_some(), own, defaults }))
    };
    named(pipeline, "resources").filter_map(read).collect()
}

fn named<'p>(pipeline: &'p Node, list: &str) -> impl Iterator<Item = (&'p str, &'p Node)> {
    let items = pipeline.get(list).map(Node::items).unwrap_or_default();
    items.iter().filter_map(|node| Some((node.text("name")?, node)))
}

/// Goes by the image's name and, for an image of another name, by the keys of the source.
fn classify(name: &str, declared: Option<&Node>, ours: &[String], has: &dyn Fn(&str) -> bool) -> Option<Type> {
    if ours.iter().any(|known| known == name) {
        return Some(Type::Locker);
    }
    let repository = declared.map(|entry| entry.get("source").and_then(|source| source.text("repository")));
    // Without an entry, the name stands for an image that the operator of Concourse has installed.
    let image = repository.map_or(if name == "pool" { "pool-resource" } else { name }, |path| {
        let image = path.unwrap_or_default().rsplit('/').next().unwrap_or_default();
        image.split(['@', ':']).next().unwrap_or_default()
    });
    match image {
        "locker" => Some(Type::Locker),
        "pool-resource" => Some(Type::PoolResource),
        "locker-resource" => Some(Type::LockerResource),
        _ if has("locker_uri") => Some(Type::Locker),
        _ if matches!(name, "pool" | "pool-resource") || (has("pool") && has("uri")) => Some(Type::PoolResource),
        _ => None,
    }
}

impl<'p> Resource<'p> {
    /// The source and the defaults below it.
    pub fn sources(&self) -> impl Iterator<Item = &'p Node> {
        [self.own, self.defaults].into_iter().flatten()
    }

    /// A value of the source.
    pub fn get(&self, key: &str) -> Option<&'p Node> {
        self.sources().find_map(|source| source.entry(key)).map(|entry| &entry.value)
    }

    /// Whether nothing is known of the source, because all of it is a var.
    pub fn is_unknown(&self) -> bool {
        self.sources().any(Node::is_var)
    }

    /// The source as the resource would see it. Values that only Concourse knows are left out, or replaced where
    /// something must be there. `None` if all of it is a var.
    pub fn json(&self) -> Option<Value> {
        if self.is_unknown() {
            return None;
        }
        let mut map = Map::new();
        for source in [self.defaults, self.own].into_iter().flatten() {
            for entry in source.entries() {
                map.insert(entry.key.clone(), entry.value.json());
            }
        }
        let unknown = |key: &str| self.get(key).is_some_and(Node::has_var);
        let is_optional = |key: &str| Source::KEYS.contains(&key) && !matches!(key, "pool" | "lock_name");
        map.retain(|key, _| !(unknown(key) && is_optional(key)));
        for pair in [["client_cert", "client_key"], ["client_key", "client_cert"]] {
            if unknown(pair[0]) {
                map.remove(pair[1]);
            }
        }
        let some_url = || Value::from(SOME_URL);
        for key in ["locker_uri", "bosh_lock"] {
            if unknown(key) {
                map.insert(key.to_owned(), some_url());
            }
        }
        // The move adds it.
        if self.kind == Type::PoolResource {
            map.entry("locker_uri").or_insert_with(some_url);
        }
        Some(Value::Object(map))
    }

    /// What its claims share with those of other resources: the pool. Resources with the same text mean the same one.
    pub fn pool(&self) -> &'p str {
        ["pool", "lock_name", "bosh_lock"].into_iter().find_map(|key| self.get(key)?.as_text()).unwrap_or(self.name)
    }
}
