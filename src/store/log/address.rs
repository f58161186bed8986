//! From the address of a store to a log in a database.

use std::time::Duration;

use super::{Log, Trouble};

/// Which database has the log. It contains no secret, only the names of files.
#[derive(Debug, Clone)]
pub enum LogAddress {
    #[cfg(feature = "etcd")]
    Etcd(super::etcd::address::Address),
    #[cfg(feature = "postgres")]
    Postgres(Box<super::postgres::address::Address>),
    /// A log in this process, for tests.
    #[cfg(any(test, feature = "plant"))]
    Memory(super::memory::MemoryLog),
    /// A log with a planted bug.
    #[cfg(any(test, feature = "plant"))]
    Planted(Box<Self>, super::plant::Plant),
}

impl LogAddress {
    /// The address that `uri` is, if it begins like that of a log. An error never quotes it, for it may contain a
    /// password that does not belong there.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Result<Self, String>> {
        let (scheme, _) = uri.split_once(':')?;
        match scheme {
            #[cfg(feature = "etcd")]
            "etcd" => Some(uri.parse().map(Self::Etcd).map_err(|why| format!("store etcd:...: {why}"))),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Some(
                uri.parse().map(Box::new).map(Self::Postgres).map_err(|why| format!("store {scheme}://...: {why}")),
            ),
            #[cfg(not(all(feature = "etcd", feature = "postgres")))]
            "etcd" | "postgres" | "postgresql" => {
                Some(Err(format!("store {scheme}:...: this locker was built without support for it")))
            }
            _ => None,
        }
    }

    /// The same; if it is an etcd, this program compacts it.
    #[must_use]
    pub fn compacted(self) -> Self {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(address) => Self::Etcd(address.compacted()),
            other => other,
        }
    }

    /// Reads the files that it names, which are read again for each connection.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn check(&self) -> Result<(), String> {
        let credentials = match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(address) => &address.credentials,
            #[cfg(feature = "postgres")]
            Self::Postgres(address) => address.credentials(),
            #[cfg(any(test, feature = "plant"))]
            Self::Memory(_) => return Ok(()),
            #[cfg(any(test, feature = "plant"))]
            Self::Planted(address, _) => return address.check(),
        };
        let read = credentials.tls().map(drop).and_then(|()| credentials.password().map(drop));
        read.map_err(|why| format!("--store: {why}"))
    }

    /// Connects. `patience` is how long each call may take.
    ///
    /// # Errors
    /// The database cannot be reached, or is not set up as a log needs it.
    pub fn open(&self, patience: Duration) -> Result<Box<dyn Log>, Trouble> {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd(address) => Ok(Box::new(super::etcd::EtcdLog::open(address.clone(), patience)?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(address) => Ok(Box::new(super::postgres::PostgresLog::open(*address.clone(), patience)?)),
            #[cfg(any(test, feature = "plant"))]
            Self::Memory(log) => Ok(Box::new(log.clone())),
            #[cfg(any(test, feature = "plant"))]
            Self::Planted(address, plant) => {
                let log = address.open(patience)?;
                Ok(Box::new(super::plant::Planted { log, plant: *plant }))
            }
        }
    }

    /// The bug that is planted in it.
    #[cfg(any(test, feature = "plant"))]
    #[must_use]
    pub fn plant(&self) -> Option<super::plant::Plant> {
        if let Self::Planted(_, plant) = self { Some(*plant) } else { None }
    }
}
