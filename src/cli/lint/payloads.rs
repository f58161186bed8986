//! Sources and params, as the parser of `check`, `in` and `out` sees them.
//!
//! Each is made into the JSON that Concourse would send. A problem with a value that contains a `((var))` is dropped:
//! only Concourse knows the value.

use serde_json::{Value, json};

use super::report::{Finding, Rule, Severity};
use super::resources::{Resource, Type};
use super::steps::{Action, Step};
use super::{Findings, place};
use crate::wire::concourse::{CheckRequest, InRequest, OutRequest, PayloadError};
use crate::wire::problems::Problem;
use crate::wire::yaml::{Entry, Kind, Node, Position};

/// How much a problem matters. Before a move nothing fails yet.
fn severity(resource: &Resource<'_>) -> Severity {
    if resource.kind == Type::PoolResource { Severity::Warning } else { Severity::Error }
}

/// Why a problem matters, for a pipeline that runs on Locker and for one that is to be moved.
fn why(resource: &Resource<'_>, fails: &str) -> String {
    match resource.kind {
        Type::Locker => fails.to_owned(),
        Type::PoolResource | Type::LockerResource => format!("on Locker, {fails}"),
    }
}

pub(super) fn source(resource: &Resource<'_>, found: &mut Findings<'_>) {
    let Some(source) = resource.json() else { return };
    let parsed = CheckRequest::parse(&payload(&source, &[]));
    for problem in problems(parsed) {
        let path = problem.at.strip_prefix("source").unwrap_or_default().trim_start_matches('.');
        let at = resource.sources().find_map(|source| lookup(source, path).filter(|found| found.is_whole));
        if !problem.is_misplaced && at.as_ref().is_some_and(|found| found.is_unknown()) {
            continue;
        }
        let at = at.map_or(resource.at, |found| found.entry.at);
        let fails = "every check, get and put of this resource fails";
        found.add(Finding {
            severity: severity(resource),
            better: problem
                .text
                .contains("missing locker_uri")
                .then(|| "locker_uri: the URL of your server, such as https://locker.example.com".to_owned()),
            ..place(Rule::Source, at, format!("resource {:?}: {}", resource.name, problem.text), why(resource, fails))
        });
    }
}

pub(super) fn step(step: &Step<'_>, found: &mut Findings<'_>) {
    let null = Value::Null;
    let source = step.resource.json().unwrap_or_default();
    let part = |key: &str| step.node.entry(key).filter(|entry| !entry.value.is_var());
    let is_unknown = |key: &str| step.node.get(key).is_some_and(Node::is_var);
    if step.action == Action::Put && !is_unknown("params") {
        let entry = part("params");
        let params = entry.map_or(null.clone(), |entry| entry.value.json());
        let parsed = OutRequest::parse(&payload(&source, &[("params", params)]));
        report(step, entry, problems(parsed), found);
    }
    let key = if step.action == Action::Put { "get_params" } else { "params" };
    if let Some(entry) = part(key) {
        let (version, params) = (json!({"ref": "1"}), entry.value.json());
        let parsed = InRequest::parse(&payload(&source, &[("version", version), ("params", params)]));
        report(step, Some(entry), problems(parsed), found);
    }
}

fn report(step: &Step<'_>, params: Option<&Entry>, problems: Vec<Problem>, found: &mut Findings<'_>) {
    for problem in problems.into_iter().filter(|problem| !is_about_source(problem)) {
        let path = problem.at.strip_prefix("params").unwrap_or_default().trim_start_matches('.');
        let at = params.and_then(|params| lookup(&params.value, path));
        if !problem.is_misplaced && at.as_ref().is_some_and(|found| found.is_unknown()) {
            continue;
        }
        let at = at.map(|found| found.entry.at).or(params.map(|entry| entry.at)).unwrap_or(step.at);
        let action = if step.action == Action::Put { "put" } else { "get" };
        let what = format!("{action} {:?} of job {:?}: {}", step.name, step.around.job, problem.text);
        let fails = match step.around.hook {
            Some(hook) => format!("the {action} fails when this {hook} runs, and what it should give back stays held"),
            None => format!("the {action} fails when the build comes to it"),
        };
        let gives_back = step.action == Action::Put && step.around.hook.is_some();
        found.add(Finding {
            severity: severity(step.resource),
            better: gives_back.then(|| "params: {release: build} gives back whatever the build has".to_owned()),
            ..place(Rule::Params, at, what, why(step.resource, &fails))
        });
    }
}

/// Those of the source are reported once, at the resource.
fn is_about_source(problem: &Problem) -> bool {
    problem.at == "source" || problem.at.starts_with("source.")
}

fn problems<T>(parsed: Result<T, PayloadError>) -> Vec<Problem> {
    parsed.err().map(|PayloadError(problems)| problems).unwrap_or_default()
}

fn payload(source: &Value, more: &[(&str, Value)]) -> Vec<u8> {
    let mut request = json!({ "source": source });
    for (key, value) in more {
        request[*key] = value.clone();
    }
    request.to_string().into_bytes()
}

/// A member that a problem is about, or the nearest one around it.
struct Member<'n> {
    entry: &'n Entry,
    /// Whether it is that member itself.
    is_whole: bool,
}

impl Member<'_> {
    /// Whether the problem may come from a var.
    fn is_unknown(&self) -> bool {
        match &self.entry.value.kind {
            Kind::Map(_) if self.is_whole => false,
            _ => self.entry.value.has_var(),
        }
    }
}

/// Follows a path such as `labels.size`. A key may contain dots itself.
fn lookup<'n>(node: &'n Node, path: &str) -> Option<Member<'n>> {
    let rest = |entry: &Entry| {
        let rest = path.strip_prefix(entry.key.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
    };
    let fits = |entry: &&Entry| rest(entry).is_some();
    let entry = node.entries().iter().filter(fits).max_by_key(|entry| entry.key.len())?;
    let rest = rest(entry)?;
    if rest.is_empty() {
        return Some(Member { entry, is_whole: true });
    }
    Some(lookup(&entry.value, rest).unwrap_or(Member { entry, is_whole: false }))
}

/// The place of a member of the source.
pub(super) fn source_place(resource: &Resource<'_>, key: &str) -> Position {
    resource.sources().find_map(|source| source.entry(key)).map_or(resource.at, |entry| entry.at)
}
