//! `/`: all pools.

use maud::{Markup, html};

use super::parts::{Moment, frame, lasting, pool_path};

/// What a row says of a pool.
#[derive(Debug, Default)]
pub struct PoolRow {
    pub pool: String,
    pub locks: usize,
    pub free: usize,
    pub held: usize,
    pub quarantined: usize,
    pub waiting: usize,
    pub suspect: usize,
    /// When the longest wait and the longest hold began, as in the API.
    pub oldest_wait: Option<String>,
    pub oldest_hold: Option<String>,
}

/// The page of all pools. `more` pools are not shown.
#[must_use]
pub fn overview(moment: Moment, rows: &[PoolRow], more: usize) -> Markup {
    let sum = |of: fn(&PoolRow) -> usize| rows.iter().map(of).sum::<usize>();
    let main = html! {
        h1 { "Pools" }
        p.sums {
            (sum(|row| row.locks)) " locks: " (sum(|row| row.free)) " free, " (sum(|row| row.held)) " held. "
            (sum(|row| row.waiting)) " waiting."
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
                            @for name in ["Free", "Held", "Waiting", "Longest wait", "Longest hold", "Out of service"] {
                                th.number scope="col" { (name) }
                            }
                        }
                    }
                    tbody { @for row in rows { (line(row, moment)) } }
                }
            }
        }
        @if more > 0 { p { (more) " more pools are not shown here." } }
    };
    frame(moment, "Pools", &main)
}

fn line(row: &PoolRow, moment: Moment) -> Markup {
    let number = |value: usize| html! { td.number data-value=(value) { (value) } };
    html! {
        tr data-name=(row.pool) {
            th scope="row" data-value=(row.pool) {
                a href=(pool_path(&row.pool)) { (row.pool) }
                @if row.suspect > 0 { " " span.badge.warn { (row.suspect) " suspect" } }
            }
            td.number data-value=(row.free) { (row.free) " of " (row.locks) }
            (number(row.held))
            (number(row.waiting))
            (lasting(row.oldest_wait.as_deref(), moment))
            (lasting(row.oldest_hold.as_deref(), moment))
            (number(row.quarantined))
        }
    }
}
