//! The external URL of a Concourse, in one normal spelling.

use std::fmt;

use crate::wire::server_url::{ServerUrl, UrlError};

/// An external URL (`ATC_EXTERNAL_URL`) in the form in which URLs are compared: scheme and host in lower case, without
/// a default port or slashes at the end. It is displayed in that form and contains no credentials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterUrl(String);

impl ClusterUrl {
    /// Parses `http://` or `https://`, a host, and an optional port and path.
    ///
    /// # Errors
    /// Says what is wrong, without repeating the text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Ok(Self::of(&ServerUrl::parse(text)?))
    }

    /// The external URL of a server address, without the credentials.
    #[must_use]
    pub fn of(url: &ServerUrl) -> Self {
        let text = url.join("");
        // A `ServerUrl` has a scheme in lower case, and a host.
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", &text));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let default = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.to_ascii_lowercase();
        let host = host.strip_suffix(default).unwrap_or(&host);
        Self(format!("{scheme}://{host}{path}"))
    }
}

impl fmt::Display for ClusterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::wire::escape::escape(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        let same = [
            ("https://ci.example.com", "https://ci.example.com"),
            ("https://ci.example.com/", "https://ci.example.com"),
            ("HTTPS://CI.Example.com:443//", "https://ci.example.com"),
            ("http://ci:80", "http://ci"),
            ("http://[::1]:80/", "http://[::1]"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://tools.example.com/CI/", "https://tools.example.com/CI"),
        ];
        for (text, expected) in same {
            assert_eq!(ClusterUrl::parse(text).unwrap().to_string(), expected, "{text}");
        }
        for (one, other) in
            [("http://ci", "https://ci"), ("https://ci:80", "https://ci"), ("https://a/x", "https://a/X")]
        {
            assert_ne!(ClusterUrl::parse(one).unwrap(), ClusterUrl::parse(other).unwrap());
        }
        assert!(ClusterUrl::parse("ci.example.com").is_err());
    }
}
