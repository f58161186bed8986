//! What happens to the servers and to what connects them. What happens to their database is in [`super::bases`].

use std::time::Duration;

use super::campaign::Storm;
use super::history::Nanos;
use super::nodes::SERVERS;
use crate::support::wires::{Lose, Way, Wire};

/// A fault: its name, and what makes it happen. It returns the moment from which grants must go on within a failover:
/// when a leader is lost, that is when it is lost; when nobody could have led, it is when somebody can again.
pub type Fault = (&'static str, fn(&mut Storm<'_>) -> Nanos);

/// All of them.
pub const FAULTS: &[Fault] = &[
    ("SIGKILL: leader", |storm| {
        let leader = storm.leader();
        kill(storm, &[leader])
    }),
    ("SIGKILL: follower", |storm| {
        let follower = storm.follower();
        kill(storm, &[follower])
    }),
    ("SIGKILL: all", |storm| {
        kill(storm, &[0, 1, 2]);
        storm.cluster.heal();
        storm.now()
    }),
    ("SIGTERM: leader", |storm| {
        let leader = storm.leader();
        term(storm, leader)
    }),
    ("SIGTERM: follower", |storm| {
        let follower = storm.follower();
        term(storm, follower)
    }),
    ("SIGSTOP: leader", |storm| {
        let leader = storm.leader();
        stop(storm, &[leader])
    }),
    ("SIGSTOP: follower", |storm| {
        let follower = storm.follower();
        stop(storm, &[follower])
    }),
    ("SIGSTOP: all", |storm| {
        stop(storm, &[0, 1, 2]);
        storm.now()
    }),
    ("leader and store: cut", |storm| on_store_of_leader(storm, Wire::cut)),
    ("leader and store: requests held", |storm| on_store_of_leader(storm, |wire| wire.hold(Way::There))),
    ("leader and store: answers held", |storm| on_store_of_leader(storm, |wire| wire.hold(Way::Back))),
    ("leader and store: slow", |storm| {
        let delay = Duration::from_millis(20 + storm.rng.below(200));
        on_store_of_leader(storm, |wire| wire.delay(delay));
        // It may go on leading all the time.
        storm.cluster.heal();
        storm.now()
    }),
    ("leader and store: a request lost", |storm| lose(storm, Lose::Request)),
    ("leader and store: an answer lost", |storm| lose(storm, Lose::Answer)),
    ("follower and store: cut", |storm| {
        let follower = storm.follower();
        let since = on_store(storm, follower, &Wire::cut);
        storm.last();
        since
    }),
    ("all and store: held", |storm| {
        let way = either_way(storm);
        for number in 0..SERVERS {
            on_store(storm, number, &|wire: &Wire| wire.hold(way));
        }
        storm.last();
        storm.cluster.heal();
        storm.now()
    }),
    ("leader and others: cut", |storm| on_link(storm, Wire::cut)),
    ("leader and others: held one way", |storm| {
        let way = either_way(storm);
        on_link(storm, |wire| wire.hold(way))
    }),
    ("leader and clients: cut", |storm| on_door(storm, Wire::cut)),
    ("leader and clients: held one way", |storm| {
        let way = either_way(storm);
        on_door(storm, |wire| wire.hold(way))
    }),
    ("wall clocks jump", |storm| {
        for number in 0..SERVERS {
            let by = ["-2d", "-1d", "+0", "+1d", "+2d"][usize::try_from(storm.rng.below(5)).unwrap()];
            storm.cluster.nodes[number].clock.jump(by);
        }
        storm.now()
    }),
];

fn either_way(storm: &mut Storm<'_>) -> Way {
    if storm.rng.percent(50) { Way::There } else { Way::Back }
}

fn kill(storm: &mut Storm<'_>, numbers: &[usize]) -> Nanos {
    let since = storm.now();
    numbers.iter().for_each(|number| storm.cluster.kill(*number));
    if storm.rng.percent(50) {
        storm.last();
    }
    since
}

fn term(storm: &mut Storm<'_>, number: usize) -> Nanos {
    let since = storm.now();
    storm.cluster.term(number);
    since
}

fn stop(storm: &mut Storm<'_>, numbers: &[usize]) -> Nanos {
    let since = storm.now();
    numbers.iter().for_each(|number| storm.cluster.stop(*number));
    std::thread::sleep(storm.pause());
    numbers.iter().for_each(|number| storm.cluster.go_on(*number));
    since
}

fn on_store(storm: &Storm<'_>, number: usize, what: &dyn Fn(&Wire)) -> Nanos {
    let since = storm.now();
    storm.cluster.nodes[number].store.iter().for_each(what);
    since
}

fn on_store_of_leader(storm: &mut Storm<'_>, what: impl Fn(&Wire)) -> Nanos {
    let leader = storm.leader();
    let since = on_store(storm, leader, &what);
    storm.last();
    since
}

/// The next request of the leader or its answer is lost, several times in a row.
fn lose(storm: &mut Storm<'_>, lose: Lose) -> Nanos {
    let leader = storm.leader();
    let since = storm.now();
    for _ in 0..=storm.rng.below(4) {
        on_store(storm, leader, &|wire: &Wire| wire.lose_next(lose));
        storm.moment();
    }
    since
}

fn on_link(storm: &mut Storm<'_>, what: impl Fn(&Wire)) -> Nanos {
    let leader = storm.leader();
    let since = storm.now();
    what(&storm.cluster.nodes[leader].link);
    storm.last();
    since
}

fn on_door(storm: &mut Storm<'_>, what: impl Fn(&Wire)) -> Nanos {
    let leader = storm.leader();
    let since = storm.now();
    what(&storm.cluster.nodes[leader].door);
    storm.last();
    since
}
