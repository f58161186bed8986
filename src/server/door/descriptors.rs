//! How many connections the limit of open descriptors allows: a door that never runs out of them never fails to
//! accept, and leaves enough to the store.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::settings::DoorSettings;
use crate::server::door::limits;

/// Raises the soft limit of this process to the hard one and lowers the settings to what it allows.
pub(super) fn fit(settings: &mut DoorSettings) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If it cannot be raised, what there is must do.
    let _ = setrlimit(Resource::Nofile, raised);
    let allowed = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let (connections, backends) = shares(allowed);
    if connections < settings.connections {
        (settings.report)(&format!(
            "the limit of {allowed} open files allows {connections} client connections instead of {}",
            settings.connections
        ));
    }
    settings.connections = settings.connections.min(connections);
    settings.backends = settings.backends.min(backends).max(1);
}

/// Client connections and inner connections for so many descriptors.
fn shares(allowed: usize) -> (usize, usize) {
    // A tenth to the inner connections, a quarter at most in reserve, the rest to clients.
    let backends = (allowed / (10 * limits::DOOR_BACKEND_DESCRIPTORS)).clamp(2, limits::DOOR_BACKENDS);
    let reserved = limits::DOOR_RESERVED_DESCRIPTORS.min(allowed / 4);
    let taken = backends * limits::DOOR_BACKEND_DESCRIPTORS + reserved + limits::DOOR_TURNED_AWAY.min(allowed / 8);
    (allowed.saturating_sub(taken).max(1), backends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_never_promised_twice() {
        for (allowed, connections, backends) in [(64, 34, 2), (256, 136, 8), (1_024, 794, 34), (20_000, 19_680, 64)] {
            assert_eq!(shares(allowed), (connections, backends), "of {allowed}");
        }
        assert_eq!(shares(usize::MAX).1, limits::DOOR_BACKENDS);
    }
}
