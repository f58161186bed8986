//! `out`: one put step. On a signal it cancels what it requested and prints no version.

use std::sync::Arc;
use std::time::Duration;

use super::put::{Put, Stop};
use super::release::When;
use super::session::Opening;
use super::{acquire, add, lost, release, remove, verify, wait_for_lock};
use super::{build, directory, fail, print, read_payload, say};
use crate::client::acquire::Timing;
use crate::client::interruptible::Interruptible;
use crate::env::Env;
use crate::wire::concourse::{Adding, LogLevel, Op, OutRequest, Place};

/// A shorter `retry_delay` is lengthened to this: shorter pauses only load the server.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// Runs `out`.
pub fn out(env: &mut Env<'_>) -> u8 {
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
    let started = env.clock.monotonic();
    let dir = directory(env)?;
    let payload = read_payload(env)?;
    let OutRequest { source, params } = OutRequest::parse(&payload).map_err(|error| error.to_string())?;
    let mut timing = Timing::of(env)?;
    timing.retry_max =
        source.retry_delay.map_or(timing.retry_max, |delay| delay.max(SHORTEST_RETRY).min(timing.retry_max));
    let interruptible = Interruptible::new(&env.signals);
    let opening = Opening::of(&source, params.token.as_ref(), env)?;
    let nothing = |signal| Stop::Signalled(signal, "nothing was requested yet".to_owned());
    let session = interruptible.run(move || opening.resolve()).map_err(nothing)??;
    if let (Place::Director(url), true) = (&source.place, source.log_level >= LogLevel::Info) {
        let why = session.mapped_from.as_deref();
        let why = why.map(|name| format!(": its own name, {name:?}, cannot be that of a lock")).unwrap_or_default();
        say(env.stderr, format!("the lock of the director at {url} is {:?}{why}", session.pool.as_str()));
    }
    let put = Put {
        session,
        interruptible,
        clock: Arc::clone(&env.clock),
        started,
        timing,
        owner: build::owner(env),
        hostname: env.hostname.clone(),
        dir,
        reason: params.reason,
        fails_on_lost: params.fails_on_lost,
        source: &source,
    };
    let answer = match params.op {
        Op::Ask(asked) => return acquire::acquire(&put, *asked, env),
        Op::Nothing { why } => acquire::nothing(&put, why, env)?,
        Op::Add { dir, labels, how: Adding::Claimed(claim) } => {
            return add::add_claimed(&put, &dir, labels, &claim, env);
        }
        Op::Add { dir, labels, how: Adding::New } => add::add(&put, &dir, labels, env)?,
        Op::Add { dir, labels, how: Adding::Replacing } => add::replace(&put, &dir, labels, env)?,
        Op::Add { dir, labels, how: Adding::MovingFrom(from) } => add::move_from(&put, &dir, labels, &from, env)?,
        Op::Remove { dir } => remove::remove(&put, &dir, env)?,
        Op::Update { dir, labels, watch } => wait_for_lock::update(&put, &dir, labels, watch, env)?,
        Op::Check { dir, watch } => wait_for_lock::check(&put, &dir, watch, env)?,
        Op::CheckUnclaimed { dir, watch } => wait_for_lock::check_unclaimed(&put, &dir, watch, env)?,
        Op::Verify { dir } => verify::verify(&put, &dir, env)?,
        Op::Release { what, now } => {
            let released = release::release(&put, &what, When::of(now), env);
            lost::told(&put, released, env)?
        }
        Op::Unlock { key, requestor, now } => {
            let unlocked = release::unlock(&put, (&key, &requestor), When::of(now), env);
            lost::told(&put, unlocked, env)?
        }
    };
    // Concourse discards the version of a step that received a signal, so report what happened instead.
    put.interruptible.check().map_err(|signal| {
        Stop::Signalled(signal, "the server carried out the request before the signal arrived".to_owned())
    })?;
    Ok(print(env, &answer)?)
}
