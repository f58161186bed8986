//! From arguments to a command, and from its result to an exit code and a text.

use std::io::Write;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::connection::Connection;
use super::env_defaults;
use super::output::{CliError, is_coloured, say};
use super::{
    access, agent, breaking, check, claim, claims, doctor, history, import, latch, lint, lock, login, manual, notify,
    pool, queue, release, run, server, stats, status, store, token, transfer, verify, version, wait, watch,
};
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::escape::escape;

/// Locks for CI that cannot get stuck, cannot be granted twice, and tell you who holds them and who waits.
///
/// As /opt/resource/check, in and out, this program is a Concourse resource type. `locker server` is the server that
/// they talk to. The other commands are for people and scripts.
#[derive(Debug, Parser)]
#[command(name = "locker", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  locker server --store sqlite:/var/lib/locker/locker.db
  export LOCKER_URI=http://127.0.0.1:8910
  locker pool set environments --capacity 3
  locker status environments
  id=$(locker claim environments --reason 'manual test')
  locker release \"$id\"

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 held by others; 4 not found; 5 conflict, or already ended;
6 no answer from the server; 7 credentials refused; 8 lease lost; 130 and 143 after a signal.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Server(Box<server::ServerArgs>),
    /// Show pools, or the locks and the queue of one pool
    Status(status::StatusArgs),
    /// Take locks by hand; prints the id of the claim, for `locker release`
    Claim(claim::ClaimArgs),
    /// List claims, or tell all that is known about one; takes nothing
    Claims(claims::ClaimsArgs),
    /// Run a command while holding locks; it is stopped before anybody else can get them
    Run(run::RunArgs),
    /// Watch locks, holders and the queue live
    Watch(watch::WatchArgs),
    /// Wait until a pool or a lock reaches a state, without taking anything
    Wait(wait::WaitArgs),
    /// What happened, the newest first: who waited, held, lost or broke what, and for how long
    History(history::HistoryArgs),
    /// The longest waits and holds, now and in a span
    Top(stats::TopArgs),
    /// Waits, holds and use by pool and by team over a span
    Stats(stats::StatsArgs),
    /// Check that a fence belongs to the current holder, before you change what the lock protects
    Verify(verify::VerifyArgs),
    /// Give locks back
    Release(release::ReleaseArgs),
    /// End a hold by force, with a reason
    Break(breaking::BreakArgs),
    /// Move or cancel waiting claims
    Queue(queue::QueueArgs),
    /// Declare, list and remove pools
    Pool(pool::PoolArgs),
    /// Add, change and remove locks; take them out of service and put them back
    Lock(lock::LockArgs),
    /// Export pools as a pool-resource repository or as JSON
    Export(transfer::ExportArgs),
    /// Work with the latches of Argo workflows, as lockcli does
    Latch(latch::LatchArgs),
    /// Resume the Argo workflows whose latches are released, as lockagt does
    Agent(agent::AgentArgs),
    /// Check what an access file allows
    Access(access::AccessArgs),
    /// Make the hash of a password for an access file
    User(access::UserArgs),
    /// Make, list and revoke tokens of the server
    Token(token::TokenArgs),
    /// Keep a token for a server, so that commands need no other credentials
    Login(login::LoginArgs),
    /// Forget the token that is kept for a server
    Logout(login::LoginArgs),
    /// Import locks from another system
    Import(import::ImportArgs),
    /// Back up a store to a file, even while the server uses it
    Backup(store::BackupArgs),
    /// Restore a backup: the next server starts with it
    Restore(store::RestoreArgs),
    /// Check a store
    Store(store::StoreArgs),
    /// Try the file of targets that `locker server --notify` notifies
    Notify(notify::NotifyArgs),
    /// Print completions for a shell
    Completions(manual::CompletionsArgs),
    /// Print the man pages, or write them to a directory
    Man(manual::ManArgs),
    /// Print the version; check whether a server can use its settings
    Version(version::VersionArgs),
    /// Find out why a resource does not work: server, TLS, credentials, pool
    Doctor(doctor::DoctorArgs),
    /// Find what would fail in pipelines, or leave a lock held, before they are set
    Lint(lint::LintArgs),
    /// The resource's check, as Concourse runs it (JSON on stdin)
    Check,
    /// The resource's get, as Concourse runs it (JSON on stdin)
    In(check::StepArgs),
    /// The resource's put, as Concourse runs it (JSON on stdin)
    Out(check::StepArgs),
}

/// The definition of the whole command line, for documentation.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs `locker` and returns its exit code.
pub fn locker(env: &mut Env<'_>) -> u8 {
    run_as(Cli::command(), execute, env)
}

/// Runs `lockcli` and returns its exit code.
pub fn lockcli(env: &mut Env<'_>) -> u8 {
    run_as(latch::LockCli::command(), latch::execute, env)
}

/// Runs `lockagt` and returns its exit code.
pub fn lockagt(env: &mut Env<'_>) -> u8 {
    run_as(agent::LockAgt::command(), agent::execute, env)
}

type Execute = fn(&ArgMatches, &mut Env<'_>) -> Result<u8, CliError>;

fn run_as(command: clap::Command, execute: Execute, env: &mut Env<'_>) -> u8 {
    let name = command.get_name().to_owned();
    let args = if name == "locker" { env.args.clone() } else { as_go_flags(&command, &env.args) };
    let parsed = env_defaults::with_env(command, &env.vars).color(colour(env)).try_get_matches_from(&args);
    let matches = match parsed {
        Ok(matches) => matches,
        Err(error) => {
            let code = show_clap_error(env, &error);
            if let Some(tip) = run::missing_command(&error, &env.args) {
                say(env, &tip);
            }
            return code;
        }
    };
    match execute(&matches, env) {
        Ok(code) => code,
        Err(CliError::PipeClosed) => exit::OK,
        Err(CliError::Signalled(signal)) => signal.exit_code(),
        Err(CliError::Failed(code, text)) => report(env, &name, code, &text),
        Err(CliError::Call(error)) => {
            let code = error.exit();
            report(env, &name, code, &error.to_string())
        }
    }
}

/// The arguments of a program that replaces one written in Go, whose flags may have one dash: `-api-endpoint URL`.
fn as_go_flags(command: &clap::Command, args: &[String]) -> Vec<String> {
    let all = || std::iter::once(command).chain(command.get_subcommands());
    let is_long = |name: &str| {
        let mut flags = all().flat_map(clap::Command::get_arguments);
        name == "help" || name == "version" || flags.any(|flag| flag.get_long() == Some(name))
    };
    let mut is_over = false;
    let with_two = |arg: &String| {
        is_over |= arg == "--";
        let name = arg.strip_prefix('-').map(|rest| rest.split('=').next().unwrap_or_default());
        if !is_over && name.is_some_and(|name| name.len() > 1 && is_long(name)) {
            format!("-{arg}")
        } else {
            arg.clone()
        }
    };
    args.iter().map(with_two).collect()
}

fn report(env: &mut Env<'_>, name: &str, code: u8, text: &str) -> u8 {
    say(env, &format!("{name}: {text}"));
    code
}

fn colour(env: &Env<'_>) -> clap::ColorChoice {
    if is_coloured(env) { clap::ColorChoice::Always } else { clap::ColorChoice::Never }
}

fn show_clap_error(env: &mut Env<'_>, error: &clap::Error) -> u8 {
    let text = error.render();
    let text = if error.use_stderr() {
        // It repeats the arguments, and scripts may pass names that other people chose.
        text.to_string().lines().map(escape).collect::<Vec<_>>().join("\n") + "\n"
    } else if is_coloured(env) {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    let out: &mut dyn Write = if error.use_stderr() { env.stderr } else { env.stdout };
    // Failing to show help is not an error.
    let _ = out.write_all(text.as_bytes());
    if error.use_stderr() { exit::USAGE } else { exit::OK }
}

fn execute(matches: &ArgMatches, env: &mut Env<'_>) -> Result<u8, CliError> {
    let cli = Cli::from_arg_matches(matches).map_err(|error| CliError::usage(error.to_string()))?;
    let connection = &cli.connection;
    match cli.command {
        Command::Server(args) => server::run(&args, connection, env),
        Command::Status(args) => connection.open(env, |client, env| status::run(&args, client, env)),
        Command::Claim(args) => connection.open(env, |client, env| claim::run(&args, client, env)),
        Command::Claims(args) => connection.open(env, |client, env| claims::run(&args, client, env)),
        Command::Run(args) => connection.open(env, |client, env| run::run(&args, client, env)),
        Command::Watch(args) => connection.open(env, |client, env| watch::run(&args, client, env)),
        Command::Wait(args) => connection.open(env, |client, env| wait::run(&args, client, env)),
        Command::History(args) => connection.open(env, |client, env| history::run(&args, client, env)),
        Command::Top(args) => connection.open(env, |client, env| stats::top(&args, client, env)),
        Command::Stats(args) => connection.open(env, |client, env| stats::stats(&args, client, env)),
        Command::Verify(args) => connection.open(env, |client, env| verify::run(&args, client, env)),
        Command::Release(args) => connection.open(env, |client, env| release::run(&args, client, env)),
        Command::Break(args) => connection.open(env, |client, env| breaking::run(&args, client, env)),
        Command::Queue(args) => connection.open(env, |client, env| queue::run(&args, client, env)),
        Command::Pool(args) => connection.open(env, |client, env| pool::run(&args, client, env)),
        Command::Lock(args) => connection.open(env, |client, env| lock::run(&args, client, env)),
        Command::Export(args) => transfer::export(&args, connection, env),
        Command::Latch(args) => latch::run(args, connection, env),
        Command::Agent(args) => agent::run(args, connection, env),
        Command::Import(args) => import::run(&args, connection, env),
        Command::Access(args) => access::run(&args, env),
        Command::User(args) => access::user(&args, env),
        Command::Token(args) => connection.open(env, |client, env| token::run(&args, client, env)),
        Command::Login(args) => login::login(&args, connection, env),
        Command::Logout(args) => login::logout(&args, connection, env),
        Command::Lint(args) => lint::run(&args, env),
        Command::Notify(args) => notify::run(&args, env),
        Command::Version(args) => {
            let server = args.checked().map(|flags| server_args(flags, env)).transpose()?;
            version::run(server.as_ref(), env)
        }
        Command::Doctor(args) => doctor::run(&args, connection, env),
        Command::Completions(args) => manual::completions(&args, command(), env),
        Command::Man(args) => manual::man(&args, command(), env),
        Command::Backup(args) => store::backup(&args, env),
        Command::Restore(args) => store::restore(&args, env),
        Command::Store(args) => store::store(&args, env),
        Command::Check => Ok(check::check(env)),
        Command::In(args) => Ok(check::get(&args, env)),
        Command::Out(args) => Ok(check::put(&args, env)),
    }
}

/// The settings of a server that is started with these flags.
fn server_args(flags: &[String], env: &Env<'_>) -> Result<server::ServerArgs, CliError> {
    let line = ["locker", "server"].map(str::to_owned).into_iter().chain(flags.iter().cloned());
    let wrong = |error: clap::Error| CliError::usage(error.to_string());
    let matches = env_defaults::with_env(Cli::command(), &env.vars).try_get_matches_from(line).map_err(wrong)?;
    match Cli::from_arg_matches(&matches).map_err(wrong)?.command {
        Command::Server(args) => Ok(*args),
        _ => Err(CliError::usage("the flags after -- are those of `locker server`".to_owned())),
    }
}
