//! Names and other text of users at every interface of the real binary (API, files of `in`, terminal, log). They are
//! passed on unchanged or refused, and they cannot reach another file, another line or the terminal.

#![allow(clippy::unwrap_used, clippy::format_collect, reason = "tests fail by panicking, and need not be fast")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::{Build, Server, tree};
use locker::wire::escape::escape;
use serde_json::json;

#[test]
fn allowed_names_arrive_everywhere_unchanged() {
    let server = Server::start_durable();
    let longest = "x".repeat(128);
    let locks_of_32 = "🔒".repeat(32);
    let names = [
        "env 1",
        " blanks around ",
        "-rf",
        "a..b",
        "a%2fb",
        "a+b&c=d?e#f",
        "\"quoted\" 'twice' $(id) `id`",
        "<script>",
        "schlüssel",
        "\u{202e}gnp",
        &locks_of_32,
        &longest,
    ];
    for (id, name) in (1..).zip(names) {
        server.cli(&["lock", "add", "--metadata", "-", "--", name, name]).ok();
        let build = Build::new(&server, id, name);
        let put = build.out(&json!({"claim": name})).ok();
        assert_eq!(put.metadata("lock_name").as_deref(), Some(name));
        build.get(&put.version(), "got").ok();
        let got = build.input("got");
        assert_eq!(std::fs::read_to_string(got.join("name")).unwrap(), format!("{name}\n"));
        assert_eq!(std::fs::read_to_string(got.join("pool")).unwrap().trim_end_matches('\n'), name);
        assert!(got.join("locks").join(name).join(name).join("metadata").is_file(), "{:?}", tree(&got));
        let shown = server.cli(&["status", "--", name]).ok().stdout;
        assert!(shown.contains(&escape(name.trim())), "{name:?} is not in {shown}");
        is_harmless(&shown);
        assert_eq!(server.cli(&["status", "--json", "--", name]).ok().json()["pool"], name);
        build.out(&json!({"release": "got"})).ok();
    }
    let pools = server.cli(&["pool", "list", "--json"]).ok().json();
    let mut listed: Vec<_> = pools.as_array().unwrap().iter().map(|pool| pool["pool"].as_str().unwrap()).collect();
    let mut expected = names.to_vec();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    is_a_clean_log(&server.log());
}

#[test]
fn other_names_are_refused_by_the_server_the_resource_and_the_command_line() {
    let server = Server::start();
    let longer = "x".repeat(129);
    let emoji = format!("{}x", "🔒".repeat(32));
    let names = [
        "",
        ".",
        "..",
        ".hidden",
        "../etc",
        "a//b",
        "a/../b",
        "/etc/passwd",
        "a\nb",
        "a\r\nX: y",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{9b}2J",
    ];
    for name in names.into_iter().chain([longer.as_str(), &emoji]) {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in [format!("/api/v1/pools/{encoded}"), format!("/api/v1/pools/p/locks/{encoded}")] {
            let answer = put(&server, &path);
            assert!(answer.starts_with("HTTP/1.1 4"), "{name:?}: {answer}");
            is_harmless(&answer);
        }
        let build = Build::new(&server, 1, "p");
        let refused = build.out(&json!({"claim": name}));
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{name:?}: {refused:?}");
        is_harmless(&refused.stderr);
        let refused = Build::new(&server, 1, name).out(&json!({"acquire": true}));
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{name:?}: {refused:?}");
        is_harmless(&refused.stderr);
        let refused = server.cli(&["pool", "set", "--", name]);
        assert_eq!(refused.code, 2, "{name:?}: {refused:?}");
        is_harmless(&refused.stderr);
    }
    // The same holds for a file that names the lock.
    let build = Build::new(&server, 2, "p");
    build.input_with("dir", &[("name", b"../../etc\n"), ("metadata", b"")]);
    is_harmless(&build.out(&json!({"add": "dir"})).failed(1, "name").stderr);
    assert_eq!(server.cli(&["pool", "list", "--json"]).ok().json(), json!([]));
    is_a_clean_log(&server.log());
}

/// There are no control characters except line ends.
fn is_harmless(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\r'), "{text:?}");
}

/// Every line comes from this program.
fn is_a_clean_log(log: &str) {
    is_harmless(log);
    for line in log.lines() {
        assert!(line.starts_with("locker ") || line.starts_with("20"), "not a line of the log: {line:?}");
    }
}

/// A `PUT` without any help from a client library.
fn put(server: &Server, path: &str) -> String {
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let request =
        format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}
