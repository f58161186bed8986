//! `params` of put and get steps.

use std::collections::BTreeMap;
use std::time::Duration;

use super::payload::{Fields, Problems};
use super::source::{Source, SourceKind, read_scope};
use crate::core::names::{LockName, PoolName};
use crate::wire::api::{PartBody, Scope};

/// Params that say what a put does: exactly one.
const OPS: &[&str] = &["acquire", "claim", "release", "add", "lock_op"];
/// Params of a put that asks for locks.
const ASK: &[&str] =
    &["count", "labels", "as", "scope", "ttl", "timeout", "queue", "reason", "also", "key", "lock_by", "locked_by"];

/// Params of a get. `depth` belongs to git and has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InParams {
    pub depth_ignored: bool,
}

/// Params of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutParams {
    pub op: Op,
    /// Why, for people.
    pub reason: Option<String>,
}

/// What a put does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `acquire`, `claim`, `lock_op: lock`.
    Ask(Box<Ask>),
    Release(Release),
    /// `add`: the directory with the files `name` and `metadata`.
    Add {
        dir: String,
        labels: BTreeMap<String, String>,
    },
    /// `lock_op: unlock`.
    Unlock {
        key: String,
        requestor: String,
    },
}

/// What is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// The directory that our `in` (or somebody else's file `name`) has made.
    Dir(String),
    /// Whoever holds this lock.
    Lock(LockName),
    /// Everything of this build in the pool, or what it has taken `as` a name.
    Build { name: Option<String> },
}

/// What a put asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The lock by name; any fitting one when missing.
    pub lock: Option<LockName>,
    pub count: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub also: Vec<PartBody>,
    pub key: Option<String>,
    pub requestor: Option<String>,
    /// Makes the claim the same in every container of the build.
    pub name: Option<String>,
    pub scope: Option<Scope>,
    pub ttl: Option<Duration>,
    /// The longest wait.
    pub timeout: Option<Duration>,
    /// False: now or never.
    pub queue: bool,
}

impl InParams {
    pub(super) fn read(mut fields: Fields, problems: &mut Problems) -> Self {
        fields.expect(&["depth"]);
        let depth_ignored = fields.take("depth").is_some();
        fields.finish(problems);
        Self { depth_ignored }
    }
}

impl OutParams {
    /// `source` is missing when it is wrong itself; the params are looked at all the same.
    pub(super) fn read(mut fields: Fields, source: Option<&Source>, problems: &mut Problems) -> Option<Self> {
        fields.expect(OPS);
        fields.expect(ASK);
        if fields.take("acquire").is_some_and(|value| value != false && value != "false") {
            // Put back as a plain flag, so that `acquire: false` is the same as none.
            fields.put_flag("acquire");
        }
        let given: Vec<&str> = OPS.iter().copied().filter(|op| fields.has(op)).collect();
        check_source(&given, source, problems);
        let reason = fields.text("reason", problems);
        let op = match given.as_slice() {
            [] => {
                problems.add(missing_op(source));
                None
            }
            [op] => read_op(op, &mut fields, source, problems),
            several => {
                problems.add(format!("{} exclude each other: one in each put", several.join(" and ")));
                several.iter().for_each(|key| drop(fields.take(key)));
                None
            }
        };
        if given.len() == 1 {
            let useless: Vec<&str> = ASK.iter().copied().filter(|key| fields.take(key).is_some()).collect();
            problems.all(useless.iter().map(|key| format!("params.{key} has no meaning with {}", given[0])));
        }
        fields.finish(problems);
        Some(Self { op: op?, reason })
    }
}

impl Problems {
    fn all(&mut self, problems: impl Iterator<Item = String>) {
        problems.for_each(|problem| self.add(problem));
    }
}

fn missing_op(source: Option<&Source>) -> String {
    match source.map(|s| s.kind) {
        Some(SourceKind::LockName) => "missing lock_op".to_owned(),
        _ => "missing acquire, claim, release or add".to_owned(),
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
    problems.all(given.iter().filter(wrong).map(|op| format!("params.{op} needs source.{needs}")));
}

fn read_op(op: &str, fields: &mut Fields, source: Option<&Source>, problems: &mut Problems) -> Option<Op> {
    match op {
        "acquire" => {
            fields.take("acquire");
            read_ask(None, fields, source, problems).map(|ask| Op::Ask(Box::new(ask)))
        }
        "claim" => {
            let lock: LockName = fields.parsed("claim", problems)?;
            let ask = read_ask(Some(lock), fields, source, problems)?;
            if ask.count.is_some() || !ask.labels.is_empty() {
                problems.add("params.count and params.labels have no meaning with claim: it names the lock".into());
            }
            Some(Op::Ask(Box::new(ask)))
        }
        "release" => read_release(fields, problems).map(Op::Release),
        "add" => {
            let dir = fields.text("add", problems)?;
            Some(Op::Add { dir, labels: fields.labels("labels", problems) })
        }
        _ => read_lock_op(fields, source, problems),
    }
}

fn read_lock_op(fields: &mut Fields, source: Option<&Source>, problems: &mut Problems) -> Option<Op> {
    let op = fields.text("lock_op", problems)?;
    if !fields.has("key") {
        problems.add("missing key".into());
    }
    match op.as_str() {
        "lock" => read_ask(None, fields, source, problems).map(|ask| Op::Ask(Box::new(ask))),
        "unlock" => {
            let key = fields.text("key", problems);
            let requestor = read_requestor(fields, problems);
            let key = key?;
            Some(Op::Unlock { requestor: requestor.unwrap_or_else(|| key.clone()), key })
        }
        _ => {
            problems.add("params.lock_op must be lock or unlock".into());
            None
        }
    }
}

/// `lock_by` and `locked_by` are two spellings of one thing.
fn read_requestor(fields: &mut Fields, problems: &mut Problems) -> Option<String> {
    let first = fields.text("lock_by", problems);
    let second = fields.text("locked_by", problems);
    if first.is_some() && second.is_some() && first != second {
        problems.add("params.lock_by and params.locked_by differ".into());
    }
    first.or(second)
}

fn read_ask(
    lock: Option<LockName>,
    fields: &mut Fields,
    source: Option<&Source>,
    problems: &mut Problems,
) -> Option<Ask> {
    let key = fields.text("key", problems);
    let requestor = read_requestor(fields, problems);
    if requestor.is_some() && key.is_none() {
        problems.add("params.lock_by needs params.key".into());
    }
    let name = fields.text("as", problems);
    if name.as_deref() == Some("") {
        problems.add("params.as is empty".into());
    }
    Some(Ask {
        lock,
        count: fields.count("count", problems),
        labels: fields.labels("labels", problems),
        also: read_also(fields, problems),
        key,
        requestor,
        name,
        scope: read_scope(fields, problems).or_else(|| source.and_then(|s| s.scope)),
        ttl: fields.duration("ttl", problems).or_else(|| source.and_then(|s| s.ttl)),
        timeout: fields.duration("timeout", problems),
        queue: fields.flag("queue", problems).unwrap_or(true),
    })
}

/// `also: [{pool, lock | count, labels}]`: more pools, all or nothing.
fn read_also(fields: &mut Fields, problems: &mut Problems) -> Vec<PartBody> {
    let items = match fields.take("also") {
        None => return Vec::new(),
        Some(serde_json::Value::Array(items)) => items,
        Some(_) => {
            problems.add("params.also must be a list of {pool, lock} or {pool, count}".into());
            return Vec::new();
        }
    };
    let read = |item| {
        let mut part = Fields::of("also", Some(item), &["pool", "lock", "count", "labels"], problems);
        if !part.has("pool") {
            problems.add("missing also.pool".into());
        }
        let pool: Option<PoolName> = part.parsed("pool", problems);
        let lock: Option<LockName> = part.parsed("lock", problems);
        let count = part.count("count", problems);
        let labels = part.labels("labels", problems);
        if lock.is_some() && (count.is_some() || !labels.is_empty()) {
            problems.add("also.lock excludes also.count and also.labels".into());
        }
        part.finish(problems);
        let lock = lock.map(|lock| lock.as_str().to_owned());
        pool.map(|pool| PartBody { pool: pool.as_str().to_owned(), lock, locks: None, count, labels })
    };
    items.into_iter().filter_map(read).collect()
}

fn read_release(fields: &mut Fields, problems: &mut Problems) -> Option<Release> {
    let is_object = fields.is_object("release");
    if is_object {
        let mut what = fields.object("release", problems);
        what.expect(&["lock"]);
        if !what.has("lock") {
            problems.add("missing release.lock".into());
        }
        let lock = what.parsed("lock", problems);
        what.finish(problems);
        return lock.map(Release::Lock);
    }
    match fields.text("release", problems)?.as_str() {
        "build" => Some(Release::Build { name: fields.text("as", problems) }),
        "" => {
            problems.add("params.release is empty".into());
            None
        }
        dir => Some(Release::Dir(dir.to_owned())),
    }
}
