//! All problems of one request, collected so that they can be reported together.

use std::fmt::{self, Display};
use std::str::FromStr;

/// The most problems listed for one request. A longer list helps nobody, and an answer must not outgrow its request.
const SHOWN: usize = 50;
/// The longest user text quoted in a problem, in characters.
const QUOTED_CHARS: usize = 200;

/// One problem of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the member that it is about, such as `params.count`. Empty for the request as a whole.
    pub at: String,
    /// One sentence, which names the place as well.
    pub text: String,
    /// The member does not belong there, whatever its value is.
    pub is_misplaced: bool,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The problems of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Records the problem `what` at `at`: the path of a member such as `owner.team`, or a parameter.
    pub fn add(&mut self, at: &str, what: impl Display) {
        let text = if at.is_empty() { what.to_string() } else { format!("{at}: {what}") };
        self.add_about(at, text);
    }

    /// Records that the member at `at` does not belong there.
    pub fn add_misplaced(&mut self, at: &str, text: impl Into<String>) {
        self.push(Problem { at: at.to_owned(), text: text.into(), is_misplaced: true });
    }

    /// Records the problem with the member at `at`, in a sentence that names the member itself.
    pub fn add_about(&mut self, at: &str, text: impl Into<String>) {
        self.push(Problem { at: at.to_owned(), text: text.into(), is_misplaced: false });
    }

    fn push(&mut self, problem: Problem) {
        if self.list.len() < SHOWN {
            self.list.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Parses a text. Records the reason if that fails.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, at: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.add(at, error)).ok()
    }

    /// Parses a text if there is one. `None` means "absent" or "invalid"; an invalid text is recorded.
    pub fn parse_some<T: FromStr<Err: Display>>(&mut self, at: &str, text: Option<&str>) -> Option<T> {
        self.parse(at, text?)
    }

    /// The value, if there were no problems.
    ///
    /// # Errors
    /// The problems, if there were any.
    pub fn done<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            Some(_) => Err(self),
            None => {
                if self.list.is_empty() {
                    self.add("", "the request is incomplete");
                }
                Err(self)
            }
        }
    }

    /// Whether no problem has been recorded so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The sentences, in the order in which they were found.
    #[must_use]
    pub fn into_list(self) -> Vec<String> {
        self.into_problems().into_iter().map(|problem| problem.text).collect()
    }

    /// The problems, in the order in which they were found.
    #[must_use]
    pub fn into_problems(mut self) -> Vec<Problem> {
        if self.more > 0 {
            let text = format!("and {} more", self.more);
            self.list.push(Problem { at: String::new(), text, is_misplaced: false });
        }
        self.list
    }
}

/// A user's text for a message: quoted, escaped, and truncated if it is long.
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
    /// A less similar suggestion would only confuse.
    const LIKE: f64 = 0.7;
    if given.len() > 256 {
        return None;
    }
    let given = given.to_lowercase();
    let like = |name: &'n str| (strsim::jaro_winkler(&given, &name.to_lowercase()), name);
    let best = names.into_iter().map(like).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness >= LIKE).map(|(_, name)| name)
}

/// The message for a name that is not one of `names`.
#[must_use]
pub fn unknown(what: &str, given: &str, names: &[&str]) -> String {
    let given_shown = quoted(given);
    match nearest(given, names.iter().copied()) {
        Some(name) => format!("unknown {what} {given_shown}: did you mean {name:?}?"),
        None if names.is_empty() => format!("unknown {what} {given_shown}: none is allowed here"),
        None => format!("unknown {what} {given_shown}: expected one of {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_text_is_escaped_and_truncated() {
        assert_eq!(quoted("a\u{1b}[2J"), r#""a\u{1b}[2J""#);
        assert_eq!(quoted(&"ä".repeat(300)).chars().count(), 205);
    }

    #[test]
    fn unknown_names_get_a_suggestion() {
        let names = ["pool", "lock", "count"];
        assert_eq!(unknown("member", "poll", &names), r#"unknown member "poll": did you mean "pool"?"#);
        assert_eq!(unknown("member", "zzz", &names), r#"unknown member "zzz": expected one of pool, lock, count"#);
    }

    #[test]
    fn excess_problems_are_counted_not_listed() {
        let mut problems = Problems::default();
        (0..60).for_each(|n| problems.add("x", n));
        let list = problems.into_list();
        assert_eq!((list.len(), list.last().map(String::as_str)), (51, Some("and 10 more")));
    }
}
