//! How many connections the limit of open descriptors allows. A door that stays within it never fails to accept for
//! lack of descriptors, and leaves enough of them to the store.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::settings::DoorSettings;
use crate::server::door::limits;

/// Raises the soft limit of this process to the hard limit, and lowers the settings to what it allows.
pub(super) fn fit(settings: &mut DoorSettings) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If it cannot be raised, the current limit has to do.
    let _ = setrlimit(Resource::Nofile, raised);
    let allowed = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let connections = connections(allowed);
    if connections < settings.connections {
        (settings.report)(&format!(
            "the limit of {allowed} open files allows {connections} client connections instead of {}",
            settings.connections
        ));
    }
    settings.connections = settings.connections.min(connections);
}

/// The number of client connections for `allowed` descriptors: all of them, except a reserve of at most a quarter and
/// room for turning others away.
fn connections(allowed: usize) -> usize {
    let reserved = limits::DOOR_RESERVED_DESCRIPTORS.min(allowed / 4);
    let taken = reserved + limits::DOOR_TURNED_AWAY.min(allowed / 8);
    allowed.saturating_sub(taken).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_never_promised_twice() {
        for (allowed, expected) in [(1, 1), (64, 40), (256, 160), (1_024, 896), (20_000, 19_872)] {
            assert_eq!(connections(allowed), expected, "of {allowed}");
        }
    }
}
