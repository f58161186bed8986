//! `add`: puts a new lock into the pool, from the files `name` and `metadata`.

use std::collections::BTreeMap;

use base64::Engine as _;

use super::put::{Put, Stop};
use super::release::Persist;
use super::{files, say};
use crate::env::Env;
use crate::wire::api::LockBody;
use crate::wire::concourse::Answer;

pub(super) fn add(
    put: &Put<'_>,
    dir: &str,
    labels: BTreeMap<String, String>,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let input = files::input_dir(&put.dir, dir)?;
    let lock = files::read_name(&input)?;
    let metadata = files::read_metadata(&input)?;
    let version = env!("CARGO_PKG_VERSION");
    let (pool, server) = (put.pool(), put.client.server());
    say(env.stderr, format!("locker {version}: adding lock {:?} to pool {pool:?} at {server}", lock.as_str()));
    let labels = (!labels.is_empty()).then_some(labels);
    let body = LockBody { labels, by: Some(put.by()), ..metadata_body(metadata) };
    let (pool, name) = (pool.to_owned(), lock.as_str().to_owned());
    let done = Persist::of(put, env)?.call(put, move |client| client.put_lock(&pool, &name, &body))?;
    Ok(put.answer(done.revision, Some(lock.as_str()), Vec::new()))
}

/// Metadata as text when it is text, else as base64: every byte arrives.
pub(crate) fn metadata_body(metadata: Vec<u8>) -> LockBody {
    match String::from_utf8(metadata) {
        Ok(text) => LockBody { metadata: Some(text), ..LockBody::default() },
        Err(error) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
            LockBody { metadata_base64: Some(encoded), ..LockBody::default() }
        }
    }
}
