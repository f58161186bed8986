//! What the pages share.

use std::time::Duration;

use maud::{Markup, html};

use crate::client::http::encode as segment;
use crate::client::{when, who};
use crate::core::names::Revision;
use crate::core::time::WallMs;
use crate::wire::api::{BuildEndedView, ChangeView, HolderView, Owner, SuspectView};

/// The moment that a page shows.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: WallMs,
    /// The script asks for what has changed since.
    pub revision: Revision,
}

/// A time of the API: what a person reads, and the exact one for programs and on hover.
pub(super) fn time(text: &str, moment: Moment) -> Markup {
    html! { time datetime=(text) title=(text) { (when::time(text, moment.now)) } }
}

/// How long ago a time of the API is, as roughly as people want to know it.
pub(super) fn ago(text: &str, moment: Moment) -> Markup {
    let since = when::since(text, moment.now).unwrap_or_default();
    html! { time datetime=(text) title=(text) { (when::span(since)) } }
}

/// A duration in a cell that can be sorted.
pub(super) fn lasting(since: Option<&str>, moment: Moment) -> Markup {
    let lasted = since.and_then(|since| when::since(since, moment.now));
    html! {
        td.number data-value=(lasted.as_ref().map_or(0, Duration::as_secs)) {
            @match since { Some(since) => (ago(since, moment)), None => "–" }
        }
    }
}

/// Who it is, in words.
pub(super) fn name(owner: &Owner, claim: &str) -> String {
    let plain = Owner { build_url: None, ..owner.clone() };
    who::owner(&plain, &format!("claim {claim}"))
}

/// Who it is, linked to the build if it has an address that a browser may open.
pub(super) fn owner(owner: &Owner, claim: &str) -> Markup {
    let name = name(owner, claim);
    let link = owner.build_url.as_deref().filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    html! {
        @match link {
            Some(url) => a href=(url) rel="noreferrer noopener" { (name) },
            None => (name),
        }
    }
}

/// That a hold outlives its build, and how that ended.
pub(super) fn build_ended(ended: Option<&BuildEndedView>, moment: Moment) -> Markup {
    html! { @if let Some(ended) = ended { p.warn { (who::build_ended(ended, moment.now)) } } }
}

pub(super) fn suspect(suspect: Option<&SuspectView>, moment: Moment) -> Markup {
    html! {
        @if let Some(suspect) = suspect {
            p.warn { "Not known to be alive since " (time(&suspect.since, moment)) ": " (suspect.why) }
        }
    }
}

/// One holder of a lock.
pub(super) fn holder(holder: &HolderView, moment: Moment) -> Markup {
    html! {
        div.holder {
            (owner(&holder.owner, &holder.claim))
            @if let Some(key) = &holder.key { " with key " code { (key) } }
            @if let Some(since) = &holder.since { ", for " (ago(since, moment)) } @else { ", not confirmed yet" }
            @if let Some(until) = &holder.until { ", until " (time(until, moment)) }
            ". " a href=(claim_path(&holder.claim)) { "Claim" } ", fence " (holder.fence)
            @if let Some(reason) = &holder.reason { p.reason { (reason) } }
            (build_ended(holder.build_ended.as_ref(), moment))
            (suspect(holder.suspect.as_ref(), moment))
        }
    }
}

pub(super) fn pool_path(pool: &str) -> String {
    format!("/pools/{}", segment(pool))
}

pub(super) fn claim_path(claim: &str) -> String {
    format!("/claims/{}", segment(claim))
}

/// One entry of the history. `with_pools` says of which pools it is.
pub(super) fn change(change: &ChangeView, moment: Moment, with_pools: bool) -> Markup {
    let locks = change.locks.iter().map(|lock| lock.lock.as_str()).collect::<Vec<_>>().join(", ");
    let who = change.claim.as_deref().unwrap_or_default();
    html! {
        (time(&change.at, moment)) " "
        b { (kind_of(change).replace('_', " ")) }
        @if !locks.is_empty() { " " (locks) }
        @if let Some(token) = &change.token {
            " " (token)
            @if let Some(proved) = &change.proved { " by " (proved) }
        }
        @if with_pools { @for pool in &change.pools { " of " a href=(pool_path(pool)) { (pool) } } }
        @if change.owner != Owner::default() { ", " (owner(&change.owner, who)) }
        @if let Some(how) = &change.how { ", " (how.replace('_', " ")) }
        @if let Some(waited) = &change.waited { ", waited " (waited) }
        @if let Some(held) = &change.held { ", held " (held) }
        @if let Some(claim) = &change.claim { ". " a href=(claim_path(claim)) { "Claim" } }
        @if let Some(reason) = &change.reason { span.reason { " – " (reason) } }
    }
}

/// The API's word for what happened.
fn kind_of(change: &ChangeView) -> String {
    match serde_json::to_value(change.kind) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
