//! The thread of a server that follows: it makes the link to whoever leads, and makes it again when it breaks.

use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::ServerName;
use tokio::io::split;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::advertised::Advertised;
use super::following::Shared;
use super::frame::{Down, Up};
use super::greeting::{self, Hello};
use super::key;
use super::limits::{LINK_GREETING_MS, LINK_PAUSE_MAX_MS, LINK_PAUSE_MIN_MS};
use super::pipe::{self, Broken, Reader};
use super::table::Generation;
use crate::store::log::head::{Head, Leader};

/// Another server that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// Its name says how to reach it ([`Advertised`]), and its run is the secret.
    pub leader: Leader,
    pub term: u64,
    /// The id of the store that both are on.
    pub store: String,
}

impl There {
    /// Who leads by this head.
    #[must_use]
    pub fn of(head: &Head, store: &str) -> Self {
        Self { leader: head.leader.clone(), term: head.term, store: store.to_owned() }
    }
}

/// Follows whoever leads, until nobody can say any more who that is.
pub(super) async fn follow(shared: &Shared, mut lead: watch::Receiver<Option<There>>) {
    let mut pause = LINK_PAUSE_MIN_MS;
    let mut said = String::new();
    loop {
        let there = lead.borrow_and_update().clone();
        let Some(there) = there else {
            match lead.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let mut link = None;
        let ended = tokio::select! {
            biased;
            changed = lead.changed() => match changed {
                Ok(()) => None,
                Err(_) => return,
            },
            ended = follow_one(shared, &there, &mut link) => Some(ended),
        };
        if let Some(link) = link {
            let changed = shared.table().broken(link, Instant::now());
            shared.notify(changed);
            (pause, said) = (LINK_PAUSE_MIN_MS, String::new());
        }
        let Some(ended) = ended else { continue };
        let reason = ended.map_or_else(|error| format!("{error:#}"), |()| "it has ended".to_owned());
        if said != reason {
            // The name has no secret: everybody who connects sees the key.
            tracing::warn!(target: "locker::link", leader = there.leader.name, reason, "no link to the leader");
            said = reason;
        }
        tokio::select! {
            () = sleep(Duration::from_millis(pause)) => {}
            changed = lead.changed() => if changed.is_err() {
                return;
            } else {
                lead.mark_changed();
            }
        }
        pause = (pause * 2).min(LINK_PAUSE_MAX_MS);
    }
}

/// One link, from the connection to its end.
async fn follow_one(shared: &Shared, there: &There, link: &mut Option<Generation>) -> anyhow::Result<()> {
    let greeting = timeout(Duration::from_millis(LINK_GREETING_MS), greet(shared.server, there)).await;
    let (mut reader, writer) = greeting.context("it does not answer")??;
    let (orders, ordered) = mpsc::unbounded_channel();
    let Some(generation) = shared.table().linked(orders) else {
        // Whoever has said so is about to end this.
        return std::future::pending().await;
    };
    *link = Some(generation);
    tracing::info!(target: "locker::link", leader = there.leader.name, term = there.term, "linked to the leader");
    let reading = async {
        loop {
            let (frame, payload) = reader.next::<Down>().await?;
            let arrived = shared.table().arrived(generation, frame, payload, Instant::now())?;
            let Some(arrived) = arrived else { continue };
            if let Some(client) = arrived.client {
                shared.known.note(client);
            }
            if arrived.is_news {
                shared.notify([arrived.number]);
            }
        }
    };
    let ended: Result<(), Broken> = tokio::select! {
        ended = reading => ended,
        ended = pipe::write::<Up, _>(writer, ordered, |order| shared.table().out(generation, order)) => ended,
    };
    Ok(ended?)
}

pub(super) type Greeted =
    (Reader<tokio::io::ReadHalf<TlsStream<TcpStream>>>, tokio::io::WriteHalf<TlsStream<TcpStream>>);

pub(super) async fn greet(server: u128, there: &There) -> anyhow::Result<Greeted> {
    let Advertised { address, key } = there.leader.name.parse()?;
    let stream = TcpStream::connect(&address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    // The key is what counts; no name is sent.
    let name = ServerName::try_from("locker").context("the name of the link")?;
    let connector = TlsConnector::from(key::only(key)?);
    let stream = connector.connect(name, stream).await.context("it does not prove that it is the leader")?;
    let (reader, mut writer) = split(stream);
    let mut reader = Reader::new(reader);
    let hello = Hello {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        store: there.store.clone(),
        term: there.term,
        secret: there.leader.run.into(),
        server,
    };
    greeting::introduce(&mut reader, &mut writer, &hello).await?;
    Ok((reader, writer))
}
