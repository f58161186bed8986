//! The command line: `locker ...`. One file for each command; exit codes are those of [`crate::wire::errors::exit`].
//!
//! Options with an environment variable read it from [`Env`], not from the process: see `env_defaults`.

mod agent;
mod ask;
mod breaking;
mod check;
mod claim;
mod doctor;
mod env_defaults;
mod import;
mod import_locker;
mod latch;
mod lock;
mod manual;
mod pool;
mod queue;
mod ready;
mod release;
mod run;
pub mod server;
mod status;
mod store;
mod table;
mod transfer;
mod verify;
mod wait;
mod watch;

use std::io::Write;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::connect::Access;
use crate::client::{CallError, Client};
use crate::core::limits::OWNER_FIELD_BYTES;
use crate::env::{Env, Signal, random_hex};
use crate::server::door::Pem;
use crate::wire::api::{ByBody, Owner};
use crate::wire::errors::exit;
use crate::wire::escape::{Escaped, cut, escape};
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// Locks for CI that cannot get stuck, cannot be granted twice, and tell you who holds them and who waits.
///
/// As /opt/resource/check, in and out this program is a Concourse resource type; as `locker server` it is the
/// server that those talk to; the other commands are for people and scripts.
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

Exit codes: 0 done; 1 failed; 2 wrong use; 3 locked by others; 4 not found; 5 conflict, or over already;
6 no answer from the server; 7 credentials refused; 8 lease lost; 130 and 143 after a signal.";

/// Which server to talk to.
#[derive(Debug, Args)]
struct Connection {
    /// Address of the locker server
    #[arg(
        long,
        global = true,
        help_heading = "Connection",
        env = "LOCKER_URI",
        value_name = "URL",
        default_value = "http://127.0.0.1:8910"
    )]
    uri: String,
    /// User name, when the server asks for one
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_USERNAME", value_name = "NAME")]
    username: Option<String>,
    /// Password; better in the environment, because other users can read command lines
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_PASSWORD", value_name = "TEXT")]
    password: Option<Secret>,
    /// Trust only these issuers of server certificates: a PEM file, or PEM text
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_CA_CERT", value_name = "PEM")]
    ca_cert: Option<Pem>,
    /// Certificate to show to the server: a PEM file, or PEM text; with --client-key
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_CLIENT_CERT", value_name = "PEM")]
    client_cert: Option<Pem>,
    /// Key of that certificate
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_CLIENT_KEY", value_name = "PEM")]
    client_key: Option<Pem>,
    /// Do not check the server's certificate: anybody could pose as the server
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_SKIP_SSL_VALIDATION")]
    skip_ssl_validation: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Server(Box<server::ServerArgs>),
    /// Show pools, or the locks and the queue of one pool
    Status(status::StatusArgs),
    /// Take locks by hand; prints the claim's id, which releases them
    Claim(claim::ClaimArgs),
    /// Run a command while holding locks; it is stopped before anybody else can have them
    Run(run::RunArgs),
    /// Watch locks, holders and queue live
    Watch(watch::WatchArgs),
    /// Wait for a state of a pool or a lock, without taking anything
    Wait(wait::WaitArgs),
    /// Check that a fence is a present holder's, before changing what the lock protects
    Verify(verify::VerifyArgs),
    /// Give locks back
    Release(release::ReleaseArgs),
    /// End a hold by force, and say why
    Break(breaking::BreakArgs),
    /// Move or cancel those who wait
    Queue(queue::QueueArgs),
    /// Declare, list and remove pools
    Pool(pool::PoolArgs),
    /// Add, change and remove locks; take them out of service and put them back
    Lock(lock::LockArgs),
    /// Write pools out: as a pool-resource repository, or as JSON
    Export(transfer::ExportArgs),
    /// Latches of Argo workflows, as the program lockcli
    Latch(latch::LatchArgs),
    /// Resume the Argo workflows whose latches are released, as the program lockagt
    Agent(agent::AgentArgs),
    /// Take over what another system has
    Import(import::ImportArgs),
    /// Copy a store into a file, also while the server uses it
    Backup(store::BackupArgs),
    /// Make a backup the store of the next server
    Restore(store::RestoreArgs),
    /// Look after a store
    Store(store::StoreArgs),
    /// Print completions for a shell
    Completions(manual::CompletionsArgs),
    /// Print man pages, or write all of them
    Man(manual::ManArgs),
    /// See why a resource does not work: server, TLS, credentials, pool
    Doctor(doctor::DoctorArgs),
    /// The resource's check, as Concourse runs it (JSON on stdin)
    Check,
    /// The resource's get, as Concourse runs it (JSON on stdin)
    In(check::StepArgs),
    /// The resource's put, as Concourse runs it (JSON on stdin)
    Out(check::StepArgs),
}

/// Why a command ends without success.
enum CliError {
    /// With this exit code and text.
    Failed(u8, String),
    Call(CallError),
    /// A signal came; there is no more to say.
    Signalled(Signal),
    /// The reader of stdout has left: it has seen enough.
    PipeClosed,
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::PipeClosed
        } else {
            Self::Failed(exit::FAILED, format!("cannot write: {error}"))
        }
    }
}

impl CliError {
    fn usage(text: impl Into<String>) -> Self {
        Self::Failed(exit::USAGE, text.into())
    }
}

/// The whole command line, for whatever describes it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line and gives its exit code.
pub fn run(env: &mut Env<'_>) -> u8 {
    run_as(Cli::command(), execute, env)
}

/// Runs `lockcli` and gives its exit code.
pub fn lockcli(env: &mut Env<'_>) -> u8 {
    run_as(latch::LockCli::command(), latch::execute, env)
}

/// Runs `lockagt` and gives its exit code.
pub fn lockagt(env: &mut Env<'_>) -> u8 {
    run_as(agent::LockAgt::command(), agent::execute, env)
}

type Execute = fn(&ArgMatches, &mut Env<'_>) -> Result<u8, CliError>;

fn run_as(command: clap::Command, execute: Execute, env: &mut Env<'_>) -> u8 {
    let name = command.get_name().to_owned();
    let parsed = env_defaults::with_env(command, &env.vars).color(colour(env)).try_get_matches_from(&env.args);
    let matches = match parsed {
        Ok(matches) => matches,
        Err(error) => return show_clap_error(env, &error),
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

fn report(env: &mut Env<'_>, name: &str, code: u8, text: &str) -> u8 {
    say(env, &format!("{name}: {text}"));
    code
}

fn colour(env: &Env<'_>) -> clap::ColorChoice {
    if is_coloured(env) { clap::ColorChoice::Always } else { clap::ColorChoice::Never }
}

/// Colour is for people: only on a terminal, and not against their will (no-color.org).
fn is_coloured(env: &Env<'_>) -> bool {
    env.is_terminal && env.var("NO_COLOR").is_none()
}

fn show_clap_error(env: &mut Env<'_>, error: &clap::Error) -> u8 {
    let text = error.render();
    let text = if error.use_stderr() {
        // It repeats what was given, and scripts give names that others chose.
        text.to_string().lines().map(escape).collect::<Vec<_>>().join("\n") + "\n"
    } else if is_coloured(env) {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    let out: &mut dyn Write = if error.use_stderr() { env.stderr } else { env.stdout };
    // Help that nobody reads is no failure.
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
        Command::Run(args) => connection.open(env, |client, env| run::run(&args, client, env)),
        Command::Watch(args) => connection.open(env, |client, env| watch::run(&args, client, env)),
        Command::Wait(args) => connection.open(env, |client, env| wait::run(&args, client, env)),
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
        Command::Doctor(args) => doctor::run(&args, connection, env),
        Command::Completions(args) => manual::completions(&args, env),
        Command::Man(args) => manual::man(&args, env),
        Command::Backup(args) => store::backup(&args, env),
        Command::Restore(args) => store::restore(&args, env),
        Command::Store(args) => store::store(&args, env),
        Command::Check => Ok(check::check(env)),
        Command::In(args) => Ok(check::get(&args, env)),
        Command::Out(args) => Ok(check::put(&args, env)),
    }
}

impl Connection {
    /// Runs a command with a client of the server.
    fn open(
        &self,
        env: &mut Env<'_>,
        run: impl FnOnce(&Client, &mut Env<'_>) -> Result<u8, CliError>,
    ) -> Result<u8, CliError> {
        let client = self.client(env)?;
        run(&client, env)
    }

    fn client(&self, env: &mut Env<'_>) -> Result<Client, CliError> {
        let (server, credentials) = self.target()?;
        let tls = self.tls()?;
        self.warn(env);
        Client::open(Access::to(server, credentials, tls), &env.vars).map_err(CliError::usage)
    }

    /// Says what is unsafe about it.
    fn warn(&self, env: &mut Env<'_>) {
        if self.skip_ssl_validation {
            // Whoever reads no warnings cannot be warned.
            let _ =
                writeln!(env.stderr, "warning: --skip-ssl-validation: anybody could pose as the server; use --ca-cert");
        }
    }

    /// Whom to trust, and what to show.
    fn tls(&self) -> Result<Tls, CliError> {
        let read = |pem: &Option<Pem>| pem.as_ref().map(Pem::text).transpose();
        let read = |pem: &Option<Pem>| read(pem).map_err(|error| CliError::usage(format!("{error:#}")));
        let client = match (read(&self.client_cert)?, read(&self.client_key)?) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, Secret::new(key))),
            _ => return Err(CliError::usage("--client-cert and --client-key belong together".to_owned())),
        };
        let skip_verification = self.skip_ssl_validation.then_some("--skip-ssl-validation");
        Ok(Tls { ca_cert: read(&self.ca_cert)?, client, skip_verification })
    }

    /// The server and the credentials as they were given.
    fn target(&self) -> Result<(ServerUrl, Option<Credentials>), CliError> {
        let server =
            ServerUrl::parse(&self.uri).map_err(|why| CliError::usage(format!("the server's address {why}")))?;
        Ok((server, self.credentials()))
    }

    fn credentials(&self) -> Option<Credentials> {
        match (&self.username, &self.password) {
            (None, None) => None,
            (username, password) => Some(Credentials {
                username: username.clone().unwrap_or_default(),
                password: password.clone().unwrap_or_else(|| Secret::new("")),
            }),
        }
    }
}

/// The person at the command line, as far as the environment says.
fn person(env: &Env<'_>) -> Owner {
    let name = env.var("USER").or_else(|| env.var("LOGNAME")).unwrap_or("somebody");
    let place = if env.hostname.is_empty() { String::new() } else { format!("@{}", env.hostname) };
    let person = format!("{name}{place}");
    Owner { person: Some(cut(&person, OWNER_FIELD_BYTES).to_owned()), ..Owner::default() }
}

/// Who changes something, with a fresh id that makes the call safe to repeat.
fn by(env: &Env<'_>, reason: Option<&String>) -> ByBody {
    ByBody { op: Some(random_hex::<16>()), owner: person(env), reason: reason.cloned() }
}

/// `NAME=VALUE` as given to `--label`.
fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    crate::wire::concourse::parse_duration(text)
}

/// JSON for programs, on stdout.
fn print_json<T: serde::Serialize>(env: &mut Env<'_>, value: &T) -> Result<(), CliError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(std::io::Error::other)?;
    text.push(b'\n');
    env.stdout.write_all(&text)?;
    Ok(env.stdout.flush()?)
}

/// One line for people, on stdout.
fn print_line(env: &mut Env<'_>, text: &str) -> Result<(), CliError> {
    writeln!(env.stdout, "{}", Escaped(text))?;
    Ok(env.stdout.flush()?)
}

/// One line of progress or advice, on stderr.
fn say(env: &mut Env<'_>, text: &str) {
    // In one piece: others may write to the same place, such as the command of `run`.
    let line = format!("{}\n", Escaped(text));
    // Nobody reads it any more: no reason to fail, the exit code still tells.
    let _ = env.stderr.write_all(line.as_bytes());
}
