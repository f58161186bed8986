//! The steps of all jobs that use our resources, each with what is known of its surroundings.

use std::collections::{BTreeMap, BTreeSet};

use super::resources::Resource;
use crate::wire::yaml::{Kind, Node, Position};

const HOOKS: [&str; 5] = ["on_success", "on_failure", "on_error", "on_abort", "ensure"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Get,
    Put,
}

/// A get or put.
pub(super) struct Step<'p> {
    pub action: Action,
    /// The name of the step, which is also the name of its directory.
    pub name: &'p str,
    pub resource: &'p Resource<'p>,
    pub node: &'p Node,
    pub at: Position,
    pub around: Around<'p>,
    /// Directories that exist when this step runs.
    sure: BTreeSet<&'p str>,
    /// Directories that steps before this one may have left.
    left: BTreeSet<&'p str>,
    /// Whether a task before this one has outputs that are not in this file.
    is_open: bool,
}

/// What a step is part of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'p> {
    pub job: &'p str,
    /// The innermost hook.
    pub hook: Option<&'static str>,
    /// Whether this step, or one around it, has `attempts`.
    pub is_retried: bool,
    pub is_in_across: bool,
}

/// What is known of a directory at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Directory {
    Exists,
    /// A step leaves it that may not have come so far.
    MayBeMissing,
    Missing,
    /// A task may have left it.
    Unknown,
}

impl<'p> Step<'p> {
    pub fn directory(&self, name: &str) -> Directory {
        match (self.sure.contains(name), self.left.contains(name), self.is_open) {
            (true, ..) => Directory::Exists,
            (_, true, _) => Directory::MayBeMissing,
            (_, _, true) => Directory::Unknown,
            _ => Directory::Missing,
        }
    }

    /// The params, unless there are none.
    pub fn params(&self) -> Option<&'p Node> {
        self.node.entry("params").map(|entry| &entry.value)
    }

    /// A param.
    pub fn param(&self, key: &str) -> Option<&'p Node> {
        self.params()?.entry(key).map(|entry| &entry.value)
    }

    /// The place of a key of the step, or of the step if it has no such key.
    pub fn place(&self, key: &str) -> Position {
        self.node.entry(key).map_or(self.at, |entry| entry.at)
    }

    /// The place of a param, or of the step.
    pub fn param_place(&self, key: &str) -> Position {
        self.params().and_then(|params| params.entry(key)).map_or(self.at, |entry| entry.at)
    }
}

/// What the plan of a pipeline consists of, as far as it matters here.
#[derive(Default)]
pub(super) struct Plan<'p> {
    /// In the order in which they run.
    pub steps: Vec<Step<'p>>,
    /// Jobs that run tasks.
    pub with_tasks: BTreeSet<&'p str>,
}

pub(super) fn plan<'p>(pipeline: &'p Node, resources: &'p BTreeMap<&'p str, Resource<'p>>) -> Plan<'p> {
    let mut plan = Plan::default();
    for job in pipeline.get("jobs").map(Node::items).unwrap_or_default() {
        let around =
            Around { job: job.text("name").unwrap_or_default(), hook: None, is_retried: false, is_in_across: false };
        let mut walk =
            Walk { resources, plan: &mut plan, sure: BTreeSet::new(), left: BTreeSet::new(), is_open: false };
        walk.all(job.get("plan").map(Node::items).unwrap_or_default(), around);
        walk.hooks(job, around, &BTreeSet::new());
    }
    plan
}

/// A walk through one job.
struct Walk<'p, 'w> {
    resources: &'p BTreeMap<&'p str, Resource<'p>>,
    plan: &'w mut Plan<'p>,
    sure: BTreeSet<&'p str>,
    left: BTreeSet<&'p str>,
    is_open: bool,
}

impl<'p> Walk<'p, '_> {
    fn all(&mut self, steps: &'p [Node], around: Around<'p>) {
        steps.iter().for_each(|step| self.step(step, around));
    }

    fn step(&mut self, node: &'p Node, around: Around<'p>) {
        let inside = Around {
            is_retried: around.is_retried || node.entry("attempts").is_some(),
            is_in_across: around.is_in_across || node.entry("across").is_some(),
            ..around
        };
        let before = self.sure.clone();
        if let Some(name) = node.text("get") {
            self.ours(Action::Get, name, node, inside);
            self.leaves(name);
        } else if let Some(name) = node.text("put") {
            self.ours(Action::Put, name, node, inside);
            if !node.is_true("no_get") {
                self.leaves(name);
            }
        } else if node.entry("task").is_some() {
            self.task(node, around.job);
        } else if let Some(step) = node.get("try") {
            self.step(step, inside);
            self.sure.clone_from(&before);
        } else {
            for steps in ["do", "in_parallel", "aggregate"].into_iter().filter_map(|key| node.get(key)) {
                let steps = if let Kind::Map(_) = steps.kind { steps.get("steps") } else { Some(steps) };
                self.all(steps.map(Node::items).unwrap_or_default(), inside);
            }
        }
        self.hooks(node, inside, &before);
    }

    /// `before`: the directories that exist when the guarded step begins. It may end at once.
    fn hooks(&mut self, node: &'p Node, around: Around<'p>, before: &BTreeSet<&'p str>) {
        for hook in HOOKS {
            let Some(step) = node.get(hook) else { continue };
            let after = self.sure.clone();
            if hook != "on_success" {
                self.sure.clone_from(before);
            }
            self.step(step, Around { hook: Some(hook), ..around });
            self.sure = after;
        }
    }

    fn ours(&mut self, action: Action, name: &'p str, node: &'p Node, around: Around<'p>) {
        let Some(resource) = self.resources.get(node.text("resource").unwrap_or(name)) else { return };
        let at = node.entry(if action == Action::Get { "get" } else { "put" }).map_or(node.at, |entry| entry.at);
        let (sure, left) = (self.sure.clone(), self.left.clone());
        self.plan.steps.push(Step { action, name, resource, node, at, around, sure, left, is_open: self.is_open });
    }

    fn leaves(&mut self, name: &'p str) {
        self.sure.insert(name);
        self.left.insert(name);
    }

    fn task(&mut self, node: &'p Node, job: &'p str) {
        self.plan.with_tasks.insert(job);
        let Some(config) = node.get("config").filter(|config| !config.is_var()) else {
            // Its outputs are in another file.
            self.is_open = true;
            return;
        };
        for name in config.get("outputs").map(Node::items).unwrap_or_default().iter().filter_map(|one| one.text("name"))
        {
            self.leaves(node.get("output_mapping").and_then(|mapping| mapping.text(name)).unwrap_or(name));
        }
    }
}
