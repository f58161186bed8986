//! Looking: `status` with many pools and waiters, `claims`, and how they fit a terminal.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use crate::support::{Build, Running, Server};
use serde_json::{Value, json};

fn ask(server: &Server, id: &str, body: &Value) -> u16 {
    server.api("PUT", &format!("/claims/{id}"), body).0
}

/// 60 pools, some of them held, and 500 waiters.
fn crowd() -> Server {
    let server = Server::start();
    for n in 0..60 {
        let pool = format!("pool-{n:02}");
        assert_eq!(server.api("PUT", &format!("/pools/{pool}"), &json!({"capacity": 2})).0, 200);
    }
    for n in 0..2 {
        assert_eq!(ask(&server, &format!("h{n}"), &json!({"pool": "pool-07", "owner": {"person": "ada"}})), 200);
    }
    assert_eq!(ask(&server, "h2", &json!({"pool": "pool-30", "count": 2})), 200);
    for n in 0..490 {
        assert_eq!(ask(&server, &format!("w{n}"), &json!({"pool": "pool-30", "owner": {"job": "deploy"}})), 423);
    }
    for n in 0..10 {
        assert_eq!(ask(&server, &format!("v{n}"), &json!({"pool": "pool-07"})), 423);
    }
    server.cli(&["lock", "quarantine", "pool-59", "1", "--reason", "disk full"]).ok();
    server
}

#[test]
fn a_crowd_can_be_looked_at() {
    let server = crowd();
    let all = server.cli(&["status"]).ok().stdout;
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 62);
    assert!(lines[0].contains("LONGEST WAIT") && lines[0].contains("LONGEST HOLD"), "{}", lines[0]);
    assert_eq!(lines[61], "60 pools: 120 locks, 115 free, 500 waiting");
    assert!(lines[60].contains("1 quarantined"), "{}", lines[60]);
    let names = |args: &[&str]| -> Vec<String> {
        let text = server.cli(&[&["status"], args].concat()).ok().stdout;
        text.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--waiting"])[..2], ["pool-07", "pool-30"]);
    assert_eq!(names(&["--waiting", "--sort", "waiting"])[..2], ["pool-30", "pool-07"]);
    assert_eq!(names(&["--waiting", "--sort", "wait"])[..2], ["pool-30", "pool-07"]);
    assert_eq!(names(&["--sort", "hold"])[..2], ["pool-07", "pool-30"]);
    assert_eq!(names(&["--sort", "free"])[..3], ["pool-07", "pool-30", "pool-59"]);
    server.cli(&["status", "--sort", "size"]).failed(2, "possible values");
    // One pool: its locks and the head of its queue, or its whole queue.
    let pool = server.cli(&["status", "pool-30"]).ok().stdout;
    assert!(pool.starts_with("pool \"pool-30\": 2 locks, 0 free, 490 waiting\n"), "{pool}");
    assert!(pool.ends_with("and 470 more (--waiting shows the whole queue)\n"), "{pool}");
    let queue = server.cli(&["status", "pool-30", "--waiting"]).ok().stdout;
    assert!(queue.lines().count() == 493 && queue.contains("w489") && !queue.contains("HOLDER"), "{queue}");
    let quiet = Server::start();
    quiet.cli(&["claim", "p"]).ok();
    assert!(quiet.cli(&["status", "p"]).ok().stdout.starts_with("pool \"p\": 1 lock, 0 free, 0 waiting\n"));
    let doctor = quiet.cli(&["doctor", "--uri", &quiet.url, "--pool", "p"]).ok().stdout;
    assert!(doctor.contains("\"p\": 1 lock, 0 free, 0 waiting"), "{doctor}");
    assert_eq!(quiet.cli(&["status", "--waiting"]).ok().stdout, "nobody waits in 1 pool\n");
}

#[test]
fn an_ended_claim_says_what_it_held_and_who_released_it() {
    let server = Server::start();
    server.cli(&["pool", "set", "envs", "--capacity", "2"]).ok();
    let build = Build::new(&server, 7, "envs");
    let claim = build.out(&json!({"acquire": true, "reason": "release 1.2"})).ok().metadata("claim").unwrap();
    let held = server.cli(&["claims", &claim]).ok().stdout;
    assert!(held.contains("claimed  envs: 1  main/app/deploy #7"), "{held}");
    let mut command = server.cli_command();
    command.args(["release", "--pool", "envs", "--lock", "1"]).env("USER", "ada");
    Running::start(&mut command, b"").finish().ok();
    let ended = server.cli(&["claims", &claim]).ok().stdout;
    assert!(ended.contains("  ended       it was released by ada@"), "{ended}");
    let released = ended.lines().find(|line| line.contains(" released  ")).unwrap_or_else(|| panic!("{ended}"));
    assert!(released.contains("envs: 1  ada@"), "{ended}");
    assert!(ended.contains("claimed   envs: 1  main/app/deploy #7"), "{ended}");

    // Another build that knows only the name of the lock.
    for (id, params) in [(8, json!({"release": {"lock": "2"}})), (9, json!({"release": {"lock": "2"}, "now": true}))] {
        let claim = Build::new(&server, 7, "envs").out(&json!({"claim": "2"})).ok().metadata("claim").unwrap();
        Build::new(&server, id, "envs").out(&params).ok();
        let ended = server.cli(&["claims", &claim]).ok().stdout;
        let released = ended.lines().find(|line| line.contains(" released  ")).unwrap_or_else(|| panic!("{ended}"));
        assert!(released.contains(&format!("envs: 2  main/app/deploy #{id}")), "{ended}");
    }
    // A build's own release is its own.
    let claim = build.out(&json!({"claim": "2", "as": "own"})).ok().metadata("claim").unwrap();
    build.out(&json!({"release": "build"})).ok();
    let ended = server.cli(&["claims", &claim]).ok().stdout;
    assert!(ended.contains("released  envs: 2  main/app/deploy #7"), "{ended}");
}

#[test]
fn looking_at_a_claim_never_takes_it_again() {
    let server = Server::start();
    let id = server.cli(&["claim", "envs", "--reason", "a look", "--ttl", "2h"]).ok().stdout;
    let id = id.trim();
    let held = server.cli(&["claims", id]).ok().stdout;
    for fact in ["is held, since ", "locks       \"envs\" of pool \"envs\"", "reason      a look", "scope       person"]
    {
        assert!(held.contains(fact), "{fact}: {held}");
    }
    assert_eq!(ask(&server, "w", &json!({"pool": "envs", "owner": {"job": "deploy", "build_id": "7"}})), 423);
    let list = server.cli(&["claims"]).ok().stdout;
    assert!(list.ends_with("2 claims\n") && list.find("held").unwrap() < list.find("waiting").unwrap(), "{list}");
    assert!(server.cli(&["claims", "--state", "waiting"]).ok().stdout.contains("a lock of pool \"envs\""));
    assert!(server.cli(&["claims", "--build", "7"]).ok().stdout.ends_with("1 claim\n"));
    assert_eq!(server.cli(&["claims", "--pool", "other"]).ok().stdout, "no claims\n");
    let waits = server.cli(&["claims", "w"]).ok().stdout;
    assert!(waits.contains("place       1 in the queue") && waits.contains("\"envs\" by ada@"), "{waits}");
    let step = Build::new(&server, 8, "envs").put(&json!({"acquire": true}));
    server.until_waiting("envs", 2);
    let id_of_step =
        server.cli(&["claims", "--build", "8", "--json"]).ok().json()[0]["id"].as_str().unwrap().to_owned();
    server.cli(&["release", &id_of_step]).ok().printed("cancelled claim ");
    step.finish().failed(1, "the claim has ended (cancelled): it was cancelled before it held anything by ada@");
    server.cli(&["break", id, "--reason", "its owner is away"]).ok();
    let ended = server.cli(&["claims", id]).ok().stdout;
    assert!(ended.contains(" has ended, at ") && ended.contains("it was ended by force by ada@"), "{ended}");
    assert!(ended.contains(": \"its owner is away\" (broken)"), "{ended}");
    assert_eq!(server.api("GET", &format!("/claims/{id}"), &Value::Null).1["state"], "ended");
    assert!(server.cli(&["claims", "--state", "ended"]).ok().stdout.contains("ended: broken"));
    assert_eq!(server.cli(&["claims", id, "--json"]).ok().json()["how"], "broken");
    server.cli(&["claims", "none"]).failed(4, "no claim");
    server.cli(&["claims", "--state", "ended", "--pool", "envs"]).failed(2, "cannot be combined");
}
