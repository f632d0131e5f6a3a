//! Pids as classic clients say them.

use std::net::IpAddr;

use baton_wire::classic::PID_MAX;

/// A possible process id: 1 to 2²². Says nothing about whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pid(i32);

impl Pid {
    /// `None` unless such a process is possible.
    pub(crate) fn new(claim: i32) -> Option<Self> {
        (1..=PID_MAX).contains(&claim).then_some(Self(claim))
    }

    /// The number as the kernel's and the pool's interfaces have it.
    pub(crate) fn get(self) -> u32 {
        self.0.unsigned_abs()
    }
}

impl TryFrom<u32> for Pid {
    type Error = u32;

    fn try_from(pid: u32) -> Result<Self, u32> {
        i32::try_from(pid).ok().and_then(Self::new).ok_or(pid)
    }
}

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a pid is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The kernel vouches for it (SO_PEERCRED).
    Kernel {
        /// Its user.
        uid: u32,
    },
    /// The client says so, over TCP: an address for transfers and nothing else.
    Claim {
        /// Where it is: the one thing that the kernel knows about it.
        at: IpAddr,
    },
}
