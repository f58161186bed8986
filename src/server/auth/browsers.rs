//! Rules for browsers: pages of other sites must not use this server through a browser.
//!
//! A browser sends the requests of any page, with whatever access its machine has. Two headers reveal such requests:
//! `Origin` and `Sec-Fetch-Site`. Requests without them (curl, scripts, the clients of the replaced systems) are served
//! as usual.

use super::super::http::Request;
use crate::wire::problems::quoted;

/// The rules for requests that a browser sends.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    /// More names of this server, such as that of a proxy in front of it. In lower case, without a port.
    pub allowed_hosts: Vec<String>,
    /// Serve requests for loopback names and allowed ones only. For a server without authentication on a loopback
    /// address: there, a page whose name has been pointed at that address (DNS rebinding) looks like one of ours.
    pub loopback_only: bool,
}

impl Browsers {
    /// Whether a request may be served.
    ///
    /// # Errors
    /// The request may not be served. Contains the text for the client.
    pub fn check(&self, request: &Request) -> Result<(), String> {
        let host = request.header("host").unwrap_or_default();
        if self.loopback_only && !host.is_empty() && !self.is_allowed(name(host)) && !is_loopback(name(host)) {
            return Err(format!(
                "this server has no authentication, so it serves loopback names only, not {}: if that is its own name, \
                 start it with --allowed-host",
                quoted(host)
            ));
        }
        let (origin, site) = (request.header("origin"), request.header("sec-fetch-site"));
        if origin.is_none() && site.is_none() {
            return Ok(());
        }
        let (mode, reads) = (request.header("sec-fetch-mode"), matches!(request.method.as_str(), "GET" | "HEAD"));
        if origin.is_none() && mode == Some("navigate") && reads {
            // Somebody has followed a link to a page of ours. The page that has the link cannot read the answer.
            return Ok(());
        }
        let own = origin.is_none_or(|origin| self.is_own(origin, host));
        if !own || (origin.is_none() && site == Some("cross-site")) {
            return Err(format!(
                "a page of another site ({}) may not use this server: if that is a name of this server, start it with \
                 --allowed-host",
                quoted(origin.unwrap_or("cross-site"))
            ));
        }
        let reads = matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        let kind = request.header("content-type").unwrap_or_default();
        let is_json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        if !reads && !is_json {
            return Err("a browser may change something only with content-type: application/json".to_owned());
        }
        Ok(())
    }

    /// Whether `origin` is this server: the name to which the request was sent, or an allowed name.
    fn is_own(&self, origin: &str, host: &str) -> bool {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        (!host.is_empty() && authority.eq_ignore_ascii_case(host)) || self.is_allowed(name(authority))
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// The name in `NAME:PORT` or `[ADDRESS]:PORT`.
fn name(authority: &str) -> &str {
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    authority.split_once(':').map_or(authority, |(name, _)| name)
}

fn is_loopback(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    fn checked(browsers: &Browsers, method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = request(method, "/lock/prod", None, None);
        request.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        browsers.check(&request).is_ok()
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_everybody_else_is_served() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "locker.example:8910");
        let table: &[(&str, &[(&str, &str)], bool)] = &[
            ("POST", &[host], true),
            ("POST", &[host, ("content-type", "application/x-www-form-urlencoded")], true),
            ("GET", &[host, ("origin", "https://evil.example")], false),
            ("POST", &[host, json, ("origin", "https://evil.example")], false),
            ("POST", &[host, json, ("origin", "null")], false),
            ("POST", &[host, json, ("origin", "http://locker.example")], false),
            ("POST", &[host, json, ("origin", "http://locker.example:8910")], true),
            ("POST", &[host, json, ("origin", "https://LOCKER.example:8910")], true),
            ("POST", &[host, ("origin", "http://locker.example:8910")], false),
            ("POST", &[host, ("content-type", "text/plain"), ("origin", "http://locker.example:8910")], false),
            ("GET", &[host, ("origin", "http://locker.example:8910")], true),
            ("GET", &[host, ("sec-fetch-site", "cross-site")], false),
            ("GET", &[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], true),
            ("GET", &[host, ("origin", "https://evil.example"), ("sec-fetch-mode", "navigate")], false),
            ("POST", &[host, json, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], false),
            ("GET", &[host, ("sec-fetch-site", "none")], true),
            ("DELETE", &[host, ("sec-fetch-site", "same-origin")], false),
            ("DELETE", &[host, json, ("sec-fetch-site", "same-origin")], true),
            ("POST", &[host, json, ("origin", "https://ci.example"), ("sec-fetch-site", "same-site")], true),
        ];
        let browsers = Browsers { allowed_hosts: vec!["ci.example".into()], ..Browsers::default() };
        for (method, headers, expected) in table {
            assert_eq!(checked(&browsers, method, headers), *expected, "{method} {headers:?}");
        }
    }

    #[test]
    fn an_unguarded_loopback_server_has_loopback_names() {
        let browsers = Browsers { allowed_hosts: vec!["ci.example".into()], loopback_only: true };
        let table = [
            ("127.0.0.1:8910", true),
            ("127.1.2.3", true),
            ("localhost:8910", true),
            ("LOCALHOST.", true),
            ("[::1]:8910", true),
            ("[::ffff:127.0.0.1]", true),
            ("ci.example", true),
            ("evil.example:8910", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("[::2]", false),
        ];
        for (host, expected) in table {
            assert_eq!(checked(&browsers, "PUT", &[("host", host)]), expected, "{host}");
        }
        assert!(checked(&browsers, "PUT", &[]), "HTTP/1.0 needs no Host, and no browser speaks it");
    }
}
