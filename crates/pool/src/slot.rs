//! One slot of an inbox: claim and content in one 64-bit word.
//!
//! ```text
//!   63 62  61 59   58    43  42    32  31    24  23     0
//!  ┌──────┬───────┬─────────┬─────────┬─────────┬────────┐
//!  │ state│ nonce │ lap     │ sender  │ gener.  │ block  │
//!  └──────┴───────┴─────────┴─────────┴─────────┴────────┘
//!   EMPTY(lap) ── sender claims ──▶ FULL(lap, A, generation, X) ── receiver takes it ──▶ EMPTY(lap+1)
//!                                     │  └─ A replaces it by a newer message: nonce+1
//!                                     ├── the receiver withdraws it ──▶ CANCEL ────────────▶ EMPTY(lap+1)
//!                                     └── A gives it up ──▶ CANCEL, nonce+1 ◀── A ──┘ └──────▶ EMPTY(lap+1)
//!   any ── reaper ──▶ CLOSED (still naming its block) ──▶ EMPTY(a lap never used)
//! ```
//! `lap` counts how often the ring went round (16 bits); `nonce` keeps a slot that was replaced eight times from
//! looking untouched; `generation` is the low 8 bits of the block's.

use crate::ids::{BlockId, EndpointId};

/// What a slot says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Free for a sender in this lap.
    Empty,
    /// Names a message (which counts only once its block's word says so).
    Full,
    /// Withdrawn.
    Cancel,
    /// The inbox is closed.
    Closed,
}

/// A value of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u64);

const NO_BLOCK: u64 = 0xff_ffff;

impl Slot {
    /// From memory; any bits are some slot.
    pub fn from_bits(bits: u64) -> Self {
        Slot(bits)
    }

    /// As it lies in memory.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Free in lap `lap` (its low 16 bits count).
    pub fn empty(lap: u64) -> Self {
        Slot((lap & 0xffff) << 43 | NO_BLOCK)
    }

    /// A message.
    pub fn full(lap: u64, nonce: u64, sender: EndpointId, generation: u8, block: BlockId) -> Self {
        Slot(
            1 << 62
                | (nonce & 7) << 59
                | (lap & 0xffff) << 43
                | u64::from(sender.get()) << 32
                | u64::from(generation) << 24
                | u64::from(block.get()),
        )
    }

    /// See [`State`].
    pub fn state(self) -> State {
        match self.0 >> 62 {
            0 => State::Empty,
            1 => State::Full,
            2 => State::Cancel,
            _ => State::Closed,
        }
    }

    /// Still naming its block, but withdrawn.
    pub fn cancelled(self) -> Self {
        Slot(self.0 & !(3 << 62) | 2 << 62)
    }

    /// What the sender makes of a withdrawn slot, so that the receiver does not accept anything for it any more.
    pub fn given_up(self) -> Self {
        Slot(self.0 & !(7 << 59) | ((self.nonce() + 1) & 7) << 59)
    }

    /// Still naming its block, but closed.
    pub fn closed(self) -> Self {
        Slot(self.0 | 3 << 62)
    }

    /// Lap, 16 bits.
    pub fn lap(self) -> u64 {
        self.0 >> 43 & 0xffff
    }

    /// How often it was replaced in place, modulo 8.
    pub fn nonce(self) -> u64 {
        self.0 >> 59 & 7
    }

    /// Who claimed it; `None` if empty or garbage.
    pub fn sender(self) -> Option<EndpointId> {
        EndpointId::new((self.0 >> 32 & 0x7ff) as u16)
    }

    /// Low 8 bits of the block's generation.
    pub fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The block it names; may not exist.
    pub fn block(self) -> BlockId {
        BlockId::new((self.0 & NO_BLOCK) as u32)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_do_not_touch_each_other(lap: u64, nonce: u64, sender in 1u16..2048, generation: u8, block in 0u32..1 << 24) {
            let sender = EndpointId::new(sender).unwrap();
            let s = Slot::full(lap, nonce, sender, generation, BlockId::new(block));
            for (s, state) in [(s, State::Full), (s.cancelled(), State::Cancel), (s.closed(), State::Closed)] {
                prop_assert_eq!(s.state(), state);
                prop_assert_eq!((s.lap(), s.nonce()), (lap & 0xffff, nonce & 7));
                prop_assert_eq!((s.sender(), s.generation(), s.block().get()), (Some(sender), generation, block));
            }
            prop_assert_eq!(s.cancelled().closed().state(), State::Closed);
            let given_up = s.cancelled().given_up();
            prop_assert_eq!((given_up.state(), given_up.nonce()), (State::Cancel, ((nonce & 7) + 1) & 7));
            prop_assert_eq!((given_up.lap(), given_up.block(), given_up.sender()), (s.lap(), s.block(), s.sender()));
            prop_assert_eq!((Slot::empty(lap).lap(), Slot::empty(lap).state()), (lap & 0xffff, State::Empty));
            prop_assert_eq!(Slot::empty(lap).sender(), None);
        }
    }
}
