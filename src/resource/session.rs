//! From `source` to a client, a pool and a store: the start of `check`, `in` and `out`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::say;
use crate::client::connect::{Access, Authorization, Identity};
use crate::client::{CallError, Client};
use crate::core::limits::NAME_BYTES;
use crate::core::names::PoolName;
use crate::env::{Env, hex};
use crate::wire::concourse::{LogLevel, Place, Source};
use crate::wire::escape::cut;
use crate::wire::secret::Secret;
use crate::wire::tls::Tls;

/// How many times to ask a BOSH director for its name before the step fails.
const DIRECTOR_ATTEMPTS: u32 = 3;
/// The pause between these attempts.
const DIRECTOR_PAUSE: Duration = Duration::from_secs(1);

/// What the source leads to.
#[derive(Clone)]
pub(super) struct Session {
    pub client: Client,
    pub pool: PoolName,
    /// The store that every claim must find. Known only if the source names more than one server.
    pub store: Option<String>,
    /// The name of the BOSH director, if it cannot be that of the pool.
    pub mapped_from: Option<String>,
}

/// The pool that a source means.
#[derive(Debug)]
pub struct Meant {
    pub pool: PoolName,
    /// The name of the BOSH director, if the pool has another name because a pool cannot be called like that.
    pub mapped_from: Option<String>,
}

/// The part of a director's `/info` that names it.
#[derive(Deserialize)]
struct Director {
    name: String,
}

/// Everything needed to begin besides the source. It is a separate value so that a thread can own it.
pub(super) struct Opening {
    source: Source,
    client: Client,
    vars: BTreeMap<String, String>,
}

impl Opening {
    /// Parses certificates and proxies, and warns about settings that are dangerous or have no effect. Sends nothing
    /// yet.
    pub(super) fn of(source: &Source, token: Option<&Secret>, env: &mut Env<'_>) -> Result<Self, String> {
        warn(source, env);
        let basic = source.credentials.clone().map(Authorization::Basic);
        let authorization = token.cloned().map(Authorization::Bearer).or(basic);
        let Source { servers, tls, proxy, held_back, .. } = source.clone();
        let identity = Identity::of(authorization);
        let client = Client::open(Access { servers, identity, tls, proxy, held_back }, &env.vars)?;
        Ok(Self { source: source.clone(), client, vars: env.vars.clone() })
    }

    /// Asks for what the source does not give: the director's name, and whether all servers have the same store.
    pub(super) fn resolve(self) -> Result<Session, String> {
        let store = if self.client.count() > 1 { self.client.agree()? } else { None };
        let Meant { pool, mapped_from } = pool_of(&self.source, &self.vars)?;
        Ok(Session { client: self.client, pool, store, mapped_from })
    }
}

/// The pool that a source means. A BOSH director is asked for its name.
///
/// # Errors
/// The director does not return a name that can become a pool name.
pub fn pool_of(source: &Source, vars: &BTreeMap<String, String>) -> Result<Meant, String> {
    match &source.place {
        Place::Named(pool) => Ok(Meant { pool: pool.clone(), mapped_from: None }),
        Place::Director(url) => {
            // The source decides which servers to trust. The client certificate is only for the locker server.
            let tls = Tls { client: None, ..source.tls.clone() };
            let (servers, proxy) = (vec![url.clone()], source.proxy.clone());
            director(&Client::open(Access { servers, identity: Identity::Nobody, tls, proxy, held_back: false }, vars)?)
        }
    }
}

/// The director's name, which is the name of its lock.
fn director(client: &Client) -> Result<Meant, String> {
    let mut attempt = 1;
    let info = loop {
        match client.get_json::<Director>("/info") {
            Ok(info) => break info,
            Err(CallError::NoAnswer(_)) if attempt < DIRECTOR_ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(DIRECTOR_PAUSE);
            }
            Err(CallError::NoAnswer(no) | CallError::Hopeless(no)) => {
                return Err(format!("source.bosh_lock: no usable answer from {}/info: {}", no.server, no.why));
            }
            Err(error) => return Err(format!("source.bosh_lock: {error}")),
        }
    };
    let pool = pool_for_director(&info.name)?;
    let mapped_from = (pool.as_str() != info.name).then_some(info.name);
    Ok(Meant { pool, mapped_from })
}

/// The pool for a director of this name. A name that is not a valid pool name is mapped: invalid characters are
/// replaced and a digest of the whole name follows, so that two directors never share a lock by accident.
fn pool_for_director(name: &str) -> Result<PoolName, String> {
    if let Ok(pool) = PoolName::parse(name) {
        return Ok(pool);
    }
    if name.is_empty() {
        return Err("source.bosh_lock: the director returned an empty name".to_owned());
    }
    let kept: String = name.chars().map(|c| if c.is_control() || matches!(c, '/' | '.') { '-' } else { c }).collect();
    let digest = hex(&Sha256::digest(name.as_bytes())[..8]);
    PoolName::parse(&format!("{}-{digest}", cut(&kept, NAME_BYTES - digest.len() - 1)))
        .map_err(|error| format!("source.bosh_lock: the name of the director cannot be a pool: {error}"))
}

/// Prints one line about each setting that has no effect or is dangerous.
fn warn(source: &Source, env: &mut Env<'_>) {
    if source.log_level < LogLevel::Warn {
        return;
    }
    if !source.ignored.is_empty() {
        let keys = source.ignored.join(", ");
        let why = if source.has_settings_of_uri() {
            " (the last ones count for that uri: to use them for the locker server, remove uri)"
        } else {
            ""
        };
        say(env.stderr, format!("warning: ignored, because a Locker pool has no Git repository: {keys}{why}"));
    }
    if let Some(key) = source.tls.skip_verification {
        let text = "the server's certificate is not verified, so anyone on the network path can read the password and grant \
                    locks; use ca_cert instead";
        say(env.stderr, format!("warning: source {key}: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_director_has_its_own_lock() {
        let pool = |name: &str| pool_for_director(name).map(|pool| pool.to_string());
        assert_eq!(pool("bosh-eu"), Ok("bosh-eu".to_owned()));
        assert_eq!(pool("../etc"), Ok("---etc-f7f9121fdb53d8de".to_owned()));
        assert_eq!(pool("a/b"), Ok("a/b".to_owned()), "as lock_name: a/b");
        assert_ne!(pool("/a.b"), pool("a.b/"));
        assert_eq!(pool(&"\u{e4}/".repeat(100)).unwrap().len(), 128);
        assert!(pool("").is_err());
    }
}
