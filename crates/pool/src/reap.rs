//! Taking back what a dead member held.
//!
//! ```text
//!   FREE ── admit ──▶ LIVE ── its connection ended, it lives ──▶ LEAVING (inbox closed)
//!    ▲                  │                                           │
//!    │                  └────────── the kernel says dead ◀──────────┘
//!    │                                     ▼
//!    └── 6 ◀── 5 wake ◀── 4 reopen ◀── 3 sweep ◀── 2 close ◀── DEAD
//! ```
//! 1. state := DEAD.
//! 2. Every inbox slot → CLOSED, still naming its block; bump that block. *From here on no sender can commit to the
//!    dead one.*
//! 3. Sweep all words: remove its lanes; index free blocks again. In an extent that was ever retired that means all its
//!    words, whatever the present class uses: see `retire`.
//! 4. incarnation+1, tail and head0 to a lap never used, slots EMPTY of that lap.
//! 5. Wake every sleeper: the dead one may owe a wake-up.
//! 6. state := FREE.
//!
//! Every step can be repeated: a reaper that is killed is run again from the top. Only who sleeps on an event descriptor
//! depends on more: it is written to by the caller, who may be killed before; so a daemon that takes over wakes all.

use crate::door::AWAKE;
use crate::extent::Use;
use crate::ids::{BlockId, EndpointId};
use crate::kill::{kill_point, mutant};
use crate::region::{STATE_DEAD, STATE_FREE, STATE_LEAVING, STATE_LIVE, Region};
use crate::send::replace;
use crate::slot::{Slot, State};
use crate::sync::{Ordering, TRIES, pause};
use crate::word::Word;

/// What a sweep found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Blocks that lost a lane, in order.
    pub blocks: Vec<BlockId>,
    /// How many of them are free now.
    pub freed: u32,
    /// Words that never stood still and could not be cleaned: some member scribbles over them.
    pub disturbed: u32,
    /// Endpoints whose receivers sleep on their eventfds: write to them. (Those on futexes are awake by now.)
    pub wake: Vec<EndpointId>,
}

impl Region {
    /// Takes back everything and makes the number free again. The caller knows from the kernel that no thread of the
    /// process runs any more.
    pub fn reap(&self, dead: EndpointId) -> Swept {
        let Some(endpoint) = self.endpoint(dead) else { return Swept::default() };
        endpoint.state().store(STATE_DEAD, Ordering::SeqCst);
        kill_point!(ReapMarked);
        self.close_slots(dead);
        let mut swept = self.sweep(dead, |word| word.without(dead), true);
        self.rebuild_summary();
        kill_point!(ReapSweptAll);
        endpoint.incarnation().fetch_add(1, Ordering::SeqCst);
        kill_point!(ReapIncarnation);
        let shift = self.geometry.inbox_shift();
        let lap = (endpoint.tail().load(Ordering::Acquire) >> shift).wrapping_add(2);
        let start = lap << shift;
        endpoint.tail().swap(start, Ordering::SeqCst); // a swap, so that it is ordered against the senders' CAS
        endpoint.head0().store(start, Ordering::SeqCst);
        kill_point!(ReapLap);
        for i in 0..self.geometry.inbox_slots() {
            self.slot(dead, i).store(Slot::empty(lap).bits(), Ordering::SeqCst);
            kill_point!(ReapReopened);
        }
        endpoint.sleeping().store(AWAKE, Ordering::SeqCst);
        endpoint.pid().store(0, Ordering::SeqCst);
        swept.wake = self.take_sleepers();
        kill_point!(ReapBeforeFree);
        endpoint.state().store(STATE_FREE, Ordering::SeqCst);
        swept
    }

    /// The owner lives but does not receive any more: close its inbox and take back the messages it never received.
    /// What it holds stays held.
    pub fn close_inbox(&self, leaving: EndpointId) -> Swept {
        let Some(endpoint) = self.endpoint(leaving) else { return Swept::default() };
        let state = endpoint.state();
        if state.compare_exchange(STATE_LIVE, STATE_LEAVING, Ordering::SeqCst, Ordering::SeqCst) == Err(STATE_FREE) {
            return Swept::default();
        }
        self.close_slots(leaving);
        let inbox = crate::word::Lane::inbox(leaving);
        let unread = |word: Word| {
            let mut word = word;
            while let Some(i) = word.find(inbox) {
                word = word.with(i, crate::word::Lane::EMPTY);
            }
            word
        };
        let mut swept = self.sweep(leaving, unread, false);
        swept.wake = self.take_sleepers();
        swept
    }

    fn close_slots(&self, id: EndpointId) {
        for i in 0..self.geometry.inbox_slots() {
            let cell = self.slot(id, i);
            let mut old = Slot::from_bits(cell.load(Ordering::Acquire));
            for _ in 0..TRIES {
                if old.state() == State::Closed || replace(cell, old, old.closed()) {
                    break;
                }
                pause();
                old = Slot::from_bits(cell.load(Ordering::Acquire));
            }
            kill_point!(ReapClosed);
            // A sender that claimed this slot but has not committed must fail its commit. Also if the slot was closed
            // already: perhaps by a reaper that was killed before it bumped.
            if let Some(place) = self.place(old.block())
                && !mutant!(NoBumpAtClose)
            {
                let cell = self.word(place);
                for _ in 0..TRIES {
                    let word = Word::load(cell);
                    if word.generation() != old.generation() || Word::swap(cell, word, word.bumped()).is_ok() {
                        break;
                    }
                    pause();
                }
            }
            kill_point!(ReapBumped);
        }
    }

    /// Applies `clean` to every word that names `id`, and indexes all free blocks if asked to.
    fn sweep(&self, id: EndpointId, clean: impl Fn(Word) -> Word, index_all: bool) -> Swept {
        let mut swept = Swept::default();
        for number in 0..self.geometry.extents() {
            let Some(extent) = self.extent(number) else { continue };
            let class = self.class_in(extent);
            // An extent that was never retired has had one class, or none.
            let first_class = extent.epoch() == 0 && extent.used() != Some(Use::Retired) || mutant!(RawNotSwept);
            let (blocks, spread) = class.map_or((0, 1), |c| (self.geometry.blocks_in_extent(c), self.geometry.spread(c)));
            let (end, step) =
                if first_class { (blocks * spread, spread) } else { (self.geometry.words_per_extent(), 1) };
            for within in (0..end).step_by(step as usize) {
                let word = Word::load(self.raw_word(number, within));
                if word.names(id) {
                    self.sweep_word(id, &clean, number, within, &mut swept);
                } else if index_all && word.is_free() && within & (spread - 1) == 0 && within / spread < blocks {
                    let block = self.geometry.block(number, within / spread);
                    if !self.is_hinted(block) && !mutant!(NoIndexRebuild) {
                        self.set_hint(block);
                    }
                }
            }
            // The dead one may have cleared hints for a class that was here before.
            if index_all && !first_class && extent.used() == Some(Use::Unbound) {
                self.hint_all(number);
            }
        }
        swept
    }

    /// Cleans one word that names `id`.
    fn sweep_word(&self, id: EndpointId, clean: &impl Fn(Word) -> Word, number: u32, within: u32, swept: &mut Swept) {
        let cell = self.raw_word(number, within);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            let rest = clean(word);
            if rest == word {
                return; // its lanes are of the kind that stays
            }
            if Word::swap(cell, word, rest).is_err() {
                pause();
                continue;
            }
            kill_point!(ReapSwept);
            // Which block lives here is looked up after the swap: a member may have bound the extent just before.
            if let Some(block) = self.block_of_word(number, within) {
                swept.blocks.push(block);
                swept.freed += u32::from(rest.is_free());
                // Without looking whether it is set: an allocator may have cleared it and given up because the dead one
                // held the word, and a mere look need not see that.
                if rest.is_free() && !mutant!(NoIndexRebuild) {
                    self.set_hint(block);
                }
            }
            return;
        }
        swept.disturbed += u32::from(Word::load(cell).names(id));
    }
}
