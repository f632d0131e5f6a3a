//! A real daemon in a directory of its own, and the program under test.
#![allow(dead_code, unused_imports, reason = "each test program uses its own part of this")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use baton_client::Observer;
pub use baton_testkit::{WATCHDOG, kill, until};
use rustix::process::Signal;

/// The program, not started yet.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(args).env_remove("BATON_RMMT");
    command
}

/// Runs it to its end.
pub fn baton(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Its standard output, if it succeeded.
#[track_caller]
pub fn said(args: &[&str]) -> String {
    let output = baton(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A memory daemon under its keeper.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(uri: &str) -> Self {
        let mut command = command(&["rmmt", "--listen", uri, "--size", "8MiB"]);
        let daemon = Self(command.stderr(Stdio::null()).spawn().unwrap());
        Observer::connect(uri, WATCHDOG).unwrap();
        daemon
    }

    /// Kills the serving process; its keeper starts another one.
    pub fn kill_serving(&self) {
        let keeper = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        let serving = children.split_whitespace().next().expect("the keeper has a child").parse().unwrap();
        kill(serving, Signal::KILL);
    }

    pub fn stop(&mut self) -> Option<i32> {
        kill(self.0.id(), Signal::TERM);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.stop();
        }
    }
}

pub fn uri_in(dir: &Path) -> String {
    format!("un://{}", dir.join("rmmt.sock").display())
}
