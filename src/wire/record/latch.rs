//! Stored latches.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Parsed, StoredDeadline, parsed};
use crate::core::latch::{
    Ending, Latch, LatchId, LatchRef, Namespace, NewLatch, Node, NodeText, Outputs, ParameterName, Released, Target,
    WorkflowName, WorkflowUid,
};
use crate::core::names::{Reason, Revision};
use crate::core::time::WallMs;

/// `{"id": ...}`, `{"name": ...}` or `{"parameter": {"name": ..., "value": ...}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StoredNode {
    Id(Parsed<NodeText>),
    Name(Parsed<NodeText>),
    Parameter { name: Parsed<ParameterName>, value: Parsed<NodeText> },
}

impl From<&Node> for StoredNode {
    fn from(node: &Node) -> Self {
        match node {
            Node::Id(id) => Self::Id(Parsed(id.clone())),
            Node::Name(name) => Self::Name(Parsed(name.clone())),
            Node::Parameter { name, value } => {
                Self::Parameter { name: Parsed(name.clone()), value: Parsed(value.clone()) }
            }
        }
    }
}

impl From<StoredNode> for Node {
    fn from(stored: StoredNode) -> Self {
        match stored {
            StoredNode::Id(id) => Self::Id(id.0),
            StoredNode::Name(name) => Self::Name(name.0),
            StoredNode::Parameter { name, value } => Self::Parameter { name: name.0, value: value.0 },
        }
    }
}

/// `{"succeed": {OUTPUT: VALUE, ...}}` or `{"fail": MESSAGE}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StoredEnding {
    Succeed(BTreeMap<Parsed<ParameterName>, String>),
    Fail(Parsed<Reason>),
}

impl From<&Ending> for StoredEnding {
    fn from(ending: &Ending) -> Self {
        match ending {
            Ending::Succeed(outputs) => {
                Self::Succeed(outputs.iter().map(|(name, value)| (Parsed(name.clone()), value.to_string())).collect())
            }
            Ending::Fail(message) => Self::Fail(Parsed(message.clone())),
        }
    }
}

impl TryFrom<StoredEnding> for Ending {
    type Error = anyhow::Error;
    fn try_from(stored: StoredEnding) -> anyhow::Result<Self> {
        Ok(match stored {
            StoredEnding::Succeed(outputs) => {
                let outputs = outputs.into_iter().map(|(name, value)| (name.0, Arc::from(value))).collect();
                Self::Succeed(Outputs::new(outputs)?)
            }
            StoredEnding::Fail(message) => Self::Fail(message.0),
        })
    }
}

/// The release of a latch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredReleased {
    revision: u64,
    forget: StoredDeadline,
}

/// A latch. Its id is the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredLatch {
    workflow: Parsed<WorkflowName>,
    namespace: Parsed<Namespace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow_uid: Option<Parsed<WorkflowUid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<StoredNode>,
    ending: StoredEnding,
    created: u64,
    last_change: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    released: Option<StoredReleased>,
}

impl From<&Latch> for StoredLatch {
    fn from(latch: &Latch) -> Self {
        let Target { workflow, namespace, workflow_uid, node } = &latch.target;
        let released = latch.released();
        Self {
            workflow: Parsed(workflow.clone()),
            namespace: Parsed(namespace.clone()),
            workflow_uid: parsed(workflow_uid.as_ref()),
            node: node.as_ref().map(Into::into),
            ending: (&latch.ending).into(),
            created: latch.created.0,
            last_change: latch.last_change.0,
            released: released.map(|r| StoredReleased { revision: r.revision.0, forget: r.forget.into() }),
        }
    }
}

impl StoredLatch {
    /// The latch with this id.
    ///
    /// # Errors
    /// The record breaks a rule of the core.
    pub fn into_latch(self, id: LatchId) -> anyhow::Result<Latch> {
        let target = Target {
            workflow: self.workflow.0,
            namespace: self.namespace.0,
            workflow_uid: self.workflow_uid.map(|p| p.0),
            node: self.node.map(Into::into),
        };
        let released = self.released.map(|r| Released { revision: Revision(r.revision), forget: r.forget.into() });
        let new = NewLatch { id, target, ending: self.ending.try_into()? };
        Ok(Latch::restored(new, WallMs(self.created), WallMs(self.last_change), released))
    }
}

/// A latch as the history refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredLatchRef {
    id: Parsed<LatchId>,
    workflow: Parsed<WorkflowName>,
    namespace: Parsed<Namespace>,
}

impl From<&LatchRef> for StoredLatchRef {
    fn from(latch: &LatchRef) -> Self {
        let LatchRef { id, workflow, namespace } = latch;
        Self { id: Parsed(*id), workflow: Parsed(workflow.clone()), namespace: Parsed(namespace.clone()) }
    }
}

impl From<StoredLatchRef> for LatchRef {
    fn from(stored: StoredLatchRef) -> Self {
        Self { id: stored.id.0, workflow: stored.workflow.0, namespace: stored.namespace.0 }
    }
}
