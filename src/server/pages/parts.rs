//! What the pages share.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};
use serde_json::{Value, json};

use crate::client::http::encode as segment;
use crate::client::{when, who};
use crate::core::names::Revision;
use crate::core::time::WallMs;
use crate::wire::api::{BuildEndedView, HolderView, Owner, SuspectView};

/// The moment that a page shows.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: WallMs,
    /// The script asks for what has changed since.
    pub revision: Revision,
}

/// A whole page.
pub(super) fn frame(moment: Moment, title: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Locker" }
                link rel="icon" href="/assets/locker.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/locker.css";
                script src="/assets/locker.js" defer {}
            }
            body {
                header { a href="/" { "Locker" } span #live role="status" {} }
                main data-revision=(moment.revision.0) { (main) }
                dialog #ask aria-labelledby="ask-title" {
                    form method="dialog" {
                        h2 #ask-title {}
                        p #ask-text {}
                        div #ask-fields {}
                        p #ask-error role="alert" {}
                        div.row {
                            button type="button" #ask-cancel { "Cancel" }
                            button type="submit" #ask-do.primary {}
                        }
                    }
                }
            }
        }
    }
}

/// The page that says that there is no such thing.
#[must_use]
pub fn missing(moment: Moment, what: &str) -> Markup {
    frame(moment, "Not found", &html! { h1 { "Not found" } p { (what) } p { a href="/" { "All pools" } } })
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

/// Something that a person may do, as the script needs it. The server decides whether it is allowed.
pub(super) struct Action<'a> {
    /// What the button says.
    pub name: &'a str,
    pub method: &'a str,
    /// Below `/api/v1`, encoded.
    pub path: String,
    /// What will happen, in one or two sentences.
    pub text: String,
    /// How the call carries who acts and why.
    pub by: By,
    /// More of the body.
    pub body: Value,
}

/// How a call carries who acts and why.
#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    /// As `by` in the body.
    Body,
    /// As `by` and `reason` in the query.
    Query,
    /// As the owner of a new claim, with `reason` beside it.
    Owner,
}

impl<'a> Action<'a> {
    /// An action whose call says in its body who acts and why, and nothing else.
    pub fn new(name: &'a str, method: &'a str, path: String, text: String) -> Self {
        Self { name, method, path, text, by: By::Body, body: json!({}) }
    }

    /// The button.
    pub fn button(&self) -> Markup {
        let by = match self.by {
            By::Body => "body",
            By::Query => "query",
            By::Owner => "owner",
        };
        let call = json!({ "method": self.method, "path": self.path, "by": by, "body": self.body, "text": self.text });
        html! { button type="button" data-action=(call) { (self.name) } }
    }
}
