//! The API of the original locker.

use super::table::run;
use crate::support::{Server, eventually};

#[test]
fn first_generation() {
    let server = Server::start();
    run(
        &server,
        r#"
        # A pool is a mutex, also against its own holder; the first PUT makes it.
        GET    /locks     |                            | 200 = {}
        PUT    /lock/prod | {"lock":"prod-cf"}         | 200 response
        GET    /locks     |                            | 200 = {"prod":{"key":"prod-cf","locked_by":{"prod-cf":1}}}
        PUT    /lock/prod | {"lock":"prod-cf"}         | 423 "code":"locked" prod-cf
        PUT    /lock/prod | {"lock":"other"}           | 423 locked~by
        GET    /locks     |                            | 200 = {"prod":{"key":"prod-cf","locked_by":{"prod-cf":1}}}
        DELETE /lock/prod | {"lock":"other"}           | 423 "code":"locked"
        GET    /locks     |                            | 200 = {"prod":{"key":"prod-cf","locked_by":{"prod-cf":1}}}
        DELETE /lock/prod | {"lock":"prod-cf"}         | 200 response
        GET    /locks     |                            | 200 = {"prod":{"key":"","locked_by":{}}}
        DELETE /lock/prod | {"lock":"prod-cf"}         | 200 response
        DELETE /lock/prod | {"lock":"anybody"}         | 200 response
        DELETE /lock/never-seen | {"lock":"anybody"}   | 200 response
        GET    /locks     |                            | 200 = {"prod":{"key":"","locked_by":{}}}
        PUT    /lock/prod | {"lock":"other"}           | 200 response
        "#,
    );
}

#[test]
fn second_generation() {
    let server = Server::start();
    run(
        &server,
        r#"
        # One key, many requestors, each any number of times.
        PUT    /lock/prod | {"key":"k","requestor":"a"}  | 200 response
        PUT    /lock/prod | {"key":"k","requestor":"a"}  | 200 response
        PUT    /lock/prod | {"key":"k","lock_by":"b"}    | 200 response
        PUT    /lock/prod | {"key":"k","locked_by":"c"}  | 200 response
        PUT    /lock/prod | {"key":"k"}                  | 200 response
        GET    /locks     |                              | 200 = {"prod":{"key":"k","locked_by":{"a":2,"b":1,"c":1,"k":1}}}
        PUT    /lock/prod | {"key":"other","requestor":"a"} | 423 "code":"locked" key~\"k\"
        # DELETE removes all counts of one requestor.
        DELETE /lock/prod | {"key":"k","requestor":"a"}  | 200 response
        GET    /locks     |                              | 200 = {"prod":{"key":"k","locked_by":{"b":1,"c":1,"k":1}}}
        DELETE /lock/prod | {"key":"k","requestor":"a"}  | 200 response
        DELETE /lock/prod | {"key":"other","requestor":"b"} | 423 "code":"locked"
        GET    /locks     |                              | 200 = {"prod":{"key":"k","locked_by":{"b":1,"c":1,"k":1}}}
        DELETE /lock/prod | {"key":"k","lock_by":"b"}    | 200 response
        DELETE /lock/prod | {"key":"k"}                  | 200 response
        PUT    /lock/prod | {"key":"other"}              | 423 locked
        # Free when the last requestor has gone.
        DELETE /lock/prod | {"key":"k","locked_by":"c"}  | 200 response
        GET    /locks     |                              | 200 = {"prod":{"key":"","locked_by":{}}}
        DELETE /lock/prod | {"key":"any","requestor":"x"} | 200 response
        PUT    /lock/prod | {"key":"other"}              | 200 response
        "#,
    );
}

#[test]
fn generations_do_not_mix() {
    let server = Server::start();
    run(
        &server,
        r#"
        PUT    /lock/a | {"lock":"x"}                | 200
        PUT    /lock/a | {"key":"x","requestor":"x"} | 423 locked
        DELETE /lock/a | {"key":"x","requestor":"x"} | 423 {\"lock\":
        PUT    /lock/b | {"key":"x"}                 | 200
        PUT    /lock/b | {"lock":"x"}                | 423 locked
        DELETE /lock/b | {"lock":"x"}                | 423 locked
        GET    /locks  |                             | 200 = {"a":{"key":"x","locked_by":{"x":1}},"b":{"key":"x","locked_by":{"x":1}}}
        "#,
    );
}

#[test]
fn bad_requests_are_json_and_change_nothing() {
    let server = Server::start();
    let long = "x".repeat(129);
    run(
        &server,
        &format!(
            r#"
        PUT    /lock/p      |                        | 400 "code":"bad_request" not~valid~JSON
        PUT    /lock/p      | nonsense               | 400 not~valid~JSON
        PUT    /lock/p      | {{"lock":"x"           | 400 not~valid~JSON
        PUT    /lock/p      | ["lock"]               | 400 must~be~a~JSON~object
        PUT    /lock/p      | "lock"                 | 400 must~be~a~JSON~object
        PUT    /lock/p      | {{}}                   | 400 no~key
        PUT    /lock/p      | {{"requestor":"x"}}    | 400 no~key
        PUT    /lock/p      | {{"key":""}}           | 400 no~key
        PUT    /lock/p      | {{"key":null}}         | 400 no~key
        PUT    /lock/p      | {{"key":7}}            | 400 must~be~a~string
        PUT    /lock/p      | {{"key":"k","lock_by":[]}} | 400 lock_by
        PUT    /lock/.p     | {{"key":"k"}}          | 400 starts~with~a~dot
        PUT    /lock/a%2F   | {{"key":"k"}}          | 400 '/'
        PUT    /lock/a%00   | {{"key":"k"}}          | 400 U+0000
        PUT    /lock/%ff    | {{"key":"k"}}          | 400 UTF-8
        PUT    /lock/{long} | {{"key":"k"}}          | 400 129~bytes
        PUT    /lock/       | {{"key":"k"}}          | 404 without~a~name
        PUT    /lock/a/b    | {{"key":"k"}}          | 404
        DELETE /lock/p      | nonsense               | 400 not~valid~JSON
        DELETE /lock/p      | []                     | 400 must~be~a~JSON~object
        DELETE /lock/p      | {{}}                   | 400 no~key
        DELETE /lock/.p     | {{"key":"k"}}          | 400 dot
        POST   /locks       | {{}}                   | 405 method_not_allowed
        GET    /locks       |                        | 200 = {{}}
        "#
        ),
    );
    // A body of spaces counts as a body.
    assert_eq!(server.call("DELETE /lock/p", " ").status, 400);
    let large = format!(r#"{{"key":"{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(server.call("PUT /lock/p", &large).status, 413);
}

#[test]
fn names_are_decoded_once_and_unknown_things_ignored() {
    let server = Server::start();
    run(
        &server,
        r#"
        PUT    /lock/a%20b?x=1&x=%zz | {"key":"k","more":{"deep":[1]}} | 200 a~b
        PUT    /lock/%2541           | {"key":"k"} | 200 %41
        PUT    /lock/%F0%9F%94%92    | {"key":"k"} | 200
        GET    /locks?anything       |             | 200 "%41" "a~b"
        DELETE /lock/a%20b           | {"key":"k"} | 200
        GET    /locks                |             | 200 "a~b":{"key":"","locked_by":{}}
        "#,
    );
    let shown = server.call("GET /locks", "").json();
    let names: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(names, ["%41", "a b", "\u{1f512}"]);
}

#[test]
fn status_lines_are_what_scripts_look_for() {
    let server = Server::start();
    let line = |request: &str, body: &str| server.call(request, body).status_line;
    assert_eq!(line("PUT /lock/p", r#"{"lock":"a"}"#), "HTTP/1.1 200 OK");
    assert_eq!(line("PUT /lock/p", r#"{"lock":"a"}"#), "HTTP/1.1 423 Locked");
    assert_eq!(line("DELETE /lock/p", r#"{"lock":"b"}"#), "HTTP/1.1 423 Locked");
    assert_eq!(line("PUT /lock/p", "{}"), "HTTP/1.1 400 Bad Request");
}

#[test]
fn the_list_has_the_same_bytes_while_nothing_changes() {
    let server = Server::start();
    for pool in ["z", "a", "m"] {
        for who in ["two", "one", "three"] {
            server.call(&format!("PUT /lock/{pool}"), &format!(r#"{{"key":"k","requestor":"{who}"}}"#));
        }
    }
    let first = server.call("GET /locks", "");
    assert_eq!(
        first.text(),
        r#"{"a":{"key":"k","locked_by":{"one":1,"three":1,"two":1}},"m":{"key":"k","locked_by":{"one":1,"three":1,"two":1}},"z":{"key":"k","locked_by":{"one":1,"three":1,"two":1}}}"#
    );
    // Reads and refused requests change nothing.
    server.call("PUT /lock/a", r#"{"key":"other"}"#);
    server.call("DELETE /lock/a", r#"{"key":"other"}"#);
    server.call("DELETE /lock/a", r#"{"key":"k","requestor":"nobody"}"#);
    assert_eq!(server.call("GET /locks", "").body, first.body);
    assert_eq!(server.call("HEAD /locks", "").header("content-length"), first.header("content-length"));
}

#[test]
fn credentials_are_asked_for() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "s3cret")]);
    let refused = server.call("PUT /lock/p", r#"{"key":"k"}"#);
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "), "{refused:?}");
    assert!(refused.json()["error"].is_string());
    let allowed = server.connect().ask("PUT", "/lock/p", "Authorization: Basic Y2k6czNjcmV0\r\n", r#"{"key":"k"}"#);
    assert_eq!(allowed.unwrap().status, 200);
}

#[test]
fn a_requestor_that_holds_passes_the_queue() {
    let server = Server::start();
    server.call("PUT /lock/p", r#"{"key":"k","requestor":"a"}"#);
    let mut waiter = server.connect();
    waiter.start("PUT /api/v1/claims/w", r#"{"pool":"p","wait":"30s"}"#);
    eventually("w waits", || (server.call("GET /api/v1/claims/w", "").json()["state"] == "waiting").then_some(()));
    run(
        &server,
        r#"
        PUT    /lock/p | {"key":"k","requestor":"a"} | 200
        PUT    /lock/p | {"key":"k","requestor":"b"} | 423 locked
        DELETE /lock/p | {"key":"k","requestor":"a"} | 200
        "#,
    );
    assert_eq!(waiter.read().json()["state"], "held");
}
