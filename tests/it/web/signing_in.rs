//! Signing in on the web page: with a password, for a while, from one's own pages only, and without a trace of it.

use std::io::{BufRead as _, Read as _};

use super::*;
use crate::support::http::{Answer, Client, request};

/// A server with a password, and one pool.
fn guarded() -> Server {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "s3cret ü")]);
    assert_eq!(asked(&server, "PUT", "/api/v1/pools/staging/locks/eu", &[BASIC], "").status, 200);
    server
}

/// `ci:s3cret ü`.
const BASIC: &str = "authorization: Basic Y2k6czNjcmV0IMO8";
const WRONG: &str = "authorization: Basic Y2k6d3Jvbmc=";
const JSON: &str = "content-type: application/json";

fn asked(server: &Server, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let headers = headers.iter().flat_map(|line| [*line, "\r\n"]).collect::<String>();
    let mut client = Client::new(server.address());
    client.send(request(method, path, &headers, body).replace("application/x-www-form-urlencoded", "application/json"));
    client.read()
}

/// The cookie of a new session, as a header.
fn cookie(server: &Server) -> String {
    let signed = asked(server, "POST", "/api/v1/session", &[BASIC], "");
    assert_eq!((signed.status, signed.json()["identity"].as_str()), (200, Some("user:ci")));
    let set = signed.header("set-cookie").unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict") && set.contains("; Max-Age=43200"), "{set}");
    format!("cookie: {}", set.split(';').next().unwrap())
}

/// The page token in the page of this session, as a header.
fn token(server: &Server, cookie: &str) -> String {
    let page = asked(server, "GET", "/", &[cookie, "accept: text/html"], "");
    let (_, rest) = page.text().split_once("<meta name=\"page-token\" content=\"").unwrap();
    format!("x-locker-page: {}", rest.split('"').next().unwrap())
}

#[test]
fn a_person_signs_in_acts_and_signs_out() {
    let (server, browser) = (guarded(), Browser::start());
    let sign_in = |password: &str| {
        let fill = "const form = document.getElementById('sign-in'); form.username.value = 'ci'; \
                    form.password.value = arguments[0]; form.querySelector('button').click()";
        browser.run(fill, &[password]);
    };
    browser.open(&page(&server, "/pools/staging"));
    browser.sees("Sign in");
    assert_eq!(browser.complaints(), [""; 0], "nothing went wrong yet");
    sign_in("wrong");
    browser.sees("the server refused user \"ci\"");
    assert_eq!(browser.complaints().len(), 1, "the refusal");
    sign_in("s3cret ü");
    browser.sees("user:ci");
    browser.sees("live");
    let place = browser.run("return location.pathname", &[]);
    assert_eq!(place, json!("/pools/staging"), "where it wanted to go");
    acting::act(&browser, "Quarantine", "eu", &[]);
    acting::is_done(&browser);
    browser.sees("quarantined");
    assert_eq!(browser.run("return document.cookie", &[]), json!(""), "no script can read the cookie");
    assert_eq!(browser.complaints(), [""; 0]);
    browser.run("document.getElementById('sign-out').click()", &[]);
    browser.sees("Sign in");
    browser.open(&page(&server, "/"));
    browser.sees("Sign in");
    // Only pages of this server are a place to go on to.
    for (next, path) in [("//evil.example/", "/"), ("https://evil.example/", "/"), ("javascript:alert(1)", "/")] {
        browser.open(&page(&server, &format!("/login?next={next}")));
        browser.sees("Sign in");
        sign_in("s3cret ü");
        browser.sees("live");
        assert_eq!(browser.run("return location.pathname", &[]), json!(path), "{next}");
        browser.run("document.getElementById('sign-out').click()", &[]);
        browser.sees("Username");
    }
    // The path of this page of the server would be the address of another server.
    browser.open(&page(&server, "/login?next=/x/..//evil.example/"));
    sign_in("s3cret ü");
    browser.sees("nothing is served");
    assert_eq!(browser.run("return location.origin", &[]), json!(page(&server, "")));
    // Neither the password nor the cookie is in the log.
    let log = server.log();
    assert!(!log.contains("s3cret") && !log.contains("locker_session") && log.contains("/api/v1/session"), "{log}");
}

#[test]
fn a_page_leads_to_the_form_and_comes_back_when_the_session_ends() {
    let server = guarded();
    let html = "accept: text/html,application/xhtml+xml";
    let led = asked(&server, "GET", "/pools/staging", &[html], "");
    assert_eq!((led.status, led.header("location").unwrap()), (303, "/login?next=%2Fpools%2Fstaging"));
    let form = asked(&server, "GET", "/login?next=/pools/staging", &[html], "");
    assert_eq!(form.status, 200);
    let policy = form.header("content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    // Programs are told, and browsers do not ask for a password in a window of their own.
    assert!(asked(&server, "GET", "/", &[], "").header("www-authenticate").unwrap().starts_with("Basic "));
    let of_page = asked(&server, "GET", "/api/v1/events", &["accept: text/event-stream"], "");
    assert_eq!((of_page.status, of_page.header("www-authenticate")), (401, Some("Cookie realm=\"locker\"")));
    // A server without a password has no form.
    let open = Server::start();
    assert_eq!(asked(&open, "GET", "/login", &[html], "").header("location"), Some("/"));
    assert_eq!(asked(&open, "POST", "/api/v1/session", &[], "").status, 422);
    assert_eq!(asked(&open, "GET", "/api/v1/session", &[], "").json(), json!({}));
}

#[test]
fn a_session_changes_nothing_without_the_token_of_its_page() {
    let server = guarded();
    let cookie = cookie(&server);
    let token = token(&server, &cookie);
    let quarantine = json!({ "by": { "owner": { "person": "ada" }, "reason": "test" } }).to_string();
    let path = "/api/v1/pools/staging/locks/eu/quarantine";
    let change = |headers: &[&str]| asked(&server, "POST", path, &[headers, &[JSON]].concat(), &quarantine).status;
    assert_eq!(change(&[&cookie]), 403);
    assert_eq!(change(&[&cookie, "x-locker-page: 00"]), 403);
    assert_eq!(change(&[&token]), 401);
    assert_eq!(change(&[&cookie, &token, "origin: https://evil.example"]), 403);
    let other = self::cookie(&server);
    assert_eq!(change(&[&other, &token]), 403, "the token of another session");
    assert_eq!(change(&[&cookie, &token]), 200);
    // Reading needs no token, and credentials of another kind go on working.
    assert_eq!(asked(&server, "GET", "/api/v1/pools", &[&cookie], "").status, 200);
    assert_eq!(change(&[BASIC]), 200);
    assert_eq!(asked(&server, "GET", "/api/v1/session", &[&cookie], "").json()["identity"], "user:ci");

    // A session cannot prolong itself, and it ends when it is told to.
    let again = asked(&server, "POST", "/api/v1/session", &[&cookie, &token], "");
    assert_eq!((again.status, again.header("set-cookie")), (200, None));
    let ended = asked(&server, "DELETE", "/api/v1/session", &[&cookie, &token], "");
    assert!(ended.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(asked(&server, "GET", "/api/v1/pools", &[&cookie], "").status, 401);
    assert_eq!(asked(&server, "GET", "/api/v1/pools", &[&other], "").status, 200, "others stay");
    assert_eq!(asked(&server, "GET", "/api/v1/session", &[&cookie], "").json(), json!({}));
}

#[test]
fn guesses_on_the_form_are_bounded_like_any_others() {
    let server = guarded();
    let guess = |headers: &[&str]| asked(&server, "POST", "/api/v1/session", headers, "");
    let refused = std::iter::repeat_with(|| guess(&[WRONG]).status).take(30).find(|status| *status == 429);
    assert_eq!(refused, Some(429));
    assert_eq!(guess(&[WRONG, "accept: text/html"]).status, 429, "no other way to guess");
    assert_eq!(guess(&[BASIC]).status, 200, "this address has shown the password before");
    server.until_log("failed login");
}

/// Events that a session follows end when it is signed out, at once. Others go on.
#[test]
fn events_end_with_the_session() {
    let server = guarded();
    let (cookie, other) = (cookie(&server), cookie(&server));
    let follow = |headers: &str| {
        let mut client = Client::new(server.address());
        client.send(request("GET", "/api/v1/events", headers, ""));
        let mut line = String::new();
        while !line.starts_with("event: now") {
            line.clear();
            assert_ne!(client.reader.read_line(&mut line).unwrap(), 0, "the events begin");
        }
        client
    };
    let [mut ends, mut goes_on, mut by_password] =
        [format!("{cookie}\r\n"), format!("{other}\r\n"), format!("{cookie}\r\n{BASIC}\r\n")]
            .map(|headers| follow(&headers));
    let gauge = |name: &str| {
        let text = asked(&server, "GET", "/metrics", &[BASIC], "").text().to_owned();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap().to_owned()
    };
    assert_eq!((gauge("locker_event_followers"), gauge("locker_sessions")), ("3".to_owned(), "2".to_owned()));
    let token = token(&server, &cookie);
    assert_eq!(asked(&server, "DELETE", "/api/v1/session", &[&cookie, &token], "").status, 200);
    let mut rest = String::new();
    ends.reader.read_to_string(&mut rest).unwrap();
    assert_eq!(asked(&server, "PUT", "/api/v1/claims/later", &[BASIC, JSON], r#"{"pool":"later"}"#).status, 200);
    for follower in [&mut goes_on, &mut by_password] {
        let mut line = String::new();
        while !line.contains("later") {
            line.clear();
            assert_ne!(follower.reader.read_line(&mut line).unwrap(), 0, "the events go on");
        }
    }
    assert_eq!((gauge("locker_event_followers"), gauge("locker_sessions")), ("2".to_owned(), "1".to_owned()));
}
