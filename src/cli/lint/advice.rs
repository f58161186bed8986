//! What the parser accepts, and what still leaves a lock behind or fails when it runs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::payloads::source_place;
use super::report::{Finding, Rule, Severity};
use super::resources::{Resource, Type};
use super::steps::{Action, Directory, Plan, Step};
use super::{Findings, place};
use crate::wire::yaml::{Kind, Node, Position, has_var};

/// Params that name a directory.
const DIRECTORIES: [&str; 8] =
    ["release", "add", "add_claimed", "remove", "update", "check", "check_unclaimed", "verify"];

type Resources<'p> = BTreeMap<&'p str, Resource<'p>>;

pub(super) fn check(resources: &Resources<'_>, plan: &Plan<'_>, found: &mut Findings<'_>) {
    if resources.is_empty() {
        let what = "no resource of Locker is in this pipeline".to_owned();
        let why = "nothing was checked; a type counts as Locker if its image is called locker, or its resources have a locker_uri";
        let better = Some("if one of its types is Locker, name it: --type NAME".to_owned());
        found.add(Finding {
            severity: Severity::Note,
            better,
            ..place(Rule::NothingToCheck, Position::START, what, why)
        });
    }
    for resource in resources.values() {
        moves(resource, found);
        credentials(resource, found);
    }
    for step in &plan.steps {
        directory(step, found);
        retries(step, found);
        starts_itself(step, plan, found);
        cached(step, plan, found);
        nothing_to_release(step, plan, found);
        kept(step, plan, found);
    }
}

/// The resource types that Locker replaces.
fn moves(resource: &Resource<'_>, found: &mut Findings<'_>) {
    let name = resource.name;
    let has = |key: &str| resource.get(key).is_some();
    if resource.kind == Type::PoolResource && !resource.is_declared && has("locker_uri") {
        let what = format!("resource {name:?} has a locker_uri, but its type is Concourse's own pool-resource");
        let why = "the pipeline declares no resource type of that name, so pool-resource gets this source and asks for uri and branch";
        let better =
            "add the type to resource_types: {type: registry-image, source: {repository: the image of Locker}}";
        let finding = place(Rule::WrongType, resource.type_at, what, why);
        return found.add(Finding { better: Some(better.to_owned()), ..finding });
    }
    let (what, better) = match resource.kind {
        Type::Locker => return,
        Type::PoolResource => (
            format!(
                "resource {name:?} is of pool-resource: to move it, its type becomes the image of Locker{}",
                if has("locker_uri") { "" } else { ", and its source gets a locker_uri" }
            ),
            "follow docs/migration/pool-resource.md; what this lint says of its steps is what Locker would say",
        ),
        Type::LockerResource => (
            format!("resource {name:?} is of locker-resource: to move it, the image of its type becomes Locker's"),
            "follow docs/migration/locker.md; what this lint says of its steps is what Locker would say",
        ),
    };
    let why = "after the change, Concourse knows no version from before it: a get with passed waits for the next claim";
    let note = Finding {
        severity: Severity::Note,
        better: Some(better.to_owned()),
        ..place(Rule::OldType, resource.type_at, what, why)
    };
    found.add(note);
}

/// A user, a password and a trust that Locker takes for those of the Git repository.
fn credentials(resource: &Resource<'_>, found: &mut Findings<'_>) {
    let is_web = |uri: &str| uri.starts_with("http://") || uri.starts_with("https://");
    let keys = ["username", "password", "skip_ssl_verification"];
    let given: Vec<&str> = keys.into_iter().filter(|key| resource.get(key).is_some()).collect();
    let (&[key, ..], true) = (given.as_slice(), resource.get("uri").and_then(Node::as_text).is_some_and(is_web)) else {
        return;
    };
    let why = if key == "skip_ssl_verification" {
        "Locker checks the certificate of its own server all the same"
    } else {
        "Locker does not send them to its server, which may ask for its own (401)"
    };
    let verb = if given.len() == 1 { "counts" } else { "count" };
    let what = format!("resource {:?}: {} {verb} for the server of uri only", resource.name, given.join(", "));
    let better = Some("when the source has a locker_uri, remove uri and give what the locker server needs".to_owned());
    let finding = place(Rule::GitCredentials, source_place(resource, key), what, why);
    found.add(Finding { severity: Severity::Warning, better, ..finding });
}

/// The directory that a put reads.
fn directory(step: &Step<'_>, found: &mut Findings<'_>) {
    let Some((key, path)) = read_directory(step) else { return };
    if has_var(path) {
        return;
    }
    let Some(name) = path.split('/').find(|part| !matches!(*part, "" | "." | "..")) else { return };
    let (job, at) = (step.around.job, step.param_place(key));
    let put = format!("put {:?} of job {job:?}", step.name);
    let inputs = step.node.entry("inputs").filter(|entry| matches!(entry.value.kind, Kind::List(_)));
    let is_listed = |inputs: &Node| inputs.items().iter().any(|input| input.as_text() == Some(name));
    if let Some(inputs) = inputs.filter(|entry| !entry.value.has_var() && !is_listed(&entry.value)) {
        let what = format!("{put}: {key} reads {name:?}, which is not among its inputs");
        let why = "Concourse gives a put only the inputs that it lists, so the put fails";
        let better = Some(format!("add {name} to inputs, or leave inputs out"));
        return found.add(Finding { better, ..place(Rule::MissingDirectory, inputs.at, what, why) });
    }
    match step.directory(name) {
        Directory::Exists | Directory::Unknown => {}
        Directory::Missing => {
            let what = format!("{put}: {key} reads {name:?}, and no step before it leaves a directory of that name");
            let better = (key == "release")
                .then(|| "release: build gives back whatever the build has, without a directory".to_owned());
            let why = "the put fails when the build comes to it (a put with no_get: true leaves no directory)";
            found.add(Finding { better, ..place(Rule::MissingDirectory, at, what, why) });
        }
        Directory::MayBeMissing => {
            let Some(hook) = step.around.hook.filter(|_| key == "release") else { return };
            let what = format!("{put}: this {hook} needs the directory {name:?}, which may not exist when it runs");
            let why = "if the build ends before that directory is complete, the release fails and the lock stays held";
            let better = Some("release: build gives back whatever the build has, without a directory".to_owned());
            let finding = place(Rule::DirectoryInHook, at, what, why);
            found.add(Finding { severity: Severity::Warning, better, ..finding });
        }
    }
}

/// The param that names a directory, and its path.
fn read_directory<'p>(step: &Step<'p>) -> Option<(&'static str, &'p str)> {
    if step.action == Action::Get {
        return None;
    }
    let file = |key: &'static str| Some((key, step.param(key)?.text("file")?));
    let dir = |key: &'static str| {
        let path = step.param(key)?.as_text()?;
        let is_build = key == "release" && path == "build";
        (!path.is_empty() && !is_build).then_some((key, path))
    };
    DIRECTORIES.into_iter().find_map(dir).or_else(|| file("claim")).or_else(|| file("release"))
}

/// Claims that a retry would make twice, and claims that branches share without meaning to.
fn retries(step: &Step<'_>, found: &mut Findings<'_>) {
    if !takes(step) {
        return;
    }
    let put = format!("put {:?} of job {:?}", step.name, step.around.job);
    let name = step.param("as").and_then(Node::as_text);
    if step.around.is_retried && name.is_none() && step.param("key").is_none() {
        let what = format!("{put} takes a lock under attempts, without as");
        let why =
            "each attempt is a new container and a new claim: if the first one got the lock, the next waits for it";
        let better = Some("as: NAME makes all attempts the same claim".to_owned());
        let finding = place(Rule::RetryWithoutAs, step.at, what, why);
        found.add(Finding { severity: Severity::Warning, better, ..finding });
    }
    if let Some(name) = name.filter(|name| step.around.is_in_across && !has_var(name)) {
        let what = format!("{put}: every branch of across has as: {name}");
        let why = "claims of one build with the same as are one claim: the branches share one lock";
        let better = Some(format!("put the variable of across into the name: as: {name}-((.:VAR))"));
        let finding = place(Rule::SharedAs, step.param_place("as"), what, why);
        found.add(Finding { severity: Severity::Warning, better, ..finding });
    }
}

/// A job that triggers on the changes that it makes itself.
fn starts_itself(step: &Step<'_>, plan: &Plan<'_>, found: &mut Findings<'_>) {
    let is_trigger = step.action == Action::Get && step.node.is_true("trigger") && step.node.entry("passed").is_none();
    if !is_trigger {
        return;
    }
    let listed: Option<Vec<Value>> =
        step.resource.get("events").map(|events| events.items().iter().map(Node::json).collect());
    let own = puts(plan, step.around.job).filter(|put| put.resource.pool() == step.resource.pool());
    let starts = |put: &&Step<'_>| {
        // The version of a put is a version of its resource, whatever `events` says.
        let is_same = put.resource.name == step.resource.name;
        let event = if takes(put) { "claimed" } else { "released" };
        (takes(put) || releases(put))
            && (is_same || listed.as_ref().is_none_or(|all| all.contains(&Value::from(event))))
    };
    let Some(put) = own.into_iter().find(starts) else { return };
    let what = format!(
        "job {:?} is triggered by {:?}, and its own put {:?} changes that pool",
        step.around.job, step.name, put.name
    );
    let why = "each build makes a version that starts the next build, without end";
    let better =
        "get a second resource of the pool, with events: [added] or whatever the job waits for, and put the first";
    let finding = place(Rule::SelfTrigger, step.place("trigger"), what, why);
    found.add(Finding { severity: Severity::Warning, better: Some(better.to_owned()), ..finding });
}

/// A later job that works under a lock which an earlier job claimed.
fn cached(step: &Step<'_>, plan: &Plan<'_>, found: &mut Findings<'_>) {
    let job = step.around.job;
    if step.action == Action::Put || step.resource.kind != Type::Locker || !plan.with_tasks.contains(job) {
        return;
    }
    let passed = step.node.get("passed").map(Node::items).unwrap_or_default();
    let claims = |put: &Step<'_>| put.resource.name == step.resource.name && takes(put);
    let is_claimed = passed.iter().filter_map(Node::as_text).any(|passed| puts(plan, passed).any(claims));
    let verifies = |put: &Step<'_>| put.param("verify").and_then(Node::as_text) == Some(step.name);
    if !is_claimed || step.resource.get("pool").is_none() || puts(plan, job).any(verifies) {
        return;
    }
    let what = format!("job {job:?} works under the lock of get {:?} without verifying the hold", step.name);
    let why = "Concourse may answer this get from its cache, without asking Locker: the hold may be over";
    let (resource, dir) = (step.resource.name, step.name);
    let better = format!("before the tasks: {{put: {resource}, params: {{verify: {dir}}}, no_get: true}}");
    let finding = place(Rule::CachedGet, step.at, what, why);
    found.add(Finding { severity: Severity::Note, better: Some(better), ..finding });
}

fn nothing_to_release(step: &Step<'_>, plan: &Plan<'_>, found: &mut Findings<'_>) {
    if step.action == Action::Get || step.param("release").and_then(Node::as_text) != Some("build") {
        return;
    }
    let (job, pool) = (step.around.job, step.resource.pool());
    let may_take =
        |put: &Step<'_>| takes(put) || put.param("add_claimed").is_some() || is_var(put) || has_also(put, pool);
    if puts(plan, job).any(|put| may_take(put) && (put.resource.pool() == pool || has_also(put, pool))) {
        return;
    }
    let what =
        format!("put {:?} of job {job:?}: release: build, but this job takes nothing of pool {pool:?}", step.name);
    let why = "it releases what its own build has, which is nothing: the hold of another job stays";
    let better = Some("get the version with passed, and release the directory of that get".to_owned());
    let finding = place(Rule::NothingToRelease, step.param_place("release"), what, why);
    found.add(Finding { severity: Severity::Warning, better, ..finding });
}

/// Locks that nothing gives back, or that a failed build keeps.
fn kept(step: &Step<'_>, plan: &Plan<'_>, found: &mut Findings<'_>) {
    if !takes(step) || is_bounded(step) || step.around.hook.is_some() || step.resource.kind == Type::PoolResource {
        return;
    }
    let (job, pool) = (step.around.job, step.resource.pool());
    let is_release = |put: &&Step<'_>| put.resource.pool() == pool && (releases(put) || is_var(put));
    let all = || plan.steps.iter().filter(is_release);
    let put = format!("put {:?} of job {job:?}", step.name);
    let ensure = format!(
        "ensure: {{put: {}, params: {{release: build}}, no_get: true}} on the job, or scope: build",
        step.resource.name
    );
    if all().next().is_none() {
        let what = format!("{put} takes a lock of pool {pool:?}, and nothing in this pipeline gives it back");
        let why = "the hold lasts until somebody releases it by hand, and the next build waits for that";
        let finding = place(Rule::NeverReleased, step.at, what, why);
        return found.add(Finding { severity: Severity::Warning, better: Some(ensure), ..finding });
    }
    let hooks: BTreeSet<Option<&str>> = all().filter(|put| put.around.job == job).map(|put| put.around.hook).collect();
    let has = |hook: &str| hooks.contains(&Some(hook));
    let is_ensured = has("ensure") || (has("on_failure") && has("on_error") && has("on_abort"));
    if !hooks.is_empty() && !is_ensured {
        let what = format!("{put} takes a lock of pool {pool:?}, which only a successful build gives back");
        let why = "a build that fails or is aborted between the two keeps the lock until somebody releases it by hand";
        let finding = place(Rule::ReleaseNotEnsured, step.at, what, why);
        found.add(Finding { severity: Severity::Note, better: Some(ensure), ..finding });
    }
}

fn puts<'s, 'p>(plan: &'s Plan<'p>, job: &'s str) -> impl Iterator<Item = &'s Step<'p>> {
    plan.steps.iter().filter(move |step| step.action == Action::Put && step.around.job == job)
}

/// Whether the params are known only to Concourse.
fn is_var(step: &Step<'_>) -> bool {
    step.params().is_some_and(Node::is_var)
}

fn takes(step: &Step<'_>) -> bool {
    let given = |key: &str| step.param(key).map(Node::json);
    let is_lock = |key: &str| given(key).is_some_and(|value| value != false && value != "");
    step.action == Action::Put && (is_lock("acquire") || is_lock("claim") || given("lock_op") == Some("lock".into()))
}

fn releases(step: &Step<'_>) -> bool {
    let is_unlock = step.param("lock_op").and_then(Node::as_text) == Some("unlock");
    step.action == Action::Put && (is_unlock || step.param("release").is_some() || step.param("remove").is_some())
}

/// Whether a claim of this put takes locks of that pool as well.
fn has_also(step: &Step<'_>, pool: &str) -> bool {
    let also = step.param("also").map(Node::items).unwrap_or_default();
    also.iter().any(|part| part.text("pool") == Some(pool))
}

/// Whether the hold ends without a release.
fn is_bounded(step: &Step<'_>) -> bool {
    let given = |key: &str| step.param(key).or_else(|| step.resource.get(key));
    let scope = given("scope").and_then(Node::as_text);
    given("ttl").is_some() || scope.is_some_and(|scope| scope == "build" || has_var(scope))
}
