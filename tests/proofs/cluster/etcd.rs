//! An etcd of three members.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::campaign::Storm;
use super::faults::Fault;
use super::history::Nanos;
use crate::support::database::{Database as _, Etcd};
use crate::support::eventually;

/// Less than what is there: the next write fills it.
const FULL: [&str; 2] = ["--quota-backend-bytes", "20000"];

pub struct OnEtcd {
    members: Vec<Etcd>,
}

/// What may happen to it.
pub const FAULTS: &[Fault] = &[
    ("etcd: kill -9 of the leader", |storm| {
        let leader = storm.etcd().leader();
        lose(storm, &[leader])
    }),
    ("etcd: kill -9 of a member", |storm| {
        let member = random(storm);
        lose(storm, &[member])
    }),
    ("etcd: no quorum", |storm| {
        let member = random(storm);
        lose(storm, &[member, (member + 1) % 3])
    }),
    ("etcd: kill -9 of all", |storm| lose(storm, &[0, 1, 2])),
    ("etcd: slow disk of the leader", |storm| {
        let leader = storm.etcd().leader();
        slow(storm, &[leader])
    }),
    ("etcd: slow disks", |storm| slow(storm, &[0, 1, 2])),
    ("etcd: defragmentation", |storm| {
        let since = storm.now();
        storm.etcd().members.iter().for_each(|member| drop(member.etcdctl(&["--command-timeout=30s", "defrag"])));
        since
    }),
    ("etcd: compaction", |storm| {
        let since = storm.now();
        storm.etcd().compact();
        since
    }),
    ("etcd: NOSPACE", |storm| {
        let member = random(storm);
        let etcd = storm.etcd();
        etcd.members[member].kill();
        etcd.members[member].again(&FULL);
        storm.last();
        etcd.members[member].kill();
        etcd.members[member].again(&[]);
        etcd.until_healthy();
        etcd.compact();
        etcd.members[0].etcdctl(&["--command-timeout=30s", "alarm", "disarm"]);
        storm.now()
    }),
];

fn random(storm: &mut Storm<'_>) -> usize {
    usize::try_from(storm.rng.below(3)).unwrap()
}

/// These members are gone for a while.
fn lose(storm: &mut Storm<'_>, members: &[usize]) -> Nanos {
    let etcd = storm.etcd();
    members.iter().for_each(|member| etcd.members[*member].kill());
    storm.last();
    members.iter().for_each(|member| etcd.members[*member].again(&[]));
    etcd.until_healthy();
    storm.now()
}

/// These members stand still for moments.
fn slow(storm: &mut Storm<'_>, members: &[usize]) -> Nanos {
    let etcd = storm.etcd();
    for _ in 0..=storm.rng.below(5) {
        members.iter().for_each(|member| etcd.members[*member].signal(Signal::SIGSTOP));
        storm.moment();
        members.iter().for_each(|member| etcd.members[*member].signal(Signal::SIGCONT));
        thread::sleep(Duration::from_millis(50));
    }
    etcd.until_healthy();
    storm.now()
}

impl OnEtcd {
    pub fn start() -> Self {
        // So that the servers accept it.
        Self { members: Etcd::start_three(&["--auto-compaction-mode=periodic", "--auto-compaction-retention=1m"]) }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.address()).collect()
    }

    fn leader(&self) -> usize {
        eventually("a leader of etcd", || self.members.iter().position(Etcd::leads))
    }

    fn until_healthy(&self) {
        eventually("members that are healthy", || self.members.iter().all(Etcd::answers));
    }

    /// Forgets all that is past.
    fn compact(&self) {
        let text = self.members[0].etcdctl(&["--command-timeout=30s", "get", "x", "-w", "json"]);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let revision = answer["header"]["revision"].to_string();
        self.members[0].etcdctl(&["--command-timeout=30s", "compact", &revision]);
    }
}
