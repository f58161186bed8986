#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::mpsc;

use super::super::engine;
use super::super::engine::hooked::Hooked;
use super::super::limits::{BATCH, INBOX};
use super::super::notices::Notices;
use super::route::Method;
use super::*;
use crate::core::settings::Settings;
use crate::env::SystemClock;
use crate::store::memory::MemoryStore;

/// What may be asked again at the next leader. Whoever adds a route that changes something decides here.
#[test]
fn every_route_that_changes_something_says_whether_it_may_be_repeated() {
    let with_op = r#"{"by":{"op":"1"}}"#;
    let cases: &[(&str, &str, &[(&str, bool)])] = &[
        ("PUT", "/api/v1/claims/{id}", &[("", true)]),
        ("DELETE", "/api/v1/claims/{id}", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/release", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/confirm", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/renew", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/deliver", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/break", &[("", true)]),
        ("POST", "/api/v1/claims/{id}/move", &[("{}", false), (with_op, true)]),
        ("PUT", "/api/v1/pools/{pool}", &[("", false), (with_op, true), (r#"{"by":{"op":null}}"#, false)]),
        ("PATCH", "/api/v1/pools/{pool}", &[("{}", false), (with_op, true)]),
        ("DELETE", "/api/v1/pools/{pool}", &[("{}", false), (with_op, true)]),
        ("PUT", "/api/v1/pools/{pool}/locks/{lock}", &[("{}", false), (with_op, true)]),
        ("PATCH", "/api/v1/pools/{pool}/locks/{lock}", &[("{}", false), (with_op, true)]),
        ("DELETE", "/api/v1/pools/{pool}/locks/{lock}", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/locks/{lock}/move", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/locks/{lock}/quarantine", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/locks/{lock}/return", &[("not JSON", false), (with_op, true)]),
        ("POST", "/api/v1/pools/{pool}/changes", &[("{}", false), (with_op, true)]),
        ("POST", "/api/v1/tokens", &[(with_op, false)]),
        ("DELETE", "/api/v1/tokens/{name}", &[("", false)]),
        ("POST", "/api/v1/session", &[("", false)]),
        ("DELETE", "/api/v1/session", &[("", false)]),
        // Their claims have the id of the request.
        ("PUT", "/lock/{name}", &[(r#"{"lock":"me"}"#, true)]),
        ("POST", "/lock/{name}", &[("", true)]),
        // It would unlock what another client has locked since.
        ("DELETE", "/lock/{name}", &[("", false)]),
        ("POST", "/lock", &[(r#"{"workflow":"w"}"#, false), (r#"{"id":"a","workflow":"w"}"#, true)]),
        ("PATCH", "/lock", &[("{}", true)]),
        ("DELETE", "/lock", &[("", false)]),
    ];
    for (method, path, bodies) in cases {
        for (body, expected) in *bodies {
            let request = request(method, path, body);
            assert_eq!(is_repeatable(&request), *expected, "{method} {path} {body}");
        }
    }
    let changing = ROUTES.iter().filter(|route| route.method != Method::Get);
    let routes: Vec<_> = changing.map(|route| (route.method.word(), route.path)).collect();
    let listed: Vec<_> = cases.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(routes, listed, "this table lists every route that changes something, in the order of the routes");
    for reads in ["GET", "HEAD"] {
        assert!(is_repeatable(&request(reads, "/api/v1/pools", "")));
    }
    assert!(is_repeatable(&request("POST", "/nothing", "")));
}

/// Otherwise clients that ask again would fill the memory: their requests end in time, and their commands stay.
#[tokio::test]
async fn new_requests_are_refused_while_too_many_commands_wait_for_a_store_that_hangs() {
    let ((hold, held), (begin, begun)) = (mpsc::channel::<()>(), mpsc::channel());
    // All commits but that of the start say that they have begun, and wait.
    let mut is_first = true;
    let before_commit = move || {
        if !std::mem::replace(&mut is_first, false) {
            begin.send(())?;
            let _ = held.recv();
        }
        Ok(())
    };
    let store = Box::new(Hooked { kept: MemoryStore::new().unwrap(), before_commit });
    let (long_polls, clock) = (LongPolls::default(), Arc::new(SystemClock::default()));
    let (engine, thread) =
        engine::start(store, Settings::default(), clock, Notices::default(), long_polls.clone(), |_| {}).unwrap();
    let routes = Arc::new(Routes::new(engine.clone(), long_polls, Arc::new(|| Ok(()))));
    let claim = |attempt| Request { attempt, ..request("PUT", "/api/v1/claims/a", r#"{"pool":"p"}"#) };
    let answer = |request: Request| {
        let routes = Arc::clone(&routes);
        tokio::spawn(async move { routes.handle(&request).await })
    };
    let first = answer(claim(Attempt::First));
    tokio::task::yield_now().await;
    begun.recv().unwrap();
    // The engine takes some before it waits for the store, too.
    (0..INBOX + 2 * BATCH).for_each(|_| engine.post(Command::Tick));
    let refused = answer(claim(Attempt::First));
    tokio::task::yield_now().await;
    assert!(refused.is_finished(), "it waits");
    let refused = refused.await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains(&("retry-after", "5".to_owned())), "{:?}", refused.headers);
    assert!(String::from_utf8(refused.body).unwrap().contains(r#""code":"unavailable""#));
    assert_eq!(answer(request("GET", "/api/v1/pools", "")).await.unwrap().status, 200);
    // The engine counts on this client.
    let parked = answer(claim(Attempt::Last));
    tokio::task::yield_now().await;
    assert!(!parked.is_finished());
    drop(hold);
    for answered in [first, parked] {
        assert_eq!(answered.await.unwrap().status, 200);
    }
    assert_eq!(answer(claim(Attempt::First)).await.unwrap().status, 200);
    engine.stop();
    thread.join().unwrap();
}

fn request(method: &str, path: &str, body: &str) -> Request {
    Request { body: body.into(), ..Request::sample(method, path) }
}
