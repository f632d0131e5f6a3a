//! What a worker is subscribed to: pictures from preview, results from wmits. One subscription each, however many look.
//!
//! ```text
//!  viewer ──▶ pictures(stream, annotated) ── first one ──▶ preview.watch, renewed every second ──▶ blocks in our inbox
//!  viewer ──▶ results(stream) ──────────── first one ──▶ long poll at wmits
//! ```
//!
//! Failure paths: an unknown stream is told to the first viewer as a [`Problem`]; a preview or wmits that is away later
//! is asked again and again while somebody looks. A subscription that nobody has read for [`LINGER`] ends.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aits_frame::{HEADER_LEN, Header, HeaderError, Jpeg, StreamId};
use aits_orders::{ResultsQuery, ResultsReply, WatchPreview, Watching, inbox, method};
use baton_rpc::{CallError, Client};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::fanout::Fanout;
use crate::problem::Problem;

/// Subscriptions of one kind at a time in one worker.
const MAX_TOPICS: usize = 64;
/// For how long pictures are ordered at a time.
const ORDER_TTL: Duration = Duration::from_secs(5);
/// How often that order is renewed.
const RENEW: Duration = Duration::from_secs(1);
/// Pause after the other side could not be reached.
const RETRY: Duration = Duration::from_millis(200);
/// A subscription is kept for so long after its last reader, for the one that comes right back.
const LINGER: Duration = Duration::from_secs(3);
/// How long wmits may sit on a question for results.
const POLL: Duration = Duration::from_secs(5);
/// How long a call that does not wait may take.
const CALL_PATIENCE: Duration = Duration::from_secs(3);
/// Blocks that one worker keeps for its viewers. Viewers that are slow keep one each, and hundreds of them would empty
/// the pool for everybody; what comes when so many are kept is copied, once for all viewers, and its block goes back.
pub const MAX_BLOCKS: usize = 16;

/// A JPEG in its block, or copied out of it when [`MAX_BLOCKS`] are kept.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What the block says about it.
    pub header: Header,
    /// The file; as a rule these bytes *are* the block's memory.
    pub file: Bytes,
    /// When it came.
    pub at: Instant,
}

/// Keeps the block as long as anybody refers to the bytes.
struct FileInBlock<B> {
    block: B,
    range: Range<usize>,
    _place: OwnedSemaphorePermit,
}

impl<B: Deref<Target = [u8]>> AsRef<[u8]> for FileInBlock<B> {
    fn as_ref(&self) -> &[u8] {
        self.block.get(self.range.clone()).unwrap_or_default()
    }
}

impl Picture {
    /// Checks what is in the block and takes it over, or copies it if there is no place for another block.
    pub fn from_block<B>(block: B, places: &Arc<Semaphore>) -> Result<Self, HeaderError>
    where
        B: Deref<Target = [u8]> + Send + 'static,
    {
        let jpeg = Jpeg::parse(&block)?;
        let (header, len) = (jpeg.header, jpeg.file.len());
        let file = match Arc::clone(places).try_acquire_owned() {
            Ok(place) => {
                let range = HEADER_LEN..HEADER_LEN + len;
                Bytes::from_owner(FileInBlock { block, range, _place: place })
            }
            Err(_) => Bytes::copy_from_slice(jpeg.file),
        };
        Ok(Self { header, file, at: Instant::now() })
    }
}

/// A result as it is sent to the page.
#[derive(Clone, Debug)]
pub struct ResultEvent {
    /// wmits' version of it.
    pub version: u64,
    /// The result as JSON.
    pub json: Arc<str>,
}

/// All subscriptions of this worker. Clones share them.
#[derive(Clone)]
pub struct Feeds {
    inner: Arc<Inner>,
}

struct Inner {
    pictures: Fanout<(StreamId, bool), Picture>,
    results: Fanout<StreamId, ResultEvent>,
    preview: Client,
    wmits: Client,
    inbox: String,
}

impl Feeds {
    pub fn new(preview: Client, wmits: Client) -> Self {
        Self {
            inner: Arc::new(Inner {
                pictures: Fanout::new(MAX_TOPICS),
                results: Fanout::new(MAX_TOPICS),
                preview,
                wmits,
                inbox: inbox::gateway_jpegs(std::process::id()),
            }),
        }
    }

    /// Name of the inbox in which this worker receives.
    pub fn inbox(&self) -> &str {
        &self.inner.inbox
    }

    /// A picture came from the pool.
    pub fn picture_arrived(&self, picture: Picture) {
        let key = (picture.header.stream, picture.header.annotated);
        self.inner.pictures.publish(&key, picture);
    }

    /// The pictures of a stream as they come.
    pub async fn pictures(
        &self,
        stream: StreamId,
        annotated: bool,
    ) -> Result<watch::Receiver<Option<Picture>>, Problem> {
        let key = (stream, annotated);
        if let Some(values) = self.inner.pictures.existing(&key) {
            return Ok(values);
        }
        // Joined before the order, since the first picture may come before the answer.
        let joined = self.inner.pictures.join(&key).ok_or_else(too_many)?;
        if joined.first {
            // In a task of its own: this viewer may leave before the answer, and others have joined by then.
            let opened = tokio::spawn(Arc::clone(&self.inner).open_pictures(stream, annotated));
            opened.await.unwrap_or_else(|error| Err(Problem::away("preview", error)))?;
        }
        Ok(joined.values)
    }

    /// The results of a stream as they come.
    pub async fn results(&self, stream: StreamId) -> Result<watch::Receiver<Option<ResultEvent>>, Problem> {
        if let Some(values) = self.inner.results.existing(&stream) {
            return Ok(values);
        }
        let first = self.inner.ask(stream, 0, Duration::ZERO).await.map_err(|error| {
            Problem::from_call("wmits", error, || Problem::unknown_stream(&stream.to_string()))
        })?;
        let joined = self.inner.results.join(&stream).ok_or_else(too_many)?;
        if joined.first {
            tokio::spawn(Arc::clone(&self.inner).keep_results(stream, first));
        }
        Ok(joined.values)
    }
}

impl Inner {
    async fn order(&self, stream: StreamId, annotated: bool) -> Result<Watching, CallError> {
        let order = WatchPreview {
            stream,
            inbox: self.inbox.clone(),
            annotated,
            ttl_ms: ORDER_TTL.as_millis() as u32,
        };
        self.preview.call_with_timeout(method::PREVIEW_WATCH, &order, CALL_PATIENCE).await
    }

    /// Places the first order of a topic that was just made: the topic is kept from then on, or ended.
    async fn open_pictures(self: Arc<Self>, stream: StreamId, annotated: bool) -> Result<(), Problem> {
        if let Err(error) = self.order(stream, annotated).await {
            self.pictures.end(&(stream, annotated));
            return Err(Problem::from_call("preview", error, || {
                Problem::unknown_stream(&stream.to_string())
            }));
        }
        tokio::spawn(self.keep_pictures(stream, annotated));
        Ok(())
    }

    async fn keep_pictures(self: Arc<Self>, stream: StreamId, annotated: bool) {
        let key = (stream, annotated);
        let mut read_at = Instant::now();
        let mut pause = RENEW;
        loop {
            tokio::time::sleep(pause).await;
            if self.pictures.is_read(&key) {
                read_at = Instant::now();
            } else if read_at.elapsed() >= LINGER && self.pictures.leave(&key) {
                return;
            }
            match self.order(stream, annotated).await {
                Ok(_) => pause = RENEW,
                Err(CallError::Remote(error)) if is_missing(&error.code) => {
                    // The task was deleted: viewers see the end of the stream.
                    self.pictures.end(&key);
                    return;
                }
                Err(error) => {
                    tracing::debug!("stream {stream}: {error}");
                    pause = RETRY;
                }
            }
        }
    }

    async fn ask(&self, stream: StreamId, after: u64, wait: Duration) -> Result<ResultsReply, CallError> {
        let query = ResultsQuery { stream, after, wait_ms: wait.as_millis() as u32 };
        self.wmits.call_with_timeout(method::RESULTS, &query, wait + CALL_PATIENCE).await
    }

    async fn keep_results(self: Arc<Self>, stream: StreamId, first: ResultsReply) {
        let mut read_at = Instant::now();
        let mut reply = Ok(first);
        let mut after;
        loop {
            match reply {
                Ok(ResultsReply { version, result }) => {
                    after = version;
                    // A result always has a JSON form; one that had none would be left out.
                    if let Some(Ok(json)) = result.map(|result| serde_json::to_string(&result)) {
                        self.results.publish(&stream, ResultEvent { version, json: json.into() });
                    }
                }
                Err(CallError::Remote(error)) if is_missing(&error.code) => {
                    self.results.end(&stream);
                    return;
                }
                Err(error) => {
                    tracing::debug!("stream {stream}: {error}");
                    // Another wmits may count otherwise.
                    after = 0;
                    tokio::time::sleep(RETRY).await;
                }
            }
            if self.results.is_read(&stream) {
                read_at = Instant::now();
            } else if read_at.elapsed() >= LINGER && self.results.leave(&stream) {
                return;
            }
            reply = self.ask(stream, after, POLL).await;
        }
    }
}

/// The code by which wmits says that a stream is not there.
fn is_missing(code: &str) -> bool {
    code == "no_such_stream"
}

fn too_many() -> Problem {
    Problem::busy(format!("{MAX_TOPICS} streams are being watched through this worker; close some views"))
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use aits_frame::{Micros, Sequence};
    use baton_rpc::{Router, Server};
    use tokio::sync::{Notify, mpsc};

    use super::*;

    const ONE: StreamId = StreamId(1);

    /// Stands for a block of the pool: what is left of it when it was given back is a dead [`Weak`].
    struct Lent(Arc<Vec<u8>>);

    impl Deref for Lent {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            &self.0
        }
    }

    fn lent(sequence: u8) -> (Lent, Weak<Vec<u8>>) {
        let file = [0xff, 0xd8, sequence];
        let header = Header {
            stream: ONE,
            sequence: Sequence(sequence.into()),
            pts: Micros(0),
            decoded_at: Micros(0),
            payload_len: file.len() as u64,
            annotated: false,
            layout: None,
        };
        let mut bytes = [vec![0; HEADER_LEN], file.to_vec()].concat();
        header.write_to(&mut bytes).unwrap();
        let bytes = Arc::new(bytes);
        let weak = Arc::downgrade(&bytes);
        (Lent(bytes), weak)
    }

    #[test]
    fn viewers_that_take_nothing_keep_a_bounded_number_of_blocks() {
        let places = Arc::new(Semaphore::new(2));
        let take = |sequence| {
            let (block, weak) = lent(sequence);
            (Picture::from_block(block, &places).unwrap(), weak)
        };
        let mut kept: Vec<_> = (0..5).map(take).collect();
        assert_eq!(kept.iter().filter(|(_, block)| block.strong_count() > 0).count(), 2);
        for (sequence, (picture, _)) in kept.iter().enumerate() {
            assert_eq!(picture.file[..], [0xff, 0xd8, sequence as u8]);
        }
        let (first, block) = kept.remove(0);
        let queued = first.file.clone();
        drop(first);
        assert_eq!(block.strong_count(), 1, "what is on its way keeps the block");
        drop(queued);
        assert_eq!(block.strong_count(), 0);
        assert_eq!(take(9).1.strong_count(), 1, "a place that is free again is taken");
    }

    #[tokio::test]
    async fn a_first_viewer_that_leaves_at_once_does_not_spoil_the_stream_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let uri = format!("un://{}", dir.path().join("preview.sock").display());
        let (ordered, mut orders) = mpsc::unbounded_channel();
        let answer = Arc::new(Notify::new());
        let preview = {
            let answer = Arc::clone(&answer);
            Router::new().method(method::PREVIEW_WATCH, move |_: WatchPreview| {
                ordered.send(()).unwrap();
                let answer = Arc::clone(&answer);
                async move {
                    answer.notified().await;
                    Ok(Watching { newest: None })
                }
            })
        };
        let server = Server::bind(&uri).await.unwrap();
        tokio::spawn(server.serve(preview, std::future::pending()));
        let feeds = Feeds::new(Client::new(&uri), Client::new(&uri));

        let first = tokio::spawn({
            let feeds = feeds.clone();
            async move { feeds.pictures(ONE, true).await.map(drop) }
        });
        orders.recv().await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        answer.notify_one();
        let _second = feeds.pictures(ONE, true).await.unwrap();
        let renewed = tokio::time::timeout(Duration::from_secs(30), orders.recv()).await;
        renewed.expect("the order is renewed for the second viewer").unwrap();
    }
}
