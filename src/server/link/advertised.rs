//! What a leader says of itself in the head of the log, so that others reach it.

use std::fmt;
use std::str::FromStr;

use super::key::PublicKey;
use crate::env::hex;

/// How to reach a leader: `HOST:PORT ed25519:HEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// `HOST:PORT`, as the other servers reach it.
    pub address: String,
    /// The key that it must have.
    pub key: PublicKey,
}

/// The word before the key.
const KIND: &str = "ed25519:";

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {KIND}{}", self.address, hex(&self.key.0))
    }
}

/// A name that says nothing about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the leader does not say how to reach it: it was started without a link")]
pub struct NoLink;

impl FromStr for Advertised {
    type Err = NoLink;

    fn from_str(name: &str) -> Result<Self, NoLink> {
        let (address, key) = name.split_once(' ').ok_or(NoLink)?;
        let digits = key.strip_prefix(KIND).filter(|key| key.len() == 64 && key.is_ascii()).ok_or(NoLink)?;
        let mut bytes = [0; 32];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = hex_byte(&digits.as_bytes()[2 * n..2 * n + 2]).ok_or(NoLink)?;
        }
        let (host, port) = address.rsplit_once(':').ok_or(NoLink)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(NoLink);
        }
        Ok(Self { address: address.to_owned(), key: PublicKey(bytes) })
    }
}

/// A byte of two hexadecimal digits, without a sign.
fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let &[high, low] = digits else { return None };
    Some(digit(high)? * 16 + digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes_and_nothing_else() {
        let advertised = Advertised { address: "[::1]:8911".to_owned(), key: PublicKey([0xa7; 32]) };
        let written = advertised.to_string();
        assert_eq!(written, format!("[::1]:8911 ed25519:{}", "a7".repeat(32)));
        assert_eq!(written.parse(), Ok(advertised));
        let key = format!("ed25519:{}", "0".repeat(64));
        for wrong in [
            "server-1".to_owned(),
            "host:8911".to_owned(),
            format!("host {key}"),
            format!(":1 {key}"),
            format!("host:99999 {key}"),
            format!("host:1 {key}0"),
            format!("host:1 ed25519:{}", "x".repeat(64)),
            format!("host:1 ed25519:{}", "+1".repeat(32)),
        ] {
            assert_eq!(wrong.parse::<Advertised>(), Err(NoLink), "{wrong}");
        }
    }
}
