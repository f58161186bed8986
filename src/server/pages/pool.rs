//! `/pools/NAME`: one pool, its locks and its queue. `pool_actions` says what may be done there.

use maud::{Markup, html};

use super::action::May;
use super::frame::{Live, Page};
use super::parts::{Moment, ago, change, claim_path, holder, owner, time};
use super::pool_actions::{add, change_rules, lock_actions, next, take, waiter_actions};
use crate::client::http::encode as segment;
use crate::wire::api::{ChangeView, LockState, LockView, PoolView, WaiterView};
use crate::wire::errors::Code;

/// The page of a pool, with the last changes of its history, the newest first. What the reader may not do is not offered.
#[must_use]
pub fn pool(moment: Moment, view: &PoolView, changes: &[ChangeView], may: &May) -> Page {
    let (summary, name) = (&view.summary, view.summary.pool.as_str());
    let main = html! {
        h1 { (name) }
        p.sums {
            (summary.locks) " locks, " (summary.free) " free, " (summary.waiting) " waiting."
            @if view.next.is_some() { " Only the first " (view.items.len()) " locks are shown." }
        }
        p #next.good role="status" hidden {}
        div.row #pool-actions { (may.buttons([take(name, None), next(name), add(name)])) }
        section aria-labelledby="locks" {
            h2 #locks { "Locks" }
            @if view.items.is_empty() { p { "The pool is empty: nobody can be served until a lock is added." } }
            ul.locks { @for lock in &view.items { (one_lock(lock, moment, may)) } }
        }
        section aria-labelledby="queue" {
            h2 #queue { "Queue" }
            @if view.queue.is_empty() { p { "Nobody waits." } } @else { (queue(view, moment, may)) }
        }
        section aria-labelledby="policy" {
            h2 #policy { "Policy" }
            (policy(view))
            div.row { (may.buttons([change_rules(name, &summary.policy)])) }
        }
        section aria-labelledby="changes" {
            h2 #changes { "Last changes" }
            @if changes.is_empty() { p { "None." } }
            ul.changes { @for entry in changes { li { (change(entry, moment, false)) } } }
            p { a href=(format!("/history?pool={}", segment(name))) { "History" } " and "
                a href=(format!("/figures?pool={}", segment(name))) { "figures" } " of this pool" }
        }
    };
    Page { title: name.to_owned(), main, live: Live::Pool(name.to_owned()) }
}

fn one_lock(lock: &LockView, moment: Moment, may: &May) -> Markup {
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
                div.metadata {}
            }
            div.row { (may.buttons(lock_actions(lock))) }
        }
    }
}

fn queue(view: &PoolView, moment: Moment, may: &May) -> Markup {
    let more = view.summary.waiting.saturating_sub(view.queue.len());
    html! {
        ol.queue {
            @for waiter in &view.queue { li { div.place { (one_waiter(waiter, moment, may)) } } }
        }
        @if more > 0 { p { (more) " more wait behind them." } }
    }
}

fn one_waiter(waiter: &WaiterView, moment: Moment, may: &May) -> Markup {
    html! {
        (owner(&waiter.owner, &waiter.claim))
        ", for " (ago(&waiter.asked_at, moment))
        @if let Some(wait) = &waiter.expected_wait { ", expected wait " (wait) }
        ". " a href=(claim_path(&waiter.claim)) { "Claim" }
        @if !waiter.listening { " " span.badge.warn { "not listening: others pass it" } }
        @if let Some(stuck) = waiter.stuck { " " span.badge.warn { "stuck" } p.warn { (why_stuck(stuck)) } }
        @if let Some(lacks) = &waiter.lacks { p.reason { (lacks) } }
        div.row { (may.buttons(waiter_actions(waiter))) }
    }
}

/// Why a waiter cannot go on by itself.
pub(super) fn why_stuck(stuck: Code) -> &'static str {
    match stuck {
        Code::SelfWait => "It waits for a lock that its own build holds.",
        Code::Deadlock => "It is in a circle of builds that wait for each other.",
        _ => "It cannot go on by itself.",
    }
}

/// What the pool sets itself; everything else is the default of the server.
fn policy(view: &PoolView) -> Markup {
    let set = view.summary.policy.shown();
    html! {
        @if set.is_empty() { p { "The defaults of the server." } } @else {
            dl { @for (key, value) in &set { dt { (key.replace('_', " ")) } dd { (value) } } }
        }
    }
}
