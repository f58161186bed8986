//! `locker server`: every setting as a flag and an environment variable (design section 7).

use std::time::Duration;

use clap::Args;

use super::{CliError, parse_duration};
use crate::core::limits;
use crate::core::settings::{Plant, Settings};
use crate::core::time::Span;
use crate::env::Env;
use crate::server::door::DoorSettings;
use crate::server::{self, ServerSettings};
use crate::wire::contracts::{Contracts, UnlockMissing};
use crate::wire::errors::exit;
use crate::wire::secret::Secret;

/// The default address: only this machine.
const LISTEN: &str = "127.0.0.1:8910";

/// Settings of the server. Of two equal options the later one counts, so that a wrapper's can be overridden.
#[derive(Debug, Clone, Args)]
#[command(
    args_override_self = true,
    after_help = "\
Examples:
  locker server                                              on 127.0.0.1:8910, with ./locker.db
  locker server --listen 0.0.0.0:8910 --store sqlite:/var/lib/locker/locker.db
  AUTH_USER=ci AUTH_PASS=... locker server                   ask clients for credentials
  locker server --store memory:                              for trying out: forgets everything

Historic variables: PORT changes the port of --listen; AUTH_USER and AUTH_PASS belong together; LOCKER_CONFIG is the
state file of an original locker, imported when the store is empty.
SIGTERM and SIGINT end it after the answers that are due."
)]
pub struct ServerArgs {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, env = "LOCKER_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where the truth is kept: sqlite:FILE or memory:
    #[arg(long, env = "LOCKER_STORE", value_name = "STORE", default_value = "sqlite:locker.db")]
    pub store: String,
    /// Only declared pools exist: a claim never makes one
    #[arg(long, env = "LOCKER_DECLARED_ONLY")]
    pub declared_only: bool,
    /// Say explicitly that anybody who can connect may do anything
    #[arg(long, env = "LOCKER_NO_AUTH")]
    pub no_auth: bool,
    /// Directory for the private socket (default: the first writable of the store's and the temporary directory)
    #[arg(long, env = "LOCKER_RUNTIME_DIR", value_name = "DIR")]
    pub runtime_dir: Option<std::path::PathBuf>,
    /// Most client connections at a time
    #[arg(long, env = "LOCKER_MAX_CONNECTIONS", value_name = "N", default_value_t = limits::DOOR_CONNECTIONS)]
    pub max_connections: usize,
    /// Most requests that are kept waiting at a time
    #[arg(long, env = "LOCKER_MAX_PARKED", value_name = "N", default_value_t = limits::DOOR_PARKED)]
    pub max_parked: usize,
    /// Time for requests on their way to end after SIGTERM
    #[arg(long, env = "LOCKER_STOP_GRACE", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub stop_grace: Duration,
    /// Which APIs of other servers are served, with commas between them: locker, lockd, latches; or none
    #[arg(long, env = "LOCKER_CONTRACTS", value_name = "LIST", default_value_t)]
    pub contracts: Contracts,
    /// Status of lockd's DELETE for a lock that is not locked: 409 as documented, or 404 as its program answers
    #[arg(long, env = "LOCKER_LOCKD_UNLOCK_MISSING", value_name = "STATUS", default_value = "409")]
    pub lockd_unlock_missing: UnlockMissing,
    /// History entries kept for each pool
    #[arg(long, env = "LOCKER_HISTORY", value_name = "N", default_value_t = 1_000)]
    pub history: usize,
    /// History entries older than this go
    #[arg(long, env = "LOCKER_HISTORY_AGE", value_name = "TIME", default_value = "90d", value_parser = parse_duration)]
    pub history_age: Duration,
    #[command(flatten)]
    pub timing: TimingArgs,
    /// Testing only: the planted bug to carry
    #[cfg(feature = "plant")]
    #[arg(long, env = "LOCKER_PLANT", value_name = "BUG", hide = true)]
    pub plant: Option<String>,
}

/// The durations of the rules. The defaults are good; tests shorten them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timing (the defaults are good)")]
pub struct TimingArgs {
    /// A waiter is taken for listening this long after its last request was answered
    #[arg(long, env = "LOCKER_LISTEN_WINDOW", value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub listen_window: Duration,
    /// A waiter whose connection was cut keeps its turn this long for coming back
    #[arg(long, env = "LOCKER_GRACE", value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub grace: Duration,
    /// A waiter that does not listen keeps its place this long
    #[arg(long, env = "LOCKER_PLACE", value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub place: Duration,
    /// A grant must be confirmed within this; at least the listening window and 15 s
    #[arg(long, env = "LOCKER_CONFIRM", value_name = "TIME", default_value = "45s", value_parser = parse_duration)]
    pub confirm: Duration,
    /// A lock stays out of use this long after its holder was lost
    #[arg(long, env = "LOCKER_DRAIN", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub drain: Duration,
    /// Ended claims and answers to repeated calls are remembered this long
    #[arg(long, env = "LOCKER_MEMORY", value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub memory: Duration,
}

impl ServerArgs {
    /// Where to listen: the flag or variable, else the default; `PORT` alone changes the port.
    #[must_use]
    pub fn listen(&self, env: &Env<'_>) -> String {
        match (&self.listen, env.var("PORT")) {
            (Some(listen), _) => listen.clone(),
            (None, Some(port)) => format!("127.0.0.1:{port}"),
            (None, None) => LISTEN.to_owned(),
        }
    }

    /// What clients must present: `AUTH_USER` and `AUTH_PASS`, which belong together; `None` is anybody.
    ///
    /// # Errors
    /// One without the other, or both with `--no-auth`.
    pub fn auth(&self, env: &Env<'_>) -> Result<Option<(String, Secret)>, String> {
        match (env.var("AUTH_USER"), env.var("AUTH_PASS")) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) if self.no_auth => Err("--no-auth contradicts AUTH_USER and AUTH_PASS".to_owned()),
            (Some(user), Some(password)) => Ok(Some((user.to_owned(), Secret::new(password)))),
            (Some(_), None) => Err("AUTH_USER is set without AUTH_PASS".to_owned()),
            (None, Some(_)) => Err("AUTH_PASS is set without AUTH_USER".to_owned()),
        }
    }

    /// Everything that the server is told, or why that makes no sense.
    ///
    /// # Errors
    /// Credentials that are incomplete, or a planted bug that is unknown.
    pub fn settings(&self, env: &Env<'_>) -> Result<ServerSettings, String> {
        Ok(ServerSettings {
            listen: self.listen(env),
            store: self.store.clone(),
            rules: self.rules()?,
            door: DoorSettings {
                connections: self.max_connections,
                parked: self.max_parked,
                ..DoorSettings::default()
            },
            grace: self.stop_grace,
            runtime_dir: self.runtime_dir.clone(),
            auth: self.auth(env)?,
            no_auth: self.no_auth,
            contracts: self.contracts.clone(),
            lockd_unlock_missing: self.lockd_unlock_missing,
            locker_config: env.var("LOCKER_CONFIG").map(Into::into),
        })
    }

    /// The rules as the core takes them.
    ///
    /// # Errors
    /// A planted bug that is unknown.
    pub fn rules(&self) -> Result<Settings, String> {
        Ok(Settings {
            listen: span(self.timing.listen_window),
            grace: span(self.timing.grace),
            place: span(self.timing.place),
            confirm: span(self.timing.confirm),
            drain: span(self.timing.drain),
            memory: span(self.timing.memory),
            history: self.history,
            history_age: span(self.history_age),
            declared_only: self.declared_only,
            plant: self.plant()?,
            ..Settings::default()
        })
    }

    #[cfg(feature = "plant")]
    fn plant(&self) -> Result<Plant, String> {
        match self.plant.as_deref() {
            None => Ok(Plant::None),
            Some("answer-before-commit") => Ok(Plant::AnswerBeforeCommit),
            Some("release-unchecked") => Ok(Plant::ReleaseUnchecked),
            Some("fence-in-memory") => Ok(Plant::FenceInMemory),
            Some("earlier-run") => Ok(Plant::EarlierRun),
            Some("lost-notice") => Ok(Plant::LostNotice),
            Some(other) => Err(format!("there is no planted bug {other:?}")),
        }
    }

    #[cfg(not(feature = "plant"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same signature with the feature")]
    fn plant(&self) -> Result<Plant, String> {
        Ok(Plant::None)
    }
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Runs the server until a signal ends it.
pub(super) fn run(args: &ServerArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    let settings = args.settings(env).map_err(CliError::usage)?;
    server::run(settings, env).map_err(|error| CliError::Failed(exit::FAILED, format!("{error:#}")))?;
    Ok(exit::OK)
}
