//! `postgres://USER@HOST[:PORT][,HOST...]/DATABASE?PARAMETERS`, as libpq has it, with parameters of our own.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tokio::net::lookup_host;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::super::files::Credentials;
use crate::store::log::{Cause, Trouble};

/// The schema of a log whose address names none.
const SCHEMA: &str = "locker";
/// The parameters that are looked at here, and those of libpq that are passed on.
const OWN: [&str; 6] = ["schema", "password_file", "sslmode", "sslrootcert", "sslcert", "sslkey"];
const PASSED_ON: [&str; 14] = [
    "user",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "application_name",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "channel_binding",
    "sslnegotiation",
];
/// The port of a server whose address names none.
const PORT: u16 = 5432;

/// Which database, and how. It contains no secret, only the names of files.
#[derive(Debug, Clone)]
pub struct Address {
    /// It names no server.
    config: Config,
    servers: Vec<Server>,
    schema: String,
    credentials: Credentials,
    uses_tls: bool,
}

impl Address {
    /// The schema of the log.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub(in crate::store::log) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whether its connections use TLS. They do, unless all hosts are sockets of this machine, or the address says
    /// `sslmode=disable`.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.uses_tls
    }

    /// All servers of the database, of which one is the primary, in the order in which they are named.
    pub(super) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The settings of every connection, with the password as it is now.
    pub(super) fn config(&self) -> Result<Config, String> {
        let mut config = self.config.clone();
        if let Some(password) = self.credentials.password()? {
            config.password(password.expose());
        }
        Ok(config)
    }
}

/// One server of a database.
#[derive(Debug, Clone)]
pub(super) struct Server {
    host: Host,
    /// `None` if the address is that of the host's name.
    addr: Option<IpAddr>,
    port: u16,
}

impl Server {
    /// It at each address of its name, for each may be that of another server.
    pub async fn resolved(&self) -> Result<Vec<Self>, Trouble> {
        let Self { host: Host::Tcp(name), addr: None, port } = self else { return Ok(vec![self.clone()]) };
        let unknown = |why: &str| Trouble::new(Cause::NoAnswer, format!("its name has no address: {why}"));
        let found = lookup_host((name.as_str(), *port)).await.map_err(|error| unknown(&error.to_string()))?;
        let found: Vec<_> = found.map(|found| Self { addr: Some(found.ip()), ..self.clone() }).collect();
        if found.is_empty() { Err(unknown("nothing was found")) } else { Ok(found) }
    }

    /// The settings of a connection to this one.
    pub fn config(&self, every: &Config) -> Config {
        let mut config = every.clone();
        match &self.host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(path) => config.host_path(path),
        };
        if let Some(addr) = self.addr {
            config.hostaddr(addr);
        }
        config.port(self.port);
        config
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.host, self.addr) {
            (Host::Tcp(name), Some(addr)) if *name != addr.to_string() => write!(f, "{name} ({addr})")?,
            (Host::Tcp(name), _) => f.write_str(name)?,
            (Host::Unix(path), _) => write!(f, "{}", path.display())?,
        }
        write!(f, " port {}", self.port)
    }
}

/// The servers that libpq would find in these settings.
fn servers(of: &Config) -> Result<Vec<Server>, String> {
    let (hosts, addrs, ports) = (of.get_hosts(), of.get_hostaddrs(), of.get_ports());
    if hosts.is_empty() {
        return Err("it names no host".to_owned());
    }
    if ![0, hosts.len()].contains(&addrs.len()) || ![0, 1, hosts.len()].contains(&ports.len()) {
        return Err("it does not name as many hostaddr or port as hosts".to_owned());
    }
    let port = |number| ports.get(number).or(ports.first()).copied().unwrap_or(PORT);
    let server = |(number, host): (usize, &Host)| Server {
        host: host.clone(),
        addr: addrs.get(number).copied(),
        port: port(number),
    };
    Ok(hosts.iter().enumerate().map(server).collect())
}

/// The same settings without the servers.
fn without_servers(of: &Config) -> Config {
    let mut config = Config::new();
    if let Some(user) = of.get_user() {
        config.user(user);
    }
    if let Some(dbname) = of.get_dbname() {
        config.dbname(dbname);
    }
    if let Some(timeout) = of.get_connect_timeout() {
        config.connect_timeout(*timeout);
    }
    if let Some(timeout) = of.get_tcp_user_timeout() {
        config.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = of.get_keepalives_interval() {
        config.keepalives_interval(interval);
    }
    if let Some(retries) = of.get_keepalives_retries() {
        config.keepalives_retries(retries);
    }
    config.keepalives(of.get_keepalives()).keepalives_idle(of.get_keepalives_idle());
    config.ssl_negotiation(of.get_ssl_negotiation()).channel_binding(of.get_channel_binding());
    config.application_name(of.get_application_name().unwrap_or("locker"));
    config
}

impl FromStr for Address {
    type Err = String;

    /// The text of an error never quotes the address.
    fn from_str(text: &str) -> Result<Self, String> {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut credentials = Credentials::default();
        let (mut schema, mut sslmode, mut rest) = (SCHEMA.to_owned(), None, Vec::new());
        for (number, pair) in (1..).zip(query.split('&').filter(|pair| !pair.is_empty())) {
            let (name, value) = pair.split_once('=').ok_or("a parameter has no value: write NAME=VALUE")?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| "a parameter is not valid UTF-8")?;
            let file = || Some(PathBuf::from(&*value));
            match name {
                "schema" => schema = value.into_owned(),
                "password_file" => credentials.password = file(),
                "sslrootcert" => credentials.ca = file(),
                "sslcert" => credentials.cert = file(),
                "sslkey" => credentials.key = file(),
                "sslmode" => sslmode = Some(value.into_owned()),
                "password" => return Err(in_a_file()),
                // The statements of a log are autocommitted, and its settings are those of the database. Its servers are
                // tried in their order until one is the primary.
                "options" | "target_session_attrs" | "load_balance_hosts" => {
                    return Err(format!("{name} cannot be given: leave it out"));
                }
                name if PASSED_ON.contains(&name) => rest.push(pair),
                // It is not quoted, for it may be a part of a password.
                _ => return Err(unknown(number)),
            }
        }
        check_schema(&schema)?;
        let all = Config::from_str(&format!("{base}?{}", rest.join("&")))
            .map_err(|_| "it is not a URL of libpq's form: write postgres://USER@HOST:PORT/DATABASE?NAME=VALUE")?;
        if all.get_password().is_some() {
            return Err(in_a_file());
        }
        let servers = servers(&all)?;
        let local = servers.iter().all(|server| matches!((&server.host, server.addr), (Host::Unix(_), None)));
        let uses_tls = match sslmode.as_deref() {
            Some("disable") => false,
            Some("require" | "verify-full") => true,
            None => !local,
            Some(_) => {
                return Err(
                    "sslmode must be disable or verify-full: a certificate is always checked, with its name".into()
                );
            }
        };
        let mut config = without_servers(&all);
        config.ssl_mode(if uses_tls { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, servers, schema, credentials, uses_tls })
    }
}

fn unknown(number: usize) -> String {
    let (own, passed_on) = (OWN.join(", "), PASSED_ON.join(", "));
    format!("parameter {number} after the ? is not known; there are {own}, and of libpq's {passed_on}")
}

fn in_a_file() -> String {
    "it contains a password, which others would see in the list of processes: write password_file=FILE".to_owned()
}

/// The name stands in statements.
fn check_schema(name: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.len() > 63 || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_fine) {
        return Err("schema must be 1 to 63 of a-z, 0-9 and _, and begin with a letter".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let of = |text: &str| text.parse::<Address>();
        let plain =
            of("postgres://ci@db:5433,db2/atc?schema=locker_blue&password_file=/run/pw&sslrootcert=%2Fca").unwrap();
        assert_eq!(
            (plain.schema(), plain.uses_tls(), plain.config.get_user(), plain.config.get_dbname()),
            ("locker_blue", true, Some("ci"), Some("atc"))
        );
        let shown = |address: &Address| address.servers().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(&plain), ["db port 5433", "db2 port 5432"]);
        assert_eq!(plain.credentials.ca.as_deref(), Some("/ca".as_ref()));
        let tls = [
            ("postgres://db/x", true),
            ("postgres://127.0.0.1/x", true),
            ("postgres://db/x?sslmode=disable", false),
            ("postgres:///x?host=/run/postgresql", false),
            ("postgresql://db/x?sslmode=verify-full", true),
            ("postgres:///x?host=/run/postgresql&hostaddr=127.0.0.1", true),
        ];
        for (text, uses_tls) in tls {
            let address = of(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((address.uses_tls(), address.schema()), (uses_tls, "locker"), "{text}");
        }
        let named = of("postgres://db:5433,10.0.0.2:5433/x?hostaddr=10.0.0.1,10.0.0.2").unwrap();
        assert_eq!(shown(&named), ["db (10.0.0.1) port 5433", "10.0.0.2 port 5433"]);
    }

    /// A setting that is not copied would be lost without a word.
    #[test]
    fn all_settings_are_kept() {
        let text = "postgres://ci@db:5433/atc?connect_timeout=1&tcp_user_timeout=2&keepalives=0&keepalives_idle=3\
            &keepalives_interval=4&keepalives_retries=5&channel_binding=require&application_name=a\
            &sslnegotiation=direct&sslmode=verify-full";
        let address: Address = text.parse().unwrap();
        let [server] = address.servers() else { panic!("{address:?}") };
        let expected: Config = text.replace("verify-full", "require").parse().unwrap();
        assert_eq!(server.config(&address.config().unwrap()), expected);
    }

    #[test]
    fn bad_addresses_are_refused_and_not_quoted() {
        let cases = [
            ("postgres://u:hunter2@db/x", "password_file=FILE"),
            ("postgres://u@db/x?password=hunter2", "password_file=FILE"),
            ("postgres://db/x?sslmode=prefer", "verify-full"),
            ("postgres://db/x?schema=A", "schema must be"),
            ("postgres://db/x?schema=a\"b", "schema must be"),
            ("postgres://db/x?options=-c%20synchronous_commit=off", "options cannot be given"),
            ("postgres://db/x?target_session_attrs=any", "leave it out"),
            ("postgres:///x", "names no host"),
            ("postgres:///x?hostaddr=10.0.0.1", "names no host"),
            ("postgres://db,db2/x?hostaddr=10.0.0.1", "as many"),
            ("postgres://db/x?hunter2", "has no value"),
            ("postgres://db/x?sslmode=disable&hunter2=1", "parameter 2 after the ? is not known; there are schema,"),
            ("postgres://db:port/x", "not a URL"),
        ];
        for (bad, why) in cases {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
