//! What is around each page: its head, the links between pages, who is signed in, and the dialog for actions.

use maud::{DOCTYPE, Markup, html};

use super::parts::Moment;

/// A page, without what is around it.
#[derive(Debug)]
pub struct Page {
    pub title: String,
    pub main: Markup,
    pub live: Live,
}

/// Which events make a page fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Those of all pools.
    All,
    /// Those of this pool.
    Pool(String),
    /// None: the page shows what was found when it was asked for.
    No,
}

impl Live {
    fn pool(&self) -> Option<&str> {
        match self {
            Self::Pool(pool) => Some(pool),
            Self::All | Self::No => None,
        }
    }
}

/// Who looks at a page.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    /// The identity that this person has proven.
    pub identity: Option<String>,
    /// The page token of the session. `None` for who has not signed in, but proves who it is with each request, or need
    /// not prove anything.
    pub token: Option<String>,
}

/// What the links at the top of each page lead to.
const LINKS: [(&str, &str); 3] = [("/", "Pools"), ("/history", "History"), ("/figures", "Figures")];

/// A whole document.
pub(super) fn frame(moment: Moment, visitor: &Visitor, page: &Page) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&page.title, "/assets/locker.js", visitor.token.as_deref()))
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    nav aria-label="Locker" {
                        a.brand href="/" { "Locker" }
                        @for (path, name) in LINKS { a href=(path) { (name) } }
                    }
                    div.visitor {
                        span #live role="status" {}
                        @if let Some(identity) = &visitor.identity { span.identity { (identity) } }
                        @if visitor.token.is_some() { button #sign-out type="button" { "Sign out" } }
                    }
                }
                main #main data-revision=(moment.revision.0) data-live=(page.live != Live::No) data-pool=[page.live.pool()] {
                    (page.main)
                }
                (dialog())
            }
        }
    }
}

/// The head of a document.
pub(super) fn head(title: &str, script: &str, token: Option<&str>) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            @if let Some(token) = token { meta name="page-token" content=(token); }
            title { (title) " · Locker" }
            link rel="icon" href="/assets/locker.svg" type="image/svg+xml";
            link rel="stylesheet" href="/assets/locker.css";
            script src=(script) defer {}
        }
    }
}

/// The dialog that asks who acts and why, and says what will happen.
fn dialog() -> Markup {
    html! {
        dialog #ask aria-labelledby="ask-title" aria-describedby="ask-text" {
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

/// The page that says that there is no such thing.
#[must_use]
pub fn missing(what: &str) -> Page {
    let main = html! { h1 { "Not found" } p { (what) } p { a href="/" { "All pools" } } };
    Page { title: "Not found".to_owned(), main, live: Live::All }
}
