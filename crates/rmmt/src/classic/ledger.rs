//! Who of the classic clients holds what: references counted per pid, and transfers on their way.
//!
//! ```text
//!   alloc ─▶ held 1 ── recv ──▶ held n ── free ──▶ held n-1 … 0 ─┐
//!                                  ▲                             ├─ both 0: the lane is given back
//!   pre-send to this pid ─▶ in flight n ── recv (held +1) ───────┘
//!                                  └── withdrawn: its sender never learned of it ──▶ in flight n-1
//!   last connection of the pid ends ─▶ its endpoint is reaped: all its lanes go at once
//! ```
//!
//! The pool's hold word knows one lane per process; the classic protocol counts. So a pid is one endpoint of the pool,
//! which has a lane in a block's word exactly as long as the pid holds references to it or some are on their way to it;
//! how many is counted here. That the lane of a block in flight is the *receiver's* is what makes every death simple: a
//! sender may go, its transfer stays; a receiver that goes takes everything along that was meant for it.
//!
//! What is counted here dies with the daemon, and so do the connections: the next daemon reaps the endpoints that it
//! finds without them.
//!
//! # What goes wrong
//! Every operation checks everything that it was told before it changes anything, and takes back the lanes it has added
//! if the pool refuses one. Each error is a sentence for the peer.

use std::collections::{BTreeMap, HashMap};

use baton_killpoint::step;
use baton_pool::{BlockId, EndpointRef, Lend, Pass, Pool, Proxy, SendFailure};

use super::error::{AllocError, EnterError, FreeError, PreSendError, RecvError};
use super::pid::{Origin, Pid};

/// Connections of one pid, at most.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// References in flight, at most: of one sender, and of all. What bounds the memory of the ledger.
pub(super) const IN_FLIGHT_MAX: usize = 64 * 1024;
const IN_FLIGHT_ALL_MAX: usize = 1024 * 1024;

/// Blocks of at least this size start on a page, all others on a cache line.
const PAGE: u32 = 4096;
const LINE: u32 = 64;

/// References of one pid to one block. Never both 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct References {
    held: u64,
    in_flight: u64,
}

#[derive(Debug)]
struct Peer {
    proxy: Proxy,
    origin: Origin,
    connections: usize,
    references: HashMap<BlockId, References>,
    /// It is in the log that it wanted more than its quota.
    was_told: bool,
}

impl Peer {
    /// The block at this place, if this pid holds references to it.
    fn held_at(&self, node: i64) -> Option<BlockId> {
        let block = self.proxy.block_at(u64::try_from(node).ok()?)?;
        self.references.get(&block).is_some_and(|r| r.held > 0).then_some(block)
    }

    fn node_of(&self, block: BlockId) -> Option<i64> {
        self.proxy.offset(block).and_then(|offset| i64::try_from(offset).ok())
    }

    /// What it has received counts, what is on its way to it too: both are lanes of its endpoint.
    fn bytes(&self) -> u64 {
        self.references.keys().filter_map(|block| self.proxy.capacity(*block)).sum()
    }

    fn release(&self, block: BlockId) {
        if let Err(error) = self.proxy.release(block) {
            // The word does not say what was counted here: somebody scribbles over the metadata.
            let endpoint = self.proxy.endpoint().id;
            tracing::error!("rmmt: block {block} of classic endpoint={endpoint} was not held: {error:?}");
        }
    }
}

#[derive(Debug)]
struct Transfer {
    from: Pid,
    to: Pid,
    blocks: Vec<BlockId>,
}

/// All classic clients.
#[derive(Debug)]
pub(crate) struct Ledger {
    pool: Pool,
    peers: BTreeMap<Pid, Peer>,
    transfers: HashMap<i64, Transfer>,
    /// The last number given to a transfer.
    last: i64,
    /// References in flight of each sender, living or not.
    in_flight: HashMap<Pid, usize>,
    in_flight_all: usize,
}

impl Ledger {
    /// `lives` is how many daemons served this pool before: their transfers' numbers mean nothing here.
    pub(crate) fn new(pool: Pool, lives: u32) -> Self {
        Self {
            pool,
            peers: BTreeMap::new(),
            transfers: HashMap::new(),
            last: i64::from(lives & 0x7f_ffff) << 40,
            in_flight: HashMap::new(),
            in_flight_all: 0,
        }
    }

    /// The endpoint of a classic client, and what its pid is worth.
    pub(crate) fn find(&self, pid: Pid) -> Option<(EndpointRef, Origin)> {
        self.peers.get(&pid).map(|peer| (peer.proxy.endpoint(), peer.origin))
    }

    /// All classic clients.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (Pid, EndpointRef, Origin)> {
        self.peers.iter().map(|(pid, peer)| (*pid, peer.proxy.endpoint(), peer.origin))
    }

    /// One more connection of a pid that is here already; `None` if it is its first.
    pub(crate) fn join(&mut self, pid: Pid) -> Option<Result<EndpointRef, EnterError>> {
        let peer = self.peers.get_mut(&pid)?;
        if peer.connections >= CONNECTIONS_MAX {
            return Some(Err(EnterError::Connections { pid: pid.get(), max: CONNECTIONS_MAX }));
        }
        peer.connections += 1;
        Some(Ok(peer.proxy.endpoint()))
    }

    /// The first connection of a pid, for which an endpoint was admitted.
    pub(crate) fn enter(
        &mut self,
        pid: Pid,
        origin: Origin,
        endpoint: EndpointRef,
    ) -> Result<(), EnterError> {
        let proxy = self.pool.proxy(endpoint)?;
        let peer = Peer { proxy, origin, connections: 1, references: HashMap::new(), was_told: false };
        self.peers.insert(pid, peer);
        Ok(())
    }

    /// A connection ended. If it was the last of its pid, everything addressed to it is forgotten, and its endpoint is
    /// to be reaped by the caller, which gives back whatever it held.
    pub(crate) fn leave(&mut self, pid: Pid) -> Option<EndpointRef> {
        let peer = self.peers.get_mut(&pid)?;
        peer.connections = peer.connections.saturating_sub(1);
        if peer.connections > 0 { None } else { self.put_out(pid) }
    }

    /// The same whatever connections it has.
    pub(crate) fn put_out(&mut self, pid: Pid) -> Option<EndpointRef> {
        let gone = self.peers.remove(&pid)?;
        let lost: Vec<i64> =
            self.transfers.iter().filter(|(_, t)| t.to == pid).map(|(bid, _)| *bid).collect();
        for bid in lost {
            self.forget(bid);
        }
        Some(gone.proxy.endpoint())
    }

    /// Command 1: a block with one reference; its place.
    pub(crate) fn alloc(&mut self, pid: Pid, size: u32, align: u32) -> Result<i64, AllocError> {
        if size == 0 {
            return Err(AllocError::Nothing);
        }
        if align > PAGE || align.count_ones() > 1 {
            return Err(AllocError::Align { align });
        }
        let at_least = if align > LINE { size.max(PAGE) } else { size };
        let allowed = self.within_quota(pid, at_least);
        let peer = self.peers.get_mut(&pid).ok_or(AllocError::NotAdmitted)?;
        let allocated = allowed.and_then(|()| peer.proxy.alloc(at_least as usize));
        let block = allocated.map_err(|error| match error {
            baton_pool::AllocError::Exhausted { .. } => AllocError::NoMemory,
            baton_pool::AllocError::Quota { held, quota, .. } => {
                let refusal = match peer.origin {
                    Origin::Kernel { .. } => AllocError::Quota { size, held, quota },
                    Origin::Claim { at } => AllocError::QuotaAt { at, size, held, quota },
                };
                if !std::mem::replace(&mut peer.was_told, true) {
                    tracing::warn!("rmmt: classic pid={pid} is at its quota: {refusal}");
                }
                refusal
            }
            baton_pool::AllocError::TooLarge { largest, .. } => AllocError::TooLarge { size, max: largest },
            error => {
                tracing::warn!("rmmt: classic pid={pid}: no block of {size} bytes: {error}");
                AllocError::NotAdmitted
            }
        })?;
        let Some(node) = peer.node_of(block) else {
            peer.release(block); // the metadata says that the block lies nowhere
            return Err(AllocError::NoMemory);
        };
        step!(ClassicAllocated);
        peer.references.insert(block, References { held: 1, in_flight: 0 });
        Ok(node)
    }

    /// Over ip:// what counts is what all clients at the address have: a block that two of them have counts twice, as it
    /// does when two processes with quotas hold it.
    fn within_quota(&self, pid: Pid, len: u32) -> Result<(), baton_pool::AllocError> {
        let Some(peer) = self.peers.get(&pid).filter(|peer| peer.proxy.has_quota()) else {
            return Ok(()); // nothing to add up
        };
        let held = match peer.origin {
            Origin::Kernel { .. } => peer.bytes(),
            there => self.peers.values().filter(|peer| peer.origin == there).map(Peer::bytes).sum(),
        };
        peer.proxy.may_alloc(len as usize, held)
    }

    /// Command 2: one reference less.
    pub(crate) fn free(&mut self, pid: Pid, node: i64) -> Result<(), FreeError> {
        let not_held = || FreeError::NotHeld { pid: pid.get(), node };
        let peer = self.peers.get_mut(&pid).ok_or_else(not_held)?;
        let block = peer.held_at(node).ok_or_else(not_held)?;
        let references = peer.references.get_mut(&block).ok_or_else(not_held)?;
        references.held -= 1;
        if *references == References::default() {
            peer.references.remove(&block);
            peer.release(block);
        }
        step!(ClassicFreed);
        Ok(())
    }

    /// The blocks at these places, all of which `pid` must hold, and its endpoint.
    pub(crate) fn held(&self, pid: Pid, nodes: &[i64]) -> Result<(EndpointRef, Vec<BlockId>), PreSendError> {
        let first = nodes.first().ok_or(PreSendError::Nothing)?;
        let not_held = |node: &i64| PreSendError::NotHeld { pid: pid.get(), node: *node };
        let peer = self.peers.get(&pid).ok_or_else(|| not_held(first))?;
        let block = |node: &i64| peer.held_at(*node).ok_or_else(|| not_held(node));
        Ok((peer.proxy.endpoint(), nodes.iter().map(block).collect::<Result<_, _>>()?))
    }

    /// Command 4, to a classic client: a reference to each block is on its way to `to`. The transfer's number.
    ///
    /// `sender` is an endpoint of `from`; it need not be a classic one.
    pub(crate) fn dispatch(
        &mut self,
        from: Pid,
        sender: EndpointRef,
        blocks: Vec<BlockId>,
        to: Pid,
    ) -> Result<i64, PreSendError> {
        if blocks.is_empty() {
            return Err(PreSendError::Nothing);
        }
        let of_sender = self.in_flight.get(&from).copied().unwrap_or(0);
        for (now, max) in [(of_sender, IN_FLIGHT_MAX), (self.in_flight_all, IN_FLIGHT_ALL_MAX)] {
            if now + blocks.len() > max {
                return Err(PreSendError::InFlight { max });
            }
        }
        let unknown = PreSendError::Unknown { to_pid: to.get().cast_signed() };
        let receiver = self.peers.get_mut(&to).ok_or(unknown)?;
        lend_all(&self.pool, from, sender, &blocks, receiver)?;
        for block in &blocks {
            receiver.references.entry(*block).or_default().in_flight += 1;
        }
        *self.in_flight.entry(from).or_default() += blocks.len();
        self.in_flight_all += blocks.len();
        let bid = self.next_number();
        self.transfers.insert(bid, Transfer { from, to, blocks });
        step!(ClassicDispatched);
        Ok(bid)
    }

    /// Command 4, to a member: a message for each block in that endpoint's inbox. All or none of them, unless the
    /// receiver takes some before another proves to have no room. In both cases: whether the receiver is to be woken.
    pub(crate) fn deliver(
        &mut self,
        pid: Pid,
        nodes: &[i64],
        to: Pid,
        endpoint: EndpointRef,
    ) -> (Result<i64, PreSendError>, bool) {
        let blocks = match self.held(pid, nodes) {
            Ok((_, blocks)) => blocks,
            Err(error) => return (Err(error), false),
        };
        let Some(peer) = self.peers.get(&pid) else { return (Err(PreSendError::Nothing), false) };
        let mut wake = false;
        for (at, block) in blocks.iter().enumerate() {
            match peer.proxy.send(*block, endpoint, Pass::Share) {
                Ok(asleep) => {
                    step!(ClassicDelivered);
                    wake |= asleep;
                }
                Err(failure) => {
                    // Whatever is still unread is taken back. A message that is not there any more was received.
                    let unread = |block: &&BlockId| self.pool.drop_in_flight(endpoint, **block).is_err();
                    let sent = blocks.iter().take(at).filter(unread).count();
                    return (Err(undelivered(failure, nodes, at, sent, to)), wake);
                }
            }
        }
        (Ok(self.next_number()), wake)
    }

    /// A transfer's number. What is delivered into an inbox has a number too, and no record.
    fn next_number(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    /// Command 5: the references of a transfer are the caller's now.
    pub(crate) fn recv(&mut self, pid: Pid, bid: i64, count: u32, from_pid: i32) -> Result<(), RecvError> {
        // A transfer for somebody else is as good as none: nobody learns of it.
        let transfer = self.transfers.get(&bid).filter(|transfer| transfer.to == pid);
        let transfer = transfer.ok_or(RecvError::Unknown { bid, pid: pid.get() })?;
        if Pid::new(from_pid) != Some(transfer.from) {
            return Err(RecvError::Sender { bid, from: transfer.from.get(), claim: from_pid });
        }
        if transfer.blocks.len() != count as usize {
            return Err(RecvError::Count { bid, count: transfer.blocks.len(), claim: count });
        }
        let blocks = self.forget(bid);
        if let Some(peer) = self.peers.get_mut(&pid) {
            for block in blocks {
                let references = peer.references.entry(block).or_default();
                references.held += 1;
                references.in_flight -= 1;
            }
        }
        step!(ClassicReceived);
        Ok(())
    }

    /// A transfer that its sender has not learned of. If the receiver has it already, somebody told it: then it stands.
    pub(super) fn withdraw(&mut self, bid: i64) {
        let Some(to) = self.transfers.get(&bid).map(|transfer| transfer.to) else { return };
        let blocks = self.forget(bid);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        for block in blocks {
            let Some(references) = peer.references.get_mut(&block) else { continue };
            references.in_flight -= 1;
            if *references == References::default() {
                peer.references.remove(&block);
                peer.release(block);
            }
        }
    }

    /// Takes a transfer off the books.
    fn forget(&mut self, bid: i64) -> Vec<BlockId> {
        let Some(Transfer { from, blocks, .. }) = self.transfers.remove(&bid) else { return Vec::new() };
        self.in_flight_all -= blocks.len();
        if let Some(count) = self.in_flight.get_mut(&from) {
            *count -= blocks.len();
            if *count == 0 {
                self.in_flight.remove(&from);
            }
        }
        blocks
    }
}

/// Gives the receiver a lane in each block that it has none in; none at all if one is refused.
fn lend_all(
    pool: &Pool,
    from: Pid,
    sender: EndpointRef,
    blocks: &[BlockId],
    receiver: &mut Peer,
) -> Result<(), PreSendError> {
    let mut lent = Vec::new();
    for block in blocks {
        if receiver.references.contains_key(block) {
            continue;
        }
        if let Err(failure) = pool.lend(sender, *block, receiver.proxy.endpoint(), Lend::Holder) {
            for block in lent {
                receiver.references.remove(&block);
                receiver.release(block);
            }
            let node = receiver.node_of(*block).unwrap_or(-1);
            return Err(match failure {
                SendFailure::FanOut => PreSendError::FanOut { node },
                SendFailure::NotHolder => PreSendError::NotHeld { pid: from.get(), node },
                failure => PreSendError::Refused(failure),
            });
        }
        step!(ClassicLent);
        receiver.references.insert(*block, References::default()); // counted once all are lent
        lent.push(*block);
    }
    Ok(())
}

fn undelivered(failure: SendFailure, nodes: &[i64], at: usize, sent: usize, to: Pid) -> PreSendError {
    let (to_pid, count) = (to.get(), nodes.len());
    match failure {
        _ if sent > 0 => PreSendError::Partly { to_pid, sent, count },
        SendFailure::Full => PreSendError::Full { to_pid, count },
        SendFailure::Gone => PreSendError::Unknown { to_pid: to_pid.cast_signed() },
        SendFailure::FanOut => PreSendError::FanOut { node: nodes.get(at).copied().unwrap_or(-1) },
        failure => PreSendError::Refused(failure),
    }
}

pub(crate) mod scripted;
#[cfg(test)]
mod tests;
