//! The receiving end of an endpoint's inbox.
//!
//! Sleeping without losing a wake-up:
//!
//! ```text
//!   receiver                                sender
//!   sleeping := 1                           publish and commit the message
//!   look once more ── found ─▶ awake        sleeping 1 or 2 ? set 3, wake or write
//!   wait (futex, eventfd)
//!   sleeping := 0
//! ```
//! Both sides use sequentially consistent steps, so at least one of them sees the other.

use crate::door::{AWAKE, ON_EVENT, ON_FUTEX};
use crate::handles::{Block, Hold};
use crate::ids::EndpointId;
use crate::member::Member;
use crate::receive::{Head, RecvError};
use crate::region::Count;
use crate::sync::Ordering;
use crate::waiting::sleep_while;
use crate::wakeup::{Asleep, Woken};
use std::sync::Arc;
use std::sync::atomic::fence;
use std::time::Duration;

/// A received message.
#[derive(Debug)]
pub struct Delivery {
    /// The block; this process holds it now. Its bytes are as trustworthy as the sender.
    pub block: Block,
    /// Who sent it, as written by the sender: a claim.
    pub from: EndpointId,
}

/// Receives; one per endpoint, used by one thread at a time.
#[derive(Debug)]
pub struct Receiver {
    member: Member,
    head: Head,
    /// By the last message that ended a sleep.
    woken: Option<Woken>,
}

impl Receiver {
    pub(crate) fn new(member: Member, head: Head) -> Self {
        Self { member, head, woken: None }
    }

    /// The endpoint that this inbox belongs to.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The next message, if there is one. No system call.
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn try_recv(&mut self) -> Result<Option<Delivery>, RecvError> {
        loop {
            let Some((block, from)) = self.member.inner.shared.region.receive(&mut self.head)? else {
                return Ok(None);
            };
            // Both are always there unless the metadata was scribbled over; then the block is given back.
            let inner = &self.member.inner;
            let place = self.head.place.filter(|place| place.block == block);
            let place = place.or_else(|| inner.shared.region.place(block));
            let Some(hold) = Hold::at(inner, block, place, self.head.alone) else { continue };
            inner.came_to_hand(&hold);
            let block = Block::from_hold(hold);
            let Some(from) = from else { continue };
            inner.count(Count::Received);
            return Ok(Some(Delivery { block, from }));
        }
    }

    /// Announces that this receiver goes to sleep, and looks once more. `None`: now wait until the inbox's eventfd is
    /// readable, then call [`Receiver::woken`]. A wake-up may be spurious.
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn prepare_sleep(&mut self) -> Result<Option<Delivery>, RecvError> {
        self.set_sleeping(ON_EVENT);
        fence(Ordering::SeqCst);
        let found = self.try_recv();
        if !matches!(found, Ok(None)) {
            self.set_sleeping(AWAKE);
        }
        found
    }

    /// Sleeps until a message comes, for `timeout` at most (`None`: for ever). Comes back without one also if it was woken
    /// for another reason. For threads: the sleep is on a futex; an event loop uses [`Receiver::prepare_sleep`].
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn sleep(&mut self, timeout: Option<Duration>) -> Result<Option<Delivery>, RecvError> {
        self.woken = None;
        let shared = Arc::clone(&self.member.inner.shared);
        let Some(record) = shared.region.endpoint(self.member.inner.me.id) else { return self.try_recv() };
        let asleep = Asleep::begin(record);
        self.set_sleeping(ON_FUTEX);
        fence(Ordering::SeqCst);
        let found = self.try_recv();
        if !matches!(found, Ok(None)) {
            self.set_sleeping(AWAKE);
            return found;
        }
        sleep_while(record.sleeping(), ON_FUTEX, timeout);
        self.set_sleeping(AWAKE);
        self.woken = asleep.end(record);
        self.try_recv()
    }

    /// After [`Receiver::sleep`], before which the caller has looked for messages for so long: after how long the message
    /// that ended the sleep would have come to one who had gone on looking. `None`: it would not have come (its sender runs on
    /// the same processor), or that is not known.
    #[must_use]
    pub fn would_have_come(&self, looked: Duration) -> Option<Duration> {
        self.woken.map(|woken| (looked + woken.after).saturating_sub(woken.late))
    }

    /// Takes the announcement back, after waking up (for whatever reason). The caller empties the eventfd by reading it.
    pub fn woken(&mut self) {
        self.set_sleeping(AWAKE);
    }

    /// Messages that were announced by their senders but never committed, and skipped.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.head.skipped
    }

    fn set_sleeping(&self, value: u32) {
        if let Some(record) = self.member.inner.shared.region.endpoint(self.member.inner.me.id) {
            record.sleeping().store(value, Ordering::SeqCst);
        }
    }
}
