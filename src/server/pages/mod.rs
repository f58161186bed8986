//! The web page: what the API says, for people (`docs/web.md`).
//!
//! The pages are made here, from one published snapshot each, and read well without a script. The script
//! (`locker.js`) keeps them fresh and lets people act; all that it does goes through the API, under the API's rules.
//! Nothing is loaded from anywhere else, which the content security policy of each page enforces.
//!
//! - `overview`: all pools. `pool`: one pool. `claim`: one claim. `history`: what happened. `figures`: waits, holds and
//!   use. `sign_in`: the form for those who must prove who they are.
//! - `servers`: the servers that share a store, and the page while none of them leads.
//! - `frame`: what is around each page. `parts`: what they share: times, owners, links. `plot`: bars.
//! - `feed`: the badge and the feed of a pool.
//! - `action`: what people may do; `pool_actions`: with a pool, its locks and its waiters.

mod action;
mod claim;
mod feed;
mod figures;
mod frame;
mod history;
mod overview;
mod parts;
mod plot;
mod pool;
mod pool_actions;
mod servers;
mod sign_in;

pub use self::action::May;
pub use self::claim::claim;
pub use self::feed::{badge, feed};
pub use self::figures::{Over, Shown, figures};
pub use self::frame::{Page, Visitor, missing};
pub use self::history::{Asked, FILTERS, history};
pub use self::overview::{PoolRow, overview};
pub use self::parts::Moment;
pub use self::pool::pool;
pub use self::servers::{Servers, nobody_leads};
pub use self::sign_in::sign_in;

use maud::Markup;

use super::http::Response;

/// Only our own files, nothing inline, no frames around it, and forms only to us.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const STYLE: &str = include_str!("locker.css");
const ICON: &str = include_str!("locker.svg");
const SCRIPT: &str = include_str!("locker.js");
const SIGN_IN_SCRIPT: &str = include_str!("sign-in.js");

/// The answer with a page.
#[must_use]
pub fn page(status: u16, moment: Moment, visitor: &Visitor, page: &Page) -> Response {
    html(status, frame::frame(moment, visitor, page))
}

/// The answer with a whole document.
fn html(status: u16, markup: Markup) -> Response {
    file(status, "text/html; charset=utf-8", "no-store", markup.0)
}

/// The style of all pages.
#[must_use]
pub fn style() -> Response {
    file(200, "text/css; charset=utf-8", "no-cache", STYLE.to_owned())
}

/// The icon of all pages.
#[must_use]
pub fn icon() -> Response {
    file(200, "image/svg+xml", "max-age=86400", ICON.to_owned())
}

/// The script of all pages.
#[must_use]
pub fn script() -> Response {
    file(200, "text/javascript; charset=utf-8", "no-cache", SCRIPT.to_owned())
}

/// The script of the form to sign in.
#[must_use]
pub fn sign_in_script() -> Response {
    file(200, "text/javascript; charset=utf-8", "no-cache", SIGN_IN_SCRIPT.to_owned())
}

fn file(status: u16, content_type: &str, caching: &str, body: String) -> Response {
    let headers = [
        ("content-type", content_type),
        ("cache-control", caching),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).into();
    Response { headers, ..Response::new(status, body.into_bytes()) }
}
