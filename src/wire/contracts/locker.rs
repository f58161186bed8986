//! locker's API: the request bodies of both generations of clients, and the answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::claim::Owner;
use crate::core::names::Text;
use crate::wire::members::Members;
use crate::wire::problems::Problems;

/// `owner.program` of a claim that came through locker's API.
pub const PROGRAM: &str = "locker client";

/// The documented body of `PUT` and `DELETE /lock/{pool}`. [`Party::parse`] reads it: it ignores unknown members and
/// treats `null` as missing.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PartyBody {
    /// First generation: who locks. The pool is a mutex that is not reentrant.
    pub lock: Option<String>,
    /// Second generation: the key that holds the pool. Requestors with the same key hold it together.
    pub key: Option<String>,
    /// Who shares the key. Defaults to the key itself. `lock_by` and `locked_by` are aliases.
    pub requestor: Option<String>,
    pub lock_by: Option<String>,
    pub locked_by: Option<String>,
}

/// Who locks or unlocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// First generation: exclusively, under this name.
    Exclusive { owner: Text },
    /// Second generation: together with everyone who uses the same key.
    Shared { key: Text, requestor: Text },
}

impl Party {
    /// Reads a body, whatever its content type. Returns `None` only after it has recorded a problem: the body is not a
    /// JSON object, names nobody, has a duplicate member, or has a text that is too long.
    pub fn parse(body: &[u8], problems: &mut Problems) -> Option<Self> {
        let mut members = Members::parse("the body", body, problems)?;
        // An empty text counts as missing.
        let mut text = |name: &str| {
            let text = members.text(name, problems).filter(|text| !text.is_empty())?;
            problems.parse::<Text>(name, &text)
        };
        let (key, lock) = (text("key"), text("lock"));
        let requestors = ["requestor", "lock_by", "locked_by"].map(&mut text);
        let requestor = requestors.into_iter().flatten().next();
        let party = match (key, lock) {
            (Some(key), _) => Some(Self::Shared { requestor: requestor.unwrap_or_else(|| key.clone()), key }),
            (None, Some(owner)) => Some(Self::Exclusive { owner }),
            (None, None) => None,
        };
        if party.is_none() && problems.is_empty() {
            problems.add("", r#"the body has no key: give {"key": KEY, "requestor": WHO} or {"lock": WHO}"#);
        }
        party.filter(|_| problems.is_empty())
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&Text> {
        match self {
            Self::Exclusive { .. } => None,
            Self::Shared { key, .. } => Some(key),
        }
    }

    /// The name under which it locks.
    #[must_use]
    pub fn who(&self) -> &Text {
        match self {
            Self::Exclusive { owner } => owner,
            Self::Shared { requestor, .. } => requestor,
        }
    }

    /// The owner of its claims.
    #[must_use]
    pub fn owner(&self) -> Owner {
        owner(self.who().clone())
    }
}

/// The owner of a claim that `who` made through locker's API.
#[must_use]
pub fn owner(who: Text) -> Owner {
    Owner { program: Text::parse(PROGRAM).ok(), person: Some(who), ..Owner::default() }
}

/// The body of a 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResponseView {
    /// What the server did, for people.
    pub response: String,
}

/// The 200 of `DELETE /lock/{name}`: a [`ResponseView`] if the request had a body, `{}` if it had none.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnlockedView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
}

/// One pool in `GET /locks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PoolEntry {
    /// The key that holds it. Empty if nobody holds it.
    pub key: String,
    /// Who holds it, and how many times.
    pub locked_by: BTreeMap<String, u64>,
}

/// `GET /locks`: pools by name. The bytes are identical as long as nothing changes.
pub type LocksView = BTreeMap<String, PoolEntry>;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::parse(text).unwrap()
    }

    #[test]
    fn both_generations_are_read() {
        let shared = |key: &str, requestor: &str| Ok(Party::Shared { key: text(key), requestor: text(requestor) });
        let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(257));
        let cases = [
            (r#"{"lock":"prod"}"#, Ok(Party::Exclusive { owner: text("prod") })),
            (r#"{"lock":"prod","other":[1]}"#, Ok(Party::Exclusive { owner: text("prod") })),
            (r#"{"key":"k"}"#, shared("k", "k")),
            (r#"{"key":"k","lock":"x"}"#, shared("k", "k")),
            (r#"{"key":"k","requestor":"r","lock_by":"l"}"#, shared("k", "r")),
            (r#"{"key":"k","lock_by":"l"}"#, shared("k", "l")),
            (r#"{"key":"k","locked_by":"m","requestor":null,"lock_by":""}"#, shared("k", "m")),
            ("", Err("the body is not valid JSON: EOF while parsing a value at line 1 column 0")),
            ("[]", Err("the body must be a JSON object")),
            (r#""k""#, Err("the body must be a JSON object")),
            ("{", Err("the body is not valid JSON: EOF while parsing an object at line 1 column 1")),
            ("{} x", Err("the body is not valid JSON: trailing characters at line 1 column 4")),
            (
                r#"{"key":"k","key":"l"}"#,
                Err("the body is not valid JSON: member \"key\" is given twice at line 1 column 21"),
            ),
            (r#"{"key":1}"#, Err("key: must be a string")),
            (r#"{"key":"k","requestor":{}}"#, Err("requestor: must be a string")),
            (r#"{"key":"k","lock":{}}"#, Err("lock: must be a string")),
            (r#"{"lock":"prod","locked_by":1}"#, Err("locked_by: must be a string")),
            (r#"{"key":"k","requestor":"r","lock_by":[]}"#, Err("lock_by: must be a string")),
            (&long, Err("key: text is too long (257 bytes > max of 256)")),
            ("{}", Err("the body has no key: give {\"key\": KEY, \"requestor\": WHO} or {\"lock\": WHO}")),
            (
                r#"{"key":"","lock":null}"#,
                Err("the body has no key: give {\"key\": KEY, \"requestor\": WHO} or {\"lock\": WHO}"),
            ),
        ];
        for (body, expected) in cases {
            let mut problems = Problems::default();
            let party = Party::parse(body.as_bytes(), &mut problems);
            let party = problems.done(party).map_err(|problems| problems.into_list().join("; "));
            assert_eq!(party, expected.map_err(ToOwned::to_owned), "{body}");
        }
    }
}
