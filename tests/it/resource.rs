//! The Concourse resource as Concourse runs it: the real binary under the names `check`, `in` and `out`, JSON on stdin,
//! against a real server. README.md and docs/contracts.md#pool-resource say what it does.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::support::{Build, Impostor, Running, Server, eventually, file, out_in, tree};
use nix::sys::signal::Signal;
use serde_json::json;

// ---- check

#[test]
fn check_lists_the_versions_of_its_own_pool() {
    let server = Server::start();
    let (a, b) = (Build::new(&server, 1, "a"), Build::new(&server, 2, "b"));
    assert!(a.check(None).is_empty(), "a pool that nobody knows has no versions");
    let claimed = a.out(&json!({"acquire": true})).ok().version();
    b.out(&json!({"acquire": true})).ok();
    let released = a.out(&json!({"release": "build"})).ok().version();
    let noted = a.out(&json!({"release": "build"})).ok().version();
    let again = a.out(&json!({"acquire": true})).ok().version();

    assert_eq!(a.check(None), std::slice::from_ref(&again), "without a version: the newest");
    let later = a.check(Some(&claimed));
    assert_eq!(later, [claimed.clone(), released.clone(), again.clone()], "oldest first, the given one too");
    assert_eq!(a.check(Some(&noted)), [noted, again.clone()], "noted is listed only when it is given");
    for unknown in ["1", "99999999999999", "8f3a2c", ""] {
        assert_eq!(a.check(Some(unknown)), std::slice::from_ref(&again), "unknown {unknown:?}: the newest");
    }
    assert!(!later.iter().any(|v| b.check(None).contains(v)), "changes of other pools never show");
}

#[test]
fn check_pages_through_a_long_history() {
    let server = Server::start_with("memory:", &[], &[]);
    let build = Build::new(&server, 1, "p");
    // One step with more entries than fit on a page, so that the rest is on other pages.
    server.cli(&["pool", "set", "p", "--capacity", "1500"]).ok();
    let first = build.check(None).remove(0);
    for capacity in ["1501", "1500", "1501"] {
        server.cli(&["pool", "set", "p", "--capacity", capacity]).ok();
    }
    let all = build.check(Some(&first));
    assert_eq!((all.len(), &all[0]), (4, &first), "each revision once");
    assert!(all.windows(2).all(|pair| pair[0].parse::<u64>().unwrap() < pair[1].parse::<u64>().unwrap()));
    assert_eq!(build.check(None), all[3..]);
}

#[test]
fn check_fails_clearly_when_the_server_is_away() {
    let mut server = Server::start();
    let build = Build::new(&server, 1, "p");
    server.kill();
    let payload = json!({"source": build.source}).to_string();
    let done = build.raw("check", None, payload.as_bytes()).failed(1, "no answer from the locker server at http://127");
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

// ---- in

#[test]
fn get_writes_every_file_byte_for_byte() {
    let server = Server::start();
    let metadata = b"user: x\nkey: \xff\x00\x1b[2J\r\nno newline at the end";
    server.cli_with(&["lock", "add", "envs", "eu 1 \u{e4}", "--metadata", "-"], metadata).ok();
    let build = Build::new(&server, 7, "envs");
    let claimed = build.out(&json!({"acquire": true, "ttl": "1h"})).ok();
    let (fence, claim) = (claimed.metadata("fence").unwrap(), claimed.metadata("claim").unwrap());
    assert!(claimed.metadata("held_until").is_some());
    let got = build.get(&claimed.version(), "envs").ok();
    assert_eq!(got.version(), claimed.version());
    assert_eq!(got.metadata("lock_name").as_deref(), Some("eu 1 \u{e4}"));

    let dir = build.input("envs");
    let mut files = tree(&dir);
    let everything = files.iter().position(|(name, _)| name == "locker.json").unwrap();
    let everything: serde_json::Value = serde_json::from_slice(&files.remove(everything).1).unwrap();
    assert_eq!(everything["hold"]["fence"].to_string(), fence);
    assert_eq!(everything["locks"][0]["lock"], "eu 1 \u{e4}");
    let expected = [
        ("claim", format!("{claim}\n").into_bytes()),
        ("envs/claimed/eu 1 \u{e4}", metadata.to_vec()),
        ("fence", format!("{fence}\n").into_bytes()),
        ("lock", format!(r#"{{"key":"{claim}","locked_by":{{"{claim}":1}}}}"#).into_bytes()),
        ("locks/envs/eu 1 \u{e4}/metadata", metadata.to_vec()),
        ("metadata", metadata.to_vec()),
        ("name", "eu 1 \u{e4}\n".as_bytes().to_vec()),
        ("pool", b"envs\n".to_vec()),
    ];
    assert_eq!(files, expected.map(|(name, content)| (name.to_owned(), content)));
}

#[test]
fn get_fails_when_the_hold_has_ended() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let claimed = build.out(&json!({"acquire": true})).ok().version();
    build.out(&json!({"release": "build"})).ok();
    let done = build.get(&claimed, "p").failed(1, "error: lock instance is no longer acquired");
    assert!(done.stderr.contains("released at "), "how and when: {}", done.stderr);
    assert!(tree(&build.input("p")).is_empty(), "nothing is left behind");

    // A new hold of the same claim is not the instance of the old version.
    let again = build.out(&json!({"acquire": true})).ok().version();
    build.get(&claimed, "p").failed(1, "error: lock instance is no longer acquired");
    build.get(&again, "p").ok();
}

#[test]
fn get_succeeds_after_release_removal_and_nothing() {
    let server = Server::start();
    server.cli_with(&["lock", "add", "p", "one", "--metadata", "-"], b"meta").ok();
    let build = Build::new(&server, 1, "p");
    build.out(&json!({"acquire": true})).ok();
    let released = build.out(&json!({"release": "build"})).ok().version();
    build.get(&released, "after-release").ok();
    let dir = build.input("after-release");
    assert_eq!((file(&dir, "name"), file(&dir, "metadata")), ("one\n".into(), "meta".into()));
    assert!(!dir.join("claim").exists() && !dir.join("fence").exists());
    assert_eq!(file(&dir, "lock"), "");

    let noted = build.out(&json!({"release": "build"})).ok().version();
    build.get(&noted, "after-nothing").ok();
    let names: Vec<String> = tree(&build.input("after-nothing")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["lock", "locker.json", "p/unclaimed/one", "pool"]);

    server.cli(&["lock", "remove", "p", "one"]).ok();
    let removed = build.check(None).remove(0);
    build.get(&removed, "after-removal").ok().said("removed \"one\"");
    assert!(!build.input("after-removal").join("name").exists());

    // A build that never asked can always clean up, even in a pool that does not exist.
    let stranger = Build::new(&server, 2, "unknown");
    let nothing = stranger.out(&json!({"release": "build"})).ok().version();
    stranger.get(&nothing, "x").ok();
}

#[test]
fn get_survives_a_blip_and_ends_at_a_signal() {
    use crate::support::proxy::{FAULTS, Proxy};
    let mut server = Server::start();
    let proxy = Proxy::before(&server.url);
    let build = Build::new(&server, 1, "p").at(&proxy.url);
    let claimed = build.out(&json!({"acquire": true})).ok().version();
    for message in ["/changes/", "/claims/", "/locks/"] {
        for fault in FAULTS {
            proxy.rule(message, fault);
            build.get(&claimed, "p").ok();
        }
    }
    server.kill();
    let away = Build::new(&server, 1, "p").var("LOCKER_GET_LIMIT", "500ms");
    away.get(&claimed, "q").failed(1, "no answer from the locker server");
    assert!(tree(&away.input("q")).is_empty());
    // Both end at once, although there is no answer.
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = Build::new(&server, 1, "p").at(&format!("http://{}", hung.local_addr().unwrap()));
    for (name, payload) in
        [("check", json!({"source": hung.source})), ("in", json!({"source": hung.source, "version": {"ref": claimed}}))]
    {
        let step = hung.start(name, Some(&hung.input("x")), payload.to_string().as_bytes());
        let start = Instant::now();
        step.signal(Signal::SIGTERM);
        let done = step.finish();
        assert_eq!((done.code, done.stdout.as_str()), (143, ""), "{name}: {}", done.stderr);
        assert!(start.elapsed() < Duration::from_secs(4), "{name}");
    }
}

#[test]
fn get_replaces_links_and_never_follows_them() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let claimed = build.out(&json!({"acquire": true})).ok().version();
    let elsewhere = tempfile::tempdir().unwrap();
    let victim = elsewhere.path().join("victim");
    std::fs::write(&victim, "keep").unwrap();
    let dir = build.input("p");
    for name in ["name", "metadata", "claim"] {
        std::os::unix::fs::symlink(&victim, dir.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(elsewhere.path(), dir.join("locks")).unwrap();
    build.get(&claimed, "p").ok();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "keep");
    assert_eq!(tree(elsewhere.path()).len(), 1);
    assert!(tree(&dir).iter().all(|(name, _)| !name.ends_with('@')), "no link is left");
}

#[test]
fn get_that_cannot_write_leaves_nothing() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let claimed = build.out(&json!({"acquire": true})).ok().version();
    // `name` is written last; a directory of that name cannot be replaced by a file.
    let in_the_way = build.input("p").join("name").join("x");
    std::fs::create_dir_all(&in_the_way).unwrap();
    let done = build.get(&claimed, "p").failed(1, "cannot write");
    assert!(done.stderr.contains("p/name: ") && done.stdout.is_empty(), "{}{}", done.stdout, done.stderr);
    assert!(in_the_way.exists());
    let left: Vec<_> = std::fs::read_dir(build.input("p")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["name"]);
    std::fs::remove_dir_all(build.input("p").join("name")).unwrap();
    build.get(&claimed, "p").ok();
}

/// Answers of the server become paths. A hostile server cannot make `in` write outside its directory or to the
/// terminal.
#[test]
fn get_writes_nowhere_else_whatever_the_server_says() {
    let real = Server::start();
    let answers = [
        (
            r#"{"items":[{"revision":7,"at":"x","kind":"released","pools":["p"],"locks":[{"pool":"p","lock":"a/../../evil"}]}]}"#,
            "lock name contains '/'",
        ),
        (
            r#"{"items":[{"revision":7,"at":"x","kind":"released","pools":["p"],"locks":[{"pool":"..","lock":"evil"}]}]}"#,
            "pool name starts with a dot",
        ),
        (
            r#"{"items":[{"revision":7,"at":"x","kind":"noted","pools":["p"],"locks":[{"pool":"p","lock":"a\u001b[2J"}]}]}"#,
            "lock name contains character U+001B",
        ),
    ];
    for (answer, text) in answers {
        let build = Build::new(&real, 1, "p").at(&Impostor::says("200 OK", answer).url);
        let done = build.get("7", "p").failed(1, text);
        assert!(!done.stderr.contains('\u{1b}'), "{}", done.stderr);
        let written = tree(build.dir.path());
        assert!(written.iter().all(|(name, _)| name.ends_with('@') || name.starts_with("put/")), "{written:?}");
        assert!(tree(&build.input("p")).is_empty());
    }
}

#[test]
fn get_refuses_an_invalid_version() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    build.out(&json!({"acquire": true})).ok();
    let dir = build.input("p");
    let without = json!({"source": build.source, "version": null}).to_string();
    build.raw("in", Some(&dir), without.as_bytes()).failed(1, "invalid payload (missing version)");
    build.get("8f3a2c", "p").failed(1, "was not made by this resource type");
    build.get("12345", "p").failed(1, "no_such_revision");
    build.raw("in", None, without.as_bytes()).failed(1, "missing argument");
}

// ---- out: asking

#[test]
fn the_same_step_run_again_finds_its_claim() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let first = build.out(&json!({"acquire": true})).ok();
    let again = build.out(&json!({"acquire": true, "reason": "a re-run", "ttl": "1h"})).ok();
    assert_eq!((first.version(), first.metadata("fence")), (again.version(), again.metadata("fence")));
    build.out(&json!({"claim": "p", "timeout": "200ms"})).failed(1, "no lock within the timeout of 200ms");
    assert_eq!(server.pool("p")["waiting"], 0);
}

#[test]
fn builds_are_served_in_the_order_they_asked() {
    let server = Server::start();
    let builds: Vec<Build> = (1..=4).map(|id| Build::new(&server, id, "p")).collect();
    let first = builds[0].out(&json!({"acquire": true})).ok();
    let mut waiting = Vec::new();
    for (count, build) in (1..).zip(&builds[1..]) {
        waiting.push(build.put(&json!({"acquire": true})));
        server.until_waiting("p", count);
    }
    let line = waiting[2].until_stderr("waiting: place 3 in the queue");
    assert!(line.contains("\"p\" by main/app/deploy #1 (https://ci.example.com/builds/1), since "), "{line}");
    assert!(line.contains("ahead: main/app/deploy #3 (https://ci.example.com/builds/3), main/app/deploy #2"), "{line}");

    let mut fence: u64 = first.metadata("fence").unwrap().parse().unwrap();
    for (build, waiter) in builds.iter().zip(waiting) {
        build.out(&json!({"release": "build"})).ok();
        let done = waiter.finish().ok().said("holding \"p\" of pool \"p\" after waiting ");
        let next: u64 = done.metadata("fence").unwrap().parse().unwrap();
        assert!(next > fence, "fences only grow");
        fence = next;
    }
}

#[test]
fn several_locks_labels_and_pools_are_given_all_or_none() {
    let server = Server::start();
    for (lock, region) in [("a", "eu"), ("b", "eu"), ("c", "us")] {
        server.cli(&["lock", "add", "p", lock, "--label", &format!("region={region}")]).ok();
    }
    server.cli(&["pool", "set", "db", "--capacity", "2"]).ok();
    let build = Build::new(&server, 1, "p");
    let params = json!({"acquire": true, "count": 2, "labels": {"region": "eu"}, "also": [{"pool": "db", "lock": 2}]});
    let claimed = build.out(&params).ok();
    build.get(&claimed.version(), "p").ok();
    let dir = build.input("p");
    assert_eq!(file(&dir, "name"), "a\n");
    for path in ["locks/p/a", "locks/p/b", "locks/db/2"] {
        assert!(dir.join(path).join("metadata").exists(), "{path}");
    }
    let other = Build::new(&server, 2, "p");
    other.out(&json!({"acquire": true, "labels": {"region": "eu"}, "queue": false})).failed(1, "not free");
    other.out(&json!({"acquire": true, "count": 4})).failed(1, "too_many");
    other.out(&json!({"claim": "x"})).failed(1, "no_such_lock");
    other.out(&json!({"claim": "c"})).ok();
    build.out(&json!({"release": "p"})).ok();
    assert_eq!(server.pool("db")["free"], 2);
}

#[test]
fn a_wait_ends_by_its_timeout_and_says_who_holds() {
    let server = Server::start();
    Build::new(&server, 1, "p").out(&json!({"acquire": true, "reason": "release 3\u{1b}[2J"})).ok();
    let done = Build::new(&server, 2, "p").out(&json!({"acquire": true, "timeout": "300ms"}));
    let done = done.failed(1, "held: \"p\" by main/app/deploy #1");
    assert!(done.stderr.contains("release 3\\u{1b}[2J"), "{}", done.stderr);
    assert!(!done.stderr.contains('\u{1b}'), "control characters are escaped");
    assert_eq!(server.pool("p")["waiting"], 0);
}

#[test]
fn a_newer_run_of_the_same_step_takes_over() {
    let server = Server::start();
    let (holder, build) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p").var("LOCKER_WAIT", "200ms"));
    holder.out(&json!({"acquire": true})).ok();
    let old = build.put(&json!({"acquire": true}));
    server.until_waiting("p", 1);
    let new = build.put(&json!({"acquire": true}));
    old.finish().failed(1, "another run of this step has taken over");
    assert_eq!(server.pool("p")["waiting"], 1, "the claim belongs to the newer run now");
    holder.out(&json!({"release": "build"})).ok();
    new.finish().ok();
}

// ---- out: signals and faults

#[test]
fn a_signal_withdraws_the_claim_at_once() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let server = Server::start();
        let holder = Build::new(&server, 1, "p");
        holder.out(&json!({"acquire": true})).ok();
        let waiter = Build::new(&server, 2, "p").put(&json!({"acquire": true}));
        server.until_waiting("p", 1);
        let start = Instant::now();
        waiter.signal(signal);
        waiter.signal(signal);
        waiter.finish().failed(code, "the claim was cancelled; nothing is held");
        assert!(start.elapsed() < Duration::from_secs(4), "2 s, with a margin for a busy machine");
        assert_eq!(server.pool("p")["waiting"], 0);
    }
}

#[test]
fn a_signal_ends_the_wait_for_a_server_that_is_away() {
    let mut server = Server::start();
    let build = Build::new(&server, 2, "p");
    server.kill();
    let waiter = build.put(&json!({"acquire": true}));
    let line = waiter.until_stderr("nothing listens there: is the server running");
    assert!(line.ends_with("; asking again"), "there is no place in a queue yet: {line}");
    let start = Instant::now();
    waiter.signal(Signal::SIGTERM);
    waiter.finish().failed(143, "SIGTERM received: no server has answered, so nothing is held");
    assert!(start.elapsed() < Duration::from_secs(4), "2 s, with a margin for a busy machine");
}

#[test]
fn a_wait_survives_the_servers_death_in_its_old_place() {
    let mut server = Server::start_durable();
    let holder = Build::new(&server, 1, "p");
    holder.out(&json!({"acquire": true})).ok();
    let second = Build::new(&server, 2, "p").var("LOCKER_PROGRESS", "0s").put(&json!({"acquire": true}));
    server.until_waiting("p", 1);
    let third = Build::new(&server, 3, "p").put(&json!({"acquire": true}));
    server.until_waiting("p", 2);
    server.kill();
    second.until_stderr("no answer from the locker server");
    server.again();
    holder.out(&json!({"release": "build"})).ok();
    let second = second.finish().ok();
    assert!(third.stderr().contains("waiting: place 2"), "{}", third.stderr());
    drop(third);
    assert!(second.metadata("fence").is_some());
}

#[test]
fn answers_of_another_server_are_retried_and_not_believed() {
    let answers = [
        (
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops",
            "status 502 from something that is not a locker server",
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "status 404 from something that is not a locker server",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", "does not come from a locker server"),
        (
            "HTTP/1.1 302 Found\r\nlocation: https://u:secret@sso.example.com/login?x\r\ncontent-length: 0\r\n\r\n",
            "it redirects (status 302) to https://sso.example.com/login: name that address instead",
        ),
    ];
    let server = Server::start();
    let waiting = answers.map(|(answer, text)| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut build = Build::new(&server, 1, "p");
        build.source["locker_uri"] = json!(format!("http://me:hunter2@{}", listener.local_addr().unwrap()));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 8192]);
                let _ = stream.write_all(answer.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes());
            }
        });
        (build.put(&json!({"acquire": true, "timeout": "1s"})), build, text)
    });
    for (waiter, _build, text) in waiting {
        let done = waiter.finish().failed(1, text);
        assert!(done.stderr.contains("error: no answer from the locker server at"), "{}", done.stderr);
        assert!(!done.stderr.contains("hunter2") && !done.stderr.contains("secret"), "{}", done.stderr);
    }
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "hunter2 \u{e4}:")]);
    let mut build = Build::new(&server, 1, "p");
    build.out(&json!({"acquire": true})).failed(1, "unauthorized");
    build.source["username"] = json!("ci");
    build.source["password"] = json!("wrong-one");
    let done = build.out(&json!({"acquire": true})).failed(1, "unauthorized");
    assert!(!done.stderr.contains("wrong-one"));
    build.source["password"] = json!("hunter2 \u{e4}:");
    let done = build.out(&json!({"acquire": true})).ok();
    assert!(!done.stderr.contains("hunter2") && !done.stdout.contains("hunter2"));
    build.source["username"] = json!(null);
    build.source["password"] = json!(null);
    build.source["locker_uri"] = json!(server.url.replace("http://", "http://ci:hunter2%20%C3%A4%3A@"));
    let done = build.out(&json!({"release": "build"})).ok();
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
}

// ---- out: releasing

#[test]
fn release_by_the_directory_of_our_get() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let claimed = build.out(&json!({"acquire": true})).ok().version();
    build.get(&claimed, "p").ok();
    // Claim in job A, release in another build of job B.
    let later = Build::new(&server, 2, "p");
    later.input_with("p", &[("claim", file(&build.input("p"), "claim").as_bytes()), ("name", b"p\n")]);
    let released = later.out(&json!({"release": "p"})).ok().said("released \"p\" of pool \"p\"");
    assert_eq!(released.metadata("lock_name").as_deref(), Some("p"));
    assert_eq!(server.pool("p")["free"], 1);

    // Another claim holds it now: the late release says so and changes nothing.
    Build::new(&server, 3, "p").out(&json!({"acquire": true})).ok();
    let again = later.out(&json!({"release": "p"})).ok().said("had already ended: released at ");
    assert_ne!(again.version(), released.version());
    assert_eq!(server.pool("p")["free"], 0);
    later.get(&again.version(), "noted").ok();

    let other = Build::new(&server, 4, "q");
    other.input_with(
        "p",
        &[("claim", server.pool("p")["items"][0]["holders"][0]["claim"].as_str().unwrap().as_bytes())],
    );
    other.out(&json!({"release": "p"})).failed(1, "belongs to pool \"p\", not to pool \"q\"");
    assert_eq!(server.pool("p")["free"], 0);
}

#[test]
fn release_refuses_what_it_cannot_know() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    build.out(&json!({"release": "nowhere"})).failed(1, "this put has no input \"nowhere\" (it has none)");
    build.input_with("empty", &[]);
    build.out(&json!({"release": "empty"})).failed(1, "needs the file claim or the file name; both are missing");
    build.input_with("pipe", &[]);
    let pipe = std::process::Command::new("mkfifo").arg(build.input("pipe").join("name")).status();
    assert!(pipe.unwrap().success());
    build.out(&json!({"release": "pipe"})).failed(1, "pipe/name: it is not a regular file");
    build.input_with("bad", &[("claim", b"../x")]);
    build.out(&json!({"release": "bad"})).failed(1, "claim id contains '/'");
    build.input_with("unknown", &[("claim", b"0123")]);
    build.out(&json!({"release": "unknown"})).failed(1, "no_such_claim");
    let outside = Build::new(&server, 1, "p").var("BUILD_ID", "");
    outside.out(&json!({"release": "build"})).failed(1, "ATC_EXTERNAL_URL and BUILD_ID are not set");
}

#[test]
fn release_by_name_frees_the_present_holder() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let (a, b) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    a.out(&json!({"claim": 1})).ok();
    a.out(&json!({"claim": 2})).ok();
    b.input_with("env", &[("name", b"  1 \n"), ("metadata", b"")]);
    b.out(&json!({"release": "env"})).ok().said("released \"1\", held by main/app/deploy #1");
    b.out(&json!({"release": "env"})).failed(1, "lock \"1\" of pool \"p\" is not held: nothing to release");
    b.out(&json!({"release": {"lock": 2}})).ok();
    b.out(&json!({"release": {"lock": "x"}})).failed(1, "no_such_lock");
    assert_eq!(server.pool("p")["free"], 2);
}

#[test]
fn a_lost_hold_cannot_be_released() {
    let server = Server::start_with("memory:", &["--drain", "0s"], &[]);
    let build = Build::new(&server, 1, "p");
    let claimed = build.out(&json!({"acquire": true, "ttl": "1s"})).ok().version();
    build.get(&claimed, "p").ok();
    eventually("the ttl is over", || (server.pool("p")["free"] == 1).then_some(()));
    build.out(&json!({"release": "p"})).failed(1, "has already ended: lost at ");
    build.get(&claimed, "q").failed(1, "error: lock instance is no longer acquired");
}

#[test]
fn release_of_a_build_ends_all_of_it_and_nothing_else() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let (build, other) = (Build::new(&server, 1, "p"), Build::new(&server, 2, "p"));
    build.out(&json!({"acquire": true, "as": "one"})).ok();
    other.out(&json!({"acquire": true})).ok();
    let waiting = build.put(&json!({"acquire": true, "as": "two"}));
    server.until_waiting("p", 1);
    build.out(&json!({"release": "build", "as": "none"})).ok().said("nothing to do");
    assert_eq!(server.pool("p")["waiting"], 1);
    build.out(&json!({"release": "build", "as": "two"})).ok().said("which was waiting");
    let ended = "error: the claim has ended (cancelled): it was cancelled before it held anything; nothing is held\n";
    waiting.finish().failed(1, ended);
    assert_eq!(server.pool("p")["free"], 0, "`one` is still held");
    build.out(&json!({"release": "build"})).ok().said("released ");
    assert_eq!(server.pool("p")["free"], 1, "the other build's is still held");
    build.out(&json!({"release": "build"})).ok().said("holds nothing here");
}

#[test]
fn release_is_bounded_when_the_server_is_away() {
    let mut server = Server::start();
    let build = Build::new(&server, 1, "p").var("LOCKER_RELEASE_LIMIT", "500ms");
    server.kill();
    build.out(&json!({"release": "build"})).failed(1, "gave up after 500ms");
    let slow = Build::new(&server, 1, "p");
    let release = slow.put(&json!({"release": "build"}));
    release.until_stderr("releasing everything of build 1");
    release.signal(Signal::SIGTERM);
    release.finish().failed(143, "SIGTERM received");
}

// ---- locker-resource

#[test]
fn lock_op_shares_by_key() {
    let server = Server::start();
    let build = |id| Build::with_source(&server, id, &json!({"lock_name": "deploys"}));
    let lock = |key: &str, who: &str| json!({"lock_op": "lock", "key": key, "lock_by": who, "timeout": "300ms"});
    let unlock = |key: &str, who: &str| json!({"lock_op": "unlock", "key": key, "locked_by": who});
    let locked = build(1).out(&lock("k", "a")).ok();
    assert_eq!(
        (locked.metadata("lock").as_deref(), locked.metadata("status").as_deref()),
        (Some("deploys"), Some("locked"))
    );
    build(2).out(&lock("k", "b")).ok();
    build(3).out(&lock("k", "b")).ok();
    build(4).out(&lock("other", "c")).failed(1, "key \"k\"");

    let get = |id: u32, version: &str| {
        let build = build(id);
        build.get(version, "l").ok();
        file(&build.input("l"), "lock")
    };
    assert_eq!(get(1, &locked.version()), r#"{"key":"k","locked_by":{"a":1,"b":2}}"#);
    build(4).out(&unlock("other", "c")).failed(1, "not with key \"other\"");
    let unlocked = build(2).out(&unlock("k", "b")).ok();
    assert_eq!(unlocked.metadata("status").as_deref(), Some("unlocked"));
    assert_eq!(get(2, &unlocked.version()), r#"{"key":"k","locked_by":{"a":1}}"#);
    build(2).out(&unlock("k", "b")).ok().said("holds nothing");
    build(1).out(&unlock("k", "a")).ok();
    assert_eq!(get(1, &locked.version()), "", "empty without a holder, and not a failure");
    let never = build(9).out(&unlock("k", "a")).ok().version();
    assert_eq!(get(9, &never), "");
}

// ---- add

#[test]
fn add_puts_a_lock_in_byte_for_byte() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let metadata = b"\xffbinary\0";
    build.input_with("new", &[("name", b" env 1 \n"), ("metadata", metadata)]);
    let added = build.out(&json!({"add": "new", "labels": {"region": "eu"}})).ok();
    assert_eq!(added.metadata("lock_name").as_deref(), Some("env 1"));
    assert_eq!(build.check(None), [added.version()]);
    build.get(&added.version(), "got").ok();
    assert_eq!(std::fs::read(build.input("got").join("metadata")).unwrap(), metadata);
    assert_eq!(build.out(&json!({"add": "new", "labels": {"region": "eu"}})).ok().version(), added.version(), "again");
    let other = Build::new(&server, 2, "p");
    other.input_with("new", &[("name", b"env 1"), ("metadata", b"")]);
    other.out(&json!({"add": "new"})).failed(1, "lock_exists");
    build.out(&json!({"acquire": true, "labels": {"region": "eu"}})).ok();

    build.input_with("bare", &[("name", b"x")]);
    build.out(&json!({"add": "bare"})).failed(1, "metadata is missing (it may be empty)");
    build.input_with("hidden", &[("name", b".git"), ("metadata", b"")]);
    build.out(&json!({"add": "hidden"})).failed(1, "starts with a dot");
    build.input_with("long", &[("name", "x".repeat(129).as_bytes()), ("metadata", b"")]);
    build.out(&json!({"add": "long"})).failed(1, "129 bytes > max of 128");
}

// ---- payloads

#[test]
fn payloads_are_checked_whole() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let dir = build.input("x");
    let bad = br#"{"source": null, "params": {"aquire": true}}"#;
    let text = "error: invalid payload (missing locker_uri, missing pool, unknown params key \"aquire\": did you mean \"acquire\"?)";
    build.raw("out", Some(&dir), bad).failed(1, text);
    let worse = json!({"source": build.source, "params": {
        "acquire": "yes", "claim": "a/b", "ttl": "soon", "also": [{"pol": "q"}], "labels": [], "timout": "3s"}});
    let done = build.raw("out", Some(&dir), worse.to_string().as_bytes()).failed(1, "error: invalid payload (");
    for problem in [
        "params.acquire: must be true or false",
        "acquire and claim cannot be in one put",
        "params.ttl: is not a duration",
        "unknown params.also key \"pol\": did you mean \"pool\"?",
        "params.labels: must be",
        "unknown params key \"timout\": did you mean \"timeout\"?",
    ] {
        assert!(done.stderr.contains(problem), "{problem}: {}", done.stderr);
    }
    build.raw("out", Some(&dir), b"").failed(1, "invalid payload (stdin is not valid JSON");
    build.raw("check", None, br#"{"source": null}"#).failed(1, "invalid payload (missing locker_uri, missing pool)");
}

#[test]
fn git_settings_get_one_warning() {
    let server = Server::start();
    let source = json!({"pool": "p", "uri": "git@example.com:locks", "branch": "main", "private_key": "hunter2"});
    let build = Build::with_source(&server, 1, &source);
    let done = build.out(&json!({"acquire": true})).ok();
    let warnings: Vec<&str> = done.stderr.lines().filter(|line| line.starts_with("warning:")).collect();
    assert_eq!(warnings, ["warning: ignored, because a Locker pool has no Git repository: uri, branch, private_key"]);
    // With an address that begins with http, user and password are those of the repository.
    let guarded = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "hunter22")]);
    let with = |uri: &str| {
        let source = json!({"pool": "p", "uri": uri, "branch": "main", "username": "ci", "password": "hunter22"});
        Build::with_source(&guarded, 1, &source)
    };
    with("git@example.com:locks").out(&json!({"acquire": true})).ok();
    for uri in ["https://git.example.com/locks.git", "HTTP://git.example.com/locks.git"] {
        let warning = "no Git repository: uri, branch, username, password (the last ones count for that uri: to use them for the locker";
        let refusal =
            "(unauthorized): username and password were not sent, because with a uri of http(s) in the source";
        let done = with(uri).out(&json!({"acquire": true})).failed(1, refusal).said(": remove uri").said(warning);
        assert!(!done.stderr.contains("hunter22"), "{}", done.stderr);
        let payload = json!({"source": with(uri).source, "version": {"ref": "1"}}).to_string();
        for (step, dir) in [("check", None), ("in", Some(with(uri).input("x")))] {
            with(uri).raw(step, dir.as_deref(), payload.as_bytes()).failed(1, refusal);
        }
        with(uri).out(&json!({"release": "build"})).failed(1, refusal);
        let mut doctor = guarded.cli_command();
        let doctor =
            Running::start(doctor.arg("doctor").env("LOCKER_SOURCE", with(uri).source.to_string()), b"").finish();
        assert!(doctor.code == 7 && doctor.stdout.matches("remove uri").count() == 2, "{doctor:?}");
    }
    // What else a refusal of credentials says.
    let nobody = Build::new(&guarded, 1, "p");
    nobody.out(&json!({"acquire": true})).failed(1, "(unauthorized): set username and password in the source");
    let wrong = Build::with_source(&guarded, 1, &json!({"pool": "p", "username": "ci", "password": "other"}));
    wrong.out(&json!({"acquire": true})).failed(1, "(unauthorized): compare username and password with AUTH_USER");
    // `depth` was a param of gets.
    let params = json!({"source": build.source, "version": {"ref": done.version()}, "params": {"depth": 1}});
    let got = build.raw("in", Some(&build.input("p")), params.to_string().as_bytes()).ok();
    let warnings: Vec<&str> = got.stderr.lines().filter(|line| line.starts_with("warning:")).collect();
    assert_eq!(warnings.len(), 1, "{}", got.stderr);
    assert!(warnings[0].ends_with(": uri, branch, private_key, depth"), "{}", got.stderr);
}

#[test]
fn a_version_that_nobody_reads_holds_nothing() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let stderr = build.out_into(&json!({"acquire": true}), writer.into());
    assert!(stderr.contains("cannot write the version to stdout; the claim was cancelled"), "{stderr}");
    assert_eq!(server.pool("p")["free"], 1);
    let stderr = build.out_without_stdout(&json!({"acquire": true}));
    assert!(stderr.contains("cannot write the version to stdout; the claim was cancelled"), "{stderr}");
    assert_eq!(server.pool("p")["free"], 1);
}

#[test]
fn a_put_sends_only_files_below_the_directory_that_it_names() {
    let server = Server::start();
    let build = Build::new(&server, 1, "p");
    build.input_with("secret", &[("name", b"x"), ("metadata", b"private key")]);
    for (n, target) in ["../secret/metadata", "/proc/self/environ", "/etc/hostname"].into_iter().enumerate() {
        let name = format!("linked-{n}");
        let dir = build.input_with(&name, &[("name", name.as_bytes())]);
        std::os::unix::fs::symlink(target, dir.join("metadata")).unwrap();
        let said = format!("add: cannot use the file {name}/metadata: it is a symbolic link");
        build.out(&json!({"add": name})).failed(1, &said);
    }
    std::os::unix::fs::symlink("secret", build.dir.path().join("put/link")).unwrap();
    build.out(&json!({"add": "link"})).failed(1, "is not a directory, or is a symbolic link");
    build.out(&json!({"add": "../put/secret"})).failed(1, "is not inside the inputs of this put");
    let outside = build.dir.path().join("put/secret");
    build.out(&json!({"add": outside})).failed(1, "is not inside the inputs of this put");
    assert_eq!(server.call("GET /api/v1/pools/p", "").status, 404, "nothing was sent");
}

#[test]
fn no_setting_makes_a_waiter_ask_without_a_pause() {
    let server = Server::start();
    Build::new(&server, 1, "p").out(&json!({"acquire": true})).ok();
    let waiter = Build::new(&server, 2, "p").var("LOCKER_WAIT", "0s").var("LOCKER_RETRY_MAX", "0s");
    waiter.out(&json!({"acquire": true, "timeout": "1s"})).failed(1, "no lock within the timeout of 1s");
    let asked = server.log().lines().filter(|line| line.contains("PUT") && line.contains("claims/{id}")).count();
    assert!(asked <= 15, "asked {asked} times in a second, where once in 100 ms is enough");
}

#[test]
fn a_name_makes_the_claim_the_same_on_every_worker() {
    let server = Server::start();
    server.cli(&["pool", "set", "p", "--capacity", "2"]).ok();
    let named = json!({"acquire": true, "as": "env"});
    let first = out_in("container-1", &server, &named);
    assert_eq!(first.0, 0);
    let version = |answer: &(u8, String, String)| {
        serde_json::from_str::<serde_json::Value>(&answer.1).unwrap()["version"].clone()
    };
    assert_eq!(version(&out_in("container-2", &server, &named)), version(&first));
    let unnamed = json!({"acquire": true});
    assert_ne!(version(&out_in("container-2", &server, &unnamed)), version(&first));
    assert_eq!(out_in("container-3", &server, &json!({"acquire": true, "queue": false})).0, 1);
}
