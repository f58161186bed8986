//! The tables, and the statements that are the same each time. Ids are text (32 hexadecimal digits), so that people can read the tables.

/// The format of the tables.
pub(super) const VERSION: i32 = 1;

/// The database does not compress the bytes of records: that takes longer than writing them, and they are compressed
/// already. They are in the row itself while it fits into a page, and not in pieces elsewhere.
///
/// The schema's name is checked and quoted by [`super::address`], so it can stand in a statement.
const CREATE: &str = "
    SELECT pg_advisory_xact_lock(5508432918);
    CREATE SCHEMA IF NOT EXISTS {s};
    CREATE TABLE IF NOT EXISTS {s}.format (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL
    );
    INSERT INTO {s}.format (version) VALUES (1) ON CONFLICT DO NOTHING;
    CREATE TABLE IF NOT EXISTS {s}.head (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), term bigint NOT NULL, name text NOT NULL, run text NOT NULL,
        seq bigint NOT NULL, record text NOT NULL, beat bigint NOT NULL, span bigint NOT NULL, engine bigint NOT NULL
    ) WITH (fillfactor = 10);
    CREATE TABLE IF NOT EXISTS {s}.records (
        seq bigint PRIMARY KEY, id text NOT NULL, before text NOT NULL, term bigint NOT NULL, bytes bytea NOT NULL
    ) WITH (toast_tuple_target = 8160);
    ALTER TABLE {s}.records ALTER bytes SET STORAGE EXTERNAL;
    CREATE TABLE IF NOT EXISTS {s}.pieces (
        snapshot text NOT NULL, number bigint NOT NULL, bytes bytea NOT NULL, PRIMARY KEY (snapshot, number)
    );
    CREATE TABLE IF NOT EXISTS {s}.manifest (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), snapshot text NOT NULL, term bigint NOT NULL, run text NOT NULL,
        seq bigint NOT NULL, record text NOT NULL, pieces bigint NOT NULL
    );
    CREATE TABLE IF NOT EXISTS {s}.notes (name text PRIMARY KEY, bytes bytea NOT NULL);";

/// How many records one statement deletes at most, and how many pieces of a snapshot. No append gets through meanwhile, so it
/// must be short: these are 128 MiB with the largest usual records (256 KiB), and 32 MiB.
const RECORDS: usize = 512;
const PIECES: usize = 32;

/// Whether the tables are there.
const LOOK: &str = "SELECT to_regclass('{s}.notes') IS NOT NULL AS there";
const FORMAT: &str = "SELECT version FROM {s}.format";
/// The columns of a place.
pub(super) const PLACE: &str = "term, run, seq, record";
/// The columns of a head.
pub(super) const COLUMNS: &str = "term, name, run, seq, record, beat, span, engine";

/// The statements, for one schema.
#[derive(Debug)]
pub(super) struct Statements {
    /// The name of the schema, quoted.
    pub schema: String,
    pub create: String,
    pub look: String,
    pub format: String,
    pub head: String,
    pub end_blockers: String,
    pub records: String,
    pub put_piece: String,
    pub piece: String,
    pub put_manifest: String,
    pub manifest: String,
    pub trim_records: String,
    pub old_snapshots: String,
    pub trim_pieces: String,
    pub notes: String,
    pub put_note: String,
    pub put_note_by: String,
    pub drop_note: String,
    pub room: String,
}

impl Statements {
    pub fn of(schema: &str) -> Self {
        let schema = format!("\"{schema}\"");
        let sql = |text: &str| text.replace("{s}", &schema);
        Self {
            create: sql(CREATE),
            look: sql(LOOK),
            format: sql(FORMAT),
            head: sql(&format!("SELECT {COLUMNS} FROM {{s}}.head")),
            end_blockers: sql("SELECT pg_terminate_backend(blocker) FROM (
                SELECT DISTINCT unnest(pg_blocking_pids(l.pid)) AS blocker FROM pg_locks l
                WHERE l.locktype = 'relation' AND l.relation = '{s}.head'::regclass
                    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                ) blockers WHERE blocker > 0 AND blocker NOT IN (
                    SELECT pid FROM pg_locks WHERE NOT granted AND pid IS NOT NULL)"),
            records: sql("SELECT seq, id, before, term, bytes FROM {s}.records WHERE seq >= $1 ORDER BY seq LIMIT $2"),
            put_piece: sql("INSERT INTO {s}.pieces (snapshot, number, bytes) VALUES ($1, $2, $3)
                ON CONFLICT (snapshot, number) DO UPDATE SET bytes = excluded.bytes"),
            piece: sql("SELECT bytes FROM {s}.pieces WHERE snapshot = $1 AND number = $2"),
            put_manifest: sql("INSERT INTO {s}.manifest AS m (snapshot, term, run, seq, record, pieces)
                SELECT $3, $1, $2, $4, $5, $6 FROM {s}.head h WHERE h.term = $1 AND h.run = $2 FOR SHARE
                ON CONFLICT (one) DO UPDATE SET snapshot = excluded.snapshot, term = excluded.term, run = excluded.run,
                    seq = excluded.seq, record = excluded.record, pieces = excluded.pieces
                WHERE m.seq <= excluded.seq RETURNING true"),
            manifest: sql("SELECT snapshot, term, run, seq, record, pieces FROM {s}.manifest"),
            trim_records: sql(&format!(
                "WITH led AS (SELECT m.seq FROM {{s}}.head h, {{s}}.manifest m WHERE h.term = $1 AND h.run = $2 FOR SHARE),
                old AS (SELECT r.seq FROM {{s}}.records r, led WHERE r.seq <= led.seq ORDER BY r.seq LIMIT {RECORDS}),
                gone AS (DELETE FROM {{s}}.records r USING old WHERE r.seq = old.seq RETURNING true)
                SELECT count(*) = {RECORDS} AS more FROM gone"
            )),
            old_snapshots: sql("SELECT DISTINCT p.snapshot FROM {s}.pieces p
                WHERE p.snapshot IS DISTINCT FROM (SELECT m.snapshot FROM {s}.manifest m)"),
            trim_pieces: sql(&format!(
                "WITH led AS (SELECT m.snapshot FROM {{s}}.head h LEFT JOIN {{s}}.manifest m ON true
                    WHERE h.term = $1 AND h.run = $2 FOR SHARE OF h),
                old AS (SELECT p.snapshot, p.number FROM {{s}}.pieces p, led
                    WHERE p.snapshot = $3 AND p.snapshot IS DISTINCT FROM led.snapshot LIMIT {PIECES}),
                gone AS (DELETE FROM {{s}}.pieces p USING old WHERE p.snapshot = old.snapshot AND p.number = old.number
                    RETURNING true)
                SELECT count(*) = {PIECES} AS more FROM gone"
            )),
            notes: sql("SELECT name, bytes FROM {s}.notes WHERE starts_with(name, $1) ORDER BY name"),
            put_note: sql("INSERT INTO {s}.notes (name, bytes) VALUES ($1, $2)
                ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes RETURNING true"),
            put_note_by: sql("INSERT INTO {s}.notes (name, bytes)
                SELECT $1, $2 FROM {s}.head h WHERE h.term = $3 AND h.run = $4 FOR SHARE
                ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes RETURNING true"),
            drop_note: sql("DELETE FROM {s}.notes WHERE name = $1"),
            room: sql(
                "SELECT pg_database_size(current_database()) AS size, (SELECT count(*) FROM pg_stat_replication r
                    WHERE current_setting('synchronous_standby_names') = ''
                    AND coalesce(r.state IN ('catchup', 'streaming'), true)
                    AND NOT EXISTS (SELECT FROM pg_replication_slots s
                        WHERE s.active_pid = r.pid AND (s.temporary OR s.slot_type = 'logical'))) AS async_standbys",
            ),
            schema: schema.clone(),
        }
    }
}
