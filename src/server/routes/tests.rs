#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::route::Method;
use super::*;

/// What may be asked again at the next leader. Whoever adds a route that changes something decides here.
#[test]
fn every_route_that_changes_something_says_whether_it_may_be_repeated() {
    let with_op = r#"{"by":{"op":"1"}}"#;
    let cases: &[(&str, &str, &[(&str, bool)])] = &[
        ("PUT", "/api/v1/claims/{id}", &[("", true)]),
        ("DELETE", "/api/v1/claims/{id}", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/release", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/confirm", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/renew", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/deliver", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/break", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/move", &[("{}", false), (with_op, true)]),
        ("PUT", "/api/v1/pools/{pool}", &[("", false), (with_op, true), (r#"{"by":{"op":null}}"#, false)]),
        ("PATCH", "/api/v1/pools/{pool}", &[("{}", false), (with_op, true)]),
        ("DELETE", "/api/v1/pools/{pool}", &[("{}", false), (with_op, true)]),
        ("PUT", "/api/v1/pools/{pool}/locks/{lock}", &[("{}", false), (with_op, true)]),
        ("PATCH", "/api/v1/pools/{pool}/locks/{lock}", &[("{}", false), (with_op, true)]),
        ("DELETE", "/api/v1/pools/{pool}/locks/{lock}", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/locks/{lock}/move", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/locks/{lock}/quarantine", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/locks/{lock}/return", &[("not JSON", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/changes", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/tokens", &[(with_op, false)]),
        ("DELETE", "/api/v1/tokens/{name}", &[("", false)]),
        ("POST", "/api/v1/session", &[("", false)]),
        ("DELETE", "/api/v1/session", &[("", false)]),
        // Their claims have the id of the request.
        ("PUT", "/lock/{name}", &[(r#"{"lock":"me"}"#, true)]),
        ("POST", "/lock/{name}", &[("", true)]),
        // It would unlock what another client has locked since.
        ("DELETE", "/lock/{name}", &[("", false)]),
        ("POST", "/lock", &[(r#"{"workflow":"w"}"#, false), (r#"{"id":"a","workflow":"w"}"#, true)]),
        ("PATCH", "/lock", &[("{}", true)]),
        ("DELETE", "/lock", &[("", false)]),
    ];
    for (method, path, bodies) in cases {
        for (body, expected) in *bodies {
            let request = request(method, path, body);
            assert_eq!(is_repeatable(&request), *expected, "{method} {path} {body}");
        }
    }
    let changing = ROUTES.iter().filter(|route| route.method != Method::Get);
    let routes: Vec<_> = changing.map(|route| (route.method.word(), route.path)).collect();
    let listed: Vec<_> = cases.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(routes, listed, "this table lists every route that changes something, in the order of the routes");
    for reads in ["GET", "HEAD"] {
        assert!(is_repeatable(&request(reads, "/api/v1/pools", "")));
    }
    assert!(is_repeatable(&request("POST", "/nothing", "")));
}

fn request(method: &str, path: &str, body: &str) -> Request {
    Request { body: body.into(), ..Request::sample(method, path) }
}
