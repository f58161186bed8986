//! The page docs/migration/pool-resource.md, walked step by step with a repository in the shape of pool-resource, and
//! with builds in flight while the change is made.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Build, Done, Running, Server, eventually};

const BUILD: &str = "https://ci.example.com/teams/main/pipelines/shop%20app/jobs/deploy/builds/12";

/// A checkout of the repository of the pools.
struct Locks(TempDir);

impl Locks {
    fn new() -> Self {
        let locks = Self(tempfile::tempdir().unwrap());
        locks.git(&["init", "-q"]);
        for file in ["aws/unclaimed/eu-1", "aws/unclaimed/eu-2", "aws/claimed/.gitkeep", "cf/fresh/unclaimed/cf-1"] {
            let path = locks.0.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        locks.commit("pools");
        locks
    }

    fn git(&self, args: &[&str]) {
        let settings = ["-c", "user.name=CI Pool Resource", "-c", "user.email=ci-pool@localhost"];
        let output = Command::new("git").arg("-C").arg(self.0.path()).args(settings).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    /// What pool-resource does in a build.
    fn moves(&self, lock: &str, from: &str, to: &str, message: &str) {
        self.git(&["mv", &format!("aws/{from}/{lock}"), &format!("aws/{to}/{lock}")]);
        self.commit(message);
    }

    fn import(&self, server: &Server, more: &[&str]) -> Done {
        let mut command = server.cli_command();
        command.args(["import", "pool-repo", self.0.path().to_str().unwrap()]).args(more);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        Running::start(&mut command, b"").finish()
    }
}

fn holder(server: &Server, lock: &str) -> Value {
    server.api("GET", &format!("/pools/aws/locks/{lock}"), &Value::Null).1["holders"][0].clone()
}

#[test]
fn the_page_is_walked_step_by_step() {
    // 1. A server that makes no pools by itself.
    let server = Server::start_with("memory:", &["--declared-only"], &[]);
    assert!(server.cli(&["status"]).ok().stdout.contains("no pools yet"));
    // 2. What the pipeline needs.
    let lint = server.cli(&["lint", "pipelines/migrate/pool-resource-before.yml"]).ok();
    assert!(lint.stdout.contains("its type becomes the image of Locker"), "{}", lint.stdout);
    // 3. A job has claimed a lock in an earlier build, and a build still runs although the pipeline is paused.
    let locks = Locks::new();
    locks.moves("eu-1", "unclaimed", "claimed", &format!("claiming: eu-1\nBuild URL: {BUILD}"));
    // 4. The import.
    locks.import(&server, &["--dry-run"]).ended(0, "6 to be done, 0 unchanged, 0 left alone");
    locks.import(&server, &[]).ended(0, "6 done, 0 unchanged, 0 left alone");
    assert_eq!(server.pool("cf/fresh")["free"], 1, "a nested pool keeps its path");
    let told = holder(&server, "eu-1");
    let owner = |key: &str| told["owner"][key].as_str().unwrap_or_default().to_owned();
    let place = [owner("team"), owner("pipeline"), owner("job"), owner("build_name")];
    assert_eq!((place.join("/").as_str(), owner("build_url").as_str()), ("main/shop app/deploy/12", BUILD));
    assert!(server.cli(&["status", "aws"]).ok().stdout.contains("main/shop app/deploy #12"));
    // The build in flight releases one lock and claims another one, in the repository.
    locks.moves("eu-1", "claimed", "unclaimed", "unclaiming: eu-1");
    locks.moves("eu-2", "unclaimed", "claimed", "claiming: eu-2\nBuild URL: https://ci.example.com/builds/77");
    let again = locks.import(&server, &[]);
    assert_eq!(again.code, 5, "{}", again.stdout);
    assert!(again.stdout.contains("left alone: ") && again.stdout.contains("eu-1"), "{}", again.stdout);
    let told = holder(&server, "eu-2");
    assert_eq!(
        (&told["owner"]["build_id"], &told["owner"]["cluster"]),
        (&json!("77"), &json!("https://ci.example.com"))
    );
    assert_eq!(told["delivered"], true, "somebody may be using it: its build may end");
    // 5. The new source, with the old settings of Git in it.
    let git = json!({"pool": "aws", "uri": "git@example.org:ci/locks.git", "branch": "main", "private_key": "k"});
    let build = Build::with_source(&server, 100, &git);
    let old = "0123456789abcdef0123456789abcdef01234567";
    build.get(old, "old").failed(1, "was not made by this resource type: check the resource again");
    assert_eq!(build.check(Some(old)).len(), 1, "the newest change, and none from before");
    // A waiting claim gets the lock that the old flow still holds, as soon as somebody releases that.
    let waits = build.put(&json!({"acquire": true}));
    waits.until_stderr("main/shop app/deploy #12");
    // 6. By name, once it is known that nobody uses it: by hand, or by a directory that pool-resource has written.
    server.cli(&["release", "--pool", "aws", "--lock", "eu-1"]).ok();
    let claimed = waits.finish().ok();
    assert_eq!(claimed.metadata("lock_name").as_deref(), Some("eu-1"));
    build.input_with("aws", &[("name", b"eu-2\n"), ("metadata", b"x")]);
    build.out(&json!({"release": "aws"})).ok().said("released \"eu-2\"");
    // 7. The flow on the new server, across jobs.
    let later = Build::with_source(&server, 101, &git);
    later.get(&claimed.version(), "aws").ok();
    later.out(&json!({"release": "aws"})).ok();
    eventually("all locks are free", || (server.pool("aws")["free"] == 2).then_some(()));
    // A pool that nobody has declared.
    let undeclared = Build::new(&server, 102, "elsewhere");
    undeclared.out(&json!({"acquire": true})).failed(1, "no_such_pool");
}

#[test]
fn a_message_that_names_no_build_is_only_the_reason() {
    for line in ["claiming: eu-1", "Build URL: https://ci.example.com/elsewhere", "Build URL: file:///builds/1"] {
        let (server, locks) = (Server::start(), Locks::new());
        locks.moves("eu-1", "unclaimed", "claimed", line);
        assert_eq!(locks.import(&server, &[]).code, 0, "{line}");
        let told = holder(&server, "eu-1");
        assert_eq!((&told["owner"]["build_url"], &told["reason"]), (&Value::Null, &json!(line)));
        assert_eq!(told["owner"]["program"], "locker import pool-repo");
    }
}
