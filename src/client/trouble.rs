//! Why there is no usable answer: in words, with the next step, and whether asking again can help. `locker doctor` and
//! everything that waits for a server say the same.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::connect;
use super::trust;
use crate::wire::escape::escape;

/// How long each step of a look at a port may take.
const LOOK: Duration = Duration::from_secs(2);

/// What to do if the host name cannot be resolved.
pub(crate) const UNKNOWN_HOST: &str =
    "check the host in locker_uri, and that the DNS servers of the worker's containers know it";
/// What to do if the port refuses connections.
pub(crate) const REFUSED: &str = "nothing listens there: is the server running, is this its port (8910 unless set), \
     and does --listen name an address that others can reach? \
     A containerd worker's containers cannot reach the worker's own host";
/// What to do if packets get no answer.
pub(crate) const LOST: &str =
    "packets get lost: check firewalls, security groups and routes between the worker and the server";
/// What to do if something else keeps a connection from being made.
pub(crate) const NETWORK: &str = "check the network between here and the server";
/// What to do if something answers that is not a locker server.
pub(crate) const FOREIGN: &str =
    "does locker_uri lead to the locker server, and is there a proxy or load balancer in between?";
/// What to do if the port speaks something else.
pub(crate) const PORT: &str = "is this the port of the locker server?";
/// What to do if the port speaks TLS, and the address says http://.
pub(crate) const SPEAKS_TLS: &str = "write locker_uri with https://";
/// What to do if the credentials are refused.
pub(crate) const CREDENTIALS: &str = "compare username and password with AUTH_USER and AUTH_PASS of the server; \
     look for spaces and newlines around a value from a credential manager";
/// What to do if the server asks for credentials and none were sent.
pub(crate) const NO_CREDENTIALS: &str =
    "set username and password in the source (or LOCKER_USERNAME and LOCKER_PASSWORD)";

/// What to do if the server asks for credentials, and those of the source were not sent.
pub(crate) const HELD_BACK: &str = "username and password were not sent, because with a uri of http(s) in the source \
     they are those of that Git repository: remove uri";

/// Why there is no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub what: String,
    /// What to do about it.
    pub next: Option<String>,
    /// Asking again does not help: somebody has to change something first.
    pub lasts: bool,
}

impl Trouble {
    fn passing(what: impl Into<String>, next: &str) -> Self {
        Self { what: what.into(), next: Some(next.to_owned()), lasts: false }
    }

    pub(super) fn lasting(what: impl Into<String>, next: &str) -> Self {
        Self { what: what.into(), next: Some(next.to_owned()), lasts: true }
    }

    /// A failed request. It contains nothing of the request. `setting` is the setting that takes trusted certificates;
    /// `proxy` is the address of the proxy, if there is one.
    pub(super) fn of(error: &ureq::Error, setting: &str, proxy: Option<&str>) -> Self {
        if let Some((tls, what, next)) = connect::tls_in_words(error, setting) {
            return Self { what, next: Some(next), lasts: trust::lasts(tls) };
        }
        if let ureq::Error::ConnectProxyFailed(why) = error {
            return refused_by_proxy(proxy.unwrap_or("of the settings"), why);
        }
        let what = connect::in_words(error, setting);
        if let (Some(proxy), true) = (proxy, connect::is_unconnected(error)) {
            let next = "check `proxy` in the source, or the proxy variables of the environment";
            return Self::passing(format!("the proxy {proxy} cannot be reached: {what}"), next);
        }
        match error {
            _ if connect::is_unknown_host(error) => Self::passing(what, UNKNOWN_HOST),
            ureq::Error::Timeout(ureq::Timeout::Connect) => Self::passing(what, LOST),
            ureq::Error::Timeout(_) => {
                let next = "the port accepts connections but does not answer in time: is it the locker server's, and \
                            what does that server log?";
                Self::passing(what, next)
            }
            ureq::Error::Io(io) => match io.kind() {
                ErrorKind::ConnectionRefused => Self::passing(what, REFUSED),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::passing(what, NETWORK),
                _ => Self { what, next: None, lasts: false },
            },
            ureq::Error::ConnectionFailed => Self::passing(what, NETWORK),
            ureq::Error::BadUri(_) => Self::lasting(what, "correct locker_uri"),
            _ => Self { what, next: None, lasts: false },
        }
    }

    /// As it is after a look at the plain port that gave no HTTP answer.
    pub(super) fn after_look(self, speaks: Speaks) -> Self {
        match speaks {
            Speaks::Tls => Self::lasting("the port speaks TLS, and the address says http://", SPEAKS_TLS),
            Speaks::Something => Self::lasting("the port does not speak HTTP", PORT),
            Speaks::Nothing => Self::passing(format!("{}, and the port says nothing", self.what), PORT),
            Speaks::Http => self,
        }
    }

    /// An answer that does not come from a locker server. Passing ones are those that proxies, load balancers and
    /// platforms give while the server behind them is away. 404 is one of them: some platforms answer it for an
    /// application that restarts.
    pub(super) fn of_answer(what: String, status: u16, proxy: Option<&str>) -> Self {
        let lasts = match status {
            404 | 408 | 410 | 425 | 429 => false,
            200..500 => true,
            _ => status == 501,
        };
        match proxy {
            Some(proxy) if (400..600).contains(&status) => {
                refused_by_proxy(proxy, &format!("proxy server responded {status}"))
            }
            _ => Self { what, next: Some(FOREIGN.to_owned()), lasts },
        }
    }
}

/// A proxy's own answer. `why` contains its status.
fn refused_by_proxy(proxy: &str, why: &str) -> Trouble {
    let status: Option<u16> = why.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse().ok());
    let what = |does: &str| match status {
        Some(status) => format!("the proxy {proxy} {does} (status {status})"),
        None => format!("the proxy {proxy} {does}: {}", escape(why)),
    };
    match status {
        Some(407) => Trouble::lasting(
            what("wants other credentials"),
            "write them into its address, http://USER:PASSWORD@HOST:PORT, in `proxy` of the source or in the \
             environment",
        ),
        Some(400..=403 | 405..=407 | 409..=424) => Trouble::lasting(
            what("refuses to connect to it"),
            "ask those who run the proxy to allow this host and port, or name the host in no_proxy",
        ),
        _ => Trouble::passing(what("cannot connect to it"), "check the host and port in locker_uri"),
    }
}

/// Which protocol a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Tls,
    Something,
    Nothing,
}

/// Sends a plain-HTTP request and looks at the first bytes of the answer, only to explain a failure.
///
/// # Errors
/// It cannot be connected to.
pub(crate) fn greet(host: &str, port: u16) -> io::Result<Speaks> {
    let found = (host, port).to_socket_addrs()?.next();
    let mut stream = TcpStream::connect_timeout(&found.ok_or(ErrorKind::NotFound)?, LOOK)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    // Errors do not matter here: if the peer closes at once, whatever it has sent is still read.
    let _ = write!(stream, "GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_others_last_or_pass() {
        let lasts = |status, proxy| Trouble::of_answer("it".to_owned(), status, proxy).lasts;
        for status in [200, 204, 301, 400, 401, 403, 405, 418, 501] {
            assert!(lasts(status, None), "{status}");
        }
        for status in [404, 408, 425, 429, 500, 502, 503, 504] {
            assert!(!lasts(status, None), "{status}");
        }
        for status in [403, 407] {
            assert!(lasts(status, Some("p:3128")), "{status}");
        }
        for status in [404, 502, 503, 504] {
            assert!(!lasts(status, Some("p:3128")), "{status}");
        }
    }

    #[test]
    fn a_proxy_is_named_with_its_status() {
        let told = |why: &str| refused_by_proxy("p:3128", why);
        assert_eq!(
            told("proxy server responded 403/403").what,
            "the proxy p:3128 refuses to connect to it (status 403)"
        );
        assert_eq!(
            told("proxy server responded 407/407").what,
            "the proxy p:3128 wants other credentials (status 407)"
        );
        let silent = told("proxy server did not respond");
        assert_eq!(silent.what, "the proxy p:3128 cannot connect to it: proxy server did not respond");
        assert!(!silent.lasts);
    }
}
