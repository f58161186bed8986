//! Each commit syncs the journal before it is answered. The first failed sync shuts the store for good: nothing is acknowledged afterwards, the process ends, and everything
//! that was acknowledged is still there after a restart (I15). The failure is real: strace makes the system call fail.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic and print")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Server, Setup, binary, eventually};
use nix::sys::signal::{Signal, kill};

/// The process must be gone within a second; twice that on a busy machine.
const GONE: Duration = Duration::from_secs(2);

/// An answer: its status, its body, and the id of the request.
struct Answered {
    status: u16,
    body: String,
    request: String,
}

/// Sends `PUT /api/v1/claims/{id}` for the claim's own pool. `None` means that no answer came.
fn claim(address: &str, id: usize) -> Option<Answered> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .new_agent();
    let url = format!("http://{address}/api/v1/claims/c{id}");
    let mut answer = agent.put(&url).send(format!(r#"{{"pool":"p{id}"}}"#)).ok()?;
    let request = answer.headers().get("x-request-id")?.to_str().ok()?.to_owned();
    Some(Answered { status: answer.status().as_u16(), body: answer.body_mut().read_to_string().ok()?, request })
}

/// A server under strace. SIGTERM to strace ends both; SIGKILL would leave the server running.
struct Traced(Server);

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have ended already.
        if kill(self.0.pid(), Signal::SIGTERM).is_ok() {
            self.0.wait();
        }
    }
}

/// A server with a fault in its syncs, in strace's `inject` syntax.
fn strace(inject: &str, store: &str, more: &[&str]) -> Traced {
    let inject = format!("inject=fsync,fdatasync,pwritev2:{inject}");
    traced(&["-o", "/dev/null", "-e", &inject], store, more)
}

fn traced(how: &[&str], store: &str, more: &[&str]) -> Traced {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-I2", "-e", "trace=fsync,fdatasync,pwritev2"])
        .args(how)
        .args([binary(), "server", "--listen", "127.0.0.1:0", "--store", store])
        .args(more);
    Traced(Server::spawn_with(command, Stdio::null()))
}

/// How much was written for good by now.
struct Written {
    /// As the server counts them.
    commits: usize,
    /// Syncs of the content of the journal. Its files are synced whole when they have grown.
    journal: usize,
}

impl Written {
    /// What was written until now, from the metrics of this server and from what strace has written about its syncs.
    fn by(address: &str, syncs: &Path) -> Self {
        let metrics =
            ureq::get(format!("http://{address}/metrics")).call().unwrap().into_body().read_to_string().unwrap();
        let commits = metrics.lines().find_map(|line| line.strip_prefix("locker_engine_commit_seconds_count "));
        let syncs = std::fs::read_to_string(syncs).unwrap();
        let journal = syncs.lines().filter(|line| {
            let syncs = line.contains("fdatasync(") || (line.contains("pwritev2(") && line.contains("RWF_DSYNC"));
            syncs && line.contains("locker.db-batches-")
        });
        Self { commits: commits.unwrap().parse().unwrap(), journal: journal.count() }
    }

    /// Each commit since then has synced the journal once. Returns the commits.
    fn check_since(&self, before: &Self) -> usize {
        let commits = self.commits - before.commits;
        assert_eq!(self.journal - before.journal, commits, "syncs and commits");
        commits
    }
}

/// One after the other, each claim is a commit of its own; many at once share some.
#[test]
fn each_commit_syncs_the_journal_before_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    let syncs = dir.path().join("syncs");
    let traced = traced(&["-y", "-o", syncs.to_str().unwrap()], &store, &[]);
    let address = traced.0.address();

    let start = Written::by(address, &syncs);
    let mut before = Written::by(address, &syncs);
    for id in 0..20 {
        assert_eq!(claim(address, id).unwrap().status, 200);
        let after = Written::by(address, &syncs);
        assert!(after.journal > before.journal, "claim {id} was answered before it was synced");
        before = after;
    }
    assert_eq!(before.check_since(&start), 20);

    std::thread::scope(|scope| {
        for client in 1..=16 {
            scope
                .spawn(move || (0..10).for_each(|n| assert_eq!(claim(address, client * 100 + n).unwrap().status, 200)));
        }
    });
    let commits = Written::by(address, &syncs).check_since(&before);
    assert!((1..=160).contains(&commits), "{commits}");
}

/// A request that takes longer than `--request-timeout` inside the server is answered, and may have been carried out.
#[test]
fn a_request_that_takes_too_long_is_503_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    // From the 40th sync on, each takes three more seconds.
    let traced = strace("delay_enter=3000000:when=40+", &store, &["--request-timeout", "1s"]);
    let late = (0..200).find_map(|id| {
        let answer = claim(traced.0.address(), id).expect("an answer");
        (answer.status != 200).then_some((id, answer))
    });
    let (id, late) = late.expect("a sync takes too long");
    assert_eq!(late.status, 503, "{}", late.body);
    assert!(late.body.contains("\"code\":\"timeout\"") && late.body.contains("\"error\":"), "{}", late.body);
    // The request was carried out, and repeating it finds the claim.
    eventually("the claim is there", || claim(traced.0.address(), id).is_some_and(|again| again.status == 200));
}

/// While the disk hangs, all claims wait, however many there are. Health checks and reads do not wait.
#[test]
fn reads_do_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    // From the 40th sync on, each takes four more seconds.
    let traced = strace("delay_enter=4000000:when=40+", &store, &[]);
    let address = traced.0.address();
    let (answers, over) = (Mutex::new((0, Instant::now())), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in 0..70 {
            let (answers, over) = (&answers, &over);
            scope.spawn(move || {
                for round in 0.. {
                    if over.load(Ordering::SeqCst) || claim(address, client * 10_000 + round).is_none() {
                        return;
                    }
                    let mut answers = answers.lock().unwrap();
                    *answers = (answers.0 + 1, Instant::now());
                }
            });
        }
        eventually("reads are answered while no claim is", || {
            let (before, last) = *answers.lock().unwrap();
            if before == 0 || last.elapsed() < Duration::from_secs(1) {
                return false;
            }
            for path in ["/healthz", "/readyz", "/api/v1/info", "/api/v1/pools", "/api/v1/changes"] {
                let answer = ureq::get(format!("http://{address}{path}")).call();
                assert_eq!(answer.map(|answer| answer.status().as_u16()).ok(), Some(200), "{path}");
            }
            answers.lock().unwrap().0 == before
        });
        over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_failed_sync_ends_the_server_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    // From the 40th sync on, each fails. The server needs some to start.
    let mut traced = strace("error=EIO:when=40+", &store, &[]);
    let server = &mut traced.0;
    let address = server.address().to_owned();
    let mut acknowledged = Vec::new();
    let refused = (0..200).find_map(|id| match claim(&address, id) {
        Some(Answered { status: 200, .. }) => {
            acknowledged.push(id);
            None
        }
        other => Some((id, other)),
    });
    let failed_at = Instant::now();
    let (refused, answer) = refused.expect("a sync fails");
    assert!(!acknowledged.is_empty(), "the first syncs succeed");
    // Refused with an error, or cut off by the end of the process, but never acknowledged.
    let request = answer.map(|answer| {
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.body.contains("\"code\":\"store_failed\""), "{}", answer.body);
        assert!(!answer.body.contains("Input/output"), "the causes are not for clients: {}", answer.body);
        answer.request
    });
    let status = server.wait();
    assert!(failed_at.elapsed() < GONE, "{:?}", failed_at.elapsed());
    assert_eq!(status.code(), Some(1), "{:?}", server.log());
    assert!(server.has_said("has failed; nothing was acknowledged after that"), "{:?}", server.log());
    if let Some(request) = request {
        // The log line that connects the cause to the request.
        let found = server.log().lines().any(|line| line.contains(&request) && line.contains("Input/output"));
        assert!(found, "{request}: {:?}", server.log());
    }

    let again = Server::start_as(&Setup { store, ..Setup::memory() });
    for id in acknowledged {
        // Repeating the request returns the same claim, which is still held.
        let Answered { status, body, .. } = claim(again.address(), id).unwrap();
        assert_eq!(status, 200, "c{id}: {body}");
        assert!(body.contains("\"life\":1") && body.contains("\"state\":\"held\""), "c{id}: {body}");
    }
    // The refused claim may have reached the disk or not. Asking again settles it.
    assert_eq!(claim(again.address(), refused).unwrap().status, 200);
}
