//! A terminal with a command, as a person uses it.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use super::eventually;

/// Runs a command line on a new terminal. Bytes written to it are key presses.
pub struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    pub fn start(command: &Command) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        // Every new process must close its copy. An open copy would keep the terminal from ending.
        let keys = File::from(pty.master).try_clone().unwrap();
        let mut on = Command::new("setsid");
        on.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        on.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        on.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
        on.stdin(pty.slave.try_clone().unwrap()).stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave);
        let child = on.spawn().unwrap();
        let mut screen = keys.try_clone().unwrap();
        let seen = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { child, keys, seen, reader: Some(reader) }
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    pub fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    pub fn until_seen(&self, text: &str) {
        eventually(text, || self.seen().contains(text).then_some(()));
    }

    pub fn finish(mut self) -> (i32, String) {
        let status = eventually("the end on the terminal", || self.child.try_wait().unwrap());
        // It reads until no process has the terminal any more.
        self.reader.take().unwrap().join().unwrap();
        (status.code().unwrap(), self.seen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
