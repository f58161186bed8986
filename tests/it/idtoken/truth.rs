//! What a token proves, and every way in which it can be wrong. No sockets: the keys are given.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use locker::core::claim::Owner;
use locker::core::names::{InstanceVars, Text};
use locker::server::auth::idtoken::jwk::KeySet;
use locker::server::auth::idtoken::jws::Token;
use locker::server::auth::idtoken::settings::IssuerSettings;
use locker::server::auth::idtoken::verify::verify;
use locker::server::auth::idtoken::{Proved, Refusal};
use ring::hmac;
use serde_json::{Value, json};

use super::{NOW, claims, concourse, issuers, with};
use crate::support::issuer::{Key, encoded};

const URL: &str = "https://ci.example.com";

fn check(token: &str, issuer: &IssuerSettings, keys: &KeySet, now: i64) -> Result<Proved, Refusal> {
    verify(&Token::parse(token)?, issuer, keys, now)
}

fn set(keys: &[&Key]) -> KeySet {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

/// No message repeats a token, and each says what to do.
fn is_for_people(refusal: &Refusal, token: &str) {
    let text = refusal.to_string();
    assert!(text.contains(": "), "what to do? {text}");
    assert!(text.len() < 1_000 && !text.chars().any(char::is_control), "{text:?}");
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!text.contains(part), "{text}");
    }
}

#[test]
fn each_allowed_algorithm_proves_who_signed() {
    let issuer = &issuers(json!([with(concourse(URL), "algorithms", json!(["RS256", "ES256", "EdDSA"]))]))[0];
    for key in [Key::rsa("1", 0), Key::p256("1"), Key::ed25519("1")] {
        let proved = check(&key.token(&claims(URL)), issuer, &set(&[&key]), NOW).unwrap();
        let said = [Some(&proved.team), proved.pipeline.as_ref(), proved.job.as_ref()];
        let said: Vec<&str> = said.iter().map(|text| text.unwrap().as_str()).collect();
        assert_eq!((said, proved.issuer.as_str()), (vec!["payments", "app", "deploy"], "ci"), "{}", key.algorithm());
    }
}

#[test]
fn every_wrong_token_is_refused_with_its_reason() {
    let (key, other, curve) = (Key::rsa("1", 0), Key::rsa("1", 1), Key::p256("2"));
    let (issuer, keys) = (&issuers(json!([concourse(URL)]))[0], set(&[&key, &curve]));
    let good = claims(URL);
    let changed = |member: &str, value: Value| key.token(&with(good.clone(), member, value));
    // Claims of the attacker under the signature of a good token.
    let parts: Vec<String> = key.token(&good).split('.').map(str::to_owned).collect();
    let forged = encoded(with(good.clone(), "team", json!("admin")).to_string());
    let moved = format!("{}.{forged}.{}", parts[0], parts[2]);
    let short = format!("{}.{}.{}", parts[0], parts[1], encoded([1; 10]));
    // The public key as the secret of an HMAC, in the forms in which libraries were fooled.
    let public = key.jwk();
    let modulus = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    let by_hmac = |secret: &[u8], algorithm: &str| {
        let header = json!({"alg": algorithm, "kid": "1"}).to_string();
        let signed = format!("{}.{}", encoded(header), encoded(good.to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("{signed}.{}", encoded(tag))
    };
    let named = |header: Value| key.token_with(&header, &good);
    let table = [
        ("signed by another key of the same name", other.token(&good), "signature"),
        ("claims exchanged", moved, "signature"),
        ("a short signature", short, "signature"),
        ("no algorithm", named(json!({"alg": "none", "kid": "1"})), "unsigned"),
        ("HMAC with the public key", by_hmac(&modulus, "HS256"), "algorithm"),
        ("HMAC with the published text", by_hmac(public.to_string().as_bytes(), "HS256"), "algorithm"),
        ("HMAC that says it is RSA", by_hmac(&modulus, "RS256"), "signature"),
        ("another algorithm", named(json!({"alg": "PS256", "kid": "1"})), "algorithm"),
        ("an algorithm that is not allowed here", Key::ed25519("1").token(&good), "algorithm"),
        ("an algorithm that its key is not for", named(json!({"alg": "ES256", "kid": "1"})), "unknown_key"),
        ("a key of another kind", named(json!({"alg": "RS256", "kid": "2"})), "unknown_key"),
        ("an unknown key", named(json!({"alg": "RS256", "kid": "3"})), "unknown_key"),
        ("a key of its own", named(json!({"alg": "RS256", "kid": "3", "jwk": other.jwk()})), "unknown_key"),
        ("another issuer", changed("iss", json!("https://evil.example.com")), "other_issuer"),
        ("an issuer with a slash", changed("iss", json!(format!("{URL}/"))), "other_issuer"),
        ("no issuer", changed("iss", Value::Null), "other_issuer"),
        ("another audience", changed("aud", json!("vault")), "audience"),
        ("other audiences", changed("aud", json!(["vault", "aws", "lockers"])), "audience"),
        ("no audience", changed("aud", Value::Null), "audience"),
        ("an audience of another kind", changed("aud", json!({"locker": true})), "audience"),
        ("expired", changed("exp", json!(NOW - 61)), "expired"),
        ("no end", changed("exp", Value::Null), "claim"),
        ("an end that is text", changed("exp", json!("tomorrow")), "claim"),
        ("no beginning", changed("iat", Value::Null), "claim"),
        ("not yet valid", changed("nbf", json!(NOW + 61)), "not_yet_valid"),
        ("a beginning that is text", changed("nbf", json!("now")), "claim"),
        ("made in the future", changed("iat", json!(NOW + 61)), "from_the_future"),
        ("no team", changed("team", Value::Null), "claim"),
        ("an empty team", changed("team", json!("")), "claim"),
        ("a list of teams", changed("team", json!(["payments"])), "claim"),
        ("a team that no name can be", changed("team", json!("a\nb")), "claim"),
        ("no pipeline", changed("pipeline", Value::Null), "claim"),
        ("instance vars as text", changed("instance_vars", json!("branch:x")), "claim"),
    ];
    for (what, token, expected) in table {
        let refusal = check(&token, issuer, &keys, NOW).expect_err(what);
        assert_eq!(refusal.word(), expected, "{what}: {refusal}");
        is_for_people(&refusal, &token);
    }
}

#[test]
fn clocks_may_differ_by_a_minute_and_not_by_a_day() {
    let key = Key::p256("1");
    let (issuer, keys) = (&issuers(json!([concourse(URL)]))[0], set(&[&key]));
    let token = key.token(&with(claims(URL), "nbf", json!(NOW)));
    let day = 86_400;
    for (now, expected) in [
        (NOW - day, Some("the token was made 1day in the future: the clocks of its issuer and of this server differ")),
        (NOW - 61, Some("the token was made 1m 1s in the future")),
        (NOW - 60, None),
        (NOW, None),
        (NOW + 900 + 59, None),
        (NOW + 900 + 60, Some("the token expired 1m ago: get a new one")),
        (
            NOW + 900 + day,
            Some("the token expired 1day ago: get a new one, as each step of a pipeline does; if it is new,"),
        ),
    ] {
        let found = check(&token, issuer, &keys, now).err().map(|refusal| refusal.to_string());
        match (&found, expected) {
            (None, None) => {}
            (Some(text), Some(expected)) => assert!(text.starts_with(expected), "{now}: {text}"),
            _ => panic!("{now}: {found:?}"),
        }
    }
}

#[test]
fn tokens_of_a_real_concourse_prove_what_they_say() {
    let recorded: Value = serde_json::from_str(include_str!("../../support/idtoken.json")).unwrap();
    let issuer = &issuers(json!([concourse(recorded["discovery"]["issuer"].as_str().unwrap())]))[0];
    let keys = KeySet::parse(recorded["jwks"].to_string().as_bytes()).unwrap();
    assert_eq!(keys.count(), 2);
    // Both were made in the same second; the clock of this test is a minute later. They end a minute after their end.
    let made = 1_795_650_519;
    let ends = [made + 86_400 + 60, made + 900 + 60];
    for (token, end) in recorded["tokens"].as_array().unwrap().iter().zip(ends) {
        let token = token.as_str().unwrap().trim();
        let proved = check(token, issuer, &keys, made + 60).unwrap();
        let names =
            [Some(&proved.team), proved.pipeline.as_ref(), proved.job.as_ref()].map(|text| text.unwrap().as_str());
        assert_eq!(names, ["main", "inst", "tok"]);
        let vars = proved.instance_vars.as_ref().map(InstanceVars::as_str);
        assert_eq!(vars, Some(r#"{"branch":"feature/x","n":{"a":1,"b":[1,2]}}"#));
        assert_eq!(check(token, issuer, &keys, end - 1), Ok(proved));
        assert_eq!(check(token, issuer, &keys, end), Err(Refusal::Expired(60)));
        let lacks = KeySet::parse(json!({"keys": [Key::p256("1").jwk()]}).to_string().as_bytes()).unwrap();
        assert_eq!(check(token, issuer, &lacks, made + 60), Err(Refusal::UnknownKey("ci".to_owned())));
    }
}

#[test]
fn a_check_of_a_resource_has_no_job() {
    let key = Key::p256("1");
    let token = key.token(&with(claims(URL), "job", json!("")));
    let proved = check(&token, &issuers(json!([concourse(URL)]))[0], &set(&[&key]), NOW).unwrap();
    assert_eq!(proved.job, None);
}

#[test]
fn a_token_without_a_key_name_is_checked_with_the_one_that_fits() {
    let (key, curve, other) = (Key::rsa("1", 0), Key::p256("2"), Key::rsa("3", 1));
    let issuer = &issuers(json!([concourse(URL)]))[0];
    let token = key.token_with(&json!({"alg": "RS256"}), &claims(URL));
    assert!(check(&token, issuer, &set(&[&key, &curve]), NOW).is_ok());
    let refusal = check(&token, issuer, &set(&[&key, &curve, &other]), NOW);
    assert_eq!(refusal, Err(Refusal::NoKeyNamed { issuer: "ci".to_owned(), keys: 2 }));
}

/// Claims that other systems really send, and what the presets make of them.
#[test]
fn other_systems_are_read_by_their_presets() {
    let key = Key::rsa("1", 0);
    let all = issuers(json!([
        {"name": "gh", "kind": "github-actions", "audience": "locker", "require": {"repository_owner_id": 65}},
        {"name": "gl", "kind": "gitlab", "audience": "locker", "require": {"namespace_path": ["acme/core", "acme"]}},
        {"name": "bk", "kind": "custom", "issuer": "https://agent.example.com", "audience": "locker",
         "require": {"organization_slug": "acme"},
         "claims": {"team": "organization_slug", "pipeline": "pipeline_slug", "job": "step_key"}},
    ]));
    let github = json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "locker", "iat": NOW, "nbf": NOW - 300, "exp": NOW + 300,
        "jti": "1", "sub": "repo:acme/app:environment:prod", "repository": "acme/app", "repository_owner": "acme",
        "repository_owner_id": "65", "workflow": "deploy", "ref": "refs/heads/main", "environment": "prod", "run_id": "7",
    });
    let gitlab = json!({
        "iss": "https://gitlab.com", "aud": "locker", "iat": NOW, "nbf": NOW - 5, "exp": NOW + 300, "namespace_path": "acme/core",
        "project_path": "acme/core/app", "pipeline_id": "574", "job_id": "302", "ref": "main",
    });
    let buildkite = json!({
        "iss": "https://agent.example.com", "aud": "locker", "iat": NOW, "exp": NOW + 300, "organization_slug": "acme",
        "pipeline_slug": "app", "step_key": "deploy",
    });
    let table = [
        (&github, ["acme", "app"], Some("deploy"), Some(r#"{"environment":"prod","ref":"refs/heads/main"}"#)),
        (&gitlab, ["acme/core", "app"], None, Some(r#"{"ref":"main"}"#)),
        (&buildkite, ["acme", "app"], Some("deploy"), None),
    ];
    for ((said, names, job, vars), issuer) in table.into_iter().zip(&all) {
        let proved = check(&key.token(said), issuer, &set(&[&key]), NOW).unwrap();
        assert_eq!([proved.team.as_str(), proved.pipeline.as_ref().unwrap().as_str()], names);
        assert_eq!(proved.job.as_ref().map(Text::as_str), job);
        assert_eq!(proved.instance_vars.as_ref().map(InstanceVars::as_str), vars);
    }
    // Whoever else uses GitHub Actions may choose any audience, but not the owner's id.
    let stranger = key.token(&with(github, "repository_owner_id", json!("66")));
    let refusal = check(&stranger, &all[0], &set(&[&key]), NOW).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the token says \"66\" for the claim \"repository_owner_id\", which `require` of issuer gh does not allow"
    );
}

#[test]
fn what_a_step_says_otherwise_is_named() {
    let key = Key::p256("1");
    let claims = with(claims(URL), "instance_vars", json!({"branch": "x", "n": {"b": 1, "a": 2}}));
    let proved = check(&key.token(&claims), &issuers(json!([concourse(URL)]))[0], &set(&[&key]), NOW).unwrap();
    let text = |text: &str| Some(Text::parse(text).unwrap());
    let vars = |text: &str| Some(InstanceVars::parse(text).unwrap());
    let none = Owner::default;
    let honest = Owner {
        cluster: text("https://CI.example.com:443/"),
        team: text("payments"),
        pipeline: text("app"),
        job: text("deploy"),
        instance_vars: vars(r#"{"n": {"a": 2, "b": 1}, "branch": "x"}"#),
        build_id: text("4711"),
        ..none()
    };
    let table = [
        (none(), None),
        (honest, None),
        (
            Owner { team: text("search"), ..none() },
            Some(r#"the token is of team "payments", but the request says team "search""#),
        ),
        (
            Owner { pipeline: text("b"), ..none() },
            Some(r#"the token is of pipeline "app", but the request says pipeline "b""#),
        ),
        (Owner { job: text("j"), ..none() }, Some(r#"the token is of job "deploy", but the request says job "j""#)),
        (
            Owner { cluster: text("https://other"), ..none() },
            Some(
                r#"the token is of Concourse "https://ci.example.com", but the request says Concourse "https://other""#,
            ),
        ),
        (Owner { instance_vars: vars("{}"), ..none() }, Some(r#"the request says instance vars "{}""#)),
    ];
    for (owner, expected) in table {
        let found = proved.contradicts(&owner);
        match (&found, expected) {
            (None, None) => {}
            (Some(text), Some(expected)) => assert!(text.contains(expected), "{text}"),
            _ => panic!("{owner:?}: {found:?}"),
        }
    }
    let mut filled = none();
    proved.complete(&mut filled);
    assert_eq!((filled.team, filled.pipeline, filled.job), (text("payments"), text("app"), text("deploy")));
    assert_eq!(filled.instance_vars, vars(r#"{"branch":"x","n":{"a":2,"b":1}}"#));
}
