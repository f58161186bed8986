//! The keys of an issuer: a JWK set (RFC 7517) and the signatures that they check.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

use super::limits::IDTOKEN_KEYS;
use crate::wire::problems::unknown;

/// An algorithm that proves who signed. Those with a shared secret do not, so they do not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSA of 2,048 to 8,192 bits, PKCS#1 v1.5, SHA-256.
    Rs256,
    /// ECDSA with the curve P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// Its name in a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| unknown("algorithm", text, &names))
    }
}

/// A public key. Its kind says which algorithm it is for, so a token cannot choose another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    /// Its name in the set.
    id: Option<String>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point in the uncompressed form.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Kind {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}

/// What a look for a key finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// The key has made the signature.
    Signed,
    /// The key has not.
    NotSigned,
    /// There is no such key.
    NoSuchKey,
    /// No key is named, and so many fit.
    Unclear(usize),
}

/// The keys of one issuer that are for signatures, of kinds that are known here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

/// A key as it is published. Members that are not named here say nothing that matters.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a set of keys. Keys for other purposes or of other kinds are passed over, as RFC 7517 asks.
    ///
    /// # Errors
    /// It is not a JWK set, has too many keys, or none that could check a signature.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set: Jwks = serde_json::from_slice(text).map_err(|_| "it is not a JWK set (an object with `keys`)")?;
        if set.keys.len() > IDTOKEN_KEYS {
            return Err(format!("it has {} keys, and at most {IDTOKEN_KEYS} are read", set.keys.len()));
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(read).collect();
        if keys.is_empty() {
            let names = Algorithm::ALL.map(Algorithm::name).join(", ");
            return Err(format!("it has no key that checks signatures of {names}"));
        }
        Ok(Self(keys))
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether the key of this name, for this algorithm, has signed the message. Without a name, the one key for the
    /// algorithm is meant.
    #[must_use]
    pub fn check(&self, id: Option<&str>, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Checked {
        let is_meant = |key: &&Key| key.kind.algorithm() == algorithm && (id.is_none() || key.id.as_deref() == id);
        let meant: Vec<&Key> = self.0.iter().filter(is_meant).collect();
        match (&meant[..], id) {
            ([], _) => Checked::NoSuchKey,
            ([_, _, ..], None) => Checked::Unclear(meant.len()),
            // Two keys of one name would be a fault of the issuer; each of them is its key.
            (some, _) if some.iter().any(|key| key.kind.has_signed(message, signature)) => Checked::Signed,
            _ => Checked::NotSigned,
        }
    }
}

/// The key, if it is for signatures and of a kind that is known here.
fn read(value: Value) -> Option<Key> {
    let key: Jwk = serde_json::from_value(value).ok()?;
    let is_for_signatures = key.usage.as_deref().is_none_or(|usage| usage == "sig")
        && key.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    let bytes = |text: &Option<String>| text.as_ref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let exactly = |text: &Option<String>, length: usize| bytes(text).filter(|bytes| bytes.len() == length);
    let kind = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => {
            let number = |text| bytes(text).map(|bytes| bytes.into_iter().skip_while(|byte| *byte == 0).collect());
            let (n, e): (Vec<u8>, Vec<u8>) = (number(&key.n)?, number(&key.e)?);
            // 2,048 to 8,192 bits: what is shorter can be broken, what is longer takes too long.
            if !(256..=1_024).contains(&n.len()) || !(1..=4).contains(&e.len()) {
                return None;
            }
            Kind::Rsa { n, e }
        }
        ("EC", Some("P-256")) => Kind::P256([vec![4], exactly(&key.x, 32)?, exactly(&key.y, 32)?].concat()),
        ("OKP", Some("Ed25519")) => Kind::Ed25519(exactly(&key.x, 32)?),
        _ => return None,
    };
    let fits = key.alg.as_deref().is_none_or(|alg| alg == kind.algorithm().name());
    (is_for_signatures && fits).then_some(Key { id: key.kid, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_kinds_and_purposes_are_passed_over() {
        let point = URL_SAFE_NO_PAD.encode([1; 32]);
        let modulus = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xc1; bytes]);
        let table = [
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{point}","y":"{point}"}}"#), 1),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{point}","y":"{point}","use":"enc"}}"#), 0),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{point}","y":"{point}","key_ops":["sign"]}}"#), 0),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{point}","y":"{point}","alg":"RS256"}}"#), 0),
            (format!(r#"{{"kty":"EC","crv":"P-384","x":"{point}","y":"{point}"}}"#), 0),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{point}"}}"#), 0),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{point}"}}"#), 1),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, modulus(256)), 1),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB","alg":"RS512"}}"#, modulus(256)), 0),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, modulus(128)), 0),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, modulus(2_000)), 0),
            (r#"{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}"#.to_owned(), 0),
            (r#"{"kty":"oct","k":"c2VjcmV0","alg":"RS256"}"#.to_owned(), 0),
            ("7".to_owned(), 0),
        ];
        for (key, expected) in table {
            let found = KeySet::parse(format!(r#"{{"keys":[{key}]}}"#).as_bytes());
            assert_eq!(found.map_or(0, |set| set.count()), expected, "{key}");
        }
    }

    #[test]
    fn what_is_not_a_set_of_keys_is_refused() {
        let many = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; IDTOKEN_KEYS + 1].join(","));
        for (text, expected) in [
            ("", "it is not a JWK set"),
            ("[]", "it is not a JWK set"),
            (r#"{"keys":{}}"#, "it is not a JWK set"),
            (r#"{"keys":[]}"#, "it has no key that checks signatures of RS256, ES256, EdDSA"),
            (many.as_str(), "it has 65 keys, and at most 64 are read"),
        ] {
            let error = KeySet::parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
