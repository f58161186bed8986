//! Messages in transit and all other scheduled events, in the order of virtual time.

use std::collections::BTreeMap;

use super::Ms;
use crate::core::command::{Command, Reply};
use crate::core::names::ParkId;
use crate::server::engine::EngineError;

/// Pseudo-random numbers (`SplitMix64`). The same seed gives the same numbers in every run.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1))
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn fork(&mut self) -> Self {
        Self(self.roll())
    }
}

/// A request in transit.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub client: usize,
    /// The client accepts only the answer to its last call.
    pub call: u64,
    pub command: Command,
    /// A duplicate that the network made; the client did not send it.
    pub is_copy: bool,
}

/// What a client learns about its call.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    Answer(Result<Reply, EngineError>),
    /// The connection broke, or no answer came in time.
    Nothing,
}

#[derive(Debug, Clone)]
pub(super) enum Event {
    /// The server starts again.
    Start,
    /// A message reaches the server.
    Arrive(Message),
    /// The door notices that the client is gone.
    Left(ParkId),
    /// A client's process continues. Ignored if that process has ended meanwhile.
    Act { client: usize, process: u32 },
    /// A client learns the outcome of its call.
    Answer { client: usize, call: u64, heard: Heard },
}

/// What a client does next: at most one request with its timeout, and when the client continues on its own.
#[derive(Debug, Default)]
pub(super) struct Acts {
    pub send: Option<(Message, Ms)>,
    pub later: Option<(Ms, Event)>,
}

pub(super) struct Network {
    dice: Dice,
    events: BTreeMap<(Ms, u64), Event>,
    next: u64,
    pub lost: u64,
}

impl Network {
    pub fn new(dice: Dice) -> Self {
        Self { dice, events: BTreeMap::new(), next: 0, lost: 0 }
    }

    pub fn at(&mut self, time: Ms, event: Event) {
        self.events.insert((time, self.next), event);
        self.next += 1;
    }

    pub fn next_at(&self) -> Option<Ms> {
        self.events.keys().next().map(|(time, _)| *time)
    }

    pub fn take(&mut self) -> Option<Event> {
        self.events.pop_first().map(|(_, event)| event)
    }

    /// How long the next message takes. `None` if it is lost.
    fn delay(&mut self, stormy: bool) -> Option<Ms> {
        if !stormy {
            return Some(1 + self.dice.below(5));
        }
        match self.dice.below(16) {
            0 => {
                self.lost += 1;
                None
            }
            1 => Some(self.dice.below(30_000)),
            _ => Some(1 + self.dice.below(50)),
        }
    }

    pub fn send(&mut self, acts: Acts, now: Ms, stormy: bool) {
        if let Some((message, patience)) = acts.send {
            let nothing = Event::Answer { client: message.client, call: message.call, heard: Heard::Nothing };
            self.at(now + patience, nothing);
            if stormy && self.dice.one_in(10) {
                let copy = Message { is_copy: true, ..message.clone() };
                let delay = self.dice.below(30_000);
                self.at(now + delay, Event::Arrive(copy));
            }
            if let Some(delay) = self.delay(stormy) {
                self.at(now + delay, Event::Arrive(message));
            }
        }
        if let Some((time, event)) = acts.later {
            self.at(time, event);
        }
    }

    /// The connection of this call breaks.
    pub fn reset(&mut self, now: Ms, client: usize, call: u64) {
        let delay = self.dice.below(50);
        self.at(now + delay, Event::Answer { client, call, heard: Heard::Nothing });
    }

    pub fn answer(&mut self, now: Ms, message: &Message, result: Result<Reply, EngineError>, stormy: bool) {
        if message.is_copy {
            return;
        }
        if let Some(delay) = self.delay(stormy) {
            let heard = Heard::Answer(result);
            self.at(now + delay, Event::Answer { client: message.client, call: message.call, heard });
        }
    }

    /// Messages in transit are lost, but copies of old messages still arrive: no network can recall them.
    pub fn calm_down(&mut self, now: Ms) {
        for (_, event) in std::mem::take(&mut self.events) {
            match event {
                Event::Arrive(message) if message.is_copy => {
                    let delay = self.dice.below(5_000);
                    self.at(now + delay, Event::Arrive(message));
                }
                Event::Left(park) => self.at(now + 1, Event::Left(park)),
                _ => {}
            }
        }
    }
}
