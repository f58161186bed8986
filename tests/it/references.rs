//! Everything that a text of this repository refers to exists: pages and their headings, files, invariants, tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every file that people wrote, by its path from the root.
const PLACES: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Cargo.toml",
    "clippy.toml",
    "deny.toml",
    "Dockerfile",
    ".ci",
    "benches",
    "bin",
    "ci",
    "clients",
    "deploy",
    "docs",
    "pipelines",
    "src",
    "tests",
];
/// Left out: bytes for fuzzers, a job with paths of BOSH, and this file, which has wrong examples.
const LEFT_OUT: &[&str] = &["tests/proofs/fuzz/seeds", "deploy/bosh/jobs", "tests/it/references.rs"];
/// Texts name the files in these directories by their path from the root.
const ROOTS: &[&str] = &["benches/", "bin/", "ci/", "clients/", "deploy/", "docs/", "pipelines/", "src/", "tests/"];

/// A text of the repository.
struct Text {
    path: PathBuf,
    text: String,
}

impl Text {
    fn is_page(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "md")
    }

    /// Each line, with its place for messages.
    fn lines(&self) -> impl Iterator<Item = (String, &str)> {
        self.text.lines().enumerate().map(|(n, line)| (format!("{}:{}", self.path.display(), n + 1), line))
    }
}

fn texts() -> Vec<Text> {
    fn walk(path: &Path, found: &mut Vec<Text>) {
        if LEFT_OUT.iter().any(|left_out| path == Path::new(left_out)) {
            return;
        }
        if path.is_dir() {
            let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            entries.iter().for_each(|entry| walk(entry, found));
        } else if let Ok(text) = fs::read_to_string(path) {
            found.push(Text { path: path.to_owned(), text });
        }
    }
    let mut found = Vec::new();
    PLACES.iter().for_each(|place| walk(Path::new(place), &mut found));
    found
}

/// The anchor of a heading, as on GitHub: `## The life of a claim` is `#the-life-of-a-claim`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The headings of a page.
fn headings(page: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in page.lines() {
        in_code ^= line.trim_start().starts_with("```");
        let text = line.trim_start_matches('#');
        if !in_code && text.len() < line.len() && text.starts_with(' ') {
            found.push(text.trim());
        }
    }
    found
}

/// The anchors of the headings of a page. The second heading with the same text gets `-1`.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let number = |heading: &str| {
        let anchor = anchor(heading);
        let n = times.entry(anchor.clone()).or_default();
        *n += 1;
        if *n == 1 { anchor } else { format!("{anchor}-{}", *n - 1) }
    };
    headings(page).into_iter().map(number).collect()
}

/// Whether `PATH#HEADING` (or either part alone) exists; `from` is the page that refers to it.
fn leads_somewhere(target: &str, from: &Path) -> bool {
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() { from.to_owned() } else { from.parent().unwrap().join(path) };
    if heading.is_empty() || file.extension().is_none_or(|extension| extension != "md") {
        return file.exists();
    }
    fs::read_to_string(file).is_ok_and(|page| anchors(&page).contains(heading))
}

/// The words of a line that begin with one of [`ROOTS`] and name a file, each with the text after it.
fn paths(line: &str) -> Vec<(&str, &str)> {
    let is_path = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let mut found = Vec::new();
    for root in ROOTS {
        for (at, _) in line.match_indices(root) {
            if line[..at].ends_with(|c: char| is_path(c) || matches!(c, '$' | '}' | ':')) {
                continue;
            }
            let rest = &line[at..];
            let end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
            found.push((rest[..end].trim_end_matches('.'), &rest[end..]));
        }
    }
    found
}

/// The numbers of invariants in a line, such as `I7`.
fn invariants(line: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let words = line.split(|c| !is_word(c));
    words
        .filter(|word| word.strip_prefix('I').is_some_and(|n| (1..=2).contains(&n.len()) && n.parse::<u8>().is_ok()))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in texts().iter().filter(|text| text.is_page()) {
        for (place, line) in page.lines() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let is_outside = target.contains("://") || target.starts_with("mailto:");
                if !is_outside && !leads_somewhere(target, &page.path) {
                    broken.push(format!("{place}: {target}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Whether a page of docs/decisions begins with this number.
fn is_decision(path: &str) -> bool {
    let mut pages = fs::read_dir("docs/decisions").unwrap().map(|page| page.unwrap().path());
    path.len() == "docs/decisions/0000".len() && pages.any(|page| page.to_str().unwrap().starts_with(path))
}

/// What a line names that does not exist: files, and headings of pages in either form, `docs/store.md#backups` and
/// `docs/store.md, "Backups"`.
fn missing(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (path, rest) in paths(line) {
        // A pattern for several files, or an invented name.
        if rest.starts_with(['*', '{', '<', '$', '[']) || path.contains("NAME") || path.contains("PAGE") {
            continue;
        }
        if !Path::new(path).exists() && !is_decision(path) {
            found.push(path.to_owned());
            continue;
        }
        if Path::new(path).extension().is_none_or(|extension| extension != "md") || is_decision(path) {
            continue;
        }
        let page = fs::read_to_string(path).unwrap();
        let is_anchor = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        if let Some(rest) = rest.strip_prefix('#') {
            let heading = rest.split(|c| !is_anchor(c)).next().unwrap_or_default();
            if !anchors(&page).contains(heading) {
                found.push(format!("{path}#{heading}"));
            }
        }
        let quoted = rest.strip_prefix(", \"").and_then(|rest| rest.split_once('"'));
        if let Some((heading, _)) = quoted {
            let plain = |text: &str| text.replace('`', "");
            if !headings(&page).iter().any(|known| plain(known) == plain(heading)) {
                found.push(format!("{path}, {heading:?}"));
            }
        }
    }
    found
}

#[test]
fn named_files_exist() {
    let mut found = Vec::new();
    for text in texts() {
        for (place, line) in text.lines() {
            found.extend(missing(line).into_iter().map(|name| format!("{place}: {name}")));
        }
    }
    assert!(found.is_empty(), "not there:\n{}", found.join("\n"));
}

#[test]
fn named_invariants_are_defined() {
    let page = fs::read_to_string("docs/architecture.md").unwrap();
    let defined: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .filter(|cell| !invariants(cell).is_empty())
        .collect();
    let expected: Vec<String> = (1..=defined.len()).map(|n| format!("I{n}")).collect();
    assert!(defined.len() > 10 && defined == expected, "the table of docs/architecture.md: {defined:?}");
    let mut unknown = Vec::new();
    for text in texts() {
        for (place, line) in text.lines() {
            let wrong = invariants(line).into_iter().filter(|name| !defined.contains(name));
            unknown.extend(wrong.map(|name| format!("{place}: {name}")));
        }
    }
    assert!(unknown.is_empty(), "not in the table of docs/architecture.md:\n{}", unknown.join("\n"));
}

/// The last column of docs/bugs.md names the tests that fail without the fix.
#[test]
fn tests_of_fixed_bugs_exist() {
    let is_test = |name: &&str| {
        name.matches('_').count() > 1 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let code: String = texts().iter().filter(|text| !text.is_page()).map(|text| text.text.as_str()).collect();
    let page = fs::read_to_string("docs/bugs.md").unwrap();
    let mut missing = Vec::new();
    let mut seen = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let Some(cell) = row.trim_end_matches(" |").rsplit(" | ").next() else { continue };
        for name in
            cell.split('`').skip(1).step_by(2).map(|name| name.rsplit("::").next().unwrap_or(name)).filter(is_test)
        {
            seen += 1;
            if !code.contains(name) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(
        seen > 20 && missing.is_empty(),
        "of {seen} tests that docs/bugs.md names these are not there: {missing:#?}"
    );
}

/// A reader cannot look up notes that only their author has. Refer to pages and headings of docs/ instead.
#[test]
fn no_text_refers_to_missing_notes() {
    const ELSEWHERE: &[&str] = &[
        "design section",
        "contracts section",
        "concourse-facts",
        "numbers.md",
        "reliability.md",
        "reliability i",
        "demands.md",
        "styles.md",
        " shared/",
        "`shared/",
    ];
    let mut found = Vec::new();
    for text in texts() {
        let is_elsewhere = |line: &str| ELSEWHERE.iter().any(|word| line.to_lowercase().contains(word));
        let lines = text.lines().filter(|(_, line)| is_elsewhere(line));
        found.extend(lines.map(|(place, line)| format!("{place}: {}", line.trim())));
    }
    assert!(found.is_empty(), "name a page of docs/ and its heading instead:\n{}", found.join("\n"));
}

#[test]
fn the_checks_see_what_they_should() {
    assert_eq!(anchor("The life of a claim: `PUT`, twice"), "the-life-of-a-claim-put-twice");
    assert_eq!(anchors("# A\n## B b\n```sh\n# c\n```\n## B b\n"), ["a", "b-b", "b-b-1"].map(String::from).into());
    assert_eq!(invariants("I1, (I12) and I7: -I2 strace, I, Is3, AI1, I123"), ["I1", "I12", "I7"]);
    assert_eq!(
        paths("see `docs/a.md#b`, src/x.rs. ../docs/c.md $x/bin/y"),
        [("docs/a.md", "#b`, src/x.rs. ../docs/c.md $x/bin/y"), ("src/x.rs", " ../docs/c.md $x/bin/y")]
    );
    assert!(leads_somewhere("docs/architecture.md#what-is-always-true", Path::new("README.md")));
    assert!(!leads_somewhere("docs/architecture.md#what-was-never-true", Path::new("README.md")));
    assert!(!leads_somewhere("nowhere.md", Path::new("docs/architecture.md")));
}
