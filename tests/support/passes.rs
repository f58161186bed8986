//! A build that a Concourse runs again in place (`enable-rerun-when-worker-disappears`), as seen on a real one: each step
//! has an id and leaves a container on a worker. When a worker vanishes, so do its containers. The next pass goes through
//! the same plan with the same ids: a step whose container is still there is not run, and its result counts.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

use std::collections::BTreeMap;

use serde_json::Value;

use super::build::out_with;

/// What a step has left behind.
struct Container {
    worker: String,
    code: u8,
    stdout: String,
    stderr: String,
}

/// The build, with the containers of its steps by step id.
pub struct Passes {
    source: Value,
    containers: BTreeMap<&'static str, Container>,
    made: usize,
}

/// How a step of a pass ended.
pub struct Ended {
    /// Whether it ran in this pass.
    pub ran: bool,
    pub version: String,
    pub stderr: String,
}

impl Passes {
    /// Build 1, whose puts have this source.
    pub fn new(source: Value) -> Self {
        Self { source, containers: BTreeMap::new(), made: 0 }
    }

    /// A put of the plan. It must succeed. It runs in a new container on this worker, unless it has one already.
    pub fn put(&mut self, step: &'static str, worker: &str, params: &Value) -> Ended {
        let ran = !self.containers.contains_key(step);
        if ran {
            self.made += 1;
            let host = format!("container-{}", self.made);
            let (code, stdout, stderr) = out_with(&host, &self.source, params);
            self.containers.insert(step, Container { worker: worker.to_owned(), code, stdout, stderr });
        }
        let Container { code, stdout, stderr, .. } = &self.containers[step];
        assert_eq!(*code, 0, "step {step}: {stderr}");
        let printed: Value = serde_json::from_str(stdout).unwrap();
        let version = printed["version"]["ref"].as_str().unwrap().to_owned();
        Ended { ran, version, stderr: stderr.clone() }
    }

    /// The worker vanishes with its containers.
    pub fn lose(&mut self, worker: &str) {
        self.containers.retain(|_, container| container.worker != worker);
    }
}
