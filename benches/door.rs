//! What the door costs: the same small answer from `tiny_http` alone, through the door, with TLS and with a log; and a
//! real answer of the whole server beside a bare one.
//!
//! ```text
//! cargo bench --bench door
//! LOCKER_BENCH_SECONDS=10 cargo bench --bench door
//! ```
//!
//! Each connection asks, reads the answer and asks again. Load and server share the machine, so the figures are for
//! comparing rows of one run. Nothing is asserted but that every answer is the right one.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "the table is what it is for")]

#[path = "door/pool.rs"]
mod pool;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use locker::core::names::ParkId;
use locker::server::door::{self, DoorSettings, Listener, Pem, Stop, Tls, TlsSettings};
use locker::server::http::{Admission, Admitting, Answering, Handler, Request, Response};
use locker::server::logs::{self, LogSettings};
use locker::server::notices::Notices;
use locker::wire::secret::Secret;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const CONNECTIONS: [usize; 3] = [1, 16, 64];
const WORKERS: usize = 64;
const BODY: &[u8] = br#"{"status":"ok"}"#;
const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Set in the process that writes a log, whose standard error goes nowhere.
const LOGGED: &str = "LOCKER_BENCH_LOGGED";

struct Fixed;

impl Handler for Fixed {
    fn admit<'a>(&'a self, _: &'a mut Request) -> Admitting<'a> {
        Box::pin(std::future::ready(Ok(Admission::Client)))
    }

    fn handle<'a>(&'a self, _: &'a Request) -> Answering<'a> {
        Box::pin(std::future::ready(Response::new(200, BODY.to_vec())))
    }

    fn left(&self, _: ParkId) {}
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

type Connect<'a> = &'a (dyn Fn() -> anyhow::Result<Box<dyn Stream>> + Sync);

fn main() -> anyhow::Result<()> {
    if let Some(length) = pool::bare_length() {
        return pool::serve_bare(length);
    }
    let seconds = std::env::var("LOCKER_BENCH_SECONDS").ok().map_or(Ok(3), |text| text.parse())?;
    let span = Duration::from_secs(seconds);
    let dir = tempfile::tempdir()?;
    if std::env::var_os(LOGGED).is_some() {
        let _log = logs::start(LogSettings::default());
        return through_door("the door, Unix socket, a log line each", &dir.path().join("logged"), span);
    }
    println!("| what | connections | requests/s | p50 ms | p99 ms |\n|---|---|---|---|---|");
    tiny_http_alone(&dir.path().join("alone"), span)?;
    through_door("the door, Unix socket", &dir.path().join("door"), span)?;
    Command::new(std::env::current_exe()?).env(LOGGED, "1").stderr(Stdio::null()).status()?;
    over_tcp("the door, TCP", span, None)?;
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    over_tcp("the door, TCP, TLS 1.3", span, Some(&key))?;
    tiny_http_alone(&dir.path().join("again"), span)?;
    pool::all(span)
}

/// With as many workers as there are connections.
fn tiny_http_alone(path: &Path, span: Duration) -> anyhow::Result<()> {
    let server = tiny_http::Server::http_unix(path).map_err(|error| anyhow::anyhow!("{error}"))?;
    let server = Arc::new(server);
    for _ in 0..WORKERS {
        let server = Arc::clone(&server);
        thread::spawn(move || {
            while let Ok(request) = server.recv() {
                let _ = request.respond(tiny_http::Response::from_data(BODY));
            }
        });
    }
    measure("tiny_http alone, Unix socket", span, &|| Ok(Box::new(UnixStream::connect(path)?)))
}

fn through_door(name: &str, path: &Path, span: Duration) -> anyhow::Result<()> {
    let listener = UnixListener::bind(path)?;
    serve(listener.into(), None, || measure(name, span, &|| Ok(Box::new(UnixStream::connect(path)?))))
}

fn over_tcp(name: &str, span: Duration, key: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let connect = || {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        anyhow::Ok(stream)
    };
    let Some(key) = key else {
        return serve(listener.into(), None, || measure(name, span, &|| Ok(Box::new(connect()?))));
    };
    let pem = |text: String| Pem::Text(Secret::new(text));
    let (tls, _) = Tls::open(TlsSettings::new(pem(key.cert.pem()), pem(key.signing_key.serialize_pem())))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(key.cert.der().to_vec()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let encrypted = || {
        let client = ClientConnection::new(Arc::clone(&config), "localhost".try_into()?)?;
        Ok(Box::new(StreamOwned::new(client, connect()?)) as Box<dyn Stream>)
    };
    serve(listener.into(), Some(tls), || measure(name, span, &encrypted))
}

/// Runs `work` while the door serves.
fn serve(listener: Listener, tls: Option<Arc<Tls>>, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stop = Stop::new();
    let settings = DoorSettings { tls, ..DoorSettings::default() };
    let stopping = stop.clone();
    let serving = thread::spawn(move || door::serve(listener, Arc::new(Fixed), Notices::default(), settings, stopping));
    let worked = work();
    stop.trigger(Duration::ZERO);
    match serving.join() {
        Ok(served) => worked.and(served),
        Err(_) => anyhow::bail!("the door has panicked"),
    }
}

fn measure(name: &str, span: Duration, connect: Connect<'_>) -> anyhow::Result<()> {
    for connections in CONNECTIONS {
        // One after the other, each proven: tiny_http leaves some of several new connections unanswered.
        let mut streams = Vec::new();
        for _ in 0..connections {
            let mut stream = connect()?;
            ask(&mut *stream)?;
            streams.push(stream);
        }
        let start = Instant::now();
        let times = thread::scope(|scope| {
            let parts: Vec<_> =
                streams.into_iter().map(|stream| scope.spawn(move || one(stream, start, span))).collect();
            parts.into_iter().map(|part| part.join().expect("no panic")).collect::<anyhow::Result<Vec<_>>>()
        })?
        .concat();
        row(name, connections, times, start.elapsed());
    }
    Ok(())
}

/// Prints it, and brings how many there were a second.
fn row(name: &str, connections: usize, mut times: Vec<Duration>, over: Duration) -> f64 {
    times.sort_unstable();
    // A machine that is busy with other things may not get to it at all.
    let at =
        |part: usize| times.get(times.len().saturating_sub(1) * part / 100).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = times.len() as f64 / over.as_secs_f64();
    println!("| {name} | {connections} | {rate:.0} | {:.2} | {:.2} |", at(50), at(99));
    rate
}

fn one(mut stream: Box<dyn Stream>, start: Instant, span: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    while start.elapsed() < span {
        let asked = Instant::now();
        ask(&mut *stream)?;
        times.push(asked.elapsed());
    }
    Ok(times)
}

fn ask(stream: &mut dyn Stream) -> anyhow::Result<()> {
    stream.write_all(ASK)?;
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(BODY) {
        match stream.read(&mut answer[length..])? {
            0 => anyhow::bail!("the connection has ended: {}", answer[..length].escape_ascii()),
            more => length += more,
        }
    }
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer[..length].escape_ascii());
    Ok(())
}
