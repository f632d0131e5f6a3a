//! A pingpong server in processes of its own, and a client that speaks in bytes.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub use baton_testkit::{WATCHDOG, is_alive, kill, until};
use serde_json::{Value, json};

/// A server's queue that is full and stays full.
const CONNECT_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The example server.
pub fn pingpong_binary() -> PathBuf {
    baton_testkit::example(env!("CARGO_MANIFEST_DIR"), "pingpong")
}

/// A running pingpong server; killed, and its workers with it, when dropped.
pub struct Pingpong {
    pub child: Child,
    pub uri: String,
    _dir: tempfile::TempDir,
}

#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Tcp,
    Unix,
}

impl Pingpong {
    pub fn start(transport: Transport, workers: usize) -> Pingpong {
        let mut command = Command::new(pingpong_binary());
        Self::start_with(&mut command, transport, workers)
    }

    /// Starts what `command` makes of the server's arguments.
    pub fn start_with(command: &mut Command, transport: Transport, workers: usize) -> Pingpong {
        let dir = tempfile::tempdir().unwrap();
        let listen = match transport {
            Transport::Tcp => "ip://127.0.0.1:0".to_owned(),
            Transport::Unix => format!("un://{}", dir.path().join("rpc.sock").display()),
        };
        let mut child = command
            .args(["--listen", &listen, "--workers", &workers.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let uri = line
            .trim()
            .strip_prefix("listening at ")
            .unwrap_or_else(|| panic!("it said {line:?}"))
            .to_owned();
        Pingpong { child, uri, _dir: dir }
    }

    pub fn connect(&self) -> Raw {
        Raw::connect(&self.uri)
    }

    /// One connection to each of `workers` workers, with that worker's pid.
    pub fn one_per_worker(&self, workers: usize) -> Vec<(Raw, u32)> {
        (0..workers)
            .map(|_| {
                let mut raw = self.connect();
                let pid = raw.whoami();
                (raw, pid)
            })
            .collect()
    }
}

impl Drop for Pingpong {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub trait Socket: Read + Write + Send {
    fn end_sending(&self);
    fn clone_socket(&self) -> Box<dyn Socket>;
    /// Makes closing a reset, where there is such a thing.
    fn close_by_reset(&self);
}

impl Socket for TcpStream {
    fn end_sending(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn clone_socket(&self) -> Box<dyn Socket> {
        Box::new(self.try_clone().unwrap())
    }

    fn close_by_reset(&self) {
        rustix::net::sockopt::set_socket_linger(self, Some(std::time::Duration::ZERO)).unwrap();
    }
}

impl Socket for UnixStream {
    fn end_sending(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn clone_socket(&self) -> Box<dyn Socket> {
        Box::new(self.try_clone().unwrap())
    }

    fn close_by_reset(&self) {}
}

/// A client that sends what it is told and no more.
pub struct Raw(Box<dyn Socket>);

impl Raw {
    pub fn connect(uri: &str) -> Raw {
        Raw::try_connect(uri).unwrap()
    }

    /// Over TCP a connection waits in the server's queue; a Unix socket whose queue is full refuses instead of blocking.
    pub fn try_connect(uri: &str) -> std::io::Result<Raw> {
        if let Some(path) = uri.strip_prefix("un://") {
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::CLOEXEC,
                None,
            )?;
            // A bound on waiting for room in the queue.
            rustix::net::sockopt::set_socket_timeout(
                &socket,
                rustix::net::sockopt::Timeout::Send,
                Some(CONNECT_WITHIN),
            )?;
            rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
            rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, None)?;
            let socket = UnixStream::from(socket);
            socket.set_read_timeout(Some(WATCHDOG))?;
            Ok(Raw(Box::new(socket)))
        } else {
            let address: std::net::SocketAddr = uri.strip_prefix("ip://").unwrap().parse().unwrap();
            let socket = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(WATCHDOG))?;
            Ok(Raw(Box::new(socket)))
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends what the peer may refuse to read.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    pub fn end_sending(&self) {
        self.0.end_sending();
    }

    /// Another handle on the same connection.
    pub fn clone_socket(&self) -> Raw {
        Raw(self.0.clone_socket())
    }

    pub fn reset(self) {
        self.0.close_by_reset();
    }

    /// The next answer; `None` at the end of the stream.
    pub fn receive(&mut self) -> Option<Value> {
        self.receive_text().map(|text| serde_json::from_str(&text).unwrap())
    }

    /// The next answer's JSON as it was sent.
    pub fn receive_text(&mut self) -> Option<String> {
        let mut prefix = [0; 4];
        let mut have = 0;
        while have < 4 {
            match self.0.read(&mut prefix[have..]).unwrap() {
                0 if have == 0 => return None,
                0 => panic!("the stream ended inside a frame"),
                read => have += read,
            }
        }
        let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
        self.0.read_exact(&mut body).unwrap();
        Some(String::from_utf8(body).unwrap())
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(&request(method, &params));
        self.receive().unwrap()
    }

    pub fn whoami(&mut self) -> u32 {
        self.call("whoami", Value::Null)["result"].as_u64().unwrap().try_into().unwrap()
    }
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

pub fn request(method: &str, params: &Value) -> Vec<u8> {
    frame(json!({ "in": method, "params": params }).to_string().as_bytes())
}
