//! Resolving and reaching the server: its name, address and port.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::report::Report;
use super::{Stop, Tools};
use crate::client::trouble;
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
    Err(report.fail(env, "resolve", exit::UNAVAILABLE, text, trouble::UNKNOWN_HOST)?)
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
        io::ErrorKind::ConnectionRefused => trouble::REFUSED,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => trouble::LOST,
        _ => trouble::NETWORK,
    }
}
