//! A workflow as JSON: reads what the plan needs, and writes a change as a merge patch.
//!
//! Only the fields named here are read, and only those are written. Fields of newer Argo releases stay unchanged.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use super::plan::{Change, How, LOCK_ID, NodeEnd, NodeSeen, Nodes, Phase, Supplied, Workflow};
use crate::agent::limits;
use crate::env::read_at_most;

/// The message of a resumed node in Argo's own views.
const MESSAGE: &str = "Resumed by: locker";

/// Reads what the plan needs.
#[must_use]
pub fn read(workflow: &Value) -> Workflow {
    let status = &workflow["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Workflow {
        uid: text(&workflow["metadata"]["uid"]),
        finished: finished(workflow),
        is_suspended: workflow["spec"]["suspend"] == true,
        names_latches: templates(workflow).any(names_latch),
        nodes: match nodes(status) {
            Ok(Some(nodes)) => Nodes::Known(nodes.iter().map(|(id, node)| read_node(id, node)).collect()),
            Ok(None) => Nodes::Offloaded,
            Err(why) => Nodes::Unreadable(why),
        },
    }
}

fn finished(workflow: &Value) -> Option<String> {
    let phase = workflow["status"]["phase"].as_str().unwrap_or_default();
    let is_over = matches!(phase, "Succeeded" | "Failed" | "Error");
    let completed = workflow["metadata"]["labels"]["workflows.argoproj.io/completed"] == "true";
    (is_over || completed).then(|| if phase.is_empty() { "completed".to_owned() } else { phase.to_owned() })
}

/// All templates that the workflow may use, as far as it contains them.
fn templates(workflow: &Value) -> impl Iterator<Item = &Value> {
    let status = &workflow["status"];
    let lists = [&workflow["spec"]["templates"], &status["storedWorkflowTemplateSpec"]["templates"]];
    let stored = status["storedTemplates"].as_object().into_iter().flat_map(Map::values);
    lists.into_iter().filter_map(Value::as_array).flatten().chain(stored)
}

fn names_latch(template: &Value) -> bool {
    template["suspend"].is_object() && list(&template["inputs"]["parameters"]).any(|p| p["name"] == LOCK_ID)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The map of nodes. `None` if it is stored elsewhere.
fn nodes(status: &Value) -> Result<Option<Map<String, Value>>, String> {
    let is_set = |name: &str| status[name].as_str().is_some_and(|text| !text.is_empty());
    if is_set("offloadNodeStatusVersion") {
        return Ok(None);
    }
    if is_set("compressedNodes") {
        return decompress(status["compressedNodes"].as_str().unwrap_or_default()).map(Some);
    }
    Ok(Some(status["nodes"].as_object().cloned().unwrap_or_default()))
}

fn read_node(id: &str, node: &Value) -> NodeSeen {
    let inputs = list(&node["inputs"]["parameters"])
        .filter_map(|p| Some((p["name"].as_str()?.to_owned(), any_text(&p["value"])?)))
        .collect();
    let supplied = list(&node["outputs"]["parameters"])
        .filter(|p| is_supplied(p))
        .filter_map(|p| {
            Some(Supplied { name: p["name"].as_str()?.to_owned(), default: any_text(&p["valueFrom"]["default"]) })
        })
        .collect();
    NodeSeen {
        id: id.to_owned(),
        name: node["name"].as_str().unwrap_or_default().to_owned(),
        is_suspend: node["type"] == "Suspend",
        phase: phase(node["phase"].as_str().unwrap_or_default()),
        inputs,
        supplied,
    }
}

fn phase(word: &str) -> Phase {
    match word {
        "Running" => Phase::Active,
        "Succeeded" | "Failed" | "Error" | "Skipped" | "Omitted" => Phase::Fulfilled(word.to_owned()),
        _ => Phase::NotYet,
    }
}

fn is_supplied(parameter: &Value) -> bool {
    parameter["valueFrom"]["supplied"].is_object() && parameter["value"].is_null()
}

/// Argo accepts numbers and booleans as text.
fn any_text(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The change as a merge patch for exactly this version of the workflow. `now` is RFC 3339.
///
/// # Errors
/// The change cannot be written: the nodes are not as they were seen, or are too large.
pub fn patch(workflow: &Value, change: &Change, now: &str) -> Result<Value, String> {
    let version = &workflow["metadata"]["resourceVersion"];
    if !version.is_string() {
        return Err("the workflow has no resourceVersion".to_owned());
    }
    let mut patch = json!({ "metadata": { "resourceVersion": version } });
    let ends = match change {
        Change::Resume => {
            patch["spec"] = json!({ "suspend": null });
            return Ok(patch);
        }
        Change::End(ends) => ends,
    };
    let status = &workflow["status"];
    let mut all = nodes(status)?.ok_or("the nodes are stored elsewhere")?;
    let mut changes = Map::new();
    for NodeEnd { id, how } in ends {
        let node = all.get_mut(id).ok_or_else(|| format!("there is no node {id}"))?;
        let change = node_patch(node, how, now);
        if let (Value::Object(node), Value::Object(change)) = (node, &change) {
            node.extend(change.clone());
        }
        changes.insert(id.clone(), change);
    }
    let is_compressed = status["compressedNodes"].as_str().is_some_and(|text| !text.is_empty());
    patch["status"] =
        if is_compressed { json!({ "compressedNodes": compress(&all)? }) } else { json!({ "nodes": changes }) };
    Ok(patch)
}

fn node_patch(node: &Value, how: &How, now: &str) -> Value {
    let (phase, message) = match how {
        How::Succeed(_) => match node["message"].as_str().filter(|old| !old.is_empty()) {
            Some(old) => ("Succeeded", format!("{old}; {MESSAGE}")),
            None => ("Succeeded", MESSAGE.to_owned()),
        },
        How::Fail(message) => ("Failed", message.clone()),
    };
    let mut change = json!({ "phase": phase, "finishedAt": now, "message": message });
    if let (How::Succeed(values), Some(outputs)) = (how, node["outputs"].as_object()) {
        let mut outputs = outputs.clone();
        if let Some(parameters) = outputs.get_mut("parameters").and_then(Value::as_array_mut) {
            for parameter in parameters.iter_mut().filter(|p| is_supplied(p)) {
                supply(parameter, values);
            }
            change["outputs"] = outputs.into();
        }
    }
    change
}

fn supply(parameter: &mut Value, values: &[(String, String)]) {
    let Some(parameter) = parameter.as_object_mut() else { return };
    let value = values.iter().find(|(name, _)| parameter.get("name").is_some_and(|n| n == name));
    if let Some((_, value)) = value {
        parameter.insert("value".to_owned(), value.clone().into());
        parameter.remove("valueFrom");
    }
}

/// Unpacks the map of nodes from base64 and gzip. Newer releases of Argo may use other compressions.
fn decompress(text: &str) -> Result<Map<String, Value>, String> {
    let packed = BASE64.decode(text).map_err(|error| format!("compressedNodes is not valid base64: {error}"))?;
    match packed[..] {
        [0x1f, 0x8b, ..] => {}
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err("compressedNodes is zstd; only gzip is supported".to_owned()),
        _ => return Err("compressedNodes is not gzip (brotli?); only gzip is supported".to_owned()),
    }
    let most = limits::ARGO_NODES_BYTES;
    let plain = read_at_most(MultiGzDecoder::new(&packed[..]), most)
        .map_err(|error| format!("compressedNodes cannot be unpacked: {error}"))?
        .ok_or_else(|| format!("compressedNodes unpacks to more than {most} bytes"))?;
    serde_json::from_slice(&plain).map_err(|error| format!("compressedNodes does not hold a map of nodes: {error}"))
}

/// Always uses gzip, which every release can read.
fn compress(nodes: &Map<String, Value>) -> Result<String, String> {
    let plain = serde_json::to_vec(nodes).map_err(|error| error.to_string())?;
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    let packed = packer.write_all(&plain).and_then(|()| packer.finish()).map_err(|error| error.to_string())?;
    let text = BASE64.encode(packed);
    if text.len() > limits::ARGO_STATUS_BYTES {
        return Err(format!("the packed nodes would take {} bytes, over 1 MiB", text.len()));
    }
    Ok(text)
}
