//! Baton's side: a daemon of its own per case, and a link over the SDK as any program would use it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use baton_client::{Client, ConnectOptions, Inbox, SendFailure, Sender};
use tempfile::TempDir;

use crate::error::{Error, step};
use crate::link::{Link, PATIENCE};
use crate::machine::Cores;

/// The memory daemon, running as a child. Ends with this value.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    uri: String,
    _dir: TempDir,
}

impl Daemon {
    /// Starts one with the defaults and `size` (as on the command line of `baton rmmt`).
    pub fn start(cores: &Cores, size: &str, more: &[&str]) -> Result<Self, Error> {
        let dir = step("make a directory", tempfile::tempdir())?;
        let uri = format!("un://{}", dir.path().join("rmmt.sock").display());
        let program = step("find this program", std::env::current_exe())?;
        let (key, value) = cores.env();
        let mut command = Command::new(program);
        command.args([
            "role",
            "rmmt",
            "--listen",
            &uri,
            "--size",
            size,
            "--log-level",
            "warn",
            "--no-keeper",
        ]);
        command.args(more).env(key, value).stdin(Stdio::null()).stdout(Stdio::null());
        let child = step("start the memory daemon", command.spawn())?;
        let daemon = Self { child, uri, _dir: dir };
        // Present as soon as somebody can attach.
        daemon.observer()?;
        Ok(daemon)
    }

    /// Where it listens.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A way to ask it.
    pub fn observer(&self) -> Result<baton_client::Observer, Error> {
        step("reach the memory daemon", baton_client::Observer::connect(&self.uri, PATIENCE))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Attaches as `name`, with an inbox of that name.
pub fn connect(uri: &str, name: &str) -> Result<(Client, Inbox), Error> {
    let options = ConnectOptions::new(name).inbox(name).timeout(PATIENCE);
    let attached = step("attach to the pool", Client::connect(uri, options))?;
    settle();
    Ok(attached)
}

/// Lets the warm-up in the background end: every page of the pool is mapped then, and the kernel shows no second thread
/// of this process (or it is not the warm-up's, and a second is enough).
pub fn settle() {
    for _ in 0..500 {
        let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads <= 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Opens a sender to an inbox that will be there soon.
pub fn open(client: &Client, inbox: &str) -> Result<Sender, Error> {
    step(&format!("open the inbox {inbox}"), client.sender(inbox))
}

/// Two ends over the SDK.
#[derive(Debug)]
pub struct BatonLink {
    client: Client,
    inbox: Inbox,
    sender: Sender,
    len: usize,
}

impl BatonLink {
    /// A's end: attaches; `start_peer` brings B up, whose inbox is then opened.
    pub fn first(
        uri: &str,
        len: usize,
        start_peer: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let (client, inbox) = connect(uri, &format!("a{len}"))?;
        start_peer()?;
        let sender = open(&client, &format!("b{len}"))?;
        Ok(Self { client, inbox, sender, len })
    }

    /// B's end: A is attached already.
    pub fn second(uri: &str, len: usize) -> Result<Self, Error> {
        let (client, inbox) = connect(uri, &format!("b{len}"))?;
        let sender = open(&client, &format!("a{len}"))?;
        Ok(Self { client, inbox, sender, len })
    }

    /// Both ends in one process.
    pub fn to_itself(uri: &str, len: usize) -> Result<Self, Error> {
        let (client, inbox) = connect(uri, &format!("self{len}"))?;
        let sender = open(&client, &format!("self{len}"))?;
        Ok(Self { client, inbox, sender, len })
    }

    /// Bytes of each block.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The member behind it.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Link for BatonLink {
    #[inline]
    fn send(&mut self) -> Result<bool, Error> {
        let block = step("allocate", self.client.alloc(self.len))?.freeze();
        match self.sender.send(block) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.reason, SendFailure::Full) => Ok(false),
            Err(error) => Err(Error::new("send", error)),
        }
    }

    #[inline]
    fn poll(&mut self) -> Result<bool, Error> {
        Ok(step("receive", self.inbox.try_recv())?.is_some())
    }

    #[inline]
    fn wait(&mut self) -> Result<(), Error> {
        // For ever, as the rivals do: a time-out costs the kernel a timer. The end of the daemon ends it.
        match step("receive", self.inbox.recv(None))? {
            Some(_) => Ok(()),
            None => Err(Error::new("receive", "it gave up")),
        }
    }
}
