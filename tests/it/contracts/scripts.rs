//! What people paste, and what the original resource runs: curl, jq and shell.

use std::process::{Command, Output};

use crate::support::Server;

/// Runs a POSIX shell script that finds the server at `$URL`. With `-e`, each command must succeed.
fn shell(server: &Server, script: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).env("URL", &server.url).env("no_proxy", "*");
    command.output().expect("a shell")
}

/// Runs a script that must succeed, and returns what it wrote.
#[track_caller]
fn output(server: &Server, script: &str) -> String {
    let output = shell(server, script);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{script}\n{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

/// The head of an answer, and its body.
fn head_and_body(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap(), body)
}

#[test]
fn the_examples_of_lockers_document() {
    let server = Server::start();
    let lock = r#"curl -s -i -X PUT -d '{"lock":"prod-cloudfoundry"}' $URL/lock/prod-deployments"#;
    let unlock = r#"curl -s -i -X DELETE -d '{"lock":"prod-cloudfoundry"}' $URL/lock/prod-deployments"#;
    let list = "curl -s -i $URL/locks";
    for (command, line, body) in [
        (list, "HTTP/1.1 200 OK", "{}"),
        (lock, "HTTP/1.1 200 OK", r#"{"response":"pool \"prod-deployments\" is locked by \"prod-cloudfoundry\""}"#),
        (
            list,
            "HTTP/1.1 200 OK",
            r#"{"prod-deployments":{"key":"prod-cloudfoundry","locked_by":{"prod-cloudfoundry":1}}}"#,
        ),
        (lock, "HTTP/1.1 423 Locked", "\"code\":\"locked\""),
        (unlock, "HTTP/1.1 200 OK", "\"response\":"),
        (unlock, "HTTP/1.1 200 OK", "\"response\":"),
        (list, "HTTP/1.1 200 OK", r#"{"prod-deployments":{"key":"","locked_by":{}}}"#),
    ] {
        let answer = output(&server, command);
        let (first, rest) = head_and_body(&answer);
        assert_eq!(first, line, "{command}");
        assert!(rest.contains(body), "{command}: {rest}");
    }
}

#[test]
fn the_examples_of_lockds_document() {
    let server = Server::start();
    let look = "curl -s -i $URL/lock/foo";
    let lock = "curl -s -i -X POST $URL/lock/foo";
    let unlock = "curl -s -i -X DELETE $URL/lock/foo";
    for (command, line, body) in [
        (look, "HTTP/1.1 404 Not Found", "\"error\":"),
        (lock, "HTTP/1.1 200 OK", "{}"),
        (look, "HTTP/1.1 200 OK", "{}"),
        (lock, "HTTP/1.1 409 Conflict", "\"error\":"),
        (unlock, "HTTP/1.1 200 OK", "{}"),
        (unlock, "HTTP/1.1 409 Conflict", "\"error\":"),
        (look, "HTTP/1.1 404 Not Found", "\"error\":"),
    ] {
        let answer = output(&server, command);
        let (first, rest) = head_and_body(&answer);
        assert_eq!(first, line, "{command}");
        assert!(rest.contains(body), "{command}: {rest}");
    }
}

/// How a shell resource takes a lock: it looks for the reason phrase, and retries only when it finds it.
#[test]
fn the_status_line_tells_a_taken_lock_from_a_failure() {
    let server = Server::start();
    let script = r#"
        attempt() {
            answer=$(curl -sS -i -X PUT -d "{\"key\":\"$1\",\"lock_by\":\"$2\"}" "$URL/lock/prod")
            if echo "$answer" | grep -q "200 OK"; then echo got; return; fi
            if echo "$answer" | grep -q "423 Locked"; then echo locked; return; fi
            echo failed
        }
        attempt blue one; attempt green two; attempt blue three; attempt '\' four
    "#;
    assert_eq!(output(&server, script), "got\nlocked\ngot\nfailed\n");
    // With -f an error becomes an exit code, for scripts that check only that.
    let refused = shell(&server, r#"curl -fsS -X PUT -d '{"key":"green"}' "$URL/lock/prod""#);
    assert_eq!(refused.status.code(), Some(22));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("423"));
    assert!(shell(&server, r#"curl -fsS -X PUT -d '{"key":"blue"}' "$URL/lock/prod" > /dev/null"#).status.success());
}

#[test]
fn bodies_go_through_jq() {
    let server = Server::start();
    let script = r#"
        curl -sS -X PUT -d '{"key":"k","requestor":"me"}' "$URL/lock/prod" | jq -er .response
        curl -sS -X PUT -d '{"key":"other"}' "$URL/lock/prod" | jq -er .error
        curl -sS -X PUT -d 'nonsense' "$URL/lock/prod" | jq -er .error
        curl -sS "$URL/nowhere" | jq -er .error
        curl -sS "$URL/locks" | jq -er '.prod.key, (.prod.locked_by | keys[])'
        curl -sS "$URL/lock/prod" | jq -ec .
        curl -sS -X DELETE "$URL/lock/prod" | jq -er .code
    "#;
    let said = output(&server, script);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 8, "{said}");
    assert!(
        lines[0].contains("is locked by")
            && lines[1].contains("is locked with key")
            && lines[2].contains("not valid JSON")
    );
    assert_eq!(lines[4..], ["k", "me", "{}", "locked"]);
}

/// A shell resource finds a new version by the digest of the list.
#[test]
fn the_digest_of_the_list_changes_with_the_locks_only() {
    let server = Server::start();
    let script = r#"
        digest() { curl -fsS "$URL/locks" | sha1sum | cut -d ' ' -f 1; }
        curl -fsS -X PUT -d '{"key":"k","requestor":"b"}' "$URL/lock/two" > /dev/null
        curl -fsS -X PUT -d '{"key":"k","requestor":"a"}' "$URL/lock/two" > /dev/null
        digest; digest
        curl -sS -X PUT -d '{"key":"other"}' "$URL/lock/two" > /dev/null
        digest
        curl -fsS -X POST "$URL/lock/one" > /dev/null
        digest
        curl -fsS -X DELETE "$URL/lock/one" > /dev/null
        digest
    "#;
    let said = output(&server, script);
    let digests: Vec<&str> = said.lines().collect();
    assert_eq!(digests.len(), 5, "{said}");
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{said}");
    assert!(digests[3] != digests[2] && digests[4] != digests[3], "{said}");
}
