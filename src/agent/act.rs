//! One look at one latch: reads its workflow, carries out the plan, and looks again, until there is nothing left to do
//! for now.

use std::time::Duration;

use serde_json::Value;

use super::backlog::LONG_PAUSE;
use super::cluster::ClusterError;
use super::plan::{self, Bound, Change, Done, Gone, Keep, Look, Step};
use super::worker::{Worker, random, short};
use super::workflow;
use crate::client::CallError;
use crate::core::latch::NewLatch;
use crate::core::time::WallMs;
use crate::wire::errors::Code;
use crate::wire::escape::{cut, escape};
use crate::wire::latch::{self, BindBody, LatchView, NodeView};
use crate::wire::text;

/// How many times a workflow is read again at once because someone else changed it, or because the answer to a change
/// was lost.
const TRIES: u32 = 8;

/// What happened to a latch.
pub(super) enum Outcome {
    /// It was deleted, by us or by someone else.
    Over,
    /// It is kept for this reason, and looked at again after at most this time.
    Kept(Level, String, Duration),
    Missing(Gone),
    /// The cluster, or the server of the latches, gave no answer.
    Trouble(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// It resolves itself with time.
    Info,
    /// Someone has to act.
    Warn,
}

/// A workflow as last seen.
struct Seen {
    raw: Option<Value>,
    /// We have changed it.
    is_ours: bool,
    /// The answer to an earlier change was lost.
    was_lost: bool,
}

impl Worker {
    /// Does everything for one latch that can be done now.
    pub(super) fn work(&mut self, latch: NewLatch) -> Outcome {
        self.steps(latch).unwrap_or_else(|outcome| outcome)
    }

    fn steps(&mut self, mut latch: NewLatch) -> Result<Outcome, Outcome> {
        let mut seen = Seen { raw: self.get(&latch).map_err(refused)?, is_ours: false, was_lost: false };
        for _ in 0..TRIES {
            let look = seen.raw.as_ref().map_or(Look::Missing, |raw| Look::Found(workflow::read(raw)));
            match plan::plan(&latch, &look) {
                Step::Bind { node, uid } => latch = self.bind(&latch, node, uid)?,
                Step::Change(change) if self.agent.settings.dry_run => {
                    return Ok(self.would(&format!("change it: {change:?}")));
                }
                Step::Change(change) => {
                    tell_unused(&latch, &change);
                    seen = self.change(&latch, seen, &change)?;
                }
                Step::Done(done) => {
                    tell_suspended(&latch, &look);
                    return Ok(self.done(&latch, &done, seen.is_ours));
                }
                Step::Keep(keep) => return Ok(self.kept(&keep)),
                Step::Gone(gone) => return Ok(Outcome::Missing(gone)),
            }
        }
        let why = "the workflow keeps changing";
        Ok(Outcome::Kept(Level::Warn, why.to_owned(), self.agent.settings.interval))
    }

    fn get(&mut self, latch: &NewLatch) -> Result<Option<Value>, ClusterError> {
        self.agent.cluster.get(&latch.target.namespace, &latch.target.workflow)
    }

    /// Makes a change, and returns the workflow as it is afterwards, whether or not the change succeeded.
    fn change(&mut self, latch: &NewLatch, seen: Seen, change: &Change) -> Result<Seen, Outcome> {
        match self.patch(latch, seen.raw.as_ref(), change) {
            Ok(raw) => Ok(Seen { raw, is_ours: true, ..seen }),
            Err(ClusterError::Conflict) => {
                // A signal shortens the pause. The work on this latch continues anyway.
                let _ = self.interruptible.sleep(Duration::from_millis(5 + u64::from(random()) / 4));
                Ok(Seen { raw: self.get(latch).map_err(refused)?, ..seen })
            }
            // The next look shows whether it was made.
            Err(ClusterError::Trouble(_)) if !seen.was_lost => {
                Ok(Seen { raw: self.get(latch).map_err(refused)?, was_lost: true, ..seen })
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn patch(&mut self, latch: &NewLatch, raw: Option<&Value>, change: &Change) -> Result<Option<Value>, ClusterError> {
        let now = text::time(WallMs(self.agent.clock.wall_ms()));
        // Argo writes whole seconds.
        let now = format!("{}Z", cut(&now, "2026-01-02T03:04:05".len()));
        let patch = workflow::patch(raw.unwrap_or(&Value::Null), change, &now).map_err(ClusterError::Refused)?;
        self.agent.cluster.patch(&latch.target.namespace, &latch.target.workflow, &patch)
    }

    /// Records which node the latch is for, before anything is changed.
    fn bind(&mut self, latch: &NewLatch, node: Bound, uid: String) -> Result<NewLatch, Outcome> {
        let node = match node {
            Bound::Node(id) => NodeView::Id { id },
            Bound::Whole => NodeView::Name { name: plan::WHOLE.to_owned() },
        };
        let id = latch.id.to_string();
        let body = BindBody { node: node.clone(), workflow_uid: uid.clone() };
        if !self.agent.settings.dry_run {
            let answer = self.agent.latches.bind(&id, &body).map_err(|error| match error {
                CallError::NoAnswer(_) | CallError::Hopeless(_) => Outcome::Trouble(error.to_string()),
                CallError::Refused(_) if error.code() == Some(Code::NoSuchLatch) => Outcome::Over,
                CallError::Refused(_) => {
                    // Another agent was faster: its binding counts.
                    self.next_listing = Duration::ZERO;
                    Outcome::Kept(Level::Info, format!("it is bound to another node: {error}"), Duration::ZERO)
                }
            })?;
            if answer.node.is_none() {
                let why = "the latch server does not store which node a latch is for: after a crash, another node may be resumed";
                tracing::warn!(latch = short(&id), "{why}");
            }
        }
        let entry = self.backlog.get_mut(&id).ok_or(Outcome::Over)?;
        (entry.latch.node, entry.latch.workflow_uid) = (Some(node), Some(uid));
        latch::read(&entry.latch).map_err(|why| Outcome::Kept(Level::Warn, why, LONG_PAUSE))
    }

    fn kept(&self, keep: &Keep) -> Outcome {
        let interval = self.agent.settings.interval;
        let (level, why, most) = match keep {
            Keep::TooEarly => (Level::Info, "released too early: the node is not suspended yet".to_owned(), interval),
            Keep::Ambiguous(count) => {
                let why =
                    format!("{count} nodes are suspended and the latch names none: name its node, or resume by hand");
                (Level::Warn, why, interval)
            }
            Keep::NoSuspendNode => (Level::Warn, "the latch names a node that does not suspend".to_owned(), LONG_PAUSE),
            Keep::NoValue(names) => {
                let why = format!("no value for the outputs {}: resume it by hand, with values", names.join(", "));
                (Level::Warn, why, LONG_PAUSE)
            }
            Keep::Offloaded => {
                let why = "the nodes are in Argo's database (offloaded), which lockagt cannot reach: resume it by hand";
                (Level::Warn, why.to_owned(), LONG_PAUSE)
            }
            Keep::Unreadable(why) => (Level::Warn, format!("{why}: resume it by hand"), LONG_PAUSE),
        };
        Outcome::Kept(level, why, most.max(interval))
    }

    fn would(&self, what: &str) -> Outcome {
        Outcome::Kept(Level::Info, format!("dry run: would {what}"), self.agent.settings.interval)
    }

    fn done(&self, latch: &NewLatch, done: &Done, is_ours: bool) -> Outcome {
        if self.agent.settings.dry_run {
            return self.would(&format!("delete the latch: {done:?}"));
        }
        let target = &latch.target;
        let (id, workflow, namespace) = (latch.id.to_string(), target.workflow.as_str(), target.namespace.as_str());
        let id = short(&id);
        match done {
            _ if is_ours => tracing::info!(latch = id, workflow, namespace, "resumed"),
            Done::Fulfilled(phase) => {
                tracing::info!(latch = id, workflow, namespace, phase = escape(phase), "already done");
            }
            Done::NotSuspended => tracing::info!(latch = id, workflow, namespace, "already done: it is not suspended"),
            Done::Finished(phase) => {
                tracing::warn!(latch = id, workflow, namespace, phase = escape(phase), "the workflow is over");
            }
        }
        self.delete_id(&latch.id.to_string())
    }

    pub(super) fn delete(&self, view: &LatchView) -> Outcome {
        if self.agent.settings.dry_run { self.would("delete the latch") } else { self.delete_id(&view.id) }
    }

    fn delete_id(&self, id: &str) -> Outcome {
        match self.agent.latches.delete(id) {
            Ok(()) => Outcome::Over,
            Err(error) if error.code() == Some(Code::NoSuchLatch) => Outcome::Over,
            Err(error @ (CallError::NoAnswer(_) | CallError::Hopeless(_))) => Outcome::Trouble(error.to_string()),
            Err(error) => Outcome::Kept(Level::Warn, format!("cannot delete the latch: {error}"), LONG_PAUSE),
        }
    }
}

/// Tells that a workflow does not go on although the node of this latch did: it is suspended as a whole.
fn tell_suspended(latch: &NewLatch, look: &Look) {
    let Look::Found(workflow) = look else { return };
    if workflow.is_suspended && workflow.finished.is_none() {
        let (id, target) = (latch.id.to_string(), &latch.target);
        tracing::warn!(
            latch = short(&id),
            workflow = target.workflow.as_str(),
            namespace = target.namespace.as_str(),
            "the workflow is still suspended as a whole (spec.suspend), so it does not go on: argo resume it, or release \
             a latch for it"
        );
    }
}

/// What the cluster's refusal means for a latch. The latch is kept in any case.
fn refused(error: ClusterError) -> Outcome {
    match error {
        ClusterError::Conflict => Outcome::Trouble("the workflow keeps changing".to_owned()),
        ClusterError::Unauthorized => Outcome::Trouble("401: the cluster rejected our credentials".to_owned()),
        ClusterError::Forbidden(why) => {
            Outcome::Kept(Level::Warn, format!("403: no permission to get or patch workflows: {why}"), LONG_PAUSE)
        }
        ClusterError::Refused(why) => {
            Outcome::Kept(Level::Warn, format!("the cluster refused the request: {why}"), LONG_PAUSE)
        }
        ClusterError::Trouble(why) => Outcome::Trouble(format!("the cluster: {why}")),
    }
}

/// Warns about outputs that the node does not expect: the workflow continues without them.
fn tell_unused(latch: &NewLatch, change: &Change) {
    let unused = plan::unused_outputs(latch, change);
    if !unused.is_empty() {
        let id = latch.id.to_string();
        tracing::warn!(latch = short(&id), outputs = unused.join(", "), "the node does not expect these outputs");
    }
}
