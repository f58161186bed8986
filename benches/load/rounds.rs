//! Cycles of all contenders, in rounds: the speed of a machine drifts, so each round asks everybody once, and only what
//! was measured within one round is set against each other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::contenders::{Contender, Running, Store};
use super::taker::Taker;
use super::{CONNECTIONS, cpu_ticks, row};

const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(500);
/// The kernel counts CPU time in hundredths of a second.
const TICK_US: f64 = 10_000.0;

/// What one round has shown of one contender, for each number of connections.
struct Round {
    per_second: Vec<f64>,
    /// CPU time of the server for one cycle, in microseconds; only Locker's.
    cpu_us: Vec<f64>,
}

/// A contender and its rounds; none if it is not installed.
type Measured = (Contender, Vec<Round>);

/// Prints a row for each measurement, and brings the table of medians and ratios.
pub async fn all(stores: &[Store], span: Duration) -> anyhow::Result<String> {
    let contenders = stores.iter().map(|store| Contender::Locker(*store)).chain(Contender::PEERS);
    let mut measured: Vec<Measured> = contenders.map(|contender| (contender, Vec::new())).collect();
    for turn in 1..=ROUNDS {
        for (contender, rounds) in &mut measured {
            match contender.start()? {
                Some(running) => rounds.push(round(*contender, &running, turn, span).await?),
                None if turn == 1 => println!("| {} | - | - | - | not installed |", contender.name()),
                None => {}
            }
        }
    }
    Ok(table(&measured))
}

async fn round(contender: Contender, running: &Running, turn: usize, span: Duration) -> anyhow::Result<Round> {
    Taker::prepare(contender, running.address).await?;
    let what = format!("{}: {}", contender.name(), contender.cycle());
    let mut round = Round { per_second: Vec::new(), cpu_us: Vec::new() };
    for connections in CONNECTIONS {
        let before = running.locker().map(cpu_ticks).transpose()?;
        let (mut spans, turns) = cycles(contender, running.address, connections, span).await?;
        if let (Some(server), Some(before)) = (running.locker(), before) {
            round.cpu_us.push((cpu_ticks(server)? - before) as f64 * TICK_US / turns as f64);
        }
        round.per_second.push(spans.len() as f64 / span.as_secs_f64());
        row(&what, &mut spans, Some(span), &format!("{connections} connections, round {turn}"));
    }
    Ok(round)
}

/// Take and give on each connection, as fast as the answers come: the times of the cycles in `span`, and how many cycles
/// there were in all.
async fn cycles(
    contender: Contender,
    address: SocketAddr,
    connections: usize,
    span: Duration,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let mut takers = Vec::new();
    for index in 0..connections {
        takers.push(Taker::open(contender, address, &format!("bench-{connections}-{index}")).await?);
    }
    let start = Instant::now() + WARM_UP;
    let tasks: Vec<_> = takers.into_iter().map(|taker| tokio::spawn(one(taker, start, span))).collect();
    let (mut all, mut turns) = (Vec::new(), 0);
    for task in tasks {
        let (spans, more) = task.await??;
        all.extend(spans);
        turns += more;
    }
    Ok((all, turns))
}

async fn one(mut taker: Taker, start: Instant, span: Duration) -> anyhow::Result<(Vec<Duration>, usize)> {
    let (mut spans, mut turns) = (Vec::with_capacity(100_000), 0);
    loop {
        let began = Instant::now();
        taker.take().await?;
        taker.give().await?;
        turns += 1;
        let now = Instant::now();
        if now > start + span {
            return Ok((spans, turns));
        }
        if began >= start {
            spans.push(now - began);
        }
    }
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
    for (contender, rounds) in present().filter(|(_, rounds)| !rounds[0].cpu_us.is_empty()) {
        let what = format!("{}, CPU of the server for one cycle, us", contender.name());
        table += &line(&what, 0, |index| rounds.iter().map(|round| round.cpu_us[index]).collect());
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
