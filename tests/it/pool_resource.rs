//! What pipelines written for pool-resource expect: the files of a get, optional locks, names that are known only at
//! run time, steps that wait for their own build. Each test is the smallest such pipeline that once failed.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::json;

use crate::support::{Build, Server, file, tree};

/// The files of a get that show the pool as pool-resource does.
fn shown(build: &Build, name: &str, pool: &str) -> Vec<String> {
    let of_pool = |(path, _): (String, Vec<u8>)| path.strip_prefix(&format!("{pool}/")).map(str::to_owned);
    tree(&build.input(name)).into_iter().filter_map(of_pool).collect()
}

#[test]
fn a_get_shows_which_locks_of_the_pool_are_claimed() {
    let server = Server::start();
    for lock in ["eu-1", "eu-2", "eu-3"] {
        server.cli_with(&["lock", "add", "envs", lock, "--metadata", "-"], lock.as_bytes()).ok();
    }
    let build = Build::new(&server, 1, "envs");
    let claimed = build.out(&json!({"claim": "eu-2"})).ok().version();
    build.get(&claimed, "envs").ok();
    assert_eq!(shown(&build, "envs", "envs"), ["claimed/eu-2", "unclaimed/eu-1", "unclaimed/eu-3"]);
    assert_eq!(file(&build.input("envs"), "envs/claimed/eu-2"), "eu-2", "with the metadata");

    // An empty directory exists, too, because people list it.
    let rest = build.out(&json!({"acquire": true, "count": 2})).ok().version();
    build.get(&rest, "rest").ok();
    assert_eq!(std::fs::read_dir(build.input("rest").join("envs/unclaimed")).unwrap().count(), 0);

    let plain = json!({"source": build.source, "version": {"ref": rest}, "params": {"tree": false}}).to_string();
    build.raw("in", Some(&build.input("plain")), plain.as_bytes()).ok();
    assert!(shown(&build, "plain", "envs").is_empty() && build.input("plain").join("name").exists());
}

#[test]
fn our_own_files_win_over_those_of_a_pool_with_their_name() {
    let server = Server::start();
    let build = Build::new(&server, 1, "name");
    let claimed = build.out(&json!({"acquire": true})).ok().version();
    build.get(&claimed, "got").ok().said("collides with another file");
    assert_eq!(file(&build.input("got"), "name"), "name\n");
}

#[test]
fn several_actions_in_one_put_are_refused() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    build.input_with("old", &[("name", b"p")]);
    let both = json!({"acquire": true, "release": "old"});
    build.out(&both).failed(1, "acquire and release cannot be in one put: write a put step for each of them");
    let slow = Build::with_source(&server, 1, &json!({"pool": "p", "retry_delay": 60}));
    slow.out(&json!({"acquire": true})).ok().said("retry_delay 1m is shortened to");
}

#[test]
fn a_lock_may_be_named_in_a_file() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let build = Build::new(&server, 1, "p");
    build.input_with("chosen", &[("which", b"2\n"), ("empty", b" \n"), ("two", b"1\n2\n")]);
    let claim = json!({"claim": {"file": "chosen/which"}});
    let claimed = build.out(&claim).ok();
    assert_eq!(claimed.metadata("lock_name").as_deref(), Some("2"));
    assert_eq!(build.out(&claim).ok().version(), claimed.version(), "the same step again is the same claim");
    build.out(&json!({"release": {"file": "chosen/which"}})).ok().said("released \"2\"");
    for (file, said) in [
        ("chosen/empty", "claim: the file chosen/empty is empty: it names no lock (see optional: true)"),
        ("chosen/two", "claim: the file chosen/two has more than one line"),
        ("chosen/none", "claim: directory \"chosen\" needs the file none; it is missing"),
        ("nowhere/which", "claim: this put has no input \"nowhere\" (it has chosen)"),
        ("../chosen/which", "claim: \"../chosen\" is not inside the inputs of this put"),
        ("which", "params.claim.file: must be DIRECTORY/FILE"),
    ] {
        build.out(&json!({"claim": {"file": file}})).failed(1, said);
    }
    build.out(&json!({"release": {"file": "chosen/empty"}})).failed(1, "the file chosen/empty is empty");
    build.out(&json!({"release": {"file": "chosen/which", "lock": "1"}})).failed(1, "does not go with file");
}

#[test]
fn a_lock_may_be_optional() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "1"]).ok();
    let build = Build::new(&server, 1, "p");
    build.input_with("chosen", &[("empty", b"")]);
    for (n, params) in [
        json!({"acquire": false, "optional": true}),
        json!({"claim": "", "optional": true, "timeout": "1m"}),
        json!({"claim": {"file": "chosen/empty"}, "optional": true}),
    ]
    .iter()
    .enumerate()
    {
        let none = build.out(params).ok().said("NO LOCK IS TAKEN");
        assert_eq!(server.pool("p")["free"], 1);
        // The next steps in the pipeline still work, and do not end another hold.
        let name = format!("got-{n}");
        build.get(&none.version(), &name).ok();
        assert!(!build.input(&name).join("claim").exists() && !build.input(&name).join("name").exists());
        let held = Build::new(&server, 2, "p").out(&json!({"acquire": true})).ok();
        let released = build.out(&json!({"release": name})).ok().said("took no lock: nothing to release");
        build.get(&released.version(), "after").ok();
        build.get(&held.version(), "held").ok();
        build.out(&json!({"release": {"lock": "1"}})).ok();
    }
    // Without `optional: true`, a put that would take no lock fails.
    for params in [json!({"acquire": false}), json!({"claim": ""}), json!({"acquire": false, "optional": false})] {
        build.out(&params).failed(1, "this put would take no lock; if that is intended");
    }
    // An optional lock that is wanted is taken.
    build.out(&json!({"acquire": true, "optional": true})).ok().said("holding \"1\"");
}

#[test]
fn a_second_acquire_waits_for_what_a_sibling_step_may_release() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p").var("LOCKER_SELF_WAIT", "100ms");
    let first = build.out(&json!({"acquire": true, "as": "one"})).ok();
    let claim = first.metadata("claim").unwrap();
    let second = build.put(&json!({"acquire": true, "as": "two"}));
    second.until_stderr(&format!("this build already holds \"p\" of pool \"p\" (claim {claim}, not fetched yet)"));
    second.until_stderr("this step keeps waiting, because another step of this build may release it");
    server.until_waiting("p", 1);
    build.out(&json!({"release": "build", "as": "one"})).ok();
    second.finish().ok();

    let fails = build.out(&json!({"acquire": true, "as": "three", "self_wait": "fail"}));
    fails.failed(1, "this build already holds what it waits for").said("remove self_wait: fail to keep waiting");
}

#[test]
fn a_put_verifies_that_the_hold_of_a_directory_lasts() {
    let server = Server::start();
    let claimer = Build::new(&server, 1, "p");
    let claimed = claimer.out(&json!({"acquire": true})).ok();
    claimer.get(&claimed.version(), "p").ok();
    let (dir, verify) = (claimer.input("p"), json!({"verify": "p"}));
    // A later job whose get comes from the cache of Concourse: the directory exists, and `in` has not run.
    let later = Build::new(&server, 2, "p");
    later.input_with("p", &[]);
    for name in ["name", "claim", "fence"] {
        std::fs::copy(dir.join(name), later.input("p").join(name)).unwrap();
    }
    assert_eq!(later.out(&verify).ok().version(), claimed.version());
    claimer.out(&json!({"release": "build"})).ok();
    later.out(&verify).failed(1, "has ended: released").said("nobody holds \"p\" now");
    Build::new(&server, 3, "p").out(&json!({"acquire": true})).ok();
    later.out(&verify).failed(1, "has ended: released").said("now held: \"p\" by main/app/deploy #3");
    later.input_with("named", &[("name", b"p")]);
    later.out(&json!({"verify": "named"})).failed(1, "verify: directory \"named\" has no file claim");
}

#[test]
fn check_lists_the_chosen_events_only() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let watch = |events: serde_json::Value| Build::with_source(&server, 1, &json!({"pool": "p", "events": events}));
    let added = watch(json!(["added"]));
    assert!(added.check(None).is_empty(), "there is no pool");
    server.cli(&["lock", "add", "p", "one"]).ok();
    let first = added.check(None);
    assert_eq!(first.len(), 1);
    let claimed = build.out(&json!({"acquire": true})).ok().version();
    build.out(&json!({"release": "build"})).ok();
    assert_eq!(added.check(Some(&first[0])), first, "a claim triggers nothing");
    assert_eq!(added.check(None), first, "the newest of the kind, however long ago");
    server.cli(&["lock", "add", "p", "two"]).ok();
    let both = added.check(Some(&first[0]));
    assert_eq!((both.len(), &both[0]), (2, &first[0]));
    // The given version exists, whatever it was.
    assert_eq!(added.check(Some(&claimed)), [claimed.clone(), both[1].clone()]);
    assert_eq!(watch(json!(["claimed", "added"])).check(Some(&claimed)), [claimed, both[1].clone()]);
    for wrong in [json!("added"), json!([]), json!(["adde"]), json!(["waiting"]), json!([1])] {
        let payload = json!({"source": watch(wrong).source}).to_string();
        build.raw("check", None, payload.as_bytes()).failed(1, "source.events: must be a list of claimed, released");
    }
}
