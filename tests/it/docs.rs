//! The pages against the program: tables that are made from it, names that the pages must mention, commands that must
//! run.
//!
//! Tables between `<!-- made by tests/it/docs.rs: NAME -->` and `<!-- end -->` are rewritten by
//! `LOCKER_UPDATE_DOCS=1 cargo test --test it docs::`, and so is docs/api.md as a whole. Everything else is written by hand.
//!
//! Rule for README.md: each `sh` block runs as one script, in an empty directory with `locker` in the path and a server
//! at the URL that the page uses; a block that cannot run follows a line `<!-- not run: REASON -->`, and lines that
//! begin with the name of another system's program (`fly`, `docker`, `kubectl`) are left out.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::certs::Ca;
use crate::support::{Running, Server, binary, clean, eventually};
use locker::cli;
use locker::server::routes::description;
use locker::wire::concourse::{Source, param_names};
use locker::wire::errors::Code;
use nix::sys::signal::Signal;
use serde_json::Value;

/// The server's address on the page. The test replaces it with the address of a real server.
const EXAMPLE: &str = "http://locker.example.com:8910";
const OTHERS: &[&str] = &["fly ", "docker ", "kubectl "];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The pages that people read, by their path from the root.
fn pages() -> Vec<String> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|page| root().join(page)).into();
    walk(&root().join("docs"), &mut found);
    found.iter().map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()).collect()
}

/// The text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn settings(command: &clap::Command) -> String {
    let mut table = String::from("| flag | variable | default | meaning |\n|---|---|---|---|\n");
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set()) {
        let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
        let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let takes = arg.get_action().takes_values();
        let default =
            arg.get_default_values().first().filter(|_| takes).map(|value| format!("`{}`", value.to_string_lossy()));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(table, "| `--{long}` | {variable} | {} | {} |", default.unwrap_or_default(), cell(&help)).unwrap();
    }
    table
}

/// Every command with its arguments, one table row for each command.
fn commands() -> String {
    fn walk(command: &clap::Command, name: &str, table: &mut String) {
        let name = format!("{name} {}", command.get_name()).trim().to_owned();
        let subcommands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if subcommands.is_empty() && name != "locker server" {
            let args = command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set());
            let args = args.filter_map(|arg| match arg.get_long() {
                Some("help" | "version") => None,
                Some(long) => Some(format!("`--{long}`")),
                None => Some(format!("`{}`", arg.get_id().as_str().to_uppercase())),
            });
            let args: Vec<String> = args.collect();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(table, "| `{name}` | {} | {} |", args.join(" "), cell(&about)).unwrap();
        }
        subcommands.iter().for_each(|sub| walk(sub, &name, table));
    }
    let mut table = String::from("| command | arguments | what it does |\n|---|---|---|\n");
    walk(&cli::command(), "", &mut table);
    table
}

fn connection() -> String {
    let mut table = String::from("| flag | variable | meaning |\n|---|---|---|\n");
    for arg in cli::command().get_arguments().filter(|arg| arg.is_global_set()) {
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(table, "| `--{}` | `{variable}` | {} |", arg.get_long().unwrap(), cell(&help)).unwrap();
    }
    table
}

/// The files with limits, each next to what it limits.
const LIMITS: [&str; 7] = [
    "src/core/limits.rs",
    "src/server/limits.rs",
    "src/server/door/limits.rs",
    "src/server/link/limits.rs",
    "src/server/build_watch/limits.rs",
    "src/server/auth/idtoken/limits.rs",
    "src/agent/limits.rs",
];

/// Read from the source: a limit is a constant with a doc comment.
fn limits() -> String {
    let source = LIMITS.map(read).concat();
    let mut table = String::from("| limit | value | what, and why that much |\n|---|---|---|\n");
    let mut said = Vec::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            said.push(text);
        } else if let Some((name, rest)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(':')) {
            let value = rest.split_once('=').unwrap().1.trim().trim_end_matches(';');
            writeln!(table, "| `{name}` | `{value}` | {} |", cell(&said.join(" "))).unwrap();
            said.clear();
        } else {
            said.clear();
        }
    }
    table
}

fn codes() -> String {
    let schema = schemars::schema_for!(Code).to_value();
    let mut table = String::from("| code | status | exit code | means |\n|---|---|---|---|\n");
    for code in Code::ALL {
        let known = schema["oneOf"].as_array().into_iter().flatten();
        let means = known.clone().find(|one| one["const"] == code.word()).and_then(|one| one["description"].as_str());
        let means = means.unwrap_or_else(|| panic!("say in src/wire/errors.rs, above {code:?}, what it means"));
        writeln!(table, "| `{}` | {} | {} | {} |", code.word(), code.status(), code.exit(), cell(means)).unwrap();
    }
    table
}

/// The name at the end of a schema, such as `ClaimView`.
fn shape(value: &Value) -> Option<&str> {
    value["$ref"].as_str().and_then(|path| path.rsplit('/').next())
}

/// `docs/api.md`: the routes and the shapes of openapi.json.
fn api() -> String {
    let document = description();
    let mut page = String::from(
        "# HTTP API\n\n<!-- Made by tests/it/docs.rs from openapi.json; LOCKER_UPDATE_DOCS=1 cargo test --test it docs:: writes it anew. -->\n\n\
        `GET /openapi.json` of a running server has the same for programs. Requests and answers are JSON in UTF-8. Unknown\n\
        fields are refused. Durations are text such as `90s` or `1h30m`; times are RFC 3339 in UTC. An error is\n\
        `{\"error\": TEXT, \"code\": WORD}`, with further members where they help. The word is stable; the text is for people.\n\n\
        ## Routes\n\n| route | does | body | answer | refusals |\n|---|---|---|---|---|\n",
    );
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content =
                |value: &Value| shape(&value["content"]["application/json"]["schema"]).map(|s| format!("`{s}`"));
            let body = content(&operation["requestBody"]).unwrap_or_default();
            let responses = operation["responses"].as_object().unwrap();
            let good = responses.iter().find(|(status, _)| status.starts_with('2'));
            let answer = good.and_then(|(_, response)| content(response)).unwrap_or_default();
            let refusals: Vec<&str> = responses
                .iter()
                .filter(|(status, _)| !status.starts_with('2'))
                .filter_map(|(status, _)| status.get(..))
                .collect();
            let query = operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
            let query: Vec<&str> = query.filter_map(|p| p["name"].as_str()).collect();
            let query = if query.is_empty() { String::new() } else { format!("?{}=", query.join("=&")) };
            let summary = operation["summary"].as_str().unwrap_or_default();
            let method = method.to_uppercase();
            writeln!(
                page,
                "| `{method} {path}{query}` | {} | {body} | {answer} | {} |",
                cell(summary),
                refusals.join(" ")
            )
            .unwrap();
        }
    }
    write!(page, "\n## Error codes\n\n{}", codes()).unwrap();
    page.push_str("\n## Shapes\n\nMembers with `?` may be missing.\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if name == "Code" {
            continue;
        }
        write!(page, "\n### {name}\n\n").unwrap();
        if let Some(text) = schema["description"].as_str() {
            write!(page, "{}\n\n", text.replace('\n', " ")).unwrap();
        }
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(members) = schema["properties"].as_object() {
            for (member, of) in members {
                let optional = if required.contains(member.as_str()) { "" } else { "?" };
                let text = of["description"].as_str().unwrap_or_default().replace('\n', " ");
                let text = if text.is_empty() { text } else { format!(": {text}") };
                writeln!(page, "- `{member}`{optional} {}{text}", kind(of)).unwrap();
            }
        } else {
            writeln!(page, "{}", kind(schema)).unwrap();
        }
    }
    page
}

/// The type of a member in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = shape(schema) {
        return format!("`{name}`");
    }
    for many in ["oneOf", "anyOf", "allOf"] {
        if let Some(of) = schema[many].as_array() {
            let of: Vec<String> = of.iter().map(kind).filter(|kind| kind != "null").collect();
            return of.join(" or ");
        }
    }
    if let Some(value) = schema.get("const").and_then(Value::as_str) {
        return format!("`\"{value}\"`");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect::<Vec<_>>().join(" or ")
        }
        _ => String::from("any"),
    };
    if name == "array" { format!("list of {}", kind(&schema["items"])) } else { name }
}

/// The page with the table of this name replaced.
fn with_table(page: &str, name: &str, table: &str) -> String {
    let text = read(page);
    let begin = format!("<!-- made by tests/it/docs.rs: {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no line {begin}"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap_or_else(|| panic!("{page}: {name} has no end"));
    format!("{before}{begin}{table}<!-- end -->{after}")
}

#[test]
fn generated_pages_are_up_to_date() {
    let root_command = cli::command();
    let server = root_command.get_subcommands().find(|sub| sub.get_name() == "server").unwrap();
    let tables = [
        ("docs/operations.md", "settings", settings(server)),
        ("docs/operations.md", "limits", limits()),
        ("docs/commands.md", "commands", commands()),
        ("docs/commands.md", "connection", connection()),
    ];
    let mut stale = BTreeSet::new();
    let mut hold = |page: &str, wanted: &str| {
        if fs::read_to_string(root().join(page)).unwrap_or_default() != wanted {
            if std::env::var_os("LOCKER_UPDATE_DOCS").is_some() {
                fs::write(root().join(page), wanted).unwrap();
            } else {
                stale.insert(page.to_owned());
            }
        }
    };
    for (page, name, table) in tables {
        hold(page, &with_table(page, name, &table));
    }
    hold("docs/api.md", &api());
    assert!(
        stale.is_empty(),
        "{stale:?} no longer say what the program does. Write their tables anew, and look at the difference: \
         LOCKER_UPDATE_DOCS=1 cargo test --features plant --test it docs::"
    );
}

/// All string literals of the sources that look like `LOCKER_...`, which are environment variables.
fn variables() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let words = text.split('"').filter(|word| word.starts_with("LOCKER_") && word.len() < 50);
            found.extend(words.filter(|w| w.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')).map(str::to_owned));
        }
    }
    let mut found = BTreeSet::new();
    walk(&root().join("src"), &mut found);
    // Only tests use these.
    for hidden in ["LOCKER_PLANT", "LOCKER_SIM_SEEDS"] {
        found.remove(hidden);
    }
    found
}

#[test]
fn every_name_is_documented() {
    let readme = read("README.md");
    let all: String = pages().iter().map(|page| read(page)).collect();
    let mut missing = Vec::new();
    let mut tell = |where_: &str, text: &str, names: &[&str]| {
        for name in names {
            // Written as code, alone or with a value.
            if ![format!("`{name}`"), format!("`{name}=")].iter().any(|told| text.contains(told)) {
                missing.push(format!("`{name}`: {where_}"));
            }
        }
    };
    tell("a row in README.md, Source Configuration", &readme, Source::KEYS);
    tell("a row in README.md, Behavior, out", &readme, &param_names().collect::<Vec<_>>());
    let variables = variables();
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    tell("say what this variable does in README.md or docs/", &all, &variables);
    let errors = read("src/wire/errors.rs");
    let exits = errors.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": u8 = "));
    let exits: Vec<&str> = exits.map(|(_, code)| code.trim_end_matches(';')).collect();
    assert!(exits.contains(&"0") && exits.len() >= 8, "{exits:?}");
    for page in ["README.md", "docs/commands.md"] {
        // Up to the end of the paragraph.
        let text = read(page);
        let told = text.split("\nExit codes: ").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
        for code in &exits {
            if !format!(" {told}").contains(&format!(" {code} ")) {
                missing.push(format!("exit code {code}: {page}, what follows \"Exit codes: \""));
            }
        }
    }
    assert!(missing.is_empty(), "not documented:\n{}", missing.join("\n"));
}

/// The page names a metric for each limit of the door. `metrics` checks that it is served.
#[test]
fn every_limit_names_a_metric() {
    let page = read("docs/operations.md");
    let rows = page.split("\n| setting | default | past it the client gets | metric |\n").nth(1).unwrap_or_default();
    let rows: Vec<Vec<&str>> = rows
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let is_metric = |text: &str| {
        let name = text.trim_matches('`').split('{').next().unwrap_or_default();
        text.starts_with('`') && name.starts_with("locker_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    for row in &rows {
        assert!(row.len() == 4 && row[3].split(", ").all(is_metric), "{row:?} names no metric");
    }
    let command = cli::command();
    let server = command.find_subcommand("server").unwrap();
    let flags = server.get_arguments().filter_map(clap::Arg::get_long);
    // That one limits the requests that the server sends, not those that it receives.
    let is_bound = |flag: &&str| flag.starts_with("max-") || flag.ends_with("-timeout") && *flag != "watch-timeout";
    let bounds: Vec<&str> = flags.filter(is_bound).collect();
    let has_row = |flag: &&&str| rows.iter().any(|row| row[0].starts_with(&format!("`--{flag}`")));
    let missing: Vec<&&str> = bounds.iter().filter(|flag| !has_row(flag)).collect();
    assert!(bounds.len() >= 11 && missing.is_empty(), "no row in the limits of docs/operations.md: {missing:?}");
}

/// The `sh` blocks of README.md that run, each with the number of its first line.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "```sh") {
        let before = lines[..at].iter().rev().find(|line| !line.is_empty()).unwrap_or(&"");
        let body: Vec<&str> = lines[at + 1..].iter().take_while(|line| **line != "```").copied().collect();
        if !before.starts_with("<!-- not run: ") {
            found.push((at + 2, body.join("\n")));
        }
    }
    found
}

/// An empty directory with the files that the page assumes.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(binary(), bin.join("locker")).unwrap();
    let pair = Ca::new("example").issue(&["localhost"], "server");
    for (file, text) in [
        ("cert.pem", pair.cert.as_str()),
        ("key.pem", &pair.key),
        ("env-1.yml", "url: https://env-1.example.com\n"),
        ("source.json", &format!("{{\"locker_uri\": \"{EXAMPLE}\", \"pool\": \"staging\"}}")),
    ] {
        fs::write(dir.path().join(file), text).unwrap();
    }
    for script in ["deploy.sh", "maintain.sh"] {
        fs::write(dir.path().join(script), "#!/bin/sh\n").unwrap();
        fs::set_permissions(dir.path().join(script), fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn shell(dir: &Path, script: &str) -> Command {
    let mut command = clean("/bin/sh");
    let path = format!("{}:/usr/bin:/bin", dir.join("bin").display());
    command.args(["-euc", script]).current_dir(dir).env("PATH", path).env("USER", "ada").env("HOME", dir);
    command
}

/// Whether the command of a line is a server, which runs until a signal ends it.
fn serves(line: &str) -> bool {
    let words = line.split_whitespace().filter(|word| !word.contains('='));
    words.take(2).eq(["locker", "server"]) && !line.contains("--help")
}

#[test]
fn every_block_of_the_readme_runs() {
    let blocks = blocks(&read("README.md"));
    assert!(blocks.len() >= 3, "{blocks:?}");
    for (line, block) in blocks {
        let server = Server::start();
        let dir = place();
        let source = dir.path().join("source.json");
        fs::write(&source, fs::read_to_string(&source).unwrap().replace(EXAMPLE, &server.url)).unwrap();
        let ours = block.lines().filter(|line| !OTHERS.iter().any(|other| line.starts_with(other)));
        let (servers, others): (Vec<&str>, Vec<&str>) = ours.partition(|line| serves(line));
        let script = others.join("\n").replace(EXAMPLE, &server.url);
        let done = Running::start(shell(dir.path(), &script).env("LOCKER_URI", &server.url), b"").finish();
        assert_eq!(
            done.code, 0,
            "README.md, the block from line {line} on does not run. Repair it, or say above it why it cannot: \
             <!-- not run: REASON -->\n{script}\n{done:?}"
        );
        for line in servers {
            // Use any free port, and fill in what the page leaves to the reader.
            let local = line.replace("0.0.0.0:8910", "127.0.0.1:0").replace("=...", "=example");
            let mut running = Running::start(shell(dir.path(), &format!("exec env {local}")).env("PORT", "0"), b"");
            eventually("a server that listens, or has ended", || {
                (running.stderr().contains(" listening on ") || !running.is_running()).then_some(())
            });
            assert!(running.stderr().contains(" listening on "), "README.md: {line}: {}", running.stderr());
            running.signal(Signal::SIGTERM);
            let done = running.finish();
            assert_eq!(done.code, 0, "README.md: {line}: {done:?}");
        }
    }
}

/// Its blocks are one script: each goes on with what the earlier ones have set.
#[test]
fn the_page_about_curl_runs() {
    let blocks = blocks(&read("docs/curl.md"));
    assert!(blocks.len() >= 10, "{blocks:?}");
    let server = Server::start();
    let dir = place();
    let script: Vec<&str> = blocks.iter().map(|(_, block)| block.as_str()).collect();
    let script = script.join("\n").replace(EXAMPLE, &server.url);
    let done = Running::start(&mut shell(dir.path(), &script), b"").finish();
    let statuses: Vec<&str> = done.stdout.lines().filter(|line| line.len() == 3).collect();
    assert!(done.code == 0 && statuses.len() > 8 && statuses.iter().all(|status| *status == "200"), "{done:?}");
    assert!(done.stdout.contains("deploying to staging") && done.stdout.contains(" broken"), "{}", done.stdout);
    assert!(done.stdout.contains("staging: 1 of 1 free, 0 waiting"), "{}", done.stdout);
}

#[test]
fn completions_and_man_pages_are_whole() {
    let run = |args: &[&str]| Running::start(clean(binary()).args(args), b"").finish();
    let bash = run(&["completions", "bash"]).ok().stdout;
    Running::start(clean("/bin/bash").args(["-n", "/dev/stdin"]), bash.as_bytes()).finish().ok();
    for (shell, text) in [("zsh", "#compdef locker"), ("fish", "complete -c locker"), ("bash", "_locker()")] {
        assert!(run(&["completions", shell]).ok().stdout.contains(text), "{shell}");
    }
    run(&["completions", "tcsh"]).failed(2, "possible values: bash, zsh, fish");

    let page = run(&["man"]).ok().stdout;
    assert!(page.contains(".TH locker 1"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    run(&["man", "--dir", dir.path().to_str().unwrap()]).ok();
    for name in ["locker", "locker-server", "locker-claim", "locker-store-check"] {
        let file = dir.path().join(format!("{name}.1"));
        assert!(fs::read_to_string(&file).unwrap().contains(&format!(".TH {name} 1")), "{}", file.display());
    }
    run(&["man", "--dir", "/nowhere"]).failed(1, "/nowhere");
}
