//! Declaring pools: a capacity means that many locks, a change keeps what it does not name, pools from a file.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use crate::support::Server;
use serde_json::{Value, json};

/// The names of a pool's locks, each with what is special about it.
fn locks(server: &Server, pool: &str) -> Vec<String> {
    let items = server.pool(pool)["items"].as_array().unwrap().clone();
    let marked = |lock: &Value| {
        let mark = |name: &str| if lock[name] == true { format!(" {name}") } else { String::new() };
        format!("{}{}{}", lock["lock"].as_str().unwrap(), mark("leaving"), mark("implicit"))
    };
    items.iter().map(marked).collect()
}

#[test]
fn a_mutex_that_gets_a_capacity_stays_a_mutex() {
    let server = Server::start_with("sqlite", &["--drain", "100ms"], &[]);
    let held = server.cli(&["claim", "staging"]).ok().stdout;
    assert_eq!(locks(&server, "staging"), ["staging implicit"]);
    let said = server.cli(&["pool", "set", "staging", "--capacity", "1"]).ok().stdout;
    assert!(said.contains("pool \"staging\" has 1 lock: 1\n"), "{said}");
    assert!(said.contains("leaves the pool when its hold has ended; until then the pool gives out one lock less"));
    server.cli(&["claim", "staging", "--try"]).failed(3, "not free");
    let status = server.cli(&["status", "staging"]).ok().stdout;
    assert!(
        status.starts_with("pool \"staging\": 2 locks, 0 free, 0 waiting\nuntil lock \"staging\" has left"),
        "{status}"
    );
    let mut server = server;
    server.kill();
    server.again();
    server.cli(&["claim", "staging", "--try"]).failed(3, "not free");
    server.cli(&["release", held.trim()]).ok();
    assert_eq!(locks(&server, "staging"), ["1"]);
    server.cli(&["claim", "staging", "--try"]).ok();
    server.cli(&["claim", "staging", "--try"]).failed(3, "held");
}

#[test]
fn a_policy_on_a_new_pool_leaves_it_with_a_lock() {
    let server = Server::start();
    let said = server.cli(&["pool", "set", "q", "--scope", "build"]).ok().stdout;
    assert_eq!(said, "pool \"q\" has 1 lock: q\npolicy: scope build\n");
    server.cli(&["claim", "q", "--try"]).ok();
    // A lock of its own replaces the one that it was given.
    server.cli(&["lock", "add", "q", "eu-1"]).ok();
    assert_eq!(locks(&server, "q"), ["eu-1", "q leaving implicit"]);
    server.cli(&["claim", "q", "--try"]).failed(3, "not free");
    // The API declares what it is told to declare.
    assert_eq!(server.api("PUT", "/pools/empty", &json!({})).0, 200);
    assert_eq!(locks(&server, "empty"), [""; 0]);
    let said = server.cli(&["pool", "set", "empty", "--max-hold", "1h"]).ok().stdout;
    assert!(said.starts_with("pool \"empty\" has no locks (give it some with --capacity N"), "{said}");
    // No capacity takes away a lock with another name.
    server.cli(&["lock", "add", "p", "p"]).ok();
    let said = server.cli(&["pool", "set", "p", "--capacity", "2"]).ok().stdout;
    assert!(said.starts_with("pool \"p\" has 3 locks: 1, 2, p\n"), "{said}");
}

#[test]
fn a_change_keeps_what_it_does_not_name() {
    let server = Server::start();
    let set = |args: &[&str]| server.cli(&[&["pool", "set", "p"], args].concat());
    set(&["--capacity", "2", "--order", "priority", "--drain", "1m", "--overtaking", "backfill:5"]).ok();
    let said = set(&["--max-hold", "4h"]).ok().stdout;
    assert_eq!(
        said,
        "pool \"p\" has 2 locks: 1, 2\npolicy: drain 1m, max_hold 4h, order priority, overtaking backfill:5\n"
    );
    let said = set(&["--drain", "default", "--order", "default"]).ok().stdout;
    assert!(said.ends_with("policy: max_hold 4h, overtaking backfill:5\n"), "{said}");
    let said = set(&["--reset", "--scope", "person"]).ok().stdout;
    assert!(said.ends_with("policy: scope person\n"), "{said}");
    set(&["--order", "lfio"]).failed(2, "did you mean \"lifo\"?");
    set(&["--overtaking", "backfill:0"]).failed(2, "must be strict, backfill, or backfill:N");
    let both = json!({"policy": {"drain": "1s"}, "defaults": ["drain"]});
    let refused = server.api("PATCH", "/pools/p", &both);
    assert_eq!((refused.0, &refused.1["code"]), (400, &json!("bad_request")), "{refused:?}");
    assert_eq!(server.pool("p")["policy"], json!({"scope": "person"}));
    let list = server.cli(&["pool", "list"]).ok().stdout;
    assert!(list.contains("scope person"), "{list}");
}

const FILE: &str = "
pools:
  environments: {capacity: 3, max_hold: 240m}
  licences:
    order: priority
    overtaking: backfill:5
    capacity: 2
  staging: {scope: build}
  plain:
";

#[test]
fn pools_are_made_as_a_file_declares_them() {
    let server = Server::start();
    server.cli(&["pool", "set", "licences", "--capacity", "1", "--drain", "1m"]).ok();
    server.cli(&["pool", "set", "old", "--capacity", "1"]).ok();
    server.cli(&["pool", "set", "busy", "--capacity", "1"]).ok();
    server.cli(&["claim", "busy"]).ok();
    let apply = |flags: &[&str]| server.cli_with(&[&["pool", "apply", "-"], flags].concat(), FILE.as_bytes());
    let dry = apply(&["--dry-run", "--prune"]);
    assert_eq!(dry.code, 5, "{dry:?}");
    let dry = dry.stdout;
    assert!(dry.contains("pool \"licences\": would be changed\n  - drain: 1m\n  + order: priority\n"), "{dry}");
    assert!(dry.contains("  - capacity: 1\n  + capacity: 2\n"), "{dry}");
    assert!(dry.contains("pool \"environments\": would be added\n  + max_hold: 4h\n  + capacity: 3\n"), "{dry}");
    assert!(dry.contains("pool \"old\": would be removed\n") && dry.contains("(nothing was changed)"), "{dry}");
    let busy = "pool \"busy\": would be left as it is: it is in use by 1 claim\n";
    assert!(dry.contains(busy) && dry.contains("1 removed, 0 unchanged, 1 left as they are (nothing"), "{dry}");
    assert_eq!(server.pool("licences")["locks"], 1);
    let done = apply(&[]).ok().stdout;
    assert!(done.ends_with("3 added, 1 changed, 0 removed, 0 unchanged\n"), "{done}");
    assert_eq!(locks(&server, "environments"), ["1", "2", "3"]);
    assert_eq!(locks(&server, "staging"), ["staging implicit"]);
    assert_eq!(server.pool("licences")["policy"], json!({"order": "priority", "overtaking": "backfill:5"}));
    let again = apply(&[]).ok().stdout;
    assert_eq!(again, "0 added, 0 changed, 0 removed, 4 unchanged\n");
    let pruned = apply(&["--prune"]);
    assert_eq!(pruned.code, 5, "{pruned:?}");
    assert!(pruned.stdout.contains("pool \"busy\": left as it is: "), "{pruned:?}");
    assert!(pruned.stdout.ends_with("0 added, 0 changed, 1 removed, 4 unchanged, 1 left as they are\n"), "{pruned:?}");
    server.cli(&["status", "old"]).failed(4, "no pool");
}

#[test]
fn rules_that_are_written_out_are_the_same_in_any_form() {
    let server = Server::start();
    let apply = |rules: &str| {
        let file = format!("pools: {{p: {{{rules}}}}}");
        server.cli_with(&["pool", "apply", "-"], file.as_bytes()).ok().stdout
    };
    assert_eq!(
        apply("drain: 90s, capacity: 1"),
        "pool \"p\": added\n  + drain: 1m30s\n  + capacity: 1\n1 added, 0 changed, 0 removed, 0 unchanged\n"
    );
    let unchanged = "0 added, 0 changed, 0 removed, 1 unchanged\n";
    assert_eq!(apply("drain: 1m 30s"), unchanged);
    // Each rule at its default is no rule.
    for default in ["order: fifo", "overtaking: strict", "pick: least_recent", "cut_short: end"] {
        assert_eq!(apply(&format!("drain: 90s, {default}")), unchanged, "{default}");
    }
}

#[test]
fn a_file_with_problems_is_not_applied() {
    let server = Server::start();
    let file = "pools: {a: {capcity: 3}, b: {order: last}, .c: {}, d: {drain: soon, capacity: -1}}\nlocks: {}\n";
    let refused = server
        .cli_with(&["pool", "apply", "-"], file.as_bytes())
        .failed(2, "nothing was changed, because of 6 problems");
    for problem in [
        "unknown key \"locks\": expected one of pools",
        "pools.a: unknown rule \"capcity\": did you mean \"capacity\"?",
        "pools.b: unknown variant `last`",
        "pools..c: pool name",
        "pools.d.capacity: must be a number",
        "pools.d: policy.drain: \"soon\" is not a duration",
    ] {
        assert!(refused.stderr.contains(problem), "{problem}: {}", refused.stderr);
    }
    server.cli_with(&["pool", "apply", "-"], b"pools: [").failed(2, "because of 1 problem");
    server.cli_with(&["pool", "apply", "-"], b"[]").failed(2, "must be a mapping");
    let json = br#"{"pools": {"j": {"capacity": 1}}}"#;
    server.cli_with(&["pool", "apply", "-"], json).ok();
    assert_eq!(locks(&server, "j"), ["1"]);
}

#[test]
fn an_export_keeps_the_lock_that_a_pool_was_given() {
    let server = Server::start();
    server.cli(&["pool", "set", "q", "--scope", "build"]).ok();
    let held = server.cli(&["claim", "mutex"]).ok().stdout;
    let state = server.cli(&["export", "json"]).ok().stdout;
    let other = Server::start();
    other.cli_with(&["import", "json", "-"], state.as_bytes()).ok();
    assert_eq!(
        (locks(&other, "q"), locks(&other, "mutex")),
        (vec!["q implicit".into()], vec!["mutex implicit".into()])
    );
    other.cli_with(&["import", "json", "-"], state.as_bytes()).ok();
    other.cli(&["pool", "set", "mutex", "--capacity", "1"]).ok();
    other.cli(&["claim", "mutex", "--try"]).failed(3, "not free");
    other.cli(&["release", held.trim()]).ok();
    other.cli(&["claim", "mutex", "--try"]).ok();
}

#[test]
fn a_pool_that_a_claim_has_made_says_so() {
    let server = Server::start();
    server.cli(&["pool", "set", "pool-1", "--capacity", "1"]).ok();
    let build = crate::support::Build::new(&server, 1, "polo-1");
    build.out(&json!({"acquire": true})).ok().said("pool \"polo-1\" is new: did you mean \"pool-1\"?");
    let again = build.out(&json!({"release": "build"})).ok();
    assert!(!again.stderr.contains("is new"), "{}", again.stderr);
    let other = server.cli(&["claim", "zebra"]).ok();
    assert!(other.stderr.contains("pool \"zebra\" is new: this claim has made it, with one lock"), "{}", other.stderr);
    let known = server.cli(&["claim", "pool-1"]).ok();
    assert!(!known.stderr.contains("is new"), "{}", known.stderr);
    let log = server.log();
    assert!(
        log.contains("a claim has made a new pool: was the other one meant?") && log.contains("nearest=\"pool-1\"")
    );
}

/// Nobody who needs the lock finds it in a pool whose name was mistyped.
#[test]
fn a_pool_that_a_new_lock_has_made_says_so() {
    let server = Server::start();
    server.cli(&["pool", "set", "pool-1", "--capacity", "0"]).ok();
    let build = crate::support::Build::new(&server, 1, "polo-1");
    let (new, meant) = ("pool \"zebra\" is new: it was made for this lock", "is new: did you mean \"pool-1\"?");
    build.input_with("env", &[("name", b"eu-1\n"), ("metadata", b"")]);
    build.out(&json!({"add": "env"})).ok().said(&format!("pool \"polo-1\" {meant}"));
    for (pool, params) in [
        ("pol-1", json!({"add": "env", "replace": true})),
        ("poll-1", json!({"add_claimed": "env"})),
        ("ppol-1", json!({"update": "env"})),
    ] {
        let build = crate::support::Build::new(&server, 1, pool);
        build.input_with("env", &[("name", b"eu-1\n"), ("metadata", b"")]);
        let first = build.out(&params).ok();
        assert!(first.stderr.contains(&format!("pool {pool:?} is new: did you mean ")), "{}", first.stderr);
    }
    let added = server.cli(&["lock", "add", "zebra", "a"]).ok();
    assert!(added.stderr.contains(new), "{}", added.stderr);
    let added = server.cli(&["lock", "add", "zebra", "b"]).ok();
    assert!(!added.stderr.contains("is new"), "{}", added.stderr);
    let moved = server.cli(&["lock", "move", "zebra", "b", "zbra"]).ok();
    assert!(moved.stderr.contains("pool \"zbra\" is new: did you mean \"zebra\"?"), "{}", moved.stderr);
    let log = server.log();
    assert!(log.contains("a lock was added to a new pool: was the other one meant?"), "{log}");
}

#[test]
fn a_setting_says_which_pools_claims_make() {
    let server = Server::start_with("memory:", &["--claims-make", "dev-*,scratch"], &[]);
    server.cli(&["claim", "dev-7"]).ok();
    server.cli(&["claim", "scratch"]).ok();
    server.cli(&["claim", "dve-7"]).failed(4, "there is no pool \"dve-7\", and a claim may not make it");
    server.cli(&["claim", "dve-7"]).failed(4, "did you mean \"dev-7\"?");
    server.cli(&["pool", "set", "prod"]).ok();
    server.cli(&["claim", "prod"]).ok();
    let only = Server::start_with("memory:", &["--declared-only"], &[]);
    only.cli(&["claim", "dev-7"]).failed(4, "a claim may not make it");
}
