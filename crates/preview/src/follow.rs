//! The watch orders of gateway workers, and the task that keeps a watched stream coming from wmits.
//!
//! ```text
//!  preview.watch ──▶ stream known? ── no ──▶ wmits: watch ──ok──▶ a task: renew watch, poll results
//!                        │ yes                  └─ error: the caller hears it (unknown stream, wmits away)
//!                        └──▶ renewed                                      ends when the last watch is over
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use aits_orders::{ResultsQuery, ResultsReply, StreamId, WatchPreview, WatchStream, Watching, inbox, method};
use aits_service::NamedSender;
use baton_client::Client as Pool;
use baton_rpc::{CallError, Client, RpcError};

use crate::watches::{Refused, Shared};

/// For how long frames are ordered from wmits at a time.
const ORDER_TTL: Duration = Duration::from_secs(5);
/// How often that order is renewed.
const RENEW: Duration = Duration::from_secs(1);
/// Pause after wmits could not be reached.
const RETRY: Duration = Duration::from_millis(200);
/// How long wmits may sit on a question for results.
const POLL: Duration = Duration::from_secs(5);
/// How long a call that does not wait may take.
const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// Longest time that a watch is granted.
const MAX_TTL: Duration = Duration::from_secs(60);
/// The code by which wmits says that a stream is not there.
const NO_SUCH_STREAM: &str = "no_such_stream";
/// Longest name of an inbox.
const MAX_NAME: usize = 64;

/// Takes orders from gateway workers. Clones share everything.
#[derive(Clone)]
pub struct Follower {
    shared: Arc<Shared>,
    wmits: Client,
}

impl Follower {
    pub fn new(shared: Arc<Shared>, wmits: Client) -> Self {
        Self { shared, wmits }
    }

    /// Method `preview.watch`.
    pub async fn watch(&self, order: WatchPreview, pool: &Pool) -> Result<Watching, RpcError> {
        if order.inbox.is_empty() || order.inbox.len() > MAX_NAME {
            return Err(RpcError::invalid_params(format!("`inbox` must have 1 to {MAX_NAME} characters")));
        }
        let ttl = Duration::from_millis(u64::from(order.ttl_ms));
        if ttl > MAX_TTL {
            return Err(RpcError::invalid_params(format!("`ttl_ms` is at most {}", MAX_TTL.as_millis())));
        }
        // For a stream that is followed already wmits is asked by the follower; a wmits that is away must not keep
        // watches from being renewed.
        let followed = self.shared.lock().is_followed(order.stream);
        let watching = if followed {
            Watching { newest: None }
        } else {
            order_frames(&self.wmits, order.stream).await.map_err(for_caller)?
        };
        let now = Instant::now();
        let registered =
            self.shared.lock().watch(order.stream, &order.inbox, order.annotated, now + ttl, now, || {
                NamedSender::new(pool.clone(), order.inbox.clone())
            });
        let (due, new) = registered.map_err(|refused| {
            let what = match refused {
                Refused::Streams => "streams are watched at the same time; close some views",
                Refused::Watchers => "inboxes watch this stream; run fewer gateway workers",
            };
            RpcError::new("busy", format!("too many {what}"))
        })?;
        if new {
            tokio::spawn(self.clone().follow(order.stream));
        }
        if let Some((sender, picture)) = due {
            // Missed if the inbox is full or gone: the next frame, or the next renewal, brings another.
            let _missed = sender.send_newest(picture);
        }
        Ok(watching)
    }

    /// Keeps frames and results of a stream coming until nobody watches it any more.
    async fn follow(self, stream: StreamId) {
        tokio::select! {
            () = self.renew(stream) => {}
            () = self.poll_results(stream) => {}
        }
    }

    /// Renews the order at wmits; returns when nobody watches.
    async fn renew(&self, stream: StreamId) {
        loop {
            tokio::time::sleep(RENEW).await;
            while let Err(error) = order_frames(&self.wmits, stream).await {
                tracing::debug!("stream {stream}: {error}");
                if error.remote().is_some_and(|error| error.code == NO_SUCH_STREAM) {
                    // Its task was deleted: all watches end, and who renews one is told by wmits.
                    let _counters = self.shared.lock().expire(stream, Instant::now() + MAX_TTL);
                    return;
                }
                if self.over(stream) {
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
            if self.over(stream) {
                return;
            }
        }
    }

    /// Fetches results, without end.
    async fn poll_results(&self, stream: StreamId) {
        let mut after = 0;
        loop {
            let query = ResultsQuery { stream, after, wait_ms: POLL.as_millis() as u32 };
            let patience = POLL + CALL_PATIENCE;
            match self.wmits.call_with_timeout(method::RESULTS, &query, patience).await {
                Ok(ResultsReply { version, result }) => {
                    after = version;
                    if let Some(result) = result.filter(|result| result.stream == stream) {
                        self.shared.lock().result(stream, Arc::new(result));
                    }
                }
                Err(error) => {
                    tracing::debug!("stream {stream}: {error}");
                    // Another wmits may count otherwise.
                    after = 0;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Forgets watches that are over; whether none is left.
    fn over(&self, stream: StreamId) -> bool {
        let ended = self.shared.lock().expire(stream, Instant::now());
        if let Some(counters) = ended {
            tracing::debug!("stream {stream} is no longer watched: {counters:?}");
        }
        ended.is_some()
    }
}

async fn order_frames(wmits: &Client, stream: StreamId) -> Result<Watching, CallError> {
    let order =
        WatchStream { stream, inbox: inbox::PREVIEW_FRAMES.to_owned(), ttl_ms: ORDER_TTL.as_millis() as u32 };
    wmits.call_with_timeout(method::WATCH, &order, CALL_PATIENCE).await
}

/// wmits' own answer is passed on; that it is away is said with a code that callers can act on.
fn for_caller(error: CallError) -> RpcError {
    match error {
        CallError::Remote(error) => error,
        other => RpcError::new("unavailable", format!("wmits cannot be asked for frames: {other}")),
    }
}
