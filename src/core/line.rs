//! Claims that compete for being the newest of a name (see [`super::supersede`]).

use super::claim::{Claim, Owner};
use super::names::{InstanceVars, Text};

/// Claims that compete with each other: the same name from the same job, or from anywhere when it begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    name: Text,
    origin: Option<Origin>,
}

/// Where a claim comes from. Instances of a pipeline are pipelines of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    cluster: Option<Text>,
    team: Option<Text>,
    pipeline: Option<Text>,
    instance_vars: Option<InstanceVars>,
    job: Option<Text>,
}

impl Line {
    /// The line in which the claim stands, if it named one.
    pub(super) fn of(claim: &Claim) -> Option<Self> {
        let name = claim.terms.supersede.clone()?;
        let Owner { cluster, team, pipeline, instance_vars, job, .. } = (*claim.terms.owner).clone();
        let within = !name.as_str().starts_with('/');
        Some(Self { name, origin: within.then_some(Origin { cluster, team, pipeline, instance_vars, job }) })
    }
}
