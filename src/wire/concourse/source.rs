//! `source` of a resource.

use std::time::Duration;

use super::payload::{Fields, Problems};
use crate::core::names::PoolName;
use crate::wire::api::Scope;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::trust::Trust;

/// Every key of `source` that means something here.
pub(super) const KEYS: &[&str] = &[
    "locker_uri",
    "pool",
    "lock_name",
    "username",
    "password",
    "ca_cert",
    "client_cert",
    "client_key",
    "skip_ssl_validation",
    "retry_delay",
    "scope",
    "ttl",
];

/// Keys of pool-resource that speak of a git repository: accepted, without effect.
pub(super) const GIT_KEYS: &[&str] = &[
    "uri",
    "branch",
    "private_key",
    "private_key_user",
    "private_key_passphrase",
    "git_config",
    "https_tunnel",
    "forward_agent",
    "skip_ssl_verification",
];

/// Which resource type this source was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `pool`: a pool of locks, as pool-resource knows it.
    Pool,
    /// `lock_name`: one lock that is held by a key, as locker-resource knows it.
    LockName,
}

/// `source`.
#[derive(Debug, Clone)]
pub struct Source {
    pub server: ServerUrl,
    pub credentials: Option<Credentials>,
    pub trust: Trust,
    /// The value of `pool` or `lock_name`: both name a pool.
    pub pool: PoolName,
    pub kind: SourceKind,
    /// The longest pause between two attempts; longer ones are shortened.
    pub retry_delay: Option<Duration>,
    /// Default for claims that name no scope.
    pub scope: Option<Scope>,
    /// Default for claims that name no ttl.
    pub ttl: Option<Duration>,
    /// Git settings that were given and have no effect.
    pub ignored: Vec<&'static str>,
}

impl Source {
    pub(super) fn read(mut fields: Fields, problems: &mut Problems) -> Option<Self> {
        fields.expect(KEYS);
        let server = fields.parsed_url("locker_uri", problems);
        let place = read_place(&mut fields, problems);
        let retry_delay = fields.duration("retry_delay", problems);
        let username = fields.text("username", problems);
        let password = fields.text("password", problems);
        let trust = read_trust(&mut fields, problems);
        let scope = read_scope(&mut fields, problems);
        let ttl = fields.duration("ttl", problems);
        let ignored: Vec<&str> = GIT_KEYS.iter().copied().filter(|key| fields.take(key).is_some()).collect();
        fields.finish(problems);
        let credentials = match (username, password) {
            (None, None) => None,
            (username, password) => Some(Credentials {
                username: username.unwrap_or_default(),
                password: Secret::new(password.unwrap_or_default()),
            }),
        };
        let ((kind, pool), server) = place.zip(server)?;
        let credentials = credentials.or_else(|| server.credentials().cloned());
        Some(Self { server, credentials, trust, pool, kind, retry_delay, scope, ttl, ignored })
    }
}

impl Fields {
    fn parsed_url(&mut self, key: &'static str, problems: &mut Problems) -> Option<ServerUrl> {
        let Some(text) = self.text(key, problems) else {
            problems.add(format!("missing {key}"));
            return None;
        };
        ServerUrl::parse(&text).map_err(|why| problems.add(format!("{} {why}", self.name(key)))).ok()
    }
}

/// `ca_cert`, `client_cert`, `client_key`, `skip_ssl_validation`.
fn read_trust(fields: &mut Fields, problems: &mut Problems) -> Trust {
    let mut pem = |key| fields.text(key, problems);
    let (ca, cert, key) = (pem("ca_cert"), pem("client_cert"), pem("client_key"));
    let skip = fields.flag("skip_ssl_validation", problems).unwrap_or(false);
    Trust::parse(ca.as_deref(), cert.as_deref(), key.as_deref(), skip).unwrap_or_else(|problem| {
        problems.add(format!("source.{problem}"));
        Trust::default()
    })
}

/// Exactly one of `pool` and `lock_name`.
fn read_place(fields: &mut Fields, problems: &mut Problems) -> Option<(SourceKind, PoolName)> {
    match (fields.has("pool"), fields.has("lock_name")) {
        (true, true) => {
            fields.take("pool");
            fields.take("lock_name");
            problems.add("source.pool and source.lock_name exclude each other".into());
            None
        }
        (false, false) => {
            problems.add("missing pool".into());
            None
        }
        (true, false) => Some((SourceKind::Pool, fields.parsed("pool", problems)?)),
        (false, true) => Some((SourceKind::LockName, fields.parsed("lock_name", problems)?)),
    }
}

/// What ends a hold besides a release.
pub(super) fn read_scope(fields: &mut Fields, problems: &mut Problems) -> Option<Scope> {
    let text = fields.text("scope", problems)?;
    match text.as_str() {
        "flow" => Some(Scope::Flow),
        "person" => Some(Scope::Person),
        "lease" => {
            problems.add(format!("{} cannot be lease: nobody renews for a resource", fields.name("scope")));
            None
        }
        _ => {
            problems.add(format!("{} must be flow or person", fields.name("scope")));
            None
        }
    }
}
