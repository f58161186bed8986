//! What a token says: the compact form of RFC 7515, read strictly. Nothing in it is believed here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::limits::IDTOKEN_BYTES;
use super::refusal::Refusal;
use crate::wire::members::strict;

/// A token that has the form of one.
#[derive(Clone)]
pub struct Token<'t> {
    /// The name of its algorithm, as it says.
    pub algorithm: String,
    /// The name of its key, if it says so.
    pub key: Option<String>,
    /// What is signed: header and claims, as sent.
    pub signed: &'t str,
    pub signature: Vec<u8>,
    /// What it claims.
    pub claims: Map<String, Value>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is too long, not a token in the compact form, or not signed at all.
    pub fn parse(text: &'t str) -> Result<Self, Refusal> {
        if text.len() > IDTOKEN_BYTES {
            return Err(Refusal::TooLong);
        }
        let parts = "it has not three parts with a dot between them";
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Malformed(parts))?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed(parts))?;
        let mut header = object(header, "its header is not a JSON object in base64url")?;
        // What must be understood (RFC 7515, 4.1.11) is not understood here.
        if header.contains_key("crit") {
            return Err(Refusal::Malformed("its header asks for an extension (`crit`)"));
        }
        let Some(Value::String(algorithm)) = header.remove("alg") else {
            return Err(Refusal::Malformed("its header does not name an algorithm"));
        };
        if algorithm.eq_ignore_ascii_case("none") {
            return Err(Refusal::Unsigned);
        }
        let key = match header.remove("kid") {
            None => None,
            Some(Value::String(key)) => Some(key),
            Some(_) => return Err(Refusal::Malformed("the name of its key is not a string")),
        };
        let claims = object(claims, "its claims are not a JSON object in base64url")?;
        let signature = decoded(signature).filter(|bytes| !bytes.is_empty());
        let signature = signature.ok_or(Refusal::Malformed("its signature is not base64url"))?;
        Ok(Self { algorithm, key, signed, signature, claims })
    }

    /// Who made it, as it says.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// A time of it (`exp`, `nbf`, `iat`), in seconds since 1970 UTC. `None` if it is missing or is no time.
    #[must_use]
    pub fn time(&self, claim: &str) -> Option<i64> {
        /// Seconds that a time may have at most: the year 9999.
        const LATEST: i64 = 253_402_300_799;
        let value = self.claims.get(claim)?;
        // A time may have a fraction (RFC 7519, 2), which makes no difference here.
        #[expect(clippy::cast_possible_truncation, reason = "casts of floats are saturating, and the range is checked")]
        let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64))?;
        (0..=LATEST).contains(&seconds).then_some(seconds)
    }
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(part: &str, otherwise: &'static str) -> Result<Map<String, Value>, Refusal> {
    match decoded(part).and_then(|text| strict(&text).ok()) {
        Some(Value::Object(map)) => Ok(map),
        _ => Err(Refusal::Malformed(otherwise)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str, signature: &str) -> String {
        let [header, claims, signature] = [header, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{header}.{claims}.{signature}")
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = token(r#"{"alg":"RS256","kid":"1","jku":"http://evil"}"#, r#"{"iss":"i","exp":12.7,"iat":-1}"#, "s");
        let token = Token::parse(&text).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((token.algorithm.as_str(), token.key.as_deref(), token.issuer()), ("RS256", Some("1"), Some("i")));
        assert_eq!((token.time("exp"), token.time("iat"), token.time("nbf")), (Some(12), None, None));
        assert_eq!((token.signature.as_slice(), token.signed), (&b"s"[..], text.rsplit_once('.').unwrap().0));
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        let good = r#"{"alg":"RS256"}"#;
        let long = "a".repeat(IDTOKEN_BYTES + 1);
        let table = [
            (String::new(), "malformed"),
            ("a.b".to_owned(), "malformed"),
            ("..".to_owned(), "malformed"),
            (long, "too_long"),
            (token(r#"{"alg":"none"}"#, "{}", ""), "unsigned"),
            (token(r#"{"alg":"NoNe"}"#, "{}", "x"), "unsigned"),
            (token(r"{}", "{}", "x"), "malformed"),
            (token(r#"{"alg":["RS256"]}"#, "{}", "x"), "malformed"),
            (token(r#"{"alg":"none","alg":"RS256"}"#, "{}", "x"), "malformed"),
            (token(r#"{"alg":"RS256","kid":1}"#, "{}", "x"), "malformed"),
            (token(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, "{}", "x"), "malformed"),
            (token(good, "{}", ""), "malformed"),
            (token(good, "[]", "x"), "malformed"),
            (token(good, r#"{"team":"a","team":"b"}"#, "x"), "malformed"),
            (token(good, &format!("{}1{}", "[".repeat(500), "]".repeat(500)), "x"), "malformed"),
            (format!("{}=", token(good, "{}", "x")), "malformed"),
            (token(good, "{}", "x").replace('.', ".."), "malformed"),
            (format!("{}.e30.x.y", token(good, "{}", "x")), "malformed"),
        ];
        for (text, expected) in table {
            let refusal = Token::parse(&text).err().map(|why| why.word());
            assert_eq!(refusal, Some(expected), "{text}");
        }
    }
}
