//! docs/other-ci: each snippet runs as far as it runs outside its system, against a real server. Where a system proves by an id
//! token who asks, a pretend issuer signs one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::issuer::{Issuer, Key};
use crate::support::{Done, Impostor, Running, Server, binary, clean, eventually};

/// The server of all pages.
const EXAMPLE: &str = "https://locker.example.com";

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = read(&format!("docs/other-ci/{page}"));
    let parts: Vec<&str> = text.split("```").collect();
    // Every second part is inside a fence.
    let inside = parts.iter().skip(1).step_by(2);
    inside.filter_map(|part| part.strip_prefix(&format!("{language}\n"))).map(str::to_owned).collect()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A directory with `locker`, and programs that write down how they were called, with which lock, and on whose behalf.
struct Yard {
    dir: tempfile::TempDir,
}

impl Yard {
    fn new(programs: &[&str]) -> Self {
        let yard = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(yard.dir.path().join("path")).unwrap();
        symlink(binary(), yard.dir.path().join("path/locker")).unwrap();
        for program in programs {
            let log = yard.dir.path().join("ran");
            let text = format!("#!/bin/sh\necho ${{0##*/}} $* $LOCKER_NAME >>{}\n", log.display());
            yard.write(program, &text);
            fs::set_permissions(yard.dir.path().join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        yard
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    /// Runs a script as a CI system would: with these variables and nothing else.
    fn run(&self, shell: &[&str], script: &str, vars: &[(&str, &str)]) -> Done {
        let mut command = clean(shell[0]);
        let path = format!("{}/path:/usr/bin:/bin", self.dir.path().display());
        command.args(&shell[1..]).arg(script).env("PATH", path).env("USER", "ci").current_dir(self.dir.path());
        command.envs(vars.iter().copied());
        Running::start(&mut command, b"").finish()
    }

    fn ran(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("ran")).unwrap_or_default();
        text.lines().collect::<Vec<_>>().join("; ")
    }
}

const SH: [&str; 2] = ["/bin/sh", "-ec"];

/// Asserts that the pool was used once, and is free again.
fn used_once(server: &Server, pool: &str) {
    assert_eq!(server.pool(pool)["free"], 1, "{pool}");
    let history = server.api("GET", &format!("/changes?pool={pool}&order=newest_first"), &Value::Null).1;
    let kinds: Vec<&str> = history["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "claimed").count(), 1, "{history}");
}

/// A server that believes an issuer, with the access file of a page, and a token of that issuer.
fn believing(page: &str, claims: &Value) -> (Issuer, Server, String, tempfile::TempDir) {
    let key = Key::rsa("1", 0);
    let issuer = Issuer::start(&[&key]);
    let access = blocks(page, "yml").remove(0);
    let told: Vec<&str> = access.lines().filter(|line| !line.trim_start().starts_with("issuer: ")).collect();
    let access = told.join("\n").replace("    kind:", &format!("    issuer: {}\n    kind:", issuer.url));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.yml");
    fs::write(&file, access).unwrap();
    let server = Server::start_with("memory:", &["--access", file.to_str().unwrap()], &[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = claims.clone();
    for (name, value) in
        [("iss", json!(issuer.url)), ("aud", json!(EXAMPLE)), ("iat", json!(now)), ("exp", json!(now + 300))]
    {
        claims[name] = value;
    }
    let token = key.token(&claims);
    let bearer = format!("authorization: Bearer {token}\r\n");
    eventually("the issuer's keys", || {
        (server.connect().ask("GET", "/api/v1/info", &bearer, "").unwrap().status == 200).then_some(())
    });
    (issuer, server, token, dir)
}

/// Who proved to be behind the claim of `staging`, as the token's owner sees it.
fn proved(server: &Server, token: &str) -> Value {
    let bearer = format!("authorization: Bearer {token}\r\n");
    let answer = server.connect().ask("GET", "/api/v1/changes?pool=staging", &bearer, "").unwrap().json();
    let claimed = answer["items"].as_array().unwrap().iter().find(|entry| entry["kind"] == "claimed").unwrap().clone();
    claimed["proved"].clone()
}

/// The step of the action, with the values of its inputs.
fn action(inputs: &Value) -> (String, Vec<(String, String)>) {
    let action = yaml(&read("deploy/github-action/action.yml"));
    let given = inputs.as_object().unwrap();
    let mut values = BTreeMap::new();
    for (name, input) in action["inputs"].as_object().unwrap() {
        let value = given.get(name).or_else(|| input.get("default"));
        let value = value.unwrap_or_else(|| panic!("the input {name} is required"));
        values.insert(format!("${{{{ inputs.{name} }}}}"), value.as_str().unwrap().to_owned());
    }
    let unknown: Vec<&String> = given.keys().filter(|name| action["inputs"].get(name).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let step = &action["runs"]["steps"][0];
    let script = step["run"].as_str().unwrap().to_owned();
    assert!(!script.contains("${{"), "an input must not become a part of the script");
    let vars = step["env"].as_object().unwrap().iter();
    (script, vars.map(|(name, value)| (name.clone(), values[value.as_str().unwrap()].clone())).collect())
}

#[test]
fn github_actions() {
    let workflow = yaml(&blocks("github-actions.md", "yaml")[0]);
    assert_eq!(workflow["permissions"]["id-token"], "write");
    let step = &workflow["jobs"]["deploy"]["steps"][1];
    assert!(step["uses"].as_str().unwrap().contains("/deploy/github-action@"), "{step}");
    let claims = json!({"repository": "acme/app", "repository_owner": "acme", "repository_owner_id": "65", "sub": "x",
        "workflow": "deploy", "ref": "refs/heads/main"});
    let (_issuer, server, token, _dir) = believing("github-actions.md", &claims);
    let (script, vars) = action(&step["with"]);
    let answer: &'static str = json!({"value": token}).to_string().leak();
    let github = Impostor::says("200 OK", answer);
    let yard = Yard::new(&["deploy.sh"]);
    let url = format!("{}/token?api-version=2", github.url);
    let mut env: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // The audience is the page's URL of the server, which is another one here.
    env.retain(|(name, _)| !matches!(*name, "LOCKER_URI" | "INPUT_AUDIENCE"));
    env.extend([("LOCKER_URI", server.url.as_str()), ("INPUT_AUDIENCE", EXAMPLE)]);
    env.extend([("GITHUB_REPOSITORY", "acme/app"), ("GITHUB_WORKFLOW", "deploy"), ("GITHUB_RUN_ID", "7")]);
    let bash = ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"];
    let refused = yard.run(&bash, &script, &env);
    assert!(refused.code == 1 && refused.stdout.contains("id-token: write"), "{refused:?}");
    env.extend([("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "s3cret")]);
    let done = yard.run(&bash, &script, &env).ok();
    assert_eq!(yard.ran(), "deploy.sh staging", "{done:?}");
    assert!(done.stdout.contains(&format!("::add-mask::{token}")), "{done:?}");
    let asked = github.requests().remove(0);
    assert!(
        asked.to_lowercase().starts_with("get /token?api-version=2&audience=https%3a%2f%2flocker.example.com "),
        "{asked}"
    );
    assert!(asked.contains("bearer s3cret"), "{asked}");
    assert_eq!(proved(&server, &token), "build:github/acme/app/deploy");
    // Without a token the rule gives nothing.
    env.push(("INPUT_AUDIENCE", "none"));
    assert_eq!(yard.run(&bash, &script, &env).code, 7);
}

#[test]
fn gitlab() {
    let job = yaml(&blocks("gitlab.md", "yaml")[0])["deploy"].clone();
    assert_eq!(job["id_tokens"]["LOCKER_TOKEN"]["aud"], EXAMPLE);
    let claims = json!({"namespace_path": "acme", "project_path": "acme/app", "ref": "main", "sub": "x"});
    let (_issuer, server, token, _dir) = believing("gitlab.md", &claims);
    let yard = Yard::new(&["deploy.sh"]);
    let script = job["script"][0].as_str().unwrap();
    let vars = [("LOCKER_URI", server.url.as_str()), ("LOCKER_TOKEN", &token), ("CI_PIPELINE_ID", "7")];
    yard.run(&SH, script, &vars).ok();
    assert_eq!(yard.ran(), "deploy.sh staging");
    assert_eq!(proved(&server, &token), "build:gitlab/acme/app");
}

#[test]
fn jenkins() {
    let page = blocks("jenkins.md", "groovy").remove(0);
    let step = page.lines().find_map(|line| line.trim().strip_prefix("sh '")?.strip_suffix('\'')).unwrap();
    for name in ["LOCKER_URI", "LOCKER_USERNAME", "LOCKER_PASSWORD"] {
        assert!(page.contains(name), "{name}");
    }
    let server = Server::start_with("memory:", &[], &[("AUTH_USER", "ci"), ("AUTH_PASS", "secret")]);
    let yard = Yard::new(&["deploy.sh"]);
    let vars = [
        ("LOCKER_URI", server.url.as_str()),
        ("LOCKER_USERNAME", "ci"),
        ("LOCKER_PASSWORD", "secret"),
        ("BUILD_TAG", "b7"),
    ];
    yard.run(&SH, step, &vars).ok();
    assert_eq!(yard.ran(), "deploy.sh staging");
}

#[test]
fn cron() {
    let page = blocks("cron-systemd.md", "crontab").remove(0);
    let (settings, lines): (Vec<&str>, Vec<&str>) =
        page.lines().partition(|line| line.split_once('=').is_some_and(|(n, _)| !n.contains(' ')));
    assert_eq!((settings.len(), lines.len()), (2, 1), "{page}");
    let command = lines[0].splitn(6, ' ').last().unwrap();
    let server = Server::start();
    let yard = Yard::new(&["report.sh"]);
    yard.run(&SH, command, &[("LOCKER_URI", &server.url)]).ok();
    assert_eq!(yard.ran(), "report.sh nightly-report");
    used_once(&server, "nightly-report");
    server.cli(&["claim", "nightly-report", "--id", "other-machine"]).ok();
    yard.run(&SH, command, &[("LOCKER_URI", &server.url)]).ok().said("not free");
    assert_eq!(yard.ran(), "report.sh nightly-report", "it did not run again");
}

/// `ci/check-deploy` has systemd itself verify the units.
#[test]
fn systemd() {
    let units = blocks("cron-systemd.md", "ini");
    assert!(units.len() == 2 && units[0].starts_with("# /etc/systemd/system/report.service\n"), "{units:?}");
    let value = |name: &str| units[0].lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let command = value("ExecStart=").replace("/usr/bin/locker", "locker").replace("/usr/local/bin/report", "./report");
    let server = Server::start();
    let yard = Yard::new(&["report"]);
    yard.run(&SH, &command, &[("LOCKER_URI", &server.url)]).ok();
    assert_eq!(yard.ran(), "report nightly-report");
    server.cli(&["claim", "nightly-report", "--id", "other-machine"]).ok();
    let code = yard.run(&SH, &command, &[("LOCKER_URI", &server.url)]).code;
    assert_eq!(code.to_string(), value("SuccessExitStatus="), "others hold it: no failure");
}

#[test]
fn argo_workflows() {
    let workflow = yaml(&blocks("argo-workflows.md", "yaml")[0]);
    assert_eq!((&workflow["kind"], &workflow["spec"]["entrypoint"]), (&json!("Workflow"), &json!("deploy")));
    let container = &workflow["spec"]["templates"][0]["container"];
    let words =
        |list: &Value| list.as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut command = words(&container["command"]);
    command.extend(words(&container["args"]));
    let names: Vec<&Value> = container["env"].as_array().unwrap().iter().map(|var| &var["name"]).collect();
    assert_eq!(json!(names), json!(["LOCKER_URI", "LOCKER_USERNAME", "LOCKER_PASSWORD"]));
    let server = Server::start();
    let yard = Yard::new(&["deploy.sh"]);
    let quoted: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
    yard.run(&SH, &quoted.join(" "), &[("LOCKER_URI", &server.url)]).ok();
    assert_eq!(yard.ran(), "deploy.sh staging");
}

#[test]
fn terraform() {
    let script = blocks("terraform.md", "sh").remove(0);
    let server = Server::start();
    let yard = Yard::new(&["path/terraform"]);
    fs::create_dir_all(yard.dir.path().join("environments/production")).unwrap();
    let done = yard.run(&SH, &script, &[("LOCKER_URI", &server.url)]).ok();
    let told = "terraform init -input=false production; terraform plan -input=false -out=plan production; \
                terraform apply -input=false plan production";
    assert_eq!(yard.ran(), told, "{done:?}");
    used_once(&server, "terraform/production");
}

#[test]
fn make() {
    let page = blocks("make.md", "make").remove(0);
    let server = Server::start();
    let yard = Yard::new(&["deploy.sh", "migrate.sh"]);
    yard.write("Makefile", &page);
    yard.run(&SH, "make -j2 deploy migrate", &[("LOCKER_URI", &server.url)]).ok();
    let mut ran: Vec<String> = yard.ran().split("; ").map(str::to_owned).collect();
    ran.sort();
    assert_eq!(ran, ["deploy.sh build/app staging", "migrate.sh staging"]);
    assert_eq!(server.pool("staging")["free"], 1);
}

/// What needs Docker cannot run here: the dry run prints every call, and needs nothing.
#[test]
fn trying_it_in_a_concourse() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = clean(root.join("ci/try-concourse"));
    let done = Running::start(script.arg("--dry-run"), b"").finish().ok();
    let calls: Vec<&str> = done.stdout.lines().filter(|line| line.starts_with("+ ")).collect();
    let mut at = 0;
    for part in [
        "docker build --tag localhost:5000/locker",
        "docker push localhost:5000/locker",
        "up --detach",
        "fly --target try-locker login",
        "set-pipeline --non-interactive --pipeline demonstration",
        "pool set demonstration --capacity 2",
        "trigger-job --job demonstration/first",
        "trigger-job --job demonstration/fourth",
        "abort-build --job demonstration/third",
        "check: the build of demonstration/fourth is succeeded",
        "check: the build of demonstration/third is aborted",
        "set-pipeline --non-interactive --pipeline locker-acceptance",
        "kill --signal KILL locker",
        "down --volumes",
    ] {
        let found = calls[at..].iter().position(|call| call.contains(part));
        at += found.unwrap_or_else(|| panic!("{part:?} is not called in its turn:\n{}", done.stdout));
    }
    let acceptance = yaml(&read("pipelines/acceptance.yml"));
    for job in acceptance["jobs"].as_array().unwrap() {
        let call = format!("trigger-job --watch --job locker-acceptance/{}", job["name"].as_str().unwrap());
        assert!(calls.iter().any(|line| line.ends_with(&call)), "{call}");
    }
    assert!(!done.stdout.contains("passed"), "nothing has passed: {}", done.stdout);
    // A server that the compose file would start can use its settings, and the pipeline has no fault.
    let compose = yaml(&read("deploy/concourse/compose.yml"));
    let told = compose["services"]["locker"]["environment"].as_object().unwrap();
    let password = root.join("deploy/concourse").join(compose["secrets"]["concourse"]["file"].as_str().unwrap());
    let mut check = clean(binary());
    check.args(["version", "--check-config"]);
    for (name, value) in told {
        check.env(name, value.as_str().unwrap().replace("/run/secrets/concourse", password.to_str().unwrap()));
    }
    Running::start(&mut check, b"").finish().ok();
    let mut lint = clean(binary());
    lint.arg("lint").arg(root.join("deploy/concourse/demonstration.yml"));
    Running::start(&mut lint, b"").finish().ok();
}
