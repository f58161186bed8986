//! The command line as people and scripts use it: texts, JSON, exit codes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use crate::support::certs::Files;
use crate::support::{Impostor, Running, Server, binary, clean};
use nix::sys::signal::Signal;

#[test]
fn a_lock_is_taken_shown_and_given_back() {
    let server = Server::start();
    assert!(server.cli(&["status"]).ok().stdout.contains("no pools yet"));
    server.cli(&["pool", "set", "envs", "--capacity", "2", "--max-hold", "4h"]).ok();
    let id = server.cli(&["claim", "envs", "--lock", "2", "--reason", "a look\u{1b}[31m"]).ok().stdout;
    let id = id.trim();
    assert_eq!(id.len(), 40);

    let pools = server.cli(&["status"]).ok().stdout;
    let lines: Vec<Vec<&str>> = pools.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["POOL", "LOCKS", "FREE", "WAITING", "LONGEST", "HOLD", "POLICY"]);
    assert_eq!((&lines[1][..4], lines[1].ends_with(&["max_hold", "4h"])), (&["envs", "2", "1", "0"][..], true));
    let pool = server.cli(&["status", "envs"]).ok().stdout;
    assert!(pool.contains("ada@") && pool.contains(id) && pool.contains("a look\\u{1b}[31m"), "{pool}");
    assert!(!pool.contains('\u{1b}'), "no colour and no escape outside a terminal");
    assert_eq!(server.pool("envs")["items"][1]["state"], "held");

    assert!(server.cli(&["release", id]).ok().stdout.contains("released claim"));
    assert!(server.cli(&["release", id]).ok().stdout.contains("had already ended"));
    let json = server.cli(&["claim", "envs", "--json", "--id", "mine"]).ok().json();
    assert_eq!((json["id"].as_str(), json["scope"].as_str()), (Some("mine"), Some("person")));
    let lock = json["locks"][0]["lock"].as_str().unwrap().to_owned();
    server.cli(&["release", "--pool", "envs", "--lock", &lock]).ok();
    assert_eq!(server.cli(&["pool", "list", "--json"]).ok().json()[0]["free"], 2);
    server.cli(&["pool", "remove", "envs"]).ok();
}

#[test]
fn locks_are_added_changed_and_removed() {
    let server = Server::start();
    server.cli_with(&["lock", "add", "p", "a", "--metadata", "-", "--label", "x=1"], b"\xff").ok();
    server.cli(&["lock", "add", "p", "a"]).failed(5, "lock_exists");
    server.cli(&["lock", "set", "p", "a", "--label", "x=2"]).ok();
    server.cli(&["lock", "set", "p", "a"]).failed(2, "nothing to change");
    assert_eq!(server.pool("p")["items"][0]["labels"]["x"], "2");
    let id = server.cli(&["claim", "p", "--label", "x=2"]).ok().stdout;
    server.cli(&["lock", "remove", "p", "a"]).failed(5, "lock_held");
    server.cli(&["lock", "remove", "p", "a", "--claim", id.trim()]).ok();
    assert_eq!(server.pool("p")["locks"], 0);
}

#[test]
fn a_pool_has_an_order_and_a_claim_its_place_in_it() {
    let server = Server::start();
    server.cli(&["pool", "set", "envs", "--capacity", "1", "--order", "priority"]).ok();
    assert_eq!(server.pool("envs")["policy"]["order"], "priority");
    let args = ["claim", "envs", "--json", "--priority", "-7", "--supersede", "/deploy"];
    let json = server.cli(&args).ok().json();
    assert_eq!((json["priority"].as_i64(), json["supersede"].as_str()), (Some(-7), Some("/deploy")));
    server.cli(&["pool", "set", "envs", "--reset"]).ok();
    assert!(server.pool("envs")["policy"]["order"].is_null());
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let mut server = Server::start();
    server.cli(&["claim", "p"]).ok();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["claim", "p", "--try"], 3, "not free; held: \"p\" by ada@"),
        (&["claim", "p", "--wait", "200ms"], 3, "gave up after --wait 200ms; nothing is held"),
        (&["claim", "p", "--lock", "x"], 4, "no_such_lock"),
        (&["claim", "p", "--count", "2"], 2, "too_many"),
        (&["claim", "p", "--count", "0"], 2, "--count"),
        (&["claim", "p", "--wait", "soon"], 2, "is not a duration such as 90s, 5m or 1h30m"),
        (&["claim", "p", "--priority", "-1001"], 2, "must be -1000 to 1000"),
        (&["pool", "set", "p", "--order", "fifi"], 2, "did you mean \"fifo\"?"),
        (&["claim", ".p"], 2, "starts with a dot"),
        (&["claim"], 2, "<POOL>"),
        (&["release", "nobody"], 4, "no_such_claim"),
        (&["release"], 2, "required"),
        (&["release", "--pool", "p", "--lock", "x"], 4, "no_such_lock"),
        (&["status", "x"], 4, "no_such_pool"),
        (&["pool", "remove", "p"], 5, "pool_in_use"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["--uri", "nonsense", "status"], 2, "must begin with http:// or https://"),
        (&["lock", "add", "p", "b", "--metadata", "/nonexistent"], 2, "cannot read"),
    ];
    for (args, code, text) in cases {
        server.cli(args).failed(*code, text);
    }
    server.kill();
    server.cli(&["status"]).failed(6, "no answer from the locker server");
}

#[test]
fn credentials_come_from_the_environment() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "hunter2")]);
    server.cli(&["status"]).failed(7, "unauthorized");
    let mut command = server.cli_command();
    command.env("LOCKER_USERNAME", "ci").env("LOCKER_PASSWORD", "hunter2").arg("status");
    Running::start(&mut command, b"").finish().ok();
    let mut command = server.cli_command();
    let help = Running::start(command.env("LOCKER_PASSWORD", "hunter2").args(["status", "--help"]), b"").finish().ok();
    assert!(help.stdout.contains("[env: LOCKER_PASSWORD]") && !help.stdout.contains("hunter2"), "{}", help.stdout);
}

#[test]
fn a_signal_ends_a_claim_that_waits() {
    let server = Server::start();
    server.cli(&["claim", "p"]).ok();
    let waiter = Running::start(server.cli_command().args(["claim", "p"]), b"");
    waiter.until_stderr("waiting: place 1 in the queue");
    waiter.signal(Signal::SIGINT);
    waiter.finish().failed(130, "SIGINT received");
    assert_eq!(server.pool("p")["waiting"], 0);
}

#[test]
fn a_reader_that_closes_early_is_not_an_error() {
    let server = Server::start();
    let script = format!("{} status --uri {} | true; echo ${{PIPESTATUS[0]}}", binary(), server.url);
    let done = Running::start(clean("/bin/bash").args(["-c", &script]), b"").finish().ok();
    assert_eq!((done.stdout.trim(), done.stderr.as_str()), ("0", ""));
}

#[test]
fn the_server_refuses_settings_that_make_no_sense() {
    let cases: &[(&[&str], &[(&str, &str)], i32, &str)] = &[
        (&[], &[("AUTH_USER", "x")], 2, "AUTH_USER is set without AUTH_PASS"),
        (&["--no-auth"], &[("AUTH_USER", "x"), ("AUTH_PASS", "y")], 2, "contradicts"),
        (&["--listen", "0.0.0.0:0"], &[], 1, "--no-auth"),
        (&["--grace", "x"], &[], 2, "is not a duration"),
        (&[], &[("LOCKER_HISTORY_SIZE", "many")], 2, "invalid value 'many' for '--history-size <SIZE>'"),
        (&["--store", "etcd"], &[], 1, "store"),
    ];
    for (args, vars, code, text) in cases {
        let mut command = clean(binary());
        command.args(["server", "--store", "memory:", "--listen", "127.0.0.1:0"]);
        // When an option is repeated, the last one wins.
        command.args(*args).envs(vars.iter().copied());
        Running::start(&mut command, b"").finish().failed(*code, text);
    }
}

#[test]
fn help_and_version_are_for_people() {
    for args in [&["--help"][..], &["server", "--help"], &["claim", "--help"], &["--version"]] {
        let done = Running::start(clean(binary()).args(args), b"").finish().ok();
        assert!(done.stdout.contains("locker") && done.stderr.is_empty(), "{done:?}");
    }
    let server = Running::start(clean(binary()).args(["server", "--help"]), b"").finish().ok();
    for name in ["[env: LOCKER_LISTEN]", "[env: LOCKER_STORE]", "LOCKER_NO_AUTH", "LOCKER_CONFIRM", "AUTH_USER", "PORT"]
    {
        assert!(server.stdout.contains(name), "{name}");
    }
}

/// As in the original locker, `PORT` alone changes only the port. It changes neither the address nor whether a password
/// is needed.
#[test]
fn port_alone_changes_the_port() {
    let mut command = clean(binary());
    command.args(["server", "--store", "memory:"]).env("PORT", "0");
    let server = Running::start(&mut command, b"");
    let line = server.until_stderr(" listening on ");
    assert!(line.contains("http://127.0.0.1:") && !line.contains(":8910"), "{line}");
    server.signal(Signal::SIGTERM);
    server.finish().ok();
}

#[test]
fn a_wait_without_a_server_fails_with_no_answer() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for uri in ["http://127.0.0.1:1", &silent] {
        for args in [
            &["claim", "p", "--try"][..],
            &["run", "p", "--try", "--", "true"],
            &["claim", "p", "--wait", "300ms"],
            &["run", "p", "--timeout", "300ms", "--", "true"],
        ] {
            let mut command = clean(binary());
            command.args(args).env("LOCKER_URI", uri);
            Running::start(&mut command, b"").finish().failed(6, "no answer from the locker server");
        }
    }
    // "No lock" is a different answer.
    let server = Server::start();
    server.cli(&["claim", "p"]).ok();
    server.cli(&["claim", "p", "--try"]).failed(3, "not free");
    server.cli(&["claim", "p", "--wait", "300ms"]).failed(3, "gave up after --wait 300ms; nothing is held");
}

// ---- what a server gets at its start

/// A server that must refuse to start, or that the test checks and kills.
fn server(vars: &[(&str, &str)]) -> Running {
    let mut command = clean(binary());
    command.args(["server", "--store", "memory:"]).envs(vars.iter().copied());
    Running::start(&mut command, b"")
}

#[test]
fn a_switch_in_the_environment_is_yes_or_no() {
    let open = |word: &str| server(&[("LOCKER_NO_AUTH", word), ("LOCKER_LISTEN", "0.0.0.0:0")]);
    for word in ["disabled", "never", "maybe", "2", "yes please"] {
        open(word).finish().failed(2, "LOCKER_NO_AUTH must be true or false");
    }
    for word in ["n", "N", "no", "off", "0", "false ", "f"] {
        open(word).finish().failed(1, "--no-auth");
    }
    for word in ["y", "YES", " true", "on", "1", "t"] {
        open(word).until_stderr("listening on");
    }
    for variable in ["LOCKER_DECLARED_ONLY", "LOCKER_VERIFY_BUILDS"] {
        server(&[(variable, "nope")]).finish().failed(2, &format!("{variable} must be true or false"));
    }
    let mut status = clean(binary());
    status.arg("status").env("LOCKER_SKIP_SSL_VALIDATION", "nope");
    Running::start(&mut status, b"").finish().failed(2, "LOCKER_SKIP_SSL_VALIDATION must be true or false");
}

#[test]
fn a_password_can_come_from_a_file_and_a_doubtful_one_gets_a_warning() {
    let files = Files::new();
    let file = files.write("password", "s3cret\n");
    let guarded = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS_FILE", &file)]);
    guarded.cli(&["status", "--username", "ci", "--password", "s3cret"]).ok();
    guarded.cli(&["status", "--username", "ci", "--password", "s3cret\n"]).failed(7, "unauthorized");
    let user = ("AUTH_USER", "ci");
    let refused = [
        (&[user, ("AUTH_PASS", "x"), ("AUTH_PASS_FILE", &file)][..], "are both set: unset one"),
        (&[user, ("AUTH_PASS_FILE", "/dev/zero")], "it is not a regular file"),
        (&[user, ("AUTH_PASS_FILE", "/nonexistent")], "AUTH_PASS_FILE: cannot read \"/nonexistent\""),
        (&[user, ("AUTH_PASS_FILE", "/dev/null")], "it is not a regular file"),
    ];
    for (vars, text) in refused {
        server(vars).finish().failed(2, text);
    }
    let doubtful = server(&[user, ("AUTH_PASS", "change-me\n"), ("LOCKER_LISTEN", "0.0.0.0:0")]);
    doubtful.until_stderr("AUTH_PASS ends in a newline");
    doubtful.until_stderr("everybody knows it");
    doubtful.until_stderr("the password is sent unencrypted to 0.0.0.0");
}

#[test]
fn a_password_file_that_never_ends_or_never_opens_does_not_block() {
    let files = Files::new();
    let pipe = files.path("pipe").to_str().unwrap().to_owned();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for file in ["/dev/zero", &pipe] {
        let concourse = format!("http://127.0.0.1:1,locker,{file}");
        server(&[("LOCKER_CONCOURSE", &concourse)]).finish().failed(1, "it is not a regular file");
    }
    for flag in ["--ca-cert", "--client-cert"] {
        let mut status = clean(binary());
        status.args(["status", "--uri", "https://127.0.0.1:1", flag, &pipe, "--client-key", &pipe]);
        Running::start(&mut status, b"").finish().failed(2, "it is not a regular file");
    }
}

// ---- text from others

#[test]
fn json_has_no_terminal_control_characters() {
    let server = Server::start();
    let reason = "a\u{9b}31m\u{202e}b\u{7f}";
    server.cli(&["claim", "p", "--reason", reason]).ok();
    for args in [&["status", "p", "--json"][..], &["export", "json"]] {
        let text = server.cli(args).ok().stdout;
        assert!(text.contains("\\u009b31m") && text.contains("\\u202e"), "{text}");
        assert!(!text.contains(['\u{9b}', '\u{202e}', '\u{7f}']), "{text}");
    }
    let view = server.cli(&["status", "p", "--json"]).json();
    assert_eq!(view["items"][0]["holders"][0]["reason"], reason, "it reads the same");
}

#[test]
fn a_listing_that_repeats_itself_ends() {
    let pools = Impostor::says("200 OK", r#"{"items":[],"next":"a"}"#);
    let pool = r#"{"pool":"p","locks":0,"free":0,"waiting":0,"policy":{},"items":[],"queue":[],"next":"a"}"#;
    let pool = Impostor::says("200 OK", pool);
    let change = r#"{"items":[{"revision":1,"at":"","kind":"claimed","pools":["p"],"locks":[]}],"next":"1"}"#;
    let changes = Impostor::says("200 OK", change);
    let text = "its listing repeats itself";
    for (at, args) in [(&pools, &["status"][..]), (&pool, &["status", "p"])] {
        let mut status = clean(binary());
        status.args(args).env("LOCKER_URI", &at.url);
        Running::start(&mut status, b"").finish().failed(6, text);
    }
    let source = serde_json::json!({"locker_uri": changes.url, "pool": "p"});
    let payload = serde_json::json!({"source": source, "version": {"ref": "1"}}).to_string();
    Running::start(clean(binary()).arg("check"), payload.as_bytes()).finish().failed(1, text);
}

#[test]
fn settings_are_checked_beside_a_running_server() {
    let server = Server::start_durable();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let access = file("access.yml", "rules:\n- {to: anyone, may: look, pools: '*'}\n");
    let bad = file("bad.yml", "rules:\n- {to: anyone, may: fly, pools: '*'}\n");
    let version = concat!("locker ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(server.cli(&["version"]).ok().stdout, version);
    let check = |flags: &[&str]| server.cli(&[&["version", "--check-config", "--"], flags].concat());
    let good = check(&["--store", server.store(), "--access", &access]).ok();
    assert_eq!(good.stdout, format!("{version}the settings can be used\n"));
    let faults =
        check(&["--access", &bad, "--notify", "/nowhere.yml", "--ssl-cert", "/no.pem", "--ssl-key", "/no.pem"]);
    assert_eq!((faults.code, faults.stdout.as_str()), (1, version), "{faults:?}");
    for text in ["fly", "/nowhere.yml", "/no.pem", "would not start with these settings: 3 faults"] {
        assert!(faults.stderr.contains(text), "{text}: {faults:?}");
    }
    check(&["--frist"]).failed(2, "--frist");
    let half = check(&["--ssl-cert", "x"]);
    assert!(half.code == 1 && half.stderr.contains("SSL_CERT is set without SSL_KEY"), "{half:?}");
    let stores = [
        (["--store", "sqlite:"].as_slice(), "names no file: write sqlite:FILE"),
        (&["--store", "memory:x"], "memory: takes no name"),
        (&["--store", "sqllite:x"], "store \"sqllite\"... is not of a known kind: write sqlite:FILE"),
        (&["--store", "postgres//ci:hunter2@db/x"], "is not of a known kind"),
        (&["--store", "postgres://ci@db/x?password_file=/no.pw"], "--store: cannot read /no.pw"),
        (&["--store", "etcd:db:2379?cert=/no.pem"], "--store: a client certificate needs its key"),
        (&["--link", "0.0.0.0:8911"], "say with --advertise HOST:PORT at which one"),
        (&["--link", "0.0.0.0:8911", "--advertise", "one"], "--advertise must be HOST:PORT"),
    ];
    for (flags, text) in stores {
        let fault = check(flags);
        assert!(fault.code == 1 && fault.stderr.contains(text), "{text}: {fault:?}");
        assert!(!fault.stderr.contains("hunter2"), "{fault:?}");
    }
    let warned = Running::start(
        server.cli_command().args(["version", "--check-config"]).env("AUTH_USER", "ci").env("AUTH_PASS", "change-me"),
        b"",
    );
    warned.finish().ok().said("warning: the password is the one from the examples");
}
