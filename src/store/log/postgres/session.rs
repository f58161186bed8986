//! One connection, and what makes its answers certain.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Error, Row, SimpleQueryMessage, SimpleQueryRow};

use super::address::{Address, Server};
use super::change::Statement;
use super::row::get;
use super::tls::MakeTls;
use super::{Cause, Param, Trouble};
use crate::client::trust;
use crate::store::log::head::Id;

/// What every connection must be. A pooler may use another connection for the next statement; but what can differ
/// between two of them is set for the whole database or user. The names are those of the settings.
const CHECK: &str = "SELECT
    current_setting('server_version_num')::int AS version,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('default_transaction_isolation') AS isolation,
    current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery() AS read_only,
    current_setting('statement_timeout') AS statement_timeout,
    coalesce(current_setting('transaction_timeout', true), '0') AS transaction_timeout,
    current_setting('fsync') AS fsync,
    quote_ident(current_user) AS role";
/// The oldest release that the tests have run against, as `server_version_num` has it.
const OLDEST: i32 = 130_000;

/// What drives a connection; without it no answer arrives.
trait Driver: Send {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>>;
}

impl<S, T> Driver for tokio_postgres::Connection<S, T>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> {
        tokio_postgres::Connection::poll_message(self, cx)
    }
}

/// One connection.
pub(super) struct Session {
    client: Client,
    driver: Box<dyn Driver>,
    /// The names of the statements that were prepared here, by their text.
    prepared: HashMap<String, String>,
}

impl Session {
    pub fn connect(runtime: &Runtime, address: &Address, patience: Duration) -> Result<Self, Trouble> {
        runtime.block_on(Self::connect_now(address, patience))
    }

    /// Connects to the first server that is what it must be. Each server, and each address of its name, has its share of the
    /// time that is left: so a server that has died without a word does not keep others from being tried.
    pub async fn connect_now(address: &Address, patience: Duration) -> Result<Self, Trouble> {
        let until = Instant::now() + patience;
        let mut troubles = Vec::new();
        for (number, server) in address.servers().iter().enumerate() {
            let until = Instant::now() + share(until, address.servers().len() - number);
            let found = match in_time(share(until, 1), server.resolved()).await {
                Ok(found) => found,
                Err(trouble) => {
                    troubles.push((server.to_string(), trouble));
                    continue;
                }
            };
            for (number, server) in found.iter().enumerate() {
                match in_time(share(until, found.len() - number), Self::connect_to(address, server)).await {
                    Ok(session) => return Ok(session),
                    Err(trouble) => troubles.push((server.to_string(), trouble)),
                }
            }
        }
        Err(of_all(troubles))
    }

    async fn connect_to(address: &Address, server: &Server) -> Result<Self, Trouble> {
        let failed = |text: String| Trouble::new(Cause::Failed, text);
        let config = server.config(&address.config().map_err(failed)?);
        let tls = address.credentials().tls().map_err(failed)?;
        let tls = MakeTls(trust::client_config(&tls, address.uses_tls()).map_err(failed)?);
        let (client, connection) = config.connect(tls).await.map_err(|error| trouble(&error))?;
        let mut session = Self { client, driver: Box::new(connection), prepared: HashMap::new() };
        let rows = session.rows_now(CHECK, &[]).await?;
        let row = rows.first().ok_or_else(|| failed("it has no settings".to_owned()))?;
        check(row)?;
        Ok(session)
    }

    /// The rows of a statement.
    pub fn rows(
        &mut self,
        runtime: &Runtime,
        sql: &str,
        params: &[Param<'_>],
        patience: Duration,
    ) -> Result<Vec<Row>, Trouble> {
        within(runtime, patience, self.rows_now(sql, params))
    }

    /// The same, with something else to do meanwhile.
    pub fn rows_beside(
        &mut self,
        runtime: &Runtime,
        sql: &str,
        params: &[Param<'_>],
        beside: impl Future<Output = Result<usize, Trouble>>,
        patience: Duration,
    ) -> Result<Vec<Row>, Trouble> {
        let both = async {
            let mut rows = pin!(self.rows_now(sql, params));
            tokio::select! {
                biased;
                rows = &mut rows => return rows,
                ended = beside => match ended {
                    Ok(ended) => tracing::warn!(ended, "sessions that blocked the head of the log were ended"),
                    Err(trouble) => tracing::warn!("sessions that block the head of the log cannot be ended: {trouble}"),
                },
            }
            rows.await
        };
        within(runtime, patience, both)
    }

    /// The rows of a statement that is prepared when it comes for the first time, with its values as SQL. `None`: it is not
    /// prepared where this connection ends now, and nothing was done.
    pub fn prepared_rows(
        &mut self,
        runtime: &Runtime,
        statement: &Statement<'_>,
        literals: &str,
        patience: Duration,
    ) -> Result<Option<Vec<SimpleQueryRow>>, Trouble> {
        within(runtime, patience, async {
            let name = match self.prepared.get(&statement.sql) {
                Some(name) => name.clone(),
                None => match self.prepare(statement).await? {
                    Some(name) => name,
                    None => return Ok(None),
                },
            };
            self.execute(&name, literals).await
        })
    }

    /// Prepares a statement. Its name is random, so nobody else has a statement of that name, whoever shares the
    /// connection behind a pooler. `None` if that is refused.
    async fn prepare(&mut self, statement: &Statement<'_>) -> Result<Option<String>, Trouble> {
        let id = Id::random().map_err(|error| Trouble::new(Cause::Failed, error.to_string()))?;
        let name = format!("locker_{id}");
        let Self { client, driver, prepared } = self;
        let text = format!("PREPARE {name} ({}) AS {}", statement.types(), statement.sql);
        match drive(&mut **driver, client.batch_execute(&text)).await.0 {
            Ok(()) => {
                prepared.insert(statement.sql.clone(), name.clone());
                Ok(Some(name))
            }
            Err(trouble) if trouble.cause == Cause::Failed => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    async fn execute(&mut self, name: &str, literals: &str) -> Result<Option<Vec<SimpleQueryRow>>, Trouble> {
        let Self { client, driver, .. } = self;
        let text = format!("EXECUTE {name}({literals})");
        let call = async {
            match client.simple_query(&text).await {
                Err(error) if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => Ok(None),
                answer => answer.map(Some),
            }
        };
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        let messages = certain(drive(&mut **driver, call).await)?;
        Ok(messages.map(|messages| messages.into_iter().filter_map(row).collect()))
    }

    /// Several statements without parameters, in one transaction.
    pub fn simple(&mut self, runtime: &Runtime, sql: &str, patience: Duration) -> Result<(), Trouble> {
        let Self { client, driver, .. } = self;
        within(runtime, patience, async {
            // Tables that exist already are worth a notice, so notices are not looked at.
            drive(&mut **driver, client.batch_execute(sql)).await.0
        })
    }

    pub async fn rows_now(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Trouble> {
        let Self { client, driver, .. } = self;
        certain(drive(&mut **driver, client.query_typed(sql, params)).await)
    }
}

/// An answer that came without a warning.
fn certain<T>((answer, warning): (Result<T, Trouble>, Option<String>)) -> Result<T, Trouble> {
    let answer = answer?;
    match warning {
        None => Ok(answer),
        // Such as "canceling wait for synchronous replication due to user request", which comes with a success.
        Some(warning) => Err(Trouble::new(Cause::Unsafe, warning)),
    }
}

/// Answers `call` by reading from the connection, and collects the last warning. The notices that arrive before the answer
/// belong to it: both come in order, and the notices are read first.
async fn drive<T>(
    driver: &mut dyn Driver,
    call: impl Future<Output = Result<T, Error>>,
) -> (Result<T, Trouble>, Option<String>) {
    let mut call = pin!(call);
    let mut warning = None;
    let answer = poll_fn(|cx| {
        let ended = loop {
            match driver.poll_message(cx) {
                Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                    if !matches!(notice.severity(), "DEBUG" | "LOG" | "INFO" | "NOTICE") {
                        warning = Some(notice.message().to_owned());
                    }
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => break Some(trouble(&error)),
                Poll::Ready(None) => break Some(Trouble::new(Cause::NoAnswer, "the connection has ended")),
                Poll::Pending => break None,
            }
        };
        match (call.as_mut().poll(cx), ended) {
            (Poll::Ready(answer), _) => Poll::Ready(answer.map_err(|error| trouble(&error))),
            // Nobody would ever answer it.
            (Poll::Pending, Some(ended)) => Poll::Ready(Err(ended)),
            (Poll::Pending, None) => Poll::Pending,
        }
    });
    (answer.await, warning)
}

/// Waits for an answer. When there is none, the connection is dropped by whoever has it; nothing is cancelled.
fn within<T>(
    runtime: &Runtime,
    patience: Duration,
    call: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    runtime.block_on(async { in_time(patience, call).await })
}

async fn in_time<T>(patience: Duration, call: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let answer = timeout(patience, call).await;
    answer.unwrap_or_else(|_| Err(Trouble::new(Cause::NoAnswer, format!("nothing for {patience:.1?}"))))
}

/// The share of one of so many that are left.
fn share(until: Instant, left: usize) -> Duration {
    until.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX)
}

/// What is wrong when no server is what it must be. The last one that has answered says most.
fn of_all(troubles: Vec<(String, Trouble)>) -> Trouble {
    if let [(_, only)] = &troubles[..] {
        return only.clone();
    }
    let answered = troubles.iter().rev().map(|(_, trouble)| trouble.cause).find(|cause| *cause != Cause::NoAnswer);
    let texts: Vec<_> = troubles.iter().map(|(server, trouble)| format!("{server}: {}", trouble.text)).collect();
    Trouble::new(answered.unwrap_or(Cause::NoAnswer), texts.join("; "))
}

/// The error in words, with what its cause says.
fn trouble(error: &Error) -> Trouble {
    let state = error.code();
    let cause = match state {
        None => Cause::NoAnswer,
        Some(state) if *state == SqlState::DISK_FULL => Cause::NoSpace,
        Some(state) if state.code().starts_with("28") || *state == SqlState::INSUFFICIENT_PRIVILEGE => Cause::Denied,
        // The database is going down or coming up, or the connection is broken.
        Some(state) if state.code().starts_with("57") || state.code().starts_with("08") => Cause::NoAnswer,
        Some(_) => Cause::Failed,
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    Trouble::new(cause, text)
}

/// Refuses a database whose acknowledgements are not certain.
fn check(row: &Row) -> Result<(), Trouble> {
    let refuse = |text: String| Err(Trouble::new(Cause::Unsafe, text));
    let version: i32 = get(row, "version")?;
    if version < OLDEST {
        return Err(Trouble::new(Cause::Failed, format!("PostgreSQL {} is too old: 13 is needed", version / 10_000)));
    }
    if get(row, "read_only")? {
        return Err(Trouble::new(Cause::NotPrimary, "name the primary"));
    }
    let alter = format!("ALTER ROLE {} SET", get::<&str>(row, "role")?);
    let commit: &str = get(row, "synchronous_commit")?;
    if !["on", "remote_apply"].contains(&commit) {
        return refuse(format!("synchronous_commit is {commit:?}: {alter} synchronous_commit = on"));
    }
    let isolation: &str = get(row, "isolation")?;
    if isolation != "read committed" {
        return refuse(format!(
            "default_transaction_isolation is {isolation:?}: {alter} default_transaction_isolation = 'read committed'"
        ));
    }
    for setting in ["statement_timeout", "transaction_timeout"] {
        let value: &str = get(row, setting)?;
        if value != "0" {
            return refuse(format!(
                "{setting} is {value}: a wait for a standby that it cuts short reports success. {alter} {setting} = 0"
            ));
        }
    }
    if get::<&str>(row, "fsync")? != "on" {
        return refuse("fsync is off, so a crash loses what was acknowledged: turn it on".to_owned());
    }
    Ok(())
}
