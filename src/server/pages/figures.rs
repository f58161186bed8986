//! `/figures`: waits, holds and use by pool and by team.
//!
//! Each figure is a row of a table, which any reader can read, with a bar beside the numbers.

use std::cmp::Reverse;
use std::time::Duration;

use maud::{Markup, html};

use super::frame::{Live, Page};
use super::parts::{Moment, pool_path, time};
use super::plot::{Scale, share_bar, spread_bar};
use crate::client::http::encode;
use crate::client::when;
use crate::core::figures::{Figures, Group, Spread};
use crate::core::time::Span;
use crate::server::limits::GROUPS_SHOWN;

/// Over which span there are figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Over {
    Day,
    Week,
    Quarter,
}

impl Over {
    const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Quarter];

    /// Its word in the address.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Quarter => "90-days",
        }
    }

    /// The span with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|over| over.word() == word)
    }

    #[must_use]
    pub fn span(self) -> Span {
        match self {
            Self::Day => Span::hours(24),
            Self::Week => Span::hours(7 * 24),
            Self::Quarter => Span::hours(90 * 24),
        }
    }
}

/// Most rows of a table: more than a page can show at a glance. The API has all.
const ROWS: usize = 50;

/// What the page shows.
pub struct Shown<'f> {
    pub over: Over,
    /// The pools, as the reader has named them.
    pub pools: &'f str,
    pub figures: &'f Figures,
    /// How many locks each pool has now, by its name.
    pub locks: &'f dyn Fn(&str) -> usize,
    /// When they were counted, and up to when.
    pub counted: (&'f str, &'f str),
    pub complete: bool,
}

/// A row: a name, its link, its figures, and the share of the time that it was in use.
struct Row {
    name: String,
    link: Option<String>,
    group: Group,
    /// Of a pool.
    share: Option<f64>,
}

/// The page of figures.
#[must_use]
pub fn figures(moment: Moment, shown: &Shown<'_>) -> Page {
    let span = shown.over.span();
    let pool = |(name, group): (&crate::core::names::PoolName, &Group)| Row {
        name: name.to_string(),
        link: Some(pool_path(name.as_str())),
        group: *group,
        share: Some(Figures::share(group.in_use, (shown.locks)(name.as_str()), span)),
    };
    let team = |(name, group): (&Option<crate::core::names::Text>, &Group)| Row {
        name: name.as_ref().map_or_else(|| "no team".to_owned(), ToString::to_string),
        link: None,
        group: *group,
        share: None,
    };
    let pools: Vec<Row> = shown.figures.pools.iter().map(pool).collect();
    let teams: Vec<Row> = shown.figures.teams.iter().map(team).collect();
    let main = html! {
        h1 { "Figures" }
        (choice(shown))
        p.sums {
            (shown.figures.entries) " entries of the history, counted at " (time(shown.counted.0, moment)) "."
            @if !shown.complete { " There are more: only those until " (time(shown.counted.1, moment)) " were counted." }
        }
        @if pools.is_empty() { p { "Nothing happened." } } @else {
            (spreads("Waits by pool", "wait", &pools, |group| group.waits))
            (spreads("Holds by pool", "hold", &pools, |group| group.holds))
            (use_of(&pools))
            (spreads("Waits by team", "wait", &teams, |group| group.waits))
            (spreads("Holds by team", "hold", &teams, |group| group.holds))
        }
    };
    Page { title: "Figures".to_owned(), main, live: Live::No }
}

/// The links to the other spans, and the form for the pools.
fn choice(shown: &Shown<'_>) -> Markup {
    let link = |over: Over| format!("/figures?over={}&pool={}", over.word(), encode(shown.pools));
    html! {
        nav.row aria-label="Span" {
            @for over in Over::ALL {
                a href=(link(over)) aria-current=[(over == shown.over).then_some("page")] {
                    @match over { Over::Day => "A day", Over::Week => "A week", Over::Quarter => "90 days" }
                }
            }
        }
        form.filters action="/figures" role="search" {
            input type="hidden" name="over" value=(shown.over.word());
            label { "Pools " input name="pool" value=(shown.pools) placeholder="staging, or test-*" autocomplete="off"; }
            div.row { button.primary type="submit" { "Show" } }
        }
    }
}

/// One table of waits or holds, the longest first.
fn spreads(title: &str, what: &str, rows: &[Row], of: fn(&Group) -> Spread) -> Markup {
    let mut rows: Vec<(&Row, Spread)> = rows.iter().map(|row| (row, of(&row.group))).collect();
    rows.retain(|(_, spread)| spread.count > 0);
    rows.sort_by_key(|(_, spread)| Reverse((spread.p95, spread.longest)));
    let scale = Scale::up_to(rows.iter().map(|(_, spread)| spread.longest).max().unwrap_or_default());
    let id = title.replace(' ', "-").to_lowercase();
    html! {
        section aria-labelledby=(id) {
            h2 #(id) { (title) }
            @if rows.is_empty() { p { "There was no " (what) "." } } @else {
                (table(&id, ["Number", "Half within", "95 % within", "Longest"], &scale.axis(), &rows, |spread| html! {
                    td.number { (spread.count) }
                    @for span in [spread.p50, spread.p95, spread.longest] { td.number { (lasted(span)) } }
                    td.plot aria-hidden="true" { (spread_bar(&scale, *spread)) }
                }))
            }
        }
    }
}

/// How much of the time the locks of each pool were in use, the busiest first.
fn use_of(rows: &[Row]) -> Markup {
    let mut rows: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.share?))).collect();
    rows.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let rows: Vec<(&Row, (f64, &Group))> = rows.into_iter().map(|(row, share)| (row, (share, &row.group))).collect();
    html! {
        section aria-labelledby="use-by-pool" {
            h2 #use-by-pool { "Use by pool" }
            (table("use-by-pool", ["In use", "Lost", "Broken", "In vain"], &html! { "0 to 100 %" }, &rows, |(share, group)| html! {
                td.number { (format!("{:.1} %", share * 100.0)) }
                @for count in [group.lost, group.broken, group.in_vain] { td.number { (count) } }
                td.plot aria-hidden="true" { (share_bar(*share)) }
            }))
        }
    }
}

/// The table under the heading with this id: a name, numbers, and a plot with its axis in each row.
fn table<T>(id: &str, numbers: [&str; 4], axis: &Markup, rows: &[(&Row, T)], cells: impl Fn(&T) -> Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-labelledby=(id) {
            table {
                thead { tr {
                    th scope="col" { "Name" }
                    @for name in numbers { th.number scope="col" { (name) } }
                    th.plot scope="col" aria-hidden="true" { (axis) }
                } }
                tbody {
                    @for (row, shown) in rows.iter().take(ROWS) { tr { (head_of(row)) (cells(shown)) } }
                }
            }
        }
        (more(rows.len()))
    }
}

fn head_of(row: &Row) -> Markup {
    html! {
        th scope="row" {
            @match &row.link { Some(link) => a href=(link) { (row.name) }, None => (row.name) }
        }
    }
}

fn more(rows: usize) -> Markup {
    html! {
        @if rows > ROWS {
            p {
                (rows - ROWS) " more are not shown here. " code { "locker stats" } " lists those that were used most, up to "
                (GROUPS_SHOWN) "."
            }
        }
    }
}

fn lasted(span: Span) -> String {
    when::span(Duration::from_millis(span.0))
}
