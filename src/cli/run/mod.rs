//! `locker run`: runs a command while it holds locks, and stops the command before anybody else can get them.
//!
//! Claim with a lease -> files and variables -> first renewal -> the command, watched -> give back. The lease is
//! counted from that first renewal, which is sent right before the command starts: slow steps before it do not matter.
//!
//! - [`files`]: what the command learns about its locks.
//! - [`group`]: the command as a process group, and the terminal.
//! - [`words`]: where the command begins.
//! - [`guard`]: watches over lease and command, by the rules of [`crate::client::lease`].

mod files;
mod group;
mod guard;
mod words;

pub(super) use self::words::missing_command;

use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Args;

use self::files::Files;
use self::group::{Group, Happened};
use self::guard::{Event, Guard, Leased, Outcome, Watch, is_over};
use super::claim_request::{Acquiring, RequestArgs};
use super::output::{CliError, say};
use super::values::{Limit, parse_seconds};
use crate::client::acquire::{Timing, env_duration};
use crate::client::backoff::Backoff;
use crate::client::interruptible::Interruptible;
use crate::client::lease::{Lease, Margins, SHORTEST};
use crate::client::progress::{Pace, Silence};
use crate::client::{CallError, Client};
use crate::env::{Clock, Env, Signal, random_hex};
use crate::wire::api::{ClaimBody, ClaimView, LockView, Scope};
use crate::wire::errors::exit;
use crate::wire::text::api_duration;

/// How long giving the locks back may take. The server takes them back anyway when the lease is over.
const GIVE_BACK: Duration = Duration::from_secs(10);
/// The longest pause between two attempts to give them back.
const GIVE_BACK_RETRY: Duration = Duration::from_secs(1);

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
The command runs while the locks are held, in its own process group, which gets every SIGTERM, SIGINT, SIGHUP, SIGQUIT, \
SIGUSR1 and SIGUSR2. If the lease cannot be renewed, the group gets SIGTERM at ttl - max(5s, ttl/3) and SIGKILL 3s \
before the ttl, so that it is gone before anybody else can get the locks. When the command ends, processes that it \
leaves behind in its group are stopped, too.

Its environment contains LOCKER_CLAIM, LOCKER_FENCE, LOCKER_POOL and LOCKER_NAME (of the first lock), LOCKER_METADATA (a \
file with the metadata of that lock) and LOCKER_LOCKS (a file with all locks as JSON).

Exit code: that of the command, or 128 + N if signal N ended it; 8 if the lease was lost; 126 or 127 if the command \
cannot be run; otherwise as for every command (3 if others hold the lock).

Examples:
  locker run staging -- ./deploy.sh
  locker run staging --lock eu-1 --try -- ./deploy.sh      do not wait (exit 3)
  locker run staging --timeout 10m --ttl 2m --reason 'release 1.2' -- make deploy
  locker run staging --shell -- 'make build && make deploy'
  locker run -n -E 75 staging make deploy                  as flock is called (docs/migration/commands.md)")]
pub(super) struct RunArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// The lease: others may get the locks if it has not been renewed for this long (at least 15s); a plain number is in
    /// seconds
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, default_value = "60s")]
    ttl: Duration,
    /// Wait at most this long for the locks; a plain number is in seconds (default: no limit)
    #[arg(short = 'w', long, value_name = "TIME", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// Do not wait: take the lock now or fail
    #[arg(short = 'n', long = "try", conflicts_with = "timeout")]
    once: bool,
    /// Exit with this code, instead of 3, if others hold the lock or the time is over
    #[arg(short = 'E', long, value_name = "CODE")]
    conflict_exit_code: Option<u8>,
    /// Run the command with the shell, as `sh -c COMMAND`; further arguments are $1, $2, ...
    #[arg(short = 'c', long)]
    shell: bool,
    /// The command and its arguments. Put -- before it if it has options that `locker run` has, too
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The claim of this process, and what is needed to work with it.
struct Session<'a> {
    leased: Leased,
    interruptible: &'a Interruptible,
    clock: Arc<dyn Clock>,
    timing: Timing,
}

pub(super) fn run(args: &RunArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    words::check(args.request.pool(), &args.command, &env.args).map_err(CliError::usage)?;
    let timing = Timing::of(env).map_err(CliError::usage)?;
    // Only tests shorten this. It scales all margins.
    let shortest = env_duration(env, "LOCKER_RUN_SHORTEST_TTL", SHORTEST).map_err(CliError::usage)?.min(SHORTEST);
    let margins = Margins::of(args.ttl, shortest).map_err(|why| CliError::usage(format!("--ttl: {why}")))?;
    let (tell, events) = mpsc::channel();
    let heard = tell.clone();
    env.signals.relay(move |signal| drop(heard.send(Event::Signal(signal))))?;
    let interruptible = Interruptible::new(&env.signals);
    let (id, run) = (random_hex::<20>(), random_hex::<16>());
    let acquiring = Acquiring { client, interruptible: &interruptible, timing, id: &id, run: &run };
    let limit = args.timeout.map(|span| Limit { flag: "--timeout", span });
    let claim =
        acquiring.hold(body(args, env), limit, env).map_err(|error| match (error, args.conflict_exit_code) {
            (CliError::Failed(exit::LOCKED, text), Some(code)) => CliError::Failed(code, text),
            (error, _) => error,
        })?;
    let fence = claim.fence.unwrap_or_default();
    let leased = Leased { client: client.clone(), id, run, fence, margins };
    let session = Session { leased, interruptible: &interruptible, clock: Arc::clone(&env.clock), timing };
    let names: Vec<String> = claim.locks.iter().map(|l| format!("{:?} of pool {:?}", l.lock, l.pool)).collect();
    say(env, &format!("granted {}, fence {fence}", names.join(", ")));
    session.with_claim(args, &claim, (tell, events), env)
}

fn body(args: &RunArgs, env: &Env<'_>) -> ClaimBody {
    ClaimBody { queue: !args.once, ttl: Some(api_duration(args.ttl)), ..args.request.body(Scope::Lease, env) }
}

/// The command to start.
fn command(args: &RunArgs) -> Command {
    let (program, rest) = args.command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut command = Command::new(if args.shell { "/bin/sh" } else { program });
    if args.shell {
        command.args(["-c", program, "sh"]);
    }
    command.args(rest);
    command
}

/// Why the command was not started.
enum NotStarted {
    Signalled(Signal),
    Lost(String),
    Failed(CliError),
}

impl From<Signal> for NotStarted {
    fn from(signal: Signal) -> Self {
        Self::Signalled(signal)
    }
}

impl Session<'_> {
    /// Runs the command while the claim is held, then gives the claim back.
    fn with_claim(
        &self,
        args: &RunArgs,
        claim: &ClaimView,
        (tell, events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
        env: &mut Env<'_>,
    ) -> Result<u8, CliError> {
        let outcome = self.prepare(args, claim, env).and_then(|(files, lease, mut command)| {
            // Earlier signals are not for the command. A signal to end was recorded before its event, so none is lost.
            while events.try_recv().is_ok() {}
            self.interruptible.check()?;
            files.tell(&mut command, claim, self.leased.fence);
            let group = Group::start(&mut command, env.var("PATH").unwrap_or_default()).map_err(NotStarted::Failed)?;
            let outcome = self.guard(group, lease, (tell, events), env).map_err(NotStarted::Failed)?;
            // Not before this point: the files exist for as long as the command runs.
            drop(files);
            Ok(outcome)
        });
        match outcome {
            Ok(Outcome::Ended(code)) => Ok(self.give_back(env).unwrap_or(code)),
            Ok(Outcome::Lost) => {
                // No process of the command is left, so the next holder need not wait for the end of the lease.
                self.give_back(env);
                Ok(exit::LOST)
            }
            Err(NotStarted::Lost(why)) => {
                let text = format!("the lease was lost before the command started: {why}");
                Err(CliError::Failed(exit::LOST, text))
            }
            Err(NotStarted::Signalled(signal)) => {
                self.give_back(env);
                say(env, &format!("{} received: nothing is held", signal.name()));
                Ok(signal.exit_code())
            }
            Err(NotStarted::Failed(error)) => {
                self.give_back(env);
                Err(error)
            }
        }
    }

    /// Writes the files, then renews the lease. Everything that may take long comes before the renewal.
    fn prepare(
        &self,
        args: &RunArgs,
        claim: &ClaimView,
        env: &mut Env<'_>,
    ) -> Result<(Files, Lease, Command), NotStarted> {
        let mut locks: Vec<LockView> = Vec::new();
        for lock in &claim.locks {
            let (pool, name) = (lock.pool.clone(), lock.lock.clone());
            let (view, _) = self.insist(move |leased| leased.client.get_lock(&pool, &name), env)?;
            locks.push(view);
        }
        let files = Files::write(&locks).map_err(|error| {
            let text = format!("cannot write the files that describe the locks: {error}");
            NotStarted::Failed(CliError::Failed(exit::FAILED, text))
        })?;
        let (_, sent) = self.insist(Leased::renew, env)?;
        Ok((files, Lease::new(self.leased.margins, sent), command(args)))
    }

    /// Makes a call, and retries while there is no answer, for at most the ttl: after that the claim is lost anyway.
    /// Also returns the moment just before the answered call.
    fn insist<T: Send + 'static>(
        &self,
        call: impl Fn(&Leased) -> Result<T, CallError> + Clone + Send + 'static,
        env: &mut Env<'_>,
    ) -> Result<(T, Duration), NotStarted> {
        let end = self.clock.through_suspend() + self.leased.margins.ttl;
        let mut backoff = Backoff::new(self.timing.retry_max);
        let pace = Pace::of_terminal(env).map_err(|why| NotStarted::Failed(CliError::usage(why)))?;
        let mut silence = Silence::new(pace);
        loop {
            let sent = self.clock.through_suspend();
            let (leased, attempt) = (self.leased.clone(), call.clone());
            match self.interruptible.run(move || attempt(&leased))? {
                Ok(answer) => return Ok((answer, sent)),
                Err(error) if is_over(&error) => return Err(NotStarted::Lost(error.to_string())),
                Err(CallError::NoAnswer(why)) if self.clock.through_suspend() < end => {
                    let now = self.clock.through_suspend();
                    if let Some(line) = silence.line(&why, self.leased.client.has_met(), sent, now) {
                        say(env, &line);
                    }
                    self.interruptible.sleep(backoff.pause(why.retry_after))?;
                }
                Err(error) => return Err(NotStarted::Failed(error.into())),
            }
        }
    }

    /// Watches the command in a thread that nothing blocks, while this thread prints the lines for people.
    fn guard(
        &self,
        group: Group,
        lease: Lease,
        (tell, events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
        env: &mut Env<'_>,
    ) -> Result<Outcome, CliError> {
        let heard = tell.clone();
        group.listen(move |what: Happened| drop(heard.send(Event::Command(what))))?;
        let (lines, said) = mpsc::channel::<String>();
        let watch = Watch::new(&self.leased.margins);
        let (leased, clock) = (self.leased.clone(), Arc::clone(&self.clock));
        let guard = Guard { leased, lease, clock, group, events, tell, lines, watch };
        let thread = std::thread::Builder::new().name("guard".into()).spawn(move || guard.watch())?;
        // This ends with the guard, which has the sender.
        said.iter().for_each(|line| say(env, &line));
        thread.join().map_err(|_| CliError::Failed(exit::FAILED, "the guard of the command has failed".to_owned()))
    }

    /// Gives the locks back. Returns an exit code if this shows that they were lost before.
    fn give_back(&self, env: &mut Env<'_>) -> Option<u8> {
        let Leased { client, id, .. } = &self.leased;
        let end = self.clock.monotonic() + GIVE_BACK;
        let mut backoff = Backoff::new(GIVE_BACK_RETRY);
        loop {
            let left = end.saturating_sub(self.clock.monotonic());
            let patience = left.max(GIVE_BACK_RETRY);
            let Err(error) = client.delete_claim(id, Some(&self.leased.run), patience) else { return None };
            if is_over(&error) {
                say(env, &format!("the locks were lost before they were given back: {error}"));
                return Some(exit::LOST);
            }
            let pause = backoff.pause(None);
            if matches!(error, CallError::Refused(_)) || left <= pause {
                say(env, &format!("claim {id} could not be given back; the server ends it with its lease: {error}"));
                return None;
            }
            std::thread::sleep(pause);
        }
    }
}
