//! A cluster of real worker processes (the echo example), and clients that check what comes back.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use baton_cluster::{Address, Builder, Cluster, Event, Stream};
pub use baton_testkit::{WATCHDOG, is_alive, kill as signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The echo example.
pub fn echo_binary() -> PathBuf {
    baton_testkit::example(env!("CARGO_MANIFEST_DIR"), "echo")
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

/// Stops a process and waits until it has stopped: the signal alone may leave it time for one more connection.
pub fn stop(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
    baton_testkit::until("the process to stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
    });
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
