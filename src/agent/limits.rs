//! The limits of the agent, each with its unit and the reason for its size.

/// The largest answer of a cluster that is read, in bytes. With the usual etcd settings a workflow is below 2 MiB.
pub const ARGO_ANSWER_BYTES: u64 = 32 * 1024 * 1024;
/// The largest kubeconfig, certificate or token file that is read, in bytes. A larger file is the wrong file.
pub const KUBECONFIG_BYTES: u64 = 4 * 1024 * 1024;
/// The largest map of nodes that is unpacked from a workflow, in bytes. Argo packs maps over 1 MiB, and text compresses
/// well.
pub const ARGO_NODES_BYTES: u64 = 64 * 1024 * 1024;
/// The largest packed map of nodes that is written, in bytes. This is Argo's own limit for a workflow.
pub const ARGO_STATUS_BYTES: usize = 1024 * 1024;
