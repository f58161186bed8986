//! What somebody may do, as words of the access file.

use std::fmt;
use std::str::FromStr;

use crate::wire::problems::unknown;

/// A right. All but [`Right::Metrics`] are given for pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See a pool, its locks with their metadata, its claims and its history.
    Look,
    /// Claim locks, and end one's own claims.
    Claim,
    /// Add, change, remove and quarantine locks.
    Manage,
    /// End and move the claims of others.
    Break,
    /// Declare, change and remove pools.
    Admin,
    /// Read the metrics, which name all pools.
    Metrics,
}

impl Right {
    pub const ALL: [Self; 6] = [Self::Look, Self::Claim, Self::Manage, Self::Break, Self::Admin, Self::Metrics];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Claim => "claim",
            Self::Manage => "manage",
            Self::Break => "break",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }

    /// Whether who has this right has the other one, too: `claim`, `manage` and `break` include `look`, and `admin`
    /// includes everything.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Claim | Self::Manage | Self::Break => other == self || other == Self::Look,
            Self::Look | Self::Metrics => other == self,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Right {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|right| right.word() == text);
        found.ok_or_else(|| unknown("right", text, &Self::ALL.map(Self::word)))
    }
}
