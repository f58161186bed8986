//! What people may do with a pool, its locks and its waiters.

use serde_json::{Value, json};

use super::action::{Action, By, Field, Kind, Needs};
use super::parts::name;
use crate::client::http::encode as segment;
use crate::server::auth::access::Right;
use crate::wire::api::{LockState, LockView, Policy, WaiterView};

const CLAIM: Needs = Needs::Rights(&[Right::Claim]);
const MANAGE: Needs = Needs::Rights(&[Right::Manage]);

/// How long a lock taken by hand is meant to be held, unless the person says otherwise.
const TAKEN_FOR: &str = "1h";

/// Takes any lock of the pool, or this one, for a person.
pub(super) fn take(pool: &str, lock: Option<&str>) -> Action {
    let what = lock.map_or_else(|| format!("any free lock of {pool}"), |lock| format!("{lock} of {pool}"));
    let text =
        format!("Takes {what} for you, now or not at all. You have it until the time below is over or you release it.");
    let body = by_person(pool, lock);
    Action { by: By::Owner, body, fields: vec![span()], ..Action::new(CLAIM, "Take", "PUT", new_claim(), text) }
}

/// The next lock of the pool goes to this person.
pub(super) fn next(pool: &str) -> Action {
    let text = format!(
        "Puts you in front of everybody who waits for {pool}. You get the next free lock while this page stays open, and \
         have it until the time below is over or you release it."
    );
    let body = by_person(pool, None);
    Action {
        by: By::Next,
        body,
        fields: vec![span()],
        ..Action::new(Needs::Rights(&[Right::Claim, Right::Break]), "Mine next", "PUT", new_claim(), text)
    }
}

fn new_claim() -> String {
    "/claims/{new}".to_owned()
}

fn by_person(pool: &str, lock: Option<&str>) -> Value {
    match lock {
        Some(lock) => json!({ "pool": pool, "lock": lock, "scope": "person" }),
        None => json!({ "pool": pool, "scope": "person" }),
    }
}

fn span() -> Field {
    Field::new("ttl", "For how long, such as 30m or 2h", Kind::Text).with(TAKEN_FOR).required()
}

pub(super) fn add(pool: &str) -> Action {
    let text = format!("Adds a lock to {pool}. The next in the queue may get it at once.");
    let fields = vec![
        Field::new("{lock}", "Name of the lock", Kind::Text).required(),
        Field::new("labels", "Labels, such as size=large, zone=eu", Kind::Labels),
        Field::new("metadata", "Metadata", Kind::Lines),
    ];
    let path = format!("/pools/{}/locks/{{lock}}", segment(pool));
    Action { fields, ..Action::new(MANAGE, "Add a lock", "PUT", path, text) }
}

/// Changes the rules of a pool.
pub(super) fn change_rules(pool: &str, policy: &Policy) -> Action {
    let shown = policy.shown();
    let rule = |rule: &'static str, label, kind| {
        let now = shown.get(rule.trim_start_matches("policy.")).cloned().unwrap_or_default();
        Field::new(rule, label, kind).with(now)
    };
    let fields = vec![
        rule("policy.order", "Order of the queue", Kind::Choice(&["fifo", "priority", "lifo"])),
        rule("policy.overtaking", "Overtaking: strict, backfill or backfill:N", Kind::Text),
        rule("policy.pick", "Which free lock is granted", Kind::Choice(&["least_recent", "random", "name"])),
        rule("policy.drain", "Drain after a loss, such as 30s", Kind::Text),
        rule("policy.max_hold", "Longest hold, such as 4h", Kind::Text),
        rule("policy.max_queue", "Longest queue", Kind::Number),
        rule("policy.scope", "Scope of claims that name none", Kind::Choice(&["flow", "build", "person"])),
        rule("policy.when_empty", "Claims for locks that the pool lacks", Kind::Choice(&["wait", "fail"])),
        rule("policy.cut_short", "Flow holds of builds that were cut short", Kind::Choice(&["end", "keep"])),
    ];
    let text = format!("Replaces the rules of {pool}. What is left empty goes back to the default of the server.");
    let path = format!("/pools/{}", segment(pool));
    Action {
        body: json!({ "reset": true }),
        fields,
        ..Action::new(Needs::Rights(&[Right::Admin]), "Change the policy", "PATCH", path, text)
    }
}

/// What may be done with a lock.
pub(super) fn lock_actions(lock: &LockView) -> Vec<Action> {
    let path = format!("/pools/{}/locks/{}", segment(&lock.pool), segment(&lock.lock));
    let it = format!("{} of {}", lock.lock, lock.pool);
    let mut actions = Vec::new();
    if lock.state == LockState::Free {
        actions.push(take(&lock.pool, Some(&lock.lock)));
    }
    for holder in &lock.holders {
        let claim = format!("/claims/{}", segment(&holder.claim));
        let who = name(&holder.owner, &holder.claim);
        let text = format!("Ends the hold of {who} and gives back {it} at once. Do this when its work is finished.");
        let needs = || Needs::Claim(holder.claim.clone());
        actions.push(Action { by: By::Query, ..Action::new(needs(), "Release", "DELETE", claim.clone(), text) });
        let text = format!("Ends the hold of {who} on {it} by force, whatever it is doing.");
        let drain = "Keep the lock out of use until its drain is over";
        let fields = vec![Field::new("drain", drain, Kind::Check).with("true")];
        actions.push(Action { fields, ..Action::new(needs(), "Break", "POST", format!("{claim}/break"), text) });
    }
    actions.push(if lock.quarantine.is_some() {
        let text = format!("Puts {it} back into service. The next in the queue may get it at once.");
        Action::new(MANAGE, "Return to service", "POST", format!("{path}/return"), text)
    } else {
        let text = format!("Takes {it} out of service: nobody gets it until it is returned. Its holder keeps it.");
        let fields = vec![Field::new("for", "Return it by itself after, such as 2h", Kind::Text)];
        Action { fields, ..Action::new(MANAGE, "Quarantine", "POST", format!("{path}/quarantine"), text) }
    });
    if lock.holders.is_empty() {
        let text = format!("Removes {it} for good, with its metadata.");
        actions.push(Action::new(MANAGE, "Remove", "DELETE", path, text));
    }
    actions
}

/// What may be done with a waiter.
pub(super) fn waiter_actions(waiter: &WaiterView) -> [Action; 3] {
    let who = name(&waiter.owner, &waiter.claim);
    let path = format!("/claims/{}", segment(&waiter.claim));
    let moved = |name, to: &str, text: String| Action {
        body: json!({ "to": to }),
        ..Action::new(Needs::Rights(&[Right::Break]), name, "POST", format!("{path}/move"), text)
    };
    let (cancel, text) = (format!("{path}?if_waiting=true"), format!("Ends the wait of {who}. Its build step fails."));
    [
        moved("Move to front", "first", format!("{who} is served before everybody else in the queue.")),
        moved("Move to end", "last", format!("{who} is served after everybody else in the queue.")),
        Action { by: By::Query, ..Action::new(Needs::Claim(waiter.claim.clone()), "Cancel", "DELETE", cancel, text) },
    ]
}
