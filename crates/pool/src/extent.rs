//! The word of an extent: what its bytes are used for now.
//!
//! ```text
//!   63 62  61      32  31           0
//!  ┌──────┬──────────┬───────────────┐        UNBOUND ── member or daemon ──▶ BOUND(class) ── daemon ──▶ RETIRED
//!  │ state│ epoch    │ class or head │           ▲  └── daemon ──▶ FOLLOWS(head)  ── head retired ──┐      │
//!  └──────┴──────────┴───────────────┘           └───────────────── epoch+1 ────────────────────────┴──────┘
//! ```
//! A class larger than an extent takes a *run* of neighbouring extents: the first is BOUND and carries the one block,
//! the others FOLLOW it. `epoch` rises each time an extent comes back from retirement, so that nobody takes a place
//! computed before for one of now (see `retire`). Thirty bits: a process that stalls between two of its own
//! instructions for exactly 2^30 retirements of one extent could be fooled.

use crate::class::Class;

/// What an extent is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing; whoever needs it binds it.
    Unbound,
    /// Blocks of this class.
    Bound(Class),
    /// Nothing, and it is being cleaned: nobody may bind it.
    Retired,
    /// The continuation of a block that begins in the extent of this number.
    Follows(u32),
}

/// A value of an extent's word. Any bits are some value; those that mean nothing have no [`Use`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent(u64);

const STATE_AT: u32 = 62;
const EPOCH_AT: u32 = 32;
const EPOCH_MASK: u64 = (1 << 30) - 1;

impl Extent {
    /// From memory.
    pub fn from_bits(bits: u64) -> Self {
        Extent(bits)
    }

    /// As it lies in memory.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// What it says, `None` if that is nothing possible.
    #[inline]
    pub fn used(self) -> Option<Use> {
        let value = self.0 & 0xffff_ffff;
        match self.0 >> STATE_AT {
            0 => (value == 0).then_some(Use::Unbound),
            1 => Class::from_index(value).map(Use::Bound),
            2 => Some(Use::Retired),
            _ => Some(Use::Follows(value as u32)),
        }
    }

    /// How often it was retired.
    pub fn epoch(self) -> u64 {
        self.0 >> EPOCH_AT & EPOCH_MASK
    }

    /// The same extent in the same epoch, used for something else.
    pub fn with(self, used: Use) -> Self {
        let (state, value) = match used {
            Use::Unbound => (0, 0),
            Use::Bound(class) => (1, class.index() as u64),
            Use::Retired => (2, 0),
            Use::Follows(head) => (3, u64::from(head)),
        };
        Extent(state << STATE_AT | self.0 & EPOCH_MASK << EPOCH_AT | value)
    }

    /// Free again, in the next epoch.
    pub fn renewed(self) -> Self {
        let epoch = (self.epoch() + 1) & EPOCH_MASK;
        Extent(epoch << EPOCH_AT)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn use_and_epoch_do_not_touch_each_other(bits: u64, class in 0..Class::COUNT as u64, head: u32) {
            let extent = Extent::from_bits(bits);
            let class = Class::from_index(class).unwrap();
            for used in [Use::Unbound, Use::Bound(class), Use::Retired, Use::Follows(head)] {
                let next = extent.with(used);
                prop_assert_eq!((next.used(), next.epoch()), (Some(used), extent.epoch()));
                let renewed = next.renewed();
                prop_assert_eq!(renewed.used(), Some(Use::Unbound));
                prop_assert_eq!(renewed.epoch(), (extent.epoch() + 1) & EPOCH_MASK);
            }
            prop_assert_eq!(Extent::from_bits(extent.bits()), extent);
        }
    }

    #[test]
    fn fresh_memory_is_unbound() {
        assert_eq!((Extent::from_bits(0).used(), Extent::from_bits(0).epoch()), (Some(Use::Unbound), 0));
        assert_eq!(Extent::from_bits(1).used(), None);
        assert_eq!(Extent::from_bits(1 << 62 | 200).used(), None);
    }
}
