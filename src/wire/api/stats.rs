//! Figures over a span of the history, in our own HTTP API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ChangeView, ClaimView};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// How long something took, over all cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpreadView {
    pub count: usize,
    /// Half of the cases took no longer, such as `1m5s`. `0s` if there was no case; so are the next two.
    pub p50: String,
    /// 95 of 100 cases took no longer.
    pub p95: String,
    pub longest: String,
}

/// The figures of one pool or of one team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupView {
    /// The waits that ended with locks.
    pub waits: SpreadView,
    /// The holds that ended.
    pub holds: SpreadView,
    /// Claims that ended without locks.
    pub in_vain: usize,
    /// Holds that ended as lost.
    pub lost: usize,
    /// Holds that were ended by force.
    pub broken: usize,
    /// For how long locks were held within the span, summed over the locks.
    pub in_use: String,
}

/// The figures of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatsView {
    pub pool: String,
    /// How many locks the pool has now.
    pub locks: usize,
    /// The part of the span for which these locks were in use, in percent.
    pub utilisation: f64,
    pub figures: GroupView,
}

/// The figures of one team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TeamStatsView {
    /// Absent for owners without a team, such as people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    pub figures: GroupView,
}

/// Waits, holds and use of a span, and the longest waits and holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatsView {
    pub since: String,
    /// Where the figures end: earlier than asked for if `complete` is false.
    pub until: String,
    /// Whether all entries of the span were counted.
    pub complete: bool,
    /// The number of history entries that were counted.
    pub entries: usize,
    /// The pools in which something happened, the most used first; at most 1,000.
    pub pools: Vec<PoolStatsView>,
    /// The teams that did something, the one that held longest first; at most 1,000.
    pub teams: Vec<TeamStatsView>,
    /// How many further pools are left out. Absent if there are none; so are the teams.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pools_left_out: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub teams_left_out: usize,
    /// The entries that end the longest waits of the span, the longest first.
    pub longest_waits: Vec<ChangeView>,
    /// The entries that end the longest holds of the span, the longest first.
    pub longest_holds: Vec<ChangeView>,
    /// The claims that wait now, the longest first.
    pub waiting: Vec<ClaimView>,
    /// The claims that hold now, the longest first.
    pub held: Vec<ClaimView>,
}
