//! Three servers on one log, each behind proxies: to its clients, to the others, and to its database.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::clock::WallClock;
use crate::support::database::free_address;
use crate::support::http::{Client as Conn, request};
use crate::support::wires::Wire;
use crate::support::{Server, Setup, eventually};

/// How many servers there are.
pub const SERVERS: usize = 3;
/// How long a healthy server may take to say who leads.
const ASKED: Duration = Duration::from_secs(2);
/// Words of a server's log that stand for a bug, whatever happens to it.
const BUGS: [&str; 4] = ["panicked", "this is a bug", "does not show what was acknowledged", "is damaged"];

/// One server and its proxies.
pub struct Node {
    /// `None` while it is down.
    server: Option<Server>,
    setup: Setup,
    /// It has got SIGSTOP.
    pub is_stopped: bool,
    pub door: Wire,
    pub link: Wire,
    /// One for each address of the database.
    pub store: Vec<Wire>,
    /// Its wall clock. Without libfaketime it is right.
    pub clock: WallClock,
}

/// All of them.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Lines of their logs that tell of bugs.
    pub bugs: Vec<String>,
    _dir: TempDir,
}

/// Where the servers find their database: its members, and the address of a store whose members these are.
pub struct Place<'p> {
    /// For each server.
    pub members: Vec<Vec<SocketAddr>>,
    pub url: Box<dyn Fn(&[SocketAddr]) -> String + 'p>,
}

impl Cluster {
    /// Starts the servers. `flags` are for each of them.
    pub fn start(place: &Place<'_>, flags: &[&str], plant: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nodes = place.members.iter().enumerate().map(|(number, members)| {
            let store: Vec<Wire> = members.iter().map(|member| Wire::to(*member)).collect();
            let addresses: Vec<SocketAddr> = store.iter().map(|wire| wire.address).collect();
            let (listen, accepts) = (free_address(), free_address());
            let (door, link) = (Wire::to(listen), Wire::to(accepts));
            let clock = WallClock::in_file(&dir.path().join(format!("clock{number}")));
            clock.jump(["+1d", "-1d", "+0"][number % 3]);
            let text = |address: SocketAddr| address.to_string();
            let mut setup = Setup { store: (place.url)(&addresses), ..Setup::memory() }
                .flags(&["--listen", &text(listen), "--link", &text(accepts), "--advertise", &text(link.address)])
                .flags(flags)
                .vars(&clock.vars());
            if let Some(bug) = plant {
                setup = setup.plant(bug);
            }
            Node { server: None, setup, is_stopped: false, door, link, store, clock }
        });
        let mut cluster = Self { nodes: nodes.collect(), bugs: Vec::new(), _dir: dir };
        (0..SERVERS).for_each(|number| cluster.up(number));
        cluster
    }

    /// The doors of all servers.
    pub fn doors(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.door.address).collect()
    }

    /// The server that leads, if one that can be asked says so.
    pub fn leader(&self) -> Option<usize> {
        let names: Vec<String> = self.nodes.iter().map(|node| node.link.address.to_string()).collect();
        let told = self.nodes.iter().filter(|node| !node.is_stopped).find_map(Node::leader)?;
        names.iter().position(|name| told.contains(name))
    }

    /// Waits until one leads.
    pub fn until_led(&self) -> usize {
        eventually("a leader", || self.leader())
    }

    /// Starts it, if it is down.
    pub fn up(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.server.is_none() {
            node.server = Some(Server::start_as(&node.setup));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.note(number);
        let node = &mut self.nodes[number];
        (node.server, node.is_stopped) = (None, false);
    }

    /// SIGTERM. It must end by itself, without an error.
    pub fn term(&mut self, number: usize) {
        let server = self.nodes[number].server.as_mut().expect("it runs");
        server.stop();
        self.note(number);
        self.nodes[number].server = None;
    }

    /// SIGSTOP.
    pub fn stop(&mut self, number: usize) {
        self.nodes[number].signal(Signal::SIGSTOP);
        self.nodes[number].is_stopped = true;
    }

    /// SIGCONT.
    pub fn go_on(&mut self, number: usize) {
        self.nodes[number].signal(Signal::SIGCONT);
        self.nodes[number].is_stopped = false;
    }

    /// All servers run, and nothing is in their way.
    pub fn heal(&mut self) {
        for number in 0..self.nodes.len() {
            self.nodes[number].wires().for_each(Wire::heal);
            if self.nodes[number].is_stopped {
                self.go_on(number);
            }
            if let Some(server) = self.nodes[number].server.as_mut()
                && !server.is_running()
            {
                let status = server.wait();
                let log = self.nodes[number].log();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(8)..].join("\n    ");
                self.bugs.push(format!("server {number} has ended by itself, {status}:\n    {last}"));
                self.kill(number);
            }
            self.up(number);
        }
    }

    /// Takes note of what the log of a server says.
    fn note(&mut self, number: usize) {
        let log = self.nodes[number].log();
        let tells = |line: &&str| BUGS.iter().any(|bug| line.contains(bug));
        self.bugs.extend(log.lines().filter(tells).map(|line| format!("server {number}: {line}")));
    }

    /// What the logs say of bugs, with those of the servers that run.
    pub fn bugs(&mut self) -> Vec<String> {
        (0..self.nodes.len()).for_each(|number| self.note(number));
        std::mem::take(&mut self.bugs)
    }

    /// How often something has happened to what travels between them, their clients and the database.
    pub fn touched(&self) -> usize {
        self.nodes.iter().flat_map(Node::wires).map(Wire::touched).sum()
    }
}

impl Node {
    pub fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.store.iter().chain([&self.door, &self.link])
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    fn signal(&self, signal: Signal) {
        self.server().signal(signal);
    }

    pub fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }

    /// The name of the leader that it tells, past its proxies.
    fn leader(&self) -> Option<String> {
        let mut conn = Conn::within(self.server.as_ref()?.socket(), ASKED).ok()?;
        conn.try_send(request("GET", "/api/v1/info", "", "")).ok()?;
        let info: Value = conn.receive().ok().filter(|answer| answer.status == 200)?.json();
        info["leader"]["name"].as_str().map(str::to_owned)
    }
}
