//! `/history`: what happened, by filter, the newest first.

use maud::{Markup, html};

use super::frame::{Live, Page};
use super::parts::{Moment, change};
use crate::client::http::encode;
use crate::wire::api::{ChangeKind, ChangeView};

/// What the reader has asked for: the names of the filters in the API, with their values as text.
#[derive(Debug, Default)]
pub struct Asked {
    pub filters: Vec<(&'static str, String)>,
}

/// The filters that the form has, in its order: name, label, example.
pub const FILTERS: [(&str, &str, &str); 7] = [
    ("pool", "Pool", "staging, or test-*"),
    ("lock", "Lock", "env-1"),
    ("who", "Who", "team/pipeline/job, or a person"),
    ("kind", "What happened", ""),
    ("since", "Since", "24h, or 2026-11-25T14:00:00Z"),
    ("until", "Until", "1h, or a time"),
    ("claim", "Claim", "its id"),
];

impl Asked {
    fn value(&self, name: &str) -> &str {
        self.filters.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// The address of the page with the same filters, continued after this revision.
    fn after(&self, next: &str) -> String {
        let filters = self.filters.iter().map(|(name, value)| format!("{name}={}&", encode(value)));
        format!("/history?{}after={}", filters.collect::<String>(), encode(next))
    }
}

/// The page of entries, or of what is wrong with the filters.
#[must_use]
pub fn history(moment: Moment, asked: &Asked, found: Result<(&[ChangeView], Option<&str>), &str>) -> Page {
    let main = html! {
        h1 { "History" }
        (form(asked))
        @match found {
            Err(problem) => p.warn role="alert" { (problem) },
            Ok(([], None)) => p { "Nothing of this kind is in the history." },
            Ok((entries, next)) => {
                ul.changes { @for entry in entries { li { (change(entry, moment, true)) } } }
                @if entries.is_empty() { p { "Nothing of this kind is in the newest part of the history." } }
                @if let Some(next) = next { p { a href=(asked.after(next)) rel="next" { "Older entries" } } }
            }
        }
    };
    Page { title: "History".to_owned(), main, live: Live::No }
}

fn form(asked: &Asked) -> Markup {
    html! {
        form.filters action="/history" role="search" {
            @for (name, label, example) in FILTERS {
                label {
                    (label)
                    @if name == "kind" {
                        select name=(name) {
                            option value="" { "(anything)" }
                            @for kind in ChangeKind::ALL {
                                option value=(kind.word()) selected[kind.word() == asked.value(name)] {
                                    (kind.word().replace('_', " "))
                                }
                            }
                        }
                    } @else {
                        input name=(name) value=(asked.value(name)) placeholder=(example) autocomplete="off";
                    }
                }
            }
            div.row { button.primary type="submit" { "Show" } a href="/history" { "Everything" } }
        }
    }
}
