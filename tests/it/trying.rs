//! `ci/try-concourse` with a real server, but with pretend Docker and fly: their builds run the real resource, so the script
//! sees what it would see.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::support::{Done, Running, Server, binary, clean};

/// Docker: commands in the container of the server run here.
const DOCKER: &str = r#"#!/bin/sh
echo "$*" >>"$YARD/docker-calls"
case "$*" in
    *" exec "*)
        while [ "$1" != --uri ]; do shift; done
        shift 2
        exec "$YARD/locker" "$@" ;;
esac
"#;

/// curl: the download is our fly, and the server is the one of the test.
const CURL: &str = r#"#!/bin/sh
case "$*" in
    *--output*) while [ "$1" != --output ]; do shift; done; cp "$YARD/fly" "$2" ;;
    *8080*) ;;
    *) for url; do :; done; exec /usr/bin/curl --silent --fail "$(echo "$url" | sed "s|http://localhost:8910|$LOCKER_URI|")" ;;
esac
"#;

/// fly: a build of the demonstration claims, works for a moment and releases.
const FLY: &str = r#"#!/bin/sh
echo "$*" >>"$YARD/fly-calls"
shift 2
build() {
    export ATC_EXTERNAL_URL=http://ci BUILD_ID="$1" BUILD_NAME=1 BUILD_TEAM_NAME=main BUILD_PIPELINE_NAME=demonstration BUILD_JOB_NAME="$1"
    source="\"source\": {\"locker_uri\": \"$LOCKER_URI\", \"pool\": \"demonstration\"}"
    printf '{%s, "params": {"acquire": true}}' "$source" >"$YARD/$1.in"
    echo started >"$YARD/$1.status"
    "$YARD/out" "$YARD" <"$YARD/$1.in" >/dev/null 2>&1 &
    echo $! >"$YARD/$1.pid"
    if wait $!; then
        while [ ! -e "$YARD/go-on" ]; do /bin/sleep 0.05; done
        printf '{%s, "params": {"release": "build"}}' "$source" | "$YARD/out" "$YARD" >/dev/null 2>&1
        echo "${ENDS:-succeeded}" >"$YARD/$1.status"
    else
        echo aborted >"$YARD/$1.status"
    fi
}
case "$*" in
    workers*) echo "worker running" ;;
    "trigger-job --watch"*) echo "${ENDS:-succeeded}" >"$YARD/${4#*/}.status" ;;
    trigger-job*) build "${3#*/}" >/dev/null 2>&1 </dev/null & ;;
    abort-build*) kill -TERM "$(cat "$YARD/${3#*/}.pid")" ;;
    # Asked only after the queue has been looked at: until then, nobody releases.
    builds*) touch "$YARD/go-on"; printf '[{"id": 1, "status": "%s"}]\n' "$(cat "$YARD/${3#*/}.status")" ;;
esac
"#;

fn try_it(server: &Server, ends: &str) -> (Done, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (name, text) in
        [("docker", DOCKER), ("curl", CURL), ("fly", FLY), ("sleep", "#!/bin/sh\nexec /bin/sleep 0.1\n")]
    {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["locker", "out"] {
        symlink(binary(), path(name)).unwrap();
    }
    let mut script = clean(Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/try-concourse"));
    script.env("PATH", format!("{}:/usr/bin:/bin", dir.path().display())).env("YARD", dir.path());
    script.env("LOCKER_URI", &server.url).env("ENDS", ends);
    let done = Running::start(&mut script, b"").finish();
    (done, fs::read_to_string(path("docker-calls")).unwrap())
}

#[test]
fn three_jobs_queue_a_fourth_waits_one_is_aborted_and_the_script_says_so() {
    let server = Server::start();
    let (done, docker) = try_it(&server, "succeeded");
    let done = done.ok();
    for job in ["first", "second", "fourth"] {
        assert!(done.stdout.contains(&format!("ok  demonstration/{job}: succeeded\n")), "{}", done.stdout);
    }
    assert!(done.stdout.contains("ok  demonstration/third: aborted\n"), "{}", done.stdout);
    assert!(
        done.stdout
            .ends_with(" passed, 0 failed\n+ docker compose --file deploy/concourse/compose.yml down --volumes\n"),
        "{}",
        done.stdout
    );
    assert!(
        docker.contains("kill --signal KILL locker") && docker.contains("build --tag localhost:5000/locker ."),
        "{docker}"
    );
    let pool = server.pool("demonstration");
    assert_eq!((pool["free"].as_u64(), pool["waiting"].as_u64()), (Some(2), Some(0)));
}

#[test]
fn a_job_that_fails_makes_the_script_fail() {
    let (done, _) = try_it(&Server::start(), "failed");
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stdout.contains("FAILED  demonstration/first: failed, not succeeded\n"), "{}", done.stdout);
}
