//! A cluster of real worker processes (the echo example), and clients that check what comes back.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use baton_cluster::{Address, Builder, Cluster, Event, Stream};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nothing here takes so long; a test that waits for longer has failed.
pub const WATCHDOG: Duration = Duration::from_secs(30);

/// The echo example. `cargo test` builds it; `cargo test --test NAME` does not, so it is built here if it is missing or
/// older than this test.
pub fn echo_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build_example).clone()
}

fn build_example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let binary = profile.join("examples/echo");
    let age = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    if age(&binary) < age(&test) {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", "echo", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            .args((profile.file_name() == Some("release".as_ref())).then_some("--release"))
            .status();
        assert!(built.unwrap().success());
    }
    binary
}

/// What happened so far and what comes.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// Waits for the next event that `wanted` recognises; others are passed over.
    pub fn next<T>(&self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let event = self.0.recv_timeout(WATCHDOG).expect("the event did not come");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    pub fn died(&self) -> (usize, u32, usize) {
        self.next(|event| match event {
            Event::WorkerDied { slot, pid, passed_on, .. } => Some((*slot, *pid, *passed_on)),
            _ => None,
        })
    }

    pub fn ready(&self) -> (usize, u32) {
        self.next(|event| match event {
            Event::WorkerReady { slot, pid } => Some((*slot, *pid)),
            _ => None,
        })
    }
}

/// Settings of an echo cluster at a free port, with its events.
pub fn echo(workers: usize) -> (Builder, Events) {
    let (sender, events) = mpsc::channel();
    let builder = Cluster::builder()
        .listen("ip://127.0.0.1:0")
        .workers(workers)
        .worker_program(echo_binary())
        .worker_args(["--worker"])
        .on_event(move |event| drop(sender.send(event.clone())));
    (builder, Events(events))
}

pub async fn connect(uri: &str) -> Stream {
    uri.parse::<Address>().unwrap().connect().await.unwrap()
}

/// Sends bytes and waits until they are back.
pub async fn round_trip(stream: &mut Stream) -> std::io::Result<()> {
    let exchange = async {
        stream.write_all(b"hello").await?;
        let mut back = [0; 5];
        stream.read_exact(&mut back).await?;
        assert_eq!(&back, b"hello");
        Ok(())
    };
    tokio::time::timeout(WATCHDOG, exchange).await.expect("no echo")
}

/// True once the server has closed the connection.
pub async fn is_closed(stream: &mut Stream) -> bool {
    !matches!(tokio::time::timeout(WATCHDOG, stream.read(&mut [0])).await.expect("not closed"), Ok(1..))
}

pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

pub fn is_alive(pid: u32) -> bool {
    // A dead child that nobody waits for any more is a zombie, which counts as dead.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

/// Awaits what has no event of its own.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(WATCHDOG, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within the watchdog's time"));
}
