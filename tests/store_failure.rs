//! The first sync that fails latches the store shut: nothing is acknowledged afterwards, the process ends, and what was
//! acknowledged before is there again (reliability I15). The failure is a real one: strace makes the system call fail.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic and talk")]

#[path = "common/server.rs"]
mod server;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use server::Server;

/// The process must be gone within a second; twice that on a busy machine.
const GONE: Duration = Duration::from_secs(2);

/// Sends `PUT /api/v1/claims/{id}` for a pool of its own; the status and the body, if there was an answer.
fn claim(address: &str, id: usize) -> Option<(u16, String)> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .new_agent();
    let url = format!("http://{address}/api/v1/claims/c{id}");
    let mut answer = agent.put(&url).send(format!(r#"{{"pool":"p{id}"}}"#)).ok()?;
    Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
}

#[test]
fn a_failed_sync_ends_the_server_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    let binary = env!("CARGO_BIN_EXE_locker");
    // Every sync from the 40th on fails: some are needed to start.
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
        .args(["-e", "inject=fsync,fdatasync:error=EIO:when=40+"])
        .args([binary, "server", "--listen", "127.0.0.1:0", "--store", &store]);
    let mut server = Server::spawn_with(command, Stdio::null());
    let address = server.address().to_owned();
    let mut acknowledged = Vec::new();
    let refused = (0..200).find_map(|id| match claim(&address, id) {
        Some((200, _)) => {
            acknowledged.push(id);
            None
        }
        other => Some((id, other)),
    });
    let failed_at = Instant::now();
    let (refused, answer) = refused.expect("a sync fails");
    assert!(!acknowledged.is_empty(), "the first syncs succeed");
    // Refused in words, or cut off by the end of the process; never acknowledged.
    if let Some((status, body)) = answer {
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("\"code\":\"store_failed\""), "{body}");
    }
    let status = server.wait();
    assert!(failed_at.elapsed() < GONE, "{:?}", failed_at.elapsed());
    assert_eq!(status.code(), Some(1), "{:?}", server.log());
    assert!(server.has_said("has failed: nothing was acknowledged since"), "{:?}", server.log());

    let mut command = Command::new(binary);
    command.args(["server", "--listen", "127.0.0.1:0", "--store", &store]);
    let again = Server::spawn(command);
    for id in acknowledged {
        // The same request again is the same claim, still held.
        let (status, body) = claim(again.address(), id).unwrap();
        assert_eq!(status, 200, "c{id}: {body}");
        assert!(body.contains("\"life\":1") && body.contains("\"state\":\"held\""), "c{id}: {body}");
    }
    // The one that was refused may have reached the disk or not; asking again settles it.
    assert_eq!(claim(again.address(), refused).unwrap().0, 200);
}
