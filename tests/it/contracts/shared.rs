//! Clients of several systems on one pool: which holds each may release, and what each sees.

use super::table::run;
use crate::support::Server;

/// How each kind of hold is made: name, request, body.
const HOLDS: [(&str, &str, &str); 6] = [
    ("first", "PUT /lock/p", r#"{"lock":"ann"}"#),
    ("second", "PUT /lock/p", r#"{"key":"k","requestor":"ann"}"#),
    ("lockd", "POST /lock/p?owner=ann", ""),
    (
        "api",
        "PUT /api/v1/claims/c1",
        r#"{"pool":"p","owner":{"team":"main","pipeline":"d","job":"up","build_name":"7"}}"#,
    ),
    ("api with key", "PUT /api/v1/claims/c1", r#"{"pool":"p","key":"k","requestor":"ann","owner":{"program":"x"}}"#),
    ("api with more", "PUT /api/v1/claims/c1", r#"{"pool":"p","also":[{"pool":"q"}]}"#),
];

/// How each system releases.
const RELEASES: [(&str, &str, &str); 4] = [
    ("first", "DELETE /lock/p", r#"{"lock":"ann"}"#),
    ("second", "DELETE /lock/p", r#"{"key":"k","requestor":"ann"}"#),
    ("lockd", "DELETE /lock/p", ""),
    ("api", "DELETE /api/v1/claims/c1", ""),
];

/// The table of `docs/contracts.md`: who may release what (rows: the system of the hold, columns: [`RELEASES`]). `-` is
/// 404, because only the server knows the id of such a hold.
const MAY: [(&str, [&str; 4]); 6] = [
    ("first", ["200", "423", "200", "-"]),
    ("second", ["423", "200", "423", "-"]),
    ("lockd", ["423", "423", "200", "-"]),
    ("api", ["423", "423", "200", "200"]),
    ("api with key", ["423", "200", "423", "200"]),
    ("api with more", ["423", "423", "423", "200"]),
];

#[test]
fn who_may_release_whose_hold() {
    for ((kind, request, body), (row, may)) in HOLDS.into_iter().zip(MAY) {
        assert_eq!(kind, row);
        for ((by, release, release_body), expected) in RELEASES.into_iter().zip(may) {
            let server = Server::start();
            assert_eq!(server.call(request, body).status, 200, "{kind}");
            // All systems see that it is taken, whichever system holds it.
            assert_eq!(server.call("GET /lock/p", "").status, 200, "{kind}");
            assert_eq!(server.call("POST /lock/p", "").status, 409, "{kind}");
            assert_eq!(server.call("PUT /lock/p", r#"{"lock":"bob"}"#).status, 423, "{kind}");
            assert_eq!(server.call("PUT /lock/p", r#"{"key":"other"}"#).status, 423, "{kind}");
            let tried = server.call("PUT /api/v1/claims/c2", r#"{"pool":"p","queue":false}"#);
            assert_eq!(tried.status, 423, "{kind}");
            let list = server.call("GET /locks", "");
            let answer = server.call(release, release_body);
            let status = if expected == "-" { 404 } else { expected.parse().unwrap() };
            assert_eq!(answer.status, status, "{kind} released by {by}: {}", answer.text());
            if status == 200 {
                assert_eq!(server.call("GET /lock/p", "").status, 404, "{kind} by {by}");
                assert_eq!(server.call("POST /lock/p", "").status, 200, "{kind} by {by}");
            } else {
                assert_eq!(server.call("GET /locks", "").body, list.body, "{kind} by {by}");
            }
        }
    }
}

#[test]
fn the_list_shows_each_kind_of_hold() {
    for ((kind, request, body), expected) in HOLDS.into_iter().zip([
        r#"{"key":"ann","locked_by":{"ann":1}}"#,
        r#"{"key":"k","locked_by":{"ann":1}}"#,
        r#"{"key":"ID","locked_by":{"ann":1}}"#,
        r#"{"key":"c1","locked_by":{"main/d/up #7":1}}"#,
        r#"{"key":"k","locked_by":{"ann":1}}"#,
        r#"{"key":"c1","locked_by":{"c1":1}}"#,
    ]) {
        let server = Server::start();
        server.call(request, body);
        let claims = server.call("GET /api/v1/claims?pool=p", "").json();
        let expected = expected.replace("ID", claims["items"][0]["id"].as_str().unwrap());
        let list = server.call("GET /locks", "").json();
        assert_eq!(list["p"].to_string(), expected, "{kind}");
    }
}

#[test]
fn the_history_distinguishes_them() {
    let server = Server::start();
    run(
        &server,
        r#"
        PUT    /lock/p             | {"lock":"ann"}                | 200
        DELETE /lock/p             | {"lock":"ann"}                | 200
        PUT    /lock/p             | {"key":"k","requestor":"bob"} | 200
        DELETE /lock/p             | {"key":"k","requestor":"bob"} | 200
        POST   /lock/p?owner=cat   |                               | 200
        DELETE /lock/p             |                               | 200
        PUT    /lock/p             | {"lock":"ann"}                | 200
        DELETE /lock/p             |                               | 200
        "#,
    );
    server.call("PUT /api/v1/claims/c1", r#"{"pool":"p","key":"k","requestor":"r","owner":{"program":"x"}}"#);
    server.call("DELETE /lock/p", r#"{"key":"k","requestor":"r"}"#);
    let changes = server.call("GET /api/v1/pools/p/changes?versions=true", "").json();
    let shown: Vec<String> = changes["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
            let owner = &change["owner"];
            format!("{} {}/{}", text(&change["kind"]), text(&owner["program"]), text(&owner["person"]))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "added locker client/ann",
            "claimed locker client/ann",
            "released locker client/ann",
            "claimed locker client/bob",
            "released locker client/bob",
            "claimed lockd client/cat",
            "released lockd client/cat",
            "claimed locker client/ann",
            "released lockd client/-",
            "claimed x/-",
            "released locker client/r",
        ]
    );
    let reasons = changes["items"].as_array().unwrap().iter().filter_map(|change| change["reason"].as_str());
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        ["unlocked by name, through lockd's API", "unlocked by key and requestor, through locker's API"]
    );
}

#[test]
fn a_late_release_never_ends_the_next_hold() {
    let server = Server::start();
    run(
        &server,
        r#"
        PUT    /api/v1/claims/c1   | {"pool":"p"}      | 200 held
        DELETE /lock/p             |                   | 200 = {}
        POST   /lock/p?owner=cat   |                   | 200
        DELETE /api/v1/claims/c1   |                   | 200 released lockd~client
        GET    /locks              |                   | 200 "cat":1
        DELETE /lock/p?owner=cat   |                   | 200
        PUT    /lock/p             | {"lock":"ann"}    | 200
        DELETE /lock/p?owner=cat   |                   | 423
        DELETE /lock/p             | {"lock":"bob"}    | 423
        DELETE /lock/p             | {"key":"ann"}     | 423
        GET    /locks              |                   | 200 "ann":1
        "#,
    );
}

#[test]
fn keys_are_shared_with_our_api() {
    let server = Server::start();
    run(
        &server,
        r#"
        PUT    /lock/p              | {"key":"k","requestor":"a"} | 200
        PUT    /api/v1/claims/c1    | {"pool":"p","key":"k","requestor":"a","queue":false} | 200
        PUT    /api/v1/claims/c2    | {"pool":"p","key":"k","queue":false} | 200
        GET    /locks               |                             | 200 = {"p":{"key":"k","locked_by":{"a":2,"k":1}}}
        DELETE /lock/p              | {"key":"k","requestor":"a"} | 200 2~of
        GET    /locks               |                             | 200 = {"p":{"key":"k","locked_by":{"k":1}}}
        DELETE /lock/p              |                             | 423
        "#,
    );
}

#[test]
fn pools_of_other_locks_are_not_these_mutexes() {
    let server = Server::start();
    server.call("PUT /api/v1/pools/envs", r#"{"capacity":2}"#);
    run(
        &server,
        r#"
        GET    /locks     |               | 200 = {}
        PUT    /lock/envs | {"key":"k"}   | 404 no_such_lock
        POST   /lock/envs |               | 404 no_such_lock
        GET    /lock/envs |               | 404 not_held
        DELETE /lock/envs |               | 409 not_held
        DELETE /lock/envs | {"key":"k"}   | 200
        "#,
    );
    server.call("PUT /api/v1/pools/envs/locks/envs", "");
    run(
        &server,
        r#"
        PUT    /lock/envs | {"key":"k"}   | 200
        GET    /locks     |               | 200 = {"envs":{"key":"k","locked_by":{"k":1}}}
        "#,
    );
}

#[test]
fn only_declared_pools_when_the_server_says_so() {
    let server = Server::start_with("memory:", &["--declared-only"], &[]);
    run(
        &server,
        r#"
        PUT    /lock/p | {"key":"k"} | 404 no_such_pool
        POST   /lock/p |             | 404 no_such_pool
        DELETE /lock/p |             | 409
        "#,
    );
}

#[test]
fn each_contract_can_be_turned_off() {
    let with = |contracts: &str| Server::start_with("memory:", &["--contracts", contracts], &[]);
    run(
        &with("locker"),
        r#"
        PUT    /lock/p | {"key":"k"} | 200
        DELETE /lock/p |             | 404 "code":"no_such_route" lockd turned~off
        POST   /lock/p |             | 404 lockd turned~off
        GET    /lock/p |             | 404 lockd turned~off
        GET    /locks  |             | 200 "key":"k"
        DELETE /lock/p | {"key":"k"} | 200
        POST   /lock   | {"workflow":"w","namespace":"n"} | 404 latches turned~off
        GET    /lock?status=released |                    | 404 latches turned~off
        PUT    /lock/  | {"key":"k"} | 404
        GET    /lock/  |             | 404
        "#,
    );
    run(
        &with("lockd,latches"),
        r#"
        GET    /locks  |             | 404 "code":"no_such_route" locker turned~off
        PUT    /lock/p | {"key":"k"} | 404 locker turned~off
        POST   /lock/p |             | 200 = {}
        POST   /lock   | {"workflow":"w","namespace":"n"} | 200 locked
        DELETE /lock/p | {"key":"k"} | 404 locker turned~off
        DELETE /lock/p |             | 200 = {}
        "#,
    );
    run(
        &with("none"),
        r#"
        GET    /locks  |             | 404 turned~off
        PUT    /lock/p | {"key":"k"} | 404 turned~off
        POST   /lock/p |             | 404 turned~off
        DELETE /lock/p |             | 404 turned~off
        DELETE /lock/p | {}          | 404 turned~off
        GET    /api/v1/pools |       | 200 items
        "#,
    );
}

/// Given to the program as flags and as variables.
#[test]
fn the_settings_reach_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    std::fs::write(&file, r#"{"prod":{"key":"cf","locked_by":{"a":1}}}"#).unwrap();
    let config = ("LOCKER_CONFIG", file.to_str().unwrap());
    for server in [
        Server::start_with("memory:", &["--contracts", "locker,lockd", "--lockd-unlock-missing", "404"], &[config]),
        Server::start_with(
            "memory:",
            &[],
            &[("LOCKER_CONTRACTS", "locker,lockd"), ("LOCKER_LOCKD_UNLOCK_MISSING", "404"), config],
        ),
    ] {
        assert_eq!(server.call("GET /locks", "").text(), r#"{"prod":{"key":"cf","locked_by":{"a":1}}}"#);
        assert_eq!(server.call("PUT /lock/prod", r#"{"key":"other"}"#).status_line, "HTTP/1.1 423 Locked");
        let missing = server.call("DELETE /lock/free", "");
        assert_eq!((missing.status, &missing.json()["code"]), (404, &"not_held".into()));
        let off = server.call("POST /lock", r#"{"workflow":"w"}"#);
        assert_eq!((off.status, &off.json()["code"]), (404, &"no_such_route".into()));
    }
}
