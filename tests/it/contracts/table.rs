//! Tables of requests against a real server.

use crate::support::Server;
use crate::support::http::Answer;

/// Runs a table: `METHOD target | body | status, then words that the body must contain`. In those words `~` stands for
/// a space. With `=` before the words, the body must be exactly that JSON. Each line uses a new connection.
#[track_caller]
pub fn run(server: &Server, table: &str) {
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [request, body, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}")
        };
        let answer = server.call(&request.split_whitespace().collect::<Vec<_>>().join(" "), body);
        let (status, rest) = expected.split_once(' ').unwrap_or((expected, ""));
        assert_eq!(answer.status.to_string(), status, "{line}\n  {}", answer.text());
        check_shape(&answer, line);
        match rest.trim().strip_prefix('=') {
            Some(exact) => assert_eq!(answer.text(), exact.trim(), "{line}"),
            None => {
                for word in rest.split_whitespace().map(|word| word.replace('~', " ")) {
                    assert!(answer.text().contains(&word), "{line}\n  {word}: {}", answer.text());
                }
            }
        }
    }
}

/// Every answer of every contract is a JSON object; every error has a string at `error` and at `code`.
fn check_shape(answer: &Answer, line: &str) {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{line}");
    let json = answer.json();
    assert!(json.is_object(), "{line}: {json}");
    if answer.status >= 400 {
        assert!(json["error"].is_string() && json["code"].is_string(), "{line}: {json}");
    } else {
        assert!(json.get("error").is_none(), "{line}: {json}");
    }
}
