//! The databases below the servers, and what happens to them.

use std::net::SocketAddr;

use super::etcd::{self, OnEtcd};
use super::faults::Fault;
use super::nodes::{Place, SERVERS};
use super::postgres::{self, OnPostgres};

/// A database.
pub enum Base {
    Postgres(Box<OnPostgres>),
    Etcd(Box<OnEtcd>),
}

impl Base {
    pub fn postgres() -> Self {
        Self::Postgres(Box::new(OnPostgres::start()))
    }

    pub fn etcd() -> Self {
        Self::Etcd(Box::new(OnEtcd::start()))
    }

    /// Where the servers find it: a new log for each `round`.
    pub fn place(&self, round: usize) -> Place<'_> {
        match self {
            Self::Postgres(postgres) => Place {
                members: (0..SERVERS).map(|server| vec![postgres.address(server)]).collect(),
                url: Box::new(move |members: &[SocketAddr]| {
                    format!("postgres://postgres@{}/postgres?sslmode=disable&schema=round{round}", members[0])
                }),
            },
            Self::Etcd(etcd) => Place {
                members: vec![etcd.addresses(); SERVERS],
                url: Box::new(move |members: &[SocketAddr]| {
                    let members: Vec<String> = members.iter().map(SocketAddr::to_string).collect();
                    format!("etcd:{}?tls=off&prefix=round{round}/", members.join(","))
                }),
            },
        }
    }

    /// What may happen to it.
    pub fn faults(&self) -> &'static [Fault] {
        match self {
            Self::Postgres(_) => postgres::FAULTS,
            Self::Etcd(_) => etcd::FAULTS,
        }
    }
}
