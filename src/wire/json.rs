//! Request bodies: JSON that is checked against its published schema. That way all problems are reported at once, and
//! the server accepts exactly what `openapi.json` promises.

use std::fmt;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::api::{
    BreakBody, ClaimBody, ConfirmBody, DeliverBody, LockBody, MoveBody, MoveLockBody, NoteBody, PoolBody,
    PoolChangeBody, QuarantineBody, ReleaseBody, RemoveBody, RenewBody, ReturnBody, TokenBody,
};
use super::members::strict;
use super::problems::{Problems, quoted, unknown};

/// The body of a request.
pub trait Body: DeserializeOwned + JsonSchema {
    /// Its JSON schema, including the `$defs` that it refers to.
    fn schema() -> &'static Value;
}

macro_rules! bodies {
    ($($body:ty),*) => {
        $(impl Body for $body {
            fn schema() -> &'static Value {
                static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!($body).to_value());
                &SCHEMA
            }
        })*
    };
}

bodies!(BreakBody, MoveBody, MoveLockBody, QuarantineBody, ReleaseBody, ReturnBody, TokenBody);
bodies!(ClaimBody, ConfirmBody, RenewBody, DeliverBody, PoolBody, PoolChangeBody, LockBody, RemoveBody, NoteBody);

/// Reads a body; an empty body counts as `{}`. Unknown members are reported and then ignored, so that the rest can be
/// checked too. Any other problem means that there is no value.
pub fn read<T: Body>(bytes: &[u8], problems: &mut Problems) -> Option<T> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    let mut value = match strict(bytes) {
        Ok(value) => value,
        Err(error) => {
            problems.add("", format!("the body is not valid JSON: {error}"));
            return None;
        }
    };
    let mut check = Check { root: T::schema(), problems, fatal: false };
    check.value(T::schema(), &mut value, At::Body);
    if check.fatal {
        return None;
    }
    serde_json::from_value(value).map_err(|error| problems.add("", format!("the body is wrong: {error}"))).ok()
}

/// Checks `value` against `schema`, with references into `root`, and returns the first violations. Supports only what
/// the schemas of the wire types use.
#[must_use]
pub fn violations(root: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut problems = Problems::default();
    Check { root, problems: &mut problems, fatal: false }.value(schema, &mut value.clone(), At::Body);
    problems.into_list()
}

/// A walk over a value along its schema.
struct Check<'c> {
    root: &'c Value,
    problems: &'c mut Problems,
    /// There is a problem that ignoring unknown members does not cure.
    fatal: bool,
}

/// The place of a value. It becomes a text only if there is a problem.
#[derive(Clone, Copy)]
enum At<'a> {
    Body,
    Member(&'a At<'a>, &'a str),
    /// A member whose name the client has chosen.
    Chosen(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => Ok(()),
            Self::Member(Self::Body, name) => f.write_str(name),
            Self::Chosen(Self::Body, name) => f.write_str(&quoted(name)),
            Self::Member(of, name) => write!(f, "{of}.{name}"),
            Self::Chosen(of, name) => write!(f, "{of}.{}", quoted(name)),
            Self::Item(of, number) => write!(f, "{of}[{number}]"),
        }
    }
}

impl Check<'_> {
    fn wrong(&mut self, at: At<'_>, what: &str) {
        self.problems.add(&at.to_string(), what);
        self.fatal = true;
    }

    fn value(&mut self, schema: &Value, value: &mut Value, at: At<'_>) {
        let schema = resolve(self.root, schema);
        if let Some(alternatives) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
            return self.alternatives(alternatives, value, at);
        }
        if let Some(words) = words(schema) {
            if !value.as_str().is_some_and(|given| words.contains(&given)) {
                let what = value.as_str().map_or_else(|| expected("a word", value), |w| unknown("word", w, &words));
                self.wrong(at, &what);
            }
            return;
        }
        let Some(kind) = kind_of(schema, value) else { return };
        match (kind, value) {
            (Kind::Wrong(name), value) => self.wrong(at, &expected(name, value)),
            (Kind::Object, Value::Object(members)) => self.object(schema, members, at),
            (Kind::Array, Value::Array(items)) => {
                let Some(schema) = schema.get("items") else { return };
                for (n, item) in items.iter_mut().enumerate() {
                    self.value(schema, item, At::Item(&at, n));
                }
            }
            (Kind::Allowed | Kind::Object | Kind::Array, _) => {}
        }
    }

    /// `null` or another type, or one of several words.
    fn alternatives(&mut self, alternatives: &[Value], value: &mut Value, at: At<'_>) {
        let is_null = |schema: &&Value| schema.get("type").is_some_and(|t| t == "null");
        if value.is_null() && alternatives.iter().any(|schema| is_null(&schema)) {
            return;
        }
        let others: Vec<&Value> = alternatives.iter().filter(|schema| !is_null(schema)).collect();
        if let [only] = others[..] {
            return self.value(only, value, at);
        }
        let words: Vec<&str> = others.iter().filter_map(|schema| words(schema)).flatten().collect();
        if !value.as_str().is_some_and(|given| words.contains(&given)) {
            let what = value.as_str().map_or_else(|| expected("a word", value), |w| unknown("word", w, &words));
            self.wrong(at, &what);
        }
    }

    fn object(&mut self, schema: &Value, members: &mut Map<String, Value>, at: At<'_>) {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties");
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.wrong(At::Member(&at, name), "is missing");
            }
        }
        members.retain(|name, value| {
            match (known.get(name), others) {
                (Some(schema), _) => self.value(schema, value, At::Member(&at, name)),
                (None, Some(Value::Bool(false))) => {
                    let names: Vec<&str> = known.keys().map(String::as_str).collect();
                    self.problems.add(&at.to_string(), unknown("member", name, &names));
                    return false;
                }
                (None, Some(schema @ Value::Object(_))) => self.value(schema, value, At::Chosen(&at, name)),
                (None, _) => {}
            }
            true
        });
    }
}

/// The outcome of checking a value against a schema.
enum Kind {
    /// The type matches and has no parts.
    Allowed,
    Object,
    Array,
    /// The type should be this one.
    Wrong(&'static str),
}

/// `None` if the schema names no type.
fn kind_of(schema: &Value, value: &Value) -> Option<Kind> {
    let types = match schema.get("type")? {
        one @ Value::String(_) => std::slice::from_ref(one),
        Value::Array(several) => several,
        _ => return None,
    };
    let mut types = types.iter().filter_map(Value::as_str).peekable();
    let first = types.peek().copied();
    let format = schema.get("format").and_then(Value::as_str);
    let is_signed = format == Some("int32");
    let is_integer = || match format {
        Some("int32") => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Some("uint32") => value.as_u64().is_some_and(|n| u32::try_from(n).is_ok()),
        _ => value.is_u64(),
    };
    let fits = |name: &&str| match *name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_integer(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        _ => true,
    };
    Some(match types.find(|name| fits(name)) {
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some(_) => Kind::Allowed,
        None => Kind::Wrong(match first {
            Some("string") => "a string",
            Some("boolean") => "true or false",
            Some("integer") if is_signed => "a whole number",
            Some("integer") => "a whole number of at least 0",
            Some("object") => "an object",
            Some("array") => "an array",
            _ => "something else",
        }),
    })
}

/// The words of an enumeration, if the schema is one.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![word]);
    }
    Some(schema.get("enum")?.as_array()?.iter().filter_map(Value::as_str).collect())
}

/// Follows `$ref`s within `root`.
fn resolve<'v>(root: &'v Value, mut schema: &'v Value) -> &'v Value {
    while let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let Some(found) = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) else { break };
        schema = found;
    }
    schema
}

fn expected(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("must be {what}, not {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of<T: Body>(body: &str) -> Vec<String> {
        let mut problems = Problems::default();
        read::<T>(body.as_bytes(), &mut problems);
        problems.into_list()
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let body = r#"{"pol": "x", "count": -1, "labels": {"a": 1}, "also": [{"pool": "b", "lokc": "c"}, 7],
            "owner": {"tem": "main", "job": 5}, "scope": "flo", "queue": "no"}"#;
        let expected = [
            "pool: is missing",
            r#"also[0]: unknown member "lokc": did you mean "lock"?"#,
            "also[1]: must be an object, not the number 7",
            "count: must be a whole number of at least 0, not the number -1",
            r#"labels."a": must be a string, not the number 1"#,
            "owner.job: must be a string, not the number 5",
            r#"owner: unknown member "tem": did you mean "team"?"#,
            r#"unknown member "pol": did you mean "pool"?"#,
            r#"queue: must be true or false, not the string "no""#,
            r#"scope: unknown word "flo": did you mean "flow"?"#,
        ];
        assert_eq!(problems_of::<ClaimBody>(body), expected);
    }

    #[test]
    fn shapes_that_serde_alone_would_accept_are_refused() {
        for (body, problem) in [
            (r#"["p"]"#, "must be an object, not an array"),
            (r#"{"pool": "p", "owner": []}"#, "owner: must be an object, not an array"),
            (
                r#"{"pool": "p", "count": 4294967296}"#,
                "count: must be a whole number of at least 0, not the number 4294967296",
            ),
            (r#"{"pool": "p", "priority": 2147483648}"#, "priority: must be a whole number, not the number 2147483648"),
            (r#"{"pool": "p", "count": 1.0}"#, "count: must be a whole number of at least 0, not the number 1.0"),
        ] {
            assert_eq!(problems_of::<ClaimBody>(body), [problem]);
        }
        assert_eq!(problems_of::<ClaimBody>(r#"{"pool": "p", "priority": -1}"#), [""; 0]);
        for body in [r#"{"pool": "p", "pool": "q"}"#, r#"{"pool": "p", "labels": {"a": "1", "a": "2"}}"#] {
            let problems = problems_of::<ClaimBody>(body);
            assert!(problems.len() == 1 && problems[0].contains("is given twice"), "{problems:?}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["{", "nul", " \n", "{} {}", "\u{feff}{}", deep.as_str()] {
            let problems = problems_of::<ClaimBody>(body);
            assert!(problems.len() == 1 && problems[0].starts_with("the body is not valid JSON"), "{problems:?}");
        }
    }

    #[test]
    fn valid_bodies_pass() {
        for body in ["", "{}", r#"{"capacity": null, "policy": {"drain": "1s"}, "by": {"owner": {"job": "j"}}}"#] {
            assert_eq!(problems_of::<PoolBody>(body), [""; 0], "{body}");
        }
        assert_eq!(problems_of::<ClaimBody>(r#"{"pool": "p", "scope": null, "also": [{"pool": "q"}]}"#), [""; 0]);
        assert_eq!(problems_of::<ConfirmBody>(r#"{"fence": 18446744073709551615}"#), [""; 0]);
    }
}
