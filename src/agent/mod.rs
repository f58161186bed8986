//! `lockagt`: resumes the Argo workflows whose latches were released (docs/latches.md).
//!
//! - [`plan`]: what to do, decided from what was seen; pure, and held against a model with crashes anywhere
//! - [`workflow`]: what is seen of a workflow's JSON, and changes as merge patches
//! - [`backlog`]: which latches are open and when each is looked at again; pure
//! - [`cluster`]: where the cluster is, and the two calls to it; [`kubeconfig`]: the files that say so
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
