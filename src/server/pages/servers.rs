//! The servers that share a store: who leads, and how far the others are behind. And the page while nobody leads.

use maud::{DOCTYPE, Markup, html};

use super::super::http::Response;
use super::frame::head;
use crate::wire::api::{LeaderView, LogView, ServerView};

/// What the page of all pools says of servers that share a store.
#[derive(Debug)]
pub struct Servers {
    pub leader: Option<LeaderView>,
    pub all: Vec<ServerView>,
    pub log: LogView,
}

/// The part of a page about servers.
pub(super) fn servers(servers: &Servers) -> Markup {
    html! {
        h2 { "Servers" }
        @match &servers.leader {
            Some(LeaderView { name, term }) => p.leader { strong { (name) } " leads (term " (term) ")." },
            None => p.warn { "Nobody leads at the moment, so nothing is granted." },
        }
        @if servers.all.len() == 1 { p.warn { "It is the only server: nobody takes over if it ends." } }
        @if servers.log.database_full { p.warn { "The database is full: nothing is granted until somebody makes room." } }
        @if servers.log.async_standbys > 0 {
            p.warn {
                "No standby of the database is synchronous. If one becomes the primary, what had not reached it is lost: claims "
                "and releases of the last moments, though they were acknowledged."
            }
        }
        div.scroll tabindex="0" role="region" aria-label="Servers" {
            table {
                thead { tr { th scope="col" { "Server" } th scope="col" { "Release" } th scope="col" { "Behind" } } }
                tbody { @for server in &servers.all { (line(server)) } }
            }
        }
        (log(&servers.log))
    }
}

/// How long the log is, and how much room its database has.
fn log(log: &LogView) -> Markup {
    let LogView { last_record, records, bytes, database_bytes, database_used, database_quota, .. } = log;
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1024 * 1024));
    html! {
        p {
            "The log ends with record " (last_record) "."
            @if let Some(records) = records { " Its snapshot lacks " (records) " of them" @if let Some(bytes) = bytes { " (" (mib(*bytes)) ")" } "." }
            @if let Some(size) = database_bytes { " The database has " (mib(*size)) }
            @if let Some(used) = database_used { ", of which " (mib(*used)) " are in use" }
            @if let Some(quota) = database_quota { "; it takes " (mib(*quota)) " at most" }
            @if database_bytes.is_some() { "." }
        }
    }
}

fn line(server: &ServerView) -> Markup {
    let ServerView { name, version, leads, lag_records, lag } = server;
    html! {
        tr {
            th scope="row" { (name) }
            td { (version) }
            @if *leads { td { "leads" } } @else if let Some(lag) = lag { td { (lag_records) " records, " (lag) } } @else { td { "everything" } }
        }
    }
}

/// The page while nobody leads. It asks again by itself. `why` is what is known of the reason.
#[must_use]
pub fn nobody_leads(why: Option<&str>) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            (head("Nobody leads", "/assets/locker.js", None))
            body {
                header { nav aria-label="Locker" { a.brand href="/" { "Locker" } } }
                main #main data-problem="no server leads at the moment" {
                    h1 { "No server leads at the moment" }
                    p { "Nothing is granted until one does, usually within seconds. Claims keep their places." }
                    @if let Some(why) = why { p.warn { "The reason: " (why) "." } }
                    p { "If it lasts, the servers' logs say more." }
                }
            }
        }
    };
    let mut response = super::html(503, document);
    response.headers.extend([("refresh", "5".to_owned()), ("retry-after", "1".to_owned())]);
    response
}
