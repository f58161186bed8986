//! Where a request comes from, as far as that is known for certain: data for people who ask later. No rule uses it.

use std::fmt;
use std::str::FromStr;

use super::limits;

/// What a client has proven about itself. More kinds of proof become more variants; each has a word of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The subject of a verified client certificate, in the form of RFC 4514 (`CN=ci,O=example`).
    Certificate(String),
    /// The user of HTTP Basic.
    User(String),
}

impl Identity {
    /// The word of its kind, and what was proven.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Certificate(subject) => ("certificate", subject),
            Self::User(name) => ("user", name),
        }
    }
}

/// `user:NAME`, `certificate:SUBJECT`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.parts();
        write!(f, "{kind}:{name}")
    }
}

impl FromStr for Identity {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("certificate", subject)) => Ok(Self::Certificate(subject.to_owned())),
            Some(("user", name)) => Ok(Self::User(name.to_owned())),
            _ => Err("is not an identity such as user:NAME"),
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Who proved to be behind it; nobody where the server asks for no proof.
    pub proved: Option<Identity>,
    /// The address that it came from: of the client, or of the proxy in front of the server.
    pub address: Option<String>,
    /// The id of the request, as the client and the log have it. Not stored.
    pub request: Option<String>,
}

impl Origin {
    /// With names cut to the length that is stored ([`limits::OWNER_FIELD_BYTES`]).
    #[must_use]
    pub fn new(proved: Option<&Identity>, address: &str, request: &str) -> Self {
        let proved = proved.map(|identity| match identity {
            Identity::Certificate(subject) => Identity::Certificate(short(subject)),
            Identity::User(name) => Identity::User(short(name)),
        });
        Self { proved, address: Some(short(address)), request: Some(short(request)) }
    }
}

fn short(text: &str) -> String {
    text.chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= limits::OWNER_FIELD_BYTES).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_shown() {
        for identity in [Identity::User("a:b".to_owned()), Identity::Certificate("CN=ci".to_owned())] {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
        assert!("somebody".parse::<Identity>().is_err());
        let long = Identity::User("ä".repeat(200));
        let Some(Identity::User(kept)) = Origin::new(Some(&long), "", "").proved else { panic!() };
        assert_eq!(kept, "ä".repeat(128));
    }
}
