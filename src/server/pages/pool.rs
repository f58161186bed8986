//! `/pools/NAME`: one pool, its locks and its queue.

use maud::{Markup, html};
use serde_json::json;

use super::parts::{Action, By, Moment, ago, claim_path, frame, holder, name, owner, time};
use crate::client::http::encode as segment;
use crate::wire::api::{ChangeView, LockState, LockView, Owner, PoolView, WaiterView};

/// The page of a pool, with the last changes of its history, the newest first.
#[must_use]
pub fn pool(moment: Moment, view: &PoolView, changes: &[ChangeView]) -> Markup {
    let (summary, name) = (&view.summary, view.summary.pool.as_str());
    let main = html! {
        h1 { (name) }
        p.sums {
            (summary.locks) " locks, " (summary.free) " free, " (summary.waiting) " waiting."
            @if view.next.is_some() { " Only the first " (view.items.len()) " locks are shown." }
        }
        div.row { (take(name, None).button()) (add(name).button()) }
        h2 { "Locks" }
        @if view.items.is_empty() { p { "The pool is empty: nobody can be served until a lock is added." } }
        ul.locks { @for lock in &view.items { (one_lock(lock, moment)) } }
        h2 { "Queue" }
        @if view.queue.is_empty() { p { "Nobody waits." } } @else { (queue(&view.queue, moment)) }
        h2 { "Policy" }
        (policy(view))
        h2 { "Last changes" }
        @if changes.is_empty() { p { "None." } }
        ul.changes { @for change in changes { (entry(change, moment)) } }
    };
    frame(moment, name, &main)
}

fn one_lock(lock: &LockView, moment: Moment) -> Markup {
    let (word, class) = match lock.state {
        LockState::Free => ("free", "good"),
        LockState::Granted => ("granted", "busy"),
        LockState::Held => ("held", "busy"),
        LockState::Draining => ("draining", "warn"),
        LockState::Quarantined => ("quarantined", "warn"),
    };
    html! {
        li {
            h3 { (lock.lock) " " span.badge.(class) { (word) } @if lock.leaving { " " span.badge.warn { "leaving" } } }
            @if !lock.labels.is_empty() {
                p.labels { @for (name, value) in &lock.labels { span.label { (name) "=" (value) } " " } }
            }
            @for one in &lock.holders { (holder(one, moment)) }
            @if let Some(quarantine) = &lock.quarantine {
                p.warn {
                    "Out of service since " (time(&quarantine.since, moment))
                    @if let Some(until) = &quarantine.until { ", until " (time(until, moment)) }
                    @if let Some(by) = &quarantine.by { ", by " (by) }
                    @if let Some(reason) = &quarantine.reason { ": " (reason) }
                }
            }
            details data-lock=(format!("/pools/{}/locks/{}", segment(&lock.pool), segment(&lock.lock))) {
                summary { "Metadata" }
                pre {}
            }
            div.row { @for action in &actions(lock) { (action.button()) } }
        }
    }
}

/// What may be done with a lock.
fn actions(lock: &LockView) -> Vec<Action<'static>> {
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
        actions.push(Action { by: By::Query, ..Action::new("Release", "DELETE", claim.clone(), text) });
        let text = format!("Ends the hold of {who} by force. {it} stays out of use until its drain is over.");
        let drain = json!({ "drain": true });
        actions.push(Action { body: drain, ..Action::new("Break", "POST", format!("{claim}/break"), text) });
    }
    actions.push(if lock.quarantine.is_some() {
        let text = format!("Puts {it} back into service. The next in the queue may get it at once.");
        Action::new("Return to service", "POST", format!("{path}/return"), text)
    } else {
        let text = format!("Takes {it} out of service: nobody gets it until it is returned. Its holder keeps it.");
        Action::new("Quarantine", "POST", format!("{path}/quarantine"), text)
    });
    if lock.holders.is_empty() {
        let text = format!("Removes {it} for good, with its metadata.");
        actions.push(Action::new("Remove", "DELETE", path, text));
    }
    actions
}

/// Takes any lock of the pool, or this one, for a person.
fn take(pool: &str, lock: Option<&str>) -> Action<'static> {
    let body = match lock {
        Some(lock) => json!({ "pool": pool, "lock": lock, "scope": "person" }),
        None => json!({ "pool": pool, "scope": "person" }),
    };
    let what = lock.map_or_else(|| format!("any free lock of {pool}"), |lock| format!("{lock} of {pool}"));
    let text = format!("Takes {what} for you, until the time below is over or you release it.");
    Action { by: By::Owner, body, ..Action::new("Take", "PUT", "/claims/{new}".to_owned(), text) }
}

fn add(pool: &str) -> Action<'static> {
    let text = format!("Adds a lock to {pool}. The next in the queue may get it at once.");
    Action::new("Add a lock", "PUT", format!("/pools/{}/locks/{{name}}", segment(pool)), text)
}

fn queue(queue: &[WaiterView], moment: Moment) -> Markup {
    html! {
        ol.queue {
            @for waiter in queue {
                li {
                    (owner(&waiter.owner, &waiter.claim))
                    ", for " (ago(&waiter.asked_at, moment)) ". " a href=(claim_path(&waiter.claim)) { "Claim" }
                    @if !waiter.listening { " " span.badge.warn { "not listening: others pass it" } }
                    @if let Some(stuck) = &waiter.stuck { " " span.badge.warn { (stuck.word()) } }
                    @if let Some(lacks) = &waiter.lacks { p.reason { (lacks) } }
                    div.row {
                        @for action in &waiter_actions(waiter) { (action.button()) }
                    }
                }
            }
        }
    }
}

fn waiter_actions(waiter: &WaiterView) -> [Action<'static>; 3] {
    let who = name(&waiter.owner, &waiter.claim);
    let path = format!("/claims/{}", segment(&waiter.claim));
    let moved = |name, to: &str, text: String| Action {
        body: json!({ "to": to }),
        ..Action::new(name, "POST", format!("{path}/move"), text)
    };
    let (cancel, text) = (format!("{path}?if_waiting=true"), format!("Ends the wait of {who}. Its build step fails."));
    [
        moved("Move to front", "first", format!("{who} is served before everybody else in the queue.")),
        moved("Move to end", "last", format!("{who} is served after everybody else in the queue.")),
        Action { by: By::Query, ..Action::new("Cancel", "DELETE", cancel, text) },
    ]
}

/// One entry of the history.
fn entry(change: &ChangeView, moment: Moment) -> Markup {
    let kind = serde_json::to_value(change.kind).unwrap_or_default();
    let locks = change.locks.iter().map(|lock| lock.lock.as_str()).collect::<Vec<_>>().join(", ");
    let who = change.claim.as_deref().unwrap_or_default();
    html! {
        li {
            (time(&change.at, moment)) " "
            b { (kind.as_str().unwrap_or_default().replace('_', " ")) }
            @if !locks.is_empty() { " " (locks) }
            @if change.owner != Owner::default() { ", " (owner(&change.owner, who)) }
            @if let Some(how) = &change.how { ", " (how.replace('_', " ")) }
            @if let Some(waited) = &change.waited { ", waited " (waited) }
            @if let Some(held) = &change.held { ", held " (held) }
            @if let Some(claim) = &change.claim { ". " a href=(claim_path(claim)) { "Claim" } }
            @if let Some(reason) = &change.reason { span.reason { " – " (reason) } }
        }
    }
}

/// What the pool sets itself; everything else is the default of the server.
fn policy(view: &PoolView) -> Markup {
    let set = view.summary.policy.shown();
    html! {
        @if set.is_empty() { p { "The defaults of the server." } } @else {
            dl { @for (key, value) in &set { dt { (key) } dd { (value) } } }
        }
    }
}
