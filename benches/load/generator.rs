//! The load itself. One thread serves all connections: a write and a read for each request, prepared bytes, and a wait for
//! whoever is answered next. That is what `redis-benchmark` and its like do. It is the same for all contenders, and takes
//! as little as it can of the processors that it shares with them. What it takes is measured, too.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::ensure;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::taker::{Protocol, Step, Taker};

const WARM_UP: Duration = Duration::from_millis(500);
/// More answers than one look at the sockets brings.
const EVENTS: usize = 1024;
/// Longer than any answer.
const ANSWER: usize = 16 * 1024;

/// What a load has shown.
pub struct Load {
    /// The times of the cycles within the span.
    pub spans: Vec<Duration>,
    /// How many cycles there were in all.
    pub turns: usize,
    /// CPU time of this process.
    pub cpu: Duration,
}

/// Take and give on each connection, as fast as the answers come.
pub fn run(takers: Vec<Taker>, span: Duration) -> anyhow::Result<Load> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let before = cpu()?;
    let mut clients = Vec::with_capacity(takers.len());
    for (index, taker) in takers.into_iter().enumerate() {
        let mut client = Client::new(taker)?;
        poll.registry().register(&mut client.stream, Token(index), Interest::READABLE)?;
        clients.push(client);
    }
    let start = Instant::now() + WARM_UP;
    let end = start + span;
    for client in &mut clients {
        client.begin(Instant::now())?;
    }
    let (mut spans, mut turns, mut running) = (Vec::with_capacity(1_000_000), 0, clients.len());
    while running > 0 {
        if let Err(error) = poll.poll(&mut events, None) {
            ensure!(error.kind() == ErrorKind::Interrupted, error);
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            if !client.read()? {
                continue;
            }
            let now = Instant::now();
            turns += 1;
            if client.began >= start && now <= end {
                spans.push(now - client.began);
            }
            if now <= end {
                client.begin(now)?;
            } else {
                running -= 1;
            }
        }
    }
    Ok(Load { spans, turns, cpu: cpu()?.saturating_sub(before) })
}

/// User and system time of this process.
fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let us = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Ok(Duration::from_micros(u64::try_from(us(usage.user_time()) + us(usage.system_time()))?))
}

struct Client {
    stream: TcpStream,
    protocol: Protocol,
    steps: [Step; 2],
    /// Which of the steps waits for its answer.
    step: usize,
    turn: usize,
    /// When the cycle began.
    began: Instant,
    answer: Vec<u8>,
    got: usize,
}

impl Client {
    fn new(taker: Taker) -> anyhow::Result<Self> {
        let Taker { stream, protocol, steps } = taker;
        stream.set_nonblocking(true)?;
        let (stream, answer) = (TcpStream::from_std(stream), vec![0; ANSWER]);
        Ok(Self { stream, protocol, steps, step: 0, turn: 0, began: Instant::now(), answer, got: 0 })
    }

    fn begin(&mut self, now: Instant) -> anyhow::Result<()> {
        (self.step, self.began) = (0, now);
        self.send()
    }

    /// A request is short, and the one before it has been answered: there is room for it.
    fn send(&mut self) -> anyhow::Result<()> {
        self.got = 0;
        Ok(self.stream.write_all(self.steps[self.step].request(self.turn))?)
    }

    /// Reads what has come, and sends the next request of the cycle. True at the end of a cycle.
    fn read(&mut self) -> anyhow::Result<bool> {
        loop {
            match self.stream.read(&mut self.answer[self.got..]) {
                Ok(more) => {
                    ensure!(more > 0, "the connection was closed");
                    self.got += more;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            // Whatever comes after a whole answer comes because of the next request, and is told again.
            if self.steps[self.step].is_answered(self.protocol, &self.answer[..self.got])? {
                break;
            }
        }
        if self.step == 0 {
            self.step = 1;
            self.send()?;
            return Ok(false);
        }
        self.turn += 1;
        Ok(true)
    }
}
