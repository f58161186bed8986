//! The state file of the original locker: a JSON object, in the form that `GET /locks` prints.
//!
//! It is read completely before anything is imported. A file that cannot be fully understood is refused: a lock must
//! not become free because its line was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use super::locker;
use crate::core::limits;
use crate::core::names::{ClaimId, NameError, PoolName, Text};
use crate::env::hex;
use crate::wire::api::{self, ClaimBody};
use crate::wire::digest::Fields;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The largest state file that is read, bytes: hundreds of thousands of locks.
pub const STATE_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The reason to refuse a state file.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("the file is empty: it was cut off, or it is not a state file (a state file without locks contains {{}})")]
    Empty,
    #[error("the file is not one whole JSON object in the form that GET /locks prints: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Pool(NameError),
    #[error("pool {0:?} is in the file twice")]
    Twice(PoolName),
    #[error("pool {pool:?}: {name}")]
    Name { pool: PoolName, name: NameError },
    #[error("pool {0:?} has a key but no holder: write an empty key if the pool is free")]
    Nobody(PoolName),
    #[error("pool {0:?} is held, but its key is empty")]
    Keyless(PoolName),
    #[error("pool {pool:?} is held {count} times, but at most {max} holds can be imported", max = limits::HOLDERS_PER_LOCK)]
    TooMany { pool: PoolName, count: u64 },
}

/// A pool of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedPool {
    pub pool: PoolName,
    /// Empty if nobody holds the pool.
    pub holds: Vec<ImportedHold>,
}

/// One hold: the claim to request. Its id is the same each time the file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedHold {
    pub id: ClaimId,
    /// A try-lock: it is granted at once, or refused because someone else holds the pool by then.
    pub body: ClaimBody,
}

/// A whole state file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateFile {
    /// The pools in the order of the file.
    pub pools: Vec<ImportedPool>,
    /// Names that no pool can have, and that nobody holds: a lock that is free may be left out.
    pub left_out: Vec<NameError>,
}

/// Reads a whole state file.
///
/// # Errors
/// The file is damaged or contradicts itself. The caller adds the name of the file.
pub fn parse(text: &str) -> Result<StateFile, StateFileError> {
    if text.trim().is_empty() {
        return Err(StateFileError::Empty);
    }
    let Pairs(pairs) = serde_json::from_str::<Pairs<Entry>>(text)?;
    let mut file = StateFile::default();
    let mut seen = BTreeSet::new();
    for (name, entry) in pairs {
        let pool = match PoolName::parse(&name) {
            Ok(pool) => pool,
            Err(error) if entry.is_free() => {
                file.left_out.push(error);
                continue;
            }
            Err(error) => return Err(StateFileError::Pool(error)),
        };
        if !seen.insert(pool.clone()) {
            return Err(StateFileError::Twice(pool));
        }
        let holds = holds(&pool, entry)?;
        file.pools.push(ImportedPool { pool, holds });
    }
    Ok(file)
}

/// What the file says about one pool.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    /// First generation: the holder, or an empty text.
    Owner(String),
    Held {
        key: String,
        #[serde(default)]
        locked_by: Option<Pairs<i64>>,
    },
}

impl Entry {
    /// Whether it says plainly that nobody holds the pool.
    fn is_free(&self) -> bool {
        match self {
            Self::Owner(owner) => owner.is_empty(),
            Self::Held { key, locked_by } => {
                key.is_empty() && locked_by.iter().flat_map(|Pairs(pairs)| pairs).all(|(_, count)| *count <= 0)
            }
        }
    }
}

fn holds(pool: &PoolName, entry: Entry) -> Result<Vec<ImportedHold>, StateFileError> {
    let text = |text: &str| Text::parse(text).map_err(|name| StateFileError::Name { pool: pool.clone(), name });
    match entry {
        Entry::Owner(owner) if owner.is_empty() => Ok(Vec::new()),
        Entry::Owner(owner) => Ok(vec![hold(pool, None, &text(&owner)?, 0)?]),
        Entry::Held { key, locked_by } => {
            let Pairs(holders) = locked_by.unwrap_or_default();
            let held: Vec<(String, u64)> = holders
                .into_iter()
                .filter_map(|(who, n)| Some((who, u64::try_from(n).ok().filter(|n| *n > 0)?)))
                .collect();
            let count = held.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
            match (key.is_empty(), count) {
                (true, 0) => return Ok(Vec::new()),
                (true, _) => return Err(StateFileError::Keyless(pool.clone())),
                (false, 0) => return Err(StateFileError::Nobody(pool.clone())),
                (false, count) if count > limits::HOLDERS_PER_LOCK as u64 => {
                    return Err(StateFileError::TooMany { pool: pool.clone(), count });
                }
                (false, _) => {}
            }
            let key = text(&key)?;
            let mut holds = Vec::new();
            for (who, count) in held {
                let who = text(&who)?;
                for n in 0..usize::try_from(count).unwrap_or_default() {
                    holds.push(hold(pool, Some(&key), &who, n)?);
                }
            }
            Ok(holds)
        }
    }
}

/// One hold: the same claim that a client of locker's API would have.
fn hold(pool: &PoolName, key: Option<&Text>, who: &Text, n: usize) -> Result<ImportedHold, StateFileError> {
    let mut fields = Fields::default();
    [pool.as_str(), key.map_or("", Text::as_str), who.as_str()].iter().for_each(|field| fields.text(field));
    fields.number(n);
    let id = format!("locker-import-{}", &hex(&fields.finish())[..40]);
    let id = ClaimId::parse(&id).map_err(|name| StateFileError::Name { pool: pool.clone(), name })?;
    let owner =
        api::Owner { program: Some(locker::PROGRAM.into()), person: Some(who.to_string()), ..api::Owner::default() };
    let body = ClaimBody {
        pool: pool.to_string(),
        lock: Some(pool.own_lock().to_string()),
        key: key.map(ToString::to_string),
        requestor: key.map(|_| who.to_string()),
        scope: Some(api::Scope::Flow),
        priority: None,
        supersede: None,
        wait_if_empty: false,
        owner,
        queue: false,
        reason: Some("imported from the state file of the original locker".into()),
        locks: None,
        count: None,
        labels: BTreeMap::new(),
        also: Vec::new(),
        run: None,
        confirm: false,
        wait: None,
        give_up_after: None,
        ttl: None,
        expect_store: None,
    };
    Ok(ImportedHold { id, body })
}

/// The members of a JSON object in order, including duplicates.
struct Pairs<T>(Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_file_is_read() {
        let text = r#"{
            "prod": {"key": "cf", "locked_by": {"a": 2, "b": 1, "gone": 0}, "more": true},
            "free": {"key": "", "locked_by": {}}, "old": {"key": "", "locked_by": null}, "bare": {"key": ""},
            "first": "prod-cloudfoundry", "first-free": ""
        }"#;
        let shown: Vec<String> = parse(text)
            .unwrap()
            .pools
            .iter()
            .map(|pool| {
                let holds = pool.holds.iter().map(|hold| {
                    let body = &hold.body;
                    (body.key.as_deref(), body.requestor.as_deref(), body.owner.person.as_deref())
                });
                format!("{:?} {:?}", pool.pool, holds.collect::<Vec<_>>())
            })
            .collect();
        let expected = [
            r#""prod" [(Some("cf"), Some("a"), Some("a")), (Some("cf"), Some("a"), Some("a")), (Some("cf"), Some("b"), Some("b"))]"#,
            r#""free" []"#,
            r#""old" []"#,
            r#""bare" []"#,
            r#""first" [(None, None, Some("prod-cloudfoundry"))]"#,
            r#""first-free" []"#,
        ];
        assert_eq!(shown, expected);
        assert_eq!(parse(text).unwrap(), parse(text).unwrap(), "the same file, the same claims");
        assert_eq!(parse("{}").unwrap(), StateFile::default());
        // A lock that is free may have any name. It is left out.
        let odd =
            parse(r#"{"/a": "", ".b": {"key": ""}, "c//d": {"key": "", "locked_by": {"x": 0}}, "e": ""}"#).unwrap();
        assert_eq!((odd.pools.len(), odd.left_out.len()), (1, 3), "{odd:?}");
    }

    #[test]
    fn claims_of_one_requestor_differ() {
        let pools = parse(r#"{"p": {"key": "k", "locked_by": {"a": 2}}}"#).unwrap().pools;
        let [first, second] = pools[0].holds.as_slice() else { panic!("two holds") };
        assert_ne!(first.id, second.id);
        assert!(first.id.as_str().starts_with("locker-import-"));
    }

    #[test]
    fn damage_is_named() {
        let whole = r#"{"prod": {"key": "cf", "locked_by": {"a": 2}}, "dev": {"key": "", "locked_by": {}}}"#;
        for cut in 1..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "{}", &whole[..cut]);
        }
        let cases = [
            ("", "the file is empty"),
            (" \n", "the file is empty"),
            ("null", "not one whole JSON object"),
            ("[]", "not one whole JSON object"),
            (r#"{"a": 1}"#, "not one whole JSON object"),
            (r#"{"a": {}}"#, "not one whole JSON object"),
            (r#"{"a": {"key": "k", "locked_by": {"x": "1"}}}"#, "not one whole JSON object"),
            (r#"{"a": ""} {}"#, "trailing characters"),
            (r#"{"a": "x", "a": ""}"#, "pool \"a\" is in the file twice"),
            (r#"{"/a": {"key": "", "locked_by": {"x": 1}}}"#, "pool name must"),
            (r#"{"/a": "x"}"#, "pool name must have a name on both sides of each '/'"),
            (r#"{"a": {"key": "k"}}"#, "has a key but no holder"),
            (r#"{"a": {"key": "k", "locked_by": {"x": 0}}}"#, "has a key but no holder"),
            (r#"{"a": {"key": "", "locked_by": {"x": 1}}}"#, "its key is empty"),
            (r#"{"a": {"key": "k", "locked_by": {"": 1}}}"#, "pool \"a\": text is empty"),
            (r#"{"a": {"key": "k", "locked_by": {"x": 10001}}}"#, "is held 10001 times"),
        ];
        for (text, message) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
