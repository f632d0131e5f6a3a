//! The exact audit: the daemon's books, the hold words themselves, and what every member believes, compared.
//!
//! The auditor attaches by the protocol like everybody, then reads the pool's metadata itself: it needs neither the
//! daemon nor the SDK to see who holds a block.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use baton_pool::{BlockId, EndpointId, EndpointInfo, EndpointRef, Pool, Proxy};
use baton_wire::attach::Access;

use crate::control::{
    Control, DONE, ENDPOINT, FAULTS, FIRST_CLASSIC, FIRST_MEMBER, FROM_LIFE, GOT, INTENT, LIFE, PID, READER,
    ROLES, SHARER, SLOTS, TAKEN_BACK, TO_LIFE, TRAIL_LEN, count,
};
use crate::letters::{Named, Way};

/// A block on its way to a classic client that will never learn of it, because the sender was killed too early.
struct Stranded {
    slot: usize,
    life: u64,
    block: u32,
    /// It was seen to be on its way; else the sender may have died before it was.
    sure: bool,
}

pub struct Auditor {
    pub pool: Pool,
    /// For the places of blocks only.
    places: Proxy,
    stranded: Vec<Stranded>,
    _connection: UnixStream,
}

impl Auditor {
    pub fn attach(socket: &Path) -> std::io::Result<Self> {
        let raw = baton_tests::raw::attach(socket, "auditor", Access::ReadOnly)?;
        let pool = Pool::open(&raw.metadata, &raw.payload).map_err(std::io::Error::other)?;
        let (number, incarnation) = (raw.attached.endpoint, raw.attached.incarnation);
        let id = EndpointId::new(number).ok_or_else(|| std::io::Error::other("an endpoint 0"))?;
        let places = pool.proxy(EndpointRef { id, incarnation }).map_err(std::io::Error::other)?;
        Ok(Self { pool, places, stranded: Vec::new(), _connection: raw.connection })
    }

    /// Whether the pool knows an endpoint of that process.
    pub fn knows(&self, pid: u32) -> Option<EndpointInfo> {
        self.pool.endpoints().into_iter().find(|info| info.pid == pid)
    }

    /// Compares everything; nobody works meanwhile. `alive` says which slots have a living, drained process.
    pub fn examine(&mut self, control: &Control, alive: &[bool; SLOTS]) -> Vec<String> {
        let mut wrong = Vec::new();
        let report = self.pool.audit_once();
        wrong.extend(report.findings.iter().map(|finding| format!("books: {finding}")));
        let faults = control.head(FAULTS).load(SeqCst);
        if faults > 0 {
            wrong.push(format!("{faults} faults told by members, see the log"));
        }
        self.drafts(control, alive, &mut wrong);
        self.blocks(control, alive, &mut wrong);
        for sender in FIRST_MEMBER..SLOTS {
            for receiver in (FIRST_MEMBER..SLOTS).filter(|receiver| alive[*receiver]) {
                wrong.extend(messages(control, sender, alive[sender], receiver));
            }
        }
        wrong
    }

    /// What dead senders had begun to send to living classic clients.
    fn drafts(&mut self, control: &Control, alive: &[bool; SLOTS], wrong: &mut Vec<String>) {
        let life_of = |slot: usize| control.slot(slot, LIFE).load(SeqCst);
        self.stranded.retain(|s| alive[s.slot] && life_of(s.slot) == s.life);
        for from in FIRST_MEMBER..SLOTS {
            for to in FIRST_CLASSIC..SLOTS {
                let Some(draft) = (Way { control, from, to }).take_draft() else { continue };
                if alive[from] {
                    wrong.push(format!("{} has a draft while it stands still", ROLES[from]));
                }
                if !alive[to] || life_of(to) != draft.life {
                    continue;
                }
                for number in draft.numbers {
                    let block = match draft.named {
                        Named::Blocks => Some(number as u32),
                        Named::Nodes => self.places.block_at(number).map(BlockId::get),
                    };
                    let strand = |block| Stranded { slot: to, life: draft.life, block, sure: false };
                    self.stranded.extend(block.map(strand));
                }
            }
        }
    }

    /// Each lane of each block belongs to a member that believes in it, and the other way round. A classic client has one
    /// lane in a block however many references it holds; its words are kept by the daemon.
    fn blocks(&mut self, control: &Control, alive: &[bool; SLOTS], wrong: &mut Vec<String>) {
        let mut believed: BTreeMap<(u32, u16), i64> = BTreeMap::new();
        for slot in (FIRST_MEMBER..FIRST_CLASSIC).filter(|slot| alive[*slot]) {
            let endpoint = control.slot(slot, ENDPOINT).load(SeqCst) as u16;
            for block in control.beliefs(slot) {
                *believed.entry((block, endpoint)).or_default() += 1;
            }
        }
        let mut classic = BTreeMap::new();
        for slot in (FIRST_CLASSIC..SLOTS).filter(|slot| alive[*slot]) {
            let pid = control.slot(slot, PID).load(SeqCst) as u32;
            let Some(info) = self.knows(pid) else {
                wrong.push(format!("the pool does not know {}, pid {pid}", ROLES[slot]));
                continue;
            };
            let endpoint = info.endpoint.id.get();
            classic.insert(endpoint, slot);
            for node in control.beliefs(slot) {
                match self.places.block_at(node.into()) {
                    Some(block) => *believed.entry((block.get(), endpoint)).or_default() += 1,
                    None => wrong.push(format!("{} holds {node}, where no block begins", ROLES[slot])),
                }
            }
        }
        let geometry = self.pool.geometry();
        for block in 0..geometry.extents() * geometry.words_per_extent() {
            for (holder, unread) in self.pool.holders(BlockId::new(block)) {
                if unread {
                    wrong.push(format!("block {block}: unread by {holder}, which has read everything"));
                } else {
                    *believed.entry((block, holder.get())).or_default() -= 1;
                }
            }
        }
        for stranded in &mut self.stranded {
            let Some((endpoint, _)) = classic.iter().find(|(_, slot)| **slot == stranded.slot) else {
                continue;
            };
            let difference = believed.entry((stranded.block, *endpoint)).or_default();
            match *difference {
                // On its way, and nothing else. (Two stranded ways of one block are one lane.)
                -1 => {
                    stranded.sure = true;
                    *difference = 0;
                }
                0 if stranded.sure && !holds(&self.pool, stranded.block, *endpoint) => *difference = 1,
                _ => {}
            }
        }
        for ((block, endpoint), difference) in believed.into_iter().filter(|(_, difference)| *difference != 0)
        {
            wrong.push(format!(
                "block {block}: endpoint {endpoint} believes {difference:+} lanes more than there are; {}",
                self.story(control, block, endpoint)
            ));
        }
    }

    /// What can be known of a block and of who is wrong about it.
    fn story(&self, control: &Control, block: u32, endpoint: u16) -> String {
        let infos = self.pool.endpoints();
        let who = infos.iter().find(|info| info.endpoint.id.get() == endpoint);
        let who = who.map(|info| (info.kind, info.pid, info.name.as_str()));
        let role = who.and_then(|(_, pid, _)| {
            let plays = |slot: &usize| control.slot(*slot, PID).load(SeqCst) == u64::from(pid);
            (FIRST_MEMBER..SLOTS).find(plays).map(|slot| ROLES[slot])
        });
        let block = BlockId::new(block);
        let view = self.pool.look(block).map(|view| (view.generation, view.class_bytes, view.holders));
        let bytes = self.pool.copy_of(block).unwrap_or_default();
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .take(4)
            .filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)))
            .collect();
        format!("that is {role:?} {who:?}; the block: {view:?}, its first words {words:x?}")
    }
}

fn holds(pool: &Pool, block: u32, endpoint: u16) -> bool {
    pool.holders(BlockId::new(block)).iter().any(|(holder, _)| holder.get() == endpoint)
}

/// What one sender says to have sent to one receiver, against what that one has got.
fn messages(control: &Control, sender: usize, alive: bool, receiver: usize) -> Option<String> {
    let sent = |word| control.pair(sender, receiver, word).load(SeqCst);
    let got = |word| control.pair(receiver, sender, word).load(SeqCst);
    let addressed = sent(TO_LIFE) == control.slot(receiver, LIFE).load(SeqCst);
    let from_this = got(FROM_LIFE) == control.slot(sender, LIFE).load(SeqCst);
    let (done, intent) = if addressed { (sent(DONE), sent(INTENT)) } else { (0, 0) };
    let taken_back = if addressed { sent(TAKEN_BACK) } else { 0 };
    let got = if from_this { got(GOT) } else { 0 };
    let fine = if (sender, receiver) == (SHARER, READER) {
        // The newest wins: which ones were taken back is not known here, how many is.
        if alive { count(got) == count(done) - taken_back } else { count(got) <= count(intent) }
    } else if alive {
        got == done
    } else {
        got == done || got == intent
    };
    (!fine).then(|| {
        format!(
            "{} → {}: sent {:#x} (perhaps {:#x}), {taken_back} taken back, received {:#x}; {}",
            ROLES[sender],
            ROLES[receiver],
            done,
            intent,
            got,
            difference(control, sender, receiver, count(intent), count(got))
        )
    })
}

/// The part in which what was sent last differs from what was received last.
fn difference(control: &Control, sender: usize, receiver: usize, sent: u64, got: u64) -> String {
    let last = sent.max(got);
    let differing: Vec<u64> = (last.saturating_sub(TRAIL_LEN as u64 - 1).max(1)..=last)
        .filter(|n| control.noted(sender, receiver, 0, *n) != control.noted(receiver, sender, 1, *n))
        .collect();
    let (Some(first), Some(end)) = (differing.first(), differing.last()) else {
        return "the same messages as far as they were noted".into();
    };
    let list = |slot, other, way, count: u64| -> Vec<String> {
        let range = (first.saturating_sub(2)).max(1)..=(end + 2).min(count);
        let message = range.map(|n| control.noted(slot, other, way, n)).map(|message| {
            let made_by = ROLES.get((message >> 56) as usize).copied().unwrap_or("nobody");
            format!("{made_by}.{} #{}", message & 0xff_ffff, message >> 24 & 0xffff_ffff)
        });
        message.take(24).collect()
    };
    format!(
        "from the {first}th to the {end}th: sent {:?}, received {:?}",
        list(sender, receiver, 0, sent),
        list(receiver, sender, 1, got)
    )
}
