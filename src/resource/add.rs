//! `add`: puts a new lock into the pool, from the files `name` and `metadata`.

use std::collections::BTreeMap;

use super::put::{Put, Stop};
use super::release::Persist;
use super::{files, say};
use crate::env::Env;
use crate::wire::api::LockBody;
use crate::wire::concourse::Answer;
use crate::wire::text::show_metadata;

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
    let (metadata, metadata_base64) = show_metadata(&metadata);
    let body = LockBody { metadata, metadata_base64, labels, by: Some(put.by()) };
    let (pool, name) = (pool.to_owned(), lock.as_str().to_owned());
    let done = Persist::of(put, env)?.call(put, move |client| client.put_lock(&pool, &name, &body))?;
    Ok(put.answer(done.revision, Some(lock.as_str()), Vec::new()))
}
