//! The access file: users, issuers of id tokens and rules, read as a whole (docs/access.md).
//!
//! ```yaml
//! users:
//!   ada: $argon2id$v=19$m=19456,t=2,p=1$...
//! issuers:
//!   - {name: ci, kind: concourse, issuer: "https://ci.example.com", audience: locker}
//! rules:
//!   - {to: user:ada, may: admin, pools: "*"}
//!   - {to: "CN=ci", may: claim, pools: [payments-*, shared]}
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::rights::Right;
use super::rules::{Rule, Subject};
use crate::core::limits::{NAME_BYTES, OWNER_FIELD_BYTES};
use crate::core::names::NamePattern;
use crate::env::read_file;
use crate::server::auth::idtoken::settings::{self, IssuerSettings};
use crate::server::auth::passwords::PasswordHash;
use crate::server::limits::{ACCESS_FILE_BYTES, ACCESS_LIST, ACCESS_RULES, ACCESS_USERS};
use crate::wire::problems::{Problems, quoted, unknown};
use crate::wire::yaml::{self, Entry, Kind, Node};

/// What an access file says.
#[derive(Debug, Clone, Default)]
pub struct AccessFile {
    pub users: BTreeMap<String, PasswordHash>,
    pub rules: Vec<Arc<Rule>>,
    /// Whose id tokens count.
    pub issuers: Vec<IssuerSettings>,
}

/// Something wrong in a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub line: u64,
    pub text: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// The text of an access file.
///
/// # Errors
/// It cannot be read, or it is too large.
pub fn text_of(path: &Path) -> Result<String, String> {
    let why = |why: &dyn std::fmt::Display| format!("cannot read the access file {}: {why}", path.display());
    let bytes = read_file(path, ACCESS_FILE_BYTES as u64).map_err(|error| why(&error))?;
    let bytes = bytes.ok_or_else(|| why(&format!("it is larger than {ACCESS_FILE_BYTES} bytes")))?;
    String::from_utf8(bytes).map_err(|_| why(&"it is not valid UTF-8"))
}

impl AccessFile {
    /// Reads the whole text.
    ///
    /// # Errors
    /// All faults, by line.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let node = yaml::parse(text).map_err(|broken| vec![Fault { line: broken.at.line, text: broken.why }])?;
        let mut reading = Reading::default();
        let file = reading.file(&node);
        let mut faults = reading.faults;
        faults.sort();
        if faults.is_empty() { Ok(file) } else { Err(faults) }
    }
}

/// The member with the issuers.
const ISSUERS: &str = "issuers";

/// The line of the member at a path such as `[0].audience`, or of what is there of it.
fn line_of(node: &Node, path: &str) -> u64 {
    if let Some((index, rest)) = path.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let item = index.parse().ok().and_then(|index: usize| node.items().get(index));
        return item.map_or(node.at.line, |item| line_of(item, rest));
    }
    let Some(path) = path.strip_prefix('.') else { return node.at.line };
    // A key may have dots itself.
    let is_first = |entry: &&Entry| {
        path.strip_prefix(entry.key.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    match node.entries().iter().find(is_first) {
        None => node.at.line,
        Some(entry) if entry.key.len() == path.len() => entry.at.line,
        Some(entry) => line_of(&entry.value, &path[entry.key.len()..]),
    }
}

#[derive(Default)]
struct Reading {
    faults: Vec<Fault>,
}

impl Reading {
    fn fault(&mut self, line: u64, text: impl Into<String>) {
        self.faults.push(Fault { line, text: text.into() });
    }

    /// The members of a map, which must be known. The parser refuses a key that stands twice.
    fn members<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> &'n [Entry] {
        let Kind::Map(entries) = &node.kind else {
            self.fault(node.at.line, format!("{what} must be a map with {}", known.join(", ")));
            return &[];
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            self.fault(entry.at.line, unknown("key", &entry.key, known));
        }
        entries
    }

    fn file(&mut self, node: &Node) -> AccessFile {
        let mut file = AccessFile::default();
        let mut has_rules = false;
        for entry in self.members(node, "the file", &["users", "issuers", "rules"]) {
            match entry.key.as_str() {
                "users" => file.users = self.users(&entry.value),
                "issuers" => file.issuers = self.issuers(&entry.value),
                "rules" => {
                    has_rules = true;
                    file.rules = self.rules(&entry.value);
                }
                _ => {}
            }
        }
        self.check_issuers(node, &file);
        if !has_rules && self.faults.is_empty() {
            self.fault(node.at.line, "there are no rules, so nobody may do anything: add `rules:`");
        }
        file
    }

    /// The issuers of id tokens. Each fault gets the line of the member that it is about.
    fn issuers(&mut self, node: &Node) -> Vec<IssuerSettings> {
        let mut problems = Problems::default();
        let found = settings::read(ISSUERS, node.json(), &mut problems);
        for problem in problems.into_problems() {
            self.fault(line_of(node, problem.at.strip_prefix(ISSUERS).unwrap_or_default()), problem.text);
        }
        found
    }

    /// Rules about builds need an issuer, and must say which one they mean if there are several: teams of two issuers may
    /// have one name.
    fn check_issuers(&mut self, node: &Node, file: &AccessFile) {
        let known: Vec<&str> = file.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        if !self.faults.is_empty() {
            return;
        }
        let items = node.get("rules").map(Node::items).unwrap_or_default();
        for (rule, item) in file.rules.iter().zip(items) {
            for subject in rule.to.iter().filter(|subject| subject.is_of_builds()) {
                match subject.issuer() {
                    _ if known.is_empty() => {
                        let text =
                            format!("{subject}: there are no issuers, so no build can prove that: add `issuers:`");
                        self.fault(item.at.line, text);
                    }
                    Some(issuer) if !known.contains(&issuer) => {
                        self.fault(item.at.line, format!("{subject}: {}", unknown("issuer", issuer, &known)));
                    }
                    None if known.len() > 1 => {
                        let which = format!("there are several issuers, so say which: one of {}", known.join(", "));
                        self.fault(item.at.line, format!("{subject}: {which}"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn users(&mut self, node: &Node) -> BTreeMap<String, PasswordHash> {
        let Kind::Map(entries) = &node.kind else {
            self.fault(node.at.line, "users must be a map of names to hashes (locker user hash)");
            return BTreeMap::new();
        };
        if entries.len() > ACCESS_USERS {
            self.fault(
                node.at.line,
                format!("there are {} users, and at most {ACCESS_USERS} are allowed", entries.len()),
            );
        }
        let mut users = BTreeMap::new();
        for Entry { key: name, at, value } in entries.iter().take(ACCESS_USERS) {
            let is_name = (1..=OWNER_FIELD_BYTES).contains(&name.len()) && !name.contains(':');
            if !is_name || name.chars().any(char::is_control) {
                let must = "must have 1 to 256 bytes, no colon and no control characters";
                self.fault(at.line, format!("the user name {} {must}", quoted(name)));
            } else {
                // A text that is not a hash may be a password, so it is not shown.
                let hash = value.as_text().ok_or_else(|| "is not a text".to_owned()).and_then(str::parse);
                match hash {
                    Ok(hash) => drop(users.insert(name.clone(), hash)),
                    Err(error) => self.fault(value.at.line, format!("the hash of user {} {error}", quoted(name))),
                }
            }
        }
        users
    }

    fn rules(&mut self, node: &Node) -> Vec<Arc<Rule>> {
        let Kind::List(items) = &node.kind else {
            self.fault(node.at.line, "rules must be a list");
            return Vec::new();
        };
        if items.len() > ACCESS_RULES {
            self.fault(
                node.at.line,
                format!("there are {} rules, and at most {ACCESS_RULES} are allowed", items.len()),
            );
        }
        items.iter().take(ACCESS_RULES).filter_map(|item| self.rule(item).map(Arc::new)).collect()
    }

    fn rule(&mut self, node: &Node) -> Option<Rule> {
        let entries = self.members(node, "a rule", &["name", "to", "may", "pools"]);
        let get = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let name = match get("name") {
            None => Some(format!("line {}", node.at.line)),
            Some(given) => match given.as_text().filter(|name| (1..=NAME_BYTES).contains(&name.len())) {
                Some(name) if !name.chars().any(char::is_control) => Some(name.to_owned()),
                _ => {
                    self.fault(given.at.line, "name must be a text of 1 to 128 bytes, without control characters");
                    None
                }
            },
        };
        let to = self.list::<Subject>(node, get("to"), "to", "such as user:NAME or authenticated");
        let may = self.list::<Right>(node, get("may"), "may", "such as look or claim");
        // The metrics are of the whole server.
        let needs_pools = may.as_ref().is_none_or(|may| may.iter().any(|right| *right != Right::Metrics));
        let pools = match get("pools") {
            None if !needs_pools => Some(Vec::new()),
            given => self.list::<NamePattern>(node, given, "pools", "a pattern of names, such as payments-*, or \"*\""),
        };
        Some(Rule { name: name?.into(), to: to?, may: may?, pools: pools? })
    }

    /// One text or a list of them.
    fn list<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        rule: &Node,
        given: Option<&Node>,
        key: &str,
        such: &str,
    ) -> Option<Vec<T>> {
        let Some(given) = given else {
            self.fault(rule.at.line, format!("the rule lacks `{key}`: {such}"));
            return None;
        };
        let items = match &given.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(given),
        };
        if items.is_empty() || items.len() > ACCESS_LIST {
            self.fault(given.at.line, format!("{key} must have 1 to {ACCESS_LIST} entries: {such}"));
            return None;
        }
        let before = self.faults.len();
        let mut read = Vec::new();
        for item in items {
            let Some(text) = item.as_text() else {
                self.fault(item.at.line, format!("{key} must be text: {such}"));
                continue;
            };
            match text.parse() {
                Ok(value) => read.push(value),
                Err(error) => self.fault(item.at.line, format!("{key}: {error}")),
            }
        }
        (self.faults.len() == before).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::names::PoolName;
    use crate::core::origin::{Identity, Job};
    use crate::server::auth::access::rules::Caller;

    fn faults(text: &str) -> Vec<String> {
        AccessFile::parse(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_fault_has_its_line_and_the_nearest_word() {
        let table: &[(&str, &[&str])] = &[
            ("rules: []\n", &[]),
            ("users: {}\n", &["line 1: there are no rules, so nobody may do anything: add `rules:`"]),
            ("rulez: []\n", &["line 1: unknown key \"rulez\": did you mean \"rules\"?"]),
            ("- a\n", &["line 1: the file must be a map with users, issuers, rules"]),
            (
                "rules:\n- to: anyone\n  may: lok\n  pools: '*'\n- {to: usr:ada, may: look, pools: p}\n",
                &[
                    "line 3: may: unknown right \"lok\": did you mean \"look\"?",
                    "line 5: to: \"usr:ada\" is not one of anyone, authenticated, user:NAME, token:NAME, certificate:SUBJECT, team:NAME or pipeline:TEAM/NAME: did you mean user?",
                ],
            ),
            (
                "rules:\n- {may: look}\n",
                &[
                    "line 2: the rule lacks `pools`: a pattern of names, such as payments-*, or \"*\"",
                    "line 2: the rule lacks `to`: such as user:NAME or authenticated",
                ],
            ),
            ("rules:\n- {to: anyone, may: metrics}\n", &[]),
            (
                "rules:\n- {to: [], may: look, pools: a}\n",
                &["line 2: to must have 1 to 100 entries: such as user:NAME or authenticated"],
            ),
            (
                "rules:\n- {to: pipeline:a, may: look, pools: a}\n",
                &["line 2: to: must be pipeline:TEAM/NAME, or pipeline:ISSUER/TEAM/NAME"],
            ),
            ("rules: []\nrules: []\n", &["line 2: duplicate mapping key: rules"]),
            ("users:\n  a: x\n  a: y\nrules: []\n", &["line 3: duplicate mapping key: a"]),
            (
                "rules:\n- {to: anyone, may: look, pools: a}\n- {to: team:a, may: look, pools: a}\n",
                &["line 3: team:a: there are no issuers, so no build can prove that: add `issuers:`"],
            ),
            (
                "users: {a: hunter2}\nrules: []\n",
                &["line 1: the hash of user \"a\" is not an argon2id hash: make one with `locker user hash`"],
            ),
            ("rules:\n  - to: anyone\n   may: x\n", &["line 3"]),
        ];
        for (text, expected) in table {
            let found = faults(text);
            assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
            for (found, expected) in found.iter().zip(*expected) {
                assert!(found.starts_with(expected), "{text}:\n{found}\n{expected}");
            }
        }
    }

    const FILE: &str = "
issuers: [{name: ci, kind: concourse, issuer: 'https://ci.example.com', audience: locker}]
rules:
- {to: user:root, may: admin, pools: '*'}
- {name: pay, to: 'team:payments', may: [claim, manage], pools: [payments-*, shared]}
- {to: pipeline:web/site, may: claim, pools: web/*}
- {to: certificate:CN=ops, may: break, pools: '*'}
- {to: authenticated, may: look, pools: shared}
- {to: anyone, may: look, pools: public}
- {to: user:prom, may: metrics}
";

    #[test]
    fn rules_give_what_they_say_and_nothing_else() {
        let rules = AccessFile::parse(FILE).unwrap().rules;
        let build = |team: &str, pipeline: &str| {
            let (issuer, team, pipeline) = ("ci".to_owned(), team.to_owned(), Some(pipeline.to_owned()));
            Some(Identity::Build(Box::new(Job { issuer, team, pipeline, job: None })))
        };
        let user = |name: &str| Some(Identity::User(name.to_owned()));
        let ops = Some(Identity::Certificate("CN=ops".to_owned()));
        let (look, claim, manage) = (Some("look"), Some("look claim"), Some("look claim manage"));
        // Who, the pool, and everything that may be done there.
        let table = [
            (None, "public", look),
            (None, "shared", None),
            (user("x"), "shared", look),
            (user("x"), "payments-db", None),
            (user("root"), "any", Some("look claim manage break admin metrics")),
            (user("prom"), "any", None),
            (build("payments", "p"), "payments-db", manage),
            (build("payments", "p"), "shared", manage),
            (build("payments", "p"), "payments", None),
            (build("web", "site"), "web/a", claim),
            (build("web", "other"), "web/a", None),
            (build("web", "site"), "web", None),
            (ops, "web", Some("look break")),
        ];
        for (who, pool, expected) in table {
            let caller = Caller::by_rules(who.clone(), &rules, 0);
            let pool = PoolName::parse(pool).unwrap();
            let may: Vec<_> =
                Right::ALL.into_iter().filter(|right| caller.may(*right, &pool)).map(Right::word).collect();
            assert_eq!(may.join(" "), expected.unwrap_or_default(), "{who:?} {pool}");
        }
        let metrics = |who| Caller::by_rules(who, &rules, 0).may_everywhere(Right::Metrics);
        assert_eq!((metrics(user("prom")), metrics(user("root")), metrics(None)), (true, true, false));
        let caller = Caller::by_rules(build("payments", "p"), &rules, 0);
        let denied = caller.check(Right::Break, &PoolName::parse("shared").unwrap()).unwrap_err();
        assert_eq!(
            denied,
            "build:ci/payments/p does not have the right break on pool \"shared\": no rule of the access file gives it"
        );
        assert_eq!(&*caller.check(Right::Claim, &PoolName::parse("shared").unwrap()).unwrap().unwrap(), "pay");
    }

    #[test]
    fn the_size_is_bounded() {
        let many = |n: usize| format!("rules:\n{}", "- {to: anyone, may: look, pools: a}\n".repeat(n));
        assert!(AccessFile::parse(&many(ACCESS_RULES)).is_ok());
        assert!(faults(&many(ACCESS_RULES + 1))[0].contains("at most 1000 are allowed"));
    }
}
