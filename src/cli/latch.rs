//! `lockcli`, also as `locker latch`: latches of Argo workflows (docs/latches.md).
//!
//! The output is for programs: `create` prints only the id, `get` and `list` print JSON, `release` and `delete` print
//! nothing. The exit code is 0 only if the command succeeded.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};

use super::connection::Connection;
use super::output::{CliError, say};
use super::values::parse_duration;
use crate::client::CallError;
use crate::client::interruptible::Interruptible;
use crate::client::latches::LatchClient;
use crate::client::progress::{Pace, Silence};
use crate::core::latch::{LatchId, Namespace, WorkflowName, WorkflowUid};
use crate::env::{Env, Signal, random_bytes};
use crate::wire::errors::exit;
use crate::wire::escape::escape_json;
use crate::wire::latch::{CreateBody, LatchStatus, LatchView, NodeView, OnRelease, ReleaseBody};

/// Where an Argo output parameter finds the result, unless `--result` names another file.
const RESULT: &str = "/result";
/// How long the server is asked to hold one request of `--wait`: well below the idle timeout of proxies.
const LONG_POLL: Duration = Duration::from_secs(25);
/// How long `--wait` pauses if the server cannot be reached.
const PAUSE: Duration = Duration::from_secs(2);

/// Create, show, release and delete the latches that suspended Argo workflows wait for.
#[derive(Debug, Parser)]
#[command(name = "lockcli", version, propagate_version = true, after_help = EXAMPLES)]
pub(super) struct LockCli {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    args: LatchArgs,
}

const EXAMPLES: &str = "\
Examples:
  export API_ENDPOINT=http://HOST:8910/lock
  id=$(lockcli create build-x7k default)
  lockcli release \"$id\" --outputs '{\"version\": \"1.2\"}'
  lockcli get \"$id\" --wait
  lockcli delete \"$id\"

Exit codes: 0 done; 1 failed, or released with a failure; 2 wrong usage; 3 not released in time; 4 not found;
5 conflict; 6 no answer from the server; 7 credentials refused; 130 and 143 after a signal.";

/// Arguments of `latch`, and of `lockcli`.
#[derive(Debug, Args)]
#[command(after_help = "The same as the program `lockcli`; examples: lockcli --help")]
pub(super) struct LatchArgs {
    /// URL of the latches, such as `http://HOST:8910/lock`; used as given (default: --uri with /lock)
    #[arg(long, global = true, help_heading = "Connection", env = "API_ENDPOINT", value_name = "URL")]
    api_endpoint: Option<String>,
    /// Also write the output of create or get to this file (default: /result, if it can be written)
    #[arg(long, global = true, value_name = "FILE")]
    result: Option<PathBuf>,
    #[command(subcommand)]
    command: LatchCommand,
}

#[derive(Debug, Subcommand)]
enum LatchCommand {
    /// Create a latch for a workflow and print its id
    Create(CreateArgs),
    /// Print a latch as JSON
    Get {
        /// Id of the latch
        id: String,
        /// Wait until the latch is released; exit with 1 if it was released with a failure
        #[arg(long)]
        wait: bool,
        /// Wait at most this long, then exit with 3
        #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
        timeout: Option<Duration>,
    },
    /// Release a latch, so that its workflow goes on; harmless to repeat
    Release {
        /// Id of the latch
        id: String,
        /// Output parameters for the waiting node: a JSON object whose values are strings
        #[arg(long, value_name = "JSON", conflicts_with = "failure")]
        outputs: Option<String>,
        /// Let the waiting node fail with this message
        #[arg(long, value_name = "TEXT")]
        failure: Option<String>,
    },
    /// Delete a latch, released or not
    Delete {
        /// Id of the latch
        id: String,
    },
    /// Print latches as a JSON array
    List {
        /// Which latches to print: locked, released or all
        #[arg(long, value_name = "STATUS", default_value = "all", value_parser = ["locked", "released", "all"])]
        status: String,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name of the workflow that waits
    workflow: WorkflowName,
    /// Namespace of the workflow
    #[arg(default_value = "default")]
    namespace: Namespace,
    /// The node that waits, by its id, its name, or the value of an input parameter
    #[arg(long, value_name = "id=ID|name=NAME|input:PARAMETER=VALUE", value_parser = parse_node)]
    node: Option<NodeView>,
    /// metadata.uid of the workflow; a later workflow of the same name is left alone
    #[arg(long, value_name = "UID")]
    workflow_uid: Option<WorkflowUid>,
}

fn parse_node(text: &str) -> Result<NodeView, String> {
    let must = || "must be id=ID, name=NAME or input:PARAMETER=VALUE".to_owned();
    let (how, value) = text.split_once('=').ok_or_else(must)?;
    let value = value.to_owned();
    match how {
        "id" => Ok(NodeView::Id { id: value }),
        "name" => Ok(NodeView::Name { name: value }),
        _ => match how.strip_prefix("input:") {
            Some(parameter) => Ok(NodeView::Parameter { parameter: parameter.to_owned(), value }),
            None => Err(must()),
        },
    }
}

/// `lockcli`, parsed.
pub(super) fn execute(matches: &ArgMatches, env: &mut Env<'_>) -> Result<u8, CliError> {
    let cli = LockCli::from_arg_matches(matches).map_err(|error| CliError::usage(error.to_string()))?;
    run(cli.args, &cli.connection, env)
}

pub(super) fn run(args: LatchArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    run_with(args, connection, Path::new(RESULT), env)
}

fn run_with(
    args: LatchArgs,
    connection: &Connection,
    default_result: &Path,
    env: &mut Env<'_>,
) -> Result<u8, CliError> {
    connection.warn(env);
    let client = latch_client(args.api_endpoint, connection, env)?;
    let asking = Asking { client, interruptible: Interruptible::new(&env.signals) };
    let result = ResultFile { path: args.result.as_deref().unwrap_or(default_result), is_asked: args.result.is_some() };
    match args.command {
        LatchCommand::Create(args) => {
            let body = create_body(args);
            let made = asking.ask(move |client| client.create(&body))?;
            result.give(&made.id, env)
        }
        LatchCommand::Get { id, wait: false, .. } => {
            let latch = asking.ask(move |client| client.get(&id))?;
            result.give(&to_json(&latch)?, env)
        }
        LatchCommand::Get { id, wait: true, timeout } => {
            let latch = asking.wait(&id, timeout, env)?;
            let code = result.give(&to_json(&latch)?, env)?;
            Ok(ended(&latch, code, env))
        }
        LatchCommand::Release { id, outputs, failure } => {
            let body = ReleaseBody { outputs: outputs.as_deref().map(parse_outputs).transpose()?, failure };
            asking.ask(move |client| client.release(&id, &body))?;
            Ok(exit::OK)
        }
        LatchCommand::Delete { id } => {
            asking.ask(move |client| client.delete(&id))?;
            Ok(exit::OK)
        }
        LatchCommand::List { status } => {
            let latches = asking.ask(move |client| client.list(&status))?;
            print(&to_json(&latches)?, env)?;
            Ok(exit::OK)
        }
    }
}

/// A client of this endpoint, or of the `/lock` endpoint of the server that the other commands use.
pub(super) fn latch_client(
    endpoint: Option<String>,
    connection: &Connection,
    env: &Env<'_>,
) -> Result<LatchClient, CliError> {
    let (endpoint, authorization) = match endpoint {
        // It may be another server, which must not see a token that is kept for this one.
        Some(endpoint) => (endpoint, connection.given()),
        None => (format!("{}/lock", connection.uri.trim_end_matches('/')), connection.target(env)?.1),
    };
    LatchClient::open(&endpoint, authorization, connection.tls()?, &env.vars).map_err(CliError::usage)
}

/// The exit code of a wait. It must not be 0 for a failure, because scripts go on after 0.
fn ended(latch: &LatchView, code: u8, env: &mut Env<'_>) -> u8 {
    match &latch.on_release {
        Some(OnRelease::Fail(message)) if code == exit::OK => {
            say(env, &format!("lockcli: released with a failure: {message}"));
            exit::FAILED
        }
        _ => code,
    }
}

fn create_body(args: CreateArgs) -> CreateBody {
    CreateBody {
        id: LatchId::from_random(random_bytes()).to_string(),
        workflow: args.workflow.to_string(),
        namespace: args.namespace.to_string(),
        workflow_uid: args.workflow_uid.map(|uid| uid.to_string()),
        node: args.node,
    }
}

fn parse_outputs(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, CliError> {
    let parsed = serde_json::from_str(text);
    parsed
        .map_err(|error| CliError::usage(format!("--outputs must be a JSON object whose values are strings: {error}")))
}

/// Makes calls that a signal can interrupt.
struct Asking {
    client: LatchClient,
    interruptible: Interruptible,
}

impl Asking {
    fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&LatchClient) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CliError> {
        let client = self.client.clone();
        Ok(self.interruptible.run(move || call(&client)).map_err(signalled)??)
    }

    /// Waits for the release, also across restarts of the server.
    fn wait(&self, id: &str, timeout: Option<Duration>, env: &mut Env<'_>) -> Result<LatchView, CliError> {
        let mut silence = Silence::new(Pace::of_terminal(env).map_err(CliError::usage)?);
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let left = || end.map_or(LONG_POLL, |end| end.saturating_duration_since(Instant::now()).min(LONG_POLL));
        loop {
            let (client, wanted, wait) = (self.client.clone(), id.to_owned(), left());
            let sent = env.clock.monotonic();
            let asked = self.interruptible.run(move || client.get_released(&wanted, wait)).map_err(signalled)?;
            match asked {
                Ok(latch) if latch.status == LatchStatus::Released => return Ok(latch),
                Ok(_) if left().is_zero() => {
                    return Err(CliError::Failed(exit::LOCKED, format!("latch {id} was not released in time")));
                }
                Ok(_) => drop(silence.over()),
                Err(CallError::NoAnswer(why)) if left().is_zero() => return Err(CallError::NoAnswer(why).into()),
                Err(CallError::NoAnswer(why)) => {
                    let line = silence.line(&why, self.client.has_met(), sent, env.clock.monotonic());
                    line.iter().for_each(|line| say(env, &format!("lockcli: {line}")));
                    self.interruptible.sleep(PAUSE.min(left())).map_err(signalled)?;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
    }
}

fn signalled(signal: Signal) -> CliError {
    CliError::Failed(signal.exit_code(), format!("{} received: stopped", signal.name()))
}

fn to_json(value: &impl serde::Serialize) -> Result<String, CliError> {
    Ok(escape_json(&serde_json::to_string(value).map_err(std::io::Error::other)?))
}

/// Prints one line for programs. Ids contain no control characters, and JSON has been escaped.
fn print(text: &str, env: &mut Env<'_>) -> Result<(), CliError> {
    writeln!(env.stdout, "{text}")?;
    Ok(env.stdout.flush()?)
}

/// The file that gets the result in addition to stdout.
struct ResultFile<'a> {
    path: &'a Path,
    /// It was named on the command line, so failing to write it is an error.
    is_asked: bool,
}

impl ResultFile<'_> {
    /// Prints a text and writes it to the file. The file gets no newline, because Argo takes every byte.
    fn give(&self, text: &str, env: &mut Env<'_>) -> Result<u8, CliError> {
        print(text, env)?;
        match std::fs::write(self.path, text) {
            Err(error) if self.is_asked => {
                let text = format!("cannot write the result to {}: {error}", self.path.display());
                Err(CliError::Failed(exit::FAILED, text))
            }
            _ => Ok(exit::OK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Signals, SystemClock};

    /// Gives a text to a result file. Returns what was printed, and the exit code if there is one.
    fn give(path: &Path, is_asked: bool) -> (Vec<u8>, Option<u8>) {
        let (mut stdin, mut stdout, mut stderr) = (std::io::empty(), Vec::new(), Vec::new());
        let mut env = Env {
            args: Vec::new(),
            vars: std::collections::BTreeMap::new(),
            stdin: &mut stdin,
            stdout: &mut stdout,
            stderr: &mut stderr,
            is_terminal: false,
            hostname: String::new(),
            clock: std::sync::Arc::new(SystemClock::default()),
            signals: Signals::default(),
        };
        let code = ResultFile { path, is_asked }.give("id", &mut env).ok();
        assert!(stderr.is_empty(), "the caller reports the failure");
        (stdout, code)
    }

    #[test]
    fn only_a_result_file_that_was_named_must_be_writable() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("result");
        assert_eq!(give(&good, false), (b"id\n".to_vec(), Some(exit::OK)));
        assert_eq!(std::fs::read(&good).unwrap(), b"id", "Argo takes every byte");
        assert_eq!(give(dir.path(), false), (b"id\n".to_vec(), Some(exit::OK)), "silent");
        assert_eq!(give(dir.path(), true), (b"id\n".to_vec(), None), "printed all the same");
    }
}
