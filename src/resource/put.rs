//! `out`: one put step. On a signal it takes back what it asked for and prints no version.

use std::path::PathBuf;
use std::sync::Arc;

use super::{add, ask, release};
use super::{build, client, directory, fail, print, read_payload, say, warn_ignored};
use crate::client::acquire::Timing;
use crate::client::flight::Flights;
use crate::client::{CallError, Client, Refused};
use crate::env::{Clock, Env, Signal};
use crate::wire::api::{ByBody, Owner};
use crate::wire::concourse::{Answer, Metadata, Op, OutRequest, Source, Version};

/// Why a put ends without a version. Nothing of it holds or waits any more, unless the text says so.
pub(super) enum Stop {
    Signalled(Signal, String),
    /// The server said no.
    Refused(Box<Refused>),
    Failed(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refused) => Self::Refused(refused),
            CallError::NoAnswer(why) => Self::Failed(why.to_string()),
        }
    }
}

/// Everything that the kinds of put share.
pub(super) struct Put<'p> {
    pub source: &'p Source,
    pub client: Client,
    pub flights: Flights,
    pub clock: Arc<dyn Clock>,
    pub timing: Timing,
    pub owner: Owner,
    pub dir: PathBuf,
    pub reason: Option<String>,
}

impl Put<'_> {
    pub(super) fn pool(&self) -> &str {
        self.source.pool.as_str()
    }

    /// Who changes something, with a fresh id that makes the call safe to repeat.
    pub(super) fn by(&self) -> ByBody {
        let op = Some(crate::env::random_hex::<16>());
        ByBody { op, owner: self.owner.clone(), reason: self.reason.clone() }
    }

    /// A version with the names that every put shows.
    pub(super) fn answer(&self, revision: u64, lock: Option<&str>, more: Vec<Metadata>) -> Answer {
        let mut metadata = Vec::new();
        metadata.extend(lock.map(|lock| Metadata { name: "lock_name", value: lock.to_owned() }));
        metadata.push(Metadata { name: "pool_name", value: self.pool().to_owned() });
        metadata.extend(more);
        Answer { version: Version { revision: revision.to_string() }, metadata }
    }
}

/// Runs `out`.
pub fn put(env: &mut Env<'_>) -> u8 {
    match run(env) {
        Ok(()) => 0,
        Err(Stop::Failed(text)) => fail(env, text),
        Err(Stop::Refused(why)) => fail(env, why.to_string()),
        Err(Stop::Signalled(signal, text)) => {
            say(env.stderr, format!("{} received: {text}", signal.name()));
            signal.exit_code()
        }
    }
}

fn run(env: &mut Env<'_>) -> Result<(), Stop> {
    let dir = directory(env)?;
    let payload = read_payload(env)?;
    let OutRequest { source, params } = OutRequest::parse(&payload).map_err(|error| error.to_string())?;
    warn_ignored(&source, env);
    let mut timing = Timing::of(env)?;
    timing.retry_max = source.retry_delay.map_or(timing.retry_max, |delay| delay.min(timing.retry_max));
    let put = Put {
        client: client(&source, env),
        flights: Flights::new(&env.signals),
        clock: Arc::clone(&env.clock),
        timing,
        owner: build::owner(env),
        dir,
        reason: params.reason,
        source: &source,
    };
    let answer = match params.op {
        Op::Ask(asked) => return ask::ask(&put, *asked, env),
        Op::Release(what) => release::release(&put, &what, env)?,
        Op::Unlock { key, requestor } => release::unlock(&put, &key, &requestor, env)?,
        Op::Add { dir, labels } => add::add(&put, &dir, labels, env)?,
    };
    // Concourse throws away what a signalled step prints: say what happened instead.
    put.flights.check().map_err(|signal| Stop::Signalled(signal, "the server has done it all the same".to_owned()))?;
    Ok(print(env, &answer)?)
}
