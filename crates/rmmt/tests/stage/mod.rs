//! Real processes for the tests: this test program starts itself as the memory daemon (keeper and daemon) and as members
//! that do what they are told over their standard input.
#![allow(dead_code, unused_imports, reason = "each test program uses its own part of the stage")]

pub mod classic;
mod puppet;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use baton_client::{Client, ConnectOptions, Inbox, Member, MemberKind, Observer};
pub use baton_testkit::{Puppet, WATCHDOG, kill, until};
use rustix::process::Signal;

const ROLE: &str = "BATON_TEST_ROLE";
const URI: &str = "BATON_TEST_URI";
const OPTIONS: &str = "BATON_TEST_OPTIONS";

/// Not a test of its own: whatever role the environment says.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (uri, options) = (std::env::var(URI).unwrap(), std::env::var(OPTIONS).unwrap());
    match role.as_str() {
        "rmmt" => {
            let mut args = baton_rmmt::Args::new(uri);
            args.size = Some(16 << 20);
            args.max_block = Some(1 << 20);
            args.inbox_len = Some(4);
            args.log = "debug".into();
            args.no_keeper = options == "no keeper";
            args.supervised = options == "supervised";
            if let Some(name) = options.strip_prefix("classic ") {
                args.listen.push("ip://127.0.0.1:0".into());
                args.shm_name = Some(name.into());
            }
            if let Some(name) = options.strip_prefix("named ") {
                args.shm_name = Some(name.into());
            }
            if options == "metrics" {
                args.metrics = Some("ip://127.0.0.1:0".into());
            }
            if options == "remote" {
                args.listen.push("ip://0.0.0.0:0".into());
                args.allow_remote = true;
            }
            if options == "ip" {
                args.listen.push("ip://127.0.0.1:0".into());
            }
            if let Some(config) = options.strip_prefix("config ") {
                (args.config, args.shm_name) = (Some(config.into()), None);
                args.listen.clear();
            }
            if let Some(listen) = options.strip_prefix("also ") {
                args.listen.push(listen.into());
            }
            if let Ok(size) = options.parse() {
                args.size = Some(size);
            }
            let code = baton_rmmt::run(args);
            std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
        }
        "member" => puppet::play(&uri, &options),
        "lender" => {
            let path = uri.strip_prefix("un://").unwrap();
            let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            baton_fdpass::send(std::io::stdin(), b"x", &[std::os::fd::AsFd::as_fd(&stream)]).unwrap();
        }
        "stray" => puppet::stray_write(&uri),
        other => panic!("no such role: {other}"),
    }
}

/// A read-only member that writes where it must not; see [`puppet::stray_write`].
pub fn stray_writer(daemon: &Daemon) -> std::process::Output {
    myself("stray", &daemon.uri(), "").output().unwrap()
}

pub fn myself(role: &str, uri: &str, options: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "stage::role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(URI, uri)
        .env(OPTIONS, options);
    command
}

/// A memory daemon under its keeper, in a directory of its own.
pub struct Daemon {
    dir: tempfile::TempDir,
    keeper: Child,
}

impl Daemon {
    pub fn start() -> Self {
        Self::with("")
    }

    pub fn with(options: &str) -> Self {
        Self::within(tempfile::tempdir().unwrap(), options)
    }

    /// With a named pool, over TCP too.
    pub fn classic() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let unique = dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        Self::within(dir, &format!("classic /baton-test-{unique}"))
    }

    /// With these settings beside those of [`Daemon::classic`]; `{dir}` in them is the directory. The file says where to
    /// listen, so that what is tested is the file.
    pub fn configured(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display().to_string();
        let unique = dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let path = dir.path().join("rmmt.toml");
        let text = format!(
            "listen = [\"un://{place}/rmmt.sock\", \"ip://127.0.0.1:0\"]\nshm_name = \"/baton-test-{unique}\"\n{settings}"
        );
        std::fs::write(&path, text).unwrap();
        Self::within(dir, &format!("config {}", path.display()))
    }

    fn within(dir: tempfile::TempDir, options: &str) -> Self {
        Self::at(dir, options, |command| command)
    }

    /// In this directory, perhaps not for the first time. `how` may change the command.
    pub fn at(dir: tempfile::TempDir, options: &str, how: impl FnOnce(Command) -> Command) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
        let uri = format!("un://{}", dir.path().join("rmmt.sock").display());
        let keeper = how(myself("rmmt", &uri, options))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { dir, keeper };
        Observer::connect(&daemon.uri(), WATCHDOG)
            .unwrap_or_else(|error| panic!("{error}\n{}", daemon.log()));
        daemon
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join("rmmt.sock")
    }

    pub fn uri(&self) -> String {
        format!("un://{}", self.socket().display())
    }

    /// Where it listens over TCP.
    pub fn ip(&self) -> String {
        let line = self.logged(&["ready at", "ip://"]);
        line.rsplit_once("ip://").unwrap().1.trim().to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// Waits for a line of the log that contains all of `parts`, and returns it.
    #[track_caller]
    pub fn logged(&self, parts: &[&str]) -> String {
        until(&format!("a log line with {parts:?}"), || {
            self.log().lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        })
    }

    pub fn keeper_pid(&self) -> u32 {
        self.keeper.id()
    }

    /// The keeper that this daemon's latest life has: the one we started, or a stand-in named in the log.
    pub fn keeper_now(&self) -> u32 {
        let log = self.log();
        let stand_in = log.lines().rev().find_map(|line| {
            let (before, _) = line.split_once(" keeps the pool's descriptors now")?;
            before.rsplit_once("pid=")?.1.parse().ok()
        });
        stand_in.unwrap_or(self.keeper.id())
    }

    /// Kills the keeper, waits until another one is there and serves as the one before.
    pub fn kill_keeper_and_wait(&mut self) -> u32 {
        let before = self.keeper_now();
        kill(before, Signal::KILL);
        if before == self.keeper.id() {
            self.keeper.wait().unwrap();
        }
        until("another keeper", || Some(self.keeper_now()).filter(|pid| *pid != before))
    }

    /// For a daemon that was started by a process of its own: kills that process.
    pub fn kill_supervisor(&mut self) {
        self.keeper.kill().unwrap();
        self.keeper.wait().unwrap();
    }

    /// The serving process, as it calls itself.
    pub fn serving(&self) -> u32 {
        self.observer().pool().unwrap().daemon_pid
    }

    /// The serving process: the keeper's only child.
    pub fn pid(&self) -> u32 {
        until("the keeper's child", || children(self.keeper.id()).first().copied())
    }

    /// Kills the serving process and waits until its successor serves.
    pub fn kill_and_wait(&self) {
        let before = self.pid();
        kill(before, Signal::KILL);
        until("the next daemon", || children(self.keeper.id()).into_iter().find(|pid| *pid != before));
        self.observer().pool().unwrap();
    }

    /// Keeper and daemon are killed at once, as at the end of a control group. Gives the directory back.
    pub fn kill_all(mut self) -> tempfile::TempDir {
        let (keeper, daemon) = (self.keeper_now(), self.serving());
        for signal in [Signal::STOP, Signal::KILL] {
            kill(keeper, signal);
            kill(daemon, signal);
        }
        self.keeper.wait().unwrap();
        until("the daemon to be dead", || {
            let stat = std::fs::read_to_string(format!("/proc/{daemon}/stat")).ok();
            stat.is_none_or(|stat| stat.contains(") Z")).then_some(())
        });
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    pub fn observer(&self) -> Observer {
        Observer::connect(&self.uri(), WATCHDOG).unwrap()
    }

    /// Who is attached: all members but the daemon's own endpoint, which it has once it was asked to make room.
    pub fn guests(&self) -> Vec<Member> {
        let mut members = self.observer().members().unwrap();
        members.retain(|member| member.kind != MemberKind::Daemon);
        members
    }

    /// A member in this process.
    pub fn member(&self, options: ConnectOptions) -> (Client, Inbox) {
        Client::connect(&self.uri(), options.timeout(WATCHDOG)).unwrap()
    }

    /// A member in a process of its own. `inbox` may be empty.
    pub fn puppet(&self, name: &str, inbox: &str) -> Puppet {
        let mut puppet = Puppet::start(&mut myself("member", &self.uri(), &format!("{name} {inbox}")));
        assert_eq!(puppet.answer(), "attached");
        puppet
    }

    /// Two members at work: each sends the other whatever it gets, for as many milliseconds.
    pub fn pair_at_work(&self, ms: u32) -> [Puppet; 2] {
        let mut pair = [self.puppet("a", "a.in"), self.puppet("b", "b.in")];
        pair[0].order(&format!("work b.in {ms}"));
        pair[1].order(&format!("work a.in {ms}"));
        pair
    }

    /// The work is done, without one error; both are killed, and nothing is left of them.
    #[track_caller]
    pub fn assert_worked(&self, pair: &mut [Puppet; 2]) {
        for puppet in &mut *pair {
            assert_eq!(puppet.answer(), "[] received some: true");
        }
        for puppet in pair {
            puppet.kill();
        }
        until("both to be reaped", || self.guests().is_empty().then_some(()));
        self.assert_balanced();
        assert_eq!(self.observer().pool().unwrap().blocks_in_use, 0);
    }

    /// The books balance: nobody holds a block that nobody should, none is lost.
    #[track_caller]
    pub fn assert_balanced(&self) {
        let report = self.observer().audit().unwrap();
        assert!(report.ok, "{report:?}");
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        kill(self.keeper.id(), Signal::TERM);
        self.keeper.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
        if let Ok(None) = self.keeper.try_wait() {
            kill(self.keeper.id(), Signal::TERM);
            let _ = self.keeper.wait();
        } else if self.socket().exists() // gone at a clean end, and then nobody is waited for
            && let Ok(mut observer) = Observer::connect(&self.uri(), Duration::from_secs(5))
            && let Ok(pool) = observer.pool()
        {
            kill(pool.daemon_pid, Signal::TERM);
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    // All threads: the test harness runs its test on another thread than main.
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
