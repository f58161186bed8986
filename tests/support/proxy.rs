//! A TCP proxy that understands just enough HTTP to lose, cut, delay, repeat and stop chosen messages between a client
//! and a server. Rules decide what it does, or a seed that makes the run repeatable.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What happens to one request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Both go through.
    Pass,
    /// The request is lost, and the connection ends.
    LoseRequest,
    /// The server acts, but the answer is lost, and the connection ends.
    LoseAnswer,
    /// Half of the answer arrives before the connection ends.
    CutAnswer,
    /// The server gets the request twice; the second answer arrives.
    Twice,
    /// The server acts, but a gateway that has lost it answers instead.
    BadGateway,
    /// The request arrives after a while.
    Delay(Duration),
    /// Stops the request until the test lets it go on.
    StopRequest,
    /// Stops the answer until the test lets it go on.
    StopAnswer,
}

/// All acts that can happen in a real network.
pub const FAULTS: [Act; 6] = [
    Act::LoseRequest,
    Act::LoseAnswer,
    Act::CutAnswer,
    Act::Twice,
    Act::BadGateway,
    Act::Delay(Duration::from_millis(150)),
];

#[derive(Default)]
struct State {
    /// A request whose first line contains the text gets the act, once.
    rules: Vec<(String, Act)>,
    /// Random faults from this seed.
    seed: Option<u64>,
    /// First lines of all requests so far.
    seen: Vec<String>,
    /// A message has been stopped.
    stopped: bool,
    /// Stopped messages may go on.
    go: bool,
    /// Requests that are not finished.
    underway: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    server: Mutex<String>,
    closed: AtomicBool,
}

/// A running proxy.
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy in front of the server at this URL.
    pub fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            server: Mutex::new(server.trim_start_matches("http://").to_owned()),
            closed: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::Relaxed) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // A connection that breaks is what this proxy is for.
                std::thread::spawn(move || drop(serving.connection(client)));
            }
        });
        Self { url, shared }
    }

    /// The next request whose first line contains `line` gets `act`.
    pub fn rule(&self, line: &str, act: Act) {
        self.shared.state.lock().unwrap().rules.push((line.to_owned(), act));
    }

    /// About one message in three gets a fault, decided by this seed.
    pub fn chaos(&self, seed: u64) {
        self.shared.state.lock().unwrap().seed = Some(seed | 1);
    }

    /// No more faults.
    pub fn calm(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.seed = None;
        state.rules.clear();
    }

    /// Waits until a message has been stopped.
    pub fn until_stopped(&self) {
        let state = self.shared.state.lock().unwrap();
        let limit = super::PATIENCE;
        let (state, _) = self.shared.changed.wait_timeout_while(state, limit, |s| !s.stopped).unwrap();
        assert!(state.stopped, "no message was stopped within {limit:?}; seen: {:?}", state.seen);
    }

    /// Lets stopped messages continue.
    pub fn go(&self) {
        self.shared.state.lock().unwrap().go = true;
        self.shared.changed.notify_all();
    }

    /// Waits until every request so far is finished.
    pub fn until_idle(&self) {
        super::eventually("an idle proxy", || (self.shared.state.lock().unwrap().underway == 0).then_some(()));
    }

    /// First lines of the requests so far that contain the text.
    pub fn seen(&self, line: &str) -> usize {
        self.shared.state.lock().unwrap().seen.iter().filter(|seen| seen.contains(line)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.go();
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

impl Shared {
    fn act(&self, line: &str) -> Act {
        let mut state = self.state.lock().unwrap();
        state.underway += 1;
        state.seen.push(line.to_owned());
        if let Some(found) = state.rules.iter().position(|(text, _)| line.contains(text)) {
            return state.rules.remove(found).1;
        }
        let Some(seed) = &mut state.seed else { return Act::Pass };
        // An xorshift generator: enough to choose with.
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        let choice = usize::try_from(*seed % (FAULTS.len() as u64 * 3)).unwrap();
        FAULTS.get(choice).copied().unwrap_or(Act::Pass)
    }

    fn stop(&self) {
        let mut state = self.state.lock().unwrap();
        state.stopped = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |s| !s.go).unwrap());
    }

    /// One connection of the client. Each request goes to the server on a new connection.
    fn connection(&self, mut client: TcpStream) -> io::Result<()> {
        while let Some(request) = read_message(&mut client)? {
            let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
            let act = self.act(&line);
            let goes_on = self.exchange(&mut client, &request, act);
            self.state.lock().unwrap().underway -= 1;
            if !goes_on? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One request and its answer. Returns whether the connection stays open.
    fn exchange(&self, client: &mut TcpStream, request: &[u8], act: Act) -> io::Result<bool> {
        match act {
            Act::LoseRequest => return Ok(false),
            Act::Delay(span) => std::thread::sleep(span),
            Act::StopRequest => self.stop(),
            Act::Twice => drop(self.ask(request, None)),
            _ => {}
        }
        // A late request continues although its client may have disconnected.
        let watched = (act != Act::StopRequest).then_some(&*client);
        let answer = self.ask(request, watched)?;
        match act {
            Act::LoseAnswer => return Ok(false),
            Act::CutAnswer => {
                client.write_all(&answer[..answer.len() / 2])?;
                return Ok(false);
            }
            Act::BadGateway => {
                client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops")?;
                return Ok(true);
            }
            Act::StopAnswer => self.stop(),
            _ => {}
        }
        client.write_all(&answer)?;
        Ok(true)
    }

    /// The server's answer. When `client` disconnects in the meantime, the server sees it, too.
    fn ask(&self, request: &[u8], client: Option<&TcpStream>) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&*self.server.lock().unwrap())?;
        server.write_all(request)?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if let Some(client) = client {
                let (done, other) = (&done, server.try_clone()?);
                scope.spawn(move || {
                    if ended(client, done) {
                        // It may have ended already.
                        let _ = other.shutdown(Shutdown::Both);
                    }
                });
            }
            let answer = read_message(&mut server);
            done.store(true, Ordering::Relaxed);
            answer?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }
}

/// Waits until the client has closed its side, or until `done`.
fn ended(client: &TcpStream, done: &AtomicBool) -> bool {
    let Ok(client) = client.try_clone() else { return false };
    let _ = client.set_read_timeout(Some(Duration::from_millis(10)));
    let gone = loop {
        if done.load(Ordering::Relaxed) {
            break false;
        }
        match client.peek(&mut [0]) {
            Ok(0) => break true,
            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => break true,
        }
    };
    let _ = client.set_read_timeout(None);
    gone
}

/// One whole request or answer with a declared length; `None` at the end of the connection.
pub fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(head) = message.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if message.len() >= head + 4 + length.unwrap_or(0_usize) {
                return Ok(Some(message));
            }
        }
        if Instant::now() > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut chunk) {
            Ok(0) if message.is_empty() => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => message.extend_from_slice(&chunk[..read]),
            // `ended` sets a timeout on the same socket for a moment.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}
