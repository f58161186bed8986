//! Names that live as long as the process. A response names its headers and its route by names of the program; those that
//! come from another server are kept once, a limited number of them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::limits::{LINK_NAME_BYTES, LINK_NAMES};

static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The name, or `None` if it is too long or there are too many.
pub fn lasting(name: &str) -> Option<&'static str> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known.get(name) {
        return Some(name);
    }
    if name.len() > LINK_NAME_BYTES || known.len() >= LINK_NAMES {
        return None;
    }
    let name: &'static str = Box::leak(name.into());
    known.insert(name);
    Some(name)
}
