//! `locker import` and `locker export` against real servers, with a real git repository.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::{Done, Running, Server, tree};
use serde_json::{Value, json};
use tempfile::TempDir;

fn get(server: &Server, path: &str) -> Value {
    let (status, answer) = server.api("GET", path, &Value::Null);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

fn put(server: &Server, path: &str, body: &Value) {
    let (status, answer) = server.api("PUT", path, body);
    assert_eq!(status, 200, "{path}: {answer}");
}

fn locker(server: &Server, args: &[&str]) -> Done {
    let mut command = server.cli_command();
    // It calls git, wherever that is.
    command.args(args).envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    Running::start(&mut command, b"").finish()
}

struct Checkout {
    dir: TempDir,
}

impl Checkout {
    /// A repository as pool-resource keeps it, with a claimed lock in one of two pools.
    fn new() -> Self {
        let checkout = Self { dir: tempfile::tempdir().unwrap() };
        for file in ["aws/claimed/.gitkeep", "aws/unclaimed/.gitkeep", "vms/claimed/.gitkeep", "vms/unclaimed/.gitkeep"]
        {
            checkout.write(file, b"");
        }
        checkout.write("README.md", b"pools");
        checkout.write("scripts/make-pool", b"#!/bin/sh");
        checkout.write("aws/unclaimed/eu [1]*", b"region: eu\n");
        checkout.write("aws/unclaimed/us", b"");
        checkout.write("aws/claimed/prod", b"\x00\xff no text");
        checkout.write("vms/unclaimed/\u{1f512}", "größe: 2\n".as_bytes());
        checkout.git(&["init", "-q"]);
        checkout.commit("pools\n");
        checkout.write("aws/claimed/prod", b"\x00\xff no text at all");
        checkout.commit("main/deploy build 12 claiming: prod\n\nfor the release\n");
        checkout.write("README.md", b"more");
        checkout.commit("another file");
        checkout
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn write(&self, file: &str, content: &[u8]) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn git(&self, args: &[&str]) {
        let settings = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"];
        let output = Command::new("git").arg("-C").arg(self.dir.path()).args(settings).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }
}

#[test]
fn a_repository_is_the_same_after_import_and_export() {
    let (server, checkout) = (Server::start(), Checkout::new());
    let import = ["import", "pool-repo", checkout.path()];
    let dry = locker(&server, &[&import[..], &["--dry-run"]].concat());
    let dry = dry.ended(0, "7 to be done, 0 unchanged, 0 left alone");
    assert!(dry.stdout.contains(r#"would add lock "eu [1]*" to pool "aws""#), "{}", dry.stdout);
    assert_eq!(get(&server, "/pools")["items"], json!([]), "a dry run changes nothing");

    let done = locker(&server, &import).ended(0, "7 done, 0 unchanged, 0 left alone");
    assert_eq!(
        done.stdout.replace("done: ", "would "),
        dry.stdout.replace("7 to be done", "7 done"),
        "as it was announced"
    );
    let prod = get(&server, "/pools/aws/locks/prod");
    assert_eq!(get(&server, "/pools/aws")["policy"], json!({"when_empty": "wait"}), "as in pool-resource");
    assert_eq!(prod["state"], "held");
    assert_eq!(prod["metadata_base64"], "AP8gbm8gdGV4dCBhdCBhbGw=");
    let holder = &prod["holders"][0];
    assert_eq!(holder["reason"], "main/deploy build 12 claiming: prod\n\nfor the release");
    assert_eq!(holder["owner"]["program"], "locker import pool-repo");
    let place = ["pipeline", "job", "build_name"].map(|key| holder["owner"][key].as_str().unwrap_or_default());
    assert_eq!(place, ["main", "deploy", "12"], "as older releases write it");
    assert_eq!(get(&server, &format!("/claims/{}", holder["claim"].as_str().unwrap()))["scope"], "flow");
    assert_eq!(get(&server, "/pools/aws/locks/eu%20%5B1%5D%2A")["metadata"], "region: eu\n");
    assert_eq!(get(&server, "/pools/vms/locks/%F0%9F%94%92")["metadata"], "größe: 2\n");

    locker(&server, &import).ended(0, "0 done, 7 unchanged, 0 left alone");

    let out = tempfile::tempdir().unwrap();
    let export = ["export", "pool-repo", out.path().to_str().unwrap()];
    locker(&server, &[&export[..], &["--dry-run"]].concat()).ended(0, "4 to be done, 0 unchanged, 0 left alone");
    assert!(tree(out.path()).is_empty());
    locker(&server, &export).ended(0, "4 done, 0 unchanged, 0 left alone");
    let mut expected = tree(checkout.dir.path());
    expected.retain(|(path, _)| path.starts_with("aws/") || path.starts_with("vms/"));
    assert_eq!(tree(out.path()), expected);
    locker(&server, &export).ended(0, "0 done, 4 unchanged, 0 left alone");
}

#[test]
fn nested_pools_are_the_same_after_import_and_export() {
    let (server, checkout) = (Server::start(), Checkout { dir: tempfile::tempdir().unwrap() });
    for (file, content) in [
        ("platform/fresh/claimed/.gitkeep", ""),
        ("platform/fresh/unclaimed/.gitkeep", ""),
        ("platform/fresh/unclaimed/env-1", "one"),
        ("platform/in-use/claimed/.gitkeep", ""),
        ("platform/in-use/unclaimed/.gitkeep", ""),
        ("platform/in-use/claimed/env-2", "two"),
        ("platform/claimed/.gitkeep", ""),
        ("platform/unclaimed/.gitkeep", ""),
        ("platform/unclaimed/env-3", "three"),
        ("a/b/c/unclaimed/.gitkeep", ""),
        ("a/b/c/claimed/.gitkeep", ""),
        // What no import takes.
        ("README.md", "pools"),
        ("a/notes.txt", ""),
        ("jobs/a/b/c/d.txt", ""),
        ("jobs/e.txt", ""),
        (".github/CODEOWNERS", ""),
        ("platform/fresh/README", ""),
        ("platform/fresh/unclaimed/.env-1.swp", ""),
    ] {
        checkout.write(file, content.as_bytes());
    }
    checkout.git(&["init", "-q"]);
    checkout.commit("claiming: env-2");
    symlink("platform", checkout.dir.path().join("link")).unwrap();

    let import = ["import", "pool-repo", checkout.path()];
    let done = locker(&server, &import).ended(0, "8 done, 0 unchanged, 0 left alone");
    for text in [
        "not taken: .github: its name begins with a dot\n",
        "not taken: README.md: it is not in claimed or unclaimed of a pool\n",
        "not taken: a/notes.txt: it is not in claimed or unclaimed of a pool\n",
        "not taken: jobs: there is no pool in it\n",
        "not taken: link: it is not in claimed or unclaimed of a pool\n",
        "not taken: platform/fresh/README: it is not in claimed or unclaimed of a pool\n",
        "not taken: platform/fresh/unclaimed/.env-1.swp: its name begins with a dot\n",
    ] {
        assert!(done.stdout.contains(text), "{text}: {}", done.stdout);
    }
    assert_eq!(done.stdout.matches("not taken").count(), 7, "{}", done.stdout);
    let pools = get(&server, "/pools");
    let pools: Vec<&str> =
        pools["items"].as_array().unwrap().iter().map(|pool| pool["pool"].as_str().unwrap()).collect();
    assert_eq!(pools, ["a/b/c", "platform", "platform/fresh", "platform/in-use"]);
    let held = get(&server, "/pools/platform%2Fin-use/locks/env-2");
    assert_eq!((&held["state"], &held["holders"][0]["reason"]), (&json!("held"), &json!("claiming: env-2")));

    let out = tempfile::tempdir().unwrap();
    let export = ["export", "pool-repo", out.path().to_str().unwrap()];
    locker(&server, &export).ended(0, "3 done, 0 unchanged, 0 left alone");
    let mut expected = tree(checkout.dir.path());
    expected.retain(|(path, _)| (path.contains("/claimed/") || path.contains("/unclaimed/")) && !path.contains(".swp"));
    assert_eq!(tree(out.path()), expected);

    // One pool of them, and the names of its locks.
    let one = [&export[..], &["--pool", "platform/fresh", "--overwrite", "platform/fresh/env-1"]].concat();
    fs::write(out.path().join("platform/fresh/unclaimed/env-1"), "changed").unwrap();
    locker(&server, &one).ended(0, "1 done, 0 unchanged, 0 left alone");
    let one = [&import[..], &["--pool", "platform/fresh"]].concat();
    let again = locker(&server, &one).ended(0, "0 done, 2 unchanged, 0 left alone");
    assert!(!again.stdout.contains("not taken"), "{}", again.stdout);
    // A pool whose directory would be one of the locks of another pool.
    server.cli(&["pool", "set", "platform/claimed"]).ok();
    let left = locker(&server, &export).ended(5, "0 done, 3 unchanged, 1 left alone");
    assert!(left.stdout.contains("left alone: pool \"platform/claimed\" cannot be in a repository"), "{}", left.stdout);
}

#[test]
fn what_to_overwrite_may_be_a_nested_pool_or_a_lock() {
    let server = Server::start();
    put(&server, "/pools/a", &json!({}));
    put(&server, "/pools/a/locks/b", &json!({"metadata": "old"}));
    put(&server, "/pools/a%2Fb", &json!({"policy": {"drain": "1s"}}));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    fs::write(&file, locker(&server, &["export", "json"]).stdout).unwrap();
    put(&server, "/pools/a%2Fb", &json!({"policy": {"drain": "2s"}}));
    assert_eq!(server.api("PATCH", "/pools/a/locks/b", &json!({"metadata": "new"})).0, 200);
    let import = ["import", "json", file.to_str().unwrap(), "--overwrite"];
    let lock = locker(&server, &[&import[..], &["a/b"]].concat());
    assert!(lock.stdout.contains("done: overwrite lock \"b\" of pool \"a\""), "{}", lock.stdout);
    assert_eq!((lock.code, &get(&server, "/pools/a%2Fb")["policy"]["drain"]), (5, &json!("2s")));
    let pool = locker(&server, &[&import[..], &["a/b/"]].concat());
    assert_eq!((pool.code, &get(&server, "/pools/a%2Fb")["policy"]["drain"]), (0, &json!("1s")));
    for wrong in ["", "/", "a//b", "a/.b", "../a"] {
        assert_eq!(locker(&server, &[&import[..], &[wrong]].concat()).code, 2, "{wrong:?}");
    }
}

#[test]
fn a_hold_that_was_imported_is_released_by_the_name_of_its_lock() {
    let (server, checkout) = (Server::start(), Checkout::new());
    let import = ["import", "pool-repo", checkout.path(), "--pool", "aws"];
    locker(&server, &import).ended(0, "5 done, 0 unchanged, 0 left alone");
    assert_eq!(server.api("GET", "/pools/vms", &Value::Null).0, 404, "only the pool that was named");
    assert_eq!(locker(&server, &["release", "--pool", "aws", "--lock", "prod"]).code, 0);
    // It is claimed in the checkout still; the server's newer truth stays.
    let again = locker(&server, &import).ended(5, "0 done, 4 unchanged, 1 left alone");
    assert!(again.stdout.contains("left alone: the hold of aws/prod by claim import-"), "{}", again.stdout);
    assert_eq!(get(&server, "/pools/aws/locks/prod")["state"], "free");
}

#[test]
fn nothing_is_overwritten_without_being_named() {
    let (server, checkout) = (Server::start(), Checkout::new());
    put(&server, "/pools/aws/locks/us", &json!({"metadata": "ours", "labels": {"size": "big"}}));
    put(&server, "/pools/aws/locks/prod", &json!({}));
    put(&server, "/claims/c1", &json!({"pool": "aws", "lock": "prod"}));
    put(&server, "/pools/aws/locks/ours", &json!({"metadata": "not in the checkout"}));
    let import = ["import", "pool-repo", checkout.path()];
    let ran = locker(&server, &import);
    assert_eq!(ran.code, 5, "{}", ran.stdout);
    for text in [
        r#"left alone: lock "us" of pool "aws" has other metadata or labels (--overwrite aws/us replaces them)"#,
        r#"left alone: lock "prod" of pool "aws" has other metadata or labels (--overwrite aws/prod replaces them)"#,
        r#"left alone: lock "prod" of pool "aws" is held by claim c1 on the server: release it first"#,
        "3 left alone",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    assert_eq!(get(&server, "/pools/aws/locks/us")["metadata"], "ours");
    assert_eq!(get(&server, "/pools/aws/locks/ours")["metadata"], "not in the checkout");
    assert_eq!(get(&server, "/pools/aws/locks/eu%20%5B1%5D%2A")["state"], "free", "the rest was done");

    let stray = locker(&server, &[&import[..], &["--overwrite", "aws/ours"]].concat());
    assert_eq!((stray.code, stray.stderr.contains("the import does not contain it")), (2, true), "{}", stray.stderr);
    let named = locker(&server, &[&import[..], &["--overwrite", "aws/us"]].concat());
    assert!(named.stdout.contains(r#"done: overwrite lock "us" of pool "aws""#), "{}", named.stdout);
    let us = get(&server, "/pools/aws/locks/us");
    assert_eq!((&us["metadata"], &us["labels"]), (&json!(""), &json!({"size": "big"})), "only our format has labels");

    // And the same on the way out.
    let out = tempfile::tempdir().unwrap();
    fs::create_dir_all(out.path().join("aws/unclaimed")).unwrap();
    fs::write(out.path().join("aws/unclaimed/us"), "theirs").unwrap();
    fs::write(out.path().join("aws/unclaimed/prod"), "").unwrap();
    fs::write(out.path().join("aws/unclaimed/other"), "not on the server").unwrap();
    let export = ["export", "pool-repo", out.path().to_str().unwrap(), "--pool", "aws"];
    let ran = locker(&server, &export);
    assert_eq!(ran.code, 5, "{}", ran.stdout);
    assert_eq!(fs::read(out.path().join("aws/unclaimed/us")).unwrap(), b"theirs");
    assert!(!out.path().join("aws/claimed/prod").exists());
    let named = [&export[..], &["--overwrite", "aws/us", "--overwrite", "aws/prod"]].concat();
    locker(&server, &named).ended(0, "2 done, 2 unchanged, 0 left alone");
    assert_eq!(fs::read(out.path().join("aws/unclaimed/us")).unwrap(), b"");
    assert!(!out.path().join("aws/unclaimed/prod").exists(), "a lock is in one state");
    assert!(out.path().join("aws/claimed/prod").exists());
    assert!(out.path().join("aws/unclaimed/other").exists());
}

#[test]
fn an_import_removes_other_locks_only_from_named_pools() {
    let (server, checkout) = (Server::start(), Checkout::new());
    let import = ["import", "pool-repo", checkout.path()];
    locker(&server, &import).ended(0, "7 done, 0 unchanged, 0 left alone");
    for lock in ["old-1", "old-2", "busy"] {
        put(&server, &format!("/pools/aws/locks/{lock}"), &json!({}));
    }
    put(&server, "/pools/vms/locks/other", &json!({}));
    put(&server, "/claims/c", &json!({"pool": "aws", "lock": "busy"}));
    let plain = locker(&server, &import).ended(0, "0 done, 7 unchanged, 0 left alone");
    let told =
        "only on the server: 3 locks of pool \"aws\": \"busy\", \"old-1\", \"old-2\" (--prune aws removes them)\n";
    assert!(plain.stdout.contains(told), "{}", plain.stdout);

    let prune = [&import[..], &["--prune", "aws"]].concat();
    let dry =
        locker(&server, &[&prune[..], &["--dry-run"]].concat()).ended(5, "2 to be done, 7 unchanged, 1 left alone");
    assert!(dry.stdout.contains("would remove lock \"old-2\" of pool \"aws\""), "{}", dry.stdout);
    assert_eq!(get(&server, "/pools/aws")["locks"], 6, "a dry run changes nothing");
    let done = locker(&server, &prune).ended(5, "2 done, 7 unchanged, 1 left alone");
    assert!(done.stdout.contains("left alone: lock \"busy\" of pool \"aws\" is held by claim c: release it first"));
    assert_eq!(get(&server, "/pools/aws")["locks"], 4);
    assert_eq!(get(&server, "/pools/vms")["locks"], 2, "only the pool that was named");
    let stray = locker(&server, &[&import[..], &["--prune", "gcp"]].concat());
    stray.failed(2, "--prune gcp: the import does not contain this pool");

    // The same for the whole state.
    let file = checkout.dir.path().join("state.json");
    fs::write(&file, locker(&server, &["export", "json"]).stdout).unwrap();
    put(&server, "/pools/aws/locks/new", &json!({}));
    let import = ["import", "json", file.to_str().unwrap(), "--prune", "aws"];
    locker(&server, &import).ended(0, "1 done, 10 unchanged, 0 left alone");
}

#[test]
fn a_bad_checkout_changes_nothing() {
    let (server, checkout) = (Server::start(), Checkout::new());
    checkout.write("aws/unclaimed/large", &vec![b'x'; 64 * 1024 + 1]);
    checkout.write("aws/unclaimed/prod", b"twice");
    checkout.write("aws/unclaimed/a\nb", b"");
    checkout.write("bad\u{7f}/unclaimed/x", b"");
    symlink("/etc/passwd", checkout.dir.path().join("aws/claimed/link")).unwrap();
    fs::create_dir(checkout.dir.path().join("aws/claimed/dir")).unwrap();
    let ran = locker(&server, &["import", "pool-repo", checkout.path()]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    for text in [
        "too long (65537 bytes > max of 65536)",
        "the lock is both claimed and unclaimed",
        "lock name contains character U+000A",
        "pool name contains character U+007F",
        "claimed/link: not a regular file",
        "claimed/dir: not a regular file",
        "nothing was changed, because of 6 problems",
    ] {
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
    assert!(!ran.stderr.replace('\n', "").chars().any(char::is_control), "{:?}", ran.stderr);
    assert_eq!(get(&server, "/pools")["items"], json!([]));

    let empty = tempfile::tempdir().unwrap();
    let ran = locker(&server, &["import", "pool-repo", empty.path().to_str().unwrap()]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    let ran = locker(&server, &["import", "pool-repo", checkout.path(), "--pool", "gone"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert_ne!(locker(&server, &["import", "pool-repo", "/nowhere/at/all"]).code, 0);
}

#[test]
fn without_git_there_is_another_reason() {
    let (server, checkout) = (Server::start(), Checkout::new());
    fs::remove_dir_all(checkout.dir.path().join(".git")).unwrap();
    locker(&server, &["import", "pool-repo", checkout.path()]).ended(0, "7 done, 0 unchanged, 0 left alone");
    let prod = get(&server, "/pools/aws/locks/prod");
    assert_eq!(prod["holders"][0]["reason"], "claimed in the pool repository that was imported");
}

#[test]
fn an_export_through_a_link_is_refused() {
    let server = Server::start();
    put(&server, "/pools/aws/locks/us", &json!({"metadata": "x"}));
    let (out, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), out.path().join("aws")).unwrap();
    let ran = locker(&server, &["export", "pool-repo", out.path().to_str().unwrap()]);
    assert_eq!((ran.code, ran.stderr.contains("is not a directory")), (1, true), "{}", ran.stderr);
    assert!(tree(elsewhere.path()).is_empty());
}

/// A server with some of everything.
fn filled() -> Server {
    let server = Server::start();
    put(&server, "/pools/envs", &json!({"policy": {"drain": "5s", "max_queue": 7}}));
    put(&server, "/pools/envs/locks/eu", &json!({"metadata": "ä\n", "labels": {"region": "eu"}}));
    put(&server, "/pools/envs/locks/us", &json!({"metadata_base64": "AP8="}));
    put(&server, "/pools/empty", &json!({}));
    put(&server, "/pools/n", &json!({"capacity": 3}));
    let owner = json!({"cluster": "https://ci", "team": "main", "pipeline": "p", "job": "j", "build_id": "7"});
    let any = json!({"pool": "envs", "owner": owner, "scope": "flow", "reason": "deploy", "ttl": "2h"});
    put(&server, "/claims/any", &any);
    put(&server, "/claims/several", &json!({"pool": "n", "count": 2, "scope": "person"}));
    for who in ["a", "b"] {
        let body = json!({"pool": "shared", "key": "k", "requestor": who});
        put(&server, &format!("/claims/shared-{who}"), &body);
    }
    let waiting = json!({"pool": "shared", "key": "other"});
    assert_eq!(server.api("PUT", "/claims/waits", &waiting).0, 423);
    for (id, ending) in
        [("1", None), ("2", Some(json!({"outputs": {"v": "1"}}))), ("3", Some(json!({"failure": "no"})))]
    {
        let id = format!("e9205d4a-2545-4c58-86ae-d0e7b3ecec2{id}");
        let body = json!({"id": id, "workflow": "w", "node": {"name": "n"}});
        assert_eq!(server.ask("POST", "/lock", &body).0, 200);
        if let Some(ending) = ending {
            assert_eq!(server.ask("PATCH", &format!("/lock?id={id}"), &ending).0, 200);
        }
    }
    server
}

/// An export without what differs from server to server: where, when, and moments of the clock.
fn essence(export: &str) -> Value {
    let mut state: Value = serde_json::from_str(export).unwrap();
    for member in ["store_id", "exported_at", "revision"] {
        state.as_object_mut().unwrap().remove(member).unwrap();
    }
    for hold in state["holds"].as_array_mut().unwrap() {
        hold.as_object_mut().unwrap().remove("held_since").unwrap();
        if let Some(until) = hold.get_mut("held_until") {
            *until = json!("some time");
        }
    }
    for latch in state["latches"].as_array_mut().unwrap() {
        for member in ["created", "lastChange"] {
            latch.as_object_mut().unwrap().remove(member).unwrap();
        }
    }
    state
}

#[test]
fn a_state_is_the_same_after_export_and_import() {
    let (from, to) = (filled(), Server::start());
    let export = locker(&from, &["export", "json"]);
    assert_eq!((export.code, export.stderr.as_str()), (0, "4 pools, 5 locks, 4 holds, 3 latches written\n"));
    let dry = locker(&from, &["export", "json", "--dry-run"]);
    assert_eq!((dry.stdout.as_str(), dry.stderr.contains("4 pools")), ("", true));
    let state: Value = serde_json::from_str(&export.stdout).unwrap();
    assert_eq!(state["locker_export"], 1);
    assert!(!export.stdout.contains("waits"), "waiters ask again");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    fs::write(&file, &export.stdout).unwrap();
    let import = ["import", "json", file.to_str().unwrap()];
    let dry = locker(&to, &[&import[..], &["--dry-run"]].concat());
    dry.ended(0, "18 to be done, 0 unchanged, 0 left alone");
    assert_eq!(get(&to, "/pools")["items"], json!([]));
    locker(&to, &import).ended(0, "18 done, 0 unchanged, 0 left alone");
    let imported = locker(&to, &["export", "json"]);
    assert_eq!(essence(&imported.stdout), essence(&export.stdout));
    locker(&to, &import).ended(0, "0 done, 16 unchanged, 0 left alone");
    locker(&from, &import).ended(0, "0 done, 16 unchanged, 0 left alone");

    let any = get(&to, "/claims/any");
    assert_eq!((&any["owner"]["build_id"], &any["reason"]), (&json!("7"), &json!("deploy")));
    assert!(any["held_until"].is_string(), "a hold that would have ended ends here, too");
}

#[test]
fn a_state_that_differs_is_left_alone() {
    let (from, to) = (filled(), Server::start());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    fs::write(&file, locker(&from, &["export", "json"]).stdout).unwrap();
    put(&to, "/pools/envs", &json!({"policy": {"drain": "9s"}}));
    put(&to, "/pools/envs/locks/eu", &json!({"metadata": "ours"}));
    put(&to, "/claims/mine", &json!({"pool": "shared"}));
    let body = json!({"id": "e9205d4a-2545-4c58-86ae-d0e7b3ecec21", "workflow": "other"});
    assert_eq!(to.ask("POST", "/lock", &body).0, 200);
    let import = ["import", "json", file.to_str().unwrap()];
    let ran = locker(&to, &import);
    assert_eq!(ran.code, 5);
    for text in [
        r#"pool "envs" has another policy"#,
        r#"lock "eu" of pool "envs" has other metadata or labels"#,
        r#"lock "shared" of pool "shared" is held by claim mine on the server"#,
        "latch e9205d4a-2545-4c58-86ae-d0e7b3ecec21 belongs to another workflow on the server",
        "5 left alone",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let named = [&import[..], &["--overwrite", "envs", "--overwrite", "envs/eu"]].concat();
    locker(&to, &named).printed("2 done");
    assert_eq!(get(&to, "/pools/envs")["policy"]["drain"], "5s");
    assert_eq!(get(&to, "/pools/envs/locks/eu")["labels"], json!({"region": "eu"}));
}

#[test]
fn a_bad_state_changes_nothing() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    let state = |pools: Value, holds: Value| {
        json!({"locker_export": 1, "store_id": "x", "exported_at": "x", "revision": 1, "pools": pools, "holds": holds,
            "latches": []})
    };
    let pool = |name: &str, locks: Value| json!({"pool": name, "policy": {}, "locks": locks});
    let hold = |claim: &str, locks: Value| json!({"claim": claim, "locks": locks, "scope": "flow", "owner": {}});
    let mut colour = state(json!([]), json!([]));
    colour["colour"] = json!("red");
    let cases = [
        (json!([]), "was not written by"),
        (json!({"locker_export": 2, "anything": []}), "has version 2, but this release reads 1"),
        (colour, "unknown field `colour`"),
        (
            state(json!([pool("a/", json!([]))]), json!([])),
            "pools[0]: pool name must have a name on both sides of each",
        ),
        (state(json!([pool("a", json!([])), pool("a", json!([]))]), json!([])), "occurs twice"),
        (state(json!([pool("a", json!([{"lock": ".x"}]))]), json!([])), "starts with a dot"),
        (state(json!([pool("a", json!([{"lock": "x", "metadata_base64": "?"}]))]), json!([])), "not valid base64"),
        (state(json!([]), json!([hold("a b", json!([{"pool": "a", "lock": "x"}]))])), "claim id contains"),
        (state(json!([]), json!([hold("c", json!([]))])), "holds nothing"),
    ];
    for (content, text) in cases {
        fs::write(&file, content.to_string()).unwrap();
        let ran = locker(&server, &["import", "json", file.to_str().unwrap()]);
        assert_eq!(ran.code, 2, "{content}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
    assert_eq!(get(&server, "/pools")["items"], json!([]));
    assert_eq!(locker(&server, &["import", "json", "/nowhere"]).code, 1);
    fs::write(&file, "x").unwrap();
    let mut over =
        state(json!([pool("a", json!([{"lock": "x"}]))]), json!([hold("c", json!([{"pool": "a", "lock": "x"}]))]));
    over["holds"][0]["held_until"] = json!("2020-01-01T00:00:00.000Z");
    fs::write(&file, over.to_string()).unwrap();
    let ran =
        locker(&server, &["import", "json", file.to_str().unwrap()]).ended(0, "2 done, 0 unchanged, 0 left alone");
    assert_eq!(ran.stderr, "left out: the hold of a/x has ended\n");
}

#[test]
fn a_foreign_repository_starts_nothing() {
    let (checkout, server) = (Checkout::new(), Server::start());
    let mark = checkout.dir.path().join("mark");
    let touch = format!("touch {}", mark.display());
    // The tree of the last commit is missing, and to be fetched from whoever the repository names.
    for (name, value) in [
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", &format!("ext::sh -c {}", touch.replace(' ', "% "))),
        ("remote.origin.uploadpack", &touch),
        ("protocol.allow", "always"),
        ("protocol.ext.allow", "always"),
        ("core.fsmonitor", &touch),
        ("log.showSignature", "true"),
        ("gpg.program", &touch),
    ] {
        checkout.git(&["config", name, value]);
    }
    let tree = Command::new("git").args(["-C", checkout.path(), "rev-parse", "HEAD^{tree}"]).output().unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap().trim().to_owned();
    let object = checkout.dir.path().join(".git/objects").join(&tree[..2]).join(&tree[2..]);
    fs::remove_file(object).unwrap();
    let log = Command::new("git").args(["-C", checkout.path(), "log", "-1", "--", "aws"]).output().unwrap();
    assert!(mark.exists(), "git itself runs it: {log:?}");
    fs::remove_file(&mark).unwrap();
    let ran = locker(&server, &["import", "pool-repo", checkout.path()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!mark.exists(), "the repository's command was run");
    assert_eq!(get(&server, "/pools/aws")["waiting"], 0, "imported nevertheless");
}

#[test]
fn a_foreign_repository_cannot_make_the_import_wait_for_ever() {
    let (checkout, server) = (Checkout::new(), Server::start());
    let config = checkout.dir.path().join(".git/config");
    fs::remove_file(&config).unwrap();
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    let ran = locker(&server, &["import", "pool-repo", checkout.path()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(get(&server, "/pools/aws")["waiting"], 0, "imported nevertheless");
}
