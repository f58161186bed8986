//! `etcd:HOST:PORT[,HOST:PORT...][?PARAMETERS]`: the members of an etcd, and which part of it is the log.

use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::super::files::Credentials;
use crate::wire::server_url::ServerUrl;

/// The keys of a log whose address names no prefix begin with this.
const PREFIX: &str = "locker/";
/// The longest prefix, bytes: keys are short.
const PREFIX_BYTES: usize = 128;

/// Which etcd, and how. It contains no secret, only the names of files.
#[derive(Debug, Clone)]
pub struct Address {
    pub(super) members: Vec<ServerUrl>,
    pub(super) prefix: String,
    pub(super) user: Option<String>,
    pub(in crate::store::log) credentials: Credentials,
    /// Whether this program compacts it, because nobody else uses it.
    pub(super) compacts: bool,
}

impl Address {
    /// The same, of an etcd that this program compacts.
    #[must_use]
    pub fn compacted(self) -> Self {
        Self { compacts: true, ..self }
    }
}

impl FromStr for Address {
    type Err = String;

    /// The text of an error never quotes the address.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("etcd:").ok_or("it must begin with etcd:")?;
        let (members, query) = text.split_once('?').unwrap_or((text, ""));
        let mut credentials = Credentials::default();
        let (mut prefix, mut user, mut scheme) = (PREFIX.to_owned(), None, "https");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or("a parameter has no value: write NAME=VALUE")?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| "a parameter is not valid UTF-8")?;
            let file = || Some(PathBuf::from(&*value));
            match name {
                "prefix" => prefix = value.into_owned(),
                "user" => user = Some(value.into_owned()),
                "password_file" => credentials.password = file(),
                "cacert" => credentials.ca = file(),
                "cert" => credentials.cert = file(),
                "key" => credentials.key = file(),
                "tls" if value == "off" => scheme = "http",
                "tls" if value == "on" => scheme = "https",
                "tls" => return Err("tls must be on or off".to_owned()),
                "password" => {
                    return Err("it contains a password, which others would see in the list of processes: write \
                                password_file=FILE"
                        .to_owned());
                }
                _ => {
                    return Err(
                        "it has an unknown parameter: there are prefix, user, password_file, tls, cacert, cert \
                                and key"
                            .to_owned(),
                    );
                }
            }
        }
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES || !prefix.chars().all(is_fine) {
            return Err(format!("prefix must be 1 to {PREFIX_BYTES} of A-Z, a-z, 0-9, '.', '_', '/' and '-'"));
        }
        if user.is_some() != credentials.password.is_some() {
            return Err("a user needs a password_file, and a password_file a user".to_owned());
        }
        let member = |host: &str| {
            let is_plain = !host.is_empty() && !host.contains(['/', '@']);
            let url = is_plain.then(|| ServerUrl::parse(&format!("{scheme}://{host}")));
            url.and_then(Result::ok).ok_or("a member must be HOST:PORT")
        };
        let members = members.split(',').map(member).collect::<Result<_, _>>()?;
        Ok(Self { members, prefix, user, credentials, compacts: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address: Address =
            "etcd:a:2379,[::1]:2380?prefix=blue/&user=ci&password_file=/p&cacert=/ca".parse().unwrap();
        let members: Vec<String> = address.members.iter().map(ToString::to_string).collect();
        assert_eq!(members, ["https://a:2379", "https://[::1]:2380"]);
        assert_eq!((address.prefix.as_str(), address.user.as_deref()), ("blue/", Some("ci")));
        let plain: Address = "etcd:a:2379?tls=off".parse().unwrap();
        assert_eq!((plain.members[0].to_string().as_str(), plain.prefix.as_str()), ("http://a:2379", "locker/"));
        let cases = [
            ("etcd:", "must be HOST:PORT"),
            ("etcd:a:2379,", "must be HOST:PORT"),
            ("etcd:http://a:2379", "must be HOST:PORT"),
            ("etcd:u:hunter2@a:2379", "must be HOST:PORT"),
            ("etcd:a?password=hunter2", "password_file=FILE"),
            ("etcd:a?hunter2=1", "unknown parameter"),
            ("etcd:a?prefix=", "prefix must be"),
            ("etcd:a?prefix=%0a", "prefix must be"),
            ("etcd:a?user=x", "needs a password_file"),
            ("etcd:a?tls=maybe", "on or off"),
        ];
        for (bad, why) in cases {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
