//! Keys over real sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use locker::server::auth::idtoken::issuers::Patience;
use locker::server::auth::idtoken::{Issuers, Refusal};
use serde_json::{Value, json};

use super::{NOW, claims, clock_ahead, concourse, issuers, with};
use crate::support::certs::Files;
use crate::support::eventually;
use crate::support::issuer::{Fault, Issuer, Key};

/// The pace of a fetch with short times, instead of minutes.
fn short() -> Patience {
    let mut patience = Patience::default();
    patience.pace.pause = Duration::from_millis(100);
    patience.pace.failing = (Duration::from_millis(50), Duration::from_millis(100));
    patience
}

fn open(list: Value, before: &Issuers, patience: Patience) -> Result<Issuers, String> {
    Issuers::open(&issuers(list), Path::new("/"), before, &BTreeMap::new(), &clock_ahead(0), patience)
}

/// The one issuer, as a server knows it.
fn knowing(issuer: &Issuer, patience: Patience) -> Issuers {
    open(json!([concourse(&issuer.url)]), &Issuers::default(), patience).unwrap()
}

fn word(issuers: &Issuers, token: &str) -> &'static str {
    issuers.check(token).map_or_else(|refusal| refusal.word(), |_| "proved")
}

/// Waits until the answer to a token is this.
#[track_caller]
fn until(issuers: &Issuers, token: &str, expected: &str) {
    eventually(expected, || word(issuers, token) == expected);
}

#[test]
fn keys_are_fetched_once_and_used_often() {
    let (key, curve) = (Key::rsa("1", 0), Key::p256("2"));
    let issuer = Issuer::start(&[&key, &curve]);
    let known = knowing(&issuer, Patience::default());
    for token in [key.token(&claims(&issuer.url)), curve.token(&claims(&issuer.url))] {
        until(&known, &token, "proved");
        assert!((0..100).all(|_| word(&known, &token) == "proved"));
    }
    assert_eq!((issuer.asked("/.well-known/openid-configuration"), issuer.asked("/keys")), (1, 1));
    // Nothing about this server or its clients goes to an issuer.
    assert!(issuer.requests().iter().all(|request| !request.to_lowercase().contains("authorization")));
}

#[test]
fn a_rotated_key_is_found_at_once_and_an_old_one_is_dropped() {
    let (old, new) = (Key::p256("1"), Key::p256("2"));
    let issuer = Issuer::start(&[&old]);
    let known = knowing(&issuer, short());
    let (before, after) = (old.token(&claims(&issuer.url)), new.token(&claims(&issuer.url)));
    until(&known, &before, "proved");
    issuer.publishes(&[&new]);
    let refusal = known.check(&after).unwrap_err();
    assert!(refusal.retry_after().is_some_and(|after| after <= Duration::from_secs(2)), "{refusal}");
    until(&known, &after, "proved");
    assert_ne!(word(&known, &before), "proved", "it was found true by keys that are gone");
    // Made before the last fetch: the key cannot be a newer one.
    let earlier = with(claims(&issuer.url), "iat", json!(NOW - 3_600));
    assert_eq!(word(&known, &old.token(&earlier)), "unknown_key");
}

/// Tokens are free to make up. However many there are, the issuer gets at most one question for each pause.
#[test]
fn ten_thousand_unknown_keys_cost_an_issuer_two_questions() {
    let key = Key::p256("1");
    let issuer = Issuer::start(&[&key]);
    let mut patience = Patience::default();
    patience.pace.pause = Duration::from_millis(1);
    patience.timeout = Duration::from_secs(600);
    let known = knowing(&issuer, patience);
    let good = key.token(&claims(&issuer.url));
    until(&known, &good, "proved");
    // The second question does not end while the tokens come.
    issuer.fails(Fault::Silent);
    let forged = |n: u32| key.token_with(&json!({"alg": "ES256", "kid": n.to_string()}), &claims(&issuer.url));
    // Signing is slow, and nobody looks at these signatures: one signature for all.
    let signature = forged(0).rsplit_once('.').unwrap().1.to_owned();
    let body = crate::support::issuer::encoded(claims(&issuer.url).to_string());
    for n in 2..10_002 {
        let header = crate::support::issuer::encoded(json!({"alg": "ES256", "kid": n.to_string()}).to_string());
        assert_eq!(word(&known, &format!("{header}.{body}.{signature}")), "key_not_yet_known");
    }
    assert_eq!(word(&known, &good), "proved", "nobody else waits for them");
    eventually("the second question", || issuer.asked("/.well-known/openid-configuration") == 2);
    assert_eq!(issuer.asked("/keys"), 1);
}

#[test]
fn an_issuer_that_is_away_at_the_start_is_asked_again() {
    let key = Key::p256("1");
    let issuer = Issuer::start(&[&key]);
    issuer.fails(Fault::Refuses);
    let known = knowing(&issuer, short());
    let token = key.token(&claims(&issuer.url));
    let refusal = eventually("a reason", || match known.check(&token) {
        Err(Refusal::NoKeys { why, retry_after, .. }) if why.starts_with("no answer") => Some((why, retry_after)),
        Err(Refusal::NoKeys { .. }) => None,
        other => panic!("{other:?}"),
    });
    assert!(refusal.1 >= Duration::from_secs(1), "{refusal:?}");
    issuer.well();
    until(&known, &token, "proved");
}

#[test]
fn keys_are_kept_while_their_issuer_is_away() {
    let (key, new) = (Key::p256("1"), Key::p256("2"));
    let issuer = Issuer::start(&[&key]);
    let mut patience = short();
    patience.pace.refresh = Duration::from_millis(20);
    let known = knowing(&issuer, patience);
    let token = key.token(&claims(&issuer.url));
    until(&known, &token, "proved");
    for fault in [
        Fault::Says(500),
        Fault::Says(404),
        Fault::KeysAre("nonsense".to_owned()),
        Fault::KeysAre(r#"{"keys": []}"#.to_owned()),
        Fault::IsCalled("https://other".to_owned()),
    ] {
        issuer.fails(fault.clone());
        let before = issuer.requests().len();
        eventually("it is asked", || issuer.requests().len() > before + 2);
        assert_eq!(word(&known, &token), "proved", "{fault:?}");
    }
    issuer.publishes(&[&new]);
    issuer.well();
    until(&known, &new.token(&claims(&issuer.url)), "proved");
    assert_eq!(word(&known, &token), "key_not_yet_known", "a withdrawn key is not kept");
}

/// Each way in which an issuer fails has its own reason, and none of them takes long or much memory.
#[test]
fn a_hostile_or_broken_issuer_is_named() {
    let (key, elsewhere) = (Key::p256("1"), Issuer::start(&[]));
    let many = json!({"keys": (0..65).map(|_| key.jwk()).collect::<Vec<_>>()}).to_string();
    let table = [
        (Fault::Endless, "is longer than 262144 bytes"),
        (Fault::Trickles, "timed out"),
        (Fault::Silent, "timed out"),
        (Fault::Says(503), "answers with 503"),
        (Fault::Says(302), "answers with 302, and redirects are not followed: name the final address"),
        (
            Fault::IsCalled("https://evil\u{1b}".to_owned()),
            r#"is of the issuer "https://evil\u{1b}": write exactly that"#,
        ),
        (Fault::KeysAre(many), "it has 65 keys, and at most 64 are read"),
        (Fault::KeysAre("{}".to_owned()), "it is not a JWK set"),
        (Fault::KeysAt("ftp://x".to_owned()), "`jwks_uri` must begin with http:// or https://"),
        (Fault::KeysAt("http://x/?a=b".to_owned()), "`jwks_uri` must be a plain address"),
        (Fault::KeysAt(format!("{}/elsewhere", elsewhere.url)), "it has no key that checks signatures"),
    ];
    for (fault, expected) in table {
        let issuer = Issuer::start(&[&key]);
        issuer.fails(fault.clone());
        let known = knowing(&issuer, Patience { timeout: Duration::from_millis(300), ..short() });
        let token = key.token(&claims(&issuer.url));
        let why = eventually("a reason", || match known.check(&token) {
            Err(Refusal::NoKeys { why, .. }) if why != "they are being fetched" => Some(why),
            _ => None,
        });
        assert!(why.contains(expected), "{fault:?}: {why}");
        assert!(!why.chars().any(char::is_control), "{why:?}");
    }
}

#[test]
fn keys_of_a_file_need_no_network() {
    let (key, other) = (Key::p256("1"), Key::p256("2"));
    let files = Files::new();
    let path = files.write("keys.json", &json!({"keys": [key.jwk()]}).to_string());
    let url = "https://unreachable.invalid";
    let list = || json!([with(concourse(url), "jwks", json!(path))]);
    let known = open(list(), &Issuers::default(), Patience::default()).unwrap();
    assert_eq!(word(&known, &key.token(&claims(url))), "proved");
    assert_eq!(word(&known, &other.token(&claims(url))), "unknown_key");
    // The file is read with the access file.
    files.write("keys.json", &json!({"keys": [other.jwk()]}).to_string());
    let known = open(list(), &known, Patience::default()).unwrap();
    assert_eq!(word(&known, &other.token(&claims(url))), "proved");
    assert_eq!(word(&known, &key.token(&claims(url))), "unknown_key");
    files.write("keys.json", "{}");
    let error = open(list(), &known, Patience::default()).err().unwrap();
    assert!(error.starts_with("issuer ci: ") && error.contains("keys.json: it is not a JWK set"), "{error}");
}

#[test]
fn a_reload_of_the_settings_loses_no_keys() {
    let key = Key::p256("1");
    let issuer = Issuer::start(&[&key]);
    let known = knowing(&issuer, short());
    let token = key.token(&with(claims(&issuer.url), "aud", json!("deploys")));
    until(&known, &token, "audience");
    issuer.fails(Fault::Refuses);
    let changed = with(concourse(&issuer.url), "audience", json!(["locker", "deploys"]));
    let known = open(json!([changed]), &known, short()).unwrap();
    assert_eq!(word(&known, &token), "proved");
}

#[test]
fn each_issuer_signs_for_itself_only() {
    let (key, other) = (Key::p256("1"), Key::p256("1"));
    let (one, two) = (Issuer::start(&[&key]), Issuer::start(&[&other]));
    let second = with(concourse(&two.url), "name", json!("other"));
    let known = open(json!([concourse(&one.url), second]), &Issuers::default(), short()).unwrap();
    until(&known, &key.token(&claims(&one.url)), "proved");
    until(&known, &other.token(&claims(&two.url)), "proved");
    assert_eq!(word(&known, &other.token(&claims(&one.url))), "signature");
    assert_eq!(word(&known, &other.token(&claims("https://third"))), "other_issuer");
    let found = known.check(&other.token(&claims(&two.url))).unwrap();
    let first = known.check(&key.token(&claims(&one.url))).unwrap();
    assert!(first.is_of_pipeline_of(&first) && !first.is_of_pipeline_of(&found), "equal names of two issuers");
}
