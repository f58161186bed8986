//! "Did you mean": what exists that is most like a name that was not found.

use super::auth::access::Caller;
use crate::core::claim::Labels;
use crate::core::command::Refusal;
use crate::core::names::PoolName;
use crate::core::pool::Pool;
use crate::core::state::Snapshot;
use crate::wire::problems::nearest;

/// The most names that are compared with the one that was not found. More would only cost time, on a mistake.
const COMPARED: usize = 1_000;

/// The name or label that was probably meant by a request that was refused.
pub fn meant(snapshot: &Snapshot, refusal: &Refusal, caller: &Caller) -> Option<String> {
    match refusal {
        Refusal::NoSuchLock { pool, lock } => {
            let pool = snapshot.pool(pool).filter(|pool| caller.sees(&pool.name))?;
            let names = pool.locks.keys().take(COMPARED).map(|name| name.as_str());
            nearest(lock.as_str(), names).map(str::to_owned)
        }
        Refusal::NoSuchPool { pool: name } | Refusal::MayNotMake { pool: name } => pool(snapshot, name, caller),
        Refusal::TooMany { pool, has: 0, labels, .. } => {
            label(snapshot.pool(pool).filter(|pool| caller.sees(&pool.name))?, labels)
        }
        _ => None,
    }
}

/// The name of another pool that is most like this one, of those that the caller may look at.
pub fn pool(snapshot: &Snapshot, name: &PoolName, caller: &Caller) -> Option<String> {
    let others = snapshot.pools.keys().take(COMPARED).filter(|other| *other != name && caller.sees(other));
    nearest(name.as_str(), others.map(PoolName::as_str)).map(str::to_owned)
}

/// The label most like the first wanted one that no lock has.
fn label(pool: &Pool, wanted: &Labels) -> Option<String> {
    let locks = || pool.locks.values().take(COMPARED);
    let (name, value) =
        wanted.iter().find(|(name, value)| !locks().any(|lock| lock.labels.get(*name) == Some(*value)))?;
    let of_lock = locks().flat_map(|lock| lock.labels.iter());
    let all: std::collections::BTreeSet<String> = of_lock.map(|(name, value)| format!("{name}={value}")).collect();
    nearest(&format!("{name}={value}"), all.iter().map(String::as_str)).map(str::to_owned)
}
