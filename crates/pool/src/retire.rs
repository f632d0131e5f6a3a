//! Extents change hands: an extent that holds nothing is taken from its size and given to another, by the daemon.
//!
//! ```text
//!   BOUND(class) ── 1 claim every block ── 2 CAS ──▶ RETIRED ── 3 let go, 4 index all ── 5 CAS ──▶ UNBOUND, epoch+1
//!        ▲            └─ one is held: give all back, leave it                                        │
//!        └───────────────────────────── anybody binds (one CAS) ────────────────────────────────────┘
//!
//!   a run:   followers UNBOUND ──▶ FOLLOWS(head), then the head UNBOUND ──▶ BOUND(large class)   ◀ commit
//!            head RETIRED, then followers ──▶ UNBOUND, epoch+1, then the head
//! ```
//! There is one daemon, so nobody else retires or binds runs; members bind single extents, and work in all others.
//! The daemon is an ordinary holder (of an endpoint of its own), so a claimed block is safe from everybody.
//!
//! **A member that stalls.** Between computing where a block's word lies and its compare-and-swap, a member may sleep
//! through a retirement; then it swaps a word that belongs to something else now. It notices, because it compares the
//! extent's word with what it was *after* each successful swap (acquire: whoever gets a word after step 3 also sees
//! step 2):
//! * a claim is given back, and the block that lives at that word now is indexed again ([`Region::give_back_stray`]);
//! * an acceptance was of a real message to this receiver: the block that lives there now is delivered (`receive`);
//! * cleared hints are set again (`blocks`).
//!
//! Killed in between, its lane stays in a word that the extent's present class may not use. So the reaper looks at all
//! words of an extent that was ever retired.
//!
//! **The daemon killed**: before 2, its claims are swept like any holder's. After 2, or within a run, the next daemon
//! finishes ([`Region::repair`]). Every step can be repeated.

use crate::blocks::HoldError;
use crate::class::Class;
use crate::extent::Use;
use crate::ids::{BlockId, EndpointId};
use crate::kill::{kill_point, mutant};
use crate::region::{Place, Region};
use crate::sync::{Ordering, TRIES, pause};
use crate::word::{Lane, Word};

impl Region {
    /// Whether the extent is still used as it was when the place was computed.
    #[inline]
    pub(crate) fn is_still(&self, place: Place) -> bool {
        self.extent(place.number) == Some(place.extent) || mutant!(NoCellCheck)
    }

    /// Lets go of a word that was claimed for a block which is no more, and indexes the block that lives there now.
    pub(crate) fn give_back_stray(&self, me: EndpointId, place: Place) {
        let _ = self.drop_stray(Lane::holder(me), place); // refused only if somebody scribbles
    }

    /// Removes one lane from a word, whatever block it belongs to now.
    pub(crate) fn drop_stray(&self, lane: Lane, place: Place) -> Result<(), HoldError> {
        let cell = self.word(place);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            let i = word.find(lane).ok_or(HoldError::NotHolder)?;
            let rest = word.with(i, Lane::EMPTY);
            kill_point!(BeforeStray);
            if Word::swap(cell, word, rest).is_ok() {
                if rest.is_free() {
                    kill_point!(AfterStray);
                    if let Some(block) = self.block_now(place) {
                        self.set_hint(block);
                        self.announce_freed();
                    }
                }
                return Ok(());
            }
            pause();
        }
        Err(HoldError::Disturbed)
    }

    /// The block that the word of this place belongs to now.
    pub(crate) fn block_now(&self, place: Place) -> Option<BlockId> {
        self.block_of_word(place.number, place.word_within(self))
    }

    /// The block that lives at the `within`-th word of an extent now.
    pub(crate) fn block_of_word(&self, number: u32, within: u32) -> Option<BlockId> {
        let index = self.geometry.index_of_word(within, self.class_of(number)?)?;
        Some(self.geometry.block(number, index))
    }

    /// Whether nobody holds a block of this extent (it may be unbound). A look, no promise.
    pub fn is_empty(&self, number: u32) -> bool {
        self.blocks_of(number).all(|place| Word::load(self.word(place)).is_free())
    }

    /// Steps 1 to 5: takes an extent (or a whole run, by its head) from its class. False if somebody holds a block of
    /// it; then nothing has changed.
    pub fn retire(&self, daemon: EndpointId, number: u32) -> bool {
        let Some(extent) = self.extent(number) else { return false };
        if !matches!(extent.used(), Some(Use::Bound(_))) || !self.is_empty(number) {
            return false;
        }
        let mut claimed = Vec::new();
        let all = self.blocks_of(number).all(|place| {
            let ours = self.claim(daemon, place);
            if ours {
                claimed.push(place);
            }
            kill_point!(RetireClaimed);
            ours
        });
        if !all {
            for place in claimed {
                self.give_back_stray(daemon, place);
            }
            return false;
        }
        if mutant!(RetiredSkipped) {
            claimed.into_iter().for_each(|place| self.give_back_stray(daemon, place));
            return self.swap_extent(number, extent, extent.renewed());
        }
        // Only the daemon changes the word of a bound extent; this fails only if somebody scribbles.
        let retired = self.swap_extent(number, extent, extent.with(Use::Retired));
        kill_point!(RetireMarked);
        if retired {
            self.finish(daemon, number);
        } else {
            claimed.into_iter().for_each(|place| self.give_back_stray(daemon, place));
        }
        retired
    }

    /// Steps 3 to 5, for an extent that is marked as retired.
    fn finish(&self, daemon: EndpointId, number: u32) {
        self.free_followers(number);
        for within in 0..self.geometry.words_per_extent() {
            let cell = self.raw_word(number, within);
            for _ in 0..TRIES {
                let word = Word::load(cell);
                let rest = word.without(daemon);
                if rest == word || Word::swap(cell, word, rest).is_ok() {
                    break;
                }
                pause();
            }
            kill_point!(RetireLetGo);
        }
        self.hint_all(number);
        kill_point!(RetireIndexed);
        if let Some(extent) = self.extent(number)
            && extent.used() == Some(Use::Retired)
        {
            self.swap_extent(number, extent, extent.renewed());
        }
        kill_point!(RetireDone);
        self.announce_freed();
    }

    /// Frees the extents that follow a head which has no (such) block any more.
    fn free_followers(&self, head: u32) {
        for number in head.saturating_add(1)..self.geometry.extents() {
            match self.extent(number) {
                Some(extent) if extent.used() == Some(Use::Follows(head)) => {
                    self.hint_all(number);
                    self.swap_extent(number, extent, extent.renewed());
                    kill_point!(RunFollowerFreed);
                }
                _ => break,
            }
        }
    }

    /// Binds the run that begins at `head` to a class larger than an extent. False if one of its extents is not
    /// unbound; then nothing has changed.
    pub fn bind_run(&self, head: u32, class: Class) -> bool {
        let span = self.geometry.span(class);
        if head.checked_add(span).is_none_or(|end| end > self.geometry.extents()) || class > self.geometry.largest_class()
        {
            return false;
        }
        for number in head + 1..head + span {
            let Some(extent) = self.extent(number) else { return false };
            let follows = extent.with(Use::Follows(head));
            if extent.used() != Some(Use::Unbound) || !self.swap_extent(number, extent, follows) {
                self.free_followers(head);
                return false;
            }
            kill_point!(RunFollowerBound);
        }
        kill_point!(RunBeforeHead);
        if self.bind(head, class) {
            self.announce_freed();
            return true;
        }
        self.free_followers(head);
        false
    }

    /// Finishes what a killed daemon began: retired extents become unbound, followers without a head too. For the next
    /// daemon, before it serves. Returns how many extents were mended.
    pub fn repair(&self, daemon: EndpointId) -> u32 {
        let mut mended = 0;
        for number in 0..self.geometry.extents() {
            let Some(extent) = self.extent(number) else { continue };
            match extent.used() {
                Some(Use::Retired) => {
                    self.finish(daemon, number);
                    mended += 1;
                }
                Some(Use::Follows(head)) if !self.leads(head, number) => {
                    self.hint_all(number);
                    mended += u32::from(self.swap_extent(number, extent, extent.renewed()));
                }
                _ => {}
            }
        }
        mended
    }

    /// Whether an extent is halfway between two uses: nobody's work if no daemon is at it.
    pub fn is_unfinished(&self, number: u32) -> bool {
        match self.extent(number).and_then(crate::extent::Extent::used) {
            Some(Use::Retired) => true,
            Some(Use::Follows(head)) => !self.leads(head, number),
            _ => false,
        }
    }

    /// Whether the block of `head` reaches into the extent `number`.
    pub fn leads(&self, head: u32, number: u32) -> bool {
        let span = self.class_of(head).map_or(0, |class| self.geometry.span(class));
        head < number && number - head < span
    }

    /// Indexes everything that an extent could have, as when it was new.
    pub(crate) fn hint_all(&self, number: u32) {
        let (leaves, summaries) = (self.geometry.leaves_per_extent(), self.geometry.summaries_per_extent());
        for leaf in 0..leaves {
            self.leaves[(number * leaves + leaf) as usize].fetch_or(!0, Ordering::AcqRel);
        }
        for summary in 0..summaries {
            self.summaries[(number * summaries + summary) as usize].fetch_or(!0, Ordering::AcqRel);
        }
    }
}
