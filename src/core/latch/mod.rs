//! Latches: the one-shot objects of the Argo contract (docs/latches.md): locked -> released -> deleted.
//!
//! A latch has no owner: any client that knows its id may release or delete it. It names the workflow that waits for
//! it, and says how the waiting step is to end. A released latch is never locked again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::core::limits;
use crate::core::names::{NameError, Reason, Revision, bad_char, check_length, text_type};
use crate::core::time::{Deadline, Now, WallMs};

/// The id of a latch: a UUID, made by the caller. It must be random, so that nobody can guess it: knowing the id is
/// enough to release the latch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LatchId(pub Uuid);

impl LatchId {
    /// The id of these random bytes (a version 4 UUID).
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The first id in order.
    #[must_use]
    pub fn smallest() -> Self {
        Self(Uuid::nil())
    }
}

impl fmt::Display for LatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl std::str::FromStr for LatchId {
    type Err = NameError;
    /// Reads the hyphenated form, in lower or upper case.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
        let must = "be a UUID such as e9205d4a-2545-4c58-86ae-d0e7b3ecec23";
        parsed.map(Self).ok_or(NameError::Shape { what: "latch id", must })
    }
}

/// Lower-case letters, digits and `-`, not beginning or ending with `-`; with `dots`, several such parts with dots
/// between them.
fn check_kubernetes(what: &'static str, text: &str, max: usize, dots: bool) -> Result<(), NameError> {
    check_length(what, text, max)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (dots && c == '.');
    if let Some((offset, c)) = text.char_indices().find(|&(_, c)| !allowed(c)) {
        return Err(bad_char(what, c, offset));
    }
    if text.split('.').any(|part| part.is_empty() || part.starts_with('-') || part.ends_with('-')) {
        let must = if dots {
            "begin and end with a letter or digit, and so must each part between dots (RFC 1123)"
        } else {
            "begin and end with a letter or digit (RFC 1123)"
        };
        return Err(NameError::Shape { what, must });
    }
    Ok(())
}

fn check_of(what: &'static str, text: &str, max: usize, allowed: fn(char) -> bool) -> Result<(), NameError> {
    check_length(what, text, max)?;
    match text.char_indices().find(|&(_, c)| !allowed(c)) {
        Some((offset, c)) => Err(bad_char(what, c, offset)),
        None => Ok(()),
    }
}

text_type!(
    /// The name of an Argo workflow: an RFC 1123 subdomain, as in Kubernetes, so it is safe in any URL.
    WorkflowName, "workflow name", |what, text| check_kubernetes(what, text, limits::KUBERNETES_NAME_BYTES, true)
);
text_type!(
    /// A Kubernetes namespace: an RFC 1123 label.
    Namespace, "namespace", |what, text| check_kubernetes(what, text, limits::KUBERNETES_LABEL_BYTES, false)
);
text_type!(
    /// `metadata.uid` of a workflow: distinguishes it from a later one of the same name.
    WorkflowUid, "workflow uid", |what, text| {
        check_of(what, text, limits::ID_BYTES, |c| c.is_ascii_alphanumeric() || c == '-')
    }
);
text_type!(
    /// The name of an input or output parameter of an Argo node.
    ParameterName, "parameter name", |what, text| {
        check_of(what, text, limits::NAME_BYTES, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    }
);
text_type!(
    /// The id, name or parameter value that selects a node.
    NodeText, "node", |what, text| check_of(what, text, limits::LATCH_NODE_BYTES, |c| !c.is_control())
);

/// Which node of the workflow waits for the latch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Id(NodeText),
    Name(NodeText),
    /// The node whose input parameter has this value.
    Parameter {
        name: ParameterName,
        value: NodeText,
    },
}

/// Output parameters for the waiting node. Small enough to be kept and listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs(BTreeMap<ParameterName, Arc<str>>);

impl Outputs {
    /// Checks the number and the total size.
    ///
    /// # Errors
    /// There are too many, or their total size is too large.
    pub fn new(values: BTreeMap<ParameterName, Arc<str>>) -> Result<Self, NameError> {
        // The text below is constant, like all texts of its kind.
        const { assert!(limits::LATCH_OUTPUTS == 64, "the text below says 64") };
        if values.len() > limits::LATCH_OUTPUTS {
            return Err(NameError::Shape { what: "outputs", must: "be at most 64" });
        }
        let bytes = values.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > limits::LATCH_OUTPUTS_BYTES {
            return Err(NameError::TooLong { what: "text of outputs", bytes, max: limits::LATCH_OUTPUTS_BYTES });
        }
        Ok(Self(values))
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ParameterName, &Arc<str>)> {
        self.0.iter()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How the waiting node ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Succeed(Outputs),
    /// It fails, with this message.
    Fail(Reason),
}

impl Default for Ending {
    fn default() -> Self {
        Self::Succeed(Outputs::default())
    }
}

/// What a latch is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub workflow: WorkflowName,
    pub namespace: Namespace,
    pub workflow_uid: Option<WorkflowUid>,
    pub node: Option<Node>,
}

impl Target {
    /// This target with the additions of the binding; `None` when they contradict each other.
    pub(super) fn bound(&self, binding: &Binding) -> Option<Self> {
        fn agree<T: PartialEq>(old: &Option<T>, new: &Option<T>) -> bool {
            old.is_none() || new.is_none() || old == new
        }
        let Binding { node, workflow_uid } = binding.clone();
        let agrees = agree(&self.node, &node) && agree(&self.workflow_uid, &workflow_uid);
        agrees.then(|| Self {
            workflow_uid: self.workflow_uid.clone().or(workflow_uid),
            node: self.node.clone().or(node),
            ..self.clone()
        })
    }
}

/// Adds to a target what it left open: which node, and of exactly which workflow. Once set, it stays. An agent records
/// it before it changes a workflow, so that after a crash no agent mistakes another node for the same one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    pub node: Option<Node>,
    pub workflow_uid: Option<WorkflowUid>,
}

/// A request for a new latch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLatch {
    pub id: LatchId,
    pub target: Target,
    /// How it ends if its release does not say.
    pub ending: Ending,
}

/// The second half of a latch's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The revision of the release; it gives the order of releases.
    pub revision: Revision,
    pub forget: Deadline,
}

/// A latch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latch {
    pub id: LatchId,
    pub target: Target,
    /// How it ends; final once the latch is released.
    pub ending: Ending,
    pub created: WallMs,
    pub last_change: WallMs,
    pub(super) released: Option<Released>,
}

impl Latch {
    /// A latch from its stored parts.
    #[must_use]
    pub fn restored(new: NewLatch, created: WallMs, last_change: WallMs, released: Option<Released>) -> Self {
        let NewLatch { id, target, ending } = new;
        Self { id, target, ending, created, last_change, released }
    }

    /// Its release, if it has been released.
    #[must_use]
    pub fn released(&self) -> Option<&Released> {
        self.released.as_ref()
    }

    /// The latch as a new life of the server sees it.
    #[must_use]
    pub fn restarted(mut self, now: Now) -> Self {
        self.released = self.released.map(|r| Released { forget: r.forget.restarted(now), ..r });
        self
    }

    pub(super) fn reference(&self) -> LatchRef {
        let Target { workflow, namespace, .. } = &self.target;
        LatchRef { id: self.id, workflow: workflow.clone(), namespace: namespace.clone() }
    }
}

/// A latch, as the history names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatchRef {
    pub id: LatchId,
    pub workflow: WorkflowName,
    pub namespace: Namespace,
}

#[cfg(test)]
mod tests;
