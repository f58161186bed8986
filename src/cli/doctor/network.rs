//! Resolving and reaching the server: its name, address and port, and which protocol it speaks.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::report::Report;
use super::{Stop, Tools};
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::server_url::ServerUrl;

/// How long resolving the name and each connection may take, as in the resource.
const CONNECT: Duration = Duration::from_secs(5);
/// How many addresses of one name are tried at most.
const ADDRESSES: usize = 8;

/// Where the server is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
    pub is_tls: bool,
}

impl Address {
    pub(super) fn of(server: &ServerUrl) -> Option<Self> {
        let uri: ureq::http::Uri = server.join("/").parse().ok()?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }), is_tls })
    }

    /// Whether the address means this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// Resolves the name and connects.
pub(super) fn reach(
    address: &Address,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<TcpStream, Stop> {
    let addresses = resolve(address, tools, report, env)?;
    connect(address, &addresses, tools, report, env)
}

fn resolve(address: &Address, tools: &Tools, report: &mut Report, env: &mut Env<'_>) -> Result<Vec<SocketAddr>, Stop> {
    let asked = (address.host.clone(), address.port);
    let running = tools.interruptible.start(move || asked.to_socket_addrs().map(|found| found.collect::<Vec<_>>()));
    let advice = "check the host in locker_uri, and that the DNS servers of the worker's containers know it";
    let why = match running.wait_at_most(CONNECT)? {
        Some(Ok(found)) if !found.is_empty() => {
            let ips: Vec<String> = found.iter().map(|socket| socket.ip().to_string()).collect();
            report.ok(env, "resolve", format!("{} is {}", address.host, ips.join(", ")))?;
            return Ok(found);
        }
        Some(Ok(_)) => "it has no address".to_owned(),
        Some(Err(error)) => error.to_string(),
        None => format!("no answer within {} s", CONNECT.as_secs()),
    };
    let text = format!("the host name {} cannot be resolved: {why}", address.host);
    Err(report.fail(env, "resolve", exit::UNAVAILABLE, text, advice)?)
}

/// Connects to the first address that answers, as clients do.
fn connect(
    address: &Address,
    addresses: &[SocketAddr],
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<TcpStream, Stop> {
    let mut failed: Vec<String> = Vec::new();
    let mut advice = "";
    for &socket in addresses.iter().take(ADDRESSES) {
        match tools.time(move || TcpStream::connect_timeout(&socket, CONNECT))? {
            (Ok(stream), took) => {
                report.ok(env, "connect", format!("{socket} in {} ms", took.as_millis()))?;
                if !failed.is_empty() {
                    let next = "clients try these first: remove the addresses that do not work from the name";
                    report.warn(env, "connect", failed.join("; "), next)?;
                }
                return Ok(stream);
            }
            (Err(error), _) => {
                failed.push(format!("{socket}: {error}"));
                advice = connect_advice(&error);
            }
        }
    }
    let text = format!("port {} of {} cannot be reached: {}", address.port, address.host, failed.join("; "));
    Err(report.fail(env, "connect", exit::UNAVAILABLE, text, advice)?)
}

fn connect_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: is the server running, is this its port (8910 unless set), \
             and does --listen name an address that others can reach? \
             A containerd worker's containers cannot reach the worker's own host"
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "packets get lost: check firewalls, security groups and routes between the worker and the server"
        }
        _ => "check the network between here and the server",
    }
}

/// Which protocol a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    Tls,
    Something,
    Nothing,
}

/// Sends a plain-HTTP request and looks at the first bytes of the answer, only to explain a failure.
pub(super) fn greet(address: &Address) -> io::Result<Speaks> {
    let found = (address.host.as_str(), address.port).to_socket_addrs()?.next();
    let mut stream = TcpStream::connect_timeout(&found.ok_or(io::ErrorKind::NotFound)?, CONNECT)?;
    stream.set_read_timeout(Some(CONNECT))?;
    stream.set_write_timeout(Some(CONNECT))?;
    // Errors do not matter here: if the peer closes at once, whatever it has sent is still read.
    let _ = write!(stream, "GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", address.host);
    let mut start = [0; 5];
    let mut read = 0;
    while read < start.len() {
        match stream.read(&mut start[read..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => read += more,
        }
    }
    Ok(match &start[..read] {
        [] => Speaks::Nothing,
        b"HTTP/" => Speaks::Http,
        // A TLS alert or handshake record.
        [0x15 | 0x16, 0x03, ..] => Speaks::Tls,
        _ => Speaks::Something,
    })
}
