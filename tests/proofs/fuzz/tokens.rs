//! What must hold for every id token and every set of keys. The claims are signed here, so that what reads them is reached.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use locker::server::auth::idtoken::jwk::KeySet;
use locker::server::auth::idtoken::jws::Token;
use locker::server::auth::idtoken::settings::{self, IssuerSettings};
use locker::server::auth::idtoken::verify::verify;
use locker::server::auth::idtoken::{Proved, Refusal};
use locker::wire::problems::Problems;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

/// The wall clock, in seconds since 1970 UTC. The seeds are of that time.
const NOW: i64 = 1_800_000_000;

struct World {
    issuers: Vec<IssuerSettings>,
    key: Ed25519KeyPair,
    keys: KeySet,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let list = json!([
        {"name": "ci", "kind": "concourse", "issuer": "https://ci", "audience": "locker", "algorithms": "EdDSA"},
        {"name": "gh", "kind": "github-actions", "audience": "locker", "algorithms": "EdDSA",
         "require": {"repository_owner": ["acme"]}},
    ]);
    let mut problems = Problems::default();
    let issuers = settings::read("issuers", list, &mut problems);
    assert!(problems.is_empty());
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": URL_SAFE_NO_PAD.encode(key.public_key())});
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).expect("a set of keys");
    World { issuers, key, keys }
});

/// The first line of the input is the header of a token, the rest are its claims; all of it is also read as a token, as a
/// set of keys and as settings.
pub fn tokens(input: &[u8]) {
    if let Err(error) = KeySet::parse(input) {
        assert!(error.len() < 200 && !error.chars().any(char::is_control), "{error:?}");
    }
    if let Ok(value) = serde_json::from_slice(input) {
        let mut problems = Problems::default();
        let found = settings::read("issuers", value, &mut problems);
        assert!(
            found.iter().all(|one| !one.audiences.is_empty() && !one.algorithms.is_empty()) || !problems.is_empty()
        );
    }
    if let Ok(text) = std::str::from_utf8(input) {
        judge(text, |_| panic!("nobody has signed this"));
    }
    let (header, claims) = input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(WORLD.key.sign(signed.as_bytes()));
    judge(&format!("{signed}.{signature}"), |proved| {
        let names = [Some(&proved.team), proved.pipeline.as_ref(), proved.job.as_ref()];
        assert!(names.iter().flatten().all(|name| !name.as_str().chars().any(char::is_control)));
        let mut owner = locker::core::claim::Owner::default();
        proved.complete(&mut owner);
        assert_eq!(proved.contradicts(&owner), None, "what is proved is true");
    });
}

fn judge(text: &str, check: impl Fn(Proved)) {
    let is_harmless = |refusal: &Refusal| {
        let said = refusal.to_string();
        assert!(said.len() < 8_192 && !said.chars().any(char::is_control), "{said:?}");
    };
    let token = match Token::parse(text) {
        Ok(token) => token,
        Err(refusal) => return is_harmless(&refusal),
    };
    for issuer in &WORLD.issuers {
        match verify(&token, issuer, &WORLD.keys, NOW) {
            Ok(proved) => check(proved),
            Err(refusal) => is_harmless(&refusal),
        }
    }
}
