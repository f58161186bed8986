//! Tables and their migrations: forward only, each in one transaction (docs/store.md).

use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA application_id` of a store: "Lckr". `file` and `sqlite3` show it.
pub(super) const APPLICATION_ID: i32 = 0x4C63_6B72;

/// Step N turns schema version N into version N+1; `PRAGMA user_version` is the version.
///
/// A table that is large and has scattered keys keeps a rowid (`ended`): its rows are in the order of writing, and only
/// the short entries of the key's index are scattered. The others have no rowid, so that each write changes one page
/// less: `changes` has growing keys, and there are never many live claims.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE pools (name TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE locks (
        pool TEXT NOT NULL, name TEXT NOT NULL, metadata BLOB NOT NULL, record TEXT NOT NULL, PRIMARY KEY (pool, name)
    ) STRICT;
    CREATE TABLE claims (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT;
    CREATE TABLE ended (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT;
    CREATE TABLE ops (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE changes (
        revision INTEGER NOT NULL, seq INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (revision, seq)
    ) STRICT;
",
    "
    CREATE TABLE latches (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT;
",
    "
    -- No table changes: records of claims and policies may have new members, which older releases refuse.
",
    "
    -- Nobody has written down yet which holds an `in` has fetched: all of them may be in use.
    UPDATE claims SET record = json_set(record, '$.phase.held.delivered', json('true'))
        WHERE json_type(record, '$.phase.held') IS NOT NULL;
",
    "
    -- No table changes: new members and words in records of locks, claims, ended claims, policies and changes.
",
    "
    -- No table changes: records of operations may have a new member, which older releases refuse.
",
    "
    CREATE TABLE new_claims (id TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO new_claims SELECT id, record FROM claims;
    DROP TABLE claims;
    ALTER TABLE new_claims RENAME TO claims;
    CREATE TABLE new_changes (
        revision INTEGER NOT NULL, seq INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (revision, seq)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO new_changes SELECT revision, seq, record FROM changes ORDER BY revision, seq;
    DROP TABLE changes;
    ALTER TABLE new_changes RENAME TO changes;
",
    "
    CREATE TABLE concourses (url TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE tokens (name TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
    -- Nobody has written down yet which locks their pools were given because they had no other: such a lock is the only
    -- one of its pool, named like it, and nobody has put anything into it.
    UPDATE locks SET record = json_set(record, '$.implicit', json('true'))
        WHERE name = pool AND length(metadata) = 0 AND json_extract(record, '$.labels') = '{}'
            AND (SELECT count(*) FROM locks AS others WHERE others.pool = locks.pool) = 1;
    CREATE TABLE new_ended (
        id TEXT NOT NULL PRIMARY KEY, how TEXT NOT NULL, forget INTEGER NOT NULL, span INTEGER NOT NULL, cluster TEXT,
        build TEXT, record TEXT NOT NULL
    ) STRICT;
    INSERT INTO new_ended SELECT id, record ->> '$.how', record ->> '$.forget.at', record ->> '$.forget.span',
        record ->> '$.build.cluster', record ->> '$.build.id', json_remove(record, '$.how', '$.forget', '$.build')
        FROM ended ORDER BY rowid;
    DROP TABLE ended;
    ALTER TABLE new_ended RENAME TO ended;
",
];

/// What a database file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Empty.
    New,
    /// A store of this schema version.
    Version(usize),
}

/// The schema of this release.
pub(super) fn newest() -> Found {
    Found::Version(MIGRATIONS.len())
}

/// Inspects a database without changing it.
///
/// # Errors
/// The file is not a database, or it belongs to another program or a newer release.
pub(super) fn inspect(conn: &Connection) -> anyhow::Result<Found> {
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, version, objects) == (0, 0, 0) {
        return Ok(Found::New);
    }
    ensure!(
        application == i64::from(APPLICATION_ID),
        "it is a SQLite database, but not a store of locker: name another file"
    );
    let version = usize::try_from(version).ok().filter(|v| *v > 0);
    let version = version.context("it is damaged: a store without a schema version. Restore a backup")?;
    if version > MIGRATIONS.len() {
        bail!(
            "it was written by a newer release of locker (schema {version}, this one knows up to {}): start that \
             release, or restore a backup made before the upgrade",
            MIGRATIONS.len()
        );
    }
    Ok(Found::Version(version))
}

/// Migrates the database to the newest schema; a new one also gets `new_id` as its store id.
///
/// # Errors
/// A step failed; the database is as it was before that step.
pub(super) fn migrate(conn: &mut Connection, found: Found, new_id: &str) -> anyhow::Result<()> {
    let from = match found {
        Found::New => 0,
        Found::Version(version) => version,
    };
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(from) {
        let version = step + 1;
        let run = |conn: &mut Connection| -> anyhow::Result<()> {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", i64::try_from(version)?)?;
            if step == 0 {
                tx.pragma_update(None, "application_id", APPLICATION_ID)?;
                tx.execute("INSERT INTO meta (key, value) VALUES ('store_id', ?1)", [new_id])?;
            }
            Ok(tx.commit()?)
        };
        run(conn).with_context(|| format!("cannot bring it to schema {version}"))?;
    }
    Ok(())
}
