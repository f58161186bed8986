//! The pipelines of this repository, and the YAML of the README, read as Concourse reads them.
//!
//! Three questions about each file: is it a valid pipeline or task; does everything that it names exist; and does the
//! program understand every source and all params of its type? The program's own types answer the last question, so a
//! key that is renamed there breaks the example here.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use locker::wire::concourse::{CheckRequest, InRequest, OutRequest};
use serde_json::{Map, Value, json};

/// The image of this program in examples. A resource type with this repository is ours.
const IMAGE: &str = "example.com/locker";
/// Images of others that our own pipeline runs its tasks in.
const TOOLS: &[&str] = &["concourse/oci-build-task", "rust"];
/// Built-in types of Concourse that the examples use.
const BASE_TYPES: &[&str] = &["git", "github-release", "mock", "registry-image"];

const PIPELINE: &[&str] = &["resource_types", "resources", "jobs", "var_sources", "groups", "display"];
const RESOURCE_TYPE: &[&str] = &["name", "type", "source", "defaults", "privileged", "check_every", "tags", "params"];
const RESOURCE: &[&str] = &[
    "name",
    "type",
    "source",
    "check_every",
    "check_timeout",
    "tags",
    "version",
    "icon",
    "public",
    "webhook_token",
    "old_name",
    "expose_build_created_by",
];
const JOB: &[&str] = &[
    "name",
    "plan",
    "serial",
    "serial_groups",
    "max_in_flight",
    "build_log_retention",
    "disable_manual_trigger",
    "interruptible",
    "public",
    "old_name",
];
const HOOKS: &[&str] = &["on_success", "on_failure", "on_error", "on_abort", "ensure"];
/// Keys of any step, apart from the hooks.
const MODIFIERS: &[&str] = &["attempts", "timeout"];
/// The key that makes a step, with the other keys of that kind of step.
const STEPS: &[(&str, &[&str])] = &[
    ("get", &["resource", "passed", "params", "trigger", "version", "tags"]),
    ("put", &["resource", "params", "inputs", "get_params", "no_get", "tags"]),
    (
        "task",
        &[
            "config",
            "file",
            "image",
            "privileged",
            "vars",
            "params",
            "input_mapping",
            "output_mapping",
            "container_limits",
            "hermetic",
            "tags",
        ],
    ),
    ("set_pipeline", &["file", "vars", "var_files", "team", "instance_vars"]),
    ("load_var", &["file", "format", "reveal"]),
    ("do", &[]),
    ("in_parallel", &[]),
    ("try", &[]),
];
const TASK: &[&str] =
    &["platform", "image_resource", "rootfs_uri", "container_limits", "params", "run", "inputs", "outputs", "caches"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every YAML file below `pipelines/`, by its path from there.
fn files() -> BTreeMap<String, Value> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let base = root().join("pipelines");
    let mut found = Vec::new();
    walk(&base, &mut found);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
        assert_eq!(path.extension().and_then(|e| e.to_str()), Some("yml"), "{name}: only .yml files are checked");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{name} does not begin by saying what it is for");
        let value = parse(&name, &text);
        (name, value)
    };
    found.into_iter().map(read).collect()
}

fn parse(name: &str, text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced blocks of the README that are YAML.
fn readme_yaml() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// One file while it is examined.
struct Pipeline<'p> {
    name: &'p str,
    /// Names of resource types that are this program.
    ours: BTreeSet<String>,
    /// Resources by name.
    resources: BTreeMap<String, &'p Value>,
    jobs: BTreeSet<String>,
    problems: Vec<String>,
}

impl<'p> Pipeline<'p> {
    /// Everything that is wrong with a pipeline.
    fn problems(name: &'p str, value: &'p Value) -> Vec<String> {
        let mut pipeline = Self {
            name,
            ours: BTreeSet::new(),
            resources: BTreeMap::new(),
            jobs: BTreeSet::new(),
            problems: Vec::new(),
        };
        pipeline.examine(value);
        pipeline.problems
    }

    fn wrong(&mut self, what: impl std::fmt::Display) {
        self.problems.push(format!("{}: {what}", self.name));
    }

    fn keys(&mut self, what: &str, value: &Value, known: &[&[&str]]) {
        let Some(map) = value.as_object() else { return self.wrong(format!("{what} is no object: {value}")) };
        for key in map.keys().filter(|key| !known.iter().any(|known| known.contains(&key.as_str()))) {
            self.wrong(format!("{what}: Concourse does not know {key:?} here"));
        }
    }

    /// The entries of a list, with their names. A repeated name is an error.
    fn named(&mut self, value: &'p Value, list: &str) -> Vec<(String, &'p Value)> {
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        for entry in value[list].as_array().into_iter().flatten() {
            match entry["name"].as_str() {
                Some(name) if seen.insert(name) => entries.push((name.to_owned(), entry)),
                name => self.wrong(format!("{list}: {name:?} is no name, or stands twice")),
            }
        }
        entries
    }

    fn examine(&mut self, value: &'p Value) {
        self.keys("the pipeline", value, &[PIPELINE]);
        let mut types: BTreeSet<String> = BASE_TYPES.iter().map(|name| (*name).to_owned()).collect();
        for (name, entry) in self.named(value, "resource_types") {
            self.keys(&name, entry, &[RESOURCE_TYPE]);
            self.image(&name, entry);
            if entry["source"]["repository"] == IMAGE {
                self.ours.insert(name.clone());
            }
            types.insert(name);
        }
        for (name, entry) in self.named(value, "resources") {
            self.keys(&name, entry, &[RESOURCE]);
            if !entry["type"].as_str().is_some_and(|kind| types.contains(kind)) {
                self.wrong(format!("resource {name}: unknown type {}", entry["type"]));
            }
            if self.is_ours(entry) {
                let parsed = CheckRequest::parse(payload(entry, &[]).as_bytes());
                self.understood(&format!("resource {name}"), parsed);
            }
            self.resources.insert(name, entry);
        }
        let jobs = self.named(value, "jobs");
        self.jobs = jobs.iter().map(|(name, _)| name.clone()).collect();
        for (name, job) in jobs {
            self.keys(&name, job, &[JOB, HOOKS]);
            let mut used = BTreeSet::new();
            self.steps(&name, &job["plan"], &mut used);
            self.hooks(&name, job, &mut used);
        }
    }

    fn is_ours(&self, resource: &Value) -> bool {
        resource["type"].as_str().is_some_and(|kind| self.ours.contains(kind))
    }

    /// Examples name no real registry. Our own pipeline needs two images from others.
    fn image(&mut self, what: &str, entry: &Value) {
        let repository = entry["source"]["repository"].as_str().unwrap_or_default();
        if !repository.starts_with("example.com/") && !TOOLS.contains(&repository) {
            self.wrong(format!("{what}: {repository:?} is no place holder"));
        }
    }

    fn understood<T>(&mut self, what: &str, parsed: Result<T, locker::wire::concourse::PayloadError>) {
        if let Err(error) = parsed {
            self.wrong(format!("{what}: {error}"));
        }
    }

    fn steps(&mut self, job: &str, steps: &Value, artifacts: &mut BTreeSet<String>) {
        let Some(list) = steps.as_array().filter(|list| !list.is_empty()) else {
            return self.wrong(format!("{job}: no steps"));
        };
        list.iter().for_each(|step| self.step(job, step, artifacts));
    }

    fn hooks(&mut self, job: &str, step: &Value, artifacts: &mut BTreeSet<String>) {
        for hook in HOOKS.iter().filter_map(|hook| step.get(hook)) {
            self.step(job, hook, artifacts);
        }
    }

    /// `artifacts` are the names that steps before this one may have left.
    fn step(&mut self, job: &str, step: &Value, artifacts: &mut BTreeSet<String>) {
        let kinds: Vec<_> = STEPS.iter().filter(|(kind, _)| step.get(kind).is_some()).collect();
        let [(kind, keys)] = kinds.as_slice() else {
            return self.wrong(format!("{job}: not one step: {step}"));
        };
        self.keys(&format!("{job}, {kind} {}", step[kind]), step, &[&[*kind], keys, HOOKS, MODIFIERS]);
        let name = step[kind].as_str().unwrap_or_default().to_owned();
        match *kind {
            "get" => {
                self.get(job, &name, step);
                artifacts.insert(name);
            }
            "put" => {
                self.put(job, &name, step, artifacts);
                if step["no_get"] != true {
                    artifacts.insert(name);
                }
            }
            "task" => self.task(job, step, artifacts),
            "do" => self.steps(job, &step["do"], artifacts),
            "try" => self.step(job, &step["try"], artifacts),
            "in_parallel" => match &step["in_parallel"] {
                Value::Object(map) => {
                    self.keys("in_parallel", &step["in_parallel"], &[&["steps", "limit", "fail_fast"]]);
                    self.steps(job, map.get("steps").unwrap_or(&Value::Null), artifacts);
                }
                steps => self.steps(job, steps, artifacts),
            },
            _ => {}
        }
        self.hooks(job, step, artifacts);
    }

    /// The resource of a get or put.
    fn resource(&mut self, job: &str, name: &str, step: &Value) -> Option<&'p Value> {
        let name = step["resource"].as_str().unwrap_or(name);
        let found = self.resources.get(name).copied();
        if found.is_none() {
            self.wrong(format!("{job}: there is no resource {name:?}"));
        }
        found
    }

    fn get(&mut self, job: &str, name: &str, step: &Value) {
        for passed in step["passed"].as_array().into_iter().flatten() {
            if !passed.as_str().is_some_and(|passed| self.jobs.contains(passed)) {
                self.wrong(format!("{job}: get {name} has passed no job {passed}"));
            }
        }
        let Some(resource) = self.resource(job, name, step) else { return };
        self.fetch(&format!("{job}, get {name}"), resource, step.get("params"));
    }

    fn fetch(&mut self, what: &str, resource: &Value, params: Option<&Value>) {
        if self.is_ours(resource) {
            let params = params.cloned().unwrap_or_default();
            let text = payload(resource, &[("version", json!({"ref": "1"})), ("params", params)]);
            self.understood(what, InRequest::parse(text.as_bytes()));
        }
    }

    fn put(&mut self, job: &str, name: &str, step: &Value, artifacts: &BTreeSet<String>) {
        let Some(resource) = self.resource(job, name, step) else { return };
        if !self.is_ours(resource) {
            return;
        }
        let what = format!("{job}, put {name}");
        let params = step.get("params").cloned().unwrap_or_default();
        let parsed = OutRequest::parse(payload(resource, &[("params", params.clone())]).as_bytes());
        self.understood(&what, parsed);
        self.fetch(&what, resource, step.get("get_params"));
        for key in ["release", "add", "add_claimed", "remove", "update", "check", "check_unclaimed"] {
            let Some(dir) = params[key].as_str().filter(|dir| !(key == "release" && *dir == "build")) else { continue };
            if !artifacts.contains(dir) {
                self.wrong(format!("{what}: nothing before it has left a directory {dir:?}"));
            }
        }
    }

    fn task(&mut self, job: &str, step: &Value, artifacts: &mut BTreeSet<String>) {
        let Some(config) = step.get("config") else {
            if step["file"].as_str().is_none_or(|file| !artifacts.contains(file.split('/').next().unwrap_or_default()))
            {
                self.wrong(format!("{job}: task {} has no config, and no file of an input", step["task"]));
            }
            return;
        };
        self.task_config(job, config);
        for input in config["inputs"].as_array().into_iter().flatten().filter(|input| input["optional"] != true) {
            if !input["name"].as_str().is_some_and(|name| artifacts.contains(name)) {
                self.wrong(format!("{job}: task {} has no input {}", step["task"], input["name"]));
            }
        }
        let outputs = config["outputs"].as_array().into_iter().flatten();
        artifacts.extend(outputs.filter_map(|output| output["name"].as_str().map(str::to_owned)));
    }

    fn task_config(&mut self, job: &str, config: &Value) {
        self.keys(&format!("{job}, task"), config, &[TASK]);
        self.keys(&format!("{job}, run"), &config["run"], &[&["path", "args", "dir", "user"]]);
        self.keys(
            &format!("{job}, image"),
            &config["image_resource"],
            &[&["type", "source", "params", "version", "name"]],
        );
        self.image(job, &config["image_resource"]);
        if config["platform"] != "linux" || !config["run"]["path"].is_string() {
            self.wrong(format!("{job}: a task needs a platform and something to run"));
        }
    }
}

/// What Concourse would write on stdin, with every var that is a whole value filled in.
fn payload(resource: &Value, more: &[(&str, Value)]) -> String {
    let mut request = Map::new();
    request.insert("source".to_owned(), resource["source"].clone());
    request.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Value::Object(request).to_string().replace("((locker_uri))", "http://locker.example.com:8910")
}

#[test]
fn every_pipeline_is_valid_and_understood() {
    let files = files();
    let mut problems = Vec::new();
    for (name, value) in &files {
        if name == "debug.yml" {
            continue;
        }
        problems.extend(Pipeline::problems(name, value));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    assert!(files.len() >= 14, "pipelines are missing: {:?}", files.keys());
}

/// The tokens are of its var source, and the access file in its head is a good one.
#[test]
fn the_pipeline_that_proves_itself_can() {
    let value = &files()["prove.yml"];
    let source = &value["var_sources"][0];
    assert_eq!((&source["name"], &source["type"]), (&json!("id"), &json!("idtoken")));
    let text = std::fs::read_to_string(root().join("pipelines/prove.yml")).unwrap();
    let puts = text.matches("put: ").count();
    assert!(puts > 0 && text.matches("token: ((id:token))").count() == puts, "each put shows a token");
    let file = text.split("#   issuers:\n").nth(1).unwrap().split("\n#\n").next().unwrap();
    let file: Vec<&str> = file.lines().map(|line| line.strip_prefix("#   ").unwrap()).collect();
    let file = format!("issuers:\n{}\n", file.join("\n"));
    locker::server::auth::access::AccessFile::parse(&file).unwrap_or_else(|faults| panic!("{faults:?}\n{file}"));
}

#[test]
fn the_readme_is_understood() {
    let blocks = readme_yaml();
    assert!(!blocks.is_empty());
    let mut problems = Vec::new();
    for block in &blocks {
        // Its task file is in a repository that the example does not show.
        let found = Pipeline::problems("README.md", &parse("README.md", block));
        problems.extend(found.into_iter().filter(|problem| !problem.ends_with("and no file of an input")));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn our_own_pipeline_is_valid_and_its_tasks_exist() {
    let read = |name: &str| parse(name, &std::fs::read_to_string(root().join(name)).unwrap());
    let value = read("ci/pipeline.yml");
    assert_eq!(Pipeline::problems("ci/pipeline.yml", &value), [""; 0]);
    let text = value.to_string();
    let tasks: BTreeSet<&str> = text.split("\"repo/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let tasks: Vec<&str> = tasks.into_iter().filter(|file| file.starts_with("ci/tasks/")).collect();
    assert_eq!(tasks, ["ci/tasks/mutants.yml", "ci/tasks/release.yml", "ci/tasks/test.yml"]);
    for name in tasks {
        let task = read(name);
        let mut pipeline = Pipeline {
            name,
            ours: BTreeSet::new(),
            resources: BTreeMap::new(),
            jobs: BTreeSet::new(),
            problems: Vec::new(),
        };
        pipeline.task_config(name, &task);
        assert_eq!(pipeline.problems, [""; 0]);
        // The script that it runs is in this repository and is executable.
        let script = root().join(task["run"]["path"].as_str().unwrap());
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&script).unwrap().permissions());
        assert_eq!(mode & 0o111, 0o111, "{}", script.display());
    }
}

#[test]
fn every_pipeline_is_in_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for name in files().keys() {
        let shown = name.split_once('/').map_or(name.as_str(), |(dir, _)| dir);
        assert!(readme.contains(&format!("(pipelines/{shown})")), "README.md does not name pipelines/{shown}");
    }
}

#[test]
fn debug_is_a_task_with_a_source() {
    let files = files();
    let task = &files["debug.yml"];
    let mut pipeline = Pipeline {
        name: "debug.yml",
        ours: BTreeSet::new(),
        resources: BTreeMap::new(),
        jobs: BTreeSet::new(),
        problems: Vec::new(),
    };
    pipeline.task_config("debug", task);
    assert_eq!(pipeline.problems, [""; 0]);
    // Concourse passes a param that is not text to the task as JSON.
    let source = &task["params"]["LOCKER_SOURCE"];
    CheckRequest::parse(json!({ "source": source }).to_string().as_bytes()).unwrap();
    assert_eq!((&task["run"]["path"], &task["run"]["args"][0]), (&json!("locker"), &json!("doctor")));
}

/// A promise is the bold text at the beginning of an item, before the first section and under "Guarantees".
#[test]
fn every_promise_of_the_readme_has_a_job() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let intro = readme.split("\n## ").next().unwrap();
    let guarantees = readme.split("\n## Guarantees\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut promises = BTreeSet::new();
    for line in intro.lines().chain(guarantees.lines()).filter(|line| line.starts_with("- ")) {
        let promise = line.strip_prefix("- **").and_then(|rest| rest.split_once(".**")).map(|(promise, _)| promise);
        let promise = promise.unwrap_or_else(|| panic!("this item has no name in bold: {line}"));
        promises.insert(promise.to_lowercase().replace(' ', "-"));
    }
    let files = files();
    let jobs = files["acceptance.yml"]["jobs"].as_array().unwrap();
    let jobs: BTreeSet<String> = jobs.iter().map(|job| job["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(jobs, promises);
}

/// The job without what Locker adds: `as` in params, and an `ensure`.
fn without_additions(jobs: &Value) -> Value {
    let mut jobs = jobs.clone();
    for job in jobs.as_array_mut().unwrap() {
        job.as_object_mut().unwrap().remove("ensure");
        for step in job["plan"].as_array_mut().unwrap() {
            step.get_mut("params").and_then(Value::as_object_mut).map(|params| params.remove("as"));
        }
    }
    jobs
}

/// Moving to Locker changes the image and the source. The jobs may gain something, and need no change.
#[test]
fn a_move_leaves_the_jobs_alone() {
    let files = files();
    for from in ["pool-resource", "locker-resource"] {
        let (before, after) =
            (&files[&format!("migrate/{from}-before.yml")], &files[&format!("migrate/{from}-after.yml")]);
        assert_eq!(before["jobs"], without_additions(&after["jobs"]), "{from}");
        // The old source works as soon as it names a server.
        let mut source = before["resources"][0]["source"].clone();
        source["locker_uri"] = json!("https://locker.example.com");
        CheckRequest::parse(json!({ "source": source }).to_string().as_bytes()).unwrap();
    }
}

/// Tests the checks themselves: they find errors.
#[test]
fn mistakes_are_found() {
    let good = "
resource_types: [{name: locker, type: registry-image, source: {repository: example.com/locker}}]
resources: [{name: r, type: locker, source: {locker_uri: 'http://x', pool: p}}]
jobs: [{name: j, plan: [{put: r, params: {acquire: true}}, {put: r, params: {release: r}}]}]
";
    assert_eq!(Pipeline::problems("x", &parse("x", good)), [""; 0]);
    let cases = [
        ("pool: p", "pool: p, poool: q", "unknown source key"),
        ("acquire: true", "aquire: true", "unknown params key"),
        ("acquire: true", "acquire: true, count: 0", "params.count: must be"),
        ("release: r", "release: s", "nothing before it has left a directory \"s\""),
        ("{put: r, params: {acquire", "{put: s, params: {acquire", "there is no resource \"s\""),
        ("{put: r, params: {acquire", "{get: r, passed: [k]}, {put: r, params: {acquire", "has passed no job \"k\""),
        ("{put: r, params: {acquire", "{put: r, pasams: {}, params: {acquire", "does not know \"pasams\""),
        ("{put: r, params: {acquire", "{putt: r, params: {acquire", "not one step"),
        ("type: locker", "type: looker", "unknown type"),
        ("example.com/locker", "registry.example.org/locker", "is no place holder"),
        ("name: j,", "name: j, seriall: true,", "does not know \"seriall\""),
    ];
    for (from, to, text) in cases {
        let bad = good.replacen(from, to, 1);
        let problems = Pipeline::problems("x", &parse("x", &bad));
        assert!(problems.iter().any(|problem| problem.contains(text)), "{to}: {problems:?}");
    }
}
