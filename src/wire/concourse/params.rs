//! `params` of put and get steps.

use std::time::Duration;

use super::actions::{AddClaimed, Adding, Ask, InputFile, LockChoice, Op, Release, Watch};
use super::source::{Place, Source, SourceKind, read_scope};
use crate::core::names::{LockName, PoolName};
use crate::wire::api::{PartBody, Scope};
use crate::wire::members::Members;
use crate::wire::problems::Problems;
use crate::wire::secret::Secret;

/// Params that say what a put does. Exactly one is required.
const OPS: &[&str] = &[
    "acquire",
    "claim",
    "release",
    "add",
    "add_claimed",
    "remove",
    "update",
    "check",
    "check_unclaimed",
    "verify",
    "lock_op",
];
/// Params that apply to some of them. [`OutParams::read`] refuses those that do not apply.
const MORE: &[&str] = &[
    "count",
    "labels",
    "as",
    "scope",
    "ttl",
    "priority",
    "supersede",
    "timeout",
    "queue",
    "optional",
    "self_wait",
    "also",
    "replace",
    "remove_from",
    "key",
    "lock_by",
    "locked_by",
    "on_lost",
    "now",
];
/// Params that apply to all of them.
const ALWAYS: &[&str] = &["reason", "token"];

/// The name of every param of a put.
pub fn param_names() -> impl Iterator<Item = &'static str> {
    [OPS, MORE, ALWAYS].into_iter().flatten().copied()
}

/// Params of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutParams {
    pub op: Op,
    /// Why, for people.
    pub reason: Option<String>,
    /// A bearer token to send instead of username and password.
    pub token: Option<Secret>,
    /// `on_lost: fail`: a release fails if a hold of this build was broken or lost.
    pub fails_on_lost: bool,
}

/// Params of a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetParams {
    /// Whether to write `POOL/claimed/LOCK` and `POOL/unclaimed/LOCK` too, as pool-resource does.
    pub tree: bool,
}

impl GetParams {
    /// Every key that has a meaning here.
    pub const KEYS: &'static [&'static str] = &["tree"];

    /// Parses the params. Also returns the Git key that was given and has no effect.
    pub(super) fn read(mut fields: Members, problems: &mut Problems) -> (Self, Option<&'static str>) {
        fields.expect(Self::KEYS);
        let ignored = fields.take("depth").map(|_| "depth");
        let tree = fields.flag("tree", problems).unwrap_or(true);
        fields.finish(problems);
        (Self { tree }, ignored)
    }
}

impl OutParams {
    /// Every key of a put's params.
    #[must_use]
    pub fn keys() -> Vec<&'static str> {
        [OPS, MORE, ALWAYS].concat()
    }

    /// `source` is `None` if it is invalid itself. The params are checked anyway.
    pub(super) fn read(mut fields: Members, source: Option<&Source>, problems: &mut Problems) -> Option<Self> {
        fields.expect(OPS);
        fields.expect(MORE);
        fields.expect(ALWAYS);
        // `acquire: false` counts as missing, unless the lock is optional.
        let says_acquire = fields.has("acquire");
        let acquire = says_acquire && fields.flag("acquire", problems) != Some(false);
        let is_given = |op: &&str| fields.has(op) || (acquire && *op == "acquire");
        let given: Vec<&str> = OPS.iter().copied().filter(is_given).collect();
        check_source(&given, source, problems);
        let reason = fields.text("reason", problems);
        let token = fields.text("token", problems).map(|token| token.trim().to_owned());
        if token.as_ref().is_some_and(|token| token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic())) {
            fields.wrong("token", "must be one word of printable ASCII characters", problems);
        }
        let op = match given.as_slice() {
            [] if says_acquire => read_no_lock("acquire: false", &mut fields, problems),
            [] => {
                if !fields.is_misspelt(OPS) {
                    problems.add_about("params", missing_op(source));
                }
                read_the_rest(&mut fields, source, problems);
                None
            }
            [op] => read_op(op, &mut fields, source, problems),
            several => {
                let moves = several.contains(&"remove") && several.contains(&"add");
                let advice = if moves { " (to move a lock from another pool, use add with remove_from)" } else { "" };
                let names = several.join(" and ");
                let text = format!("{names} cannot be in one put: write a put step for each of them{advice}");
                problems.add_about(&fields.path(several[1]), text);
                several.iter().for_each(|op| drop(fields.take(op)));
                read_the_rest(&mut fields, source, problems);
                None
            }
        };
        let releases = matches!(op, Some(Op::Release { .. } | Op::Unlock { .. }));
        let fails_on_lost = releases && read_on_lost(&mut fields, problems);
        if given.len() == 1 && !matches!(op, Some(Op::Nothing { .. })) {
            let useless: Vec<&str> = MORE.iter().copied().filter(|key| fields.take(key).is_some()).collect();
            for key in useless {
                let path = fields.path(key);
                problems.add_misplaced(&path, format!("{path}: does not go with {}", given[0]));
            }
        }
        fields.finish(problems);
        Some(Self { op: op?, reason, token: token.map(Secret::new), fails_on_lost })
    }
}

/// A put that takes no lock. It is valid only with `optional: true`, because the following steps run without a lock.
fn read_no_lock(what: &'static str, fields: &mut Members, problems: &mut Problems) -> Option<Op> {
    let is_optional = fields.flag("optional", problems) == Some(true);
    // These say how to take a lock, but none is taken.
    MORE.iter().for_each(|key| drop(fields.take(key)));
    if is_optional {
        return Some(Op::Nothing { why: what });
    }
    let advice = "this put would take no lock; if that is intended, set optional: true";
    let key = what.split(':').next().unwrap_or_default();
    problems.add_about(&fields.path(key), format!("params.{what}: {advice}"));
    None
}

/// `claim: NAME` or `claim: {file: DIRECTORY/FILE}`.
fn read_claim(fields: &mut Members, problems: &mut Problems) -> Option<LockChoice> {
    if !fields.is_object("claim") {
        return fields.parsed("claim", problems).map(LockChoice::Named);
    }
    let mut what = fields.object("claim", problems);
    what.expect(&["file"]);
    let file = read_file(&mut what, problems);
    what.finish(problems);
    file.map(LockChoice::InFile)
}

/// `file: DIRECTORY/FILE`: a file in an input of the put.
fn read_file(fields: &mut Members, problems: &mut Problems) -> Option<InputFile> {
    if !fields.has("file") && !fields.is_misspelt(&["file"]) {
        fields.wrong("file", "is missing", problems);
    }
    let path = fields.text("file", problems)?;
    match path.rsplit_once('/') {
        Some((dir, file)) if !dir.is_empty() && !matches!(file, "" | "." | "..") => {
            Some(InputFile { dir: dir.to_owned(), file: file.to_owned() })
        }
        _ => {
            fields.wrong("file", "must be DIRECTORY/FILE", problems);
            None
        }
    }
}

fn missing_op(source: Option<&Source>) -> String {
    match source.map(|s| s.kind) {
        Some(SourceKind::LockName) => "missing lock_op".to_owned(),
        _ => "missing acquire, claim, release, add, add_claimed, remove, update, check, check_unclaimed or verify"
            .to_owned(),
    }
}

/// `lock_op` belongs to `lock_name`, the others to `pool`; `release: build` fits both.
fn check_source(given: &[&str], source: Option<&Source>, problems: &mut Problems) {
    let Some(kind) = source.map(|s| s.kind) else { return };
    let wrong = |op: &&&str| match kind {
        SourceKind::Pool => **op == "lock_op",
        SourceKind::LockName => !matches!(**op, "lock_op" | "release"),
    };
    let needs = if kind == SourceKind::Pool { "lock_name" } else { "pool" };
    for op in given.iter().filter(wrong) {
        problems.add(&format!("params.{op}"), format!("works only with source.{needs}"));
    }
}

fn read_op(op: &str, fields: &mut Members, source: Option<&Source>, problems: &mut Problems) -> Option<Op> {
    match op {
        "acquire" => Some(Op::Ask(Box::new(read_ask(None, fields, source, problems)))),
        "claim" => {
            if fields.is_empty_text("claim") {
                fields.take("claim");
                return read_no_lock("claim: \"\"", fields, problems);
            }
            let lock = read_claim(fields, problems);
            let ask = read_ask(lock, fields, source, problems);
            if ask.count.is_some() || !ask.labels.is_empty() {
                let text = "params.count and params.labels do not go with claim, which names the lock";
                problems.add_about(&fields.path(if ask.count.is_some() { "count" } else { "labels" }), text);
            }
            ask.lock.is_some().then(|| Op::Ask(Box::new(ask)))
        }
        "release" => {
            let now = fields.flag("now", problems).unwrap_or(false);
            read_release(fields, problems).map(|what| Op::Release { what, now })
        }
        "add" => {
            let dir = read_dir("add", fields, problems);
            let labels = fields.labels("labels", problems);
            Some(Op::Add { how: read_adding(fields, source, problems), labels, dir: dir? })
        }
        "add_claimed" => {
            let dir = read_dir("add_claimed", fields, problems);
            let labels = fields.labels("labels", problems);
            let (scope, ttl) = read_hold(fields, source, problems);
            let how = Adding::Claimed(AddClaimed { name: read_as(fields, problems), scope, ttl });
            Some(Op::Add { how, dir: dir?, labels })
        }
        "remove" => Some(Op::Remove { dir: read_dir("remove", fields, problems)? }),
        "update" => {
            let dir = read_dir("update", fields, problems);
            let labels = fields.labels("labels", problems);
            Some(Op::Update { watch: read_watch(fields, problems), dir: dir?, labels })
        }
        "check" => {
            let dir = read_dir("check", fields, problems);
            Some(Op::Check { watch: read_watch(fields, problems), dir: dir? })
        }
        "check_unclaimed" => {
            let dir = read_dir("check_unclaimed", fields, problems);
            Some(Op::CheckUnclaimed { watch: read_watch(fields, problems), dir: dir? })
        }
        "verify" => Some(Op::Verify { dir: read_dir("verify", fields, problems)? }),
        _ => read_lock_op(fields, source, problems),
    }
}

/// `replace` and `remove_from`.
fn read_adding(fields: &mut Members, source: Option<&Source>, problems: &mut Problems) -> Adding {
    let replaces = fields.flag("replace", problems) == Some(true);
    let from: Option<PoolName> = fields.parsed("remove_from", problems);
    match from {
        None if replaces => Adding::Replacing,
        None => Adding::New,
        Some(from) => {
            if replaces {
                fields.wrong("replace", "does not go with remove_from", problems);
            }
            if source.is_some_and(|source| source.place == Place::Named(from.clone())) {
                fields.wrong(
                    "remove_from",
                    "is the pool of this resource: name the pool that the lock comes from",
                    problems,
                );
            }
            Adding::MovingFrom(from)
        }
    }
}

/// Checks the params that go with an op if the op itself is invalid, so that all problems are reported at once.
fn read_the_rest(fields: &mut Members, source: Option<&Source>, problems: &mut Problems) {
    let _ = read_ask(None, fields, source, problems);
}

fn read_dir(key: &'static str, fields: &mut Members, problems: &mut Problems) -> Option<String> {
    let dir = fields.text(key, problems)?;
    if dir.is_empty() {
        fields.wrong(key, "is empty", problems);
    }
    Some(dir)
}

fn read_watch(fields: &mut Members, problems: &mut Problems) -> Watch {
    Watch { timeout: fields.duration("timeout", problems), self_wait: read_self_wait(fields, problems) }
}

/// `on_lost`: whether a release fails if a hold was broken or lost.
fn read_on_lost(fields: &mut Members, problems: &mut Problems) -> bool {
    match fields.text("on_lost", problems).as_deref() {
        None | Some("tell") => false,
        Some("fail") => true,
        Some(_) => {
            fields.wrong("on_lost", "must be tell or fail", problems);
            false
        }
    }
}

fn read_self_wait(fields: &mut Members, problems: &mut Problems) -> bool {
    match fields.text("self_wait", problems).as_deref() {
        None | Some("wait") => true,
        Some("fail") => false,
        Some(_) => {
            fields.wrong("self_wait", "must be wait or fail", problems);
            true
        }
    }
}

/// `scope` and `ttl`, or else those of the source.
fn read_hold(
    fields: &mut Members,
    source: Option<&Source>,
    problems: &mut Problems,
) -> (Option<Scope>, Option<Duration>) {
    let scope = read_scope(fields, problems).or_else(|| source.and_then(|s| s.scope));
    (scope, fields.duration("ttl", problems).or_else(|| source.and_then(|s| s.ttl)))
}

fn read_as(fields: &mut Members, problems: &mut Problems) -> Option<String> {
    let name = fields.text("as", problems);
    if name.as_deref() == Some("") {
        fields.wrong("as", "is empty", problems);
    }
    name
}

fn read_lock_op(fields: &mut Members, source: Option<&Source>, problems: &mut Problems) -> Option<Op> {
    let op = fields.text("lock_op", problems);
    if !fields.has("key") && !fields.is_misspelt(&["key"]) {
        problems.add_about("params", "missing key");
    }
    match op.as_deref().unwrap_or_default() {
        "lock" => Some(Op::Ask(Box::new(read_ask(None, fields, source, problems)))),
        "unlock" => {
            let key = fields.text("key", problems);
            let requestor = read_requestor(fields, problems);
            let now = fields.flag("now", problems).unwrap_or(false);
            let key = key?;
            Some(Op::Unlock { now, requestor: requestor.unwrap_or_else(|| key.clone()), key })
        }
        _ => {
            fields.wrong("lock_op", "must be lock or unlock", problems);
            read_the_rest(fields, source, problems);
            None
        }
    }
}

/// `lock_by` and `locked_by` mean the same.
fn read_requestor(fields: &mut Members, problems: &mut Problems) -> Option<String> {
    let first = fields.text("lock_by", problems);
    let second = fields.text("locked_by", problems);
    if first.is_some() && second.is_some() && first != second {
        let text = "params.lock_by and params.locked_by mean the same and must not differ";
        problems.add_about(&fields.path("locked_by"), text);
    }
    first.or(second)
}

fn read_ask(lock: Option<LockChoice>, fields: &mut Members, source: Option<&Source>, problems: &mut Problems) -> Ask {
    let key = fields.text("key", problems);
    let requestor = read_requestor(fields, problems);
    if requestor.is_some() && key.is_none() {
        fields.wrong("lock_by", "needs params.key", problems);
    }
    let supersede = fields.text("supersede", problems);
    if supersede.as_deref() == Some("") {
        fields.wrong("supersede", "is empty", problems);
    }
    let (scope, ttl) = read_hold(fields, source, problems);
    Ask {
        lock,
        optional: fields.flag("optional", problems).unwrap_or(false),
        count: fields.count("count", problems),
        labels: fields.labels("labels", problems),
        also: read_also(fields, problems),
        key,
        requestor,
        name: read_as(fields, problems),
        scope,
        ttl,
        timeout: fields.duration("timeout", problems),
        queue: fields.flag("queue", problems).unwrap_or(true),
        self_wait: read_self_wait(fields, problems),
        priority: fields.integer("priority", problems).or_else(|| source.and_then(|s| s.priority)),
        supersede,
    }
}

/// `also: [{pool, lock | count, labels}]`: more pools, all or nothing.
fn read_also(fields: &mut Members, problems: &mut Problems) -> Vec<PartBody> {
    let items = match fields.take("also") {
        None => return Vec::new(),
        Some(serde_json::Value::Array(items)) => items,
        Some(_) => {
            fields.wrong("also", "must be a list of {pool, lock} or {pool, count}", problems);
            return Vec::new();
        }
    };
    let read = |item| {
        let mut part = Members::of("params.also", Some(item), problems).from_yaml();
        part.expect(&["pool", "lock", "count", "labels"]);
        if !part.has("pool") && !part.is_misspelt(&["pool"]) {
            part.wrong("pool", "is missing", problems);
        }
        let pool: Option<PoolName> = part.parsed("pool", problems);
        let lock: Option<LockName> = part.parsed("lock", problems);
        let count = part.count("count", problems);
        let labels = part.labels("labels", problems);
        if lock.is_some() && (count.is_some() || !labels.is_empty()) {
            part.wrong("lock", "does not go with count and labels", problems);
        }
        part.finish(problems);
        let lock = lock.map(|lock| lock.as_str().to_owned());
        pool.map(|pool| PartBody { pool: pool.as_str().to_owned(), lock, locks: None, count, labels })
    };
    items.into_iter().filter_map(read).collect()
}

fn read_release(fields: &mut Members, problems: &mut Problems) -> Option<Release> {
    let is_object = fields.is_object("release");
    if is_object {
        let mut what = fields.object("release", problems);
        what.expect(&["lock", "file"]);
        let lock = match (what.has("lock"), what.has("file")) {
            (true, true) => {
                what.wrong("lock", "does not go with file", problems);
                None
            }
            (false, true) => read_file(&mut what, problems).map(LockChoice::InFile),
            (true, false) => what.parsed("lock", problems).map(LockChoice::Named),
            (false, false) => {
                if !what.is_misspelt(&["lock", "file"]) {
                    what.wrong("lock", "is missing", problems);
                }
                None
            }
        };
        what.finish(problems);
        return lock.map(Release::Lock);
    }
    match fields.text("release", problems)?.as_str() {
        "build" => Some(Release::Build { name: read_as(fields, problems) }),
        "" => {
            fields.wrong("release", "is empty", problems);
            read_as(fields, problems);
            None
        }
        dir => Some(Release::Dir(dir.to_owned())),
    }
}
