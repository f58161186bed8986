//! Tables of payloads: the valid ones, and every kind of error.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::core::names::{LockName, PoolName};
use crate::wire::api::Scope;

const URL: &str = r#""locker_uri":"http://locker:8910""#;

fn out(source: &str, params: &str) -> Result<OutRequest, PayloadError> {
    OutRequest::parse(format!(r#"{{"source":{source},"params":{params}}}"#).as_bytes())
}

fn pool(params: &str) -> Result<OutRequest, PayloadError> {
    out(&format!(r#"{{{URL},"pool":"p"}}"#), params)
}

fn lock(params: &str) -> Result<OutRequest, PayloadError> {
    out(&format!(r#"{{{URL},"lock_name":"l"}}"#), params)
}

fn ask(request: OutRequest) -> Ask {
    match request.params.op {
        Op::Ask(ask) => *ask,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_problems_are_listed_at_once() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "null",
            "null",
            "missing locker_uri, missing pool, missing acquire, claim, release, add, add_claimed, remove, update, check, check_unclaimed or verify",
        ),
        ("{}", r#"{"acquire":true}"#, "missing locker_uri, missing pool"),
        (r#""x""#, r#"{"acquire":true}"#, "source must be an object, missing locker_uri, missing pool"),
        (
            r#"{"locker_uri":"ftp://x","pool":".p","pol":1}"#,
            r#"{"aquire":true}"#,
            "source.locker_uri: must begin with http:// or https://, \
             source.pool: pool name starts with a dot, which is reserved for files that are not locks, \
             unknown source key \"pol\": did you mean \"pool\"?, \
             unknown params key \"aquire\": did you mean \"acquire\"?",
        ),
        (
            r#"{"locker_uri":"http://x","pool":"p","lock_name":"l"}"#,
            r#"{"acquire":true}"#,
            "give only one of source.pool and source.lock_name",
        ),
    ];
    for (source, params, problems) in cases {
        let error = out(source, params).unwrap_err().to_string();
        assert_eq!(error, format!("invalid payload ({problems})"), "{source} {params}");
    }
}

#[test]
fn invalid_params_of_a_pool() {
    let cases = [
        (
            r#"{"acquire":true,"claim":"a"}"#,
            "acquire and claim cannot be in one put: write a put step for each of them",
        ),
        (
            r#"{"acquire":true,"release":"a","count":0}"#,
            "acquire and release cannot be in one put: write a put step for each of them, params.count: must be a whole number of at least 1)",
        ),
        (r#"{"acquire":"yes"}"#, "params.acquire: must be true or false)"),
        (r#"{"claim":"a/b","ttl":"1h"}"#, "params.claim: lock name contains '/' at byte 1, which is not allowed)"),
        (
            r#"{"claim":"a/b","ttl":"x"}"#,
            "params.claim: lock name contains '/' at byte 1, which is not allowed, params.ttl",
        ),
        (r#"{"release":"","as":"n"}"#, "params.release: is empty)"),
        (
            r#"{"acquire":false}"#,
            "params.acquire: false: this put would take no lock; if that is intended, set optional: true)",
        ),
        (r#"{"acquire":true,"count":0}"#, "params.count: must be a whole number of at least 1"),
        (r#"{"acquire":true,"count":1.5}"#, "params.count: must be a whole number of at least 1"),
        (r#"{"acquire":true,"ttl":"soon"}"#, "params.ttl: is not a duration such as 90s, 5m or 1h30m"),
        (
            r#"{"acquire":true,"scope":"lease"}"#,
            "params.scope: cannot be lease, because a resource does not renew: use build for a hold that ends with its build",
        ),
        (r#"{"acquire":true,"scope":"x"}"#, "params.scope: must be flow, build or person"),
        (r#"{"acquire":true,"queue":"maybe"}"#, "params.queue: must be true or false"),
        (r#"{"acquire":true,"labels":["a"]}"#, "params.labels: must be an object of names and values"),
        (r#"{"acquire":true,"lock_by":"a"}"#, "params.lock_by: needs params.key"),
        (r#"{"acquire":true,"as":""}"#, "params.as: is empty"),
        (r#"{"acquire":true,"also":[{"lock":"a"}]}"#, "params.also.pool: is missing"),
        (
            r#"{"acquire":true,"also":[{"pool":"a","lok":"b"}]}"#,
            "unknown params.also key \"lok\": did you mean \"lock\"?",
        ),
        (r#"{"claim":"a/b"}"#, "params.claim: lock name contains '/' at byte 1, which is not allowed"),
        (r#"{"claim":"a","count":2}"#, "params.count and params.labels do not go with claim, which names the lock"),
        (r#"{"claim":true}"#, "params.claim: must be a string"),
        (r#"{"release":""}"#, "params.release: is empty"),
        (r#"{"release":{"lok":"a"}}"#, "unknown params.release key \"lok\": did you mean \"lock\"?"),
        (r#"{"release":"x","ttl":"1s"}"#, "params.ttl: does not go with release"),
        (r#"{"release":"x","as":"n"}"#, "params.as: does not go with release"),
        (r#"{"add":"x","count":2}"#, "params.count: does not go with add"),
        (
            r#"{"add":"x","remove":"x"}"#,
            "add and remove cannot be in one put: write a put step for each of them (to move a lock from another pool, use add with remove_from)",
        ),
        (r#"{"add":"x","replace":true,"remove_from":"b"}"#, "params.replace: does not go with remove_from"),
        (r#"{"add":"x","remove_from":"/"}"#, "params.remove_from: pool name must have a name on both sides"),
        (r#"{"add":"x","remove_from":"p"}"#, "params.remove_from: is the pool of this resource"),
        (r#"{"add_claimed":"x","remove_from":"b"}"#, "params.remove_from: does not go with add_claimed"),
        (r#"{"lock_op":"lock","key":"k"}"#, "params.lock_op: works only with source.lock_name"),
        (r#"{"remove":"x","labels":{}}"#, "params.labels: does not go with remove"),
        (r#"{"remove":""}"#, "params.remove: is empty"),
        (r#"{"check":"x","ttl":"1s"}"#, "params.ttl: does not go with check"),
        (r#"{"check_unclaimed":"x","self_wait":"no"}"#, "params.self_wait: must be wait or fail"),
        (r#"{"acquire":true,"priority":"high"}"#, "params.priority: must be a whole number"),
        (r#"{"acquire":true,"supersede":""}"#, "params.supersede: is empty"),
        (r#"{"acquire":true,"token":"a\nb"}"#, "params.token: must be one word of printable ASCII characters"),
    ];
    for (params, problems) in cases {
        let error = pool(params).unwrap_err().to_string();
        assert!(error.starts_with(&format!("invalid payload ({problems}")), "{params}: {error}");
    }
}

#[test]
fn invalid_params_of_a_lock() {
    let cases = [
        ("{}", "missing lock_op"),
        (r#"{"lock_op":"lock"}"#, "missing key"),
        (r#"{"lock_op":"unlock"}"#, "missing key"),
        (r#"{"lock_op":"steal","key":"k"}"#, "params.lock_op: must be lock or unlock)"),
        (
            r#"{"lock_op":"lock","key":"k","lock_by":"a","locked_by":"b"}"#,
            "params.lock_by and params.locked_by mean the same and must not differ",
        ),
        (r#"{"acquire":true}"#, "params.acquire: works only with source.pool"),
    ];
    for (params, problems) in cases {
        let error = lock(params).unwrap_err().to_string();
        assert!(error.starts_with(&format!("invalid payload ({problems}")), "{params}: {error}");
    }
}

#[test]
fn valid_params_are_understood() {
    let full = ask(pool(
        r#"{"acquire":true,"priority":"7","supersede":"deploy","self_wait":"wait","token":"t","count":2,"labels":{"region":"eu","n":1},"as":"env","ttl":"1h30m","timeout":"90s",
                "queue":false,"scope":"person","also":[{"pool":"q","count":3},{"pool":"r","lock":7}]}"#,
    )
    .unwrap());
    assert_eq!((full.count, full.queue, full.scope), (Some(2), false, Some(Scope::Person)));
    assert_eq!(full.labels.get("n").map(String::as_str), Some("1"));
    assert_eq!((full.ttl, full.timeout), (Some(Duration::from_secs(5400)), Some(Duration::from_secs(90))));
    assert_eq!(full.also[1].lock.as_deref(), Some("7"));
    assert_eq!(full.name.as_deref(), Some("env"));
    assert_eq!((full.priority, full.supersede.as_deref(), full.self_wait), (Some(7), Some("deploy"), true));

    // YAML turns a lock called `1` into a number, and `"true"` comes from a var.
    let one = LockChoice::Named(LockName::parse("1").unwrap());
    assert_eq!(ask(pool(r#"{"claim":1}"#).unwrap()).lock, Some(one));
    assert_eq!(ask(pool(r#"{"acquire":"true"}"#).unwrap()).lock, None);

    let op = |params: &str| pool(params).unwrap().params.op;
    assert_eq!(op(r#"{"release":"dir/a"}"#), Op::Release { what: Release::Dir("dir/a".into()), now: false });
    assert_eq!(
        op(r#"{"release":"build","as":"n"}"#),
        Op::Release { what: Release::Build { name: Some("n".into()) }, now: false }
    );
    assert_eq!(op(r#"{"remove":"d"}"#), Op::Remove { dir: "d".into() });
    let watch = Watch { timeout: Some(Duration::from_secs(1)), self_wait: true };
    assert_eq!(op(r#"{"check":"d","timeout":"1s"}"#), Op::Check { dir: "d".into(), watch });
    assert_eq!(op(r#"{"check_unclaimed":"d","timeout":"1s"}"#), Op::CheckUnclaimed { dir: "d".into(), watch });
    let add = |how| Op::Add { dir: "d".into(), labels: BTreeMap::new(), how };
    let claimed = Adding::Claimed(AddClaimed { name: Some("n".into()), scope: None, ttl: watch.timeout });
    assert_eq!(op(r#"{"add_claimed":"d","as":"n","ttl":"1s"}"#), add(claimed));
    assert_eq!(op(r#"{"add":"d","replace":false}"#), add(Adding::New));
    assert_eq!(op(r#"{"add":"d","replace":true}"#), add(Adding::Replacing));
    assert_eq!(op(r#"{"add":"d","remove_from":"a/b"}"#), add(Adding::MovingFrom(PoolName::parse("a/b").unwrap())));
    assert!(matches!(op(r#"{"release":"build","now":true}"#), Op::Release { now: true, .. }));
    assert!(matches!(op(r#"{"release":{"lock":"a"}}"#), Op::Release { what: Release::Lock(_), now: false }));
    assert!(matches!(
        lock(r#"{"release":"build"}"#).unwrap().params.op,
        Op::Release { what: Release::Build { name: None }, now: false }
    ));

    let locked = ask(lock(r#"{"lock_op":"lock","key":"k","locked_by":"me"}"#).unwrap());
    assert_eq!((locked.key.as_deref(), locked.requestor.as_deref()), (Some("k"), Some("me")));
    let unlock = lock(r#"{"lock_op":"unlock","key":"k"}"#).unwrap().params.op;
    assert_eq!(unlock, Op::Unlock { now: false, key: "k".into(), requestor: "k".into() });
}

#[test]
fn all_keys_of_the_source() {
    let full = r#"{"locker_uri":"http://u:p@a:1, https://u:p@b/x","bosh_lock":"https://director:25555","ca_cert":"-----BEGIN CERTIFICATE-----",
        "client_cert":"-----BEGIN CERTIFICATE-----","client_key":"-----BEGIN PRIVATE KEY----- hunter2","skip_ssl_validation":"true",
        "skip_ssl_verification":false,"proxy":"http://u:hunter2@proxy:3128","log_level":"debug","priority":-3}"#;
    let request = CheckRequest::parse(format!(r#"{{"source":{full}}}"#).as_bytes()).unwrap();
    let source = &request.source;
    assert_eq!(source.servers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://a:1", "https://b/x"]);
    let of_second = source.servers[1].credentials().map(|found| found.username.as_str());
    assert_eq!((source.credentials.is_some(), of_second), (false, Some("u")), "they apply to that server only");
    assert!(matches!(&source.place, Place::Director(url) if url.to_string() == "https://director:25555"));
    assert_eq!((source.kind, source.log_level, source.priority), (SourceKind::LockName, LogLevel::Debug, Some(-3)));
    assert_eq!(source.tls.skip_verification, Some("skip_ssl_validation"));
    assert!(!format!("{request:?}").contains("hunter2"));

    let bad = r#"{"locker_uri":"http://a,","pool":"p","bosh_lock":"x","ca_cert":"/etc/ca.pem","client_cert":"-----BEGIN X",
        "proxy":1,"log_level":"loud","token":"t","skip_ssl_validation":"perhaps"}"#;
    let error = CheckRequest::parse(format!(r#"{{"source":{bad}}}"#).as_bytes()).unwrap_err();
    let problems = [
        "source.locker_uri: must begin with http:// or https://",
        "give only one of source.pool and source.bosh_lock",
        "source.ca_cert: must be the text of a certificate in PEM form (-----BEGIN ...)",
        "source.client_cert and source.client_key must be given together",
        "source.skip_ssl_validation: must be true or false",
        "source.log_level: must be error, warn, info or debug",
        "source.token: does not belong in source, where each new token would make a new resource: give it in params",
    ];
    assert_eq!(error.0.iter().map(|problem| problem.text.as_str()).collect::<Vec<_>>(), problems);
}

#[test]
fn settings_of_the_source() {
    let text = format!(
        r#"{{"source":{{{URL},"pool":"p","uri":"git@x","branch":"b","private_key":null,"retry_delay":"1h",
            "username":"u","password":"hunter2","scope":"person","ttl":"1h"}},"version":{{"ref":"12"}}}}"#
    );
    let request = CheckRequest::parse(text.as_bytes()).unwrap();
    assert_eq!(request.version.as_deref(), Some("12"));
    assert_eq!(request.source.ignored, ["uri", "branch"]);
    assert_eq!(request.source.retry_delay, Some(Duration::from_secs(3600)));
    assert_eq!(request.source.credentials.as_ref().unwrap().password.expose(), "hunter2");
    assert!(!format!("{request:?}").contains("hunter2"));

    // The check of the Git server's certificate was switched off, not that of the locker server.
    for (more, skipped) in [
        (r#""uri":"https://git","skip_ssl_verification":true"#, None),
        (r#""uri":"https://git","skip_ssl_verification":true,"skip_ssl_validation":true"#, Some("skip_ssl_validation")),
        (r#""uri":"git@x","skip_ssl_verification":true"#, Some("skip_ssl_verification")),
        (r#""skip_ssl_verification":true"#, Some("skip_ssl_verification")),
    ] {
        let text = format!(r#"{{"source":{{{URL},"pool":"p",{more}}}}}"#);
        let source = CheckRequest::parse(text.as_bytes()).unwrap().source;
        assert_eq!(source.tls.skip_verification, skipped, "{more}");
        assert_eq!(source.ignored.contains(&"skip_ssl_verification"), skipped.is_none(), "{more}");
    }

    let bad = InRequest::parse(format!(r#"{{"source":{{{URL},"pool":"p"}}}}"#).as_bytes()).unwrap_err();
    assert_eq!(bad.to_string(), "invalid payload (missing version)");
    let retry_delay = |text: &str| {
        let text = format!(r#"{{"source":{{{URL},"pool":"p","retry_delay":{text}}}}}"#);
        CheckRequest::parse(text.as_bytes()).map(|request| request.source.retry_delay)
    };
    assert_eq!(retry_delay("60"), Ok(Some(Duration::from_secs(60))), "pool-resource takes a number");
    assert!(retry_delay("-1").is_err() && retry_delay("1.5").is_err() && retry_delay("true").is_err());
    let fine = format!(r#"{{"source":{{{URL},"pool":"p"}},"version":{{"ref":"1"}},"params":{{"depth":1}}}}"#);
    assert!(InRequest::parse(fine.as_bytes()).is_ok());
    assert!(CheckRequest::parse(b"nonsense").unwrap_err().to_string().contains("stdin is not valid JSON"));
}
