//! `/`: all pools.

use maud::{Markup, html};

use super::frame::{Live, Page};
use super::parts::{Moment, lasting, pool_path};
use super::servers::{Servers, servers};
use crate::wire::api::PoolSummary;

/// What a row says of a pool.
#[derive(Debug)]
pub struct PoolRow {
    pub summary: PoolSummary,
    /// Locks that somebody has.
    pub held: usize,
}

/// The page of all pools. `more` pools are not shown. `shared`: the servers, if several share the store.
#[must_use]
pub fn overview(moment: Moment, rows: &[PoolRow], more: usize, shared: Option<&Servers>) -> Page {
    let sum = |of: fn(&PoolRow) -> usize| rows.iter().map(of).sum::<usize>();
    let main = html! {
        h1 { "Pools" }
        p.sums {
            (sum(|row| row.summary.locks)) " locks: " (sum(|row| row.summary.free)) " free, " (sum(|row| row.held)) " held. "
            (sum(|row| row.summary.waiting)) " waiting."
        }
        label.search { "Search " input #search type="search" autocomplete="off"; }
        @if rows.is_empty() {
            p { "There are no pools yet. A claim or " code { "locker pool set NAME" } " makes one." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="All pools" {
                table.sortable {
                    thead {
                        tr {
                            th scope="col" { "Pool" }
                            @for name in ["Free", "Held", "Waiting", "Longest wait", "Longest hold", "Suspect", "Quarantined"] {
                                th.number scope="col" { (name) }
                            }
                        }
                    }
                    tbody { @for row in rows { (line(row, moment)) } }
                }
            }
        }
        @if more > 0 { p { (more) " more pools are not shown here." } }
        @if let Some(shared) = shared { (servers(shared)) }
    };
    Page { title: "Pools".to_owned(), main, live: Live::All }
}

fn line(row: &PoolRow, moment: Moment) -> Markup {
    let PoolRow { summary: pool, held } = row;
    let number = |value: usize| html! { td.number data-value=(value) { (value) } };
    html! {
        tr data-name=(pool.pool) {
            th scope="row" data-value=(pool.pool) {
                a href=(pool_path(&pool.pool)) { (pool.pool) }
            }
            td.number data-value=(pool.free) { (pool.free) " of " (pool.locks) }
            (number(*held))
            (number(pool.waiting))
            (lasting(pool.oldest_wait.as_deref(), moment))
            (lasting(pool.oldest_hold.as_deref(), moment))
            (number(pool.suspect))
            (number(pool.quarantined))
        }
    }
}
