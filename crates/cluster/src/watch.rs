//! What the master waits for: descriptors that become ready (one epoll set), and moments (one heap).
//!
//! A wake-up costs what happened, not how many workers there are: the kernel names the descriptors, and a timer names its
//! place. A timer is a reason to look at a place and nothing more; what has to be done is decided by the place's state, so
//! a timer that has become pointless needs no removal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The handle has an order.
    Wake,
    /// A listener has connections.
    Door(usize),
    /// A worker has said something, or closed its end.
    Channel(usize),
    /// A worker has ended.
    Death(usize),
}

/// Taken from the kernel in one turn; what is left comes in the next.
const EVENTS: usize = 256;
const INDEX_BITS: u32 = 56;

impl Ready {
    fn token(self) -> u64 {
        let (kind, index) = match self {
            Ready::Wake => (0, 0),
            Ready::Door(index) => (1, index),
            Ready::Channel(index) => (2, index),
            Ready::Death(index) => (3, index),
        };
        kind << INDEX_BITS | index as u64
    }

    fn of(token: u64) -> Ready {
        let index = usize::try_from(token & ((1 << INDEX_BITS) - 1)).unwrap_or(usize::MAX);
        match token >> INDEX_BITS {
            1 => Ready::Door(index),
            2 => Ready::Channel(index),
            3 => Ready::Death(index),
            _ => Ready::Wake,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Watch {
    epoll: OwnedFd,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Watch {
    pub fn new() -> io::Result<Watch> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Watch { epoll, timers: BinaryHeap::new() })
    }

    pub fn add(&self, fd: impl AsFd, what: Ready) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(what.token()), epoll::EventFlags::IN)?)
    }

    /// Before the descriptor is closed: a child that is just being started may hold a copy of it.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Asks for a look at a place.
    pub fn look_at(&mut self, slot: usize, at: Instant) {
        self.timers.push(Reverse((at, slot)));
    }

    /// The next place to look at.
    pub fn due(&mut self, now: Instant) -> Option<usize> {
        let Reverse((at, _)) = self.timers.peek()?;
        if *at > now {
            return None;
        }
        self.timers.pop().map(|Reverse((_, slot))| slot)
    }

    /// Waits until something is ready, the first timer, or `also`.
    pub fn wait(&mut self, also: Option<Instant>, ready: &mut Vec<Ready>) {
        let first = self.timers.peek().map(|Reverse((at, _))| *at);
        let timeout = first.into_iter().chain(also).min().map(|at| {
            // A millisecond is the kernel's step here; a wait that ends early would come round for nothing.
            let left = at.saturating_duration_since(Instant::now());
            let left = if left.is_zero() { left } else { left + Duration::from_millis(1) };
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX).min(3600),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        ready.clear();
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => ready.extend(events.iter().map(|event| Ready::of(event.data.u64()))),
            // An interrupted wait only means looking again.
            Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_descriptors_and_due_places_are_named() {
        for what in [Ready::Wake, Ready::Door(3), Ready::Channel(70_000), Ready::Death(0)] {
            assert_eq!(Ready::of(what.token()), what);
        }
        let mut watch = Watch::new().unwrap();
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        watch.add(&one, Ready::Channel(5)).unwrap();
        let now = Instant::now();
        watch.look_at(9, now + Duration::from_secs(1000));
        watch.look_at(2, now);
        let mut ready = Vec::new();
        watch.wait(None, &mut ready);
        assert_eq!(ready, []);
        assert_eq!((watch.due(now), watch.due(now)), (Some(2), None));
        std::io::Write::write_all(&mut &other, b"x").unwrap();
        watch.wait(None, &mut ready);
        assert_eq!(ready, [Ready::Channel(5)]);
        watch.remove(&one);
        watch.wait(Some(now), &mut ready);
        assert_eq!(ready, []);
    }
}
