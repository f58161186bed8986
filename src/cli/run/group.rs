//! The command of `locker run` in its own process group: starting it, signalling it, waiting for it, and lending it the
//! terminal.
//!
//! The first process is not reaped until the end, so that the number of the group stays in use and a signal never
//! reaches processes of other groups.

use std::io::{ErrorKind, IsTerminal as _};
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process_group, waitid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use crate::cli::output::CliError;
use crate::wire::errors::exit;

/// The exit code of shells for a command that cannot be found.
const NOT_FOUND: u8 = 127;
/// The exit code of shells for a command that cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// A running command and everything that it starts, except processes that leave the group.
pub(super) struct Group {
    child: Child,
    id: Pid,
    terminal: Terminal,
}

/// What the first process of the group did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// It was suspended from the terminal.
    Suspended,
    /// It has ended, with this exit code: 128 + the signal that killed it.
    Ended(u8),
}

/// The same command, run by the shell, as shells do with a script that has no `#!` line.
fn by_shell(command: &Command, path: &str) -> Command {
    let program = Path::new(command.get_program());
    // A name with a slash is not looked up in `path`.
    let path = if program.components().count() > 1 { "" } else { path };
    let found = path.split(':').map(|dir| Path::new(dir).join(program)).find(|file| file.is_file());
    let mut shell = Command::new("/bin/sh");
    shell.arg(found.as_deref().unwrap_or(program)).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

impl Group {
    /// Starts `command` in its own process group. If this process is in the foreground of the terminal, the group takes
    /// its place. `path` is where commands are looked up.
    pub(super) fn start(command: &mut Command, path: &str) -> Result<Self, CliError> {
        use std::os::unix::process::CommandExt as _;
        let mut spawned = command.process_group(0).spawn();
        if spawned.as_ref().is_err_and(|error| error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error())) {
            spawned = by_shell(command, path).process_group(0).spawn();
        }
        let child = spawned.map_err(|error| {
            let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
            CliError::Failed(code, format!("cannot run {:?}: {error}", command.get_program().to_string_lossy()))
        })?;
        let mut group = Self { id: Pid::from_child(&child), child, terminal: Terminal { lent: false } };
        group.lend_terminal();
        Ok(group)
    }

    /// Lends the terminal to the group, if this process has it. Keys such as Ctrl-C then reach the command, and only
    /// the command.
    pub(super) fn lend_terminal(&mut self) {
        if self.terminal.lend(self.id) {
            // The group may have tried to use the terminal before, which has suspended it.
            self.signal(Signal::CONT);
        }
    }

    /// Sends a signal to every process of the group.
    pub(super) fn signal(&self, signal: Signal) {
        // This cannot fail in a way that matters: the first process exists until it is reaped.
        let _ = kill_process_group(self.id, signal);
    }

    /// Calls `hear` from a new thread for each thing that the first process does, until it has ended.
    pub(super) fn listen(&self, hear: impl Fn(Happened) + Send + 'static) -> std::io::Result<()> {
        let id = self.id;
        let wait = move |options| waitid(WaitId::Pid(id), options);
        std::thread::Builder::new().name("command".into()).spawn(move || {
            loop {
                match wait(WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT) {
                    Ok(Some(status)) if status.stopped() => {
                        // Consume the event, so that the next wait does not return it again.
                        let _ = wait(WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
                        if status.stopping_signal() == Some(Signal::TSTP.as_raw()) {
                            hear(Happened::Suspended);
                        }
                    }
                    Ok(Some(status)) => {
                        let killed = status.terminating_signal().map(|signal| 128 + signal);
                        let code = status.exit_status().or(killed).and_then(|code| u8::try_from(code & 0xff).ok());
                        return hear(Happened::Ended(code.unwrap_or(exit::FAILED)));
                    }
                    Ok(None) | Err(rustix::io::Errno::INTR) => {}
                    // The process is not our child any more, so it has been reaped.
                    Err(_) => return hear(Happened::Ended(exit::FAILED)),
                }
            }
        })?;
        Ok(())
    }

    /// Whether a process of the group is still alive. Zombies do not count.
    pub(super) fn is_alive(&self) -> bool {
        let Ok(entries) = std::fs::read_dir("/proc") else { return false };
        let group = self.id.as_raw_pid();
        entries.filter_map(Result::ok).filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()).any(
            |entry| {
                let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                is_alive_in(group, &stat)
            },
        )
    }

    /// Whether the group has had the terminal, so that a key may have suspended it.
    pub(super) fn has_terminal(&self) -> bool {
        self.terminal.lent
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // Nothing watches its lease any more.
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
        self.terminal.take_back();
    }
}

/// Whether `/proc/PID/stat` describes a living process of the group. The name in it may contain anything, even `)`.
fn is_alive_in(group: i32, stat: &str) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    let (state, _parent, of) = (fields.next(), fields.next(), fields.next());
    !matches!(state, Some("Z" | "X") | None) && of.and_then(|of| of.parse().ok()) == Some(group)
}

/// The terminal on stdin.
struct Terminal {
    lent: bool,
}

impl Terminal {
    /// Puts `group` into the foreground, if this process is in the foreground.
    fn lend(&mut self, group: Pid) -> bool {
        let stdin = std::io::stdin();
        let ours = stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|there| there == getpgrp());
        let lent = ours && tcsetpgrp(&stdin, group).is_ok();
        self.lent |= lent;
        lent
    }

    /// Puts this process into the foreground again.
    fn take_back(&mut self) {
        if !std::mem::take(&mut self.lent) {
            return;
        }
        // A background process that takes the terminal is suspended by this signal, unless it blocks the signal.
        let mut mask = SigSet::empty();
        mask.add(nix::sys::signal::Signal::SIGTTOU);
        let Ok(before) = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
        // The terminal may be gone.
        let _ = tcsetpgrp(std::io::stdin(), getpgrp());
        let _ = before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn living_processes_of_a_group_are_found() {
        let cases = [
            ("12 (sh) S 1 7 7 0 -1 4194304", true),
            ("12 (a) Z 1 8) R 1 7 7 0", true),
            ("12 (sh) Z 1 7 7 0", false),
            ("12 (sh) S 7 8 7 0", false),
            ("", false),
            ("12 (sh", false),
        ];
        for (stat, alive) in cases {
            assert_eq!(is_alive_in(7, stat), alive, "{stat}");
        }
    }
}
