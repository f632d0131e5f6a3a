//! All streams of this process: opened, closed, told.
//!
//! ```text
//!            open                      open, same order            open, other order
//!  (none) ────────▶ player runs ──────────────────────▶ (as it is)   ──────────────▶ closed, then a new player
//!     ▲                │ ended, failed: stays in the list until closed; the same order starts it anew
//!     └──── close ─────┘
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aits_frame::{Micros, StreamId};
use aits_orders::{OpenStream, StreamsReply};
use tokio::sync::watch;

use crate::stream::Stream;

/// Streams at a time; each has a thread and a decoder.
const STREAMS_MAX: usize = 256;

/// Why a stream was not opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The order makes no sense.
    Order(&'static str),
    /// Something of this process is used up.
    Full(String),
}

/// Plays a stream until its end, on the thread that calls it.
type Play = Arc<dyn Fn(&Stream) + Send + Sync>;

pub(crate) struct Desk {
    play: Play,
    streams: Mutex<BTreeMap<StreamId, Arc<Stream>>>,
    version: watch::Sender<u64>,
}

impl Desk {
    /// A desk without streams; `play` is run on a thread of its own for each that is opened.
    pub(crate) fn new(play: impl Fn(&Stream) + Send + Sync + 'static) -> Self {
        // A start later than all starts before: nobody takes this process for its predecessor.
        let version = u64::try_from(Micros::monotonic_now().0).unwrap_or(0).max(1);
        Self { play: Arc::new(play), streams: Mutex::default(), version: watch::Sender::new(version) }
    }

    /// Opens a stream; `true`: it was open already with the same order.
    pub(crate) fn open(&self, order: OpenStream) -> Result<bool, Refusal> {
        if order.url.trim().is_empty() {
            return Err(Refusal::Order("url is empty: name a file or a camera"));
        }
        if order.inbox.is_empty() {
            return Err(Refusal::Order("inbox is empty: name the inbox that receives the frames"));
        }
        let mut streams = self.streams();
        if let Some(open) = streams.get(&order.stream) {
            if *open.order() == order && open.is_alive() {
                return Ok(true);
            }
            open.close();
        } else if streams.len() >= STREAMS_MAX {
            return Err(Refusal::Full(format!("{STREAMS_MAX} streams are open; close one first")));
        }
        let stream = Arc::new(Stream::new(order, self.version.clone()));
        self.start(&stream)?;
        streams.insert(stream.id(), stream);
        drop(streams);
        self.bump();
        Ok(false)
    }

    fn start(&self, stream: &Arc<Stream>) -> Result<(), Refusal> {
        let (play, stream) = (Arc::clone(&self.play), Arc::clone(stream));
        let thread = std::thread::Builder::new().name(format!("stream-{}", stream.id()));
        let started = thread.spawn(move || {
            // Also when the player panics: nobody is to wait for it then.
            let over = Over(stream);
            play(&over.0);
        });
        started.map(drop).map_err(|error| Refusal::Full(format!("no thread for another stream: {error}")))
    }

    /// Closes a stream, if it is open. When this returns, none of its frames is published any more.
    pub(crate) fn close(&self, stream: StreamId) {
        if let Some(stream) = self.streams().remove(&stream) {
            stream.close();
            self.bump();
        }
    }

    /// Closes all streams, but keeps them in the list.
    pub(crate) fn close_all(&self) {
        for stream in self.streams().values() {
            stream.close();
        }
    }

    /// Waits for the players of all listed streams; `false`: some have not returned in time.
    pub(crate) fn wait_for_players(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let streams: Vec<_> = self.streams().values().cloned().collect();
        streams.iter().all(|stream| stream.wait_until_over(deadline))
    }

    /// Everything about every stream.
    pub(crate) fn told(&self) -> StreamsReply {
        // The version first: what changes in between is told now, and once more at the next question.
        let version = *self.version.borrow();
        StreamsReply { version, streams: self.streams().values().map(|stream| stream.told()).collect() }
    }

    /// [`told`](Self::told), as soon as the version is another one than `seen`, or `patience` is over.
    pub(crate) async fn told_after(&self, seen: u64, patience: Duration) -> StreamsReply {
        let mut version = self.version.subscribe();
        // Too late, or a change: the answer is the same.
        let _waited = tokio::time::timeout(patience, version.wait_for(|version| *version != seen)).await;
        self.told()
    }

    fn bump(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// The map is whole at every moment at which something can panic.
    fn streams(&self) -> MutexGuard<'_, BTreeMap<StreamId, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that a player has returned.
struct Over(Arc<Stream>);

impl Drop for Over {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.finish(Some("the player of this stream crashed; open it again".into()));
        }
        self.0.set_over();
    }
}
