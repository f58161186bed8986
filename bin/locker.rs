//! The shell around [`locker::run`]: real arguments, environment, streams and signals. It makes no decisions.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use locker::env::{ClosedStdout, Env, Signals, SystemClock, stdout_was_closed};
use locker::wire::escape::escape;

/// Requests often allocate on one thread and free on another, which is slow with glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // The place in our own sources. For dependencies only the file, without its path on the build machine.
        let place = panic.location().map_or_else(String::new, |at| {
            let file = at.file().rsplit_once("/src/").map_or(at.file(), |(_, file)| file);
            format!(" at {file}:{}", at.line())
        });
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no text");
        let _ = writeln!(std::io::stderr(), "locker: bug{place}: {}", escape(text));
    }));
    // This comes first, so that an early signal is not lost.
    let signals = match Signals::of_process() {
        Ok(signals) => signals,
        Err(error) => return refuse(&format!("cannot listen for signals: {error}")),
    };
    let args: Result<Vec<String>, OsString> = std::env::args_os().map(OsString::into_string).collect();
    let args = match args {
        Ok(args) => args,
        Err(bad) => return refuse(&format!("the argument \"{}\" is not valid UTF-8", escape(&bad.to_string_lossy()))),
    };
    // Variables that are not valid UTF-8 cannot be ours.
    let vars: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    // Writing to a closed stdout must fail, as writing to a full disk does.
    let stdout: &mut dyn std::io::Write = if stdout_was_closed() { &mut ClosedStdout } else { &mut std::io::stdout() };
    let mut env = Env {
        args,
        vars,
        stdin: &mut std::io::stdin(),
        stdout,
        stderr: &mut std::io::stderr(),
        is_terminal: std::io::stdout().is_terminal(),
        hostname: hostname(),
        clock: Arc::new(SystemClock::default()),
        signals,
    };
    ExitCode::from(locker::run(&mut env))
}

/// The container's host name, from the kernel or from `/etc/hostname`, which Concourse mounts.
fn hostname() -> String {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let found = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
    found.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default().trim().to_owned()
}

fn refuse(text: &str) -> ExitCode {
    // If stderr cannot be written, there is nowhere else to report it.
    let _ = writeln!(std::io::stderr(), "locker: {text}");
    ExitCode::from(2)
}
