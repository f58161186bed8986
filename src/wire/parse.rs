//! Converts request bodies to values of the core, and collects all problems instead of only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use super::api::{self, ByBody, ClaimBody, PartBody};
use super::identity::Identity;
use super::problems::Problems;
use super::text;
use crate::core::claim::{Ask, Labels, Owner, Part, Priority, Scope, Terms, Want};
use crate::core::command::{AskClaim, By, Wait};
use crate::core::limits;
use crate::core::names::{ClaimId, Label, LockName, PoolName};
use crate::core::pool::{CutShort, Order, Overtaking, Pick, Policy, PolicyChange, Rule, WhenEmpty};
use crate::core::time::Span;

/// A parsed `PUT` of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its `wait` is [`Wait::No`] until it is known whether the request can be parked.
    pub ask: AskClaim,
    /// How long the request may stay open: at most [`limits::WAIT_MS`]. 0 means not at all.
    pub wait: Span,
    /// The store that the client expects.
    pub expect_store: Option<String>,
}

/// Reads a claim. Returns `None` only after it has recorded a problem.
pub fn claim(id: ClaimId, body: ClaimBody, problems: &mut Problems) -> Option<Asked> {
    let ClaimBody { pool, lock, locks, count, labels, also, .. } = body;
    let first = PartBody { pool, lock, locks, count, labels };
    let parts = parts(first, also, problems);
    let key = problems.parse_some("key", body.key.as_deref());
    if body.requestor.is_some() && body.key.is_none() {
        problems.add("requestor", "needs a `key`: it says who shares that key");
    }
    let requestor = problems.parse_some("requestor", body.requestor.as_deref());
    let scope = body.scope.map(Scope::from);
    let ask = Ask { parts, key, requestor };
    let owner = owner("owner", &body.owner, problems);
    let run = problems.parse_some("run", body.run.as_deref());
    let reason = problems.parse_some("reason", body.reason.as_deref());
    let max = Span(limits::TTL_MAX_MS);
    let ttl = ttl("ttl", body.ttl.as_deref(), problems);
    let give_up_after = span("give_up_after", body.give_up_after.as_deref(), Span(1), max, problems);
    let wait = wait("wait", body.wait.as_deref(), problems);
    let priority = priority(body.priority, problems);
    let supersede = problems.parse_some("supersede", body.supersede.as_deref());
    let terms = Terms {
        digest: Identity::of_ask(&ask, scope).digest(&owner),
        ask,
        owner: Arc::new(owner),
        reason,
        confirm: body.confirm,
        ttl,
        priority,
        supersede,
        waits_if_empty: body.wait_if_empty,
    };
    let ask = AskClaim { id, terms, scope, run, wait: Wait::No, queue: body.queue, give_up_after };
    problems.is_empty().then_some(Asked { ask, wait, expect_store: body.expect_store })
}

fn priority(given: Option<i32>, problems: &mut Problems) -> Priority {
    let priority = Priority::new(given.unwrap_or_default());
    if priority.is_none() {
        problems.add("priority", format!("must be {} to {}", -limits::PRIORITY, limits::PRIORITY));
    }
    priority.unwrap_or_default()
}

/// How long a request may stay open. A longer time is reduced to the limit.
pub fn wait(at: &str, text: Option<&str>, problems: &mut Problems) -> Span {
    let wait = span(at, text, Span(0), Span(u64::MAX), problems).unwrap_or_default();
    wait.min(Span(limits::WAIT_MS))
}

/// How long a hold or a quarantine lasts.
pub fn ttl(at: &str, given: Option<&str>, problems: &mut Problems) -> Option<Span> {
    span(at, given, Span(limits::TTL_MIN_MS), Span(limits::TTL_MAX_MS), problems)
}

fn span(at: &str, given: Option<&str>, min: Span, max: Span, problems: &mut Problems) -> Option<Span> {
    text::span_within(given?, min, max).map_err(|error| problems.add(at, error)).ok()
}

/// One part for each pool, ordered by pool.
fn parts(first: PartBody, also: Vec<PartBody>, problems: &mut Problems) -> Vec<Part> {
    if also.len() >= limits::POOLS_PER_CLAIM {
        problems.add("also", format!("a claim spans at most {} pools", limits::POOLS_PER_CLAIM));
        return Vec::new();
    }
    let mut by_pool: BTreeMap<PoolName, Part> = BTreeMap::new();
    let mut locks: u64 = 0;
    for (n, body) in std::iter::once(first).chain(also).enumerate() {
        let at = if n == 0 { String::new() } else { format!("also[{}].", n - 1) };
        let pool = problems.parse::<PoolName>(&format!("{at}pool"), &body.pool);
        let Some((pool, want)) = pool.zip(want(&at, &body, problems)) else { continue };
        locks += match &want {
            Want::Any { count, .. } => u64::from(*count),
            Want::Named(names) => names.len() as u64,
        };
        if by_pool.insert(pool.clone(), Part { pool: pool.clone(), want }).is_some() {
            problems.add(&format!("{at}pool"), format!("pool {pool:?} is named twice: ask once for all its locks"));
        }
    }
    if locks > limits::LOCKS_PER_CLAIM as u64 {
        problems.add("", format!("a claim takes at most {} locks, not {locks}", limits::LOCKS_PER_CLAIM));
    }
    by_pool.into_values().collect()
}

/// The request for locks of one pool.
fn want(at: &str, body: &PartBody, problems: &mut Problems) -> Option<Want> {
    let any = body.count.is_some() || !body.labels.is_empty();
    let ways = [body.lock.is_some(), body.locks.is_some(), any];
    if ways.iter().filter(|way| **way).count() > 1 {
        let pool = if at.is_empty() { "a pool" } else { at.trim_end_matches('.') };
        problems.add("", format!("{pool}: give either `lock`, or `locks`, or `count` and `labels`"));
        return None;
    }
    if let Some(lock) = &body.lock {
        let lock = problems.parse(&format!("{at}lock"), lock)?;
        return Some(Want::Named(BTreeSet::from([lock])));
    }
    if let Some(locks) = &body.locks {
        return named(&format!("{at}locks"), locks, problems).map(Want::Named);
    }
    let labels = labels(&format!("{at}labels"), &body.labels, problems)?;
    match body.count.unwrap_or(1) {
        0 => problems.add(&format!("{at}count"), "must be at least 1"),
        count if count as usize > limits::LOCKS_PER_CLAIM => {
            problems.add(&format!("{at}count"), format!("must be at most {}", limits::LOCKS_PER_CLAIM));
        }
        count => return Some(Want::Any { count, labels }),
    }
    None
}

fn named(at: &str, locks: &[String], problems: &mut Problems) -> Option<BTreeSet<LockName>> {
    if locks.is_empty() || locks.len() > limits::LOCKS_PER_CLAIM {
        problems.add(at, format!("must name 1 to {} locks", limits::LOCKS_PER_CLAIM));
        return None;
    }
    let mut names = BTreeSet::new();
    let mut all_good = true;
    for (n, lock) in locks.iter().enumerate() {
        let at = format!("{at}[{n}]");
        match problems.parse::<LockName>(&at, lock) {
            Some(name) if names.contains(&name) => {
                problems.add(&at, format!("lock {name:?} is named twice"));
                all_good = false;
            }
            Some(name) => {
                names.insert(name);
            }
            None => all_good = false,
        }
    }
    all_good.then_some(names)
}

/// The labels of a lock, or those that a claim requires.
pub fn labels(at: &str, given: &BTreeMap<String, String>, problems: &mut Problems) -> Option<Labels> {
    if given.len() > limits::LABELS {
        problems.add(at, format!("at most {} labels, not {}", limits::LABELS, given.len()));
        return None;
    }
    let mut label = |name: &str, text: &str| -> Option<Label> {
        problems.parse(&format!("{at}.{}", super::problems::quoted(name)), text)
    };
    let parsed: Vec<_> = given.iter().map(|(name, value)| label(name, name).zip(label(name, value))).collect();
    parsed.into_iter().collect()
}

/// Who makes a request.
pub fn owner(at: &str, given: &api::Owner, problems: &mut Problems) -> Owner {
    fn parsed<T: FromStr<Err: Display>>(
        (at, name): (&str, &str),
        given: Option<&String>,
        problems: &mut Problems,
    ) -> Option<T> {
        // Most members are not given, and few are wrong: only then is a path made.
        given?.parse().map_err(|error| problems.add(&format!("{at}.{name}"), error)).ok()
    }
    let mut text = |name: &str, given: &Option<String>| parsed((at, name), given.as_ref(), problems);
    Owner {
        cluster: text("cluster", &given.cluster),
        team: text("team", &given.team),
        pipeline: text("pipeline", &given.pipeline),
        job: text("job", &given.job),
        build_id: text("build_id", &given.build_id),
        build_name: text("build_name", &given.build_name),
        build_url: text("build_url", &given.build_url),
        person: text("person", &given.person),
        program: text("program", &given.program),
        instance_vars: parsed((at, "instance_vars"), given.instance_vars.as_ref(), problems),
    }
}

/// Who makes a change, and why.
pub fn by(given: Option<ByBody>, problems: &mut Problems) -> By {
    let Some(given) = given else { return By::default() };
    By {
        op: problems.parse_some("by.op", given.op.as_deref()),
        owner: Arc::new(owner("by.owner", &given.owner, problems)),
        reason: problems.parse_some("by.reason", given.reason.as_deref()),
    }
}

/// Who makes a change that affects others, and why. The reason is required.
pub fn by_with_reason(given: ByBody, problems: &mut Problems) -> By {
    if given.reason.is_none() {
        problems.add("by.reason", "is missing: the people affected by this need to know why");
    }
    by(Some(given), problems)
}

/// The rules of a pool.
pub fn policy(given: &api::Policy, problems: &mut Problems) -> Policy {
    let max = Span(limits::TTL_MAX_MS);
    let max_queue_is_good = given.max_queue.is_none_or(|n| n as usize <= limits::WAITERS_PER_POOL);
    if !max_queue_is_good {
        problems.add("policy.max_queue", format!("must be at most {}", limits::WAITERS_PER_POOL));
    }
    if given.scope == Some(api::Scope::Lease) {
        problems.add("policy.scope", "cannot be lease: a claim that did not ask for a lease does not renew its hold");
    }
    Policy {
        order: given.order.map(Order::from).unwrap_or_default(),
        overtaking: given.overtaking.as_deref().and_then(|text| overtaking(text, problems)).unwrap_or_default(),
        pick: given.pick.map(Pick::from).unwrap_or_default(),
        drain: span("policy.drain", given.drain.as_deref(), Span(0), max, problems),
        max_hold: span("policy.max_hold", given.max_hold.as_deref(), Span(limits::TTL_MIN_MS), max, problems),
        max_queue: given.max_queue,
        scope: given.scope.map(Scope::from),
        when_empty: given.when_empty.map(WhenEmpty::from),
        cut_short: given.cut_short.map(CutShort::from).unwrap_or_default(),
    }
}

/// The rules of a pool in their canonical form, without those at their defaults. [`policy`] reads them again.
#[must_use]
pub fn show_policy(policy: &Policy) -> api::Policy {
    api::Policy {
        order: Some(policy.order).filter(|order| *order != Order::default()).map(Into::into),
        overtaking: Some(policy.overtaking).filter(|o| *o != Overtaking::Strict).map(show_overtaking),
        pick: Some(policy.pick).filter(|pick| *pick != Pick::default()).map(Into::into),
        drain: policy.drain.map(text::show_span),
        max_hold: policy.max_hold.map(text::show_span),
        max_queue: policy.max_queue,
        scope: policy.scope.map(Into::into),
        when_empty: policy.when_empty.map(Into::into),
        cut_short: Some(policy.cut_short).filter(|it| *it != CutShort::default()).map(Into::into),
    }
}

/// A change of some rules of a pool.
pub fn policy_change(given: &api::PoolChangeBody, problems: &mut Problems) -> PolicyChange {
    let named = given.policy.rules();
    if let Some(both) = given.defaults.iter().find(|rule| named.contains(rule)) {
        problems.add("defaults", format!("names {both:?}, which `policy` sets: give it once"));
    }
    let all = given.reset.then_some(api::Rule::ALL);
    let rules = named.iter().chain(&given.defaults).chain(all.iter().flatten()).copied();
    PolicyChange { rules: rules.map(Rule::from).collect(), to: policy(&given.policy, problems) }
}

/// `strict`, `backfill`, or `backfill:N`.
fn overtaking(text: &str, problems: &mut Problems) -> Option<Overtaking> {
    match (text, text.strip_prefix("backfill:").map(str::parse::<u32>)) {
        ("strict", _) => return Some(Overtaking::Strict),
        ("backfill", _) => return Some(Overtaking::Backfill(None)),
        (_, Some(Ok(most))) if most > 0 => return Some(Overtaking::Backfill(Some(most))),
        _ => problems.add("policy.overtaking", "must be strict, backfill, or backfill:N with N of at least 1"),
    }
    None
}

/// The canonical form of `overtaking`.
#[must_use]
fn show_overtaking(overtaking: Overtaking) -> String {
    match overtaking {
        Overtaking::Strict => "strict".to_owned(),
        Overtaking::Backfill(None) => "backfill".to_owned(),
        Overtaking::Backfill(Some(most)) => format!("backfill:{most}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::hex;

    fn asked(body: &str) -> Asked {
        let body = serde_json::from_str(body).unwrap();
        let mut problems = Problems::default();
        let asked = claim(ClaimId::parse("c").unwrap(), body, &mut problems);
        problems.done(asked).unwrap()
    }

    /// Stores keep digests. A release that computed different ones would refuse every claim that outlives the upgrade.
    #[test]
    fn digests_never_change() {
        let body = r#"{"pool": "p", "count": 2, "labels": {"size": "big"}, "also": [{"pool": "a", "locks": ["2", "1"]}],
            "key": "k", "requestor": "me", "scope": "person",
            "owner": {"cluster": "https://ci", "team": "main", "build_id": "7"}}"#;
        for (body, digest) in [
            (body, "424c8187ca831e7a3f7e29a47c999787b42c5f4331125c7d073075fae6484cad"),
            (r#"{"pool": "p", "scope": "flow"}"#, "519f8e03c3b33f9cae82b6e9b5481fb9d2581d0e7419b0e5feaebc7606a7721c"),
            (r#"{"pool": "p", "scope": "build"}"#, "6d83852c8b14e6b6ffc32f22ca798536d543adcd6b24d99af044997ee9530a88"),
            (r#"{"pool": "p", "scope": "lease"}"#, "027846381b5e427ca55e851f0f599f4025dc3ffc0a03ea8d2f4f6aae9ecde47f"),
            (r#"{"pool": "p"}"#, "954769ae2f5dc38fc45dd946527e4e71de7e0ca87d7b0d4c8e533b2e4d20390d"),
        ] {
            assert_eq!(hex(&asked(body).ask.terms.digest.0), digest);
        }
    }

    #[test]
    fn only_what_is_asked_for_is_compared() {
        let plain = asked(r#"{"pool": "p"}"#).ask.terms.digest;
        let more = r#"{"pool": "p", "wait": "5s", "ttl": "1h", "reason": "why", "give_up_after": "1m", "confirm": true,
            "queue": false, "run": "r", "priority": -5, "supersede": "deploy", "owner": {"job": "j", "pipeline": "x", "build_name": "3", "person": "me"}}"#;
        assert_eq!(asked(more).ask.terms.digest, plain);
        // Adjacent texts do not run together.
        let a = asked(r#"{"pool": "p", "locks": ["ab", "c"]}"#).ask.terms.digest;
        let b = asked(r#"{"pool": "p", "locks": ["a", "bc"]}"#).ask.terms.digest;
        assert_ne!(a, b);
    }

    #[test]
    fn claims_are_read_with_their_defaults() {
        let Asked { ask, wait, expect_store } = asked(r#"{"pool": "z", "wait": "2m", "also": [{"pool": "a"}]}"#);
        assert_eq!((wait, expect_store), (Span::secs(60), None));
        let pools: Vec<&str> = ask.terms.ask.parts.iter().map(|part| part.pool.as_str()).collect();
        assert_eq!(pools, ["a", "z"], "parts are ordered by pool");
        assert!(ask.terms.ask.parts.iter().all(|p| p.want == Want::Any { count: 1, labels: Labels::new() }));
        assert_eq!((ask.scope, ask.queue, ask.wait, ask.terms.confirm), (None, true, Wait::No, false));
    }
}
