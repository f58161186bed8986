//! `locker lint`: finds in a pipeline what would fail, or leave a lock held, when the pipeline runs.
//!
//! - This file: arguments, files, the order of the checks.
//! - `resources`: which resources are ours, and which may become ours.
//! - `steps`: the steps that use them, with what is around them.
//! - `payloads`: sources and params, through the parser of `check`, `in` and `out`.
//! - `advice`: what is valid, but leaves locks behind.
//! - `report`: findings, and how they are printed.
//!
//! Concourse's own rules are left to `fly validate-pipeline`.

mod advice;
mod payloads;
mod report;
mod resources;
mod steps;

use clap::Args;

use super::output::CliError;
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::yaml::{self, Position};

use report::{Finding, Format, Report, Rule, Severity};

/// The longest pipeline that is read, in bytes. Long ones are some hundred KiB.
const PIPELINE_BYTES: u64 = 4 * 1024 * 1024;

/// Arguments of `lint`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker lint pipeline.yml
  locker lint ci/*.yml --format github             annotations in a workflow of GitHub Actions
  fly -t ci get-pipeline -p app | locker lint -    what is set now
  locker lint --type shared-lock pipeline.yml      the type shared-lock is an image of Locker under another name

((vars)) may stay in: what depends on their values is not checked. docs/lint.md explains each rule.
Exit codes: 0 nothing fails, 1 something fails (with --strict: or is warned about), 2 wrong usage.")]
pub(super) struct LintArgs {
    /// Pipelines to check; - for stdin
    #[arg(required = true, value_name = "PIPELINE")]
    files: Vec<String>,
    /// How to print what is found
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Fail on warnings, too
    #[arg(long)]
    strict: bool,
    /// This resource type is Locker, whatever its image is called; repeatable
    #[arg(long = "type", value_name = "NAME")]
    types: Vec<String>,
}

/// The findings of one file.
struct Findings<'f> {
    file: &'f str,
    list: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, finding: Finding) {
        self.list.push(Finding { file: self.file.to_owned(), ..finding });
    }
}

/// A finding without its file. It is an error; the caller changes that, and adds what would be better.
fn place(rule: Rule, at: Position, what: String, why: impl Into<String>) -> Finding {
    let Position { line, column } = at;
    let (file, why) = (String::new(), why.into());
    Finding { file, line, column, severity: Severity::Error, rule, what, why, better: None }
}

pub(super) fn run(args: &LintArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    let mut report = Report::default();
    for file in &args.files {
        let shown = if file == "-" { "stdin" } else { file };
        let mut found = Findings { file: shown, list: Vec::new() };
        match read(file, env) {
            Ok(text) => check(&text, &args.types, &mut found),
            Err(what) => found.add(place(Rule::Unreadable, Position::START, what, "nothing in it was checked")),
        }
        report.add(found.list);
    }
    let fails = report.count(Severity::Error) > 0 || (args.strict && report.count(Severity::Warning) > 0);
    report.print(args.format, env)?;
    Ok(if fails { exit::FAILED } else { exit::OK })
}

fn read(file: &str, env: &mut Env<'_>) -> Result<String, String> {
    let bytes = env.read_input(file, PIPELINE_BYTES).map_err(|error| format!("cannot be read: {error}"))?;
    let bytes = bytes.ok_or_else(|| format!("is longer than {PIPELINE_BYTES} bytes"))?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn check(text: &str, types: &[String], found: &mut Findings<'_>) {
    let pipeline = match yaml::parse(text) {
        Ok(pipeline) => pipeline,
        Err(yaml::Broken { at, why }) => {
            let finding = place(Rule::Unreadable, at, format!("is not valid YAML: {why}"), "nothing in it was checked");
            let better = text.contains("{{").then(|| "write vars as ((NAME)): fly no longer reads {{NAME}}".to_owned());
            return found.add(Finding { better, ..finding });
        }
    };
    if pipeline.entry("jobs").is_none() && pipeline.entry("resources").is_none() {
        let what = "is not a pipeline: it has neither jobs nor resources".to_owned();
        return found.add(place(Rule::NotAPipeline, Position::START, what, "nothing in it was checked"));
    }
    let resources = resources::find(&pipeline, types);
    let plan = steps::plan(&pipeline, &resources);
    resources.values().for_each(|resource| payloads::source(resource, found));
    plan.steps.iter().for_each(|step| payloads::step(step, found));
    advice::check(&resources, &plan, found);
}
