//! The address of a locker server as people write it: `locker_uri`, `LOCKER_URI`, `--uri`.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::escape::escape;
use super::secret::Secret;

/// The address of a server. Credentials are removed from the URL at once, so printing the address never reveals them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Scheme, host, port and path, without a trailing slash.
    base: String,
    credentials: Option<Credentials>,
}

/// User and password for HTTP Basic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: Secret,
}

/// Why a text is not a server address. It never quotes the text, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(&'static str);

impl UrlError {
    /// The query of an endpoint is wrong.
    #[must_use]
    pub fn in_query() -> Self {
        Self("must have a plain query, without #, spaces or control characters")
    }
}

impl ServerUrl {
    /// Parses `http://` or `https://`, optional `USER[:PASSWORD]@`, host, optional port and path.
    ///
    /// # Errors
    /// Says what is wrong, without quoting the text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim().trim_end_matches('/');
        if text.contains(',') {
            return Err(UrlError(
                "names several servers, but must name one: only locker_uri of the resource may have a list",
            ));
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError("must begin with http:// or https://"))?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(UrlError("must begin with http:// or https://"));
        }
        if rest.contains(['?', '#', '\\', '"', '<', '>']) || rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(UrlError("must be a plain address, without ?, #, spaces or quotes"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(parse_userinfo(userinfo)?), host),
            None => (None, authority),
        };
        check_host(host)?;
        Ok(Self { base: format!("{scheme}://{host}{path}"), credentials })
    }

    /// Parses one address, or a comma-separated list of addresses.
    ///
    /// # Errors
    /// As [`Self::parse`], for the first invalid address.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        text.split(',').map(Self::parse).collect()
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// The address of `path` on this server. `path` begins with a slash and is already percent-encoded.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The credentials from the URL.
    #[must_use]
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

fn parse_userinfo(userinfo: &str) -> Result<Credentials, UrlError> {
    let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(UrlError("has credentials that are not UTF-8")),
    };
    let (username, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    Ok(Credentials { username: decode(username)?, password: Secret::new(decode(password)?) })
}

fn check_host(host: &str) -> Result<(), UrlError> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if name.is_empty() || name == "[]" {
        return Err(UrlError("has no host"));
    }
    if !name.is_ascii() {
        return Err(UrlError("must name its host in ASCII (xn--...)"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Err(UrlError("has a port that is not a number up to 65535")),
        _ => Ok(()),
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("http://a:8910", "http://a:8910"),
            ("HTTPS://a.b/", "https://a.b"),
            ("http://a/locker//", "http://a/locker"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("http://[::1]", "http://[::1]"),
            (" http://u:p@a ", "http://a"),
        ];
        for (text, shown) in cases {
            assert_eq!(ServerUrl::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn credentials_are_taken_out() {
        let url = ServerUrl::parse("http://me:p%40ss%3Aw@host:1").unwrap();
        assert_eq!(url.credentials().unwrap().password.expose(), "p@ss:w");
        assert!(!format!("{url:?} {url}").contains("p@ss"));
    }

    #[test]
    fn bad_addresses_are_refused() {
        for bad in
            ["", "a:80", "ftp://a", "http://", "http://u@", "http://a?b", "http://a b", "http://a:x", "http://a,b"]
        {
            assert!(ServerUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
