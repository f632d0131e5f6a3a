//! Any bytes as commands of several classic clients and a member, in any order: the ledger's counts, the words of a small
//! real pool, and a reference that only counts must agree after each of them. For the fuzzer.

use std::collections::BTreeMap;

use baton_pool::{Admission, EndpointKind, PoolConfig};

use super::*;

/// Pids 1 to this are classic clients; the next is the member, the one after it nobody.
const CLIENTS: i32 = 4;
const MEMBER: i32 = CLIENTS + 1;
const OPERATIONS: usize = 128;

/// What should be so.
#[derive(Default)]
struct Reference {
    connections: BTreeMap<i32, usize>,
    held: BTreeMap<(i32, BlockId), u64>,
    in_flight: BTreeMap<i64, (i32, i32, Vec<BlockId>)>,
    inbox: Vec<BlockId>,
    /// At most so many messages were taken back; the member has not looked since, so they still have their places.
    withdrawn: usize,
    members: Vec<BlockId>,
}

impl Reference {
    fn holds(&self, pid: i32, block: BlockId) -> bool {
        self.held.contains_key(&(pid, block))
    }

    fn is_here(&self, pid: i32) -> bool {
        self.connections.contains_key(&pid)
    }

    fn on_its_way(&self, to: i32, block: BlockId) -> u64 {
        let all = self.in_flight.values().filter(|(_, receiver, _)| *receiver == to);
        all.flat_map(|(_, _, blocks)| blocks).filter(|b| **b == block).count() as u64
    }

    /// How many lanes a block should have: one of each client that it concerns, one for each message and hold of the member.
    fn lanes(&self, block: BlockId) -> usize {
        let concerned = |pid: &i32| self.holds(*pid, block) || self.on_its_way(*pid, block) > 0;
        let member = self.inbox.iter().chain(&self.members).filter(|b| **b == block).count();
        (1..=CLIENTS).filter(concerned).count() + member
    }
}

struct Play<'a> {
    ledger: Ledger,
    member: Proxy,
    reference: Reference,
    /// Every node and transfer that was ever told.
    nodes: Vec<i64>,
    bids: Vec<i64>,
    script: &'a [u8],
}

/// Runs one input.
///
/// # Panics
/// If it is a finding.
pub fn run(script: &[u8]) {
    let config = PoolConfig {
        payload_bytes: 128 << 10,
        largest_block: 8 << 10,
        endpoints: 8,
        inbox_slots: 4,
        ..PoolConfig::default()
    };
    let (pool, _fds) = Pool::create(&config).expect("a small pool");
    let member = pool.admit(&who(MEMBER, EndpointKind::Attached)).expect("room for it");
    let member = pool.proxy(member).expect("just admitted");
    let ledger = Ledger::new(pool, 3);
    let reference = Reference::default();
    let mut play = Play { ledger, member, reference, nodes: Vec::new(), bids: Vec::new(), script };
    for _ in 0..OPERATIONS {
        if play.operation().is_none() {
            break;
        }
        play.compare();
    }
    play.end();
}

fn who(pid: i32, kind: EndpointKind) -> Admission {
    Admission { pid: pid.unsigned_abs(), start_time: 0, name: "x".into(), inbox: None, kind, quota_bytes: 0 }
}

fn pid(n: i32) -> Pid {
    Pid::new(n).expect("small and positive")
}

impl Play<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.script.split_first()?;
        self.script = rest;
        Some(*first)
    }

    fn client(&mut self) -> Option<i32> {
        Some(i32::from(self.byte()? % 5) + 1)
    }

    /// A node that was told once, perhaps a little beside it; or any number.
    fn node(&mut self) -> Option<i64> {
        let byte = self.byte()?;
        let known = self.nodes.get(usize::from(byte) % self.nodes.len().max(1)).copied().unwrap_or(0);
        Some(match byte {
            250 => known + 64,
            251 => known.wrapping_neg(),
            252 => i64::MIN,
            253 => i64::MAX,
            _ => known,
        })
    }

    fn some_nodes(&mut self) -> Option<Vec<i64>> {
        let count = self.byte()? % 4;
        (0..count).map(|_| self.node()).collect()
    }

    fn block(&self, node: i64) -> Option<BlockId> {
        self.member.block_at(u64::try_from(node).ok()?)
    }

    fn held_by(&self, from: i32, nodes: &[i64]) -> Option<Vec<BlockId>> {
        nodes.iter().map(|n| self.block(*n).filter(|b| self.reference.holds(from, *b))).collect()
    }

    fn operation(&mut self) -> Option<()> {
        match self.byte()? % 10 {
            0 => self.come(),
            1 => self.go(),
            2 | 3 => self.alloc(),
            4 => self.free(),
            5 => self.pre_send(),
            6 => self.recv(),
            7 => self.deliver(),
            8 => self.member_sends(),
            _ => self.member_receives(),
        }
    }

    fn come(&mut self) -> Option<()> {
        let n = self.client()?.min(CLIENTS);
        match self.ledger.join(pid(n)) {
            None => {
                assert!(!self.reference.is_here(n), "{n} is here, and not known");
                let endpoint = self.ledger.pool.admit(&who(n, EndpointKind::Classic)).expect("room for it");
                self.ledger
                    .enter(pid(n), Origin::Claim { at: std::net::Ipv4Addr::LOCALHOST.into() }, endpoint)
                    .expect("just admitted");
            }
            Some(joined) => {
                let connections = self.reference.connections.get(&n).copied().unwrap_or(0);
                assert!(joined.is_ok() == (connections < CONNECTIONS_MAX) && connections > 0);
                joined.ok()?;
            }
        }
        *self.reference.connections.entry(n).or_default() += 1;
        Some(())
    }

    fn go(&mut self) -> Option<()> {
        let n = self.client()?;
        let last = self.reference.connections.get(&n) == Some(&1);
        let gone = self.ledger.leave(pid(n));
        assert_eq!(gone.is_some(), last, "the last connection of {n}");
        if let Some(count) = self.reference.connections.get_mut(&n) {
            *count -= 1;
        }
        if let Some(endpoint) = gone {
            self.ledger.pool.reap(endpoint).expect("it was admitted");
            self.reference.connections.remove(&n);
            self.reference.held.retain(|(holder, _), _| *holder != n);
            self.reference.in_flight.retain(|_, (_, to, _)| *to != n);
        }
        Some(())
    }

    fn alloc(&mut self) -> Option<()> {
        let n = self.client()?;
        let size = u32::from(self.byte()?) * 40;
        let align = [0, 1, 8, 64, 4096, 3][usize::from(self.byte()? % 6)];
        if let Ok(node) = self.ledger.alloc(pid(n), size, align) {
            assert!(self.reference.is_here(n) && size > 0 && align != 3, "size {size}, align {align}");
            assert!(align == 0 || node % i64::from(align) == 0, "{node} is not aligned to {align}");
            let block = self.block(node).expect("a block begins there");
            assert_eq!(self.reference.lanes(block), 0, "block {block} is in use");
            self.reference.held.insert((n, block), 1);
            self.nodes.push(node);
        }
        Some(())
    }

    fn free(&mut self) -> Option<()> {
        let (n, node) = (self.client()?, self.node()?);
        let held = self.held_by(n, &[node]);
        assert_eq!(self.ledger.free(pid(n), node).is_ok(), held.is_some(), "free of {node} by {n}");
        for block in held.into_iter().flatten() {
            let count = self.reference.held.get_mut(&(n, block))?;
            *count -= 1;
            if *count == 0 {
                self.reference.held.remove(&(n, block));
            }
        }
        Some(())
    }

    /// Whether this refusal of a transfer is right, given what the reference knows.
    fn judge(&self, error: &PreSendError, from: i32, nodes: &[i64], to_is_here: bool) {
        let held = self.held_by(from, nodes);
        let right = match error {
            PreSendError::Nothing => nodes.is_empty(),
            PreSendError::NotHeld { .. } => held.is_none(),
            PreSendError::Unknown { .. } => !to_is_here,
            // Others of the same transfer may have taken the lanes.
            PreSendError::FanOut { .. } => {
                held.is_some_and(|all| all.iter().any(|b| self.reference.lanes(*b) + all.len() > 8))
            }
            PreSendError::Full { .. } => {
                let reference = &self.reference;
                reference.inbox.len() + reference.withdrawn + nodes.len() > 4
            }
            _ => false,
        };
        assert!(right, "{from} sends {nodes:?}: {error}");
    }

    fn pre_send(&mut self) -> Option<()> {
        let (from, to, nodes) = (self.client()?, self.client()?, self.some_nodes()?);
        let sent = self
            .ledger
            .held(pid(from), &nodes)
            .and_then(|(sender, blocks)| self.ledger.dispatch(pid(from), sender, blocks, pid(to)));
        match sent {
            Ok(bid) => {
                let blocks = self.held_by(from, &nodes).expect("only what is held is sent");
                assert!(self.reference.is_here(to) && !self.bids.contains(&bid));
                self.reference.in_flight.insert(bid, (from, to, blocks));
                self.bids.push(bid);
            }
            Err(error) => self.judge(&error, from, &nodes, self.reference.is_here(to)),
        }
        Some(())
    }

    fn recv(&mut self) -> Option<()> {
        let (n, from, count) = (self.client()?, self.client()?, u32::from(self.byte()? % 4));
        let byte = usize::from(self.byte()?);
        let bid = self.bids.get(byte % self.bids.len().max(1)).copied().unwrap_or(byte as i64);
        let known = self.reference.in_flight.get(&bid);
        let right =
            known.is_some_and(|(f, t, blocks)| *f == from && *t == n && blocks.len() == count as usize);
        assert_eq!(self.ledger.recv(pid(n), bid, count, from).is_ok(), right, "{n} receives {bid}");
        if right && let Some((_, _, blocks)) = self.reference.in_flight.remove(&bid) {
            for block in blocks {
                *self.reference.held.entry((n, block)).or_default() += 1;
            }
        }
        Some(())
    }

    fn deliver(&mut self) -> Option<()> {
        let (from, nodes) = (self.client()?, self.some_nodes()?);
        match self.ledger.deliver(pid(from), &nodes, pid(MEMBER), self.member.endpoint()).0 {
            Ok(_) => {
                let blocks = self.held_by(from, &nodes).expect("only what is held is sent");
                self.reference.inbox.extend(blocks);
            }
            Err(error) => {
                self.judge(&error, from, &nodes, true);
                self.reference.withdrawn += nodes.len();
            }
        }
        Some(())
    }

    /// The member sends what it holds; some of it it has just allocated.
    fn member_sends(&mut self) -> Option<()> {
        let to = self.client()?;
        if self.reference.members.len() < 4
            && let Ok(block) = self.member.alloc(64)
        {
            assert_eq!(self.reference.lanes(block), 0, "block {block} is in use");
            self.reference.members.push(block);
        }
        let block = *self.reference.members.first()?;
        match self.ledger.dispatch(pid(MEMBER), self.member.endpoint(), vec![block], pid(to)) {
            Ok(bid) => {
                assert!(self.reference.is_here(to) && !self.bids.contains(&bid));
                self.reference.in_flight.insert(bid, (MEMBER, to, vec![block]));
                self.bids.push(bid);
                self.nodes.extend(self.member.offset(block).and_then(|offset| i64::try_from(offset).ok()));
            }
            Err(PreSendError::FanOut { .. }) => assert!(self.reference.lanes(block) >= 8),
            Err(error) => assert!(!self.reference.is_here(to), "the member sends: {error}"),
        }
        Some(())
    }

    /// The member reads one message, and lets go of what it got first.
    fn member_receives(&mut self) -> Option<()> {
        if let Some((block, _)) = self.member.receive().expect("nobody scribbles") {
            assert_eq!(self.reference.inbox.first(), Some(&block), "messages come in order");
            self.reference.inbox.remove(0);
            self.reference.members.push(block);
        } else {
            assert!(self.reference.inbox.is_empty(), "messages are lost");
            self.reference.withdrawn = 0;
        }
        if self.byte()? % 2 == 0 && !self.reference.members.is_empty() {
            let block = self.reference.members.remove(0);
            self.member.release(block).expect("held");
        }
        Some(())
    }

    /// Ledger, words and reference say the same.
    fn compare(&self) {
        let mut in_use = 0;
        for view in self.ledger.pool.blocks_in_use() {
            let block = view.id;
            in_use += 1;
            let lanes = self.ledger.pool.holders(block).len();
            assert_eq!(lanes, self.reference.lanes(block), "lanes of block {block}");
        }
        let all = self.reference.held.keys().map(|(_, block)| block);
        let all = all.chain(self.reference.in_flight.values().flat_map(|(_, _, blocks)| blocks));
        let all = all.chain(&self.reference.inbox).chain(&self.reference.members);
        let all: std::collections::BTreeSet<_> = all.collect();
        assert_eq!(in_use, all.len(), "blocks in use");
        for (n, peer) in (1..=CLIENTS).filter_map(|n| Some((n, self.ledger.peers.get(&pid(n))?))) {
            let mut counted = 0;
            for (block, references) in &peer.references {
                let held = self.reference.held.get(&(n, *block)).copied().unwrap_or(0);
                let in_flight = self.reference.on_its_way(n, *block);
                assert_eq!(*references, References { held, in_flight }, "block {block} of {n}");
                counted += held;
            }
            let held: u64 =
                self.reference.held.iter().filter(|((pid, _), _)| *pid == n).map(|(_, count)| count).sum();
            assert_eq!(counted, held, "references of {n}");
        }
        let on_their_way: usize = self.reference.in_flight.values().map(|(_, _, blocks)| blocks.len()).sum();
        assert_eq!(self.ledger.in_flight_all, on_their_way);
        assert_eq!(self.ledger.in_flight.values().sum::<usize>(), on_their_way);
    }

    /// Everybody goes: nothing may stay.
    fn end(mut self) {
        for n in 1..=CLIENTS {
            while self.reference.is_here(n) {
                let gone = self.ledger.leave(pid(n));
                match self.reference.connections.get_mut(&n) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(self.reference.connections.remove(&n)),
                }
                gone.map(|endpoint| self.ledger.pool.reap(endpoint).expect("it was admitted"));
            }
        }
        assert!(self.ledger.transfers.is_empty() && self.ledger.in_flight.is_empty());
        self.ledger.pool.reap(self.member.endpoint()).expect("it was admitted");
        let report = self.ledger.pool.audit_once();
        assert!(report.ok && report.in_use == 0, "{report:?}");
    }
}
