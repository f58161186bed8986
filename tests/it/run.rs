//! `locker run` as people and scripts use it: the real binary, real commands, real signals, a real terminal.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::proxy::{Act, Proxy};
use crate::support::terminal::Terminal;
use crate::support::{Running, Server, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Short leases: all margins are a fifth of the usual ones.
const SHORT: (&str, &str) = ("LOCKER_RUN_SHORTEST_TTL", "3s");

/// A directory for the files that commands write.
struct Yard {
    server: Server,
    dir: TempDir,
}

impl Yard {
    fn new() -> Self {
        Self::with(Server::start())
    }

    fn with(server: Server) -> Self {
        Self { server, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits for a file that a command writes, and returns its content.
    fn read(&self, name: &str) -> String {
        eventually(name, || std::fs::read_to_string(self.path(name)).ok().filter(|text| text.ends_with('\n')))
    }

    fn command(&self, args: &[&str], script: &str) -> Command {
        let mut command = self.server.cli_command();
        command.env(SHORT.0, SHORT.1).current_dir(self.dir.path());
        command.arg("run").args(args).args(["--shell", "--", script]);
        command
    }

    /// `locker run ARGS --shell -- SCRIPT` in the yard.
    fn run(&self, args: &[&str], script: &str) -> Running {
        Running::start(&mut self.command(args, script), b"")
    }

    fn free(&self, pool: &str) -> u64 {
        self.server.pool(pool)["free"].as_u64().unwrap()
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_command_is_told_what_it_holds_and_its_exit_code_is_passed_on() {
    let yard = Yard::new();
    yard.server.cli_with(&["lock", "add", "envs", "eu-1", "--metadata", "-", "--label", "x=1"], b"\xffkey").ok();
    yard.server.cli_with(&["lock", "add", "envs", "eu-2", "--metadata", "-"], b"two").ok();
    let script = "printf '%s\\n' $LOCKER_POOL $LOCKER_NAME $LOCKER_CLAIM $LOCKER_FENCE $LOCKER_METADATA > told
        cp $LOCKER_METADATA metadata; cp $LOCKER_LOCKS locks; stat -c %a $LOCKER_METADATA $LOCKER_LOCKS > modes
        ls -ld $(dirname $LOCKER_METADATA) > dir
        $LOCKER verify $LOCKER_POOL $LOCKER_NAME $LOCKER_FENCE; echo out; exit 7";
    let mut command = yard.command(&["envs", "--count", "2", "--reason", "a test"], script);
    let done = Running::start(command.env("LOCKER", crate::support::binary()), b"").finish();
    assert_eq!(done.code, 7, "{done:?}");
    assert!(done.stdout.starts_with("held: \"eu-1\" by ada@") && done.stdout.ends_with("out\n"), "{done:?}");
    let told = yard.read("told");
    let told: Vec<&str> = told.lines().collect();
    assert_eq!((told[0], told[1], told[2].len()), ("envs", "eu-1", 40));
    assert_eq!(
        done.stderr,
        format!("granted \"eu-1\" of pool \"envs\", \"eu-2\" of pool \"envs\", fence {}\n", told[3])
    );
    assert_eq!(std::fs::read(yard.path("metadata")).unwrap(), b"\xffkey");
    let locks: Value = serde_json::from_slice(&std::fs::read(yard.path("locks")).unwrap()).unwrap();
    assert_eq!((&locks[0]["labels"]["x"], &locks[0]["metadata_base64"]), (&"1".into(), &"/2tleQ==".into()));
    assert_eq!((&locks[1]["lock"], &locks[1]["metadata"]), (&"eu-2".into(), &"two".into()));
    assert_eq!(yard.read("modes"), "600\n600\n");
    assert!(yard.read("dir").starts_with("drwx------"));
    assert!(!Path::new(told[4]).exists(), "the files are gone");
    assert_eq!(yard.free("envs"), 2, "the locks are given back");
    // The hold ends with the command.
    yard.server.cli(&["verify", "envs", "eu-1", told[3]]).failed(5, "not_held");
}

#[test]
fn exit_codes() {
    let yard = Yard::new();
    yard.server.cli(&["claim", "taken"]).ok();
    let plain = yard.path("plain");
    std::fs::write(&plain, "no program").unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    let plain = plain.to_str().unwrap();
    // As a shell runs it.
    let script = yard.path("no-first-line");
    std::fs::write(&script, "test \"$1 $LOCKER_NAME\" = \"a b p\" && exit 9\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", script.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let script = script.to_str().unwrap();
    let below = format!("{script}/below");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["p", "--", "true"], 0, "granted \"p\""),
        (&["p", "--", "false"], 1, "granted"),
        (&["p", "--", "/bin/sh", "-c", "kill -TERM $$"], 143, "granted"),
        (&["p", "--", "/bin/sh", "-c", "kill -KILL $$"], 137, "granted"),
        (&["p", "--shell", "--", "exit $(($1 + $2))", "40", "2"], 42, "granted"),
        (&["p", "--", "no-such-command"], 127, "cannot run \"no-such-command\""),
        (&["p", "--", plain], 126, "cannot run"),
        (&["p", "--", "/"], 126, "cannot run"),
        (&["p", "--", &below], 126, "cannot run"),
        (&["p", "--", script, "a b"], 9, "granted"),
        (&["p", "--", "no-first-line", "a b"], 9, "granted"),
        (&["taken", "--try", "--", "true"], 3, "not free; held: \"taken\" by ada@"),
        (&["taken", "--timeout", "200ms", "--", "true"], 3, "gave up after --timeout 200ms; nothing is held"),
        (&["p", "--lock", "x", "--", "true"], 4, "no_such_lock"),
        (&["p", "--ttl", "2s", "--", "true"], 2, "at least 3s"),
        (&["p", "sh", "-c", "exit 9"], 2, "\"-c\" may be meant for `locker run` or for the command"),
        (&["p", "true"], 0, "granted"),
        (&["p"], 2, "<COMMAND>"),
    ];
    for (args, code, text) in cases {
        let mut command = yard.server.cli_command();
        command.env(SHORT.0, SHORT.1).env("PATH", &path).arg("run").args(*args);
        let done = Running::start(&mut command, b"").finish();
        assert_eq!((done.code, done.stdout.as_str()), (*code, ""), "{args:?}: {done:?}");
        done.said(text);
    }
    assert_eq!(yard.free("p"), 1);
    // Without the tests' variable, the ttl is the documented one.
    yard.server.cli(&["run", "p", "--ttl", "14s", "--", "true"]).failed(2, "at least 15s");
    yard.server.cli(&["run", "p", "--ttl", "15s", "--", "true"]).ok();
}

#[test]
fn a_command_runs_long_beyond_its_ttl() {
    let yard = Yard::new();
    let running = yard.run(&["p", "--ttl", "5s"], "echo $LOCKER_FENCE > fence; sleep 11; echo over > over");
    let fence = yard.read("fence");
    running.finish().ok();
    yard.read("over");
    // One hold from beginning to end.
    let changes = yard.server.cli(&["status", "p", "--json"]).ok().json();
    assert_eq!(changes["free"], 1);
    yard.server.cli(&["verify", "p", "p", fence.trim()]).failed(5, "not_held");
}

#[test]
fn a_waiter_is_told_who_holds_and_a_signal_ends_the_wait() {
    let yard = Yard::new();
    let id = yard.server.cli(&["claim", "p"]).ok().stdout;
    let signals = [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129), (Signal::SIGQUIT, 131)];
    for (signal, code) in signals {
        let waiter = yard.run(&["p"], "echo ran > ran");
        waiter.until_stderr("waiting: place 1 in the queue; held: \"p\" by ada@");
        waiter.signal(signal);
        waiter.finish().failed(code, "nothing is held");
        assert_eq!(yard.server.pool("p")["waiting"], 0);
    }
    let waiter = yard.run(&["p"], "echo ran >> ran");
    waiter.until_stderr("waiting: place 1");
    yard.server.cli(&["release", id.trim()]).ok();
    let done = waiter.finish().ok();
    assert_eq!(done.stderr.lines().count(), 2, "one line about the wait, one about the grant: {done:?}");
    assert_eq!(yard.read("ran"), "ran\n");
}

#[test]
fn signals_are_passed_on_each_time_and_the_lock_is_kept_until_the_command_ends() {
    let yard = Yard::new();
    let traps = ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM"].map(|s| format!("trap 'echo {s} >> got' {s}; "));
    let script = format!("{} echo $$ > pid; until [ -e end ]; do sleep 0.05; done; exit 5", traps.concat());
    let running = yard.run(&["p"], &script);
    yard.read("pid");
    let signals = [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGTERM, "TERM"),
    ];
    let mut expected = String::new();
    for (signal, name) in signals {
        running.signal(signal);
        expected += &format!("{name}\n");
        eventually(name, || std::fs::read_to_string(yard.path("got")).ok().filter(|got| *got == expected));
    }
    assert_eq!(yard.free("p"), 0, "a command that takes its time to end holds the lock for that time");
    std::fs::write(yard.path("end"), "").unwrap();
    let done = running.finish();
    assert_eq!(done.code, 5, "{done:?}");
    assert_eq!(yard.free("p"), 1);
}

#[test]
fn leftover_processes_are_stopped_before_the_lock_is_released() {
    let yard = Yard::new();
    // A command that obeys SIGTERM, and one that does not.
    let script = "(trap '' TERM; echo $$ > x; exec sleep 1000) & echo $! > deaf; sleep 1000 & echo $! > meek";
    let start = Instant::now();
    yard.run(&["p"], script).finish().ok();
    assert!(!is_alive(&yard.read("deaf")) && !is_alive(&yard.read("meek")));
    assert!(start.elapsed() < Duration::from_secs(25), "five seconds, with a margin for a busy machine");
    assert_eq!(yard.free("p"), 1);
}

#[test]
fn nohup_stays_nohup() {
    let yard = Yard::new();
    let inner = yard.command(&["p"], "echo $$ > pid; until [ -e end ]; do sleep 0.05; done");
    let mut command = crate::support::clean("nohup");
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(yard.dir.path());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let running = Running::start(&mut command, b"");
    yard.read("pid");
    running.signal(Signal::SIGHUP);
    std::fs::write(yard.path("end"), "").unwrap();
    running.finish().ok();
}

#[test]
fn a_server_that_is_away_is_waited_for_until_the_margin() {
    let yard = Yard::with(Server::start_durable());
    let Yard { mut server, dir } = yard;
    server.cli(&["pool", "set", "p", "--capacity", "1", "--drain", "0s"]).ok();
    let script = "trap 'echo TERM > got' TERM; echo $$ > pid; while :; do sleep 0.05; done";
    let mut command = server.cli_command();
    command.env(SHORT.0, SHORT.1).current_dir(dir.path());
    command.args(["run", "p", "--ttl", "6s", "--shell", "--", script]);
    let running = Running::start(&mut command, b"");
    let pid = eventually("pid", || std::fs::read_to_string(dir.path().join("pid")).ok().filter(|p| p.ends_with('\n')));
    // A short absence costs nothing ...
    server.kill();
    running.until_stderr("the lease could not be renewed: no answer from the locker server");
    server.again();
    running.until_stderr("the lease is renewed again");
    assert!(!dir.path().join("got").exists() && is_alive(&pid));
    // ... a long one ends the command in time, although the command ignores SIGTERM.
    server.kill();
    let gone = Instant::now();
    running.until_stderr("lease lost: not renewed in time: no answer");
    let done = running.finish();
    let took = gone.elapsed();
    assert_eq!(done.code, 8, "{done:?}");
    assert!(!is_alive(&pid), "killed");
    done.said("SIGKILL to the command");
    assert_eq!(std::fs::read_to_string(dir.path().join("got")).unwrap(), "TERM\n");
    // The last renewal was at most a third of the ttl before. Then come the ttl minus 0.6 s, and the attempt to release
    // the lock.
    assert!(took < Duration::from_secs(6 + 15), "{took:?}");
    server.again();
    server.cli(&["claim", "p"]).ok();
}

#[test]
fn a_lock_that_is_taken_away_stops_the_command_at_once() {
    let yard = Yard::new();
    yard.server.cli(&["lock", "add", "p", "a"]).ok();
    let script = "echo $LOCKER_CLAIM > claim; trap 'echo TERM > got; exit 0' TERM; while :; do sleep 0.05; done";
    let running = yard.run(&["p", "--ttl", "6s"], script);
    let claim = yard.read("claim");
    // Another client ends its hold.
    yard.server.cli(&["release", claim.trim()]).ok();
    let done = running.finish();
    assert_eq!(done.code, 8, "even when the command succeeds, because it was told to stop: {done:?}");
    let lost = done.stderr.lines().find(|line| line.starts_with("lease lost: ")).unwrap();
    assert!(lost.contains("released"), "{lost}");
    assert_eq!(yard.read("got"), "TERM\n");
}

#[test]
fn a_silently_lost_lock_is_noticed_at_the_release() {
    let yard = Yard::new();
    yard.server.cli(&["pool", "set", "p", "--capacity", "1", "--max-hold", "1s"]).ok();
    let script = "echo $LOCKER_FENCE > fence; until [ -e end ]; do sleep 0.01; done";
    // Long enough that no renewal comes in between.
    let running = yard.run(&["p", "--ttl", "10m"], script);
    let fence = yard.read("fence");
    eventually("the end of the hold", || {
        (yard.server.cli(&["verify", "p", "1", fence.trim()]).code == 5).then_some(())
    });
    std::fs::write(yard.path("end"), "").unwrap();
    running.finish().failed(8, "the locks were lost before they were given back");
}

#[test]
fn a_renewal_whose_answer_is_lost_is_repeated() {
    let yard = Yard::new();
    let proxy = Proxy::before(&yard.server.url);
    let mut command = yard.command(&["p", "--ttl", "6s"], "echo $$ > pid; until [ -e end ]; do sleep 0.05; done");
    let running = Running::start(command.env("LOCKER_URI", &proxy.url), b"");
    yard.read("pid");
    proxy.rule("/renew", Act::StopAnswer);
    proxy.until_stopped();
    running.until_stderr("the lease could not be renewed");
    proxy.go();
    running.until_stderr("the lease is renewed again");
    std::fs::write(yard.path("end"), "").unwrap();
    running.finish().ok();
}

#[test]
fn nothing_can_keep_the_guard_from_its_work() {
    let yard = Yard::with(Server::start_durable());
    let Yard { mut server, dir } = yard;
    // The command has filled stderr, and nobody reads it.
    let script = "echo $$ > pid; trap '' TERM; yes >&2";
    let mut command = server.cli_command();
    command.env(SHORT.0, SHORT.1).current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
    command.args(["run", "p", "--ttl", "3s", "--shell", "--", script]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = eventually("pid", || std::fs::read_to_string(dir.path().join("pid")).ok().filter(|p| p.ends_with('\n')));
    server.kill();
    eventually("the end of the command", || (!is_alive(&pid)).then_some(()));
    drop(child.stderr.take());
    eventually("the end of locker run", || child.try_wait().unwrap());
}

#[test]
fn on_a_terminal_keys_reach_the_command_and_only_it() {
    let yard = Yard::new();
    // The command reads from the terminal at once, which stops a process that is not in the foreground.
    let script =
        "trap 'echo INT >> got' INT; read -r line; echo \"read $line\" >> got; until read -r line; do :; done; exit 9";
    let mut shell = crate::support::clean("/bin/sh");
    let locker = yard.command(&["p"], script);
    // A shell without job control: the next command after `locker run` must have the terminal again.
    let line = "\"$@\"; code=$?; read -r line; echo \"then $line $code\" >> got";
    shell.args(["-c", line, "sh"]).arg(locker.get_program()).args(locker.get_args()).current_dir(yard.dir.path());
    shell.envs(locker.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Terminal::start(&shell);
    terminal.until_seen("granted \"p\"");
    terminal.press(b"hello\n");
    let got = |text: &str| {
        eventually(text, || std::fs::read_to_string(yard.path("got")).ok().filter(|got| got == text));
    };
    got("read hello\n");
    terminal.press(b"\x03");
    got("read hello\nINT\n");
    terminal.press(b"\x1a");
    terminal.until_seen("the command continues: if it were suspended, its lease would be lost");
    terminal.press(b"\n");
    terminal.press(b"again\n");
    got("read hello\nINT\nthen again 9\n");
    let (code, seen) = terminal.finish();
    assert_eq!(code, 0, "{seen}");
    assert_eq!(yard.free("p"), 1);
}

#[test]
fn a_killed_locker_run_leaves_a_lock_that_ends_by_its_ttl() {
    let yard = Yard::new();
    yard.server.cli(&["pool", "set", "p", "--capacity", "1", "--drain", "0s"]).ok();
    let running = yard.run(&["p", "--ttl", "3s"], "echo $$ > pid; exec sleep 1000");
    let pid = yard.read("pid");
    let next = Running::start(yard.server.cli_command().args(["claim", "p"]), b"");
    next.until_stderr("waiting: place 1");
    running.signal(Signal::SIGKILL);
    next.finish().ok();
    assert!(is_alive(&pid), "nothing was left to stop it: that is why there are fences");
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}
