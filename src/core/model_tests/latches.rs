//! The rules of latches (docs/latches.md) in the simplest way: a part of the model.

use super::reference::{Answer, Deadline};

/// How the node that waits for a latch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// With this value of the one output, if it has one.
    Succeed(Option<String>),
    Fail(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Latch {
    pub(super) id: String,
    pub(super) workflow: String,
    /// The node that waits, and the uid of its workflow, as far as they are known.
    pub(super) node: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) ending: Ending,
    /// When it is forgotten: once it is released.
    pub(super) forget: Option<Deadline>,
}

/// What can be done about a latch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LatchOp {
    Create(Latch),
    Release { id: String, ending: Option<Ending>, node: Option<String>, uid: Option<String> },
    Delete(String),
}

impl Latch {
    /// What a reader sees of it.
    pub(super) fn line(&self) -> String {
        let Self { id, workflow, node, uid, ending, forget } = self;
        let released = forget.is_some();
        format!("latch {id} of {workflow} node {node:?} uid {uid:?} released {released} {ending:?}")
    }

    /// Whether what is known and what is added contradict each other.
    fn contradicts(&self, node: Option<&String>, uid: Option<&String>) -> bool {
        let differ = |known: Option<&String>, new: Option<&String>| known.is_some() && new.is_some() && known != new;
        differ(self.node.as_ref(), node) || differ(self.uid.as_ref(), uid)
    }

    /// Whether this request for a latch is the one that made it. After the release it may leave out what came with that.
    fn was_made_by(&self, new: &Self) -> bool {
        let same = |known: &Option<String>, new: &Option<String>| known == new;
        let left_out = |known: &Option<String>, new: &Option<String>| new.is_none() || known == new;
        let released = self.forget.is_some();
        let agrees = if released { left_out } else { same };
        self.workflow == new.workflow
            && agrees(&self.node, &new.node)
            && agrees(&self.uid, &new.uid)
            && (released || self.ending == new.ending)
    }
}

/// Does this to the latches; `forget` is when a latch that is released now is forgotten.
pub(super) fn apply(latches: &mut Vec<Latch>, op: &LatchOp, forget: Deadline) -> Result<Answer, Answer> {
    let (LatchOp::Create(Latch { id, .. }) | LatchOp::Release { id, .. } | LatchOp::Delete(id)) = op;
    let known = latches.iter_mut().find(|latch| latch.id == *id);
    match (op, known) {
        (LatchOp::Create(new), None) => {
            latches.push(new.clone());
            Ok(Answer::Latch(new.line()))
        }
        (LatchOp::Create(new), Some(latch)) if latch.was_made_by(new) => Ok(Answer::Latch(latch.line())),
        (LatchOp::Create(_), Some(_)) => Err(Answer::Refused("latch_exists")),
        (_, None) => Err(Answer::Refused("no_such_latch")),
        (LatchOp::Release { ending, node, uid, .. }, Some(latch)) => {
            let other_ending = latch.forget.is_some() && ending.as_ref().is_some_and(|ending| *ending != latch.ending);
            if other_ending || latch.contradicts(node.as_ref(), uid.as_ref()) {
                return Err(Answer::Refused("latch_released"));
            }
            latch.node = latch.node.clone().or_else(|| node.clone());
            latch.uid = latch.uid.clone().or_else(|| uid.clone());
            if latch.forget.is_none() {
                latch.ending = ending.clone().unwrap_or_else(|| latch.ending.clone());
                latch.forget = Some(forget);
            }
            Ok(Answer::Latch(latch.line()))
        }
        (LatchOp::Delete(id), Some(_)) => {
            latches.retain(|latch| latch.id != *id);
            Ok(Answer::Done)
        }
    }
}
