//! What pipelines written for pool-resource expect: the files of a get, optional locks, names that are known only at
//! run time, steps that wait for their own build. Each test is the smallest such pipeline that once failed.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::proxy::{Act, Proxy};
use crate::support::{Build, Impostor, Server, file, tree};

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
    let claim = std::fs::read(dir.join("claim")).unwrap();
    later.input_with("unfenced", &[("name", b"p"), ("claim", &claim)]);
    later.out(&json!({"verify": "unfenced"})).failed(1, "verify: directory \"unfenced\" has no file fence");

    // A signal while it asks who holds the lock now ends it as a signal.
    let proxy = Proxy::before(&server.url);
    proxy.rule("GET /api/v1/pools/p/locks/p", Act::StopRequest);
    let stopped = Build::new(&server, 2, "p").at(&proxy.url);
    stopped.input_with("p", &[]);
    for name in ["name", "claim", "fence"] {
        std::fs::copy(dir.join(name), stopped.input("p").join(name)).unwrap();
    }
    let step = stopped.put(&verify);
    proxy.until_stopped();
    step.signal(Signal::SIGTERM);
    assert_eq!(step.finish().code, 143);
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

#[test]
fn add_may_replace_a_lock_that_nobody_holds() {
    let server = Server::start();
    server.cli(&["pool", "set", "envs", "--capacity", "0"]).ok();
    let build = Build::new(&server, 1, "envs");
    build.input_with("env", &[("name", b"eu-1\n"), ("metadata", b"one")]);
    build.out(&json!({"add": "env", "labels": {"region": "eu"}})).ok();
    build.input_with("env", &[("metadata", b"two")]);
    build.out(&json!({"add": "env"})).failed(1, "already has a lock \"eu-1\"");
    let replaced = build.out(&json!({"add": "env", "replace": true})).ok().said("replaced \"eu-1\"");
    build.get(&replaced.version(), "got").ok();
    assert_eq!(file(&build.input("got"), "metadata"), "two");
    assert_eq!(server.api("GET", "/pools/envs/locks/eu-1", &json!(null)).1["labels"], json!({"region": "eu"}));
    // A step that runs again in its container gets the same version, whether it added or replaced.
    assert_eq!(build.out(&json!({"add": "env", "replace": true})).ok().version(), replaced.version());
    build.input_with("other", &[("name", b"eu-2\n"), ("metadata", b"")]);
    let added = build.out(&json!({"add": "other", "replace": true})).ok().said("\nadded \"eu-2\"").version();
    assert_eq!(build.out(&json!({"add": "other", "replace": true})).ok().version(), added);

    build.out(&json!({"claim": "eu-1"})).ok();
    build.input_with("env", &[("metadata", b"three")]);
    build.out(&json!({"add": "env", "replace": true})).failed(1, "is held, and is not replaced: use update");
}

/// An update that adds its lock, and runs again.
#[test]
fn an_update_that_added_its_lock_may_run_again() {
    let server = Server::start();
    let build = Build::new(&server, 1, "envs");
    build.input_with("env", &[("name", b"eu-1\n"), ("metadata", b"one")]);
    let added = "added \"eu-1\": there was no such lock to update";
    let first = build.out(&json!({"update": "env"})).ok().said(added).version();
    assert_eq!(build.out(&json!({"update": "env"})).ok().version(), first);
    build.input_with("env", &[("metadata", b"two")]);
    build.out(&json!({"update": "env"})).ok().said("\nupdated \"eu-1\"");
}

/// Environments go from one pool to the next: ready, in use, to be destroyed.
#[test]
fn a_lock_moves_from_pool_to_pool() {
    let server = Server::start();
    server.cli_with(&["lock", "add", "life/ready", "env-1", "--metadata", "-", "--label", "size=big"], b"one").ok();
    server.cli(&["lock", "add", "life/ready", "env-2"]).ok();
    let (ready, used) = (Build::new(&server, 1, "life/ready"), Build::new(&server, 1, "life/used"));
    let claimed = ready.out(&json!({"acquire": true})).ok();
    ready.get(&claimed.version(), "env").ok();
    let (from, to) = (ready.input("env"), used.input("env"));
    for name in ["name", "claim", "metadata"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    std::fs::write(to.join("metadata"), "one, and used").unwrap();
    let params = json!({"add": "env", "remove_from": "life/ready"});
    let moved = used.out(&params).ok().said("moving lock \"env-1\" from pool \"life/ready\" to pool \"life/used\"");
    assert_eq!(used.out(&params).ok().version(), moved.version(), "the step may run again");
    used.get(&moved.version(), "moved").ok();
    assert_eq!(file(&used.input("moved"), "metadata"), "one, and used");
    let lock = server.api("GET", "/pools/life%2Fused/locks/env-1", &json!(null)).1;
    assert_eq!((&lock["state"], &lock["labels"]), (&json!("free"), &json!({"size": "big"})));
    assert_eq!(server.pool("life/ready")["locks"], 1);
    // Both pools know it as one change.
    for pool in ["life%2Fready", "life%2Fused"] {
        let path = format!("/pools/{pool}/changes/{}", moved.version());
        assert_eq!(server.api("GET", &path, &json!(null)).0, 200, "{path}");
    }

    // It moves only with its holder, and nowhere where its name is taken.
    used.input_with("two", &[("name", b"env-2\n"), ("metadata", b"")]);
    let second = json!({"add": "two", "remove_from": "life/ready"});
    used.out(&second).failed(1, "lock \"env-2\" of pool \"life/ready\" is not claimed: claim it first");
    server.cli(&["lock", "add", "life/used", "env-2"]).ok();
    let held = ready.out(&json!({"acquire": true, "as": "two"})).ok();
    used.out(&second).failed(1, "already has a lock \"env-2\"");
    ready.get(&held.version(), "still").ok();
    let both = json!({"add": "two", "remove": "two"});
    used.out(&both).failed(1, "to move a lock from another pool, use add with remove_from");

    // Two puts, as in pool-resource, work too.
    let again = used.out(&json!({"claim": "env-1"})).ok();
    used.get(&again.version(), "env").ok();
    used.out(&json!({"remove": "env"})).ok();
    let gone = Build::new(&server, 1, "life/gone");
    gone.input_with("env", &[("name", b"env-1\n"), ("metadata", b"two puts")]);
    gone.out(&json!({"add": "env"})).ok();
    assert_eq!((&server.pool("life/used")["locks"], &server.pool("life/gone")["locks"]), (&json!(1), &json!(1)));

    // By hand.
    server.cli(&["release", "--pool", "life/ready", "--lock", "env-2"]).ok();
    server.cli(&["lock", "move", "life/ready", "env-2", "life/broken", "--reason", "disk"]).ok().printed("moved lock");
    assert_eq!(server.pool("life/broken")["free"], 1);
    server.cli(&["lock", "move", "life/ready", "env-2", "life/broken"]).failed(4, "has no lock");
}

/// A job that counts the locks of a pool and fills it up, from the files of a get.
#[test]
fn a_reconciler_counts_locks() {
    let server = Server::start();
    let build = Build::new(&server, 1, "teams/envs");
    for n in 1..=2 {
        let dir = format!("new-{n}");
        build.input_with(&dir, &[("name", format!("env-{n}\n").as_bytes()), ("metadata", b"")]);
        build.out(&json!({"add": dir})).ok();
    }
    let count = |part: &str, step: &str| {
        let newest = build.check(None).pop().unwrap();
        build.get(&newest, step).ok();
        let dir = build.input(step).join("teams/envs").join(part);
        std::fs::read_dir(dir).unwrap().count()
    };
    assert_eq!((count("unclaimed", "one"), count("claimed", "one")), (2, 0));
    let claimed = build.out(&json!({"acquire": true})).ok();
    assert_eq!((count("unclaimed", "two"), count("claimed", "two")), (1, 1));
    build.get(&claimed.version(), "env").ok();
    build.out(&json!({"remove": "env"})).ok();
    assert_eq!((count("unclaimed", "three"), count("claimed", "three")), (1, 0));
}

/// A lock that is checked by a file of another task, before something else may begin.
#[test]
fn a_check_of_a_lock_that_a_file_names() {
    let server = Server::start();
    server.cli(&["lock", "add", "teams/gates", "release-freeze"]).ok();
    let (holder, build) = (Build::new(&server, 1, "teams/gates"), Build::new(&server, 2, "teams/gates"));
    build.input_with("gate", &[("name", b"release-freeze\n")]);
    build.out(&json!({"check": "gate"})).ok().said("is unclaimed");
    holder.out(&json!({"claim": "release-freeze"})).ok();
    let check = build.put(&json!({"check": "gate"}));
    check.until_stderr("waiting: held: \"release-freeze\"");
    holder.out(&json!({"release": {"file": "gate/name"}})).failed(1, "no input \"gate\"");
    holder.out(&json!({"release": {"lock": "release-freeze"}})).ok();
    check.finish().ok();
}

/// Several acquires at once, each under its own name, in a pool that is smaller than they are.
#[test]
fn parallel_acquires_of_one_build() {
    let server = Server::start();
    server.cli(&["pool", "set", "teams/agents", "--capacity", "2"]).ok();
    let build = Build::new(&server, 1, "teams/agents");
    let puts = ["unit", "system"].map(|name| build.put(&json!({"acquire": true, "as": name})));
    let taken = puts.map(|put| put.finish().ok().metadata("lock_name").unwrap());
    assert_ne!(taken[0], taken[1]);
    // A step that gets another lock is told what its build had already: it may be a repetition without `as`.
    let two = Build::new(&server, 2, "more");
    server.cli(&["pool", "set", "more", "--capacity", "2"]).ok();
    let first = two.out(&json!({"claim": "1"})).ok();
    assert!(!first.stderr.contains("already holds"), "{}", first.stderr);
    let told =
        format!("this build already holds \"1\" of pool \"more\" (claim {}, not", first.metadata("claim").unwrap());
    two.out(&json!({"claim": "2"})).ok().said(&told).said("give both the same as: NAME");
    Build::new(&server, 3, "none").out(&json!({"acquire": true})).ok();

    let third = build.put(&json!({"acquire": true, "as": "load"}));
    third.until_stderr("this step keeps waiting, because another step of this build may release it");
    build.out(&json!({"release": "build", "as": "unit"})).ok();
    assert_eq!(third.finish().ok().metadata("lock_name").as_ref(), Some(&taken[0]));
}

/// Directors have names of any kind. The lock is named like the director, also if the name is nested; a name that no
/// lock can have is mapped, and the log says so.
#[test]
fn the_lock_of_a_director_has_its_name() {
    let server = Server::start();
    for (id, name, info) in [
        (1, "director eu-1 (prod)", r#"{"name":"director eu-1 (prod)"}"#),
        (2, "infra/director", r#"{"name":"infra/director"}"#),
        (3, "eu-1--2542764281120551", r#"{"name":"eu-1/"}"#),
    ] {
        let director = Impostor::says("200 OK", info);
        let build = Build::with_source(&server, id, &json!({"bosh_lock": director.url}));
        let done = build.out(&json!({"lock_op": "lock", "key": "k"})).ok().said(&format!("is {name:?}"));
        let mapped = done.stderr.contains("its own name, \"eu-1/\", cannot be that of a lock");
        assert_eq!(mapped, id == 3, "{}", done.stderr);
        let named = Build::with_source(&server, id, &json!({"lock_name": name}));
        assert_eq!(named.out(&json!({"lock_op": "lock", "key": "k"})).ok().metadata("lock").as_deref(), Some(name));
        named.out(&json!({"lock_op": "unlock", "key": "k"})).ok();
        assert_eq!(server.pool(name)["free"], 1);
    }
}
