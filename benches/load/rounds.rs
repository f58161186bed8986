//! Cycles of all contenders, in rounds: the speed of a machine drifts, so each round asks everybody once, and only what
//! was measured within one round is set against each other.

use std::time::Duration;

use super::contenders::{Contender, Running, Store};
use super::generator::{Load, run};
use super::taker::Taker;
use super::{CONNECTIONS, row};

const ROUNDS: usize = 3;

/// What one round has shown of one contender, for each number of connections.
struct Round {
    per_second: Vec<f64>,
    /// CPU time for one cycle, in microseconds: the server's, where it is one process, and the generator's.
    server_us: Vec<f64>,
    generator_us: Vec<f64>,
}

impl Round {
    fn server(&self) -> &[f64] {
        &self.server_us
    }

    fn generator(&self) -> &[f64] {
        &self.generator_us
    }
}

/// A contender and its rounds; none if it is not installed.
type Measured = (Contender, Vec<Round>);

/// Prints a row for each measurement, and brings the table of medians and ratios.
pub fn all(stores: &[Store], span: Duration) -> anyhow::Result<String> {
    // Beside servers on shared stores, what is below them says enough.
    let is_peer = |peer: &Contender| stores.iter().any(|store| store.below().is_none_or(|below| below == *peer));
    let peers = Contender::PEERS.into_iter().filter(is_peer);
    let contenders = stores.iter().map(|store| Contender::Locker(*store)).chain(peers);
    let mut measured: Vec<Measured> = contenders.map(|contender| (contender, Vec::new())).collect();
    for turn in 1..=ROUNDS {
        for (contender, rounds) in &mut measured {
            match contender.start()? {
                Some(running) => rounds.push(round(*contender, &running, turn, span)?),
                None if turn == 1 => println!("| {} | - | - | - | not installed |", contender.name()),
                None => {}
            }
        }
    }
    Ok(table(&measured))
}

fn round(contender: Contender, running: &Running, turn: usize, span: Duration) -> anyhow::Result<Round> {
    Taker::prepare(contender, running.address)?;
    let what = format!("{}: {}", contender.name(), contender.cycle());
    let mut round = Round { per_second: Vec::new(), server_us: Vec::new(), generator_us: Vec::new() };
    for connections in CONNECTIONS {
        let lock = |index| format!("bench-{connections}-{index}");
        let open = |index| Taker::open(contender, running.address, &lock(index));
        let takers = (0..connections).map(open).collect::<anyhow::Result<_>>()?;
        let before = running.cpu()?;
        let Load { mut spans, turns, cpu } = run(takers, span)?;
        let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / turns as f64;
        round.server_us.extend(running.cpu()?.zip(before).map(|(after, before)| us(after.saturating_sub(before))));
        round.generator_us.push(us(cpu));
        round.per_second.push(spans.len() as f64 / span.as_secs_f64());
        row(&what, &mut spans, Some(span), &format!("{connections} connections, round {turn}"));
    }
    Ok(round)
}

fn table(measured: &[Measured]) -> String {
    let mut lines = vec![format!("medians of {ROUNDS} rounds, by connections")];
    lines.extend(CONNECTIONS.map(|connections| connections.to_string()));
    let mut table = format!("\n| {} |\n|---|{}\n", lines.join(" | "), "---|".repeat(CONNECTIONS.len()));
    let ours = measured.iter().find(|(contender, _)| *contender == Contender::Locker(Store::Sqlite));
    let present = || measured.iter().filter(|(_, rounds)| !rounds.is_empty());
    for (contender, rounds) in present() {
        let what = format!("{}, cycles a second", contender.name());
        table += &line(&what, 0, |index| rounds.iter().map(|round| round.per_second[index]).collect());
    }
    for (contender, rounds) in present() {
        let Some((we, ours)) = ours.filter(|(we, _)| we != contender) else { continue };
        let what = format!("{}: times as many as {}", we.name(), contender.name());
        let ratio = |index: usize| ours.iter().zip(rounds).map(move |(o, t)| o.per_second[index] / t.per_second[index]);
        table += &line(&what, 2, |index| ratio(index).collect());
    }
    for (contender, ours) in present() {
        // One server on a shared store, beside what its database does by itself.
        let Contender::Locker(store) = contender else { continue };
        let below = measured.iter().find(|(other, rounds)| Some(*other) == store.below() && !rounds.is_empty());
        let Some((below, rounds)) = below else { continue };
        let what = format!("{}: times as many as {}", contender.name(), below.name());
        let ratio = |index: usize| ours.iter().zip(rounds).map(move |(o, t)| o.per_second[index] / t.per_second[index]);
        table += &line(&what, 2, |index| ratio(index).collect());
    }
    for (whose, cpu) in [("server", Round::server as fn(&Round) -> &[f64]), ("generator", Round::generator)] {
        for (contender, rounds) in present().filter(|(_, rounds)| !cpu(&rounds[0]).is_empty()) {
            let what = format!("{}: CPU of the {whose} for one cycle, us", contender.name());
            table += &line(&what, 0, |index| rounds.iter().map(|round| cpu(round)[index]).collect());
        }
    }
    table
}

/// A row of medians with so many decimals; `values` brings what the rounds have shown at the number of connections with
/// this index.
fn line(what: &str, decimals: usize, values: impl Fn(usize) -> Vec<f64>) -> String {
    let median = |index| {
        let mut values = values(index);
        values.sort_by(f64::total_cmp);
        format!("{:.decimals$}", values[values.len() / 2])
    };
    let cells: Vec<String> = (0..CONNECTIONS.len()).map(median).collect();
    format!("| {what} | {} |\n", cells.join(" | "))
}
