//! `/claims/ID`: the life of one claim.

use maud::{Markup, html};

use super::frame::{Live, Page, missing};
use super::parts::{Moment, build_ended, change, holder, owner, pool_path, suspect, time};
use super::pool::why_stuck;
use crate::wire::api::{ChangeView, ClaimState, ClaimView};

/// The page of a claim with its entries in the history, the oldest first; or that none of this id is remembered.
#[must_use]
pub fn claim(moment: Moment, id: &str, view: Option<&ClaimView>, entries: &[ChangeView]) -> Page {
    let Some(view) = view else {
        return missing(&format!("There is no claim {id:?}, and none is remembered."));
    };
    let state = match view.state {
        ClaimState::Waiting => "waits",
        ClaimState::Granted => "is granted, and not confirmed yet",
        ClaimState::Held => "holds its locks",
        ClaimState::Ended => "has ended",
    };
    let main = html! {
        h1 { "Claim " code { (view.id) } }
        p.sums { (owner(&view.owner, &view.id)) " " (state) "." }
        @if let Some(reason) = &view.reason { p.reason { (reason) } }
        (build_ended(view.build_ended.as_ref(), moment))
        (suspect(view.suspect.as_ref(), moment))
        h2 { "What happened" }
        (timeline(view, entries, moment))
        @if !view.locks.is_empty() {
            h2 { "Locks" }
            ul { @for lock in &view.locks { li { (lock.lock) " of " a href=(pool_path(&lock.pool)) { (lock.pool) } } } }
        }
        @if !view.asks.is_empty() {
            h2 { "Asks for" }
            ul { @for part in &view.asks { li { a href=(pool_path(&part.pool)) { (part.pool) } } } }
        }
        @if let Some(queue) = &view.queue {
            h2 { "In the queue" }
            p {
                "Place " (queue.position)
                @if let Some(wait) = &queue.expected_wait { ", expected wait " (wait) }
                @if !queue.listening { " " span.badge.warn { "not listening: others pass it" } }
                @if queue.stuck.is_some() { " " span.badge.warn { "stuck" } }
            }
            @if let Some(stuck) = queue.stuck { p.warn { (why_stuck(stuck)) } }
            @if let Some(lacks) = &queue.lacks { p.reason { (lacks) } }
            @for one in &queue.holders { (holder(one, moment)) }
        }
        h2 { "Details" }
        dl {
            @if let Some(fence) = view.fence { dt { "Fence" } dd { (fence) } }
            @if let Some(ttl) = &view.ttl { dt { "ttl" } dd { (ttl) } }
            @if let Some(key) = &view.key { dt { "Key" } dd { (key) } }
            dt { "Life" } dd { (view.life) }
            dt { "Fetched by another build" } dd { @if view.delivered { "yes" } @else { "no" } }
        }
    };
    // Everything that changes a claim is in the history of each of its pools.
    let live = match view.asks.first() {
        _ if view.state == ClaimState::Ended => Live::No,
        Some(part) => Live::Pool(part.pool.clone()),
        None => Live::All,
    };
    Page { title: format!("Claim {id}"), main, live }
}

/// The life of a claim: what the history knows of it, and what is to come.
fn timeline(view: &ClaimView, entries: &[ChangeView], moment: Moment) -> Markup {
    html! {
        ol.timeline {
            @if let Some(at) = &view.asked_at { li { (time(at, moment)) " " b { "asked" } } }
            @for entry in entries { li { (change(entry, moment, false)) } }
            @if entries.is_empty() && let Some(at) = &view.held_since { li { (time(at, moment)) " " b { "held" } } }
            @if let Some(at) = &view.held_until { li { (time(at, moment)) " " b { "will be lost" } } }
            @if let Some(at) = &view.ended_at {
                li {
                    (time(at, moment)) " " b { "ended" }
                    @if let Some(how) = &view.how { ": " (how.replace('_', " ")) }
                    @if let Some(by) = &view.by { ", by " (by) }
                }
            }
        }
    }
}
