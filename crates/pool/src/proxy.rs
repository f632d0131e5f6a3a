//! The daemon's work *for* an endpoint: a process that cannot map the pool (a classic client) has its blocks allocated,
//! sent, received and given back by the daemon, in its own name. So what a classic client holds is in the words like
//! everybody else's, and is swept like everybody else's when it goes.
//!
//! ```text
//!   classic A ── alloc ──▶ {A} ── pre-send: lend InFlight ──▶ {A, C·INBOX} ── C receives: accept ──▶ {A, C}
//!                                                                  └─ C goes away: drop_in_flight ─▶ {A}
//! ```
//! A message in flight to a classic client is a lane without a slot: which of them arrives next is written in its own
//! protocol, not in the inbox. Killed between any two steps: as everywhere, each step is one compare-and-swap.

use crate::blocks::{Cursor, HoldError};
use crate::class::Class;
use crate::ids::{BlockId, EndpointId, EndpointRef};
use crate::pool::{AttachError, Pool, Shared};
use crate::receive::{Head, RecvError};
use crate::region::Count;
use crate::send::{Pass, SendFailure};
use crate::shortage::AllocError;
use crate::sync::{Ordering, TRIES, pause};
use crate::word::{Lane, Word};
use std::sync::Arc;

/// How a block is lent to another endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lend {
    /// It holds the block at once.
    Holder,
    /// It has a message to accept: [`Pool::accept_in_flight`] or [`Pool::drop_in_flight`].
    InFlight,
}

/// One endpoint that the daemon speaks for. Everything it does is that endpoint's: held, counted, swept.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    me: EndpointRef,
    head: Head,
    cursors: Vec<Cursor>,
}

/// What was received for an endpoint: the block, and who sent it if the slot names somebody possible.
pub type Received = (BlockId, Option<EndpointId>);

impl Pool {
    /// Speaks for an admitted endpoint. One at a time: two would steal each other's messages.
    ///
    /// # Errors
    /// [`AttachError`] if this life of the endpoint is over or never began.
    pub fn proxy(&self, endpoint: EndpointRef) -> Result<Proxy, AttachError> {
        let head = self.admitted(endpoint)?;
        let cursors = vec![Cursor::scattered(endpoint.id.get().into()); Class::COUNT];
        Ok(Proxy { shared: Arc::clone(&self.shared), me: endpoint, head, cursors })
    }

    /// Adds a lane of `to` to a block that `from` holds. One compare-and-swap: killed before it nothing has happened.
    /// A process that holds the block for itself alone knows so without looking at the word; it must stop believing that
    /// ([`Block::mark_shared`](crate::Block::mark_shared)) before it asks the daemon to lend one of its blocks.
    ///
    /// # Errors
    /// [`SendFailure`]: `NotHolder` if `from` does not hold it, `FanOut` if there is no lane left, `Gone` if `to` is not
    /// admitted.
    pub fn lend(
        &self,
        from: EndpointRef,
        block: BlockId,
        to: EndpointRef,
        how: Lend,
    ) -> Result<(), SendFailure> {
        // Only the daemon lends and only the daemon reaps, so `to` cannot go between this look and the swap.
        if self.admitted(to).is_err() {
            return Err(SendFailure::Gone);
        }
        let lane = match how {
            Lend::Holder => Lane::holder(to.id),
            Lend::InFlight => Lane::inbox(to.id),
        };
        let region = &self.shared.region;
        let place = region.place(block).ok_or(SendFailure::NotHolder)?;
        let cell = region.word(place);
        for _ in 0..TRIES {
            let word = Word::load(cell);
            if word.find(Lane::holder(from.id)).is_none() {
                return Err(SendFailure::NotHolder);
            }
            let free = word.find(Lane::EMPTY).ok_or(SendFailure::FanOut)?;
            if Word::swap(cell, word, word.with(free, lane)).is_ok() {
                return Ok(());
            }
            pause();
        }
        Err(SendFailure::Stale)
    }

    /// What was lent in flight to `to` is held by it from now on.
    ///
    /// # Errors
    /// [`HoldError`] if there is no such message.
    pub fn accept_in_flight(&self, to: EndpointRef, block: BlockId) -> Result<(), HoldError> {
        self.shared.region.exchange(block, Lane::inbox(to.id), Lane::holder(to.id)).map(drop)
    }

    /// What was lent in flight to `to` will not be accepted.
    ///
    /// # Errors
    /// [`HoldError`] if there is no such message.
    pub fn drop_in_flight(&self, to: EndpointRef, block: BlockId) -> Result<(), HoldError> {
        self.shared.region.exchange(block, Lane::inbox(to.id), Lane::EMPTY).map(drop)
    }
}

impl Proxy {
    /// Whom this speaks for.
    #[must_use]
    pub fn endpoint(&self) -> EndpointRef {
        self.me
    }

    /// Whether the endpoint may allocate `len` bytes more while it holds `held`: what it holds is known best to who speaks
    /// for it, and lends to it.
    ///
    /// # Errors
    /// [`AllocError::Quota`].
    pub fn may_alloc(&self, len: usize, held: u64) -> Result<(), AllocError> {
        let quota =
            self.shared.region.endpoint(self.me.id).map_or(0, |e| e.quota_bytes().load(Ordering::Relaxed));
        let more = Class::for_len(len).map_or(u64::MAX, |class| class.size() as u64);
        if quota == 0 || held.checked_add(more).is_some_and(|sum| sum <= quota) {
            return Ok(());
        }
        Err(AllocError::Quota { len, held, quota })
    }

    /// Whether the endpoint has a limit at all.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        let record = self.shared.region.endpoint(self.me.id);
        record.is_some_and(|record| record.quota_bytes().load(Ordering::Relaxed) != 0)
    }

    /// A block of at least `len` bytes, held by the endpoint alone. Its quota is asked for with [`Proxy::may_alloc`].
    ///
    /// # Errors
    /// [`AllocError`]; after `Exhausted` try [`Pool::make_room`] once.
    pub fn alloc(&mut self, len: usize) -> Result<BlockId, AllocError> {
        let region = &self.shared.region;
        let geometry = &region.geometry;
        let class = Class::for_len(len)
            .filter(|class| *class <= geometry.largest_class())
            .ok_or(AllocError::TooLarge { len, largest: geometry.largest_block() })?;
        if !region.is_admitted(self.me) {
            return Err(AllocError::NotAdmitted);
        }
        let mut out = Vec::with_capacity(1);
        let mut take = |class: Class| {
            region.take(self.me.id, class, 1, &mut self.cursors[class.index()], &mut out);
            out.pop()
        };
        let reserve = geometry.extents() / 4;
        let block = take(class)
            .or_else(|| region.bind_one(class, reserve).then(|| take(class)).flatten())
            .or_else(|| geometry.a_little_larger(class).find_map(&mut take))
            .or_else(|| region.bind_one(class, 0).then(|| take(class)).flatten())
            .or_else(|| geometry.much_larger(class).find_map(&mut take))
            .ok_or_else(|| self.shared.exhausted(len))?;
        self.shared.set_len(block, len);
        Ok(block)
    }

    /// Where a block's bytes begin, from the start of the payload. `None` if there is no such block.
    #[must_use]
    pub fn offset(&self, block: BlockId) -> Option<u64> {
        self.shared.bytes_of(block).map(|(offset, _)| offset as u64)
    }

    /// Bytes that fit a block.
    #[must_use]
    pub fn capacity(&self, block: BlockId) -> Option<u64> {
        self.shared.region.place(block).map(|place| place.class.size() as u64)
    }

    /// The block that begins at this offset, if one does.
    #[must_use]
    pub fn block_at(&self, offset: u64) -> Option<BlockId> {
        let geometry = &self.shared.region.geometry;
        let extent = u32::try_from(offset / geometry.extent_bytes()).ok()?;
        let class = self.shared.region.class_of(extent)?;
        let within = usize::try_from(offset % geometry.extent_bytes()).ok()?;
        let index = u32::try_from(within / class.size()).ok()?;
        let exists = within.is_multiple_of(class.size()) && geometry.word_at(extent, index, class).is_some();
        exists.then(|| geometry.block(extent, index))
    }

    /// Whether the endpoint holds the block.
    #[must_use]
    pub fn holds(&self, block: BlockId) -> bool {
        let region = &self.shared.region;
        let word = region.place(block).map(|place| Word::load(region.word(place)));
        word.is_some_and(|word| word.find(Lane::holder(self.me.id)).is_some())
    }

    /// Gives back one lane of the endpoint.
    ///
    /// # Errors
    /// [`HoldError`]: a double free, or a block of somebody else.
    pub fn release(&self, block: BlockId) -> Result<(), HoldError> {
        self.shared.region.release(self.me.id, block)
    }

    /// Sends in the endpoint's name. `true`: the receiver sleeps on its event descriptor, write to it.
    ///
    /// # Errors
    /// [`SendFailure`]; the endpoint still holds the block.
    pub fn send(&self, block: BlockId, to: EndpointRef, pass: Pass) -> Result<bool, SendFailure> {
        let sent = self.shared.region.send(self.me.id, block, to, pass);
        self.count(if sent.is_ok() { Count::Sent } else { Count::Refused });
        sent
    }

    /// The next message of the endpoint's inbox, if there is one; the endpoint holds it then.
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn receive(&mut self) -> Result<Option<Received>, RecvError> {
        let received = self.shared.region.receive(&mut self.head)?;
        if received.is_some() {
            self.count(Count::Received);
        }
        Ok(received)
    }

    fn count(&self, what: Count) {
        if let Some(record) = self.shared.region.endpoint(self.me.id) {
            record.count(what).fetch_add(1, Ordering::Relaxed);
        }
    }
}
