//! JSON and rules of the APIs that Locker serves to clients of the servers it replaces (`docs/contracts.md`).
//!
//! - this file: which contracts a server serves.
//! - [`locker`]: request bodies and answers of locker's API.
//! - [`lockd`]: names and answers of lockd's API.
//! - [`state_file`]: the state file of the original locker, for import.

pub mod lockd;
pub mod locker;
pub mod state_file;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::problems::unknown;

/// The API of a server that Locker can replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contract {
    /// `GET /locks`, `PUT` and `DELETE /lock/{pool}` with a body.
    Locker,
    /// `GET`, `POST` and `DELETE /lock/{name}` without a body.
    Lockd,
    /// `/lock?id=`: the latches of Argo workflows.
    Latches,
}

impl Contract {
    /// Every contract.
    pub const ALL: [Self; 3] = [Self::Locker, Self::Lockd, Self::Latches];

    /// Its name in settings and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Locker => "locker",
            Self::Lockd => "lockd",
            Self::Latches => "latches",
        }
    }
}

/// The contracts that a server serves. Default: all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contracts(BTreeSet<Contract>);

impl Contracts {
    /// Whether the routes of `contract` are served.
    #[must_use]
    pub fn serve(&self, contract: Contract) -> bool {
        self.0.contains(&contract)
    }
}

impl Default for Contracts {
    fn default() -> Self {
        Self(BTreeSet::from(Contract::ALL))
    }
}

impl fmt::Display for Contracts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|contract| contract.word()).collect();
        f.write_str(if words.is_empty() { NONE } else { "" })?;
        f.write_str(&words.join(","))
    }
}

/// No contract at all.
const NONE: &str = "none";

impl FromStr for Contracts {
    type Err = String;

    /// Parses a comma-separated list of names, or `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == NONE {
            return Ok(Self(BTreeSet::new()));
        }
        let one = |word: &str| {
            let found = Contract::ALL.into_iter().find(|contract| contract.word() == word.trim());
            found.ok_or_else(|| unknown("contract", word.trim(), &["locker", "lockd", "latches", NONE]))
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

/// How lockd's `DELETE` answers if the lock was not locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnlockMissing {
    /// 409, as lockd's documentation says.
    #[default]
    Conflict,
    /// 404, as the program and its clients expect.
    NotFound,
}

impl UnlockMissing {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Conflict => 409,
            Self::NotFound => 404,
        }
    }
}

impl FromStr for UnlockMissing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "409" => Ok(Self::Conflict),
            "404" => Ok(Self::NotFound),
            other => Err(unknown("status", other, &["409", "404"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contracts_are_chosen_by_name() {
        let shown = |text: &str| text.parse::<Contracts>().map(|contracts| contracts.to_string());
        assert_eq!(Contracts::default().to_string(), "locker,lockd,latches");
        assert_eq!(shown("lockd, locker"), Ok("locker,lockd".into()));
        assert_eq!(shown("none"), Ok("none".into()));
        for bad in ["", "locker,", "lokd", "none,locker", "Locker"] {
            assert!(shown(bad).is_err(), "{bad:?}");
        }
        assert!(shown("lokd").unwrap_err().contains("did you mean \"lockd\"?"));
    }
}
