//! How the server logs in to a Concourse, and which Concourse a claim refers to.

use std::time::Duration;

use super::{claim, is_held, take, until_clear, until_ended, until_suspect, watching};
use crate::support::certs::Files;
use crate::support::concourse::Concourse;
use crate::support::{Build, eventually};

/// A Concourse with a user that may see team main.
fn guarded() -> (Concourse, Files) {
    let concourse = Concourse::start();
    concourse.user("locker", "hunter2+& =é", &["main"]);
    let files = Files::new();
    files.write("password", "hunter2+& =é\n");
    concourse.private_build(1, "started");
    (concourse, files)
}

fn file(files: &Files, name: &str) -> String {
    files.path(name).to_str().unwrap().to_owned()
}

#[test]
fn a_password_opens_private_builds_with_one_login() {
    let (concourse, files) = guarded();
    let server = watching(&[&format!("{},locker,{}", concourse.url, file(&files, "password"))], &[]);
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 5);
    assert!(claim(&server, &held)["suspect"].is_null());
    assert_eq!((concourse.logins(), concourse.unauthorized()), (1, 0));
    concourse.build(1, "aborted");
    assert_eq!(until_ended(&server, &held), "build_over");
    let log = server.log();
    assert!(log.contains("as user \\\"locker\\\"") || log.contains("as user \"locker\""), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_token_is_renewed_before_its_end_and_nobody_notices() {
    let (concourse, files) = guarded();
    concourse.tokens_last(Duration::from_secs(10));
    let password = file(&files, "password");
    let server = watching(&[&format!("url={},user=locker,password-file={password}", concourse.url)], &[]);
    let held = take(&server, &concourse, 1, "p", "build");
    eventually("another login", || (concourse.logins() >= 2).then_some(()));
    assert_eq!(concourse.unauthorized(), 0, "no answer said that the token had expired");
    assert!(claim(&server, &held)["suspect"].is_null());
    assert!(!server.log().contains("suspect"), "{}", server.log());
}

#[test]
fn a_token_that_is_refused_is_replaced_at_once_by_one_login() {
    let (concourse, files) = guarded();
    let server = watching(&[&format!("{},locker,{}", concourse.url, file(&files, "password"))], &[]);
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 1);
    for round in 1..=3 {
        concourse.revoke_tokens();
        concourse.until_asked(1, 4);
        assert_eq!((concourse.logins(), concourse.unauthorized()), (1 + round, round));
    }
    assert!(is_held(&server, &held));
    assert!(!server.log().contains("suspect"), "one refused token is not reported: {}", server.log());
}

#[test]
fn a_refused_login_makes_builds_suspect_until_the_password_is_right() {
    let (concourse, files) = guarded();
    files.write("password", "wrong");
    let server = watching(&[&format!("{},locker,{}", concourse.url, file(&files, "password"))], &[]);
    let line = server.until_log("no good contact with Concourse");
    assert!(line.contains("refuses the login of user") && !line.contains("wrong,"), "{line}");
    let held = take(&server, &concourse, 1, "p", "build");
    until_suspect(&server, &held, "refuses the login of user \"locker\"");
    assert!(is_held(&server, &held) && concourse.asked(1) == 0);
    files.write("password", "hunter2+& =é");
    until_clear(&server, &held);
    let refused = concourse.logins_refused();
    assert!(refused < 20, "a directory would lock the account: {refused} attempts");
}

#[test]
fn a_user_without_a_role_is_told_which_one_it_needs() {
    let (concourse, files) = guarded();
    concourse.user("locker", "hunter2+& =é", &["other"]);
    let server = watching(&[&format!("{},locker,{}", concourse.url, file(&files, "password"))], &[]);
    let held = take(&server, &concourse, 1, "p", "build");
    until_suspect(&server, &held, "role viewer");
    assert_eq!(concourse.logins(), 1, "another login would not help");
    concourse.user("locker", "hunter2+& =é", &["other", "main"]);
    until_clear(&server, &held);
}

#[test]
fn a_given_token_is_used_and_read_again_when_it_is_refused() {
    let (concourse, files) = guarded();
    files.write("token", &format!("{}\n", concourse.token_of("locker")));
    let server = watching(&[&format!("url={},token-file={}", concourse.url, file(&files, "token"))], &[]);
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 2);
    assert!(claim(&server, &held)["suspect"].is_null() && concourse.logins() == 0);
    concourse.revoke_tokens();
    until_suspect(&server, &held, "401 for a token that is fresh");
    files.write("token", &concourse.token_of("locker"));
    until_clear(&server, &held);
    std::fs::remove_file(files.path("token")).unwrap();
    concourse.revoke_tokens();
    until_suspect(&server, &held, "cannot read");
    assert!(is_held(&server, &held));
}

#[test]
fn exposed_pipelines_need_no_login() {
    let concourse = Concourse::start();
    let server = watching(&[&concourse.url], &[]);
    server.until_log("without login (exposed pipelines only)");
    concourse.build(1, "started");
    let held = take(&server, &concourse, 1, "p", "build");
    concourse.until_asked(1, 2);
    assert!(claim(&server, &held)["suspect"].is_null());
    concourse.build(1, "succeeded");
    assert_eq!(until_ended(&server, &held), "build_over");
    assert!(concourse.paths().iter().all(|path| path.starts_with("/api/v1/")), "{:?}", concourse.paths());
}

#[test]
fn two_installations_have_their_own_builds_of_one_number() {
    let (one, two) = (Concourse::start(), Concourse::start());
    let server = watching(&[&one.url, &two.url], &[]);
    one.build(7, "started");
    two.build(7, "started");
    let of_one = take(&server, &one, 7, "p", "build");
    let of_two = take(&server, &two, 7, "q", "build");
    two.fails(crate::support::concourse::Fault::Refuses);
    until_suspect(&server, &of_two, "no answer");
    one.build(7, "failed");
    assert_eq!(until_ended(&server, &of_one), "build_over");
    assert!(is_held(&server, &of_two));
    two.well();
    until_clear(&server, &of_two);
    two.build(7, "failed");
    assert_eq!(until_ended(&server, &of_two), "build_over");
}

#[test]
fn one_installation_may_have_several_names_and_spellings() {
    let concourse = Concourse::start();
    let spec = format!("url={},alias=https://CI.example.com/,alias=https://old.example.com:443", concourse.url);
    let server = watching(&[&spec], &[]);
    concourse.build(7, "started");
    let names = ["https://ci.example.com", "https://CI.example.com:443/", "https://old.example.com"];
    for (n, name) in names.iter().enumerate() {
        let pool = format!("p{n}");
        let build = Build::new(&server, 7, &pool).var("ATC_EXTERNAL_URL", name);
        build.out(&super::acquire("build")).ok();
    }
    concourse.until_asked(7, 2);
    let (start, before) = (std::time::Instant::now(), concourse.asked(7));
    concourse.until_asked(7, 3);
    let periods = start.elapsed().as_millis() / 150;
    assert!((concourse.asked(7) - before) as u128 <= periods + 2, "one build, one question a period");
    concourse.build(7, "succeeded");
    for n in 0..names.len() {
        eventually("each of its holds ends", || (server.pool(&format!("p{n}"))["free"] == 1).then_some(()));
    }
}

#[test]
fn settings_that_cannot_work_are_refused_at_start() {
    use crate::support::{Running, binary, clean};
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = format!("url=https://ci,token-file={}", file.path().display());
    let table: [(&[&str], &str); 9] = [
        (&["--concourse", "ci.example.com"], "http://"),
        (&["--concourse", "https://me:hunter2@ci"], "not contain credentials"),
        (&["--concourse", "https://ci,me,/nowhere/at/all"], "cannot read /nowhere/at/all"),
        (&["--concourse", "url=https://ci,token-file=/dev/null"], "not a regular file"),
        (&["--concourse", &empty], "is empty"),
        (&["--concourse", "url=https://ci,ca=/etc/hostname"], "no certificate"),
        (&["--concourse", "https://ci", "--concourse", "https://CI:443/"], "two installations"),
        (&["--verify-builds"], "--concourse"),
        (&["--concourse", "https://ci", "--watch-period", "0s"], "longer than 0s"),
    ];
    for (options, expected) in table {
        let mut command = clean(binary());
        command.args(["server", "--listen", "127.0.0.1:0", "--store", "memory:"]).args(options);
        let done = Running::start(&mut command, b"").finish();
        assert!(done.code != 0 && done.stderr.contains(expected), "{options:?}: {done:?}");
        assert!(!done.stderr.contains("hunter2"), "{done:?}");
    }
}

#[test]
fn the_variable_names_several() {
    let (one, two) = (Concourse::start(), Concourse::start());
    let named = format!("{}\n  url={},alias=https://ci.example.com", one.url, two.url);
    let server = super::Server::start_with("memory:", &super::SHORT, &[("LOCKER_CONCOURSE", &named)]);
    one.build(1, "started");
    two.build(1, "aborted");
    let held = take(&server, &one, 1, "p", "build");
    let other = take(&server, &two, 1, "q", "build");
    assert_eq!(until_ended(&server, &other), "build_over");
    one.until_asked(1, 1);
    assert!(is_held(&server, &held));
}
