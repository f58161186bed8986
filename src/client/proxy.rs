//! Which proxy a client uses to reach a server: the one in the settings, the one in the environment, or none.
//!
//! `no_proxy` is read as curl and Go read it. Its entries are host names, which include their subdomains, with or
//! without a leading dot or `*.`; addresses; blocks of addresses (`10.0.0.0/8`); `host:port`; and `*` for everything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ureq::http::Uri;

use crate::wire::secret::Secret;
use crate::wire::server_url::ServerUrl;

/// The example in errors about addresses that cannot be used.
const EXAMPLE: &str = "http://proxy.example.com:3128";

/// The proxy for this server: the one in the settings, else the one in the environment; `None` if `no_proxy` excludes
/// the server.
///
/// # Errors
/// The address cannot be used, or it is that of a SOCKS proxy. The text does not repeat it, because it may carry a
/// password.
pub(crate) fn proxy_for(
    server: &ServerUrl,
    named: Option<&Secret>,
    vars: &BTreeMap<String, String>,
) -> Result<Option<ureq::Proxy>, String> {
    let (name, address) = match (named, of_environment(server, vars)) {
        (Some(named), _) => ("proxy", named.expose()),
        (None, Some(found)) => found,
        (None, None) => return Ok(None),
    };
    let exceptions = var(vars, &["no_proxy", "NO_PROXY"]).map_or("", |(_, list)| list);
    if host_and_port(server).is_some_and(|(host, port)| is_excepted(exceptions, &host, port)) {
        return Ok(None);
    }
    parse(name, address).map(Some)
}

/// Whether a client of this server speaks TLS: with the server, or with its proxy.
pub(crate) fn needs_tls(server: &ServerUrl, proxy: Option<&ureq::Proxy>) -> bool {
    server.is_tls() || proxy.is_some_and(|proxy| proxy.protocol() == ureq::ProxyProtocol::Https)
}

fn parse(name: &str, address: &str) -> Result<ureq::Proxy, String> {
    let scheme = address.split_once("://").map_or("http", |(scheme, _)| scheme).to_ascii_lowercase();
    if scheme.starts_with("socks") {
        let more = if name == "proxy" { String::new() } else { ", or add the server to no_proxy".to_owned() };
        return Err(format!(
            "{name} is the address of a SOCKS proxy, which Locker does not support: use an HTTP proxy such as \
             {EXAMPLE}{more}"
        ));
    }
    let wrong = || format!("{name} must be an address such as {EXAMPLE}");
    if scheme != "http" && scheme != "https" {
        return Err(wrong());
    }
    let parsed = ureq::Proxy::new(address).map_err(|_| wrong())?;
    if parsed.host().is_empty() { Err(wrong()) } else { Ok(parsed) }
}

/// The proxy that the environment names for this server, and the name of the variable.
fn of_environment<'v>(server: &ServerUrl, vars: &'v BTreeMap<String, String>) -> Option<(&'static str, &'v str)> {
    // Upper-case HTTP_PROXY is ignored, as in curl: a web server may set it from a request header.
    let names: &[&'static str] = if server.is_tls() {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    };
    var(vars, names)
}

/// The first of these variables that is set and not empty.
fn var<'v>(vars: &'v BTreeMap<String, String>, names: &[&'static str]) -> Option<(&'static str, &'v str)> {
    names.iter().find_map(|name| Some((*name, vars.get(*name)?.trim())).filter(|(_, value)| !value.is_empty()))
}

/// The host (without the brackets of an IPv6 address) and port of a server.
pub(crate) fn host_and_port(server: &ServerUrl) -> Option<(String, u16)> {
    let uri: Uri = server.join("/").parse().ok()?;
    let host = bare(uri.host()?).to_owned();
    Some((host, uri.port_u16().unwrap_or(if server.is_tls() { 443 } else { 80 })))
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether a `no_proxy` list excludes this server.
fn is_excepted(list: &str, host: &str, port: u16) -> bool {
    let address = host.parse::<IpAddr>().ok();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((net, bits)) = entry.split_once('/') {
            let block = net.parse::<IpAddr>().ok().zip(bits.parse::<u32>().ok());
            return block.zip(address).is_some_and(|((net, bits), address)| is_in_block(address, net, bits));
        }
        let (name, only) = match entry.rsplit_once(':').map(|(name, port)| (name, port.parse::<u16>())) {
            // An IPv6 address without brackets has no port.
            Some((name, Ok(port))) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
            _ => (entry, None),
        };
        if only.is_some_and(|only| only != port) {
            return false;
        }
        if let Ok(named) = bare(name).parse::<IpAddr>() {
            return address == Some(named);
        }
        let name = name.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase();
        !name.is_empty() && host.strip_suffix(&name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Whether an address is in the block `net/bits`.
fn is_in_block(address: IpAddr, net: IpAddr, bits: u32) -> bool {
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0);
            bits <= 32 && u32::from(address) & mask == u32::from(net) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(bits)).unwrap_or(0);
            bits <= 128 && u128::from(address) & mask == u128::from(net) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_read_as_curl_and_go_read_them() {
        // List, server, whether it is excluded.
        let table = [
            ("example.com", "http://example.com", true),
            ("example.com", "http://a.example.com", true),
            ("example.com", "http://notexample.com", false),
            (".example.com", "http://a.example.com", true),
            (".example.com", "http://example.com", true),
            ("*.example.com", "http://a.b.example.com", true),
            ("EXAMPLE.com.", "https://Example.COM", true),
            ("x, example.com", "https://example.com:8910", true),
            ("x example.com", "https://example.com:8910", true),
            ("example.com:8910", "https://example.com:8910", true),
            ("example.com:8910", "https://example.com", false),
            ("example.com:443", "https://example.com", true),
            ("example.com:80", "http://example.com", true),
            ("10.0.0.0/8", "http://10.1.2.3:8910", true),
            ("10.0.0.0/8", "http://11.1.2.3:8910", false),
            ("10.1.2.3", "http://10.1.2.3:8910", true),
            ("10.1.2.3:1", "http://10.1.2.3:8910", false),
            ("0.0.0.0/0", "http://10.1.2.3", true),
            ("10.0.0.0/33", "http://10.0.0.0", false),
            ("10.0.0.0/8", "http://ten.example", false),
            ("fd00::/8", "http://[fd00::1]:8910", true),
            ("fd00::/8", "http://[fe00::1]:8910", false),
            ("::1", "http://[::1]:8910", true),
            ("[::1]:8910", "http://[::1]:8910", true),
            ("*", "http://anything", true),
            ("", "http://anything", false),
            (", .", "http://anything", false),
        ];
        for (list, server, excepted) in table {
            let (host, port) = host_and_port(&ServerUrl::parse(server).unwrap()).unwrap();
            assert_eq!(is_excepted(list, &host, port), excepted, "{list:?} {server}");
        }
    }

    #[test]
    fn the_variable_that_counts_is_named() {
        let proxy = |server: &str, vars: &[(&str, &str)]| {
            let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let found = proxy_for(&ServerUrl::parse(server).unwrap(), None, &vars);
            found.map(|found| found.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
        };
        let table = [
            ("http://a", [("http_proxy", "http://p:1"), ("all_proxy", "http://q:1")], Ok(Some("p:1"))),
            ("https://a", [("http_proxy", "http://p:1"), ("all_proxy", "q:1")], Ok(Some("q:1"))),
            ("https://a", [("HTTPS_PROXY", "http://u:pw@p:1"), ("no_proxy", "b")], Ok(Some("p:1"))),
            ("https://a", [("HTTPS_PROXY", "http://p:1"), ("no_proxy", "a")], Ok(None)),
            ("http://a", [("HTTP_PROXY", "http://p:1"), ("x", "")], Ok(None)),
            ("http://a", [("ALL_PROXY", "socks5h://p:1"), ("NO_PROXY", "a")], Ok(None)),
            ("http://a", [("ALL_PROXY", "socks5h://p:1"), ("x", "")], Err("ALL_PROXY is the address of a SOCKS proxy")),
            ("http://a", [("http_proxy", "socks://p:1"), ("x", "")], Err("add the server to no_proxy")),
            ("http://a", [("http_proxy", "ftp://p:1"), ("x", "")], Err("http_proxy must be an address such as")),
            ("http://a", [("http_proxy", "http://"), ("x", "")], Err("http_proxy must be an address such as")),
        ];
        for (server, vars, expected) in table {
            match (proxy(server, &vars), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{vars:?}"),
                (Err(why), Err(text)) => assert!(why.contains(text), "{why}"),
                (found, _) => panic!("{server} {vars:?}: {found:?}"),
            }
        }
    }
}
