//! Classic clients: the original protocol, for which the daemon does what members do themselves.
//!
//! ```text
//!   (door) ─▶ hello ──seat taken──▶ greeted ── commands, answers ──▶ end of stream ─▶ pending answers ─▶ seat given up
//!               │                                                      ▲      last of its pid: endpoint reaped, logged
//!               └─ refused: closed, one line in the log                └── out of step, or its number turns out another's
//! ```
//!
//! A seat is one connection of a pid; all connections of a pid share one endpoint of the pool and what it holds. Over
//! un:// the kernel vouches for the pid; over ip:// it is an address and nothing else, so it gives way: it cannot be the
//! pid of anybody the kernel vouches for, and who came first under such a number is put out when the true one comes.
//! What bounds a client over ip:// (quota, connections) is therefore counted for its address, and nobody at another
//! address speaks for the same pid.
//!
//! | from | to | what happens |
//! |---|---|---|
//! | classic | classic | a transfer in the ledger; the receiver's endpoint gets a lane at once |
//! | member | classic | the same, asked for over the member's control connection, and confirmed there |
//! | classic | member | messages in the inbox of that pid's oldest endpoint; no record, the number is for the log only |
//!
//! # What goes wrong
//! * **A client is killed**: its connections end, and with the last one everything it held and everything on its way to
//!   it is free.
//! * **It sends garbage**: see `baton_wire::classic`; it is refused or put out, nobody else notices.
//! * **It does not read its answers**: after 256 KiB of them nothing more is read from it. It stops itself only.
//! * **The daemon is killed**: all classic connections end; its successor reaps their endpoints.

mod error;
mod ledger;
mod pid;
mod seat;
mod session;
mod unconfirmed;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;

use baton_pool::{BlockId, EndpointRef, Pool};
use baton_wire::attach::{ErrorCode, Failure};
use baton_wire::classic::{Answer, Command, Request, ServerHello};
use tokio::sync::Notify;

use crate::daemon::House;
use error::{AllocError, EnterError, PreSendError};
use ledger::Ledger;
use pid::{Origin, Pid};

pub use ledger::scripted::run as run_ledger_script;
pub(crate) use seat::{Caller, make_way};
pub(crate) use session::serve;
pub(crate) use unconfirmed::Unconfirmed;

/// What all classic connections share.
pub(crate) struct Classic {
    ledger: RefCell<Ledger>,
    connections: Cell<usize>,
    /// Those over ip://, by address.
    connections_at: RefCell<HashMap<IpAddr, usize>>,
    /// Somebody lost its seat: every connection looks whether it was itself.
    put_out: Notify,
    greeting: Option<ServerHello>,
    kib: u64,
}

impl Classic {
    /// `name` is what a client can open the payload by, if it has a name; `lives` as in [`crate::daemon::House`].
    pub(crate) fn new(pool: &Pool, name: Option<&str>, lives: u32) -> Self {
        let kib = pool.geometry().payload_bytes() >> 10;
        let greeting = name.zip(u32::try_from(kib).ok());
        Self {
            ledger: RefCell::new(Ledger::new(pool.clone(), lives)),
            connections: Cell::new(0),
            connections_at: RefCell::default(),
            put_out: Notify::new(),
            greeting: greeting.map(|(name, kib)| ServerHello { name: name.to_owned(), kib }),
            kib,
        }
    }

    /// The user of the client with this endpoint, as far as the kernel says.
    pub(crate) fn uid_of(&self, endpoint: EndpointRef) -> Option<u32> {
        self.ledger.borrow().peers().find_map(|(_, here, origin)| match origin {
            Origin::Kernel { uid } if here == endpoint => Some(uid),
            _ => None,
        })
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.connections.get()
    }

    fn greeting(&self) -> Result<&ServerHello, EnterError> {
        let too_large = u32::try_from(self.kib).is_err();
        self.greeting.as_ref().ok_or(if too_large {
            EnterError::TooLarge { kib: self.kib }
        } else {
            EnterError::NoName
        })
    }
}

/// Does what a client asks. The four operations never overlap: each runs to its end on the daemon's one thread.
fn perform(house: &House, pid: Pid, request: Request) -> Answer {
    let Request { ctx, command } = request;
    let command = match command {
        Ok(command) => command,
        Err(error) => return Answer::refused(ctx, error.status(), &error.to_string()),
    };
    let ledger = &house.classic.ledger;
    let done = match command {
        Command::Alloc { size, align } => {
            alloc(house, pid, size, align).map(Some).map_err(|error| error.to_string())
        }
        Command::Free { node } => {
            ledger.borrow_mut().free(pid, node).map(|()| None).map_err(|error| error.to_string())
        }
        Command::PreSend { nodes, to_pid } => {
            pre_send(house, pid, &nodes, to_pid).map(Some).map_err(|error| error.to_string())
        }
        Command::Recv { bid, count, from_pid } => {
            let received = ledger.borrow_mut().recv(pid, bid, count, from_pid);
            received.map(|()| None).map_err(|error| error.to_string())
        }
    };
    match done {
        Ok(None) => Answer::done(ctx),
        Ok(Some(number)) => Answer::number(ctx, number),
        Err(sentence) => {
            tracing::debug!("rmmt: classic pid={pid}: {sentence}");
            Answer::failed(ctx, &sentence)
        }
    }
}

fn alloc(house: &House, pid: Pid, size: u32, align: u32) -> Result<i64, AllocError> {
    let first = house.classic.ledger.borrow_mut().alloc(pid, size, align);
    match first {
        Err(AllocError::NoMemory) if house.registry.borrow_mut().make_room(size.max(align) as usize) => {
            house.classic.ledger.borrow_mut().alloc(pid, size, align)
        }
        first => first,
    }
}

/// To a classic client, or into the inbox of a member. Whom the kernel vouches for goes first.
fn pre_send(house: &House, pid: Pid, nodes: &[i64], to_pid: i32) -> Result<i64, PreSendError> {
    let unknown = PreSendError::Unknown { to_pid };
    let to = Pid::new(to_pid).ok_or(unknown)?;
    let member = house.registry.borrow_mut().oldest_of(to.get());
    let mut ledger = house.classic.ledger.borrow_mut();
    let is_client = match ledger.find(to) {
        Some((_, Origin::Kernel { .. })) => true,
        Some((_, Origin::Claim { .. })) => member.is_none(),
        None => false,
    };
    match member {
        Some(endpoint) if !is_client => {
            let (delivered, wake) = ledger.deliver(pid, nodes, to, endpoint);
            if wake {
                house.registry.borrow().wake(&[endpoint.id]);
            }
            delivered
        }
        _ => {
            let (sender, blocks) = ledger.held(pid, nodes)?;
            ledger.dispatch(pid, sender, blocks, to)
        }
    }
}

/// A member sends blocks to a classic client: the number that the client receives them with, and where they are. The
/// member holds its own lanes still, and drops them when it has confirmed this answer.
pub(crate) fn send_to_pid(
    house: &House,
    from: EndpointRef,
    from_pid: u32,
    blocks: &[u32],
    to_pid: u32,
) -> Result<(i64, Vec<i64>), Failure> {
    let nobody = || {
        Failure::new(
            ErrorCode::NotFound,
            format!("no classic client has pid {to_pid} now; `baton ls` lists who is here"),
        )
    };
    let (from_pid, to) = (Pid::try_from(from_pid), Pid::try_from(to_pid));
    let (Ok(from_pid), Ok(to)) = (from_pid, to) else { return Err(nobody()) };
    let blocks: Vec<_> = blocks.iter().map(|block| BlockId::new(*block)).collect();
    let sender = house.registry.borrow().pool().proxy(from);
    let sender = sender.map_err(|error| Failure::new(ErrorCode::NotAttached, error.to_string()))?;
    if let Some(block) = blocks.iter().find(|block| !sender.holds(**block)) {
        let sentence = format!("you do not hold block {block}; nothing was sent");
        return Err(Failure::new(ErrorCode::BadRequest, sentence));
    }
    let node = |block: &BlockId| sender.offset(*block).and_then(|offset| i64::try_from(offset).ok());
    let nodes = blocks.iter().map(|block| node(block).unwrap_or(-1)).collect();
    let sent = house.classic.ledger.borrow_mut().dispatch(from_pid, from, blocks, to);
    let sent = sent.map(|bid| (bid, nodes));
    sent.map_err(|error| match error {
        PreSendError::Unknown { .. } => nobody(),
        PreSendError::InFlight { .. } | PreSendError::FanOut { .. } => {
            Failure::new(ErrorCode::Busy, error.to_string())
        }
        error => Failure::new(ErrorCode::BadRequest, error.to_string()),
    })
}
