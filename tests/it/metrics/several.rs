//! The metrics of several servers that share a store.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Scrape, claim, named, promtool, with_everything};
use crate::cluster::{FAILOVER, linked, until_ready};
use crate::support::database::{Database as _, Etcd};
use crate::support::{Server, Setup, eventually};

/// The metrics of the page about clusters and of its files are those that servers of one serve, and no plain one.
fn are_named(families: &BTreeSet<String>) {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let page = named(&read("docs/cluster.md"));
    let (_plain, text) = with_everything();
    let plain = Scrape::read(&text).names();
    let missing: Vec<_> = families.difference(&plain).filter(|name| !page.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/cluster.md does not name {missing:?}");
    for file in ["docs/cluster.md", "deploy/prometheus/cluster-alerts.yml", "deploy/prometheus/cluster-dashboard.json"]
    {
        let unknown: Vec<_> = named(&read(file)).difference(families).cloned().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which are not served");
    }
}

#[test]
fn each_of_several_servers_tells_where_it_stands() {
    let etcd = Etcd::start();
    let store = format!("etcd:{}?tls=off", etcd.address());
    let mut first = linked(&store, FAILOVER);
    first.until_log("this server leads");
    let (second, third) = (linked(&store, FAILOVER), linked(&store, FAILOVER));
    [&second, &third].into_iter().for_each(until_ready);
    assert_eq!(claim(&second, "a", "p"), 200);
    let of_leader = eventually("the leader knows the others, and they have everything", || {
        let scrape = Scrape::of(&first);
        let lags = scrape.samples.iter().filter(|(name, _)| name.starts_with("locker_server_lag_records"));
        let lags: Vec<_> = lags.map(|(_, lag)| *lag).collect();
        (lags == [0.0; 3] && scrape.value("locker_links") > 1.0).then_some(scrape)
    });
    for (sample, value) in [("leads", 1.0), ("leader_term", 1.0), ("servers", 3.0), ("takeovers_total", 1.0)] {
        of_leader.is(&format!("locker_{sample}"), value);
    }
    assert!(of_leader.value("locker_log_appends_total") >= 2.0 && of_leader.value("locker_log_size_bytes") > 0.0);
    promtool(&["check", "metrics"], &of_leader.text);
    let follows = eventually("a follower has what the leader has", || {
        let follows = Scrape::of(&second);
        let last = Scrape::of(&first).value("locker_log_last_record");
        (follows.value("locker_log_last_record") >= last && follows.value("locker_log_lag_records") < 1.0)
            .then_some(follows)
    });
    for (sample, value) in [("leads", 0.0), ("leader_term", 1.0), ("link_up", 1.0), ("reigns_lost_total", 0.0)] {
        follows.is(&format!("locker_{sample}"), value);
    }
    assert!(follows.value("locker_log_lag_seconds") < 60.0);
    // The usual quota of an etcd.
    follows.is("locker_database_quota_bytes", 2_147_483_648.0);
    follows.is("locker_database_full", 0.0);
    promtool(&["check", "metrics"], &follows.text);
    are_named(&of_leader.names().union(&follows.names()).cloned().collect());
    let (_, info) = third.api("GET", "/info", &Value::Null);
    let servers = info["servers"].as_array().unwrap();
    assert_eq!(servers.iter().filter(|server| server["leads"] == true).count(), 1, "{info}");
    assert_eq!(servers.len(), 3, "{info}");
    let doctor = second.cli(&["doctor"]);
    assert!(doctor.stdout.contains("leads, version"), "{doctor:?}");
    first.kill();
    // Nobody leads yet: each says so all the same.
    let alone = Scrape::of(&second);
    assert!(alone.samples.contains_key("locker_log_lag_seconds"), "{}", alone.text);
    eventually("one of the others leads", || {
        let leads = [&second, &third].map(|server| Scrape::of(server).value("locker_takeovers_total"));
        (leads.iter().sum::<f64>() - 1.0).abs() < f64::EPSILON
    });
    eventually("both know", || {
        [&second, &third].iter().all(|server| Scrape::of(server).value("locker_leader_term") > 1.0)
    });
}

#[test]
fn the_metrics_of_a_server_that_follows_are_guarded() {
    let etcd = Etcd::start();
    let store = format!("etcd:{}?tls=off", etcd.address());
    let secret = [("AUTH_USER", "ci"), ("AUTH_PASS", "hunter2")];
    let flags = ["--failover", FAILOVER, "--link", "127.0.0.1:0"];
    let leader = Server::start_with(&store, &flags, &secret);
    leader.until_log("this server leads");
    let follows = Server::start_with(&store, &flags, &secret);
    until_ready(&follows);
    let ask = |credentials: &str| {
        let mut client = follows.connect();
        client.send(format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{credentials}\r\n"));
        let answer = client.read();
        (answer.status, answer.text().contains("locker_leads 0"))
    };
    // ci:hunter2, ci:hunter3
    assert_eq!(ask("authorization: Basic Y2k6aHVudGVyMg==\r\n"), (200, true));
    for refused in ["", "authorization: Basic Y2k6aHVudGVyMw==\r\n", "authorization: Bearer locker_x\r\n"] {
        assert_eq!(ask(refused), (401, false), "{refused}");
    }
}

#[test]
fn a_server_that_has_never_reached_its_database_is_behind() {
    let setup = Setup { store: "postgres://ci@127.0.0.1:1/x?sslmode=disable".to_owned(), ..Setup::memory() };
    let server = Server::start_as(&setup);
    eventually("it is behind", || Scrape::of(&server).value("locker_log_lag_seconds") > 0.1);
}
