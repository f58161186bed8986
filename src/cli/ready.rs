//! `locker server --ask-ready`: the health check for containers, which have the server's settings in their environment.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::connection::Connection;
use super::output::{CliError, print_line};
use crate::client::connect;
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::server_url::ServerUrl;
use crate::wire::tls::Tls;

/// How long the whole check may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of an answer is read: enough for its status line.
const ANSWER_BYTES: u64 = 256;

/// Requests `/readyz`, which needs no credentials, from the server that listens on `listen`.
pub(super) fn ask(listen: &str, tls: bool, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    let status = match listen.strip_prefix("unix:") {
        Some(path) => over_unix(path).map_err(|error| error.to_string()),
        None => over_network(listen, tls, connection)?,
    };
    match status {
        Ok(200) => {
            print_line(env, "ready")?;
            Ok(exit::OK)
        }
        Ok(status) => Err(CliError::Failed(exit::UNAVAILABLE, format!("not ready: {listen} answers {status}"))),
        Err(why) => Err(CliError::Failed(exit::UNAVAILABLE, format!("not ready: no answer from {listen}: {why}"))),
    }
}

fn over_network(listen: &str, tls: bool, connection: &Connection) -> Result<Result<u16, String>, CliError> {
    let scheme = if tls { "https" } else { "http" };
    // The server runs on this machine. An attacker who could answer here would not need a forged certificate.
    let trust = Tls { skip_verification: Some("--ask-ready"), ..connection.tls()? };
    let server = ServerUrl::parse(&format!("{scheme}://{}", reachable(listen)));
    let server = server.map_err(|why| CliError::usage(format!("the address to listen on {why}")))?;
    let agent = connect::probe_agent(&server, &trust, PATIENCE).map_err(CliError::usage)?;
    let answer = connect::guarded(|| agent.get(server.join("/readyz")).call());
    Ok(answer.map(|answer| answer.status().as_u16()).map_err(|error| connect::in_words(&error, "--ca-cert")))
}

/// The address to connect to. A server that listens on all addresses also listens on the loopback address.
fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let ip: IpAddr = if address.is_ipv4() { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() };
            SocketAddr::new(ip, address.port()).to_string()
        }
        _ => listen.to_owned(),
    }
}

fn over_unix(path: &str) -> std::io::Result<u16> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|word| word.parse().ok());
    status.ok_or_else(|| std::io::Error::other("it does not speak HTTP"))
}
