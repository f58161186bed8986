//! The findings: printed as lines for people while the checks run, or as one JSON object at the end.

use serde::Serialize;

use super::Stop;
use crate::cli::output::{CliError, is_coloured, print_json, print_line};
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::escape::escape;

/// The width of the column with the names of the checks.
const NAME_WIDTH: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The report as `--json` prints it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    checks: Vec<Finding>,
    exit: u8,
    #[serde(skip)]
    json: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    pub(super) fn server(&mut self, server: String) {
        self.server = Some(server);
    }

    pub(super) fn ok(&mut self, env: &mut Env<'_>, check: &'static str, text: impl Into<String>) -> Result<(), Stop> {
        self.add(env, Finding { check, state: State::Ok, text: text.into(), next: None })
    }

    pub(super) fn warn(
        &mut self,
        env: &mut Env<'_>,
        check: &'static str,
        text: impl Into<String>,
        next: impl Into<String>,
    ) -> Result<(), Stop> {
        self.add(env, Finding { check, state: State::Warn, text: text.into(), next: Some(next.into()) })
    }

    /// Adds the finding that ends the examination with this exit code. Returns the error to pass on.
    pub(super) fn fail(
        &mut self,
        env: &mut Env<'_>,
        check: &'static str,
        exit: u8,
        text: impl Into<String>,
        next: impl Into<String>,
    ) -> Result<Stop, Stop> {
        self.exit = exit;
        self.add(env, Finding { check, state: State::Fail, text: text.into(), next: Some(next.into()) })?;
        Ok(Stop::Enough)
    }

    fn add(&mut self, env: &mut Env<'_>, finding: Finding) -> Result<(), Stop> {
        if !self.json {
            show(env, &finding)?;
        }
        self.checks.push(finding);
        Ok(())
    }

    /// Prints the last line, or the whole JSON. Returns the exit code.
    pub(super) fn finish(self, env: &mut Env<'_>) -> Result<u8, CliError> {
        let count = |state| self.checks.iter().filter(|finding| finding.state == state).count();
        if self.json {
            print_json(env, &self)?;
        } else if let Some(failed) = self.checks.iter().find(|finding| finding.state == State::Fail) {
            print_line(env, &format!("stopped at {}: see \"next\" above", failed.check))?;
        } else {
            let warnings = match count(State::Warn) {
                0 => String::new(),
                1 => ", with 1 warning".to_owned(),
                many => format!(", with {many} warnings"),
            };
            print_line(env, &format!("the resource works{warnings}"))?;
        }
        Ok(if self.exit == exit::OK && count(State::Fail) > 0 { exit::FAILED } else { self.exit })
    }
}

fn show(env: &mut Env<'_>, finding: &Finding) -> Result<(), CliError> {
    let (word, colour) = match finding.state {
        State::Ok => ("ok", "32"),
        State::Warn => ("warn", "33"),
        State::Fail => ("FAIL", "31"),
    };
    let word = format!("{word:<4}");
    let word = if is_coloured(env) { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word };
    // The texts contain other people's names and answers, so they are escaped here. The colour codes are ours.
    let mut lines = format!("{word}  {:<NAME_WIDTH$}  {}\n", finding.check, escape(&finding.text));
    if let Some(next) = &finding.next {
        lines += &format!("{:width$}next: {}\n", "", escape(next), width = NAME_WIDTH + 8);
    }
    env.stdout.write_all(lines.as_bytes())?;
    Ok(env.stdout.flush()?)
}
