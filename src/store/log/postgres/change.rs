//! From a write to its one statement.
//!
//! A statement names what this write compares and sets, and nothing else: the database may parse and plan it each time. Its
//! text is the same for all appends of a leader, and for all its beats, so it can be prepared.

use std::fmt::Write as _;

use tokio_postgres::types::Type;

use super::sql::{COLUMNS, PLACE};
use super::{Param, int};
use crate::env::hex;
use crate::store::log::Trouble;
use crate::store::log::head::{Change, Expect, Id, Leader, Place, Write};

/// The longest record that is sent as text, bytes. The database takes longer to read the digits of a longer one than it
/// takes to plan the statement.
const LONGEST_LITERAL: usize = 12 * 1024;

/// A statement with its values, in the order of their numbers. Its row is the place that it made: none if the head was not
/// as expected.
#[derive(Debug)]
pub(super) struct Statement<'w> {
    pub sql: String,
    values: Vec<Value<'w>>,
}

#[derive(Debug)]
enum Value<'w> {
    Number(i64),
    Id(String),
    Text(&'w str),
    Bytes(&'w [u8]),
}

/// Conditions, or what is set: a column and its value each.
type Columns<'w> = Vec<(&'static str, Value<'w>)>;

impl<'w> Statement<'w> {
    /// `schema` is quoted.
    pub fn of(write: &'w Write<'_>, schema: &str) -> Result<Self, Trouble> {
        if let (Expect::Same(None), Change::TakeOver { leader: Leader { name, run }, span }) =
            (&write.expect, &write.change)
        {
            let sql = format!(
                "INSERT INTO {schema}.head ({COLUMNS}) VALUES (1, $1, $2, 0, '{}', 1, $3, 0)
                ON CONFLICT DO NOTHING RETURNING {PLACE}",
                Id::NONE
            );
            return Ok(Self { sql, values: vec![Value::Text(name), Value::of(*run), Value::Number(int(span.0)?)] });
        }
        let mut values = Vec::new();
        let mut named = |columns: Columns<'w>, between: &str| {
            let mut texts = Vec::with_capacity(columns.len());
            for (column, value) in columns {
                values.push(value);
                texts.push(format!("{column} = ${}", values.len()));
            }
            texts.join(between)
        };
        let (fits, set) = (named(compared(&write.expect)?, " AND "), named(changed(&write.change)?, ", "));
        let term = if matches!(write.change, Change::TakeOver { .. }) { ", term = term + 1" } else { "" };
        let update = format!("UPDATE {schema}.head SET beat = beat + 1, {set}{term} WHERE {fits} RETURNING {PLACE}");
        let Change::Append { record, .. } = &write.change else { return Ok(Self { sql: update, values }) };
        values.extend([Value::of(record.before), Value::Bytes(&record.bytes)]);
        let (before, bytes) = (values.len() - 1, values.len());
        let sql = format!(
            "WITH made AS ({update}) INSERT INTO {schema}.records (seq, id, before, term, bytes)
            SELECT seq, record, ${before}, term, ${bytes} FROM made
            RETURNING term, (SELECT run FROM made) AS run, seq, id AS record"
        );
        Ok(Self { sql, values })
    }

    pub fn params(&self) -> Vec<Param<'_>> {
        self.values.iter().map(Value::param).collect()
    }

    /// The types of the values, to prepare the statement.
    pub fn types(&self) -> String {
        let types: Vec<_> = self.values.iter().map(|value| value.param().1.name().to_owned()).collect();
        types.join(", ")
    }

    /// The values as SQL, to execute the prepared statement. They are numbers and digits, so nothing needs to be quoted.
    /// `None` if one is a text, or too long.
    pub fn literals(&self) -> Option<String> {
        let mut all = String::with_capacity(256);
        for value in &self.values {
            if !all.is_empty() {
                all.push_str(", ");
            }
            match value {
                Value::Number(number) => write!(all, "{number}").ok()?,
                Value::Id(id) => write!(all, "'{id}'").ok()?,
                // The `E` makes the backslash mean the same whatever the settings are.
                Value::Bytes(bytes) if bytes.len() <= LONGEST_LITERAL => write!(all, r"E'\\x{}'", hex(bytes)).ok()?,
                Value::Bytes(_) | Value::Text(_) => return None,
            }
        }
        Some(all)
    }
}

impl Value<'_> {
    fn of(id: Id) -> Self {
        Self::Id(id.to_string())
    }

    fn param(&self) -> Param<'_> {
        match self {
            Self::Number(number) => (number, Type::INT8),
            Self::Id(text) => (text, Type::TEXT),
            Self::Text(text) => (text, Type::TEXT),
            Self::Bytes(bytes) => (bytes, Type::BYTEA),
        }
    }
}

/// The conditions are one by one those of `Write::fits`.
fn compared(expect: &Expect) -> Result<Columns<'_>, Trouble> {
    let at = |place: Place| -> Result<Columns<'_>, Trouble> {
        Ok(vec![
            ("term", Value::Number(int(place.reign.term)?)),
            ("run", Value::of(place.reign.run)),
            ("seq", Value::Number(int(place.seq.0)?)),
            ("record", Value::of(place.record)),
        ])
    };
    Ok(match expect {
        Expect::At(place) => at(*place)?,
        // Only a take-over expects that there is none.
        Expect::Same(None) => vec![("term", Value::Number(-1))],
        Expect::Same(Some(head)) => {
            let mut all = at(head.place())?;
            all.extend([
                ("beat", Value::Number(int(head.beat)?)),
                ("span", Value::Number(int(head.span.0)?)),
                ("engine", Value::Number(int(head.engine.0)?)),
                ("name", Value::Text(&head.leader.name)),
            ]);
            all
        }
        #[cfg(any(test, feature = "plant"))]
        Expect::SeqAlone(seq) => vec![("seq", Value::Number(int(seq.0)?))],
        #[cfg(any(test, feature = "plant"))]
        Expect::TermAlone(term) => vec![("term", Value::Number(int(*term)?))],
    })
}

/// What is set, beside the beat and the term.
fn changed<'w>(change: &'w Change<'_>) -> Result<Columns<'w>, Trouble> {
    Ok(match change {
        Change::Append { record, engine } => vec![
            ("engine", Value::Number(int(engine.0)?)),
            ("seq", Value::Number(int(record.seq.0)?)),
            ("record", Value::of(record.id)),
        ],
        Change::Beat { span, engine } => {
            vec![("span", Value::Number(int(span.0)?)), ("engine", Value::Number(int(engine.0)?))]
        }
        Change::TakeOver { leader, span } => vec![
            ("name", Value::Text(&leader.name)),
            ("run", Value::of(leader.run)),
            ("span", Value::Number(int(span.0)?)),
        ],
    })
}
