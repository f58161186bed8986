use super::*;
use crate::server::http::Admitting;
use crate::server::routes;

struct Ok200;

impl Handler for Ok200 {
    fn admit<'a>(&'a self, _: &'a mut Request) -> Admitting<'a> {
        Box::pin(std::future::ready(Ok(Admission::Client)))
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        let identity = request.identity.as_ref().map(ToString::to_string).unwrap_or_default();
        Box::pin(std::future::ready(Response::new(200, identity.into_bytes())))
    }

    fn left(&self, _: ParkId) {}
}

pub(super) fn request(method: &str, path: &str, authorization: Option<&str>, subject: Option<&str>) -> Request {
    Request {
        headers: authorization.iter().map(|value| ("authorization".to_owned(), (*value).to_owned())).collect(),
        identity: subject.map(|subject| Identity::Certificate(subject.to_owned())),
        can_park: false,
        ..Request::sample(method, path)
    }
}

fn guard(basic: bool, certificate: Option<ClientAuth>) -> Guard {
    let basic = basic.then(|| ("ci".to_owned(), Secret::new("s:ecret")));
    Guard::new(&Proof { basic, certificate }, routes::access, Arc::new(Ok200))
}

/// The answer of the guard, or of the handler behind it.
fn answer(guard: &Guard, mut request: Request) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    if let Err(refused) = runtime.block_on(guard.admit(&mut request)) {
        return refused;
    }
    runtime.block_on(guard.handle(&request))
}

fn basic(pair: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[test]
fn only_the_right_pair_gets_in() {
    let guard = guard(true, None);
    let right = basic("ci:s:ecret");
    let table = [
        (None, 401),
        (Some(right.clone()), 200),
        (Some(right.replace("Basic", "bASIC")), 200),
        (Some(right.replace("Basic", "Bearer")), 401),
        (Some(basic("ci:s:ecre")), 401),
        (Some(basic("ci:s:ecrett")), 401),
        (Some(basic("CI:s:ecret")), 401),
        (Some(basic("ci:")), 401),
        (Some(basic("")), 401),
        (Some("Basic !!".to_owned()), 401),
        (Some("Basic".to_owned()), 401),
        (Some(String::new()), 401),
    ];
    for (header, status) in table {
        let response = answer(&guard, request("GET", "/api/v1/pools", header.as_deref(), None));
        assert_eq!(response.status, status, "{header:?}");
        assert!(!String::from_utf8_lossy(&response.body).contains("ecret"));
    }
}

#[test]
fn a_refused_user_is_named_and_the_password_is_not() {
    let error = |header: Option<&str>| {
        let response = answer(&guard(true, None), request("GET", "/api/v1/pools", header, None));
        serde_json::from_slice::<serde_json::Value>(&response.body).unwrap()["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(error(Some(&basic("ci:guess"))), "the server refused user \"ci\": wrong username or password");
    assert_eq!(error(None), "this server requires HTTP Basic credentials: set username and password");
    let odd = error(Some(&basic(&format!("a\u{1b}{}:x", "y".repeat(500)))));
    assert!(odd.len() < 200 && !odd.contains('\u{1b}'), "{odd}");
}

#[test]
fn proofs_combine_as_the_first_line_says() {
    use ClientAuth::{Optional, Required};
    let right = basic("ci:s:ecret");
    let (right, wrong) = (Some(right.as_str()), Some("Basic x"));
    let cert = Some("CN=a");
    // Password set, certificates asked for, password given, certificate shown: the identity, or nobody.
    let table = [
        (false, None, None, None, Some("")),
        (false, None, wrong, None, Some("")),
        (true, None, right, None, Some("user:ci")),
        (true, None, wrong, None, None),
        (false, Some(Optional), None, None, None),
        (false, Some(Optional), right, None, None),
        (false, Some(Optional), None, cert, Some("certificate:CN=a")),
        (false, Some(Required), None, cert, Some("certificate:CN=a")),
        (true, Some(Optional), None, None, None),
        (true, Some(Optional), None, cert, Some("certificate:CN=a")),
        (true, Some(Optional), right, None, Some("user:ci")),
        (true, Some(Required), None, cert, None),
        (true, Some(Required), right, None, None),
        (true, Some(Required), right, cert, Some("certificate:CN=a")),
    ];
    for (wants, asks, password, subject, expected) in table {
        let response = answer(&guard(wants, asks), request("GET", "/api/v1/info", password, subject));
        let who = (response.status == 200).then(|| String::from_utf8(response.body).unwrap());
        assert_eq!(who.as_deref(), expected, "{wants} {asks:?} {password:?} {subject:?}");
    }
}

/// Every way to write a path or method that is not exactly a public route.
#[test]
fn whatever_is_not_a_public_route_is_guarded() {
    let guard = guard(true, None);
    let public =
        [("GET", "/healthz"), ("HEAD", "/healthz"), ("GET", "/readyz"), ("HEAD", "/readyz"), ("GET", "/login")];
    for (method, path) in public {
        assert_eq!(answer(&guard, request(method, path, None, None)).status, 200, "{method} {path}");
    }
    let disguises = [
        ("POST", "/healthz"),
        ("OPTIONS", "/healthz"),
        ("OPTIONS", "/api/v1/pools"),
        ("GET", "/healthz/"),
        ("GET", "//healthz"),
        ("GET", "/healthz/../api/v1/pools"),
        ("GET", "/healthz%2f..%2fapi/v1/pools"),
        ("GET", "/healthz;x=1"),
        ("GET", "/HEALTHZ"),
        ("GET", "/api/v1/pools/"),
        ("GET", "//api/v1/pools"),
        ("GET", "/api//v1/pools"),
        ("GET", "/api/v1/%70ools"),
        ("GET", "/%2e/api/v1/pools"),
        ("GET", "/API/v1/pools"),
        ("GET", "/api/v1/pools;a=b"),
        ("GET", "/nothing"),
        ("GET", "/%zz"),
        ("GET", ""),
        ("BREW", "/api/v1/pools"),
    ];
    for (method, path) in disguises {
        assert_eq!(answer(&guard, request(method, path, None, None)).status, 401, "{method} {path}");
    }
    let mut overridden = request("GET", "/healthz", None, None);
    for header in ["x-http-method-override", "x-original-url", "x-rewrite-url", "x-forwarded-prefix"] {
        overridden.headers.push((header.into(), "/api/v1/pools".into()));
    }
    assert_eq!(answer(&guard, overridden).body, b"", "such headers have no effect");
}

/// The routes that need no proof: they say whether the server works, and let people sign in.
const PUBLIC: [&str; 8] = [
    "/healthz",
    "/readyz",
    "/api/v1/session",
    "/login",
    "/assets/locker.css",
    "/assets/locker.js",
    "/assets/sign-in.js",
    "/assets/locker.svg",
];

#[test]
fn every_route_but_these_is_guarded() {
    let guard = guard(true, None);
    let mut public = Vec::new();
    for (method, template) in routes::all() {
        let path = template.replace("{revision}", "7").replace(['{', '}'], "");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let status = answer(&guard, request(method, &path, None, None)).status;
            assert!(status == 401 || PUBLIC.contains(&template), "{method} {template}");
        }
        if answer(&guard, request(method, &path, None, None)).status != 401 {
            public.push(template);
        }
    }
    assert_eq!(public, PUBLIC);
    assert_eq!(
        answer(&guard, request("GET", "/%68ealthz", None, None)).status,
        200,
        "the same path, written otherwise"
    );
    for method in ["POST", "DELETE"] {
        assert_eq!(answer(&guard, request(method, "/api/v1/session", None, None)).status, 401, "{method}");
    }
}

/// A guard with one session, and the headers of a page in it.
fn signed_in() -> (Guard, Vec<(String, String)>) {
    let sessions = Sessions::new(false, true);
    let set = sessions.begin(Identity::User("ada".into()), &request("POST", "/", None, None), Instant::now());
    let mut page = request("GET", "/", None, None);
    page.headers.push(("cookie".into(), set.split(';').next().unwrap().into()));
    page.headers.push((sessions::PAGE_TOKEN.into(), sessions::page_token(&page).unwrap()));
    (guard(true, None).with_sessions(sessions), page.headers)
}

#[test]
fn a_session_reads_by_its_cookie_and_changes_with_its_page_token() {
    let (guard, headers) = signed_in();
    let asked = |method: &str, headers: &[(String, String)], password: Option<&str>| {
        let mut request = request(method, "/api/v1/pools/p", password, None);
        request.headers.extend_from_slice(headers);
        answer(&guard, request)
    };
    for (method, headers, status) in [
        ("GET", &headers[..1], 200),
        ("GET", &headers[..], 200),
        ("PUT", &headers[..], 200),
        ("PUT", &headers[..1], 403),
        ("PATCH", &headers[..1], 403),
        ("POST", &headers[..1], 403),
        ("DELETE", &headers[..1], 403),
        ("GET", &headers[1..], 401),
        ("PUT", &headers[1..], 401),
    ] {
        assert_eq!(asked(method, headers, None).status, status, "{method} {}", headers.len());
    }
    assert_eq!(asked("GET", &headers, None).body, b"user:ada");
    // Credentials in the request count alone, right or wrong, so guesses are always seen as such.
    assert_eq!(asked("PUT", &headers[..1], Some(&basic("ci:s:ecret"))).body, b"user:ci");
    assert_eq!(asked("GET", &headers, Some(&basic("ci:wrong"))).status, 401);
}

#[test]
fn people_are_led_to_the_form_and_programs_are_told() {
    let guard = guard(true, None);
    let asked = |headers: &[(&str, &str)]| {
        let mut request = request("GET", "/pools/a%20b", None, None);
        request.query = "since=1".into();
        request.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let response = answer(&guard, request);
        let header = |name| response.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        (response.status, header("location").or_else(|| header("www-authenticate")).unwrap())
    };
    let html = ("accept", "text/html,*/*");
    assert_eq!(asked(&[html]), (303, "/login?next=%2Fpools%2Fa%2520b%3Fsince%3D1".to_owned()));
    let wrong = basic("ci:wrong");
    assert_eq!(asked(&[html, ("authorization", &wrong)]).0, 401, "a guess is a failed login");
    assert!(asked(&[("accept", "*/*")]).1.starts_with("Basic "));
    // A browser asks for a password in a window of its own if it is challenged for one.
    let own = [("host", "locker.example"), ("origin", "http://locker.example")];
    for of_page in [&[("accept", "text/event-stream")][..], &[(sessions::PAGE_TOKEN, "")], &own] {
        assert_eq!(asked(of_page), (401, "Cookie realm=\"locker\"".to_owned()), "{of_page:?}");
    }
}
