//! `lockagt` as a process between a real server and a cluster that answers as real clusters do: what it resumes, what
//! it leaves alone, and that killing it at any moment does no harm.
//!
//! The tests `d1_` to `d5_` are the defects of the agent that it replaces.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cluster;
mod original;

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::certs::{Ca, Pair};
use crate::support::proxy::{Act, Proxy};
use crate::support::{Done, Running, Server, binary, clean, eventually};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cluster::{Cluster, node, node_of, running};
use nix::sys::signal::Signal;
use original::Original;
use serde_json::{Value, json};

/// A server of latches, a cluster, and a proxy in front of each.
struct Place {
    server: Server,
    cluster: Cluster,
    to_server: Proxy,
    to_cluster: Proxy,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let server = Server::start_with("sqlite", &["--no-auth"], &[]);
        let cluster = Cluster::start();
        let (to_server, to_cluster) = (Proxy::before(&server.url), Proxy::before(&cluster.url()));
        let place = Self { server, cluster, to_server, to_cluster, dir: tempfile::tempdir().unwrap() };
        place.kubeconfig(json!({ "token": "t" }));
        place
    }

    /// Writes a kubeconfig with this user. It points at the proxy of the cluster.
    fn kubeconfig(&self, user: Value) -> PathBuf {
        let path = self.dir.path().join("config");
        std::fs::write(&path, kubeconfig(&json!({ "server": self.to_cluster.url }), user)).unwrap();
        path
    }

    /// The agent, with a kubeconfig and short pauses.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = lockagt(args);
        command.env("API_ENDPOINT", format!("{}/lock", self.to_server.url));
        command.env("KUBECONFIG", self.dir.path().join("config"));
        command
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(args), b"")
    }

    fn once(&self, args: &[&str]) -> Done {
        self.start(&[&["--once"], args].concat()).finish()
    }

    fn lockcli(&self, args: &[&str]) -> Done {
        let mut command = clean(binary());
        command.arg0("lockcli").args(args).env("API_ENDPOINT", format!("{}/lock", self.server.url));
        Running::start(&mut command, b"").finish()
    }

    fn create(&self, args: &[&str]) -> String {
        self.lockcli(&[&["create"], args].concat()).ok().stdout.trim().to_owned()
    }

    fn release(&self, id: &str, args: &[&str]) {
        self.lockcli(&[&["release", id], args].concat()).ok();
    }

    fn released(&self, workflow: &str) -> String {
        let id = self.create(&[workflow]);
        self.release(&id, &[]);
        id
    }

    fn is_there(&self, id: &str) -> bool {
        self.lockcli(&["get", id]).code == 0
    }

    fn until_gone(&self, id: &str) {
        eventually("the latch to be deleted", || (!self.is_there(id)).then_some(()));
    }

    /// A workflow of two approvals, the second after the first; neither names its latch.
    fn make_two(&self, name: &str) {
        self.cluster.make(name, json!({}), running(&[node("a", "Running"), node("b", "Pending")]));
    }

    fn phase(&self, workflow: &str, node: &str) -> String {
        let workflow = self.cluster.workflow(workflow);
        workflow["status"]["nodes"][node]["phase"].as_str().unwrap_or_default().to_owned()
    }
}

fn lockagt(args: &[&str]) -> Command {
    let mut command = clean(binary());
    command.arg0("/usr/local/bin/lockagt").args(args);
    command
}

fn kubeconfig(cluster: &Value, user: Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{ "name": "c", "cluster": cluster }],
        "users": [{ "name": "u", "user": user }],
        "contexts": [
            { "name": "here", "context": { "cluster": "c", "user": "u" } },
            { "name": "elsewhere", "context": { "cluster": "none", "user": "u" } }
        ]
    })
    .to_string()
}

// ---- The defects of the replaced agent ----

#[test]
fn d1_a_release_before_the_suspension_is_not_lost() {
    let place = Place::new();
    place.cluster.make("w", json!({}), running(&[node("a", "Pending")]));
    let id = place.released("w");
    let agent = place.start(&[]);
    agent.until_stderr("released too early");
    assert!(place.is_there(&id));
    place.cluster.change("w", |w| w["status"]["nodes"]["a"]["phase"] = "Running".into());
    place.until_gone(&id);
    assert_eq!(place.cluster.ends(), ["a Succeeded"]);
}

#[test]
fn d2_of_two_suspended_nodes_only_the_bound_one_is_resumed() {
    let place = Place::new();
    let (first, second) = (place.create(&["w"]), place.create(&["w"]));
    let nodes = [node_of("a", "Running", &first), node_of("b", "Running", &second)];
    place.cluster.make("w", json!({}), running(&nodes));
    place.release(&second, &[]);
    place.once(&[]).ok();
    assert_eq!(place.cluster.ends(), ["b Succeeded"]);
    assert!(place.is_there(&first) && !place.is_there(&second));
    // By id and by name as well.
    for (how, waits) in [("id=c", "c"), ("name=d", "d"), ("input:x=1", "e")] {
        let id = place.create(&["v", "--node", how]);
        let mut with_input = node("e", "Running");
        with_input["inputs"] = json!({ "parameters": [{ "name": "x", "value": 1 }] });
        let nodes = [node("c", "Running"), node("d", "Running"), with_input];
        place.cluster.make("v", json!({}), running(&nodes));
        place.cluster.world(|world| world.ends.clear());
        place.release(&id, &[]);
        place.once(&[]).ok();
        assert_eq!(place.cluster.ends(), [format!("{waits} Succeeded")], "{how}");
    }
    // No node names a latch, and the agent does not guess.
    place.cluster.make("u", json!({}), running(&[node("a", "Running"), node("b", "Running")]));
    place.cluster.world(|world| world.ends.clear());
    let id = place.released("u");
    place.once(&[]).failed(1, "2 nodes are suspended and the latch names none");
    assert!(place.cluster.ends().is_empty() && place.is_there(&id));
}

/// Where the agent is killed, what it is about to do, and whether the cluster has acted by that time.
const DEATHS: &[(&str, &str, Act, bool)] = &[
    ("after it has read the workflow", "GET /apis", Act::StopAnswer, false),
    ("before it writes down the node", "PATCH /lock", Act::StopRequest, false),
    ("after it has written down the node", "PATCH /lock", Act::StopAnswer, false),
    ("before the change arrives", "PATCH /apis", Act::StopRequest, false),
    ("after the change, without its answer", "PATCH /apis", Act::StopAnswer, true),
    ("after the answer, before the latch is deleted", "DELETE /lock", Act::StopRequest, true),
    ("after the latch is deleted, without the answer", "DELETE /lock", Act::StopAnswer, true),
];

#[test]
fn d3_killed_anywhere_it_resumes_its_node_once_and_no_other() {
    for (when, line, act, has_acted) in DEATHS {
        let place = Place::new();
        place.make_two("w");
        let id = place.released("w");
        let to = if line.contains("/apis") { &place.to_cluster } else { &place.to_server };
        to.rule(line, *act);
        let agent = place.start(&[]);
        to.until_stopped();
        agent.signal(Signal::SIGKILL);
        assert_eq!(agent.finish().code, 137);
        assert_eq!(place.cluster.ends().len(), usize::from(*has_acted), "{when}");
        let finished = place.cluster.workflow("w")["status"]["nodes"]["a"]["finishedAt"].clone();
        to.go();
        to.until_idle();

        place.once(&[]).ok();
        assert!(!place.is_there(&id), "{when}");
        assert_eq!(place.cluster.ends(), ["a Succeeded"], "{when}");
        assert_eq!(place.phase("w", "b"), "Running", "{when}: the next approval is another one");
        if *has_acted {
            assert_eq!(place.cluster.workflow("w")["status"]["nodes"]["a"]["finishedAt"], finished, "{when}");
        }
    }
}

#[test]
fn d3_lost_answers_do_the_same_without_a_death() {
    for (line, act) in [
        ("PATCH /apis", Act::LoseAnswer),
        ("PATCH /apis", Act::LoseRequest),
        ("PATCH /apis", Act::CutAnswer),
        ("PATCH /apis", Act::BadGateway),
        ("PATCH /apis", Act::Twice),
        ("PATCH /lock", Act::LoseAnswer),
        ("PATCH /lock", Act::Twice),
        ("DELETE /lock", Act::LoseAnswer),
        ("DELETE /lock", Act::Twice),
        ("GET /apis", Act::LoseAnswer),
    ] {
        let place = Place::new();
        place.make_two("w");
        let id = place.released("w");
        let to = if line.contains("/apis") { &place.to_cluster } else { &place.to_server };
        to.rule(line, act);
        let _agent = place.start(&[]);
        place.until_gone(&id);
        assert_eq!(place.cluster.ends(), ["a Succeeded"], "{line} {act:?}");
    }
}

fn gzip(nodes: &Value) -> String {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(nodes.to_string().as_bytes()).unwrap();
    BASE64.encode(packer.finish().unwrap())
}

fn gunzip(text: &Value) -> Value {
    let packed = BASE64.decode(text.as_str().unwrap()).unwrap();
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut plain).unwrap();
    serde_json::from_str(&plain).unwrap()
}

#[test]
fn d4_compressed_nodes_are_unpacked_changed_and_packed() {
    let place = Place::new();
    let nodes = json!({ "a": node("a", "Running"), "b": { "type": "Pod", "phase": "Succeeded", "odd": [1, {}] } });
    place.cluster.make("w", json!({}), json!({ "phase": "Running", "compressedNodes": gzip(&nodes) }));
    place.released("w");
    place.once(&[]).ok();
    let after = gunzip(&place.cluster.workflow("w")["status"]["compressedNodes"]);
    assert_eq!((&after["a"]["phase"], &after["b"]), (&json!("Succeeded"), &nodes["b"]));
    assert_eq!(after["a"]["startedAt"], nodes["a"]["startedAt"]);

    let zstd = BASE64.encode([0x28, 0xb5, 0x2f, 0xfd, 0]);
    let table = [
        (json!({ "phase": "Running", "compressedNodes": zstd }), "compressedNodes is zstd"),
        (json!({ "phase": "Running", "compressedNodes": BASE64.encode("xx") }), "only gzip"),
        (json!({ "phase": "Running", "compressedNodes": "%" }), "not valid base64"),
        (json!({ "phase": "Running", "compressedNodes": gzip(&json!([1])) }), "not hold a map of nodes"),
        (json!({ "phase": "Running", "offloadNodeStatusVersion": "fnv:7" }), "offloaded"),
    ];
    for (n, (status, says)) in table.into_iter().enumerate() {
        let name = format!("x{n}");
        place.cluster.make(&name, json!({}), status.clone());
        let id = place.released(&name);
        place.once(&[]).failed(1, says);
        assert!(place.is_there(&id), "{says}");
        assert_eq!(place.cluster.workflow(&name)["status"], status);
        place.lockcli(&["delete", &id]).ok();
    }
}

#[test]
fn d5_a_workflow_that_stays_missing_is_given_up_and_a_late_one_is_not() {
    let place = Place::new();
    let (lost, late) = (place.released("lost"), place.released("late"));
    let agent = place.start(&["--gone-after", "3s"]);
    for name in ["lost", "late"] {
        assert!(agent.until_stderr(&format!("workflow=\"{name}\"")).contains("there is no such workflow"));
    }
    place.cluster.make("late", json!({}), running(&[node("a", "Running")]));
    let line = agent.until_stderr("orphaned");
    assert!(line.contains("lost") && line.contains("ERROR"), "{line}");
    place.until_gone(&lost);
    place.until_gone(&late);
    assert_eq!(place.cluster.ends(), ["a Succeeded"]);
    let said = agent.stderr();
    assert!(!said.contains(&lost), "the whole id is the right to release: {said}");
    assert_eq!(said.matches("there is no such workflow").count(), 3, "reported once for each, and at the end: {said}");
}

// ---- The rest of the table ----

#[test]
fn another_workflow_of_that_name_is_left_alone() {
    let place = Place::new();
    place.cluster.make("w", json!({}), running(&[node("a", "Running")]));
    let id = place.create(&["w", "--workflow-uid", "of-the-former", "--node", "id=a"]);
    place.release(&id, &[]);
    place.once(&[]).ok().said("another workflow now has this name");
    assert!(place.is_there(&id));
    place.once(&["--gone-after", "0s"]).ok().said("orphaned");
    assert!(place.cluster.ends().is_empty() && !place.is_there(&id));
}

#[test]
fn ended_workflows_and_nodes_are_left_alone() {
    let place = Place::new();
    place.cluster.make("w", json!({}), json!({ "phase": "Failed", "nodes": { "a": node("a", "Failed") } }));
    place.cluster.make("v", json!({}), running(&[node("a", "Succeeded"), node("b", "Running")]));
    place.released("w");
    let id = place.create(&["v", "--node", "id=a"]);
    place.release(&id, &[]);
    let before = (place.cluster.workflow("w"), place.cluster.workflow("v"));
    place.once(&[]).ok().said("the workflow is over").said("already done");
    assert_eq!((place.cluster.workflow("w"), place.cluster.workflow("v")), before);
    assert_eq!(place.lockcli(&["list"]).ok().stdout, "[]\n");
    assert_eq!(place.to_cluster.seen("PATCH"), 0);
}

#[test]
fn outputs_and_failures_reach_the_node() {
    let place = Place::new();
    let supplied = |name: &str, default: Value| {
        let mut from = json!({ "supplied": {} });
        if !default.is_null() {
            from["default"] = default;
        }
        json!({ "name": name, "valueFrom": from })
    };
    let mut waiting = node("a", "Running");
    waiting["outputs"] = json!({
        "parameters": [supplied("version", Value::Null), supplied("colour", "blue".into()), { "name": "kept", "value": "1" }],
        "exitCode": "0"
    });
    waiting["message"] = "please approve".into();
    place.cluster.make("w", json!({}), running(&[waiting.clone()]));
    place.cluster.make("v", json!({}), running(&[waiting.clone()]));
    place.cluster.make("u", json!({}), running(&[waiting]));

    let id = place.create(&["w"]);
    place.release(&id, &["--outputs", r#"{"version": "1.2", "unheard": "of"}"#]);
    place.once(&[]).ok().said("does not expect these outputs").said("unheard");
    let after = &place.cluster.workflow("w")["status"]["nodes"]["a"];
    let parameters = json!([
        { "name": "version", "value": "1.2" }, { "name": "colour", "value": "blue" }, { "name": "kept", "value": "1" }
    ]);
    assert_eq!((&after["outputs"]["parameters"], &after["outputs"]["exitCode"]), (&parameters, &json!("0")));
    assert_eq!(after["message"], "please approve; Resumed by: locker");
    let finished = after["finishedAt"].as_str().unwrap();
    assert_eq!((finished.len(), &finished[19..]), (20, "Z"), "{finished}");
    assert_eq!(place.cluster.workflow("w")["unknown"], json!({ "kept": [1] }), "unknown fields stay");

    let id = place.create(&["v"]);
    place.release(&id, &["--failure", "no \u{1b}[2J way"]);
    place.once(&[]).ok();
    let after = &place.cluster.workflow("v")["status"]["nodes"]["a"];
    assert_eq!((&after["phase"], &after["message"]), (&json!("Failed"), &json!("no \u{1b}[2J way")));
    assert_eq!(after["outputs"]["parameters"][0], supplied("version", Value::Null), "a failure has no outputs");

    let id = place.released("u");
    place.once(&[]).failed(1, "no value for the outputs version");
    assert!(place.is_there(&id));
    assert_eq!(place.phase("u", "a"), "Running");
}

#[test]
fn a_workflow_that_is_suspended_as_a_whole_goes_on() {
    let place = Place::new();
    place.cluster.make("w", json!({ "suspend": true, "entrypoint": "x" }), json!({}));
    place.released("w");
    place.once(&[]).ok().said("resumed");
    assert_eq!(place.cluster.workflow("w")["spec"], json!({ "entrypoint": "x" }));
    // A suspended node goes before the suspended workflow.
    place.cluster.make("v", json!({ "suspend": true }), running(&[node("a", "Running")]));
    place.released("v");
    place.once(&[]).ok().said("resumed").said("still suspended as a whole (spec.suspend), so it does not go on");
    assert_eq!(
        (place.phase("v", "a").as_str(), &place.cluster.workflow("v")["spec"]["suspend"]),
        ("Succeeded", &json!(true))
    );
}

/// A latch of the second approval must not open the first, which somebody resumes by hand.
#[test]
fn where_nodes_name_their_latches_nothing_is_guessed() {
    let place = Place::new();
    let approve = json!({ "name": "approve", "suspend": {}, "inputs": { "parameters": [{ "name": "lock-id" }] } });
    let by_hand = json!({ "name": "by-hand", "suspend": {} });
    let places = [
        (json!({ "templates": [by_hand, approve] }), json!({})),
        (json!({}), json!({ "storedWorkflowTemplateSpec": { "templates": [approve] } })),
        (json!({}), json!({ "storedTemplates": { "x/approve": approve } })),
    ];
    for (n, (spec, more)) in places.into_iter().enumerate() {
        let name = format!("w{n}");
        let mut status = running(&[node("a", "Running")]);
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        place.cluster.make(&name, spec, status);
        let id = place.released(&name);
        place.once(&[]).ok().said("released too early");
        assert!(place.is_there(&id) && place.cluster.ends().is_empty());
        place.lockcli(&["delete", &id]).ok();
    }
}

#[test]
fn a_concurrent_write_of_the_controller_is_not_a_failure() {
    let place = Place::new();
    place.make_two("w");
    place.released("w");
    place.cluster.world(|world| world.rivals = 3);
    place.once(&[]).ok().said("resumed");
    assert_eq!((place.cluster.answers("PATCH", 409), place.cluster.ends()), (3, vec!["a Succeeded".to_owned()]));
    // A conflict that never ends is a failure: the latch is kept.
    place.cluster.make("v", json!({}), running(&[node("a", "Running")]));
    let id = place.released("v");
    place.cluster.world(|world| world.rivals = usize::MAX);
    place.once(&[]).failed(1, "the workflow keeps changing");
    assert!(place.is_there(&id));
}

/// What the cluster answers instead, what the agent prints, and its exit code after `--once`.
const TROUBLE: &[(u16, &str, &str, i32)] = &[
    (404, "404 page not found\n", "is Argo installed", 6),
    (404, r#"{"kind": "Status", "reason": "NotFound", "code": 404, "details": {"kind": "namespaces"}}"#, "404", 6),
    (200, "<html>welcome</html>", "no usable answer", 6),
    (200, r#"{"kind": "Pod"}"#, "is not a workflow", 6),
    (
        403,
        r#"{"kind": "Status", "reason": "Forbidden", "code": 403, "message": "no\u001b[2J"}"#,
        "no permission to get or patch workflows",
        1,
    ),
    (429, "slow down", "429", 6),
    (500, r#"{"kind": "Status", "reason": "InternalError", "code": 500, "message": "etcd"}"#, "etcd", 6),
    (503, "", "503", 6),
];

#[test]
fn trouble_of_the_cluster_never_deletes_a_latch() {
    let place = Place::new();
    place.cluster.make("w", json!({}), running(&[node("a", "Running")]));
    let id = place.released("w");
    for (status, text, says, code) in TROUBLE {
        place.cluster.world(|world| world.instead = vec![("/w".to_owned(), *status, (*text).to_owned())]);
        let done = place.once(&["--gone-after", "0s"]).failed(*code, says);
        assert!(place.is_there(&id) && !done.stderr.contains('\u{1b}'), "{text}: {done:?}");
    }
    place.cluster.world(|world| world.instead.clear());
    place.cluster.world(|world| world.no_argo = true);
    place.once(&["--gone-after", "0s"]).failed(6, "is Argo installed");
    assert!(place.is_there(&id));
}

#[test]
fn one_bad_latch_does_not_delay_others() {
    let place = Place::new();
    place.cluster.make("good", json!({}), running(&[node("a", "Running")]));
    place.cluster.world(|world| world.instead = vec![("/bad".to_owned(), 500, "oops".to_owned())]);
    place.cluster.world(|world| world.forbidden = vec!["secret".to_owned()]);
    let bad = place.released("bad");
    let secret = place.create(&["w", "secret"]);
    place.release(&secret, &[]);
    let good = place.released("good");
    let agent = place.start(&[]);
    place.until_gone(&good);
    assert!(place.is_there(&bad) && place.is_there(&secret));
    place.cluster.make("bad", json!({}), running(&[node("a", "Running")]));
    place.cluster.world(|world| world.instead.clear());
    place.until_gone(&bad);
    assert!(agent.stderr().contains("no permission to get or patch workflows"), "{}", agent.stderr());
}

#[test]
fn only_allowed_namespaces_are_touched() {
    let place = Place::new();
    place.make_two("w");
    let mine = place.released("w");
    let foreign = place.create(&["w", "other"]);
    place.release(&foreign, &[]);
    place.once(&["--namespace", "default", "--namespace", "more"]).ok().said("namespaces=\"default,more\"");
    assert!(!place.is_there(&mine) && place.is_there(&foreign));
    assert_eq!(place.to_cluster.seen("/namespaces/other/"), 0);
    let mut command = place.command(&["--once"]);
    command.env("LOCKER_AGENT_NAMESPACES", "more,and-more");
    Running::start(&mut command, b"").finish().ok().said("namespaces=\"more,and-more\"");
    assert!(place.is_there(&foreign));
    place.once(&["--namespace", "a/b"]).failed(2, "namespace contains '/'");
}

#[test]
fn a_dry_run_changes_nothing() {
    let place = Place::new();
    place.make_two("w");
    let id = place.released("w");
    place.cluster.make("v", json!({}), json!({ "phase": "Succeeded" }));
    let over = place.released("v");
    place.once(&["--dry-run"]).ok().said("would change").said("would delete");
    assert!(place.is_there(&id) && place.is_there(&over) && place.cluster.ends().is_empty());
    assert_eq!((place.to_cluster.seen("PATCH"), place.to_server.seen("PATCH")), (0, 0));
}

// ---- Running ----

#[test]
fn a_release_wakes_it_at_once() {
    let place = Place::new();
    place.make_two("w");
    let id = place.create(&["w"]);
    let agent = place.start(&["--interval", "3600"]);
    eventually("the long poll", || (place.to_server.seen("wait=") > 0).then_some(()));
    place.release(&id, &[]);
    place.until_gone(&id);
    assert_eq!(place.cluster.ends(), ["a Succeeded"]);
    // Its log gathers lines for a moment.
    eventually("what it says", || agent.stderr().contains("resumed").then_some(()));
}

#[test]
fn it_outlives_the_server_and_the_cluster() {
    let mut place = Place::new();
    place.make_two("w");
    let agent = place.start(&["--interval", "1"]);
    agent.until_stderr("lockagt is at work");
    place.server.kill();
    agent.until_stderr("cannot list the released latches");
    place.server.again();
    place.cluster.world(|world| world.instead = vec![("/w".to_owned(), 503, String::new())]);
    let id = place.released("w");
    agent.until_stderr("no usable answer");
    place.cluster.world(|world| world.instead.clear());
    place.until_gone(&id);
    assert_eq!(place.cluster.ends(), ["a Succeeded"]);
}

#[test]
fn a_signal_lets_it_finish_the_latch_and_a_second_one_does_not() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::new();
        place.make_two("w");
        let id = place.released("w");
        place.to_cluster.rule("PATCH /apis", Act::StopAnswer);
        let agent = place.start(&[]);
        place.to_cluster.until_stopped();
        agent.signal(signal);
        place.to_cluster.go();
        assert_eq!(agent.finish().code, 0);
        assert!(!place.is_there(&id), "it was finished");
    }
    let place = Place::new();
    place.make_two("w");
    place.released("w");
    place.to_cluster.rule("PATCH /apis", Act::StopAnswer);
    let mut agent = place.start(&[]);
    place.to_cluster.until_stopped();
    eventually("its end", || {
        agent.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(20));
        (!agent.is_running()).then_some(())
    });
    assert_eq!(agent.finish().code, 143);
}

#[test]
fn it_waits_for_nothing_else_when_a_signal_comes() {
    let place = Place::new();
    let agent = place.start(&["--interval", "1h"]);
    eventually("the long poll", || (place.to_server.seen("wait=") > 0).then_some(()));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.finish().code, 0);
}

/// A server with only the original API: it cannot hold a request, and stores no binding.
#[test]
fn the_original_server_is_polled() {
    let place = Place::new();
    place.make_two("w");
    let original = Original::before(&place.server.url);
    let id = place.create(&["w"]);
    let mut command = place.command(&["--interval", "1"]);
    command.env("API_ENDPOINT", &original.url);
    let agent = Running::start(&mut command, b"");
    agent.until_stderr("lockagt is at work");
    place.release(&id, &[]);
    place.until_gone(&id);
    assert_eq!((place.cluster.ends(), original.was_asked_to_wait()), (vec!["a Succeeded".to_owned()], false));
    agent.until_stderr("does not store which node");
}

// ---- Finding the cluster ----

fn service_account(dir: &Path, ca: &str, token: &str) {
    std::fs::write(dir.join("ca.crt"), ca).unwrap();
    std::fs::write(dir.join("token"), token).unwrap();
}

#[test]
fn in_cluster_it_uses_the_service_account() {
    let place = Place::new();
    let ca = Ca::new("cluster");
    let Pair { cert, key } = ca.issue(&["127.0.0.1"], "api");
    let cluster = Cluster::start_tls(&Pair { cert, key });
    cluster.make("w", json!({}), running(&[node("a", "Running")]));
    cluster.world(|world| world.token = Some("good".to_owned()));
    let account = tempfile::tempdir().unwrap();
    let (host, port) = cluster.address.split_once(':').unwrap();
    let start = |args: &[&str]| {
        let mut command = place.command(args);
        command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
        command.env("LOCKER_SERVICE_ACCOUNT_DIR", account.path());
        Running::start(&mut command, b"")
    };
    let id = place.released("w");
    let in_cluster = ["--in-cluster", "--once"];
    start(&in_cluster).finish().failed(1, "token: No such file");
    service_account(account.path(), &Ca::new("another").pem(), "good\n");
    start(&in_cluster).finish().failed(6, "no usable answer");
    service_account(account.path(), &ca.pem(), "bad");
    start(&in_cluster).finish().failed(6, "401");
    assert!(place.is_there(&id));

    // The agent uses a renewed token without a restart.
    let agent = start(&["--in-cluster"]);
    agent.until_stderr("401");
    service_account(account.path(), &ca.pem(), "good\n");
    place.until_gone(&id);
    assert_eq!(cluster.ends(), ["a Succeeded"]);
    assert!(agent.stderr().contains("in-cluster"), "{}", agent.stderr());
}

#[test]
fn a_kubeconfig_comes_first_and_says_who_we_are() {
    let place = Place::new();
    place.cluster.make("w", json!({}), running(&[node("a", "Running")]));
    place.cluster.world(|world| world.token = Some("good".to_owned()));
    let token = place.dir.path().join("token");
    std::fs::write(&token, "good\n").unwrap();
    for user in [json!({ "token": "good" }), json!({ "tokenFile": token })] {
        let path = place.kubeconfig(user);
        for how in 0..3 {
            place.cluster.change("w", |w| w["status"]["nodes"]["a"]["phase"] = "Running".into());
            let id = place.released("w");
            let mut command = place.command(&["--once"]);
            command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", "1");
            match how {
                0 => command.env_remove("KUBECONFIG").args(["--kubeconfig", path.to_str().unwrap()]),
                1 => command.env("KUBECONFIG", format!("/nowhere::{}", path.display())),
                _ => {
                    let kube = place.dir.path().join(".kube");
                    std::fs::create_dir_all(&kube).unwrap();
                    std::fs::copy(&path, kube.join("config")).unwrap();
                    command.env_remove("KUBECONFIG").env("HOME", place.dir.path())
                }
            };
            Running::start(&mut command, b"").finish().ok().said("kubeconfig");
            assert!(!place.is_there(&id), "{how}");
        }
    }
    place.kubeconfig(json!({}));
    place.released("w");
    place.once(&[]).failed(1, "no permission to get or patch workflows");
    place.kubeconfig(json!({ "token": "bad" }));
    place.once(&[]).failed(6, "401");
}

#[test]
fn a_missing_cluster_is_reported_at_the_start() {
    let place = Place::new();
    let run = |change: &dyn Fn(&mut Command)| {
        let mut command = place.command(&["--once"]);
        change(&mut command);
        Running::start(&mut command, b"").finish()
    };
    run(&|c| {
        c.env_remove("KUBECONFIG");
    })
    .failed(1, "no cluster: there is no kubeconfig");
    run(&|c| {
        c.arg("--in-cluster");
    })
    .failed(1, "KUBERNETES_SERVICE_HOST is not set");
    run(&|c| {
        c.args(["--kubeconfig", "/nowhere"]);
    })
    .failed(1, "/nowhere");
    run(&|c| {
        c.args(["--context", "nobody"]);
    })
    .failed(1, "nobody");
    run(&|c| {
        c.args(["--context", "elsewhere"]);
    })
    .failed(1, "none");
    run(&|c| {
        c.args(["--in-cluster", "--kubeconfig", "x"]);
    })
    .failed(2, "cannot be used with");
    run(&|c| {
        c.args(["--interval", "0"]);
    })
    .failed(2, "longer than 0 s");
    run(&|c| {
        c.env("API_ENDPOINT", "ftp://x");
    })
    .failed(2, "the API endpoint");
    std::fs::write(place.dir.path().join("config"), "users: [{token: hunter2]").unwrap();
    let bad = run(&|_| {}).failed(1, "is not a valid kubeconfig");
    assert!(!bad.stderr.contains("hunter2"), "{bad:?}");
}

#[test]
fn it_is_also_a_command_of_locker() {
    let place = Place::new();
    place.make_two("w");
    let id = place.released("w");
    let mut command = clean(binary());
    command.args(["--uri", &place.server.url, "agent", "--once", "--kubeconfig"]).arg(place.dir.path().join("config"));
    Running::start(&mut command, b"").finish().ok().said("resumed");
    assert!(!place.is_there(&id));
    let done = Running::start(&mut lockagt(&["--help"]), b"").finish().ok();
    assert!(done.stdout.contains("lockagt --api-endpoint"), "{}", done.stdout);
}

#[test]
fn it_sends_its_credentials_to_a_guarded_server() {
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "hunter2")]);
    let place = Place::new();
    let run = |vars: &[(&str, &str)]| {
        let mut command = place.command(&["--once"]);
        command.env("API_ENDPOINT", format!("{}/lock", server.url)).envs(vars.iter().copied());
        Running::start(&mut command, b"").finish()
    };
    run(&[]).failed(7, "cannot list the released latches");
    let done = run(&[("LOCKER_USERNAME", "ci"), ("LOCKER_PASSWORD", "hunter2")]).ok();
    assert!(!done.stderr.contains("hunter2"));
}

#[test]
fn it_trusts_the_given_issuer() {
    let (place, ca) = (Place::new(), Ca::new("ours"));
    let pair = ca.issue(&["127.0.0.1"], "locker");
    let file = |name: &str, text: &str| {
        let path = place.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (file("cert.pem", &pair.cert), file("key.pem", &pair.key));
    let server = Server::start_with("memory:", &["--no-auth"], &[("SSL_CERT", &cert), ("SSL_KEY", &key)]);
    let run = |vars: &[(&str, &str)]| {
        let mut command = place.command(&["--once"]);
        command.env("API_ENDPOINT", format!("{}/lock", server.url)).envs(vars.iter().copied());
        Running::start(&mut command, b"").finish()
    };
    run(&[]).failed(6, "cannot list the released latches");
    run(&[("LOCKER_CA_CERT", &file("ca.pem", &ca.pem()))]).ok();
    run(&[("LOCKER_SKIP_SSL_VALIDATION", "true")]).ok().said("anybody could pose as the server");
}

#[test]
fn a_cluster_with_a_self_signed_certificate_is_trusted() {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    let (place, cluster) = (Place::new(), Cluster::start_tls(&pair));
    cluster.make("w", json!({}), running(&[node("a", "Running")]));
    let id = place.released("w");
    let config = kubeconfig(
        &json!({ "server": format!("https://{}", cluster.address), "certificate-authority-data": BASE64.encode(&pair.cert) }),
        json!({ "token": "t" }),
    );
    std::fs::write(place.dir.path().join("config"), config).unwrap();
    place.once(&[]).ok();
    place.until_gone(&id);
}
