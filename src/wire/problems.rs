//! All that is wrong with one request, gathered so that it can be listed at once.

use std::fmt::Display;
use std::str::FromStr;

/// Most problems listed for one request: a longer list helps nobody, and an answer must not be larger than its request.
const SHOWN: usize = 50;
/// Longest text of a user repeated in a problem, characters.
const QUOTED_CHARS: usize = 200;

/// What is wrong, one sentence each, with the place in the request in front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<String>,
    more: usize,
}

impl Problems {
    /// Notes that `what` is wrong at `at`: the path of a member such as `owner.team`, or a parameter.
    pub fn add(&mut self, at: &str, what: impl Display) {
        if self.list.len() < SHOWN {
            self.list.push(if at.is_empty() { what.to_string() } else { format!("{at}: {what}") });
        } else {
            self.more += 1;
        }
    }

    /// Parses a text; notes why it cannot be.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, at: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.add(at, error)).ok()
    }

    /// Parses a text if there is one. `None` is both "there is none" and "it is wrong": the latter is noted.
    pub fn parse_some<T: FromStr<Err: Display>>(&mut self, at: &str, text: Option<&str>) -> Option<T> {
        self.parse(at, text?)
    }

    /// The value, when nothing was wrong.
    ///
    /// # Errors
    /// Something was: the problems themselves.
    pub fn done<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            Some(_) => Err(self),
            None => {
                if self.list.is_empty() {
                    self.add("", "the request is not complete");
                }
                Err(self)
            }
        }
    }

    /// Whether nothing was wrong so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The sentences, in the order in which they were found.
    #[must_use]
    pub fn into_list(mut self) -> Vec<String> {
        if self.more > 0 {
            self.list.push(format!("and {} more", self.more));
        }
        self.list
    }
}

/// A user's text for a message: quoted, escaped, and cut when it is long.
#[must_use]
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// "did you mean": the name most similar to `given`, if one is similar enough.
#[must_use]
pub fn nearest<'n>(given: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    /// A suggestion that is less similar than this would only confuse.
    const LIKE: f64 = 0.7;
    if given.len() > 256 {
        return None;
    }
    let like = |name: &'n str| (strsim::jaro_winkler(given, name), name);
    let best = names.into_iter().map(like).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness >= LIKE).map(|(_, name)| name)
}

/// What to say of a name that is not one of `names`.
#[must_use]
pub fn unknown(what: &str, given: &str, names: &[&str]) -> String {
    let given_shown = quoted(given);
    match nearest(given, names.iter().copied()) {
        Some(name) => format!("unknown {what} {given_shown}: did you mean {name:?}?"),
        None if names.is_empty() => format!("unknown {what} {given_shown}: none is allowed here"),
        None => format!("unknown {what} {given_shown}: known are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_text_is_escaped_and_cut() {
        assert_eq!(quoted("a\u{1b}[2J"), r#""a\u{1b}[2J""#);
        assert_eq!(quoted(&"ä".repeat(300)).chars().count(), 205);
    }

    #[test]
    fn unknown_names_get_a_proposal() {
        let names = ["pool", "lock", "count"];
        assert_eq!(unknown("member", "poll", &names), r#"unknown member "poll": did you mean "pool"?"#);
        assert_eq!(unknown("member", "zzz", &names), r#"unknown member "zzz": known are pool, lock, count"#);
    }

    #[test]
    fn a_flood_of_problems_is_counted_not_listed() {
        let mut problems = Problems::default();
        (0..60).for_each(|n| problems.add("x", n));
        let list = problems.into_list();
        assert_eq!((list.len(), list.last().map(String::as_str)), (51, Some("and 10 more")));
    }
}
