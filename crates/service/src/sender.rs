//! Sending to an inbox by name, whoever receives there at the moment.
//!
//! ```text
//!            look-up found it                    Gone
//!   Closed ───────────────────▶ Open ─────────────────────▶ Closed
//!     └── send: at most one look-up in 100 ms, in a thread of its own; the send waits for it at most 5 ms
//! ```
//!
//! The receiver may not be there yet, may be killed, may come back: its name stays. While it is away blocks are given
//! back to the caller, who drops and counts them. A hot path never waits for the daemon: the look-up (one round trip)
//! runs elsewhere, and a send waits for it no longer than [`LOOKUP_PATIENCE`], so that the first block after a start
//! usually gets through.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_client::{Block, Client, SendFailure, Sender};

/// Least time between two look-ups of a name.
const LOOKUP_PACE: Duration = Duration::from_millis(100);
/// Longest wait of a send for a look-up that has just begun.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(5);

/// A sender to the inbox of this name. Clones share one look-up.
#[derive(Clone)]
pub struct NamedSender {
    client: Client,
    name: Arc<str>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    looked_up: Condvar,
}

struct State {
    sender: Option<Sender>,
    looking: bool,
    next_lookup: Instant,
}

/// Why a block was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSentReason {
    /// Nobody receives under this name at the moment.
    NoReceiver,
    /// The inbox is full, and nothing in it is this sender's to revoke.
    Full,
    /// The block or the pool refused (too many holders, not the holder): a bug of the caller or a stale block.
    Refused,
}

/// A block that was not sent, given back.
pub struct NotSent {
    /// The block.
    pub block: Block,
    /// Why.
    pub reason: NotSentReason,
}

impl fmt::Debug for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotSent({:?})", self.reason)
    }
}

impl fmt::Debug for NamedSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedSender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl NamedSender {
    /// A sender for this name. Nothing is looked up yet.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        let state = State { sender: None, looking: false, next_lookup: Instant::now() };
        Self {
            client,
            name: name.into().into(),
            shared: Arc::new(Shared { state: Mutex::new(state), looked_up: Condvar::new() }),
        }
    }

    /// The inbox's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends to whoever receives there now; if the inbox is full, this process' own oldest unread block in it makes
    /// room. Answers how many were revoked so.
    ///
    /// Moves the block if this is its only local handle, else shares it.
    ///
    /// # Errors
    /// The block comes back with the reason. After [`NotSentReason::NoReceiver`] later sends look again by themselves.
    pub fn send_newest(&self, block: Block) -> Result<u32, NotSent> {
        self.send_with(block, |sender, block| {
            sender.send_newest(block).map(|sent| sent.replaced).map_err(|error| (error.block, error.reason))
        })
    }

    /// As [`send_newest`](Self::send_newest), but a full inbox refuses ([`NotSentReason::Full`]) and nothing is revoked.
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, block: Block) -> Result<(), NotSent> {
        self.send_with(block, |sender, block| sender.send(block).map_err(|error| (error.block, error.reason)))
    }

    fn send_with<T>(
        &self,
        block: Block,
        send: impl FnOnce(&Sender, Block) -> Result<T, (Block, SendFailure)>,
    ) -> Result<T, NotSent> {
        let Some(sender) = self.current() else {
            return Err(NotSent { block, reason: NotSentReason::NoReceiver });
        };
        send(&sender, block).map_err(|(block, failure)| {
            let reason = match failure {
                SendFailure::Full => NotSentReason::Full,
                SendFailure::Gone => {
                    self.lock().sender = None;
                    NotSentReason::NoReceiver
                }
                _ => NotSentReason::Refused,
            };
            NotSent { block, reason }
        })
    }

    /// The open sender; starts a look-up when there is none and one is due.
    fn current(&self) -> Option<Sender> {
        let mut state = self.lock();
        if state.sender.is_none() && !state.looking && Instant::now() >= state.next_lookup {
            state.looking = true;
            state.next_lookup = Instant::now() + LOOKUP_PACE;
            drop(state);
            self.start_lookup();
            let guard = self.lock();
            state = self
                .shared
                .looked_up
                .wait_timeout_while(guard, LOOKUP_PATIENCE, |state| state.looking)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.sender.clone()
    }

    fn start_lookup(&self) {
        let this = self.clone();
        let started = std::thread::Builder::new().name("look-up".into()).spawn(move || {
            // Not found, or the daemon is away: the next look-up tells. Both are ordinary while peers restart.
            let found = this.client.sender(&this.name).ok();
            this.finish_lookup(found);
        });
        if started.is_err() {
            self.finish_lookup(None);
        }
    }

    fn finish_lookup(&self, found: Option<Sender>) {
        let mut state = self.lock();
        state.looking = false;
        state.sender = found;
        drop(state);
        self.shared.looked_up.notify_all();
    }

    /// A panic of another thread cannot leave the three fields in a state that matters: go on with what is there.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
