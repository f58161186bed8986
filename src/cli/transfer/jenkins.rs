//! The resources of Jenkins's Lockable Resources plugin (docs/migration/jenkins.md): as its API lists them
//! (`/lockable-resources/api/json`), or as configuration as code declares them. All of them become locks of one pool,
//! because a resource may have several labels, and a lock is in one pool only.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::output::CliError;
use super::super::values::person;
use super::wanted::{Wanted, WantedHold, WantedLock, WantedPolicy, WantedPool};
use crate::core::limits;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::{Env, hex, whole_text};
use crate::wire::api::{ClaimBody, LockRef, Owner, Policy, Scope};
use crate::wire::digest::Fields;
use crate::wire::errors::exit;
use crate::wire::escape::cut;
use crate::wire::problems::Problems;

/// Largest file, bytes: 10,000 resources with long descriptions.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The value of a label that is only a word in Jenkins. YAML reads it as text, unlike `yes` or `1`.
const WORD: &str = "x";
/// The owner's program of imported holds.
const PROGRAM: &str = "locker import jenkins";

/// What is in a file.
pub(super) struct Resources {
    pub wanted: Wanted,
    /// Why nothing can be imported, in sentences.
    pub problems: Vec<String>,
    /// The resources that are not imported, with the reason.
    pub not_taken: Vec<String>,
}

/// Reads a file; `-` is stdin.
pub(super) fn read(file: &str, pool: &PoolName, env: &mut Env<'_>) -> Result<Resources, CliError> {
    let text = whole_text(env.read_input(file, FILE_BYTES), FILE_BYTES)
        .map_err(|error| CliError::Failed(exit::FAILED, format!("cannot read {file:?}: {error}")))?;
    let value = parse(&text).map_err(|why| CliError::usage(format!("{file:?} is not valid: {why}")))?;
    let resources = resources(&value).ok_or_else(|| {
        CliError::usage(format!(
            "{file:?} has no lockable resources: it must be the answer to JENKINS/lockable-resources/api/json, or \
             configuration as code with unclassified.lockableResourcesManager.declaredResources"
        ))
    })?;
    Ok(of(resources, pool, env))
}

/// JSON is parsed as JSON, because YAML allows less in some texts.
fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())
}

fn resources(value: &Value) -> Option<&Vec<Value>> {
    let declared = || value.pointer("/unclassified/lockableResourcesManager/declaredResources");
    value.get("resources").or_else(declared)?.as_array()
}

fn of(resources: &[Value], pool: &PoolName, env: &Env<'_>) -> Resources {
    let (mut problems, mut not_taken) = (Problems::default(), Vec::new());
    let (mut locks, mut holds) = (BTreeMap::new(), Vec::new());
    for (n, value) in resources.iter().enumerate() {
        let at = format!("resources[{n}]");
        let Some(resource) = value.as_object().map(Resource) else {
            problems.add(&at, "it is not an object".to_owned());
            continue;
        };
        let name = resource.text("name").unwrap_or_default();
        if resource.is("ephemeral") {
            not_taken.push(format!("{name}: Jenkins made it for one build"));
            continue;
        }
        let Some(name) = problems.parse::<LockName>(&format!("{at}.name"), &name) else { continue };
        let labels = resource.labels(&at, &mut problems);
        let metadata = resource.metadata();
        if metadata.len() > limits::METADATA_BYTES {
            let text =
                format!("description, note and properties are too long (max of {} bytes)", limits::METADATA_BYTES);
            problems.add(&at, text);
        }
        holds.extend(resource.hold(pool, &name, env));
        let lock = WantedLock { metadata, labels: Some(labels), is_free: None };
        if locks.insert(name.clone(), lock).is_some() {
            problems.add(&at, format!("lock {name:?} occurs twice"));
        }
    }
    if locks.len() > limits::LOCKS_PER_POOL {
        problems.add("resources", format!("there are more than {} in one pool", limits::LOCKS_PER_POOL));
    }
    let policy = WantedPolicy::IfNew(Policy::default());
    let pools = BTreeMap::from([(pool.clone(), WantedPool { policy, default_lock: false, locks })]);
    Resources { wanted: Wanted { pools, holds, ..Wanted::default() }, problems: problems.into_list(), not_taken }
}

/// One resource. What this import does not know is ignored, because the plugin adds members with its releases.
struct Resource<'v>(&'v Map<String, Value>);

impl Resource<'_> {
    /// A member as text, unless it is missing or blank. In YAML a name such as `12` is a number.
    fn text(&self, member: &str) -> Option<String> {
        let text = match self.0.get(member)? {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        (!text.is_empty()).then_some(text)
    }

    fn is(&self, member: &str) -> bool {
        self.0.get(member).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The words of `labels`. A word `NAME=VALUE` has a value already.
    fn labels(&self, at: &str, problems: &mut Problems) -> BTreeMap<String, String> {
        let words = self.text("labels").unwrap_or_default();
        let labels: BTreeMap<String, String> = words
            .split_whitespace()
            .map(|word| word.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty()))
            .zip(words.split_whitespace())
            .map(|(pair, word)| pair.unwrap_or((word, WORD)))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            if text.len() > limits::LABEL_BYTES {
                let max = limits::LABEL_BYTES;
                problems.add(&format!("{at}.labels"), format!("label {text:?} is too long (max of {max} bytes)"));
            }
        }
        if labels.len() > limits::LABELS {
            problems.add(&format!("{at}.labels"), format!("there are more than {} labels", limits::LABELS));
        }
        labels
    }

    /// What people wrote about the resource, as JSON; empty if that is nothing.
    fn metadata(&self) -> Vec<u8> {
        let mut told = Map::new();
        for member in ["description", "note"] {
            told.extend(self.text(member).map(|text| (member.to_owned(), Value::String(text))));
        }
        let properties = self.0.get("properties").and_then(Value::as_array).into_iter().flatten();
        let properties: Map<String, Value> = properties
            .filter_map(|property| Some((property.get("name")?.as_str()?.to_owned(), property.get("value")?.clone())))
            .collect();
        if !properties.is_empty() {
            told.insert("properties".to_owned(), Value::Object(properties));
        }
        if told.is_empty() { Vec::new() } else { (Value::Object(told).to_string() + "\n").into_bytes() }
    }

    /// The hold of a person who reserved the resource, or else of the build that has it now.
    fn hold(&self, pool: &PoolName, lock: &LockName, env: &Env<'_>) -> Option<WantedHold> {
        let program = Some(PROGRAM.to_owned());
        let (who, scope, owner, reason) = if let Some(person) = self.text("reservedBy") {
            let short = cut(&person, limits::OWNER_FIELD_BYTES).to_owned();
            let reason = format!("reserved in Jenkins by {person}");
            (person, Scope::Person, Owner { person: Some(short), program, ..Owner::default() }, reason)
        } else {
            let build = self.text("buildName").or_else(|| self.is("locked").then(|| "a build".to_owned()))?;
            let reason = format!("held in Jenkins by {build} at the import: release it when that build is over");
            (build, Scope::Flow, Owner { program, ..person(env) }, reason)
        };
        let body = ClaimBody {
            lock: Some(lock.to_string()),
            scope: Some(scope),
            owner,
            queue: false,
            reason: Some(cut(&reason, limits::REASON_BYTES).to_owned()),
            ..ClaimBody::of_pool(pool.to_string())
        };
        let locks = vec![LockRef { pool: pool.to_string(), lock: lock.to_string() }];
        Some(WantedHold { id: claim_id(pool, lock, &who), locks, body: Box::new(body) })
    }
}

/// The same hold always gets the same id, so that an import can be run again.
fn claim_id(pool: &PoolName, lock: &LockName, who: &str) -> ClaimId {
    let mut fields = Fields::default();
    ["locker import jenkins 1", pool.as_str(), lock.as_str(), who].iter().for_each(|field| fields.text(field));
    let id = format!("import-{}", &hex(&fields.finish())[..40]);
    // The text contains only characters that an id may have, and is short enough.
    id.parse().unwrap_or_else(|_| ClaimId::smallest())
}
