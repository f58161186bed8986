//! The limits of the agent, each with its unit and the reason for its size.

/// Largest answer of a cluster that is read, bytes: a workflow is below 2 MiB in every etcd that is set up as usual.
pub const ARGO_ANSWER_BYTES: u64 = 32 * 1024 * 1024;
/// Largest kubeconfig, certificate or token file that is read, bytes: larger is not the file that was meant.
pub const KUBECONFIG_BYTES: u64 = 4 * 1024 * 1024;
/// Largest map of nodes that is unpacked from a workflow, bytes: Argo packs what is over 1 MiB, and text packs well.
pub const ARGO_NODES_BYTES: u64 = 64 * 1024 * 1024;
/// Largest packed map of nodes that is written, bytes: Argo's own bound for a workflow.
pub const ARGO_STATUS_BYTES: usize = 1024 * 1024;
