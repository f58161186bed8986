//! The audit lines of the log: one for each grant, hold, end of a hold, and lock that goes out of service or comes back.
//!
//! They say the same as the history, and the id of the request besides. A thread of its own writes them, from the
//! changes that have been committed; the engine never waits for it.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::limits::AUDIT_BATCHES;
use super::views;
use crate::client::who;
use crate::core::claim::End;
use crate::core::history::{Change, ChangeKind};
use crate::core::names::{ClaimId, PoolName, TokenName};
use crate::core::origin::Origin;
use crate::priority;
use crate::wire::api::{self, locks_text};
use crate::wire::escape::escape;

/// How long batches are gathered: the engine would wake this thread for each of them, and the log gathers lines as well.
const GATHER: Duration = Duration::from_millis(10);

type Batch = Vec<Arc<Change>>;

/// Where committed changes are noted. Cheap to clone. The default notes nothing.
#[derive(Clone, Default)]
pub struct Audit(Option<(SyncSender<Batch>, Arc<AtomicU64>)>);

/// The thread that writes the lines. It ends by itself once nobody can note any more.
#[must_use]
pub struct AuditThread(Option<JoinHandle<()>>);

impl AuditThread {
    /// Waits for the last line, after the engine has ended.
    pub fn finish(self) {
        if let Some(thread) = self.0 {
            // If it has panicked, that was reported already.
            let _ = thread.join();
        }
    }
}

fn is_audited(kind: ChangeKind) -> bool {
    use ChangeKind::{
        Broken, Claimed, Ended, Granted, Lost, Quarantined, Released, Returned, TokenCreated, TokenRevoked, Withdrawn,
    };
    matches!(
        kind,
        Granted
            | Withdrawn
            | Claimed
            | Released
            | Lost
            | Broken
            | Ended
            | Quarantined
            | Returned
            | TokenCreated
            | TokenRevoked
    )
}

/// Starts the thread, if such lines are logged at all.
///
/// # Errors
/// The thread cannot be started.
pub fn start() -> std::io::Result<(Audit, AuditThread)> {
    if !tracing::enabled!(target: "locker::audit", tracing::Level::INFO) {
        return Ok((Audit::default(), AuditThread(None)));
    }
    let (sender, batches) = mpsc::sync_channel::<Batch>(AUDIT_BATCHES);
    let lost = Arc::<AtomicU64>::default();
    let theirs = Arc::clone(&lost);
    let write = move || {
        priority::second();
        while let Ok(first) = batches.recv() {
            thread::sleep(GATHER);
            for batch in iter::once(first).chain(batches.try_iter()) {
                batch.iter().for_each(|change| write(change));
            }
            let lost = theirs.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::warn!(lost, "audit lines were left out because the log was too slow; the history has them");
            }
        }
    };
    let thread = thread::Builder::new().name("audit".into()).spawn(write)?;
    Ok((Audit(Some((sender, lost))), AuditThread(Some(thread))))
}

impl Audit {
    /// Notes what a batch has changed. Never blocks: what finds no room is left out and counted.
    pub fn note(&self, changes: &[Arc<Change>]) {
        let Some((sender, lost)) = &self.0 else { return };
        let audited: Batch = changes.iter().filter(|change| is_audited(change.kind)).cloned().collect();
        if audited.is_empty() {
            return;
        }
        let count = audited.len() as u64;
        if sender.try_send(audited).is_err() {
            lost.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// Writes the line of one change. Everything that clients choose is escaped.
fn write(change: &Change) {
    let Change { key, pools, locks, claim, end, who, origin, waited, held, reason, token, .. } = change;
    let nobody = Origin::default();
    let Origin { proved, address, request, rule, .. } = origin.as_deref().unwrap_or(&nobody);
    let pools: Vec<&str> = pools.iter().map(PoolName::as_str).collect();
    let who = who.as_deref().map(views::owner).unwrap_or_default();
    tracing::info!(
        target: "locker::audit",
        revision = key.revision.0,
        pool = escape(&pools.join(", ")),
        lock = escape(&locks_text(&views::locks(locks), ", ")),
        claim = claim.as_ref().map(ClaimId::as_str),
        token = token.as_ref().map(TokenName::as_str),
        how = end.map(End::word),
        who = escape(&who::owner(&who, "-")),
        identity = proved.as_ref().map(|identity| escape(&identity.to_string())),
        address = address.as_deref().map(escape),
        rule = rule.as_deref().map(escape),
        request = request.as_deref(),
        waited = waited.map(views::lasted),
        held = held.map(views::lasted),
        reason = reason.as_ref().map(|reason| escape(reason.as_str())),
        "{}",
        api::ChangeKind::from(change.kind).word(),
    );
}
