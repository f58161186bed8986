//! Pools with `/` in their name, at every interface of the real binary.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};

use crate::support::{Build, Server, file, tree};

#[test]
fn a_nested_pool_works_at_every_interface() {
    let mut server = Server::start_durable();
    server.cli(&["lock", "add", "cf/fresh", "env 1"]).ok();
    server.cli_with(&["lock", "add", "cf/fresh", "env 2", "--metadata", "-"], b"two").ok();
    let build = Build::new(&server, 1, "cf/fresh");
    let claimed = build.out(&json!({"claim": "env 2"})).ok();
    assert_eq!(claimed.metadata("pool_name").as_deref(), Some("cf/fresh"));
    build.get(&claimed.version(), "got").ok();
    let got = build.input("got");
    assert_eq!(file(&got, "pool"), "cf/fresh\n");
    assert_eq!(file(&got, "locks/cf%2Ffresh/env 2/metadata"), "two");
    assert_eq!(file(&got, "cf/fresh/claimed/env 2"), "two");
    assert!(got.join("cf/fresh/unclaimed/env 1").is_file(), "{:?}", tree(&got));
    assert_eq!(build.check(Some(&claimed.version())), [claimed.version()]);

    for args in [&["status", "cf/fresh"][..], &["status"], &["pool", "list"]] {
        let shown = server.cli(args).ok().stdout;
        assert!(shown.contains("cf/fresh"), "{args:?}: {shown}");
    }
    assert_eq!(server.pool("cf/fresh")["pool"], "cf/fresh");
    for page in ["/", "/pools/cf%2Ffresh"] {
        let page = server.call(&format!("GET {page}"), "");
        assert!(page.status == 200 && page.text().contains("cf/fresh"), "{}", page.text());
    }
    let changes = server.api("GET", "/pools/cf%2Ffresh/changes", &Value::Null).1;
    assert_eq!(changes["items"][0]["locks"][0]["pool"], "cf/fresh");
    // A slash that is not encoded is another path, for each call.
    for path in ["/pools/cf/fresh", "/pools/cf/fresh/locks/env", "/pools/cf%2F", "/pools/%2Fcf", "/pools/cf%2F..%2Fx"] {
        let (status, answer) = server.api("PUT", path, &json!({}));
        assert!(matches!(status, 400 | 404), "{path}: {status} {answer}");
    }
    assert_eq!(server.api("PUT", "/pools/cf%2Ffresh/locks/a%2Fb", &json!({})).0, 400, "a lock has no slash");

    server.stop();
    server.again();
    assert_eq!(server.pool("cf/fresh")["pool"], "cf/fresh", "and after a restart");
    let after = Build::new(&server, 1, "cf/fresh");
    after.input_with("got", &[("claim", file(&got, "claim").as_bytes()), ("name", b"env 2\n")]);
    after.out(&json!({"release": "got"})).ok().said("released \"env 2\"");
    assert!(server.call("GET /metrics", "").text().contains("pool=\"cf/fresh\""));
}

#[test]
fn the_first_claim_of_a_nested_pool_makes_a_lock_named_like_its_last_part() {
    let server = Server::start();
    let build = Build::new(&server, 1, "cf/prod");
    assert_eq!(build.out(&json!({"acquire": true})).ok().metadata("lock_name").as_deref(), Some("prod"));
    let named = Build::new(&server, 1, "cf/stage");
    assert_eq!(named.out(&json!({"claim": "stage"})).ok().metadata("lock_name").as_deref(), Some("stage"));
    let other = Build::new(&server, 1, "cf/dev");
    other.out(&json!({"claim": "cf"})).failed(1, "there is no pool \"cf/dev\"");
    // locker's clients and sources with lock_name mean the same lock.
    let locker = Build::with_source(&server, 2, &json!({"lock_name": "cf/eu"}));
    locker.out(&json!({"lock_op": "lock", "key": "k"})).ok();
    let (status, locks) = server.ask("GET", "/locks", &Value::Null);
    assert_eq!((status, &locks["cf/eu"]["key"]), (200, &json!("k")), "{locks}");
    assert_eq!(server.ask("PUT", "/lock/cf%2Feu", &json!({"key": "other"})).0, 423);
    assert_eq!(server.ask("DELETE", "/lock/cf%2Feu", &json!({"key": "k"})).0, 200);
    assert_eq!(server.ask("PUT", "/lock/cf%2Feu", &json!({"key": "other"})).0, 200);
    assert_eq!(server.ask("PUT", "/lock/cf/eu", &json!({"key": "other"})).0, 404);
    // The state file of an original locker has such names, too.
    let state = br#"{"old/one": {"key": "k", "locked_by": {"me": 1}}, "old/two": {"key": "", "locked_by": {}}}"#;
    server.cli_with(&["import", "locker-state", "-"], state).ok().printed("2 pools created, 1 hold in place");
    assert_eq!(server.ask("PUT", "/lock/old%2Fone", &json!({"key": "other"})).0, 423);
    assert_eq!(server.ask("PUT", "/lock/old%2Ftwo", &json!({"key": "other"})).0, 200);
    // lockd's names have no slash.
    assert_eq!(server.call("POST /lock/cf%2Feu", "").status, 400);
}

#[test]
fn a_nested_pool_and_its_outer_pool_are_strangers() {
    let server = Server::start();
    for pool in ["cf", "cf/a", "cf/a/b", "cf%2Fa"] {
        server.cli(&["lock", "add", pool, "env"]).ok();
    }
    let build = Build::new(&server, 1, "cf");
    let also = json!([{"pool": "cf/a"}, {"pool": "cf/a/b"}, {"pool": "cf%2Fa"}]);
    let put = build.out(&json!({"acquire": true, "also": also})).ok();
    build.get(&put.version(), "got").ok();
    let locks: Vec<String> = tree(&build.input("got").join("locks")).into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        locks,
        ["cf%252Fa/env/metadata", "cf%2Fa%2Fb/env/metadata", "cf%2Fa/env/metadata", "cf/env/metadata"],
        "no two pools share a directory"
    );
    assert_eq!(server.api("DELETE", "/pools/cf", &json!({})).0, 409, "held");
    build.out(&json!({"release": "got"})).ok();
    assert_eq!(server.api("DELETE", "/pools/cf", &json!({})).0, 200);
    assert_eq!(server.pool("cf/a")["free"], 1, "it stays");

    // A tree would meet our own directory.
    let odd = Build::new(&server, 1, "locks/cf");
    let claimed = odd.out(&json!({"acquire": true})).ok();
    odd.get(&claimed.version(), "odd").ok().said("collides with another file");
    assert_eq!(file(&odd.input("odd"), "name"), "cf\n");
}
