//! `postgres://USER@HOST[:PORT][,HOST...]/DATABASE?PARAMETERS`, as libpq has it, with parameters of our own.

use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::super::files::Credentials;

/// The schema of a log whose address names none.
const SCHEMA: &str = "locker";

/// Which database, and how. It contains no secret, only the names of files.
#[derive(Debug, Clone)]
pub struct Address {
    config: Config,
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

    /// The settings of a connection, with the password as it is now.
    pub(super) fn config(&self) -> Result<Config, String> {
        let mut config = self.config.clone();
        if let Some(password) = self.credentials.password()? {
            config.password(password.expose());
        }
        Ok(config)
    }
}

impl FromStr for Address {
    type Err = String;

    /// The text of an error never quotes the address.
    fn from_str(text: &str) -> Result<Self, String> {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut credentials = Credentials::default();
        let (mut schema, mut sslmode, mut rest) = (SCHEMA.to_owned(), None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
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
                // The statements of a log are autocommitted, and its settings are those of the database.
                "options" | "target_session_attrs" => return Err(format!("{name} cannot be given")),
                _ => rest.push(pair),
            }
        }
        check_schema(&schema)?;
        let mut config = Config::from_str(&format!("{base}?{}", rest.join("&")))
            .map_err(|_| "it is not a URL of libpq's form: write postgres://USER@HOST:PORT/DATABASE?NAME=VALUE")?;
        if config.get_password().is_some() {
            return Err(in_a_file());
        }
        let local = config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
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
        config.ssl_mode(if uses_tls { SslMode::Require } else { SslMode::Disable });
        config.target_session_attrs(TargetSessionAttrs::Any);
        if config.get_application_name().is_none() {
            config.application_name("locker");
        }
        Ok(Self { config, schema, credentials, uses_tls })
    }
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
        assert_eq!(plain.config.get_hosts().len(), 2);
        assert_eq!(plain.credentials.ca.as_deref(), Some("/ca".as_ref()));
        let tls = [
            ("postgres://db/x", true),
            ("postgres://127.0.0.1/x", true),
            ("postgres://db/x?sslmode=disable", false),
            ("postgres:///x?host=/run/postgresql", false),
            ("postgresql://db/x?sslmode=verify-full", true),
        ];
        for (text, uses_tls) in tls {
            let address = of(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((address.uses_tls(), address.schema()), (uses_tls, "locker"), "{text}");
        }
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
            ("postgres://db/x?hunter2", "has no value"),
            ("postgres://db/x?hunter2=1", "not a URL"),
            ("postgres://db:port/x", "not a URL"),
        ];
        for (bad, why) in cases {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
