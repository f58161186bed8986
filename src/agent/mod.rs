//! `lockagt`: resumes the Argo workflows whose latches were released (docs/latches.md).
//!
//! - [`plan`]: decides what to do from what was seen; pure, and checked against a model that crashes at any point
//! - [`workflow`]: reads a workflow's JSON, and writes changes as merge patches
//! - [`backlog`]: which latches are open, and when to look at each again; pure
//! - [`cluster`]: finds the cluster and makes the two calls to it; [`kubeconfig`]: reads its configuration files
//! - [`worker`]: the agent and what it knows; [`run`]: its loop; `act`: one look at one latch

mod act;
pub mod backlog;
pub mod cluster;
pub mod kubeconfig;
pub mod limits;
pub mod plan;
pub mod run;
pub mod worker;
pub mod workflow;
