//! The page docs/migration/pool-resource.md, walked step by step with a repository in the shape of pool-resource, and
//! with builds in flight while the change is made.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::concourse::Concourse;
use crate::support::{Build, Done, Running, Server, binary, eventually};

const BUILD: &str = "https://ci.example.com/teams/main/pipelines/shop%20app/jobs/deploy/builds/12";

/// A checkout of the repository of the pools.
struct Locks(TempDir);

impl Locks {
    fn new() -> Self {
        let locks = Self(tempfile::tempdir().unwrap());
        locks.git(&["init", "-q"]);
        for file in ["aws/unclaimed/eu-1", "aws/unclaimed/eu-2", "aws/claimed/.gitkeep", "cf/fresh/unclaimed/cf-1"] {
            locks.file(file);
        }
        locks.commit("pools");
        locks
    }

    fn file(&self, file: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }

    /// A lock that the build with this link has claimed.
    fn claimed(&self, lock: &str, link: &str) {
        self.file(&format!("aws/claimed/{lock}"));
        self.commit(&format!("claiming: {lock}\nBuild URL: {link}"));
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
    assert_eq!(told["reason"], "claiming: eu-1", "the link stands in its place");
    // The build in flight releases one lock and claims another one, in the repository.
    locks.moves("eu-1", "claimed", "unclaimed", "unclaiming: eu-1");
    locks.moves("eu-2", "unclaimed", "claimed", "claiming: eu-2\nBuild URL: https://ci.example.com/builds/77");
    let again = locks.import(&server, &[]);
    assert_eq!(again.code, 5, "{}", again.stdout);
    let advice = "is held on the server, but free here (if nobody uses it: locker release --pool aws --lock eu-1)\n";
    assert!(again.stdout.contains(advice) && !again.stdout.contains("--overwrite"), "{}", again.stdout);
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
        assert!(told["owner"]["person"].as_str().unwrap().starts_with("ada"), "{told}");
    }
}

/// Waits until the hold of a lock shows that its build ended like this. Returns the id of that build.
fn until_over(server: &Server, lock: &str, how: &str) -> String {
    eventually(&format!("the build of {lock} is over: {how}"), || {
        let holder = holder(server, lock);
        assert!(holder.is_object(), "{lock} was released, on a guess");
        let id = holder["owner"]["build_id"].as_str().unwrap_or_default().to_owned();
        (holder["build_ended"]["how"] == how).then_some(id)
    })
}

/// How many times the Concourse was asked about the build with this place.
fn asked_about(concourse: &Concourse, place: &str) -> usize {
    concourse.paths().iter().filter(|path| path.ends_with(place)).count()
}

const PERIODS: [&str; 4] = ["--watch-period", "100ms", "--watch-gone", "300ms"];

#[test]
fn the_end_of_a_build_is_shown_that_its_link_names_by_number_and_ends_no_hold() {
    let (concourse, locks) = (Concourse::start(), Locks::new());
    let url = &concourse.url;
    let ends = [(101, "succeeded"), (102, "failed"), (103, "errored"), (104, "aborted")];
    let place = |job: &str, number: u64| format!("/api/v1/teams/main/pipelines/app/jobs/{job}/builds/{number}");
    for (id, _) in ends {
        concourse.build(id, "started");
        concourse.change(id, |row| row.number = (id - 100).to_string());
        locks.claimed(&format!("of-{id}"), &format!("{url}/teams/main/pipelines/app/jobs/deploy/builds/{}", id - 100));
    }
    // An instance of that pipeline has the same number in the same job, and an end long before the import.
    concourse.ended_build(200, "aborted", 600);
    let vars = json!({"branch": "feature/x", "n": {"a": 1}});
    concourse.change(200, |row| (row.number, row.instance_vars) = ("1".into(), Some(vars)));
    let instance = format!("{url}/teams/main/pipelines/app/jobs/deploy/builds/1?vars.branch=\"feature/x\"&vars.n.a=1");
    locks.claimed("of-instance", &instance);
    // Its job has another name by now.
    locks.claimed("of-renamed", &format!("{url}/teams/main/pipelines/app/jobs/old/builds/1"));
    let mut server = Server::start_with("sqlite", &[&PERIODS[..], &["--concourse", url]].concat(), &[]);
    assert_eq!(locks.import(&server, &[]).code, 0);
    assert_eq!(until_over(&server, "of-instance", "aborted"), "200");
    for (id, how) in ends {
        eventually("its id is known", || {
            (holder(&server, &format!("of-{id}"))["owner"]["build_id"].is_string()).then_some(())
        });
        concourse.build(id, how);
        assert_eq!(until_over(&server, &format!("of-{id}"), how), id.to_string());
    }
    let shown = server.cli(&["status", "aws"]).ok().stdout;
    assert!(shown.contains("main/app/deploy #4") && shown.contains("its build was aborted"), "{shown}");
    // Once is enough, for a server that starts again as well. What was not found is asked about again, and stays.
    server.until_log("a build that holds name by its number cannot be found");
    server.stop();
    server.again();
    eventually("another question", || (asked_about(&concourse, &place("old", 1)) >= 2).then_some(()));
    ends.iter().for_each(|(id, _)| assert_eq!(asked_about(&concourse, &place("deploy", id - 100)), 1));
    let renamed = holder(&server, "of-renamed");
    assert_eq!((&renamed["owner"]["build_id"], &renamed["build_ended"]), (&Value::Null, &Value::Null), "{renamed}");
    server.cli(&["release", "--pool", "aws", "--lock", "of-renamed"]).ok();
}

#[test]
fn a_build_that_may_not_be_seen_keeps_its_hold() {
    let (concourse, locks) = (Concourse::start(), Locks::new());
    concourse.private_build(7, "aborted");
    locks.claimed("hidden", &format!("{}/teams/main/pipelines/app/jobs/deploy/builds/7", concourse.url));
    let server = Server::start_with("memory:", &[&PERIODS[..], &["--concourse", &concourse.url]].concat(), &[]);
    assert_eq!(locks.import(&server, &[]).code, 0);
    server.until_log("401: the pipeline is not exposed");
    assert_eq!(holder(&server, "hidden")["owner"]["build_id"], Value::Null);
    concourse.change(7, |row| row.exposed = true);
    assert_eq!(until_over(&server, "hidden", "aborted"), "7");
}

#[test]
fn a_server_that_verifies_builds_takes_a_hold_whose_build_is_over_or_unknown() {
    let (concourse, locks) = (Concourse::start(), Locks::new());
    let url = &concourse.url;
    concourse.build(77, "succeeded");
    concourse.build(78, "succeeded");
    concourse.build(79, "started");
    let links = [
        ("one-off", format!("{url}/builds/77")),
        ("of-job", format!("{url}/teams/main/pipelines/app/jobs/deploy/builds/78")),
        ("running", format!("{url}/builds/79")),
        ("elsewhere", "https://ci.example.com/builds/1".to_owned()),
    ];
    links.iter().for_each(|(lock, link)| locks.claimed(lock, link));
    let flags = [&PERIODS[..], &["--verify-builds", "--concourse", url]].concat();
    let server = Server::start_with("memory:", &flags, &[]);
    assert_eq!(locks.import(&server, &[]).code, 0);
    for (lock, link) in &links {
        let owner = holder(&server, lock)["owner"].clone();
        assert_eq!(owner["build_url"], json!(link), "{owner}");
        let is_asked_about = matches!(*lock, "of-job" | "running");
        assert_eq!(owner["cluster"].is_string(), is_asked_about, "{lock}: {owner}");
    }
    assert_eq!(until_over(&server, "of-job", "succeeded"), "78");
}

/// The commands in the blocks of a section of the page, in order.
fn commands(section: &str) -> Vec<String> {
    let page = fs::read_to_string("docs/migration/pool-resource.md").unwrap();
    let section = page.split(&format!("\n## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let (mut blocks, mut inside) = (vec![String::new()], false);
    for line in section.lines().map(str::trim_start) {
        if line.starts_with("```") {
            inside = !inside;
            blocks.push(String::new());
        } else if inside {
            blocks.last_mut().unwrap().extend([line, "\n"]);
        }
    }
    blocks.retain(|block| block.contains("locker ") && !block.contains("resources:"));
    blocks
}

/// Runs commands of the page in a shell, in a directory of its own, against a repository that others can push to.
struct Shell<'s> {
    server: &'s Server,
    home: TempDir,
}

impl<'s> Shell<'s> {
    fn new(server: &'s Server, locks: &Locks) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(binary(), home.path().join("locker")).unwrap();
        let bare = home.path().join("origin.git");
        locks.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
        Self { server, home }
    }

    /// The page's names stand for what a person would write there.
    fn run(&self, script: &str, password: &str) -> Done {
        let home = self.home.path();
        let script = script.replace("https://locker.example.com", &self.server.url);
        let script = script
            .replace("LOCKER_PASSWORD=...", &format!("LOCKER_PASSWORD={password}"))
            .replace("--lock NAME", "--lock eu-1");
        let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.env_clear().current_dir(home).args(["-uc", &script]).env("PATH", path).env("HOME", home);
        let instead = format!("url.{}.insteadOf", home.join("origin.git").display());
        let settings = [
            (instead.as_str(), "git@example.org:ci/locks.git"),
            ("user.name", "ada"),
            ("user.email", "ada@localhost"),
            ("pull.ff", "only"),
        ];
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (n, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{n}"), key).env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        Running::start(&mut command, b"").finish()
    }
}

#[test]
fn the_commands_of_the_page_do_what_it_says_for_who_is_logged_in() {
    let server = Server::start_with("memory:", &["--declared-only"], &[("AUTH_USER", "ci"), ("AUTH_PASS", "hunter2")]);
    let locks = Locks::new();
    locks.moves("eu-1", "unclaimed", "claimed", &format!("claiming: eu-1\nBuild URL: {BUILD}"));
    let shell = Shell::new(&server, &locks);
    let steps = commands("How to change over");
    let [login, import, release] = steps.as_slice() else { panic!("{steps:?}") };
    // Nobody gets in without the first step, nor with another password.
    let uri = format!("export LOCKER_URI={}\n", server.url);
    let refused = shell.run(&format!("{uri}{import}"), "");
    assert_eq!(refused.code, 7, "{refused:?}");
    assert!(refused.stderr.contains("(or LOCKER_USERNAME and LOCKER_PASSWORD)"), "{}", refused.stderr);
    assert_eq!(shell.run(login, "hunter3").code, 7);
    shell.run("rm -rf locks", "").ok();
    assert!(shell.run(login, "hunter2").ok().stdout.contains("no pools yet"));
    shell.run(&format!("{login}{import}"), "hunter2").ended(0, "6 done, 0 unchanged, 0 left alone");
    // The source of the page, with the user of the server.
    let source = json!({"pool": "aws", "username": "ci", "password": "hunter2"});
    let build = Build::with_source(&server, 100, &source);
    let claimed = build.out(&json!({"claim": "eu-2"})).ok();
    Build::with_source(&server, 101, &json!({"pool": "aws"})).out(&json!({"claim": "eu-1"})).failed(1, "unauthorized");
    let released = shell.run(&format!("{login}{release}"), "hunter2").ok();
    assert!(released.stdout.contains("main/shop app/deploy #12"), "{}", released.stdout);
    // And back: what is claimed on the server is claimed in the repository.
    let back = commands("How to go back").concat();
    let back = shell.run(
        &format!("{login}{}", back.replace(" --overwrite aws/NAME ", " --overwrite aws/eu-1 --overwrite aws/eu-2 ")),
        "hunter2",
    );
    assert_eq!(back.code, 0, "{back:?}");
    let tree = shell.run("git -C origin.git ls-tree -r --name-only HEAD", "").ok().stdout;
    assert!(tree.contains("aws/claimed/eu-2\n") && tree.contains("aws/unclaimed/eu-1\n"), "{tree}");
    assert!(!tree.contains("aws/unclaimed/eu-2") && !tree.contains("aws/claimed/eu-1"), "{tree}");
    build.get(&claimed.version(), "aws").ok();
}
