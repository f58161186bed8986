//! What other pages embed: the badge and the feed of a pool, whatever its names contain.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::http::Answer;

const BAD: &str = "<b onload='x'>&\"]]>";

fn get(server: &Server, target: &str, headers: &str) -> Answer {
    server.connect().ask("GET", target, headers, "").unwrap()
}

/// Whether a document is well-formed: tags are closed in order, and `&` begins one of the five entities.
fn check_form(xml: &str) {
    let body = xml.split_once("?>").map_or(xml, |(_, body)| body);
    let (mut open, mut rest) = (Vec::new(), body);
    while let Some(at) = rest.find(['<', '&']) {
        let (mark, after) = (&rest[at..=at], &rest[at + 1..]);
        if mark == "&" {
            let entity = after.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot", "apos"].contains(&entity), "&{entity}: {xml}");
            rest = after;
            continue;
        }
        let (tag, after) = after.split_once('>').unwrap();
        let name = tag.split([' ', '/']).next().unwrap();
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(closed), _) => assert_eq!(open.pop(), Some(closed), "{xml}"),
            (None, true) => assert_eq!(tag.matches('"').count() % 2, 0, "{tag}"),
            (None, false) => open.push(name),
        }
        rest = after;
    }
    assert!(open.is_empty(), "{open:?} are open: {xml}");
    assert!(!xml.contains('\u{1b}'), "{xml}");
}

#[test]
fn a_badge_says_what_a_pool_has() {
    let server = Server::start();
    let badge = |target: &str| {
        let answer = get(&server, target, "");
        assert_eq!(answer.header("content-type"), Some("image/svg+xml"), "{target}");
        check_form(answer.text());
        let title = answer.text().split("<title>").nth(1).unwrap().split("</title>").next().unwrap().to_owned();
        (answer.status, title)
    };
    assert_eq!(badge("/pools/envs.svg"), (404, "envs: no such pool".into()));
    assert_eq!(server.api("PUT", "/pools/envs", &json!({"capacity": 2})).0, 200);
    assert_eq!(badge("/pools/envs.svg"), (200, "envs: 2 of 2 free".into()));
    assert_eq!(server.api("PUT", "/claims/a", &json!({"pool": "envs", "count": 2})).0, 200);
    assert_eq!(badge("/pools/envs.svg"), (200, "envs: held".into()));
    assert_eq!(server.api("PUT", "/claims/b", &json!({"pool": "envs"})).0, 423);
    assert_eq!(badge("/pools/envs.svg"), (200, "envs: 1 waiting".into()));
    assert_eq!(server.api("PUT", "/pools/%3Cb%3E%26%22", &json!({"capacity": 1})).0, 200);
    assert_eq!(badge("/pools/%3Cb%3E%26%22.svg"), (200, "&lt;b&gt;&amp;&quot;: free".into()));
    assert_eq!(server.api("PUT", "/pools/a%2Fb", &json!({"capacity": 1})).0, 200);
    assert_eq!(badge("/pools/a%2Fb.svg"), (200, "a/b: free".into()));
    // A pool with such a name keeps its page.
    assert_eq!(server.api("PUT", "/pools/envs.svg", &json!({"capacity": 1})).0, 200);
    assert!(get(&server, "/pools/envs.svg", "").header("content-type").unwrap().starts_with("text/html"));
}

#[test]
fn a_feed_is_well_formed_and_read_again_only_when_it_changes() {
    let server = Server::start();
    let claim = json!({"pool": "envs", "owner": {"person": BAD}, "reason": format!("{BAD}\u{1b}[31m")});
    assert_eq!(server.api("PUT", "/claims/a", &claim).0, 200);
    assert_eq!(server.api("DELETE", "/claims/a", &Value::Null).0, 200);
    let feed = get(&server, "/pools/envs.atom", "");
    assert_eq!((feed.status, feed.header("content-type")), (200, Some("application/atom+xml; charset=utf-8")));
    check_form(feed.text());
    let titles: Vec<&str> =
        feed.text().split("<title>").skip(1).map(|rest| rest.split("</title>").next().unwrap()).collect();
    assert_eq!(titles, ["Locks of pool envs", "released: envs", "claimed: envs", "added: envs"]);
    let mut ids: Vec<&str> =
        feed.text().split("<id>").skip(1).map(|rest| rest.split("</id>").next().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{ids:?}");
    let known = format!("if-none-match: {}\r\n", feed.header("etag").unwrap());
    let again = get(&server, "/pools/envs.atom", &known);
    assert_eq!((again.status, again.text()), (304, ""));
    assert_eq!(server.api("PUT", "/claims/b", &json!({"pool": "envs"})).0, 200);
    assert_eq!(get(&server, "/pools/envs.atom", &known).status, 200);
    assert_eq!(get(&server, "/pools/none.atom", "").status, 404);
}

#[test]
fn badges_and_feeds_are_behind_the_same_door() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ops"), ("AUTH_PASS", "secret-1")]);
    for target in ["/pools/envs.svg", "/pools/envs.atom"] {
        assert_eq!(get(&server, target, "").status, 401, "{target}");
        // ops:secret-1
        let answer = get(&server, target, "authorization: Basic b3BzOnNlY3JldC0x\r\n");
        assert_eq!(answer.status, 404, "{target}");
    }
}
