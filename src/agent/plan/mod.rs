//! Decides what to do about a released latch, from what was seen of its workflow. Pure.
//!
//! Three rules make a crash safe at any point. A latch acts only on nodes that are bound to it. A change carries the
//! version of the workflow that was read. A latch is deleted only after its node was seen to be fulfilled, or after
//! nothing is left that could wait for it.

use crate::core::latch::{Ending, NewLatch, Node};

/// The input parameter in which a suspended node names the latch that it waits for.
pub const LOCK_ID: &str = "lock-id";
/// The node name that binds a latch to the workflow's own `spec.suspend`. The names of real nodes begin with the name
/// of their workflow, which never begins with a slash.
pub const WHOLE: &str = "/spec/suspend";

/// What was found under the workflow's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// The API server says that it does not exist.
    Missing,
    Found(Workflow),
}

/// A workflow as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    pub uid: String,
    /// Its phase, once it has finished.
    pub finished: Option<String>,
    /// `spec.suspend`.
    pub is_suspended: bool,
    /// It has suspend templates with the input [`LOCK_ID`]. Its nodes name their latches, so no node is bound by
    /// guessing.
    pub names_latches: bool,
    pub nodes: Nodes,
}

/// Its nodes, if they can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    Known(Vec<NodeSeen>),
    /// They are in the controller's database, which Kubernetes does not show.
    Offloaded,
    /// They cannot be read, for this reason.
    Unreadable(String),
}

/// The parts of a node that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    pub id: String,
    pub name: String,
    pub is_suspend: bool,
    pub phase: Phase,
    /// Input parameters with their values.
    pub inputs: Vec<(String, String)>,
    /// Output parameters that are supplied when the node is resumed.
    pub supplied: Vec<Supplied>,
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Not suspended yet, or in an unknown phase.
    NotYet,
    Active,
    /// It is final.
    Fulfilled(String),
}

/// An output parameter with `valueFrom.supplied`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supplied {
    pub name: String,
    pub default: Option<String>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Before anything is changed, record which node of which workflow the latch is for.
    Bind { node: Bound, uid: String },
    /// Change the workflow, if it has not changed since it was read.
    Change(Change),
    /// Nothing is left to do. Delete the latch.
    Done(Done),
    /// Look again later.
    Keep(Keep),
    /// Look again for a while, then give up.
    Gone(Gone),
}

/// The target of an unbound latch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Node(String),
    Whole,
}

/// A change of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `spec.suspend` is removed.
    Resume,
    /// These nodes end.
    End(Vec<NodeEnd>),
}

/// How a node ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEnd {
    pub id: String,
    pub how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It succeeds, with these values of its supplied outputs.
    Succeed(Vec<(String, String)>),
    /// It fails with this message.
    Fail(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The node is in this phase.
    Fulfilled(String),
    /// `spec.suspend` is not set.
    NotSuspended,
    /// The whole workflow is in this phase.
    Finished(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The node is not suspended yet: the release came before it.
    TooEarly,
    /// More than one node is suspended, and none of them names its latch.
    Ambiguous(usize),
    /// The latch names a node that does not suspend.
    NoSuspendNode,
    /// These outputs have neither a default nor a value.
    NoValue(Vec<String>),
    Offloaded,
    Unreadable(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    Missing,
    /// Another workflow now has this name.
    OtherUid,
}

/// What to do about a released latch.
#[must_use]
pub fn plan(latch: &NewLatch, look: &Look) -> Step {
    let workflow = match look {
        Look::Missing => return Step::Gone(Gone::Missing),
        Look::Found(workflow) => workflow,
    };
    if latch.target.workflow_uid.as_ref().is_some_and(|uid| uid.as_str() != workflow.uid) {
        return Step::Gone(Gone::OtherUid);
    }
    match (&workflow.finished, next(latch, workflow)) {
        // The node ended as the latch asked before the workflow finished, so there is nothing to warn about.
        (Some(_), Step::Done(Done::Fulfilled(phase))) => Step::Done(Done::Fulfilled(phase)),
        (Some(phase), _) => Step::Done(Done::Finished(phase.clone())),
        (None, step) => step,
    }
}

/// What to do about a workflow that has not finished.
fn next(latch: &NewLatch, workflow: &Workflow) -> Step {
    if matches!(&latch.target.node, Some(Node::Name(name)) if name.as_str() == WHOLE) {
        return if workflow.is_suspended { Step::Change(Change::Resume) } else { Step::Done(Done::NotSuspended) };
    }
    let nodes = match &workflow.nodes {
        Nodes::Known(nodes) => nodes,
        Nodes::Offloaded => return Step::Keep(Keep::Offloaded),
        Nodes::Unreadable(why) => return Step::Keep(Keep::Unreadable(why.clone())),
    };
    match &latch.target.node {
        Some(Node::Id(id)) => named(latch, nodes.iter().find(|node| node.id == id.as_str())),
        Some(Node::Name(name)) => named(latch, nodes.iter().find(|node| node.name == name.as_str())),
        Some(Node::Parameter { name, value }) => with_input(latch, nodes, name.as_str(), value.as_str()),
        None => unbound(latch, workflow, nodes),
    }
}

fn named(latch: &NewLatch, node: Option<&NodeSeen>) -> Step {
    match node {
        None => Step::Keep(Keep::TooEarly),
        Some(node) if !node.is_suspend => Step::Keep(Keep::NoSuspendNode),
        Some(node) => wake(latch, &[node]),
    }
}

fn has_input(node: &NodeSeen, name: &str, value: &str) -> bool {
    node.is_suspend && node.inputs.iter().any(|(n, v)| n == name && v == value)
}

/// Every node that names the latch may pass. A loop has several such nodes, and so does a node that is retried.
fn with_input(latch: &NewLatch, nodes: &[NodeSeen], name: &str, value: &str) -> Step {
    let waiting: Vec<&NodeSeen> = nodes.iter().filter(|node| has_input(node, name, value)).collect();
    wake(latch, &waiting)
}

fn unbound(latch: &NewLatch, workflow: &Workflow, nodes: &[NodeSeen]) -> Step {
    let id = latch.id.to_string();
    if nodes.iter().any(|node| has_input(node, LOCK_ID, &id)) {
        return with_input(latch, nodes, LOCK_ID, &id);
    }
    if workflow.names_latches {
        return Step::Keep(Keep::TooEarly);
    }
    // A node that names a latch waits for that one.
    let is_free = |node: &&NodeSeen| !node.inputs.iter().any(|(name, _)| name == LOCK_ID);
    let mut active = nodes.iter().filter(is_free).filter(|node| node.is_suspend && node.phase == Phase::Active);
    let uid = workflow.uid.clone();
    match (active.next(), active.count()) {
        (Some(node), 0) => Step::Bind { node: Bound::Node(node.id.clone()), uid },
        (Some(_), more) => Step::Keep(Keep::Ambiguous(more + 1)),
        (None, _) if workflow.is_suspended => Step::Bind { node: Bound::Whole, uid },
        (None, _) => Step::Keep(Keep::TooEarly),
    }
}

/// What to do about the nodes that are bound to the latch.
fn wake(latch: &NewLatch, nodes: &[&NodeSeen]) -> Step {
    let active: Vec<&NodeSeen> = nodes.iter().copied().filter(|node| node.phase == Phase::Active).collect();
    if active.is_empty() {
        let all: Option<Vec<&String>> = nodes.iter().map(|node| fulfilled(node)).collect();
        return match all.as_deref() {
            Some([.., last]) => Step::Done(Done::Fulfilled((*last).clone())),
            _ => Step::Keep(Keep::TooEarly),
        };
    }
    let (mut ends, mut missing) = (Vec::new(), Vec::new());
    for node in active {
        match ending(&latch.ending, node) {
            Ok(how) => ends.push(NodeEnd { id: node.id.clone(), how }),
            Err(names) => missing.extend(names),
        }
    }
    // All or none: one patch makes the whole change, so the next look shows all of it.
    if missing.is_empty() { Step::Change(Change::End(ends)) } else { Step::Keep(Keep::NoValue(missing)) }
}

fn fulfilled(node: &NodeSeen) -> Option<&String> {
    match &node.phase {
        Phase::Fulfilled(phase) => Some(phase),
        Phase::NotYet | Phase::Active => None,
    }
}

/// How the node ends, or the outputs that have no value.
fn ending(ending: &Ending, node: &NodeSeen) -> Result<How, Vec<String>> {
    let outputs = match ending {
        Ending::Fail(message) => return Ok(How::Fail(message.to_string())),
        Ending::Succeed(outputs) => outputs,
    };
    let given = |name: &str| outputs.iter().find(|(n, _)| n.as_str() == name).map(|(_, value)| value.to_string());
    let value = |wanted: &Supplied| given(&wanted.name).or_else(|| wanted.default.clone());
    let missing: Vec<String> =
        node.supplied.iter().filter(|wanted| value(wanted).is_none()).map(|wanted| wanted.name.clone()).collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    Ok(How::Succeed(node.supplied.iter().filter_map(|wanted| Some((wanted.name.clone(), value(wanted)?))).collect()))
}

/// Outputs of the latch that no node in this change expects.
#[must_use]
pub fn unused_outputs(latch: &NewLatch, change: &Change) -> Vec<String> {
    let Ending::Succeed(outputs) = &latch.ending else { return Vec::new() };
    let ends: &[NodeEnd] = match change {
        Change::Resume => &[],
        Change::End(ends) => ends,
    };
    let is_used = |name: &str| {
        ends.iter().any(|end| matches!(&end.how, How::Succeed(values) if values.iter().any(|(used, _)| used == name)))
    };
    outputs.iter().map(|(name, _)| name.to_string()).filter(|name| !is_used(name)).collect()
}

#[cfg(test)]
mod tests;
