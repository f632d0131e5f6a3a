//! A whole system as a user starts it: `aits up`, in directories of its own, ended when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aits_orders::{RunDir, Task};
use baton_client::{AuditReport, Client, ConnectOptions, Inbox, Member, PoolInfo};
use serde_json::Value;

/// How to start a system.
pub struct Options {
    /// Videos to play.
    pub videos: Vec<PathBuf>,
    /// Play them again and again.
    pub repeat: bool,
    /// Further arguments of `aits up`.
    pub arguments: Vec<String>,
    /// Show the system's output as it comes.
    pub show: bool,
}

impl Options {
    /// One video, looped.
    pub fn looped(video: impl Into<PathBuf>) -> Self {
        Self { videos: vec![video.into()], repeat: true, arguments: Vec::new(), show: false }
    }
}

/// A running system.
pub struct System {
    child: Child,
    run: RunDir,
    url: String,
    output: Arc<Mutex<Vec<String>>>,
    agent: ureq::Agent,
    _home: tempfile::TempDir,
}

/// Waits until `probe` gives something. The limit is a watchdog against hanging, not a promise.
///
/// # Panics
/// If nothing came in time; `what` says what was waited for.
pub fn wait_until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where set-up keeps the model, the runtime and the clips.
pub fn cache_dir() -> PathBuf {
    let from_env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from_env("AITS_CACHE")
        .or_else(|| from_env("XDG_CACHE_HOME").map(|dir| dir.join("aits")))
        .or_else(|| from_env("HOME").map(|dir| dir.join(".cache/aits")))
        .expect("HOME or AITS_CACHE is set")
}

/// The program that was built beside this test.
pub fn program(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("a running program has a path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --workspace --bins`", path.display());
    path
}

impl System {
    /// Starts a system and waits until its door answers.
    ///
    /// # Panics
    /// If it ends or says nothing for a minute; its output is shown.
    pub fn start(options: &Options) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let run = RunDir::new(home.path().join("run"));
        let listen = free_address();
        let mut command = Command::new(program("aits"));
        command.arg("up").args(["--listen", &listen]);
        command.arg("--run").arg(run.path()).arg("--data").arg(home.path().join("data"));
        if options.repeat {
            command.arg("--loop");
        }
        command.args(&options.arguments).args(&options.videos);
        command.env("AITS_CACHE", cache_dir()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("aits starts");
        let output = Arc::new(Mutex::new(Vec::new()));
        let readers: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for reader in readers {
            let (lines, show) = (Arc::clone(&output), options.show);
            std::thread::spawn(move || {
                for line in BufReader::new(reader).lines().map_while(Result::ok) {
                    if show {
                        eprintln!("    │ {line}");
                    }
                    lines.lock().expect("no reader panics").push(line);
                }
            });
        }
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
        let agent = config.http_status_as_error(false).build().into();
        let url = format!("http://{listen}");
        let mut system = Self { child, run, url, output, agent, _home: home };
        let begin = Instant::now();
        while !system.is_healthy() {
            let ended = system.child.try_wait().expect("our own child");
            assert!(
                ended.is_none() && begin.elapsed() < Duration::from_secs(60),
                "the system did not come up ({ended:?}):\n{}",
                system.output()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        system
    }

    /// Where the page is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The run directory.
    pub fn run_dir(&self) -> &Path {
        self.run.path()
    }

    /// The supervisor's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the system has written so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("no reader panics").join("\n")
    }

    /// Whether `/healthz` says that all is well.
    pub fn is_healthy(&self) -> bool {
        self.get("/healthz").is_some_and(|(status, _)| status == 200)
    }

    /// A GET request: status and body; `None` if no complete answer came.
    pub fn get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().ok()?;
        let body = answer.body_mut().with_config().limit(64 << 20).read_to_vec().ok()?;
        Some((answer.status().as_u16(), body))
    }

    /// A GET request answered with 200 and an entity tag: the tag and the body.
    pub fn tagged(&self, path: &str) -> Option<(String, Vec<u8>)> {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().ok()?;
        let tag = answer.headers().get("etag")?.to_str().ok()?.to_owned();
        let body = answer.body_mut().with_config().limit(64 << 20).read_to_vec().ok()?;
        (answer.status() == 200).then_some((tag, body))
    }

    /// A GET request that is answered with JSON.
    pub fn json(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&self.get(path).filter(|(status, _)| *status == 200)?.1).ok()
    }

    /// A POST request with a JSON body: status and answer.
    pub fn post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let mut answer = self.agent.post(format!("{}{path}", self.url)).send_json(body).ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.body_mut().read_json().unwrap_or(Value::Null)))
    }

    /// A DELETE request: its status.
    pub fn delete(&self, path: &str) -> Option<u16> {
        Some(self.agent.delete(format!("{}{path}", self.url)).call().ok()?.status().as_u16())
    }

    /// All tasks.
    pub fn tasks(&self) -> Option<Vec<Task>> {
        serde_json::from_value(self.json("/api/tasks")?).ok()
    }

    /// The process id of a supervised process, by name; `None` while it does not run.
    pub fn process(&self, name: &str) -> Option<u32> {
        let list = self.json("/api/processes")?;
        let list = list.as_array().or_else(|| list.get("processes")?.as_array())?.clone();
        let mine = list.iter().find(|process| process["name"] == name && process["state"] == "running")?;
        u32::try_from(mine["pid"].as_u64()?).ok()
    }

    /// Attaches to the system's pool, as an operator's tool would.
    ///
    /// # Panics
    /// If the daemon does not admit us.
    pub fn attach(&self) -> (Client, Inbox) {
        let options = ConnectOptions::new("test").read_only().timeout(Duration::from_secs(10));
        Client::connect(&self.run.uri("rmmt"), options).expect("the daemon admits its own user")
    }

    /// The pool's audit; `None` while the daemon does not answer.
    pub fn audit(&self, client: &Client) -> Option<AuditReport> {
        client.audit().ok()
    }

    /// Processes attached to the pool.
    pub fn members(&self, client: &Client) -> Vec<Member> {
        client.members().unwrap_or_default()
    }

    /// The pool in numbers.
    pub fn pool(&self, client: &Client) -> Option<PoolInfo> {
        client.pool().ok()
    }

    /// Ends the system as Ctrl-C does and returns how it ended and how long that took.
    ///
    /// # Panics
    /// If it has not ended after half a minute.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        signal(self.child.id(), rustix::process::Signal::INT);
        let status = wait_until("the system ends after Ctrl-C", Duration::from_secs(30), || {
            self.child.try_wait().expect("our own child")
        });
        (status, begin.elapsed())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let below = descendants_of(&self.child);
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in below {
            signal(pid, rustix::process::Signal::KILL);
        }
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            eprintln!(
                "── the system's last lines ──\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        }
    }
}

fn descendants_of(child: &Child) -> Vec<u32> {
    crate::proc::descendants(child.id())
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// An address of this machine where nobody listened a moment ago.
///
/// # Panics
/// If there is no loopback interface.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").to_string()
}
