//! One connection of the client.
//!
//! ```text
//!   Resting ──due──▶ Connecting ──▶ Up ──▶ the server ends it, resets it, times out ──▶ Resting (a growing time, if it
//!      ▲                 └─ fails ─▶ Resting          │                                   gave no answer at all)
//!      └──────── has sent its share of requests ──────┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use baton_wire::json_frame::Decoder;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with, sockopt,
};

use crate::answers::UnderWay;

/// Where to connect to: an [`baton_address::Address`] with its name looked up.
#[derive(Debug)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(SocketAddrUnix),
}

impl Target {
    /// Looks the name up. Of several addresses the first that takes a connection counts, else the first.
    pub(crate) fn of(address: &baton_address::Address) -> io::Result<Self> {
        use std::net::ToSocketAddrs;
        match address {
            baton_address::Address::Unix { path } => Ok(Self::Unix(SocketAddrUnix::new(path)?)),
            baton_address::Address::Tcp { host, port } => {
                let all: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs()?.collect();
                let answers =
                    |address: &&SocketAddr| all.len() > 1 && std::net::TcpStream::connect(address).is_ok();
                let chosen = all.iter().find(answers).or(all.first());
                chosen.copied().map(Self::Tcp).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
            }
        }
    }

    /// Begins to connect. [`Errno::AGAIN`]: the server's queue is full (Unix), ask again.
    pub(crate) fn begin(&self) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = |family| socket_with(family, SocketType::STREAM, flags, None);
        let (socket, begun) = match self {
            Self::Unix(address) => {
                let socket = open(AddressFamily::UNIX)?;
                let begun = connect(&socket, address);
                (socket, begun)
            }
            Self::Tcp(address) => {
                let socket =
                    open(if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET })?;
                sockopt::set_tcp_nodelay(&socket, true)?;
                let begun = connect(&socket, address);
                (socket, begun)
            }
        };
        match begun {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(errno) => Err(errno),
        }
    }
}

/// What a connection is doing.
#[derive(Debug)]
pub(crate) enum State {
    /// There is none.
    Resting,
    /// It is being made.
    Connecting { socket: OwnedFd, since: u64 },
    /// It is there.
    Up { socket: OwnedFd },
}

/// A connection, with all its lives.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) state: State,
    /// Whether it is waiting for its turn, or its time, to connect.
    pub(crate) is_queued: bool,
    pub(crate) decoder: Decoder,
    /// Bytes that the kernel did not take yet: `out[out_at..]`.
    pub(crate) out: Vec<u8>,
    out_at: usize,
    /// Whether epoll tells when more can be written.
    pub(crate) is_watched_for_room: bool,
    /// Sent, not answered.
    pub(crate) pending: VecDeque<UnderWay>,
    /// Due, not sent: when.
    pub(crate) backlog: VecDeque<u64>,
    /// Whether it sends by itself in a closed loop.
    pub(crate) is_hot: bool,
    /// Requests sent in this life.
    pub(crate) sent: u64,
    /// Whether this life has brought an answer.
    pub(crate) is_proven: bool,
    /// Whether writing has failed: what reading says then is a reset.
    pub(crate) is_broken: bool,
    /// Lives in a row that failed.
    pub(crate) failures: u32,
    /// When the last life ended by the server's doing.
    pub(crate) down_since: Option<u64>,
    /// The last result, if results are counted.
    pub(crate) result: String,
}

impl Link {
    pub(crate) fn new(is_hot: bool, answer_bytes_max: usize) -> Self {
        Link {
            state: State::Resting,
            is_queued: false,
            decoder: Decoder::new(answer_bytes_max),
            out: Vec::new(),
            out_at: 0,
            is_watched_for_room: false,
            pending: VecDeque::new(),
            backlog: VecDeque::new(),
            is_hot,
            sent: 0,
            is_proven: false,
            is_broken: false,
            failures: 0,
            down_since: None,
            result: String::new(),
        }
    }

    /// Ends this life; nothing of it remains but what is due.
    pub(crate) fn rest(&mut self, answer_bytes_max: usize) {
        self.state = State::Resting;
        self.decoder = Decoder::new(answer_bytes_max);
        self.out = Vec::new();
        self.out_at = 0;
        self.is_watched_for_room = false;
        self.pending.clear();
        self.sent = 0;
        self.is_proven = false;
        self.is_broken = false;
    }

    /// Writes what the kernel takes. True when that was everything.
    pub(crate) fn flush(&mut self) -> bool {
        let State::Up { socket } = &self.state else { return true };
        while self.out_at < self.out.len() {
            match send(socket, &self.out[self.out_at..], SendFlags::NOSIGNAL) {
                Ok(written) => self.out_at += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_broken) => {
                    // Answers may still be there to be read; the reading side will see the end.
                    self.is_broken = true;
                    break;
                }
            }
        }
        self.out.clear();
        self.out_at = 0;
        true
    }
}
