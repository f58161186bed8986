//! Looking without taking: `locker wait`, `locker verify`, `locker watch`.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead as _, Write as _};

use crate::support::terminal::Terminal;
use crate::support::{Impostor, Running, Server, binary, eventually};
use nix::sys::signal::Signal;

fn waits(server: &Server, args: &[&str]) -> Running {
    Running::start(server.cli_command().arg("wait").args(args), b"")
}

#[test]
fn wait_ends_when_the_condition_holds() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "a"]).ok();
    server.cli(&["lock", "add", "p", "b"]).ok();
    // No wait is needed for what is already true.
    for args in [&["p", "--until", "free"][..], &["p", "--until", "empty"], &["p", "--lock", "a", "--until", "free"]] {
        waits(&server, args).finish().ok();
    }
    let held = waits(&server, &["p", "--until", "held"]);
    let full = waits(&server, &["p", "--until", "full"]);
    held.until_stderr("waiting: nothing is held");
    let a = server.cli(&["claim", "p", "--lock", "a"]).ok().stdout;
    held.finish().ok();
    full.until_stderr("waiting: held: \"a\" by ada@");
    let empty = waits(&server, &["p", "--until", "empty"]);
    let free = waits(&server, &["p", "--lock", "a", "--until", "free"]);
    empty.until_stderr("waiting: held: \"a\" by ada@");
    free.until_stderr("waiting: held: \"a\" by ada@");
    let b = server.cli(&["claim", "p", "--lock", "b"]).ok().stdout;
    full.finish().ok();
    server.cli(&["release", a.trim()]).ok();
    free.finish().ok();
    empty.until_stderr("waiting: held: \"b\" by ada@");
    server.cli(&["release", b.trim()]).ok();
    empty.finish().ok();
    assert_eq!(server.pool("p")["free"], 2, "nothing was taken");
}

#[test]
fn a_hold_that_is_over_at_once_is_not_missed() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "a"]).ok();
    let held = waits(&server, &["p", "--lock", "a", "--until", "held"]);
    held.until_stderr("waiting: nothing is held");
    let id = server.cli(&["claim", "p"]).ok().stdout;
    server.cli(&["release", id.trim()]).ok();
    held.finish().ok();
}

#[test]
fn wait_has_exit_codes() {
    let mut server = Server::start();
    server.cli(&["claim", "p"]).ok();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["p", "--until", "free", "--timeout", "200ms"], 3, "gave up after --timeout 200ms; held: \"p\" by ada@"),
        (&["q", "--until", "free"], 4, "no_such_pool"),
        (&["p", "--lock", "q", "--until", "free"], 4, "no_such_lock"),
        (&["p", "--until", "gone"], 2, "invalid value 'gone'"),
        (&["p"], 2, "--until"),
    ];
    for (args, code, text) in cases {
        waits(&server, args).finish().failed(*code, text);
    }
    let waiter = waits(&server, &["p", "--until", "free"]);
    waiter.until_stderr("waiting: ");
    waiter.signal(Signal::SIGTERM);
    waiter.finish().failed(143, "");
    server.kill();
    waits(&server, &["p", "--until", "free", "--timeout", "1s"]).finish().failed(6, "no answer");
}

#[test]
fn verify_says_yes_to_a_present_holder_only() {
    let mut server = Server::start();
    let claim = server.cli(&["claim", "p", "--json"]).ok().json();
    let fence = claim["fence"].to_string();
    let done = server.cli(&["verify", "p", "p", &fence]).ok();
    assert!(done.stdout.starts_with("held: \"p\" by ada@") && done.stderr.is_empty(), "{done:?}");
    let quiet = server.cli(&["verify", "p", "p", &fence, "--quiet"]).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let cases: &[(&[&str], i32, &str)] = &[
        (&["p", "p", "1"], 5, "not_held"),
        (&["p", "q", &fence], 5, "not_held"),
        (&["q", "p", &fence], 5, "not_held"),
        (&["p", "p", "-1"], 2, ""),
        (&["p", "p", "x"], 2, "invalid value"),
        (&["p", "p"], 2, "<FENCE>"),
    ];
    for (args, code, text) in cases {
        server.cli(&[&["verify"], *args].concat()).failed(*code, text);
    }
    // An unconfirmed grant is not a hold: a deploy must not start on it.
    server.cli(&["release", claim["id"].as_str().unwrap()]).ok();
    server.cli(&["verify", "p", "p", &fence]).failed(5, "not_held");
    let done = server.cli(&["verify", "p", "p", &fence, "-q"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (5, "", ""));
    server.kill();
    server.cli(&["verify", "p", "p", &fence]).failed(6, "no answer");
    // Another program at the server's address must not count as a yes.
    for (status, body) in [("200 OK", "{}"), ("200 OK", "welcome"), ("302 Found", ""), ("409 Conflict", "no")] {
        let impostor = Impostor::says(status, body);
        let mut command = crate::support::clean(binary());
        command.env("LOCKER_URI", &impostor.url).args(["verify", "p", "p", &fence]);
        Running::start(&mut command, b"").finish().failed(6, "no answer");
    }
}

#[test]
fn a_deploy_script_stops_when_its_lock_is_gone() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    // As docs/run.md shows it.
    let script = "set -e
        guard() { \"$LOCKER\" verify -q \"$LOCKER_POOL\" \"$LOCKER_NAME\" \"$LOCKER_FENCE\"; }
        guard; echo one >> steps
        echo $LOCKER_CLAIM > claim; until [ -e go ]; do sleep 0.01; done
        guard; echo two >> steps";
    let mut command = server.cli_command();
    command.env("LOCKER", binary()).current_dir(dir.path());
    command.args(["run", "p", "--ttl", "10m", "--shell", "--", script]);
    let running = Running::start(&mut command, b"");
    let path = dir.path().join("claim");
    let claim = eventually("claim", || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')));
    server.cli(&["release", claim.trim()]).ok();
    std::fs::write(dir.path().join("go"), "").unwrap();
    let done = running.finish();
    assert_ne!(done.code, 0, "{done:?}");
    assert_eq!(std::fs::read_to_string(dir.path().join("steps")).unwrap(), "one\n");
}

/// A process that ends with its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn watch_writes_a_line_for_each_change() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "a"]).ok();
    for args in [&["watch", "p"][..], &["watch"], &["status", "p", "--watch"]] {
        let output = tempfile::NamedTempFile::new().unwrap();
        let mut command = server.cli_command();
        command.args(args).stdout(output.reopen().unwrap()).stderr(std::process::Stdio::null());
        let mut watch = Killed(command.spawn().unwrap());
        let until_written = |text: &str| {
            eventually(text, || std::fs::read_to_string(output.path()).ok().filter(|all| all.contains(text)))
        };
        until_written("1");
        let id = server.cli(&["claim", "p"]).ok().stdout;
        until_written(" claimed \"a\" of pool \"p\" by ada@");
        server.cli(&["release", id.trim()]).ok();
        until_written(" released \"a\" of pool \"p\"");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(watch.0.id()).unwrap());
        nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        let status = eventually("the end of watch", || watch.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(130));
    }
    server.cli(&["watch", "q"]).failed(4, "no_such_pool");
}

#[test]
fn watch_draws_on_a_terminal_and_leaves_it_as_it_was() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "a"]).ok();
    for key in [&b"q"[..], b"\x03"] {
        // The settings of the terminal, before and after.
        let mut shell = crate::support::clean("/bin/sh");
        let line = "trap : INT; stty -a; \"$@\"; echo code $?; stty -a";
        shell.args(["-c", line, "sh", binary(), "watch", "p"]).env("LOCKER_URI", &server.url).env("NO_COLOR", "1");
        let mut terminal = Terminal::start(&shell);
        terminal.until_seen("\u{1b}[?1049h");
        terminal.until_seen("pool \"p\": 1 lock, 1 free, 0 waiting");
        let id = server.cli(&["claim", "p", "--reason", "why\u{1b}]0;x"]).ok().stdout;
        terminal.until_seen("pool \"p\": 1 lock, 0 free, 0 waiting");
        terminal.until_seen("because \"why\\u{1b}]0;x\"");
        let waiter = Running::start(server.cli_command().args(["claim", "p"]), b"");
        terminal.until_seen("PLACE");
        server.cli(&["release", id.trim()]).ok();
        let second = waiter.finish().ok().stdout;
        server.cli(&["release", second.trim()]).ok();
        terminal.press(key);
        let (code, seen) = terminal.finish();
        assert_eq!(code, 0, "{seen}");
        let (before, rest) = seen.split_once("\u{1b}[?1049h").unwrap();
        let (_, after) = rest.split_once("\u{1b}[?1049l").unwrap();
        let after = after.trim_start_matches("^C").trim_start_matches("\r\n");
        assert_eq!(format!("code 0\r\n{before}"), after, "{seen}");
    }
}

/// Stands for a server of an earlier release: it has no events.
fn without_events(server: &Server) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let address = server.address().to_owned();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let address = address.clone();
            std::thread::spawn(move || {
                let mut line = String::new();
                std::io::BufReader::new(&socket).read_line(&mut line).unwrap();
                let target = line.split(' ').nth(1).unwrap();
                let asked = if target.starts_with("/api/v1/events") { "/api/v1/nothing" } else { target };
                let answer = crate::support::http::Client::new(address).get(asked);
                let head = format!(
                    "HTTP/1.1 {} -\r\nconnection: close\r\ncontent-length: {}",
                    answer.status,
                    answer.body.len()
                );
                socket.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
                socket.write_all(&answer.body).unwrap();
            });
        }
    });
    url
}

#[test]
fn watch_asks_an_older_server_again_and_again() {
    let server = Server::start();
    server.cli(&["lock", "add", "p", "a"]).ok();
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut command = server.cli_command();
    command.env("LOCKER_URI", without_events(&server)).args(["watch", "p"]).stdout(output.reopen().unwrap());
    let _watch = Killed(command.stderr(std::process::Stdio::null()).spawn().unwrap());
    let until_written =
        |text: &str| eventually(text, || std::fs::read_to_string(output.path()).ok().filter(|all| all.contains(text)));
    until_written("1 lock, 1 free");
    server.cli(&["claim", "p"]).ok();
    until_written(" claimed \"a\" of pool \"p\" by ada@");
}
