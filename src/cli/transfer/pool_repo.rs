//! Checkouts of pool-resource repositories (docs/import-export.md). The files are `POOL/claimed/NAME` and
//! `POOL/unclaimed/NAME`, and contain the metadata. Files whose name begins with a dot are not locks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::super::output::{CliError, print_line};
use super::super::values::person;
use super::plan::metadata_of;
use super::wanted::{Wanted, WantedHold, WantedLock, WantedPool};
use super::{Named, Summary};
use crate::client::Client;
use crate::core::limits;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::{Env, hex};
use crate::wire::api::{ClaimBody, LockRef, Owner, Scope};
use crate::wire::digest::Fields;
use crate::wire::errors::exit;
use crate::wire::escape::cut;

/// The directories of claimed and free locks.
const CLAIMED: &str = "claimed";
const UNCLAIMED: &str = "unclaimed";

fn failed(error: &anyhow::Error) -> CliError {
    CliError::Failed(exit::FAILED, format!("{error:#}"))
}

/// Reads a checkout. Problems that prevent the import are returned as sentences.
pub(super) fn read(dir: &Path, only: Option<&PoolName>, env: &Env<'_>) -> Result<(Wanted, Vec<String>), CliError> {
    let mut reading = Reading { dir, env, wanted: Wanted::default(), problems: Vec::new() };
    reading.pools(only).map_err(|error| failed(&error))?;
    if reading.wanted.pools.is_empty() && reading.problems.is_empty() {
        let what = only.map_or_else(|| "a pool".to_owned(), |pool| format!("the pool {pool:?}"));
        let text = format!(
            "{} does not contain {what}, which is a directory with {CLAIMED} and {UNCLAIMED} in it",
            dir.display()
        );
        return Err(CliError::Failed(exit::NOT_FOUND, text));
    }
    Ok((reading.wanted, reading.problems))
}

struct Reading<'r, 'e> {
    dir: &'r Path,
    env: &'r Env<'e>,
    wanted: Wanted,
    problems: Vec<String>,
}

impl Reading<'_, '_> {
    fn pools(&mut self, only: Option<&PoolName>) -> anyhow::Result<()> {
        for (name, path) in entries(self.dir)? {
            let is_pool = |part| fs::symlink_metadata(path.join(part)).is_ok_and(|found| found.is_dir());
            if !fs::symlink_metadata(&path)?.is_dir() || !(is_pool(CLAIMED) || is_pool(UNCLAIMED)) {
                continue;
            }
            if only.is_some_and(|only| *only.as_str() != name) {
                continue;
            }
            match name.parse::<PoolName>() {
                Ok(pool) => self.pool(&pool, &path)?,
                Err(error) => self.problems.push(format!("{}: {error}", path.display())),
            }
        }
        Ok(())
    }

    fn pool(&mut self, pool: &PoolName, path: &Path) -> anyhow::Result<()> {
        let mut locks = BTreeMap::new();
        for part in [UNCLAIMED, CLAIMED] {
            let path = path.join(part);
            if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            for (name, path) in entries(&path)? {
                let read = read_lock(&name, &path);
                let (lock, metadata) = match read {
                    Ok(lock) => lock,
                    Err(error) => {
                        self.problems.push(format!("{}: {error:#}", path.display()));
                        continue;
                    }
                };
                let is_free = part == UNCLAIMED;
                let wanted = WantedLock { metadata, labels: None, is_free: Some(is_free) };
                if locks.insert(lock.clone(), wanted).is_some() {
                    self.problems.push(format!("{}: the lock is both claimed and unclaimed", path.display()));
                }
                if !is_free {
                    let hold = self.hold(pool, &lock);
                    self.wanted.holds.push(hold);
                }
            }
        }
        if locks.len() > limits::LOCKS_PER_POOL {
            let max = limits::LOCKS_PER_POOL;
            self.problems.push(format!("{}: more than {max} locks in one pool", path.display()));
        }
        self.wanted.pools.insert(pool.clone(), WantedPool { policy: None, locks });
        Ok(())
    }

    fn hold(&self, pool: &PoolName, lock: &LockName) -> WantedHold {
        let message = last_message(self.dir, &format!("{pool}/{CLAIMED}/{lock}"), self.env);
        let reason = message.unwrap_or_else(|| "claimed in the pool repository that was imported".to_owned());
        let body = ClaimBody {
            lock: Some(lock.to_string()),
            scope: Some(Scope::Flow),
            owner: Owner { program: Some("locker import pool-repo".to_owned()), ..person(self.env) },
            queue: false,
            reason: Some(cut(&reason, limits::REASON_BYTES).to_owned()),
            ..ClaimBody::of_pool(pool.to_string())
        };
        let locks = vec![LockRef { pool: pool.to_string(), lock: lock.to_string() }];
        WantedHold { id: claim_id(pool, lock), locks, body: Box::new(body) }
    }
}

/// The entries of a directory, sorted by name, except those that begin with a dot.
fn entries(dir: &Path) -> anyhow::Result<Vec<(String, std::path::PathBuf)>> {
    let read = || -> std::io::Result<Vec<fs::DirEntry>> { fs::read_dir(dir)?.collect() };
    let mut found = Vec::new();
    for entry in read().with_context(|| format!("cannot read {}", dir.display()))? {
        let name = entry.file_name();
        // A name that is not UTF-8 becomes a name that no lock may have, and is then refused.
        let name = name.to_str().map_or_else(|| "\u{0}".to_owned(), str::to_owned);
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads one lock. Only regular files are read, because a link in a repository may lead anywhere.
fn read_lock(name: &str, path: &Path) -> anyhow::Result<(LockName, Vec<u8>)> {
    let lock = name.parse::<LockName>()?;
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() {
        bail!("not a regular file");
    }
    let max = limits::METADATA_BYTES;
    if found.len() > max as u64 {
        bail!("too long ({} bytes > max of {max})", found.len());
    }
    Ok((lock, fs::read(path)?))
}

/// The id of a lock's claim. The same lock always gets the same id, so that an import can be run again.
fn claim_id(pool: &PoolName, lock: &LockName) -> ClaimId {
    let mut fields = Fields::default();
    ["locker import pool-repo 1", pool.as_str(), lock.as_str()].iter().for_each(|field| fields.text(field));
    let id = format!("import-{}", &hex(&fields.finish())[..40]);
    // The text contains only characters that an id may have, and is short enough.
    id.parse().unwrap_or_else(|_| ClaimId::smallest())
}

/// The message of the last commit that touched a file, if git is installed and knows one.
fn last_message(dir: &Path, file: &str, env: &Env<'_>) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir);
    // The repository's own settings must not start programs.
    git.args(["-c", "core.fsmonitor=false", "-c", "log.showSignature=false", "--no-pager", "--literal-pathspecs"]);
    git.args(["log", "-1", "--format=%B", "--no-show-signature", "--"]).arg(file);
    git.env_clear().envs(env.vars.iter().filter(|(name, _)| !name.starts_with("GIT_")));
    git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
    // Missing objects must not be fetched either, because a promisor remote may be any command. So no transport is
    // allowed, and newer versions of git do not even try.
    git.env("GIT_ALLOW_PROTOCOL", "").env("GIT_NO_LAZY_FETCH", "1");
    let output = git.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let message = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !message.is_empty()).then_some(message)
}

/// Writes pools as files.
pub(super) fn write(
    dir: &Path,
    only: Option<&PoolName>,
    overwrite: &BTreeSet<Named>,
    dry_run: bool,
    client: &Client,
    env: &mut Env<'_>,
) -> Result<u8, CliError> {
    let mut files = Vec::new();
    for pool in super::pools(client, only)? {
        let view = client.get_pool(pool.as_str())?;
        files.push(PoolFiles { pool: pool.clone(), locks: Vec::new() });
        for lock in view.items {
            let name: LockName =
                lock.lock.parse().map_err(|error| failed(&anyhow::anyhow!("from the server: {error}")))?;
            let view = client.get_lock(pool.as_str(), name.as_str())?;
            let metadata = metadata_of(&view).unwrap_or_default();
            let part = if view.holders.is_empty() { UNCLAIMED } else { CLAIMED };
            files.last_mut().into_iter().for_each(|f| f.locks.push((name.clone(), part, metadata.clone())));
        }
    }
    let mut summary = Summary::default();
    for pool in &files {
        pool.write(dir, overwrite, dry_run, &mut summary, env)?;
    }
    summary.tell(dry_run, env)
}

/// The files of one pool.
struct PoolFiles {
    pool: PoolName,
    locks: Vec<(LockName, &'static str, Vec<u8>)>,
}

impl PoolFiles {
    fn write(
        &self,
        dir: &Path,
        overwrite: &BTreeSet<Named>,
        dry_run: bool,
        summary: &mut Summary,
        env: &mut Env<'_>,
    ) -> Result<(), CliError> {
        let parts = [CLAIMED, UNCLAIMED].map(|part| dir.join(self.pool.as_str()).join(part));
        for part in &parts {
            make_dir(part, dry_run).map_err(|error| failed(&error))?;
            let keep = part.join(".gitkeep");
            if !dry_run && !keep.exists() {
                fs::write(&keep, "").map_err(|error| failed(&anyhow::anyhow!("{}: {error}", keep.display())))?;
            }
        }
        for (lock, part, metadata) in &self.locks {
            let named = Named { pool: self.pool.clone(), lock: Some(lock.clone()) };
            let other = if *part == CLAIMED { UNCLAIMED } else { CLAIMED };
            let place = |part: &str| dir.join(self.pool.as_str()).join(part).join(lock.as_str());
            let (file, other) = (place(part), place(other));
            let there = fs::read(&file).ok();
            if there.as_ref() == Some(metadata) && !exists(&other) {
                summary.same += 1;
                continue;
            }
            if (exists(&file) || exists(&other)) && !overwrite.contains(&named) {
                summary.left += 1;
                print_line(env, &format!("left alone: {named} exists with other content or in another state"))?;
                continue;
            }
            summary.done += 1;
            let said = format!("write {}/{part}/{lock}", self.pool);
            if dry_run {
                print_line(env, &format!("would {said}"))?;
            } else {
                write_file(&file, metadata, &other).map_err(|error| failed(&error))?;
                print_line(env, &format!("done: {said}"))?;
            }
        }
        Ok(())
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Creates the directory of a part. Links are not followed, because a link in a checkout may lead anywhere.
fn make_dir(part: &Path, dry_run: bool) -> anyhow::Result<()> {
    for dir in [part.parent(), Some(part)].into_iter().flatten() {
        match fs::symlink_metadata(dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => bail!("{} is not a directory: move it away, or export to another place", dir.display()),
            Err(_) if dry_run => {}
            Err(_) => fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?,
        }
    }
    Ok(())
}

/// Writes the whole file at once, then removes the lock from the other state.
fn write_file(file: &Path, content: &[u8], other: &Path) -> anyhow::Result<()> {
    let dir = file.parent().context("a lock's file lies in a directory")?;
    let write = || -> anyhow::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".locker-").tempfile_in(dir)?;
        temporary.write_all(content)?;
        temporary.persist(file)?;
        if exists(other) {
            fs::remove_file(other)?;
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}
