//! Good and bad files of targets.

use super::*;

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "hunter2\n").unwrap();
    std::fs::write(dir.path().join("url"), "https://chat.example.com/services/hunter2\n").unwrap();
    std::fs::write(dir.path().join("key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    dir
}

fn parse(text: &str) -> Result<Settings, BadFile> {
    let dir = dir();
    Settings::parse(&dir.path().join("notify.yml"), text)
}

#[test]
fn a_file_says_who_is_told_what() {
    let text = "
server_url: https://locker.example.com/
targets:
- name: ops
  url_file: url
  format: slack
  pools: ['prod/*', staging]
  events: [lost, deadlock]
  waits_longer_than: 30m
- name: bus
  url: http://bus:8080/in?x=1
  secret_file: key
  token_file: token
  pools: prod
  events: broken
- name: ci
  pools: staging
  concourse: {url: 'https://ci', team: main, pipeline: a b, instance_vars: {branch: x}, resource: r, token_file: token}
";
    let settings = parse(text).unwrap();
    assert_eq!(settings.server_url.as_deref(), Some("https://locker.example.com"));
    let [ops, bus, ci] = &settings.targets[..] else { panic!("{settings:?}") };
    let To::Webhook(Webhook { format: Format::Slack, rules, .. }) = &ops.to else { panic!("{ops:?}") };
    assert_eq!((rules.pools.len(), rules.events.len(), rules.waits), (2, 2, Some(Span::mins(30))));
    assert_eq!((ops.look(), bus.look(), ci.look()), (Some(Span::secs(5)), None, None));
    assert!(ops.place().contains("the URL in ") && bus.place() == "http://bus:8080", "{} {}", ops.place(), bus.place());
    let To::Concourse(concourse) = &ci.to else { panic!("{ci:?}") };
    let path = "/api/v1/teams/main/pipelines/a%20b/resources/r/check/webhook?vars=%7B%22branch%22%3A%22x%22%7D";
    assert_eq!(concourse.path, path);
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn each_fault_is_named_with_its_line() {
    let table: [(&str, &[&str]); 24] = [
        ("a: [", &["notify.yml:"]),
        ("[]", &[":1: the file must be a mapping", ":1: targets is missing"]),
        ("target: []", &[":1: unknown key \"target\": did you mean \"targets\"?"]),
        ("targets: x", &[":1: targets must be a list"]),
        ("targets: [x]", &[":1: the target must be a mapping"]),
        ("server_url: https://u:hunter2@x\ntargets: []", &[":1: server_url must have no credentials"]),
        (
            "targets:\n- name: a\n  url: http://x\n  event: lost",
            &[
                ":4: target a: unknown key \"event\": did you mean \"events\"?",
                ":2: target a: it would never be told anything",
            ],
        ),
        ("targets:\n- url: http://x\n  events: [lost]", &[":2: the target: name is missing"]),
        ("targets:\n- name: 'a b'\n  url: http://x\n  events: [lost]", &[":2: target a b: name must be 1 to 64 of"]),
        (
            "targets:\n- name: a\n  url: http://x\n  events: [lots]",
            &[":4: target a: unknown event \"lots\": did you mean \"lost\"?"],
        ),
        (
            "targets:\n- name: a\n  url: http://x\n  format: slak\n  events: lost",
            &[":4: target a: unknown format \"slak\": did you mean \"slack\"?"],
        ),
        ("targets:\n- name: a\n  url: http://x\n  events: [7]", &[":4: target a: event must be a word"]),
        ("targets:\n- name: a\n  events: [lost]", &[":2: target a: one of url, url_file and concourse is missing"]),
        ("targets:\n- name: a\n  url: ftp://x/hunter2\n  events: [lost]", &[":3: target a: url must begin with http"]),
        (
            "targets:\n- name: a\n  url: http://u:hunter2@x\n  events: [lost]",
            &[":3: target a: url has a user and password"],
        ),
        (
            "targets:\n- name: a\n  url: http://x\n  url_file: url\n  events: [lost]",
            &["url and url_file are both given"],
        ),
        ("targets:\n- name: a\n  url_file: none\n  events: [lost]", &[":3: target a: url_file: cannot read", "none"]),
        (
            "targets:\n- name: a\n  url: http://x\n  secret_file: token\n  events: [lost]",
            &[":4: target a: secret_file: ", "whsec_"],
        ),
        (
            "targets:\n- name: a\n  url: http://x\n  waits_longer_than: soon",
            &[":4: target a: waits_longer_than is not a duration"],
        ),
        ("targets:\n- name: a\n  url: http://x\n  holds_longer_than: 10ms", &["holds_longer_than must be at least 1s"]),
        ("targets:\n- name: a\n  url: http://x\n  suspect_longer_than: 10", &["suspect_longer_than must be a text"]),
        (
            "targets:\n- name: a\n  url: http://x\n  events: lost\n- name: a\n  url: http://x\n  events: lost",
            &[":5: there are two targets"],
        ),
        (
            "targets:\n- name: a\n  events: [lost]\n  concourse: {url: x, teem: main}",
            &[
                ":3: target a: events is not for this kind of target",
                ":4: target a: unknown key \"teem\": did you mean \"team\"?",
                ":4: target a: url must begin with http",
                "pipeline is missing",
                "token_file is missing",
            ],
        ),
        (
            "targets:\n- name: a\n  url: http://x\n  events: lost\n  ca_cert_file: none",
            &[":5: target a: ca_cert_file: "],
        ),
    ];
    for (text, says) in table {
        let bad = parse(text).unwrap_err().to_string();
        assert!(says.iter().all(|said| bad.contains(said)) && !bad.contains("hunter2"), "{text}\n{bad}");
    }
    let many: Vec<String> =
        (0..=limits::TARGETS).map(|n| format!("- {{name: t{n}, url: 'http://x', events: lost}}")).collect();
    let many = many.join("\n");
    assert!(parse(&format!("targets:\n{many}")).unwrap_err().to_string().contains("more than 200 items"));
    let faults = "- {}\n".repeat(60);
    assert!(parse(&format!("targets:\n{faults}")).unwrap_err().to_string().contains("more faults"));
}
