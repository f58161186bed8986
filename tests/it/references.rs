//! References lead somewhere: links of the pages to files and headings, and what sources say of pages (`docs/NAME.md`,
//! or `docs/NAME.md#heading`).

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where references are looked for; files are told apart by what they end with.
const PLACES: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Cargo.toml",
    "Dockerfile",
    "bin",
    "benches",
    "ci",
    "deploy",
    "docs",
    "pipelines",
    "src",
    "tests",
];

/// Whether a path is a page's.
fn is_page(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "md")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of [`PLACES`], but this one, with its path from the root.
fn texts() -> Vec<(String, String)> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), found));
        } else {
            found.push(path.to_owned());
        }
    }
    let mut found = Vec::new();
    PLACES.iter().for_each(|place| walk(&root().join(place), &mut found));
    let text = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str()?.to_owned();
        Some((name, fs::read_to_string(&path).ok()?))
    };
    found.into_iter().filter_map(text).filter(|(name, _)| name != "tests/it/references.rs").collect()
}

/// The anchors of a page: its headings as links name them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        in_block ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if in_block || heading == line || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    found
}

/// What is wrong with a reference to `target` (a path and perhaps `#anchor`) from a file in `dir`, if anything.
fn wrong(dir: &Path, whole: &str, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = dir.join(file);
    if !file.is_empty() && !path.exists() {
        return Some(format!("{target}: there is no such file"));
    }
    let anchor = anchor?;
    let page = if file.is_empty() { whole.to_owned() } else { fs::read_to_string(path).unwrap_or_default() };
    (!anchors(&page).contains(anchor)).then(|| format!("{target}: that page has no such heading"))
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in texts().into_iter().filter(|(name, _)| is_page(name)) {
        let dir = root().join(&name).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let targets = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
        broken.extend(targets.filter_map(|target| wrong(&dir, &text, target)).map(|why| format!("{name}: {why}")));
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn sources_refer_to_pages_that_are_there() {
    let mut broken = Vec::new();
    for (name, text) in texts().into_iter().filter(|(name, _)| !is_page(name)) {
        for rest in text.split("docs/").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"/.-_#".contains(c)).unwrap_or(rest.len());
            let target = rest[..end].trim_end_matches('.');
            if is_page(target.split('#').next().unwrap()) {
                broken.extend(wrong(&root().join("docs"), "", target).map(|why| format!("{name}: docs/{why}")));
            }
        }
    }
    assert!(broken.is_empty(), "references that lead nowhere:\n{}", broken.join("\n"));
}
