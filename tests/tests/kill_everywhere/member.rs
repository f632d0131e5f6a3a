//! The members: real SDK clients that allocate, fill, send, share, forward, hold, check, drop, until they are killed.
//!
//! ```text
//!   producer, producer 2 ──▶ forwarder ──▶ consumer        each edge: count and ordered hash of its messages,
//!            │ └──────▶ sharer ══ share ═▶ consumer         kept by the sender (intent, done) and by the receiver
//!            └────────▶ consumer   ╚ newest ▶ reader (read-only)
//!   forwarder ── through the daemon ──▶ classic clients ──▶ consumer                            (see `classic`)
//! ```

use std::time::Duration;

use baton_client::{Block, Client, ConnectOptions, Delivery, Inbox, SendFailure, SendToPidFailure, Sender};
use std::sync::atomic::Ordering::SeqCst;

use crate::control::{
    CONSUMER, Control, DONE, DRAIN, DRAINED, ENDPOINT, EXAMINED, FAULTS, FIRST_CLASSIC, FIRST_MEMBER,
    FORWARDER, FROM_LIFE, GOT, INTENT, LEAVE, LIFE, PAUSE, PAUSED, PHASE, PID, READER, RECEIVED, REOPEN,
    REPLACED, ROLES, SENT, SHARER, SLOTS, STOP, TAKEN_BACK, TO_LIFE, advance, count,
};
use crate::letters::{Named, Way};

const MAGIC: u64 = 0xBA70_11ED_5EED_0001;
/// What is asked for changes from phase to phase: with eight extents in the pool they have to change hands. The largest
/// takes two neighbours.
pub const LENGTHS: [[usize; 6]; 3] = [
    [64, 64, 3000, 3000, 20_000, 65_536],
    [64, 200, 5000, 5000, 40_000, 150_000],
    [64, 1000, 1000, 12_000, 100_000, 700_000],
];
/// Of larger blocks one word in so many is written and checked.
const DENSE: usize = 65_536;
const SPARSE_STEP: usize = 512;

/// Xorshift: enough to be different each time and repeatable.
pub struct Random(pub u64);
impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

/// A size that is in demand now.
pub fn wanted(control: &Control, random: &mut Random) -> usize {
    let lengths = LENGTHS[control.head(PHASE).load(SeqCst) as usize % LENGTHS.len()];
    lengths[random.below(lengths.len() as u64) as usize] / 8 * 8
}

/// The inbox name of one life of a role.
fn inbox_name(slot: usize, life: u64) -> String {
    format!("{}.{life}", ROLES[slot].replace(' ', ""))
}

/// The message of a block: header of four words, then a pattern that depends on all of them.
pub fn header(slot: usize, life: u64, serial: u64, len: usize) -> [u64; 4] {
    [MAGIC, (slot as u64) << 56 | life, serial, len as u64]
}

/// What identifies it: who made it, in which life, its serial number.
pub fn message(header: &[u64; 4]) -> u64 {
    header[1] | header[2] << 24
}

/// The words of such a block that are written.
pub fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..len / 8).filter(|i| *i < DENSE / 8 || i.is_multiple_of(SPARSE_STEP))
}

fn fill(bytes: &mut [u8], header: [u64; 4]) {
    for i in places(bytes.len()) {
        bytes[i * 8..i * 8 + 8].copy_from_slice(&word(&header, i).to_le_bytes());
    }
}

pub fn word(header: &[u64; 4], i: usize) -> u64 {
    let seed = header[1].wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ header[2].wrapping_mul(0xA076_1D64_78BD_642F);
    header
        .get(i)
        .copied()
        .unwrap_or_else(|| seed.wrapping_add((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// The message, if every word is as it was written.
fn check(bytes: &[u8]) -> Option<u64> {
    let at = |i: usize| Some(u64::from_le_bytes(bytes.get(i * 8..i * 8 + 8)?.try_into().ok()?));
    check_words(bytes.len(), at)
}

pub fn check_words(len: usize, at: impl Fn(usize) -> Option<u64>) -> Option<u64> {
    let header = [at(0)?, at(1)?, at(2)?, at(3)?];
    let whole = header[0] == MAGIC && header[3] == len as u64;
    (whole && places(len).all(|i| at(i) == Some(word(&header, i)))).then(|| message(&header))
}

pub struct Worker {
    control: Control,
    slot: usize,
    life: u64,
    client: Client,
    inbox: Inbox,
    senders: [Option<(u64, Sender)>; SLOTS],
    held: Vec<Block>,
    random: Random,
    serial: u64,
    dull: bool,
}

/// Runs a member until it is told to stop.
pub fn play(control: Control, slot: usize, uri: &str, seed: u64) {
    let life = control.slot(slot, LIFE).load(SeqCst);
    let mut options = ConnectOptions::new(format!("{}.{life}", ROLES[slot].replace(' ', "")))
        .inbox(inbox_name(slot, life))
        .timeout(Duration::from_secs(60));
    if slot == READER {
        options = options.read_only();
    }
    let (client, inbox) = Client::connect(uri, options).unwrap();
    control.slot(slot, PID).store(std::process::id().into(), SeqCst);
    control.slot(slot, ENDPOINT).store(u64::from(client.endpoint().get()), SeqCst);
    let senders = Default::default();
    let random = Random(seed | 1);
    Worker { control, slot, life, client, inbox, senders, held: Vec::new(), random, serial: 0, dull: false }
        .run();
}

impl Worker {
    fn run(mut self) {
        let mut seen = 0;
        loop {
            let pause = self.control.head(PAUSE).load(SeqCst);
            if pause != 0 && pause != seen {
                seen = pause;
                self.stand_still(pause);
            }
            let told = self.control.slot(self.slot, LEAVE).load(SeqCst) != 0;
            if told || self.control.head(STOP).load(SeqCst) != 0 {
                return self.leave();
            }
            self.step();
        }
    }

    fn fault(&self, what: &str) {
        eprintln!("FAULT {} life {}: {what}", ROLES[self.slot], self.life);
        self.control.head(FAULTS).fetch_add(1, SeqCst);
    }

    /// First nobody sends, then everybody takes what waits and says what it holds.
    fn stand_still(&mut self, pause: u64) {
        EXAMINED.store(true, SeqCst);
        self.control.slot(self.slot, PAUSED).store(pause, SeqCst);
        while self.control.head(DRAIN).load(SeqCst) != pause {
            if self.control.head(PAUSE).load(SeqCst) != pause {
                EXAMINED.store(false, SeqCst);
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        // Hints of dead senders are skipped after some thousands of looks.
        let mut quiet = 0;
        while quiet < 20_000 {
            quiet = if self.take_one() { 0 } else { quiet + 1 };
        }
        let mut blocks: Vec<u32> = self.held.iter().map(|block| block.id().get()).collect();
        blocks.extend(self.client.spare_blocks().iter().map(|block| block.get()));
        self.control.believe(self.slot, &blocks);
        self.control.slot(self.slot, DRAINED).store(pause, SeqCst);
        while self.control.head(PAUSE).load(SeqCst) == pause {
            std::thread::sleep(Duration::from_micros(100));
        }
        EXAMINED.store(false, SeqCst);
    }

    fn leave(mut self) {
        self.held.clear();
        while self.take_one() {}
        self.held.clear();
    }

    fn step(&mut self) {
        if self.control.slot(self.slot, REOPEN).swap(0, SeqCst) != 0 {
            self.senders = Default::default();
        }
        self.dull = true;
        match self.slot {
            FORWARDER => {
                self.receive();
                if self.random.below(4) == 0 {
                    let to = FIRST_CLASSIC + self.random.below(2) as usize;
                    self.pass_to_classic(to);
                }
                if self.held.len() > 3 || self.random.below(3) == 0 {
                    self.pass_on(CONSUMER, false);
                }
            }
            SHARER => {
                self.receive();
                if self.random.below(3) == 0 {
                    self.make();
                }
                let to = if self.random.below(2) == 0 { READER } else { CONSUMER };
                self.pass_on(to, true);
                self.let_go(6);
            }
            CONSUMER | READER => {
                if self.slot == READER && self.random.below(4) == 0 {
                    std::thread::sleep(Duration::from_millis(2)); // so that the newest wins sometimes
                }
                self.receive();
                let many = if self.random.below(64) == 0 { 5 } else { 14 };
                self.let_go(many);
            }
            _ => {
                self.make();
                let to = [FORWARDER, SHARER, CONSUMER][self.random.below(3) as usize];
                self.pass_on(to, false);
                self.let_go(8);
            }
        }
        if self.dull {
            std::thread::sleep(Duration::from_micros(50 + self.random.below(300)));
        }
    }

    fn make(&mut self) {
        if self.held.len() >= 10 {
            return;
        }
        let len = wanted(&self.control, &mut self.random);
        match self.client.alloc(len) {
            Ok(mut block) => {
                self.dull = false;
                self.serial += 1;
                let header = header(self.slot, self.life, self.serial, block.len());
                fill(&mut block, header);
                self.held.push(block.freeze());
            }
            Err(baton_client::AllocError::Exhausted { .. }) => {}
            Err(error) => self.fault(&error.to_string()),
        }
    }

    /// Waits a moment for messages: awake, then asleep.
    fn receive(&mut self) {
        let wait = Duration::from_micros(self.random.below(2500));
        match self.inbox.recv(Some(wait)) {
            Ok(Some(delivery)) => {
                self.take(delivery);
                for _ in 0..3 {
                    self.take_one();
                }
            }
            Ok(None) => {}
            Err(error) => self.fault(&error.to_string()),
        }
    }

    fn take_one(&mut self) -> bool {
        match self.inbox.try_recv() {
            Ok(Some(delivery)) => self.take(delivery),
            Ok(None) => return false,
            Err(error) => {
                self.fault(&error.to_string());
                return false;
            }
        }
        true
    }

    fn take(&mut self, Delivery { block, from }: Delivery) {
        self.dull = false;
        let control = &self.control;
        let message = check(&block);
        // Who sent it is known by the endpoint; a classic client does not know its own, but sends to members only what it
        // has made itself.
        let made_by_classic = || Some((message? >> 56) as usize).filter(|slot| *slot >= FIRST_CLASSIC);
        let sender = (FIRST_MEMBER..FIRST_CLASSIC)
            .find(|slot| control.slot(*slot, ENDPOINT).load(SeqCst) == u64::from(from.get()))
            .or_else(made_by_classic);
        let (Some(sender), Some(message)) = (sender, message) else {
            return self
                .fault(&format!("block {} from endpoint {from} is not as it was written", block.id()));
        };
        let life = control.slot(sender, LIFE).load(SeqCst);
        let cell = |word| control.pair(self.slot, sender, word);
        if cell(FROM_LIFE).load(SeqCst) != life {
            cell(GOT).store(0, SeqCst);
            cell(FROM_LIFE).store(life, SeqCst);
        }
        let got = advance(cell(GOT).load(SeqCst), message);
        control.note(self.slot, sender, 1, count(got), message);
        cell(GOT).store(got, SeqCst);
        control.slot(self.slot, RECEIVED).fetch_add(1, SeqCst);
        if self.held.len() < 40 {
            self.held.push(block);
        }
    }

    /// Looks at a block that was held for a while, and drops it.
    fn let_go(&mut self, most: usize) {
        while self.held.len() > most || (!self.held.is_empty() && self.random.below(8) == 0) {
            let i = self.random.below(self.held.len() as u64) as usize;
            let block = self.held.swap_remove(i);
            if check(&block).is_none() {
                self.fault(&format!("block {} changed while it was held", block.id()));
            }
        }
    }

    /// The way to the present life of a role; opened through the daemon when that life is new.
    fn way(&mut self, to: usize) -> Option<Sender> {
        let life = self.control.slot(to, LIFE).load(SeqCst);
        if let Some((known, sender)) = &self.senders[to]
            && *known == life
        {
            return Some(sender.clone());
        }
        // Not there yet, or the daemon is away: later.
        let sender = self.client.sender(&inbox_name(to, life)).ok()?;
        let cell = |word| self.control.pair(self.slot, to, word);
        if cell(TO_LIFE).load(SeqCst) != life {
            cell(TO_LIFE).store(0, SeqCst);
            for word in [DONE, INTENT, TAKEN_BACK] {
                cell(word).store(0, SeqCst);
            }
            cell(TO_LIFE).store(life, SeqCst);
        }
        self.senders[to] = Some((life, sender.clone()));
        Some(sender)
    }

    /// One or two blocks to a classic client, through the daemon; then a letter that tells it of them.
    fn pass_to_classic(&mut self, to: usize) {
        let count = (1 + self.random.below(2) as usize).min(self.held.len());
        let (Some((life, pid)), control) = (self.control.who(to), self.control.clone()) else { return };
        let way = Way { control: &control, from: self.slot, to };
        if count == 0 || !way.has_room() {
            return;
        }
        let blocks = self.held.split_off(self.held.len() - count);
        let messages: Vec<u64> = blocks.iter().filter_map(|block| check(block)).collect();
        if messages.len() != count {
            return self.fault("a block changed while it was held");
        }
        // Where they lie is told by the answer only: a draft names the blocks.
        let numbers: Vec<u64> = blocks.iter().map(|block| block.id().get().into()).collect();
        let state = way.begin(life, Named::Blocks, &numbers, &messages);
        match self.client.send_to_pid(pid, blocks) {
            Ok(transfer) => {
                self.dull = false;
                way.post(life, &transfer.nodes, transfer.bid, state);
                control.slot(self.slot, SENT).fetch_add(1, SeqCst);
            }
            Err(error) => {
                way.give_up();
                let fine = match &error.reason {
                    SendToPidFailure::NotFound | SendToPidFailure::Disconnected(_) => true,
                    SendToPidFailure::Refused { code, .. } => code == "busy",
                    _ => false,
                };
                if !fine {
                    self.fault(&error.reason.to_string());
                }
                self.held.extend(error.blocks);
            }
        }
    }

    fn pass_on(&mut self, to: usize, keep: bool) {
        if self.held.is_empty() {
            return;
        }
        let Some(sender) = self.way(to) else { return };
        // What is shared is often the same block, until it has no lane left: refused, and sent again a little later.
        let among = if keep && self.random.below(4) > 0 { 1 } else { self.held.len() as u64 };
        let i = self.random.below(among) as usize;
        let block = if keep { self.held[i].clone() } else { self.held.swap_remove(i) };
        let Some(message) = check(&block) else {
            return self.fault(&format!("block {} changed while it was held", block.id()));
        };
        let control = self.control.clone();
        let cell = |word| control.pair(self.slot, to, word);
        let before = cell(DONE).load(SeqCst);
        let after = advance(before, message);
        control.note(self.slot, to, 0, count(after), message);
        cell(INTENT).store(after, SeqCst);
        let sent = if to == READER {
            sender.send_newest(block).map(|sent| sent.replaced)
        } else {
            sender.send(block).map(|()| 0)
        };
        match sent {
            Ok(replaced) => {
                self.dull = false;
                cell(TAKEN_BACK).fetch_add(u64::from(replaced), SeqCst);
                cell(DONE).store(after, SeqCst);
                self.control.slot(self.slot, SENT).fetch_add(1, SeqCst);
                self.control.slot(self.slot, REPLACED).fetch_add(u64::from(replaced), SeqCst);
                assert!(count(after) > count(before));
            }
            Err(error) => {
                cell(INTENT).store(before, SeqCst);
                if !matches!(error.reason, SendFailure::Full | SendFailure::Gone | SendFailure::FanOut) {
                    self.fault(&error.reason.to_string());
                }
                if !keep {
                    self.held.push(error.block);
                }
            }
        }
    }
}
