//! `/login`: the form to sign in.

use maud::{DOCTYPE, html};

use super::super::http::Response;
use super::frame::head;

/// The form. `had_session`: the reader was signed in before. Its script sends the password, and then goes where the reader wanted to go.
#[must_use]
pub fn sign_in(had_session: bool) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            (head("Sign in", "/assets/sign-in.js", None))
            body {
                header { nav aria-label="Locker" { a.brand href="/" { "Locker" } } }
                main #main {
                    h1 { "Sign in" }
                    @if had_session {
                        p.warn { "Your session has ended: its time is over, the server was started again, or another server "
                            "leads now. Sign in again to go on." }
                    }
                    p.reason { "This server asks who you are. Use its username and password." }
                    noscript { p.warn { "Signing in needs JavaScript." } }
                    form #sign-in method="post" {
                        label { "Username " input name="username" autocomplete="username" required; }
                        label { "Password " input name="password" type="password" autocomplete="current-password" required; }
                        p #problem.warn role="alert" {}
                        button.primary type="submit" { "Sign in" }
                    }
                }
            }
        }
    };
    super::html(200, document)
}
