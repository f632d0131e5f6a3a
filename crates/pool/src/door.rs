//! Where processes sleep and how they are woken: one counter or flag each, and never a system call for nobody.
//!
//! | door | who sleeps there | who knocks |
//! |---|---|---|
//! | `sleeping` of an endpoint: 0 awake, 1 asleep on the futex of this very cell, 2 asleep on its event descriptor, 3 somebody is about to wake it | the receiver, who takes it back to 0 when it is up | a sender that has committed a message sets 3 and wakes |
//! | `room` of an endpoint, a counter | senders to a full inbox, announced by `room_waiters` | the receiver, after it emptied a slot |
//! | `freed` of the pool, a counter | members that found no free block, announced by `freed_waiters` | whoever freed a block |
//!
//! Each side writes first and looks afterwards, in sequentially consistent order, so at least one of them sees the
//! other: the sleeper announces itself and looks once more for what it waits for; the other provides it and then looks
//! for sleepers. Who dies between providing and waking owes a wake-up; the reaper knocks at every door. That is why a sender
//! leaves a 3 behind, and no 0: of a receiver that looks awake nobody could tell that the dead one owed it something.

use crate::ids::EndpointId;
use crate::kill::{kill_point, mutant};
use crate::region::{Endpoint, Region};
use crate::sync::{AtomicU32, Ordering, futex_wake};

/// Value of `sleeping`: nobody sleeps.
pub const AWAKE: u32 = 0;
/// Value of `sleeping`: wait(2) on the cell itself.
pub const ON_FUTEX: u32 = 1;
/// Value of `sleeping`: the event descriptor of the inbox is polled.
pub const ON_EVENT: u32 = 2;
/// Value of `sleeping`: a sender, or the reaper, is about to wake the receiver, who has not come up yet.
pub const WAKING: u32 = 3;

impl Region {
    /// After a message was committed: wakes the receiver if it sleeps on its futex, and says whether its event
    /// descriptor must be written to. Only one sender of several finds it asleep.
    pub(crate) fn take_sleeping(receiver: Endpoint<'_>) -> bool {
        let sleeping = receiver.sleeping();
        // The hint's compare-and-swap and this load are sequentially consistent, as are the receiver's store and load.
        // The model checker knows that order only for fences.
        #[cfg(loom)]
        loom::sync::atomic::fence(Ordering::SeqCst);
        let found = sleeping.load(Ordering::SeqCst);
        if found == AWAKE || found == WAKING {
            return false;
        }
        // Where this fails another sender was faster, or the receiver has come up; if it announced itself anew, it has
        // looked for messages after that.
        let left = if mutant!(WakeForgotten) { AWAKE } else { WAKING };
        if sleeping.compare_exchange(found, left, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return false;
        }
        kill_point!(BeforeWake);
        if found == ON_FUTEX {
            #[cfg(not(loom))]
            crate::wakeup::tell(receiver);
            futex_wake(sleeping, 1);
        }
        found != ON_FUTEX // an unknown value is garbage: the descriptor cannot do harm
    }

    /// Wakes the receiver of an endpoint also if somebody else was about to; says whether its event descriptor must be
    /// written to.
    fn wake_anyway(receiver: Endpoint<'_>) -> bool {
        let sleeping = receiver.sleeping();
        #[cfg(loom)] // as above
        loom::sync::atomic::fence(Ordering::SeqCst);
        let found = sleeping.load(Ordering::SeqCst);
        if found == AWAKE {
            return false;
        }
        let _ = sleeping.compare_exchange(found, WAKING, Ordering::SeqCst, Ordering::SeqCst); // or it is up by itself
        futex_wake(sleeping, 1);
        found != ON_FUTEX
    }

    /// A slot of this inbox was emptied.
    #[inline]
    pub(crate) fn announce_room(receiver: Endpoint<'_>) {
        raise_for(receiver.room(), receiver.room_waiters());
    }

    /// A block became free.
    #[inline]
    pub(crate) fn announce_freed(&self) {
        raise_for(self.freed(), self.freed_waiters());
    }

    /// Knocks at every door: the dead may owe a wake-up. Returns those that sleep on their event descriptors.
    pub fn take_sleepers(&self) -> Vec<EndpointId> {
        knock(self.freed());
        let asleep = |id: &EndpointId| {
            self.endpoint(*id).is_some_and(|endpoint| {
                knock(endpoint.room());
                Self::wake_anyway(endpoint)
            })
        };
        self.ids().filter(asleep).collect()
    }
}

/// Raises a counter if somebody waits for that, see `waiting`.
#[inline]
fn raise_for(counter: &AtomicU32, waiters: &AtomicU32) {
    #[cfg(loom)] // the model checker knows the order of what was provided and this load only for fences
    loom::sync::atomic::fence(Ordering::SeqCst);
    if waiters.load(Ordering::SeqCst) != 0 {
        waiters.store(0, Ordering::SeqCst);
        knock(counter);
    }
}

#[cold]
fn knock(counter: &AtomicU32) {
    counter.fetch_add(1, Ordering::SeqCst);
    kill_point!(BeforeKnock);
    futex_wake(counter, u32::MAX >> 1);
}
