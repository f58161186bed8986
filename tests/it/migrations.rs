//! docs/migration: the commands that take the place of those of other tools are run as they are written there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::process::{binary, clean};
use crate::support::{Done, Running, Server};

/// The rows of the tables of a page whose two cells are code.
fn rows(page: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migration").join(page);
    let text = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let (before, after) = line.strip_prefix("| `")?.strip_suffix("` |")?.split_once("` | `")?;
        Some((before.to_owned(), after.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

/// A directory whose programs write down how they were called, and with which lock.
struct Yard {
    server: Server,
    dir: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        symlink(binary(), dir.path().join("locker")).unwrap();
        for program in ["make", "sleep"] {
            let path = dir.path().join(program);
            fs::write(&path, format!("#!/bin/sh\necho {program} $* $LOCKER_NAME >>{}/ran\n", dir.path().display()))
                .unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { server: Server::start(), dir }
    }

    /// Runs a line; the second value is what its commands were.
    fn run(&self, line: &str) -> (Done, String) {
        let mut shell = clean("/bin/sh");
        let path = format!("{}:/usr/bin:/bin", self.dir.path().display());
        shell.args(["-c", line]).env("PATH", path).env("LOCKER_URI", &self.server.url).env("USER", "ada");
        let done = Running::start(&mut shell, b"").finish();
        let ran = fs::read_to_string(self.dir.path().join("ran")).unwrap_or_default();
        let _ = fs::remove_file(self.dir.path().join("ran"));
        (done, ran.lines().collect::<Vec<_>>().join("; "))
    }
}

#[test]
fn each_command_has_the_effect_of_the_old_one() {
    // The old command, the pool, what runs, and the exit code while others hold the lock, if it does not wait for good.
    let expected: &[(&str, &str, &str, Option<i32>)] = &[
        ("flock /var/lock/deploy make deploy", "deploy", "make deploy deploy", None),
        ("flock -n /var/lock/deploy make deploy", "deploy", "make deploy deploy", Some(3)),
        ("flock -n -E 75 /var/lock/deploy make deploy", "deploy", "make deploy deploy", Some(75)),
        ("flock -w 5 /var/lock/deploy make deploy", "deploy", "make deploy deploy", Some(3)),
        (
            "flock /var/lock/deploy -c 'make build && make deploy'",
            "deploy",
            "make build deploy; make deploy deploy",
            None,
        ),
        ("flock -s /var/lock/deploy make report", "deploy", "make report deploy", None),
        ("( flock 9; make deploy ) 9>/var/lock/deploy", "deploy", "make deploy", None),
        (
            "consul lock service/deploy 'make build && make deploy'",
            "service/deploy",
            "make build deploy; make deploy deploy",
            None,
        ),
        ("consul lock -shell=false service/deploy make deploy", "service/deploy", "make deploy deploy", None),
        ("consul lock -try=5s service/deploy make", "service/deploy", "make deploy", Some(3)),
        ("consul lock -n=3 service/workers make", "service/workers", "make 1", None),
        ("consul lock -name='release 1.2' service/deploy make", "service/deploy", "make deploy", None),
        ("consul lock -child-exit-code service/deploy make", "service/deploy", "make deploy", None),
        ("consul lock -pass-stdin service/deploy make", "service/deploy", "make deploy", None),
        ("etcdctl lock deploy make deploy", "deploy", "make deploy deploy", None),
        ("etcdctl lock --ttl=60 deploy make deploy", "deploy", "make deploy deploy", None),
        ("etcdctl lock deploy", "deploy", "sleep infinity deploy", None),
        ("flock -w 5 /var/lock/deploy make -n deploy", "deploy", "make -n deploy deploy", Some(3)),
    ];
    let rows = rows("commands.md");
    let known: Vec<&str> = expected.iter().map(|(before, ..)| *before).collect();
    let written: Vec<&str> = rows.iter().map(|(before, _)| before.as_str()).collect();
    assert_eq!(known, written, "each row of docs/migration/commands.md has a test");
    for ((before, pool, commands, when_held), (_, after)) in expected.iter().zip(&rows) {
        let yard = Yard::new();
        let (done, ran) = yard.run(after);
        assert_eq!((done.code, ran.as_str()), (0, *commands), "{before} -> {after}: {done:?}");
        let held = yard.server.pool(pool)["free"] != yard.server.pool(pool)["locks"];
        assert!(!held, "{after} leaves the lock held");
        if let Some(code) = when_held {
            yard.server.cli(&["claim", pool, "--id", "others"]).ok();
            let (done, ran) = yard.run(&after.replace("-w 5", "-w 1"));
            assert_eq!((done.code, ran.as_str()), (*code, ""), "{after} while others hold it: {done:?}");
        }
    }
}

#[test]
fn readers_share_and_a_capacity_admits_as_many() {
    let yard = Yard::new();
    let after = |old: &str| {
        let rows = rows("commands.md");
        rows.into_iter().find(|(before, _)| before == old).unwrap().1
    };
    yard.server.cli(&["claim", "deploy", "--key", "readers", "--id", "reader"]).ok();
    assert_eq!(yard.run(&after("flock -s /var/lock/deploy make report")).0.code, 0, "readers hold it together");
    assert_eq!(yard.run(&after("flock -n /var/lock/deploy make deploy")).0.code, 3, "and keep a writer out");

    let workers = after("consul lock -n=3 service/workers make");
    yard.run(&workers).0.ok();
    for id in ["a", "b"] {
        yard.server.cli(&["claim", "service/workers", "--id", id]).ok();
    }
    assert_eq!(yard.run(&workers).1, "make 1", "a third holder");
    let quick = workers.replace("locker run", "locker run -n");
    yard.server.cli(&["claim", "service/workers", "--id", "c"]).ok();
    assert_eq!(yard.run(&quick).0.code, 3, "no fourth");
}

#[test]
fn a_command_of_two_meanings_is_refused() {
    let yard = Yard::new();
    for (line, code, text) in [
        ("locker run deploy make -n deploy", 2, "\"-n\" may be meant for `locker run` or for the command"),
        ("locker run deploy make --timeout 5", 2, "\"--timeout\" may be meant"),
        ("locker run -- deploy make", 2, "the pool is missing"),
        ("locker run deploy", 2, "the command of `locker run` comes after the pool"),
        ("locker run -n -E 256 deploy make", 2, "256"),
    ] {
        let (done, ran) = yard.run(line);
        done.failed(code, text);
        assert_eq!(ran, "", "{line}");
    }
    assert_eq!(yard.server.api("GET", "/pools", &Value::Null).1["items"], json!([]), "nothing was claimed");
    assert_eq!(
        yard.run("locker run deploy make -j4 -- -n").1,
        "make -j4 -- -n deploy",
        "all of it belongs to the command"
    );
}

/// As the plugin's API answers, shortened.
const LISTING: &str = r#"{"_class": "org.jenkins.plugins.lockableresources.actions.LockableResourcesRootAction", "resources": [
    {"name": "printer-1", "description": "Second floor", "labels": "printer color", "labelsAsList": ["printer", "color"],
     "note": "", "ephemeral": false, "locked": false, "reserved": false, "reservedBy": null, "buildName": null},
    {"name": "printer-2", "description": "", "labels": "printer", "note": "paper jam", "ephemeral": false,
     "locked": false, "reserved": true, "reservedBy": "Ada", "reservedTimestamp": 1700000000000, "buildName": null},
    {"name": "phone-1", "description": "", "labels": "phone region=eu", "ephemeral": false, "locked": true, "reserved": false,
     "reservedBy": null, "buildName": "app #12", "properties": [{"name": "imei", "value": "35"}]},
    {"name": "phone-2", "labels": "phone"},
    {"name": "commit-1a2b", "ephemeral": true, "locked": true, "buildName": "app #13"}]}"#;

const AS_CODE: &str = "
jenkins: {systemMessage: hello}
unclassified:
  lockableResourcesManager:
    declaredResources:
      - name: printer-1
        description: Second floor
        labels: printer color
      - {name: 12, labels: phone, reservedBy: maintenance until Friday}
";

#[test]
fn jenkins_resources_are_taken_over() {
    let server = Server::start();
    let import = ["import", "jenkins", "-"];
    let dry = server.cli_with(&["import", "jenkins", "-", "--dry-run"], LISTING.as_bytes());
    let dry = dry.ended(0, "7 to be done, 0 unchanged, 0 left alone");
    assert!(dry.stdout.contains("not taken: commit-1a2b: Jenkins made it for one build"), "{}", dry.stdout);
    assert_eq!(server.api("GET", "/pools", &Value::Null).1["items"], json!([]), "a dry run changes nothing");
    server.cli_with(&import, LISTING.as_bytes()).ended(0, "7 done, 0 unchanged, 0 left alone");
    server.cli_with(&import, LISTING.as_bytes()).ended(0, "0 done, 7 unchanged, 0 left alone");

    let lock = |name: &str| server.api("GET", &format!("/pools/jenkins/locks/{name}"), &Value::Null).1;
    let first = lock("printer-1");
    assert_eq!(first["labels"], json!({"printer": "x", "color": "x"}));
    assert_eq!((&first["state"], &first["metadata"]), (&json!("free"), &json!("{\"description\":\"Second floor\"}\n")));
    let reserved = lock("printer-2")["holders"][0].clone();
    assert_eq!(
        (&reserved["owner"]["person"], &reserved["reason"]),
        (&json!("Ada"), &json!("reserved in Jenkins by Ada"))
    );
    let phone = lock("phone-1");
    assert_eq!(phone["labels"], json!({"phone": "x", "region": "eu"}));
    assert_eq!(phone["metadata"], json!("{\"properties\":{\"imei\":\"35\"}}\n"));
    let reason = phone["holders"][0]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "held in Jenkins by app #12 at the import: release it when that build is over");
    assert_eq!((&lock("phone-2")["state"], &lock("phone-2")["metadata"]), (&json!("free"), &json!("")));

    let other = ["import", "jenkins", "-", "--pool", "devices"];
    server.cli_with(&other, AS_CODE.as_bytes()).ended(0, "4 done, 0 unchanged, 0 left alone");
    let twelve = server.api("GET", "/pools/devices/locks/12", &Value::Null).1;
    assert_eq!(twelve["holders"][0]["owner"]["person"], "maintenance until Friday");
}

#[test]
fn jenkins_input_that_is_wrong_changes_nothing() {
    let server = Server::start();
    let long = format!(r#"{{"resources": [{{"name": "a", "labels": "{}"}}]}}"#, "l".repeat(65));
    for (input, code, text) in [
        ("{\"resources\": [{\"name\": \"a/b\"}]}", 2, "resources[0].name"),
        ("{\"resources\": [{\"name\": \"a\"}, {\"name\": \"a\"}]}", 2, "occurs twice"),
        ("{\"resources\": [7]}", 2, "is not an object"),
        (&long, 2, "is too long"),
        ("{\"jobs\": []}", 2, "has no lockable resources"),
        ("unclassified: {}", 2, "has no lockable resources"),
        ("{\"resources\":", 2, "is not valid"),
        ("a: [", 2, "is not valid"),
    ] {
        server.cli_with(&["import", "jenkins", "-"], input.as_bytes()).failed(code, text);
    }
    assert_eq!(server.api("GET", "/pools", &Value::Null).1["items"], json!([]));
    server.cli(&["import", "jenkins", "/nowhere"]).failed(1, "cannot read \"/nowhere\"");
}

#[test]
fn each_lock_step_of_jenkins_has_its_command() {
    // The step, and what runs.
    let expected: &[(&str, &str)] = &[
        ("lock('printer-1') { sh 'make test' }", "make test printer-1"),
        ("lock(label: 'phone') { sh 'make test' }", "make test phone-2"),
        ("lock(label: 'phone', quantity: 2) { sh 'make test' }", "make test phone-2"),
        ("lock(resource: 'printer-1', skipIfLocked: true) { sh 'make test' }", "make test printer-1"),
        ("lock(label: 'phone', variable: 'NAME') { sh 'make NAME=$NAME' }", "make NAME=phone-2 phone-2"),
        ("lock(label: 'phone', inversePrecedence: true) { sh 'make' }", "make phone-2"),
        ("lock(label: 'phone', priority: 5) { sh 'make' }", "make phone-2"),
        ("lock(extra: [[resource: 'printer-1'], [resource: 'printer-2']]) { sh 'make' }", "make printer-1"),
    ];
    let rows = rows("jenkins.md");
    let written: Vec<&str> = rows.iter().map(|(before, _)| before.as_str()).collect();
    assert_eq!(expected.iter().map(|(before, _)| *before).collect::<Vec<_>>(), written, "each row has a test");
    let listing = LISTING.replace("\"reservedBy\": \"Ada\"", "\"reservedBy\": null");
    for ((before, commands), (_, after)) in expected.iter().zip(&rows) {
        let yard = Yard::new();
        yard.server.cli_with(&["import", "jenkins", "-"], listing.as_bytes()).ok();
        if before.contains("quantity") {
            yard.server.cli(&["lock", "add", "jenkins", "phone-3", "--label", "phone=x"]).ok();
        }
        let (done, ran) = yard.run(after);
        assert_eq!((done.code, ran.as_str()), (0, *commands), "{before} -> {after}: {done:?}");
        if before.contains("skipIfLocked") {
            yard.server.cli(&["claim", "jenkins", "--lock", "printer-1"]).ok();
            let (done, ran) = yard.run(after);
            assert_eq!((done.code, ran.as_str()), (0, ""), "skipped: {done:?}");
        }
    }
}
