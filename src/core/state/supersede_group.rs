//! Claims that compete for being the newest of a name (see [`crate::core::supersede`]).

use crate::core::claim::{Claim, Owner};
use crate::core::names::{InstanceVars, Text};

/// Claims that compete with each other: the same name from the same job, or from anywhere when it begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct SupersedeGroup {
    name: Text,
    origin: Option<Origin>,
}

/// Where a claim comes from. Each instance of a pipeline counts as a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    cluster: Option<Text>,
    team: Option<Text>,
    pipeline: Option<Text>,
    instance_vars: Option<InstanceVars>,
    job: Option<Text>,
}

impl SupersedeGroup {
    /// The group in which the claim competes, if it names one.
    pub(in crate::core) fn of(claim: &Claim) -> Option<Self> {
        let name = claim.terms.supersede.clone()?;
        let Owner { cluster, team, pipeline, instance_vars, job, .. } = (*claim.terms.owner).clone();
        let within = !name.as_str().starts_with('/');
        Some(Self { name, origin: within.then_some(Origin { cluster, team, pipeline, instance_vars, job }) })
    }
}
