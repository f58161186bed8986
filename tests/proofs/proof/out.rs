//! A real `out` process, as Concourse starts it.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::server::LOCKER;

/// A put step of one build; killed when dropped.
pub struct Out {
    child: Child,
    pub build: String,
}

/// What a put has printed, and when it was over.
pub struct Printed {
    pub at: Instant,
    pub claim: String,
}

impl Out {
    /// `put: env` with `acquire: true`, as that build.
    pub fn acquire(directory: &Path, url: &str, pool: &str, build: &str) -> Self {
        let program = directory.join("out");
        // Made by the first of them.
        let _ = symlink(LOCKER, &program);
        let payload = json!({ "source": { "locker_uri": url, "pool": pool }, "params": { "acquire": true } });
        let mut child = Command::new(&program)
            .arg(directory)
            .env_clear()
            .env("ATC_EXTERNAL_URL", "https://ci.example.com")
            .env("BUILD_TEAM_NAME", "main")
            .env("BUILD_PIPELINE_NAME", "deploy")
            .env("BUILD_JOB_NAME", pool)
            .env("BUILD_NAME", build)
            .env("BUILD_ID", build)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(payload.to_string().as_bytes()).expect("the payload is read");
        Self { child, build: build.to_owned() }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        kill(pid, signal).expect("the process can be signalled");
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the process can be waited for").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended by then.
    pub fn ended_by(&mut self, deadline: Instant, what: &str) -> (ExitStatus, Instant) {
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return (status, Instant::now());
            }
            assert!(Instant::now() < deadline, "{what}: build {} has not ended in time", self.build);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it holds the lock and has said so.
    pub fn holds_by(&mut self, deadline: Instant, what: &str) -> Printed {
        let (status, at) = self.ended_by(deadline, what);
        assert!(status.success(), "{what}: build {} failed: {status}", self.build);
        let printed: Value = serde_json::from_str(&self.stdout()).expect("a version");
        let metadata = printed["metadata"].as_array().expect("metadata");
        let claim = metadata.iter().find(|entry| entry["name"] == "claim").expect("a claim in the metadata");
        Printed { at, claim: claim["value"].as_str().expect("text").to_owned() }
    }

    /// What it has printed, once it has ended.
    pub fn stdout(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().expect("stdout is piped").read_to_string(&mut text).expect("stdout is text");
        text
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
