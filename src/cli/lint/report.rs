//! Findings, and the forms in which they are printed.

use serde::Serialize;

use crate::cli::output::{CliError, is_coloured, print_json};
use crate::env::Env;
use crate::wire::escape::escape;
use crate::wire::yaml::Position;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// A step or a check fails.
    Error,
    /// It works, but probably not as intended: a lock may hang.
    Warning,
    /// Advice.
    Note,
}

/// What is found. The word is stable: editors and scripts may go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rule {
    /// The file cannot be read, or is not YAML.
    Unreadable,
    /// It is not a pipeline.
    NotAPipeline,
    /// `check`, `in` and `out` refuse this source.
    Source,
    /// `out` or `in` refuses these params.
    Params,
    /// No earlier step of the job leaves the directory.
    MissingDirectory,
    /// A hook needs a directory that may not exist when the hook runs.
    DirectoryInHook,
    /// The resource names a type that is not Locker, although its source is for Locker.
    WrongType,
    /// A retry takes a second lock.
    RetryWithoutAs,
    /// All branches of `across` share one claim.
    SharedAs,
    /// A job starts itself.
    SelfTrigger,
    /// `release: build` in a job that takes nothing.
    NothingToRelease,
    /// Nothing gives the lock back.
    NeverReleased,
    /// A failed or aborted build keeps the lock.
    ReleaseNotEnsured,
    /// The get of a later job may come from the cache.
    CachedGet,
    /// A resource of pool-resource or locker-resource: what the move needs.
    OldType,
    /// User and password that are meant for a Git server.
    GitCredentials,
    /// No resource of Locker.
    NothingToCheck,
}

impl Rule {
    fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub file: String,
    pub line: u64,
    pub column: u64,
    pub severity: Severity,
    pub rule: Rule,
    pub what: String,
    /// What happens if it stays.
    pub why: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better: Option<String>,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One line for each finding, as compilers print it, and two lines that explain it
    Text,
    /// One JSON object
    Json,
    /// Annotations of GitHub Actions
    Github,
}

/// All findings, in the order of their places.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    findings: Vec<Finding>,
    errors: usize,
    warnings: usize,
    notes: usize,
    #[serde(skip)]
    files: usize,
}

impl Report {
    /// Adds the findings of one file. Those that are found more than once, because an anchor is used more than once,
    /// are kept once.
    pub fn add(&mut self, mut found: Vec<Finding>) {
        let place = |finding: &Finding| Position { line: finding.line, column: finding.column };
        found.sort_by(|a, b| (place(a), a.severity, a.rule, &a.what).cmp(&(place(b), b.severity, b.rule, &b.what)));
        found.dedup_by(|a, b| place(a) == place(b) && a.rule == b.rule && a.what == b.what);
        self.findings.extend(found);
        self.files += 1;
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    pub fn print(mut self, format: Format, env: &mut Env<'_>) -> Result<(), CliError> {
        match format {
            Format::Json => {
                self.errors = self.count(Severity::Error);
                self.warnings = self.count(Severity::Warning);
                self.notes = self.count(Severity::Note);
                print_json(env, &self)
            }
            Format::Github => {
                let lines: String = self.findings.iter().map(annotation).collect();
                write(env, &lines)
            }
            Format::Text => {
                let coloured = is_coloured(env);
                let lines: String = self.findings.iter().map(|finding| text(finding, coloured)).collect();
                write(env, &format!("{lines}{}\n", self.summary()))
            }
        }
    }

    fn summary(&self) -> String {
        let some = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            many => Some(format!("{many} {what}s")),
        };
        let counted = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")];
        let counted: Vec<String> =
            counted.into_iter().filter_map(|(severity, what)| some(self.count(severity), what)).collect();
        let files = some(self.files, "file").unwrap_or_default();
        if counted.is_empty() {
            format!("{files}: nothing to improve")
        } else {
            format!("{files}: {}", counted.join(", "))
        }
    }
}

fn write(env: &mut Env<'_>, text: &str) -> Result<(), CliError> {
    env.stdout.write_all(text.as_bytes())?;
    Ok(env.stdout.flush()?)
}

fn text(finding: &Finding, coloured: bool) -> String {
    let (word, colour) = match finding.severity {
        Severity::Error => ("error", "31"),
        Severity::Warning => ("warning", "33"),
        Severity::Note => ("note", "36"),
    };
    let word = if coloured { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word.to_owned() };
    let Finding { file, line, column, what, why, better, rule, .. } = finding;
    // The texts quote the file, so they are escaped. The colour codes are ours.
    let mut lines = format!(
        "{}:{line}:{column}: {word}: {} [{}]\n    why: {}\n",
        escape(file),
        escape(what),
        rule.word(),
        escape(why)
    );
    if let Some(better) = better {
        lines += &format!("    better: {}\n", escape(better));
    }
    lines
}

/// A workflow command of GitHub Actions (docs.github.com, "Workflow commands for GitHub Actions").
fn annotation(finding: &Finding) -> String {
    let Finding { file, line, column, what, why, better, rule, .. } = finding;
    let word = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let better = better.as_ref().map(|better| format!("\nbetter: {better}")).unwrap_or_default();
    let message = data(&format!("{what}\nwhy: {why}{better}"));
    let file = data(file).replace(':', "%3A").replace(',', "%2C");
    format!("::{word} file={file},line={line},col={column},title=locker lint%3A {}::{message}\n", rule.word())
}

/// Text in a workflow command: its line breaks are the only control characters, and both are encoded.
fn data(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(escape).collect();
    lines.join("\n").replace('%', "%25").replace('\n', "%0A")
}
