//! The layers of the program: each part names only the parts below it, and the core is pure
//! (docs/architecture.md#modules).

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each part of the crate, and the parts that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("env", &[]),
    ("priority", &[]),
    ("wire", &["core", "env"]),
    ("client", &["core", "env", "wire"]),
    ("store", &["client", "core", "env", "priority", "wire"]),
    ("server", &["client", "core", "env", "priority", "store", "wire"]),
    ("resource", &["client", "core", "env", "wire"]),
    ("agent", &["client", "core", "env", "wire"]),
    ("cli", &["agent", "client", "core", "env", "resource", "server", "store", "wire"]),
];

/// Names that would make the core depend on more than its arguments.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time",
    "chrono",
    "getrandom",
    "serde",
    "tokio",
    "tracing",
    "ureq",
    "rusqlite",
];

/// The sources below `dir` that are part of the program, without comments and unit tests.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            found.push((path, code.collect::<Vec<_>>().join("\n")));
        }
    }
    found.sort();
    found
}

/// The first word of each path that begins with `prefix`. For `prefix{a, b::c}`, the first word of each member.
fn named<'t>(text: &'t str, prefix: &str) -> BTreeSet<&'t str> {
    let word = |text: &'t str| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                names.extend(list.split('}').next().unwrap_or_default().split(',').map(|item| word(item.trim())))
            }
            None => {
                names.insert(word(rest));
            }
        }
    }
    names
}

/// The part of `root` that a file belongs to: `root/part.rs`, or any file below `root/part/`.
fn part(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn parts_name_only_what_is_below_them() {
    let root = Path::new("src");
    let allowed: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in sources(root) {
        let part = part(root, &path);
        let Some(allowed) = allowed.get(part.as_str()) else {
            assert_eq!(part, "lib", "{} belongs to no known part", path.display());
            continue;
        };
        let strange = named(&text, "crate::").into_iter().filter(|name| *name != part && !allowed.contains(name));
        wrong.extend(strange.map(|name| format!("{} names {name}", path.display())));
        seen.insert(part);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(seen.len(), MAY_NAME.len(), "{seen:?}");
}

#[test]
fn the_core_is_pure() {
    for (path, text) in sources(Path::new("src/core")) {
        for impure in IMPURE {
            let found = text
                .match_indices(impure)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(!found, "{} names {impure}", path.display());
        }
    }
}

/// A constant that limits something outside the core does not belong in the core.
#[test]
fn the_core_has_no_limits_of_the_shell() {
    let shell = ["DOOR", "WATCH", "VERIFY", "LOG", "ARGO", "KUBECONFIG", "BATCH"];
    let text = fs::read_to_string("src/core/limits.rs").unwrap();
    let strange = named(&text, "pub const ").into_iter().filter(|name| {
        let first = name.split('_').next().unwrap_or_default();
        shell.contains(&first)
    });
    let strange: Vec<&str> = strange.collect();
    assert!(strange.is_empty(), "move these next to what they limit: {strange:?}");
}

#[test]
fn no_two_parts_of_the_core_name_each_other() {
    let root = Path::new("src/core");
    let tests = ["mod", "scenarios", "model_tests", "test_store"];
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources(root) {
        let part = part(root, &path);
        if tests.contains(&part.as_str()) || path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let prefixes: &[&str] = if path.parent() == Some(root) {
            &["super::", "crate::core::"]
        } else {
            &["super::super::", "crate::core::"]
        };
        let found = prefixes.iter().flat_map(|prefix| named(code, prefix)).map(str::to_owned);
        names.entry(part).or_default().extend(found);
    }
    // Remove the modules that name no remaining module, and repeat. In the end no module may remain, or there is a
    // cycle.
    let mut left: BTreeSet<String> = names.keys().cloned().collect();
    let mut floors = 0;
    loop {
        let stands = |part: &&String| !names[*part].iter().any(|name| name != *part && left.contains(name));
        let floor: Vec<String> = left.iter().filter(stands).cloned().collect();
        if floor.is_empty() {
            break;
        }
        floors += 1;
        left.retain(|part| !floor.contains(part));
    }
    assert!(left.is_empty(), "these modules are part of a cycle, or depend on one: {left:?}");
    assert!(floors > 5, "only {floors} layers: the names were not understood");
}
