//! Checkouts of pool-resource repositories (docs/import-export.md). The files are `POOL/claimed/NAME` and
//! `POOL/unclaimed/NAME`, and contain the metadata. A pool may be in a directory of any depth, and its name is the path.
//! Files whose name begins with a dot are not locks.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::super::output::{CliError, print_line};
use super::super::values::person;
use super::build_link::{build_in, without_link};
use super::plan::metadata_of;
use super::wanted::{Wanted, WantedHold, WantedLock, WantedPolicy, WantedPool};
use super::{How, Named, Summary};
use crate::client::Client;
use crate::core::limits;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::{Env, hex, read_at_most, read_file};
use crate::wire::api::{ClaimBody, LockRef, Owner, Policy, Scope, WhenEmpty};
use crate::wire::digest::Fields;
use crate::wire::errors::exit;
use crate::wire::escape::{cut, shell_word};

/// The directories of claimed and free locks.
const CLAIMED: &str = "claimed";
const UNCLAIMED: &str = "unclaimed";
/// How long git may take to find a message.
const GIT_LIMIT: Duration = Duration::from_secs(5);
/// The longest commit message that is read, bytes. Longer ones are not used as reasons.
const MESSAGE_BYTES: u64 = 64 * 1024;

fn failed(error: &anyhow::Error) -> CliError {
    CliError::Failed(exit::FAILED, format!("{error:#}"))
}

/// Entries that everybody knows are not locks: they are not worth a line.
const KNOWN: &[&str] = &[".git", ".gitkeep"];

/// What is in a checkout.
pub(super) struct Checkout {
    pub wanted: Wanted,
    /// Why nothing can be imported, in sentences.
    pub problems: Vec<String>,
    /// The files and directories that are not part of a pool, with the reason. Empty if only one pool is wanted.
    pub not_taken: Vec<String>,
}

/// Reads a checkout.
pub(super) fn read(dir: &Path, only: Option<&PoolName>, env: &Env<'_>) -> Result<Checkout, CliError> {
    let (wanted, problems, not_taken) = (Wanted::default(), Vec::new(), Vec::new());
    let mut reading = Reading {
        dir,
        env,
        only,
        pools: 0,
        found: Checkout { wanted, problems, not_taken },
        git_answers: Cell::new(true),
    };
    reading.directory("").map_err(|error| failed(&error))?;
    let mut found = reading.found;
    if found.wanted.pools.is_empty() && found.problems.is_empty() {
        let what = only.map_or_else(|| "a pool".to_owned(), |pool| format!("the pool {pool:?}"));
        let text = format!(
            "{} does not contain {what}, which is a directory with {CLAIMED} and {UNCLAIMED} in it",
            dir.display()
        );
        return Err(CliError::Failed(exit::NOT_FOUND, text));
    }
    if only.is_some() {
        found.not_taken.clear();
    }
    Ok(found)
}

struct Reading<'r, 'e> {
    dir: &'r Path,
    env: &'r Env<'e>,
    only: Option<&'r PoolName>,
    /// How many pools were seen, wanted or not.
    pools: usize,
    found: Checkout,
    /// Whether git answers. It is not asked again after it kept us waiting.
    git_answers: Cell<bool>,
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

impl Reading<'_, '_> {
    /// Reads the pools in the directory `at`, a path inside the checkout, and in those below it.
    fn directory(&mut self, at: &str) -> anyhow::Result<()> {
        let path = self.dir.join(at);
        let is_pool = [CLAIMED, UNCLAIMED].iter().any(|part| is_dir(&path.join(part))) && !at.is_empty();
        if is_pool {
            self.pool_at(at, &path)?;
        }
        let (pools, others) = (self.pools, self.found.not_taken.len());
        for (name, path) in all_entries(&path)? {
            let inner = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
            if KNOWN.contains(&name.as_str()) || (is_pool && matches!(name.as_str(), CLAIMED | UNCLAIMED)) {
                continue;
            }
            if name.starts_with('.') {
                self.found.not_taken.push(format!("{inner}: its name begins with a dot"));
            } else if !is_dir(&path) {
                self.found.not_taken.push(format!("{inner}: it is not in {CLAIMED} or {UNCLAIMED} of a pool"));
            } else if inner.len() > limits::NAME_BYTES
                && ![CLAIMED, UNCLAIMED].iter().any(|part| is_dir(&path.join(part)))
            {
                self.found.not_taken.push(format!("{inner}: a path of this length cannot be the name of a pool"));
            } else {
                self.directory(&inner)?;
            }
        }
        if self.pools == pools && !is_pool && !at.is_empty() {
            // One line for a whole directory of other things.
            self.found.not_taken.truncate(others);
            self.found.not_taken.push(format!("{at}: there is no pool in it"));
        }
        Ok(())
    }

    fn pool_at(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        self.pools += 1;
        if self.only.is_some_and(|only| only.as_str() != name) {
            return Ok(());
        }
        match name.parse::<PoolName>() {
            Ok(pool) => self.pool(&pool, path)?,
            Err(error) => self.found.problems.push(format!("{}: {error}", path.display())),
        }
        Ok(())
    }

    fn pool(&mut self, pool: &PoolName, path: &Path) -> anyhow::Result<()> {
        let mut locks = BTreeMap::new();
        for part in [UNCLAIMED, CLAIMED] {
            let path = path.join(part);
            if !is_dir(&path) {
                continue;
            }
            for (name, path) in all_entries(&path)? {
                if name.starts_with('.') {
                    if !KNOWN.contains(&name.as_str()) {
                        let why = format!("{pool}/{part}/{name}: its name begins with a dot");
                        self.found.not_taken.push(why);
                    }
                    continue;
                }
                let read = read_lock(&name, &path);
                let (lock, metadata) = match read {
                    Ok(lock) => lock,
                    Err(error) => {
                        self.found.problems.push(format!("{}: {error:#}", path.display()));
                        continue;
                    }
                };
                let is_free = part == UNCLAIMED;
                let wanted = WantedLock { metadata, labels: None, is_free: Some(is_free) };
                if locks.insert(lock.clone(), wanted).is_some() {
                    self.found.problems.push(format!("{}: the lock is both claimed and unclaimed", path.display()));
                }
                if !is_free {
                    let hold = self.hold(pool, &lock);
                    self.found.wanted.holds.push(hold);
                }
            }
        }
        if locks.len() > limits::LOCKS_PER_POOL {
            let max = limits::LOCKS_PER_POOL;
            self.found.problems.push(format!("{}: more than {max} locks in one pool", path.display()));
        }
        self.found
            .wanted
            .pools
            .insert(pool.clone(), WantedPool { policy: as_pool_resource(), default_lock: false, locks });
        Ok(())
    }

    fn hold(&self, pool: &PoolName, lock: &LockName) -> WantedHold {
        let file = format!("{pool}/{CLAIMED}/{lock}");
        let message = if self.git_answers.get() { last_message(self.dir, &file, self.env) } else { Ok(None) };
        let message = message.unwrap_or_else(|GitHangs| {
            self.git_answers.set(false);
            None
        });
        let message = message.unwrap_or_else(|| "claimed in the pool repository that was imported".to_owned());
        let owner = build_in(&message).unwrap_or_else(|| person(self.env));
        let reason = if owner.build_url.is_some() { without_link(&message) } else { message };
        let body = ClaimBody {
            lock: Some(lock.to_string()),
            scope: Some(Scope::Flow),
            owner: Owner { program: Some("locker import pool-repo".to_owned()), ..owner },
            queue: false,
            reason: Some(cut(&reason, limits::REASON_BYTES).to_owned()),
            ..ClaimBody::of_pool(pool.to_string())
        };
        let locks = vec![LockRef { pool: pool.to_string(), lock: lock.to_string() }];
        WantedHold { id: claim_id(pool, lock), locks, body: Box::new(body) }
    }
}

/// The policy of an imported pool: in pool-resource, every claim waits for a lock that does not exist yet.
fn as_pool_resource() -> WantedPolicy {
    WantedPolicy::IfNew(Policy { when_empty: Some(WhenEmpty::Wait), ..Policy::default() })
}

/// The entries of a directory, sorted by name.
fn all_entries(dir: &Path) -> anyhow::Result<Vec<(String, std::path::PathBuf)>> {
    let read = || -> std::io::Result<Vec<fs::DirEntry>> { fs::read_dir(dir)?.collect() };
    let mut found = Vec::new();
    for entry in read().with_context(|| format!("cannot read {}", dir.display()))? {
        let name = entry.file_name();
        // A name that is not UTF-8 becomes a name that no lock may have, and is then refused.
        let name = name.to_str().map_or_else(|| "\u{0}".to_owned(), str::to_owned);
        found.push((name, entry.path()));
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
    let metadata = read_file(path, max as u64)?;
    Ok((lock, metadata.with_context(|| format!("too long (max of {max} bytes)"))?))
}

/// The id of a lock's claim. The same lock always gets the same id, so that an import can be run again.
fn claim_id(pool: &PoolName, lock: &LockName) -> ClaimId {
    let mut fields = Fields::default();
    ["locker import pool-repo 1", pool.as_str(), lock.as_str()].iter().for_each(|field| fields.text(field));
    let id = format!("import-{}", &hex(&fields.finish())[..40]);
    // The text contains only characters that an id may have, and is short enough.
    id.parse().unwrap_or_else(|_| ClaimId::smallest())
}

/// Git has not answered in time, and was ended.
struct GitHangs;

/// The message of the last commit that touched a file, if git is installed and knows one.
fn last_message(dir: &Path, file: &str, env: &Env<'_>) -> Result<Option<String>, GitHangs> {
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
    let git = git.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut git) = git else { return Ok(None) };
    let Some(stdout) = git.stdout.take() else { return Ok(None) };
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(read_at_most(stdout, MESSAGE_BYTES)));
    // A pipe in the place of one of its files keeps git waiting.
    let read = told.recv_timeout(GIT_LIMIT);
    if !matches!(read, Ok(Ok(Some(_)))) {
        // If it has ended already, there is nothing to kill.
        let _ = git.kill();
    }
    let succeeded = git.wait().is_ok_and(|status| status.success());
    let Ok(read) = read else { return Err(GitHangs) };
    let message = read.ok().flatten().unwrap_or_default();
    let message = String::from_utf8_lossy(&message).trim().to_owned();
    Ok((succeeded && !message.is_empty()).then_some(message))
}

/// Writes pools as files.
pub(super) fn write(
    dir: &Path,
    only: Option<&PoolName>,
    how: &How,
    client: &Client,
    env: &mut Env<'_>,
) -> Result<u8, CliError> {
    let (mut files, mut summary) = (Vec::new(), Summary::default());
    for pool in super::pools(client, only)? {
        if pool.parts().skip(1).any(|part| matches!(part, CLAIMED | UNCLAIMED)) {
            summary.left += 1;
            let why = "its directory would be one for the locks of another pool";
            print_line(env, &format!("left alone: pool {pool:?} cannot be in a repository: {why}"))?;
            continue;
        }
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
    let named = |named: &Named| {
        let locks = files.iter().filter(|file| file.pool == named.pool).flat_map(|file| &file.locks);
        named.lock.as_ref().is_some_and(|lock| locks.map(|(name, ..)| name).any(|name| name == lock))
    };
    let overwrite = how.overwritten("export", named)?;
    for pool in &files {
        pool.write(dir, &overwrite, how.dry_run, &mut summary, env)?;
    }
    summary.tell(how.dry_run, env)
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
        for part in [CLAIMED, UNCLAIMED] {
            let path = make_dirs(dir, &self.pool, part, dry_run).map_err(|error| failed(&error))?;
            let keep = path.join(".gitkeep");
            if !dry_run && !keep.exists() {
                fs::write(&keep, "").map_err(|error| failed(&anyhow::anyhow!("{}: {error}", keep.display())))?;
            }
        }
        for (lock, part, metadata) in &self.locks {
            let named = Named { pool: self.pool.clone(), lock: Some(lock.clone()) };
            let other = if *part == CLAIMED { UNCLAIMED } else { CLAIMED };
            let place = |part: &str| dir.join(self.pool.as_str()).join(part).join(lock.as_str());
            let (file, other) = (place(part), place(other));
            let there = read_file(&file, limits::METADATA_BYTES as u64).ok().flatten();
            if there.as_ref() == Some(metadata) && !exists(&other) {
                summary.same += 1;
                continue;
            }
            if (exists(&file) || exists(&other)) && !overwrite.contains(&named) {
                summary.left += 1;
                let flag = shell_word(&named.to_string());
                let what = format!("left alone: {named} exists with other content or in another state");
                print_line(env, &format!("{what} (--overwrite {flag} replaces it)"))?;
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

/// Creates the directory of a part, and those above it. Links are not followed, because a link in a checkout may lead
/// anywhere.
fn make_dirs(root: &Path, pool: &PoolName, part: &str, dry_run: bool) -> anyhow::Result<PathBuf> {
    let mut dir = root.to_owned();
    for name in pool.parts().chain([part]) {
        dir.push(name);
        match fs::symlink_metadata(&dir) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => bail!("{} is not a directory: move it away, or export to another place", dir.display()),
            Err(_) if dry_run => {}
            Err(_) => fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?,
        }
    }
    Ok(dir)
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
