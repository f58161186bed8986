//! `locker lint`, as people, editors and CI run it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use serde_json::Value;

use crate::support::{Done, Running, binary, clean};

fn lint(args: &[&str], stdin: &str) -> Done {
    let mut command = clean(binary());
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    Running::start(command.arg("lint").args(args), stdin.as_bytes()).finish()
}

/// The output of a lint that fails.
#[track_caller]
fn failed(args: &[&str], stdin: &str) -> Done {
    let done = lint(args, stdin);
    assert_eq!((done.code, done.stderr.as_str()), (1, ""), "{done:?}");
    done
}

/// What is found in this pipeline, as `LINE severity rule`.
fn found(pipeline: &str) -> Vec<String> {
    let json = lint(&["-", "--format", "json"], pipeline).json();
    let of = |one: &Value| {
        format!("{} {} {}", one["line"], one["severity"].as_str().unwrap(), one["rule"].as_str().unwrap())
    };
    json["findings"].as_array().unwrap().iter().map(of).collect()
}

/// Valid, with nothing to improve. Each case changes one line.
const GOOD: &str = "\
resource_types: [{name: locker, type: registry-image, source: {repository: example.com/locker}}]
resources:
- {name: env, type: locker, source: {locker_uri: ((uri)), pool: envs}}
jobs:
- name: deploy
  plan:
  - put: env
    params: {acquire: true, as: one}
  - {task: t, config: {platform: linux, outputs: [{name: made}], run: {path: x}}}
  - in_parallel:
    - {put: env, params: {add: made}}
    - {put: env, params: {acquire: true, as: two, ttl: ((ttl))}}
  ensure:
    put: env
    params: {release: build}
- name: later
  plan:
  - get: env
    passed: [deploy]
  - put: env
    params: {verify: env}
  - {task: t, file: env/t.yml}
  - put: env
    params: {release: env}
";

#[test]
fn a_pipeline_without_faults_has_no_findings() {
    assert_eq!(found(GOOD), [""; 0]);
    assert!(lint(&["-"], GOOD).ok().stdout.ends_with("1 file: nothing to improve\n"));
}

/// Each is one change of the pipeline above, and what is found afterwards.
const FAULTS: &[(&str, &str, &[&str])] = &[
    // What the parser of check, in and out refuses, at its own line and column.
    ("pool: envs", "pool: envs, pol: x", &["3 error source"]),
    ("pool: envs", "pool: .envs", &["3 error source"]),
    ("locker_uri: ((uri)), ", "", &["3 error source"]),
    ("locker_uri: ((uri))", "locker_uri: ftp://x", &["3 error source"]),
    ("pool: envs", "pool: envs, scope: lease", &["3 error source"]),
    ("pool: envs", "pool: envs, uri: 'https://x', password: ((p))", &["3 warning git-credentials"]),
    ("pool: envs", "pool: envs, uri: 'https://x', skip_ssl_verification: true", &["3 warning git-credentials"]),
    ("pool: envs", "pool: envs, uri: 'git@x', skip_ssl_verification: true", &[]),
    ("pool: envs", "pool: envs, token: ((t))", &["3 error source"]),
    ("acquire: true, as: one", "acquire: true, as: one, scope: biuld", &["8 error params"]),
    ("acquire: true, as: one", "acquire: true, release: env", &["8 error params", "8 error missing-directory"]),
    ("as: one", "as: one, also: [{pool: other, count: 0}]", &["8 error params"]),
    ("    passed: [deploy]", "    passed: [deploy]\n    params: {tre: false}", &["20 error params"]),
    ("params: {release: env}", "params: {release: env}\n    get_params: {tre: false}", &["25 error params"]),
    // The mistake that leaves a lock held: nobody sees it before a build fails.
    ("params: {release: build}", "params: {relase: build}", &["15 error params"]),
    ("params: {release: build}", "params: {}", &["15 error params"]),
    ("params: {release: build}", "params: {release: {lock: .x}}", &["15 error params"]),
    // Directories.
    ("add: made", "add: mad", &["11 error missing-directory"]),
    ("params: {add: made}", "inputs: [env], params: {add: made}", &["11 error missing-directory"]),
    ("params: {release: build}", "params: {release: env}", &["15 warning directory-in-hook"]),
    (
        "params: {acquire: true, as: one}",
        "params: {acquire: true, as: one}\n    ensure: {put: env, params: {release: env}}",
        &["9 warning directory-in-hook"],
    ),
    ("params: {verify: env}", "params: {verify: env}\n    ensure: {put: env, params: {release: env}}", &[]),
    // Claims that a retry makes twice, and claims that branches share.
    ("params: {acquire: true, as: one}", "params: {acquire: true}\n    attempts: 2", &["7 warning retry-without-as"]),
    ("params: {acquire: true, as: one}", "params: {acquire: true, as: one}\n    attempts: 2", &[]),
    (
        "params: {acquire: true, as: one}",
        "params: {acquire: true, as: one}\n    across: [{var: v, values: [1]}]",
        &["8 warning shared-as"],
    ),
    (
        "params: {acquire: true, as: one}",
        "params: {acquire: true, as: a((.:v))}\n    across: [{var: v, values: [1]}]",
        &[],
    ),
    // Holds that nothing ends.
    ("params: {release: env}", "params: {check: env}\n    no_get: true", &[]),
    ("params: {release: build}", "params: {check: made}", &[]),
    ("ensure:", "on_success:", &["7 note release-not-ensured"]),
    ("params: {release: env}", "params: {release: build}", &["24 warning nothing-to-release"]),
    ("    params: {verify: env}", "    params: {reason: x, check: env}", &["18 note cached-get"]),
    // A job that starts itself.
    (
        "  - put: env\n    params: {acquire",
        "  - {get: env, trigger: true}\n  - put: env\n    params: {acquire",
        &["7 warning self-trigger"],
    ),
    // Types.
    ("example.com/locker", "example.com/ours", &[]),
    ("example.com/locker", "example.com/locker-resource", &["3 note old-type"]),
    ("name: locker, type: registry-image", "name: other, type: registry-image", &[]),
    (
        "{name: env, type: locker, source: {locker_uri: ((uri)), pool: envs}}",
        "{name: env, type: git, source: {uri: x}}",
        &["1 note nothing-to-check"],
    ),
    ("type: locker, source: {", "type: pool, source: {uri: x, branch: x, ", &["3 error wrong-type"]),
    // YAML.
    ("pool: envs", "pool: {{pool}}", &["3 error unreadable"]),
    ("resources:", "resurces:\n- x\n---\nresources:", &["5 error unreadable"]),
];

#[test]
fn each_fault_is_found_at_its_line() {
    let mut wrong = Vec::new();
    for (from, to, expected) in FAULTS {
        let pipeline = GOOD.replacen(from, to, 1);
        assert_ne!(pipeline, GOOD, "{from}");
        let (found, shown) = (found(&pipeline), lint(&["-"], &pipeline).stdout);
        if found != *expected {
            wrong.push(format!("{to}: {found:?}, not {expected:?}\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_any_release_the_lock_is_never_free_again() {
    let pipeline = GOOD.replace("release: build", "check: made").replace("release: env", "check: env");
    assert_eq!(found(&pipeline), ["7 warning never-released"]);
    assert_eq!(found(&pipeline.replace("pool: envs", "pool: envs, ttl: 1h")), [""; 0]);
    assert_eq!(found(&pipeline.replace("pool: envs", "pool: envs, scope: build")), [""; 0]);
}

/// A pipeline of pool-resource: what the move needs, and what Locker would refuse.
const OLD: &str = "\
resources:
- name: env
  type: pool
  source: {uri: 'https://git.example.com/l', branch: main, pool: envs, username: git, retry_delay: 60}
jobs:
- name: j
  plan:
  - put: env
    params: {acquire: true}
  - put: env
    params: {release: env, add: env}
  - put: env
    params: {acquire: false}
";

#[test]
fn a_pipeline_of_pool_resource_is_told_what_the_move_needs() {
    assert_eq!(
        found(OLD),
        ["3 note old-type", "4 warning git-credentials", "11 warning params", "13 warning params"],
        "nothing fails before the move"
    );
    let done = lint(&["-"], OLD).ok();
    for text in [
        "stdin:3:3: note: resource \"env\" is of pool-resource: to move it, its type becomes the image of Locker",
        "username counts for the server of uri only",
        "release and add cannot be in one put: write a put step for each of them",
        "on Locker, the put fails when the build comes to it",
        "this put would take no lock; if that is intended, set optional: true",
    ] {
        assert!(done.stdout.contains(text), "{text}\n{}", done.stdout);
    }
    failed(&["-", "--strict"], OLD);
}

/// Anchors, defaults of the type, nested steps, and vars wherever they may be.
const LARGE: &str = "\
anchors:
  release: &release
    put: env
    params: {release: bulid, tokn: x}
resource_types:
- {name: lock, type: registry-image, source: {repository: ((mirror))/tools}, defaults: {locker_uri: ((u)), pasword: ((p))}}
resources:
- {name: env, type: lock, source: {pool: ((team))-envs, events: [((e))], ca_cert: ((ca))}}
- {name: all-vars, type: lock, source: ((source))}
jobs:
- name: j
  plan:
  - do:
    - try:
        put: all-vars
        params: {acquire: ((maybe)), count: ((n)), labels: {size: ((s))}, ttl: ((t)), scope: ((sc)), queue: ((q))}
        ensure: {<<: *release}
    - in_parallel:
        steps:
        - across: [{var: v, values: ((vs))}]
          put: env
          params: ((params))
    - put: env
      params: {claim: {file: x/y}, also: [{pool: ((p)), count: ((c))}]}
  on_abort: *release
";

#[test]
fn anchors_defaults_and_vars_are_understood() {
    let expected = ["4 error missing-directory", "4 error params", "6 error source", "24 error missing-directory"];
    assert_eq!(found(LARGE), expected, "{}", lint(&["-"], LARGE).stdout);
}

#[test]
fn editors_and_ci_understand_the_output() {
    let bad = GOOD.replace("release: build", "relase: build");
    let text = failed(&["-"], &bad).stdout;
    let what = "unknown params key \"relase\": did you mean \"release\"?";
    assert!(text.contains(&format!("stdin:15:14: error: put \"env\" of job \"deploy\": {what} [params]\n")), "{text}");
    assert!(text.contains("    why: the put fails when this ensure runs, and what it should give back stays held\n"));
    assert!(text.contains("    better: params: {release: build} gives back whatever the build has\n"));
    assert!(text.ends_with("1 file: 1 error\n"), "{text}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a,b:100%.yml");
    std::fs::write(&file, &bad).unwrap();
    let github = failed(&[file.to_str().unwrap(), "--format", "github"], "").stdout;
    let line = github.lines().find(|line| line.starts_with("::error ")).unwrap();
    assert!(line.contains("/a%2Cb%3A100%25.yml,line=15,col=14,title=locker lint%3A params::put \"env\""), "{line}");
    assert!(line.contains("%0Awhy: the put fails") && line.contains("%0Abetter: params: {release"), "{line}");

    let json = failed(&["-", "--format", "json"], &bad).json();
    assert_eq!((&json["errors"], &json["warnings"], &json["notes"]), (&1.into(), &0.into(), &0.into()));
    let first = &json["findings"][0];
    assert_eq!((&first["file"], &first["column"]), (&"stdin".into(), &14.into()));
    assert!(first["better"].is_string(), "{first}");
}

#[test]
fn files_that_cannot_be_checked_are_findings() {
    let done = failed(&["nowhere.yml", "-"], "- a\n");
    assert!(done.stdout.contains("nowhere.yml:1:1: error: cannot be read: "), "{}", done.stdout);
    assert!(done.stdout.contains("stdin:1:1: error: is not a pipeline"), "{}", done.stdout);
    assert!(done.stdout.ends_with("2 files: 2 errors\n"), "{}", done.stdout);
    lint(&[], "").failed(2, "required arguments");
    let hostile = GOOD.replace("acquire: true, as: one", "\"\\e[2J\": 1");
    let done = failed(&["-"], &hostile);
    assert!(done.stdout.contains("\\u{1b}[2J") && !done.stdout.contains('\u{1b}'), "{}", done.stdout);
    let types = GOOD.replace("example.com/locker", "example.com/x").replace("locker_uri: ((uri)), ", "");
    assert_eq!(found(&types), ["1 note nothing-to-check"]);
    failed(&["-", "--type", "locker"], &types).printed("missing locker_uri");
}

/// Our own pipelines are models: no error and no warning.
#[test]
fn the_pipelines_of_this_repository_are_not_warned_about() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let paths = std::fs::read_dir(base).unwrap().map(|file| file.unwrap().path());
    // The only directory is `migrate`, and `debug.yml` is a task.
    let paths = paths.filter(|path| path.is_file() && path.file_stem().unwrap() != "debug");
    let mut files: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    files.push("ci/pipeline.yml".to_owned());
    files.sort();
    let args: Vec<&str> = ["--strict"].into_iter().chain(files.iter().map(String::as_str)).collect();
    lint(&args, "").ok();
}

/// docs/lint.md explains each rule.
#[test]
fn every_rule_has_a_row_in_the_page() {
    let source = std::fs::read_to_string("src/cli/lint/report.rs").unwrap();
    let page = std::fs::read_to_string("docs/lint.md").unwrap();
    let rules = source.split("enum Rule {").nth(1).unwrap().split("\n}").next().unwrap();
    let names = rules.lines().filter_map(|line| line.trim().strip_suffix(',')).filter(|line| !line.starts_with('/'));
    let mut count = 0;
    for name in names {
        let mut word = String::new();
        for c in name.chars() {
            if c.is_uppercase() && !word.is_empty() {
                word.push('-');
            }
            word.extend(c.to_lowercase());
        }
        assert!(page.contains(&format!("| `{word}` |")), "docs/lint.md has no row for {word}");
        count += 1;
    }
    assert!(count > 12, "{count}");
}
