//! Runs `pipelines/acceptance.yml`: a small Concourse plays each of its jobs as a build, with the real binary as the
//! resource, a real server, and the shell scripts of the tasks. This tests every promise of the README, and the
//! pipeline itself.
//!
//! This Concourse has these parts of the real one: a directory for each artifact, a get after each put, `try`,
//! `in_parallel`, `ensure`, and `timeout` as SIGTERM. Where the pipeline sleeps until something must have happened,
//! this one checks that it has happened. Durations that matter are shorter ([`SHORTER`]).

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use crate::support::{Build, Running, Server, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Durations in the pipeline, and the shorter ones that replace them here.
const SHORTER: [(&str, &str); 2] = [("25s", "5s"), ("20s", "2s")];
/// The drain of the server, shortened by the same factor as the ttl above.
const DRAIN: &str = "6s";
/// How many seconds pass for the pipeline's tasks in one real second.
const HURRY: u32 = 5;

/// One build of a job.
struct Job<'j> {
    server: &'j Mutex<Server>,
    name: &'j str,
    id: u32,
    /// Sources of the resources, by name.
    sources: &'j BTreeMap<String, Value>,
    /// Holds the artifacts, one directory each, and nothing else.
    artifacts: tempfile::TempDir,
    /// Where tasks find `date` first.
    programs: tempfile::TempDir,
    log: Mutex<String>,
}

impl Job<'_> {
    fn note(&self, text: &str) {
        self.log.lock().unwrap().push_str(text);
    }

    fn steps(&self, steps: &Value) -> bool {
        steps.as_array().unwrap().iter().all(|step| self.step(step))
    }

    /// Whether the step succeeded.
    fn step(&self, step: &Value) -> bool {
        if let Some(name) = step["put"].as_str() {
            return self.put(name, step);
        }
        if let Some(name) = step["task"].as_str() {
            return self.task(name, &step["config"]);
        }
        if step["do"].is_array() {
            return self.steps(&step["do"]);
        }
        if step["try"].is_object() {
            self.step(&step["try"]);
            return true;
        }
        let branches = step["in_parallel"].as_array().unwrap_or_else(|| panic!("what is this step? {step}"));
        std::thread::scope(|scope| {
            let running: Vec<_> = branches.iter().map(|branch| scope.spawn(|| self.step(branch))).collect();
            // The scope joins all of them.
            running.into_iter().all(|branch| branch.join().unwrap())
        })
    }

    /// A build with the resource that the step names.
    fn build(&self, step: &Value, name: &str) -> Build {
        let source = &self.sources[step["resource"].as_str().unwrap_or(name)];
        let build = Build::with_source(&self.server.lock().unwrap(), self.id, source);
        build.var("BUILD_JOB_NAME", self.name).var("BUILD_PIPELINE_NAME", "locker-acceptance")
    }

    fn put(&self, name: &str, step: &Value) -> bool {
        let build = self.build(step, name);
        let mut params = step["params"].clone();
        for key in ["ttl", "timeout"] {
            if let Some((_, short)) = SHORTER.iter().find(|(long, _)| params[key] == *long) {
                params[key] = json!(short);
            }
        }
        let payload = json!({"source": build.source, "params": params}).to_string();
        let out = build.start("out", Some(self.artifacts.path()), payload.as_bytes());
        let done = match step["timeout"].as_str() {
            Some(_) => {
                // Concourse sends SIGTERM at the timeout. Here the step gets it as soon as it waits.
                out.until_stderr("waiting: place");
                out.signal(Signal::SIGTERM);
                out.finish()
            }
            None => out.finish(),
        };
        self.note(&format!("-- put {name} {params}: {}\n{}", done.code, done.stderr));
        if done.code != 0 {
            return false;
        }
        if step["no_get"] == true {
            return true;
        }
        let dir = self.artifacts.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let payload = json!({"source": build.source, "version": {"ref": done.version()}}).to_string();
        let got = build.raw("in", Some(&dir), payload.as_bytes());
        self.note(&format!("-- get {name}: {}\n{}", got.code, got.stderr));
        got.code == 0
    }

    fn task(&self, name: &str, config: &Value) -> bool {
        let dir = tempfile::tempdir().unwrap();
        for input in config["inputs"].as_array().into_iter().flatten() {
            let artifact = self.artifacts.path().join(input["name"].as_str().unwrap());
            if artifact.exists() {
                std::os::unix::fs::symlink(&artifact, dir.path().join(input["name"].as_str().unwrap())).unwrap();
            } else if input["optional"] != true {
                self.note(&format!("-- task {name}: no input {}\n", input["name"]));
                return false;
            }
        }
        for output in config["outputs"].as_array().into_iter().flatten() {
            let output = output["name"].as_str().unwrap();
            let artifact = self.artifacts.path().join(output);
            std::fs::create_dir(&artifact).unwrap();
            std::os::unix::fs::symlink(&artifact, dir.path().join(output)).unwrap();
        }
        match name {
            "kill-the-server-now" => {
                // Do what the comment of that job asks the reader to do.
                let mut server = self.server.lock().unwrap();
                server.kill();
                server.again();
                return true;
            }
            // These tasks sleep until other builds have asked.
            "ask-second" => return true,
            "ask-third" => return self.until_waiting(1),
            "hold" => return self.until_waiting(2),
            _ => {}
        }
        let done = self.shell(dir.path(), &config["run"]);
        self.note(&format!("-- task {name}: {}\n{}", done.code, done.stderr));
        done.code == 0
    }

    fn until_waiting(&self, count: u64) -> bool {
        let pool = format!("acceptance-{}", self.name);
        let waiting = || self.server.lock().unwrap().pool(&pool)["waiting"] == count;
        eventually(&format!("{count} waiting"), || waiting().then_some(()));
        true
    }

    fn shell(&self, dir: &Path, run: &Value) -> crate::support::Done {
        let mut command = Command::new(run["path"].as_str().unwrap());
        let path = format!("{}:/usr/bin:/bin", self.programs.path().display());
        command.args(run["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()));
        command.current_dir(dir).env_clear().env("PATH", path);
        Running::start(&mut command, b"").finish()
    }
}

fn pipeline() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/acceptance.yml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Plays a job of the pipeline as a build. Returns whether it succeeded, and its log.
fn play(pipeline: &Value, id: u32, name: &str) -> (bool, String) {
    let list = |key: &str| pipeline[key].as_array().unwrap().iter();
    let sources = list("resources").map(|r| (r["name"].as_str().unwrap().to_owned(), r["source"].clone())).collect();
    let job = list("jobs").find(|job| job["name"] == name).unwrap();
    let server = Mutex::new(Server::start_with("sqlite", &["--drain", DRAIN], &[]));
    let programs = tempfile::tempdir().unwrap();
    let date = programs.path().join("date");
    let script = format!("#!/bin/sh\necho $(( $(/bin/date +%s%3N) * {HURRY} / 1000 ))\n");
    std::fs::write(&date, script).unwrap();
    std::fs::set_permissions(&date, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (artifacts, log) = (tempfile::tempdir().unwrap(), Mutex::default());
    let build = Job { server: &server, name, id, sources: &sources, artifacts, programs, log };
    let done = build.steps(&job["plan"]);
    let ensured = build.step(&job["ensure"]);
    let pool = server.lock().unwrap().pool(&format!("acceptance-{name}"));
    assert_eq!((&pool["free"], &pool["waiting"]), (&pool["locks"], &json!(0)), "{name}: something is left: {pool}");
    (done && ensured, build.log.into_inner().unwrap())
}

#[test]
fn every_promise_is_kept() {
    let pipeline = pipeline();
    let names: Vec<&str> =
        pipeline["jobs"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
    assert!(names.len() >= 8, "{names:?}");
    let logs: BTreeMap<&str, String> = std::thread::scope(|scope| {
        let pipeline = &pipeline;
        let play = |(id, name)| (name, scope.spawn(move || play(pipeline, id, name)));
        let running: Vec<_> = (1..).zip(names).map(play).collect();
        let kept = |(name, job): (_, std::thread::ScopedJoinHandle<'_, (bool, String)>)| {
            let (done, log) = job.join().unwrap();
            assert!(done, "job {name} has failed:\n{log}");
            (name, log)
        };
        running.into_iter().map(kept).collect()
    });
    // Check what that job asks the reader to look at.
    let seen = &logs["not-silent"];
    for text in [
        "waiting: place 1 in the queue; held: \"acceptance-not-silent\" by main/locker-acceptance/not-silent #",
        ", since ",
    ] {
        assert!(seen.contains(text), "{text}: {seen}");
    }
}

/// The jobs fail when a promise is broken.
#[test]
fn a_broken_promise_fails_its_job() {
    let broken = |from: &str, to: &str| {
        let text = pipeline().to_string();
        assert!(text.contains(from), "{from} is not in the pipeline");
        serde_json::from_str::<Value>(&text.replace(from, to)).unwrap()
    };
    for (name, from, to) in [
        // Fences get smaller.
        ("growing-fences", "-lt", "-gt"),
        // The holder does not hold, so the thief gets the lock.
        ("not-twice", r#""as":"thief","queue":false"#, r#""as":"holder","queue":false"#),
    ] {
        let (done, log) = play(&broken(from, to), 1, name);
        assert!(!done, "{name}:\n{log}");
    }
}
