//! JSON of the Argo contract (`docs/latches.md`). As on every contract route, unknown members are ignored and known
//! ones are fully checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::members::Members;
use super::problems::{Problems, quoted};
use super::text::time;
use crate::core::latch::{
    Binding, Ending, Latch, LatchId, NewLatch, Node, Outputs, ParameterName, Target, WorkflowUid,
};

/// The state of a latch. Deleted latches are never shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LatchStatus {
    Locked,
    Released,
}

/// A latch: first the members of the contract, then those that Locker adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LatchView {
    pub id: String,
    pub status: LatchStatus,
    pub workflow: String,
    pub namespace: String,
    pub created: String,
    #[serde(rename = "lastChange")]
    pub last_change: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeView>,
    /// Output parameters for the node. Absent if there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Absent if the node is to succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_release: Option<OnRelease>,
}

/// The node that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NodeView {
    Id {
        id: String,
    },
    Name {
        name: String,
    },
    /// The node whose input parameter has this value.
    Parameter {
        parameter: String,
        value: String,
    },
}

/// How the node should end: `"succeed"` or `{"fail": MESSAGE}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRelease {
    Succeed,
    Fail(String),
}

/// The body of a `POST`, for the API description. [`create`] reads it and ignores unknown members.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "LatchBody")]
#[allow(dead_code)]
pub struct LatchBody {
    /// A UUID that makes the call safe to retry. If it is left out, the server generates one.
    id: Option<String>,
    workflow: String,
    /// Default: `default`.
    namespace: Option<String>,
    workflow_uid: Option<String>,
    node: Option<NodeView>,
    #[schemars(flatten)]
    ending: EndingBody,
}

/// The body of a `PATCH`, for the API description. [`release`] reads it and ignores unknown members.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "LatchReleaseBody")]
#[allow(dead_code)]
pub struct PatchBody {
    #[schemars(flatten)]
    ending: EndingBody,
    /// The node that waits, if not given before.
    node: Option<NodeView>,
    /// `metadata.uid` of the workflow, if not given before.
    workflow_uid: Option<String>,
}

/// How a latch ends, in the body of a `POST` or a `PATCH`.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "LatchEndingBody")]
#[allow(dead_code)]
pub struct EndingBody {
    /// Output parameters for the node.
    outputs: Option<BTreeMap<String, String>>,
    /// The node fails with this message. Short for `on_release`.
    failure: Option<String>,
    on_release: Option<OnRelease>,
}

/// What our client sends to create a latch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreateBody {
    pub id: String,
    pub workflow: String,
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeView>,
}

/// What our client sends to release a latch: nothing, or either outputs or a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReleaseBody {
    /// The server checks the values and names the invalid one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What an agent sends to record which node a released latch is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BindBody {
    pub node: NodeView,
    pub workflow_uid: String,
}

/// A latch as JSON.
#[must_use]
pub fn view(latch: &Latch) -> LatchView {
    let Target { workflow, namespace, workflow_uid, node } = &latch.target;
    let (outputs, on_release) = match &latch.ending {
        Ending::Succeed(outputs) => {
            (outputs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(), None)
        }
        Ending::Fail(message) => (BTreeMap::new(), Some(OnRelease::Fail(message.to_string()))),
    };
    LatchView {
        id: latch.id.to_string(),
        status: if latch.released().is_some() { LatchStatus::Released } else { LatchStatus::Locked },
        workflow: workflow.to_string(),
        namespace: namespace.to_string(),
        created: time(latch.created),
        last_change: time(latch.last_change),
        workflow_uid: workflow_uid.as_ref().map(ToString::to_string),
        node: node.as_ref().map(show_node),
        outputs,
        on_release,
    }
}

fn show_node(node: &Node) -> NodeView {
    match node {
        Node::Id(id) => NodeView::Id { id: id.to_string() },
        Node::Name(name) => NodeView::Name { name: name.to_string() },
        Node::Parameter { name, value } => {
            NodeView::Parameter { parameter: name.to_string(), value: value.to_string() }
        }
    }
}

/// A parsed `POST`. If there is no `id`, the server generates one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub id: Option<LatchId>,
    pub target: Target,
    pub ending: Ending,
}

/// Reads the body of a `POST`. Returns `None` only after it has recorded a problem.
pub fn create(body: &[u8], problems: &mut Problems) -> Option<Wanted> {
    let mut members = Members::parse(BODY, body, problems)?;
    // The original client sends its whole record, with an empty id.
    let id = members.text("id", problems).filter(|id| !id.is_empty());
    let id = problems.parse_some("id", id.as_deref());
    if !members.has("workflow") {
        members.wrong("workflow", "is missing: name the workflow that waits", problems);
    }
    let workflow = members.parsed("workflow", problems);
    let namespace = members.text("namespace", problems);
    let namespace = problems.parse("namespace", namespace.as_deref().unwrap_or("default"));
    let (node, workflow_uid) = target(&mut members, problems);
    let ending = ending(&mut members, problems).unwrap_or_default();
    let (workflow, namespace) = workflow.zip(namespace)?;
    let target = Target { workflow, namespace, workflow_uid, node };
    problems.is_empty().then_some(Wanted { id, target, ending })
}

/// Reads the body of a `PATCH`: how the latch ends and which node it is for, each if given. Records all problems.
pub fn release(body: &[u8], problems: &mut Problems) -> (Option<Ending>, Binding) {
    if body.is_empty() {
        return (None, Binding::default());
    }
    let Some(mut members) = Members::parse(BODY, body, problems) else { return (None, Binding::default()) };
    let (node, workflow_uid) = target(&mut members, problems);
    (ending(&mut members, problems), Binding { node, workflow_uid })
}

/// Parses a latch that a server has sent.
///
/// # Errors
/// A member is invalid. Names are checked as they are when a latch is created.
pub fn read(view: &LatchView) -> Result<NewLatch, String> {
    let mut problems = Problems::default();
    let body = serde_json::to_vec(view).map_err(|error| error.to_string())?;
    let wanted = create(&body, &mut problems);
    match problems.done(wanted) {
        Ok(Wanted { id: Some(id), target, ending }) => Ok(NewLatch { id, target, ending }),
        Ok(_) => Err("it has no id".to_owned()),
        Err(problems) => Err(problems.into_list().join("; ")),
    }
}

/// The name of the body in messages.
const BODY: &str = "the body";
const NODE: &str = r#"must be {"id": ...}, {"name": ...} or {"parameter": ..., "value": ...}"#;

/// Which node of which workflow waits, as far as the body gives it.
fn target(members: &mut Members, problems: &mut Problems) -> (Option<Node>, Option<WorkflowUid>) {
    let workflow_uid = members.parsed("workflow_uid", problems);
    let node = members.has("node").then(|| node(members, problems)).flatten();
    (node, workflow_uid)
}

fn node(members: &mut Members, problems: &mut Problems) -> Option<Node> {
    if !members.is_object("node") {
        members.wrong("node", NODE, problems);
        return None;
    }
    let mut node = members.object("node", problems);
    let given: Vec<&str> = ["id", "name", "parameter"].into_iter().filter(|name| node.has(name)).collect();
    match given[..] {
        ["id"] => node.parsed("id", problems).map(Node::Id),
        ["name"] => node.parsed("name", problems).map(Node::Name),
        ["parameter"] => {
            let name = node.parsed("parameter", problems);
            if !node.has("value") {
                node.wrong("value", "is missing: the value by which the parameter selects its node", problems);
            }
            let value = node.parsed("value", problems);
            name.zip(value).map(|(name, value)| Node::Parameter { name, value })
        }
        _ => {
            members.wrong("node", NODE, problems);
            None
        }
    }
}

/// How a latch ends, if the body gives it.
fn ending(members: &mut Members, problems: &mut Problems) -> Option<Ending> {
    let (says_failure, says_how, says_outputs) =
        (members.has("failure"), members.has("on_release"), members.has("outputs"));
    let failure = members.text("failure", problems);
    let how_fails = match members.take("on_release") {
        None => None,
        Some(Value::String(word)) if word == "succeed" => None,
        Some(Value::Object(mut how)) if how.get("fail").is_some_and(Value::is_string) => {
            how.remove("fail").as_ref().and_then(Value::as_str).map(str::to_owned)
        }
        Some(_) => {
            members.wrong("on_release", r#"must be "succeed" or {"fail": MESSAGE}"#, problems);
            return None;
        }
    };
    let fails = failure.or(how_fails);
    if (says_failure && says_how) || (fails.is_some() && says_outputs) {
        problems.add("", "give one ending: `outputs`, or `failure` (which is short for `on_release`)");
        return None;
    }
    if let Some(message) = fails {
        return problems.parse("failure", &message).map(Ending::Fail);
    }
    if says_outputs {
        return read_outputs(members, problems).map(Ending::Succeed);
    }
    says_how.then(Ending::default)
}

fn read_outputs(members: &mut Members, problems: &mut Problems) -> Option<Outputs> {
    let Some(Value::Object(given)) = members.take("outputs") else {
        members.wrong("outputs", "must be an object from parameter name to text", problems);
        return None;
    };
    let mut outputs = BTreeMap::new();
    for (name, value) in given {
        let at = format!("outputs.{}", quoted(&name));
        let name = problems.parse::<ParameterName>(&at, &name);
        match value {
            Value::String(text) => outputs.extend(name.map(|name| (name, Arc::from(text)))),
            _ => problems.add(&at, "must be a string: Argo's parameters are text"),
        }
    }
    Outputs::new(outputs).map_err(|error| problems.add("outputs", error)).ok()
}
