//! The original design: a daemon that hands out blocks of a shared pool, and a socket round trip per operation.
//!
//! ```text
//!   A: alloc ─▶ daemon, pre-send ─▶ daemon, tell B (its socket), free ─▶ daemon
//!   B: recv ─▶ daemon, …
//! ```
//! Its protocol as written down: hello with the pid, then commands with a context number. The daemon has one thread per
//! connection and one lock around the four operations, which spares it the hop to a pool of workers: the figures are kind
//! to it. Blocks are numbers here, since nobody touches the payload in the case that this is for.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, step};

const ALLOC: i32 = 1;
const FREE: i32 = 2;
const PRE_SEND: i32 = 4;
const RECV: i32 = 5;

/// Blocks of the daemon's pool.
const BLOCKS: i64 = 64;

/// Who holds what, and what is under way.
#[derive(Debug, Default)]
struct Ledger {
    free: Vec<i64>,
    holders: HashMap<i64, Vec<i32>>,
    transfers: HashMap<i64, (Vec<i64>, i32, i32)>,
    last: i64,
}

impl Ledger {
    fn perform(&mut self, pid: i32, command: i32, data: &mut Reader<'_>) -> Option<Vec<u8>> {
        match command {
            ALLOC => {
                let (_size, _align) = (data.u32()?, data.u32()?);
                let node = self.free.pop()?;
                self.holders.insert(node, vec![pid]);
                Some(node.to_le_bytes().to_vec())
            }
            FREE => {
                let node = data.i64()?;
                let holders = self.holders.get_mut(&node)?;
                holders.swap_remove(holders.iter().position(|holder| *holder == pid)?);
                if holders.is_empty() {
                    self.free.push(node);
                }
                Some(Vec::new())
            }
            PRE_SEND => {
                let count = data.u32()?;
                let nodes = (0..count).map(|_| data.i64()).collect::<Option<Vec<i64>>>()?;
                let to = data.i32()?;
                for node in &nodes {
                    self.holders.get_mut(node)?.push(-to); // in flight
                }
                self.last += 1;
                self.transfers.insert(self.last, (nodes, pid, to));
                Some(self.last.to_le_bytes().to_vec())
            }
            RECV => {
                let (bid, count, from) = (data.i64()?, data.u32()?, data.i32()?);
                let (nodes, sender, to) = self.transfers.remove(&bid)?;
                if nodes.len() != count as usize || sender != from || to != pid {
                    return None;
                }
                for node in &nodes {
                    let holders = self.holders.get_mut(node)?;
                    let at = holders.iter().position(|holder| *holder == -pid)?;
                    holders[at] = pid;
                }
                Some(Vec::new())
            }
            _ => None,
        }
    }
}

/// A cursor over the bytes of a command.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

/// Serves every connection to `path`, on threads of this process, until the process ends.
pub fn listen(path: &Path) -> Result<(), Error> {
    let listener = step("listen", UnixListener::bind(path))?;
    let ledger = Arc::new(Mutex::new(Ledger { free: (0..BLOCKS).collect(), ..Ledger::default() }));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let ledger = Arc::clone(&ledger);
            std::thread::spawn(move || serve(stream, &ledger));
        }
    });
    Ok(())
}

fn serve(mut stream: UnixStream, ledger: &Mutex<Ledger>) -> std::io::Result<()> {
    let mut pid = [0; 4];
    stream.read_exact(&mut pid)?;
    let pid = i32::from_le_bytes(pid);
    let mut hello = 5i32.to_le_bytes().to_vec();
    hello.extend(b"/pool");
    hello.extend((64u32 << 10).to_le_bytes());
    stream.write_all(&hello)?;
    let mut body = Vec::new();
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        body.resize(u32::from_le_bytes(len).min(1 << 20) as usize, 0);
        stream.read_exact(&mut body)?;
        let mut data = Reader(&body);
        let (Some(ctx), Some(command)) = (data.i64(), data.i32()) else { return Ok(()) };
        let done = ledger.lock().unwrap_or_else(PoisonError::into_inner).perform(pid, command, &mut data);
        let (status, data) = done.map_or((-1, Vec::new()), |data| (0i32, data));
        let mut answer = (12 + data.len() as u32).to_le_bytes().to_vec();
        answer.extend(ctx.to_le_bytes());
        answer.extend(status.to_le_bytes());
        answer.extend(data);
        stream.write_all(&answer)?;
    }
}

/// A client's connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    ctx: u64,
}

impl Client {
    /// Connects and says hello.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let mut stream = step("reach the original daemon", UnixStream::connect(path))?;
        step("say hello", stream.write_all(&(std::process::id() as i32).to_le_bytes()))?;
        let mut hello = [0; 13];
        step("hear hello", stream.read_exact(&mut hello))?;
        Ok(Self { stream, ctx: 0 })
    }

    fn call(&mut self, command: i32, data: &[u8]) -> Result<i64, Error> {
        self.ctx += 1;
        let mut request = (12 + data.len() as u32).to_le_bytes().to_vec();
        request.extend(self.ctx.to_le_bytes());
        request.extend(command.to_le_bytes());
        request.extend(data);
        step("ask the original daemon", self.stream.write_all(&request))?;
        let mut len = [0; 4];
        step("hear the original daemon", self.stream.read_exact(&mut len))?;
        let mut answer = vec![0; u32::from_le_bytes(len).min(1 << 20) as usize];
        step("hear the original daemon", self.stream.read_exact(&mut answer))?;
        let mut data = Reader(&answer);
        match (data.i64(), data.i32()) {
            (Some(ctx), Some(0)) if ctx == self.ctx as i64 => Ok(data.i64().unwrap_or(0)),
            _ => Err(Error::new("use the original daemon", format!("command {command} was refused"))),
        }
    }

    /// A block.
    pub fn alloc(&mut self, size: u32) -> Result<i64, Error> {
        self.call(ALLOC, &[size.to_le_bytes(), 64u32.to_le_bytes()].concat())
    }

    /// Gives up one reference.
    pub fn free(&mut self, node: i64) -> Result<(), Error> {
        self.call(FREE, &node.to_le_bytes()).map(drop)
    }

    /// Announces a transfer.
    pub fn pre_send(&mut self, node: i64, to: i32) -> Result<i64, Error> {
        self.call(PRE_SEND, &[&1u32.to_le_bytes()[..], &node.to_le_bytes(), &to.to_le_bytes()].concat())
    }

    /// Takes a transfer over.
    pub fn recv(&mut self, bid: i64, from: i32) -> Result<(), Error> {
        let data = [&bid.to_le_bytes()[..], &1u32.to_le_bytes(), &from.to_le_bytes()].concat();
        self.call(RECV, &data).map(drop)
    }
}

/// What one process tells the next over a socket of their own: "this block, transfer, from me".
#[derive(Debug, Clone, Copy)]
pub struct Note {
    /// The block.
    pub node: i64,
    /// The transfer.
    pub bid: i64,
    /// The sender's pid.
    pub from: i32,
}

impl Note {
    /// Tells.
    pub fn write(self, to: &mut UnixStream) -> Result<(), Error> {
        let bytes =
            [&self.node.to_le_bytes()[..], &self.bid.to_le_bytes(), &self.from.to_le_bytes()].concat();
        step("tell the next process", to.write_all(&bytes))
    }

    /// Hears.
    pub fn read(from: &mut UnixStream) -> Result<Self, Error> {
        let mut bytes = [0; 20];
        step("hear the process before", from.read_exact(&mut bytes))?;
        let mut data = Reader(&bytes);
        match (data.i64(), data.i64(), data.i32()) {
            (Some(node), Some(bid), Some(from)) => Ok(Self { node, bid, from }),
            _ => Err(Error::new("hear the process before", "too short")),
        }
    }
}
