//! `locker server --ask-ready`: the health check of a container, which has the server's settings in its environment.

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

/// Time for the whole question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Enough of an answer for its status line.
const ANSWER_BYTES: u64 = 256;

/// Asks the server that listens on `listen` for `/readyz`, which needs no credentials.
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
    // It is this machine's own server: whoever can answer here needs no forged certificate.
    let trust = Tls { skip_verification: Some("--ask-ready"), ..connection.tls()? };
    let server = ServerUrl::parse(&format!("{scheme}://{}", reachable(listen)));
    let server = server.map_err(|why| CliError::usage(format!("the address to listen on {why}")))?;
    let agent = connect::probe_agent(&server, &trust, PATIENCE).map_err(CliError::usage)?;
    let answer = connect::guarded(|| agent.get(server.join("/readyz")).call());
    Ok(answer.map(|answer| answer.status().as_u16()).map_err(|error| connect::in_words(&error, "--ca-cert")))
}

/// An address to connect to: a server on all addresses is on the loopback one too.
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
