//! The resource as Concourse runs it: the binary under the names of its three programs, and their view of a build.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Done, Running, binary, clean};
use super::server::Server;

/// A build in a Concourse, with the directories of its steps.
pub struct Build {
    id: String,
    url: String,
    pub dir: TempDir,
    pub source: Value,
    vars: Vec<(String, String)>,
}

impl Build {
    /// Build `id` of job `deploy`, with a resource of this pool.
    pub fn new(server: &Server, id: u32, pool: &str) -> Self {
        Self::with_source(server, id, &json!({"pool": pool}))
    }

    /// Build `id`, with this source and `locker_uri`.
    pub fn with_source(server: &Server, id: u32, source: &Value) -> Self {
        Self::to(&server.url, id, source)
    }

    /// The same, with the address of a server.
    pub fn to(url: &str, id: u32, source: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["check", "in", "out"] {
            std::os::unix::fs::symlink(binary(), dir.path().join(name)).unwrap();
        }
        std::fs::create_dir(dir.path().join("put")).unwrap();
        let mut source = source.clone();
        source["locker_uri"] = json!(url);
        Self { id: id.to_string(), url: url.to_owned(), dir, source, vars: Vec::new() }
    }

    /// Sets one more variable for all its steps.
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, name: &str) -> Command {
        let mut command = clean(self.dir.path().join(name));
        command.envs([
            ("ATC_EXTERNAL_URL", "https://ci.example.com"),
            ("BUILD_ID", &self.id),
            ("BUILD_NAME", &self.id),
            ("BUILD_TEAM_NAME", "main"),
            ("BUILD_PIPELINE_NAME", "app"),
            ("BUILD_JOB_NAME", "deploy"),
        ]);
        command.envs(self.vars.iter().map(|(n, v)| (n, v)));
        command
    }

    /// The same build, but its resource uses another address of the server.
    pub fn at(mut self, url: &str) -> Self {
        self.source["locker_uri"] = json!(url);
        self
    }

    /// Starts `out` with these params.
    pub fn put(&self, params: &Value) -> Running {
        let payload = json!({"source": self.source, "params": params}).to_string();
        Running::start(self.command("out").arg(self.dir.path().join("put")), payload.as_bytes())
    }

    /// Runs `out` with these params to its end.
    pub fn out(&self, params: &Value) -> Done {
        self.put(params).finish()
    }

    /// Runs `out` with this stdout. It must fail. Returns its stderr.
    pub fn out_into(&self, params: &Value, stdout: Stdio) -> String {
        let payload = json!({"source": self.source, "params": params}).to_string();
        let mut command = self.command("out");
        command.arg(self.dir.path().join("put")).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(payload.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        String::from_utf8(done.stderr).unwrap()
    }

    /// Runs `out` with these params and a closed stdout. It must fail. Returns its stderr.
    pub fn out_without_stdout(&self, params: &Value) -> String {
        let payload = json!({"source": self.source, "params": params}).to_string();
        let out = self.command("out");
        let mut shell = clean("sh");
        shell.envs(out.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.args(["-c", "exec \"$@\" >&-", "sh"]).arg(out.get_program()).arg(self.dir.path().join("put"));
        Running::start(&mut shell, payload.as_bytes()).finish().failed(1, "").stderr
    }

    /// Runs `in` for this version into `put/NAME`, as the get of a put step called NAME does.
    pub fn get(&self, version: &str, name: &str) -> Done {
        self.start_get(version, name).finish()
    }

    /// Starts `in` for this version.
    pub fn start_get(&self, version: &str, name: &str) -> Running {
        let dir = self.input(name);
        let payload = json!({"source": self.source, "version": {"ref": version}}).to_string();
        self.start("in", Some(&dir), payload.as_bytes())
    }

    /// Runs one of the programs with this on stdin.
    pub fn raw(&self, name: &str, dir: Option<&Path>, stdin: &[u8]) -> Done {
        self.start(name, dir, stdin).finish()
    }

    /// Starts one of the programs with this on stdin.
    pub fn start(&self, name: &str, dir: Option<&Path>, stdin: &[u8]) -> Running {
        Running::start(self.command(name).args(dir), stdin)
    }

    /// Runs `check`. Returns the versions that it lists.
    pub fn check(&self, version: Option<&str>) -> Vec<String> {
        let mut payload = json!({"source": self.source});
        if let Some(version) = version {
            payload["version"] = json!({"ref": version});
        }
        let done = self.raw("check", None, payload.to_string().as_bytes()).ok();
        let json = done.json();
        json.as_array().unwrap().iter().map(|v| v["ref"].as_str().unwrap().to_owned()).collect()
    }

    /// A directory among the inputs of its puts.
    pub fn input(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("put").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A directory among the inputs of its puts with these files.
    pub fn input_with(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = self.input(name);
        for (file, content) in files {
            std::fs::write(dir.join(file), content).unwrap();
        }
        dir
    }

    /// The address of the server that its source names.
    pub fn server(&self) -> &str {
        &self.url
    }
}

/// Runs `out` of build 1 in this process, in a container of this name: exit code, stdout, stderr.
pub fn out_in(host: &str, server: &Server, params: &Value) -> (u8, String, String) {
    out_with(host, &json!({"locker_uri": server.url, "pool": "p"}), params)
}

/// The same, with this source.
pub fn out_with(host: &str, source: &Value, params: &Value) -> (u8, String, String) {
    let payload = json!({"source": source, "params": params}).to_string();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let vars = [
        ("ATC_EXTERNAL_URL", "https://ci"),
        ("BUILD_ID", "1"),
        ("LOCKER_RETRY_MAX", "100ms"),
        ("LOCKER_SELF_WAIT", "1s"),
    ];
    let mut env = locker::env::Env {
        args: vec!["/opt/resource/out".into(), "/tmp".into()],
        vars: vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        stdin: &mut payload.as_bytes(),
        stdout: &mut stdout,
        stderr: &mut stderr,
        is_terminal: false,
        hostname: host.to_owned(),
        clock: std::sync::Arc::new(locker::env::SystemClock::default()),
        signals: locker::env::Signals::default(),
    };
    let code = locker::run(&mut env);
    (code, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}
