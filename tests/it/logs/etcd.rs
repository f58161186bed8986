//! What is special about etcd: a database that is full, no quorum, compaction, and how it is reached.

use std::time::Duration;

use locker::core::time::EngineMs;
use locker::store::log::etcd::EtcdLog;
use locker::store::log::etcd::address::Address;
use locker::store::log::head::{Id, Seq, Write};
use locker::store::log::{Cause, Log, PIECE_BYTES, Trouble};

use super::contract::{SPAN, append, done, record, take};
use super::noise;
use crate::support::certs::{Ca, Files};
use crate::support::database::{Database as _, Etcd, free_address};
use crate::support::eventually;

/// How long a call may take. A new database on a busy machine needs a while for its first ones.
const PATIENCE: Duration = Duration::from_secs(20);

fn open(address: &str) -> Result<EtcdLog, Trouble> {
    EtcdLog::open(address.parse().unwrap(), PATIENCE)
}

fn plain(etcd: &Etcd) -> String {
    format!("etcd:{}?tls=off", etcd.address())
}

#[test]
fn a_full_etcd_says_so_and_goes_on_when_there_is_room() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "4000000"], "http");
    let mut log = open(&plain(&etcd)).unwrap();
    let mut at = take(&mut log, 1);
    let room = log.room().unwrap();
    assert!(room.quota == Some(4_000_000) && !room.is_full && room.used.unwrap() <= room.size, "{room:?}");
    let mut id = 11;
    let trouble = loop {
        let full = record(at, id, &noise(200_000));
        match log.write(&Write::append(at, &full, EngineMs(0))) {
            Ok(_) => at = at.after(&full),
            Err(trouble) => {
                // etcd makes the change that fills it, and reports that there is no space. So even this outcome is unknown.
                let now = log.head().unwrap().unwrap().place();
                assert!([at, at.after(&full)].contains(&now), "{now:?}");
                at = now;
                break trouble;
            }
        }
        id += 1;
        assert!(id < 100, "it was never full");
    };
    assert_eq!(trouble.cause, Cause::NoSpace, "{trouble}");
    assert_eq!(log.write(&Write::beat(at, SPAN, EngineMs(0))).unwrap_err().cause, Cause::NoSpace);
    assert!(log.room().unwrap().is_full);
    // The operator makes room.
    etcd.etcdctl(&["del", "--prefix", "locker/record/"]);
    let revision = log_revision(&etcd);
    etcd.etcdctl(&["compact", &revision]);
    etcd.etcdctl(&["defrag"]);
    etcd.etcdctl(&["alarm", "disarm"]);
    append(&mut log, at, 99, b"small");
}

/// The pieces of a snapshot for which there was no room are not in the way of those who make some.
#[test]
fn a_full_etcd_lets_go_of_a_snapshot() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "4000000"], "http");
    let mut log = open(&plain(&etcd)).unwrap();
    let at = take(&mut log, 1);
    let at = append(&mut log, at, 11, b"one");
    let full = (0..100).find_map(|number| log.put_piece(Id(71), number, &noise(PIECE_BYTES)).err());
    assert_eq!(full.map(|trouble| trouble.cause), Some(Cause::NoSpace));
    assert!(log.room().unwrap().is_full);
    log.trim(at.reign).unwrap();
    assert!(log.piece(Id(71), 0).unwrap().is_none(), "a piece is left");
    let revision = log_revision(&etcd);
    etcd.etcdctl(&["compact", &revision]);
    etcd.etcdctl(&["defrag"]);
    etcd.etcdctl(&["alarm", "disarm"]);
    let used = log.room().unwrap().used.unwrap();
    assert!(used < PIECE_BYTES as u64, "{used}");
    assert_eq!(log.records(Seq(1), 9).unwrap().len(), 1);
    append(&mut log, at, 12, b"two");
}

fn log_revision(etcd: &Etcd) -> String {
    let status: serde_json::Value =
        serde_json::from_str(&etcd.etcdctl(&["endpoint", "status", "--write-out", "json"])).unwrap();
    status[0]["Status"]["header"]["revision"].to_string()
}

#[test]
fn without_a_quorum_nothing_is_written_and_it_is_said() {
    let members = Etcd::start_three(&[]);
    let hosts: Vec<String> = members.iter().map(|member| member.address().to_string()).collect();
    let mut log = open(&format!("etcd:{}?tls=off", hosts.join(","))).unwrap();
    let mut at = take(&mut log, 1);
    at = append(&mut log, at, 11, b"three members");
    members[0].kill();
    // Its outcome may be unknown once; the place tells whether it was written.
    eventually("a write with two members", || log.write(&Write::beat(at, SPAN, EngineMs(0))).is_ok());
    at = append(&mut log, at, 12, b"two members");
    members[1].kill();
    let alone = eventually("no quorum", || {
        let beat = log.write(&Write::beat(at, SPAN, EngineMs(0)));
        beat.err().filter(|trouble| trouble.cause == Cause::NoQuorum)
    });
    assert!(!alone.text.is_empty());
    members[1].crash();
    eventually("a quorum again", || log.write(&Write::beat(at, SPAN, EngineMs(0))).is_ok());
    append(&mut log, at, 13, b"two again");
    assert_eq!(log.records(Seq(0), 9).unwrap().len(), 3);
}

#[test]
fn an_etcd_that_is_never_compacted_is_refused() {
    let etcd = Etcd::start();
    let mut log = open(&plain(&etcd)).unwrap();
    let at = take(&mut log, 1);
    for _ in 0..10 {
        done(&mut log, &Write::beat(at, SPAN, EngineMs(0)));
    }
    log.check_compaction(100).unwrap();
    let trouble = log.check_compaction(5).unwrap_err();
    assert!(trouble.cause == Cause::NoSpace && trouble.text.contains("auto-compaction"), "{trouble}");
    etcd.etcdctl(&["compact", "3"]);
    log.check_compaction(5).unwrap();
    // One log knows nothing of another.
    let mut other = open(&format!("{}&prefix=another/", plain(&etcd))).unwrap();
    assert_eq!(other.head().unwrap(), None);
    etcd.etcdctl(&["put", "locker/head", "x"]);
    assert_eq!(log.head().unwrap_err().cause, Cause::Damaged);
}

#[test]
fn an_etcd_of_its_own_is_compacted() {
    let etcd = Etcd::start();
    let mut log = EtcdLog::open(plain(&etcd).parse::<Address>().unwrap().compacted(), PATIENCE).unwrap();
    let at = take(&mut log, 1);
    for _ in 0..10 {
        done(&mut log, &Write::beat(at, SPAN, EngineMs(0)));
    }
    // The first call remembers where it was.
    log.compact_older(Duration::ZERO).unwrap();
    assert!(log.check_compaction(5).is_err());
    log.compact_older(Duration::from_secs(3600)).unwrap();
    assert!(log.check_compaction(5).is_err(), "it is too early");
    log.compact_older(Duration::ZERO).unwrap();
    log.check_compaction(5).unwrap();
    log.compact_older(Duration::ZERO).unwrap();
    done(&mut log, &Write::beat(at, SPAN, EngineMs(0)));
}

#[test]
fn tls_users_and_client_certificates() {
    let (ca, other) = (Ca::new("one"), Ca::new("other"));
    let (server, mine, strange) =
        (ca.issue(&["127.0.0.1"], "server"), ca.issue(&["127.0.0.1"], ""), other.issue(&["127.0.0.1"], ""));
    let files = Files::new();
    let (cert, key) = (files.write("server.pem", &server.cert), files.write("server.key", &server.key));
    let (ca_file, other_file) = (files.write("ca.pem", &ca.pem()), files.write("other.pem", &other.pem()));
    let (my_cert, my_key) = (files.write("my.pem", &mine.cert), files.write("my.key", &mine.key));
    let (bad_cert, bad_key) = (files.write("bad.pem", &strange.cert), files.write("bad.key", &strange.key));
    let arguments = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca_file, "--client-cert-auth"];
    let etcd = Etcd::start_with(&arguments, "https");
    let with = |ca: &str, cert: &str, key: &str| format!("etcd:{}?cacert={ca}&cert={cert}&key={key}", etcd.address());
    let good = with(&ca_file, &my_cert, &my_key);
    eventually("an etcd that is up", || open(&good).is_ok());
    take(&mut open(&good).unwrap(), 1);
    for (bad, text) in [
        (with(&other_file, &my_cert, &my_key), "certificate"),
        (with(&ca_file, &bad_cert, &bad_key), ""),
        (format!("etcd:{}?cacert={ca_file}", etcd.address()), ""),
    ] {
        let trouble = open(&bad).unwrap_err();
        assert!(trouble.cause == Cause::NoAnswer && trouble.text.contains(text), "{bad}: {trouble}");
    }
    // With users, a token is got and used, and got again when it is not valid any more.
    let tls = ["--cacert", &ca_file, "--cert", &my_cert, "--key", &my_key];
    let ctl = |arguments: &[&str]| etcd.etcdctl(&[&tls, arguments].concat());
    ctl(&["user", "add", "root:toor"]);
    ctl(&["user", "add", "ci:hunter2"]);
    ctl(&["role", "add", "locks"]);
    ctl(&["role", "grant-permission", "--prefix=true", "locks", "readwrite", "locker/"]);
    ctl(&["user", "grant-role", "ci", "locks"]);
    ctl(&["user", "grant-role", "root", "root"]);
    ctl(&["auth", "enable"]);
    let (right, wrong) = (files.write("right", "hunter2\n"), files.write("wrong", "hunter3\n"));
    let as_ci = |password: &str, prefix: &str| format!("{good}&user=ci&password_file={password}&prefix={prefix}");
    let mut log = open(&as_ci(&right, "locker/")).unwrap();
    let at = log.head().unwrap().unwrap().place();
    append(&mut log, at, 11, b"as ci");
    for denied in [as_ci(&wrong, "locker/"), as_ci(&right, "other/"), good.clone()] {
        let trouble = open(&denied).and_then(|mut log| log.head()).unwrap_err();
        assert!(trouble.cause == Cause::Denied && !trouble.text.contains("hunter"), "{denied}: {trouble}");
    }
    // A member forgets its simple tokens when it is started again.
    etcd.crash();
    eventually("an answer with a new token", || log.head().is_ok());
}

#[test]
fn an_etcd_that_is_not_there_is_no_answer() {
    let trouble = open(&format!("etcd:{}?tls=off", free_address())).unwrap_err();
    assert_eq!(trouble.cause, Cause::NoAnswer, "{trouble}");
}
