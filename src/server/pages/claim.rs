//! `/claims/ID`: the life of one claim.

use maud::html;

use super::frame::{Page, missing};
use super::parts::{Moment, build_ended, holder, owner, pool_path, suspect, time};
use super::pool::why_stuck;
use crate::wire::api::{ClaimState, ClaimView};

/// The page of a claim, or that none of this id is remembered.
#[must_use]
pub fn claim(moment: Moment, id: &str, view: Option<&ClaimView>) -> Page {
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
        ol.timeline {
            @if let Some(at) = &view.asked_at { li { "Asked at " (time(at, moment)) } }
            @if let Some(at) = &view.held_since { li { "Held since " (time(at, moment)) } }
            @if let Some(at) = &view.held_until { li { "Will be lost at " (time(at, moment)) } }
            @if let Some(at) = &view.ended_at {
                li {
                    "Ended at " (time(at, moment))
                    @if let Some(how) = &view.how { ": " (how) }
                    @if let Some(by) = &view.by { ", by " (by) }
                }
            }
        }
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
    let pool = view.asks.first().map(|part| part.pool.clone());
    Page { title: format!("Claim {id}"), main, pool }
}
