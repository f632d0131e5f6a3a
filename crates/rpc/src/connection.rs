//! One connection, from its first byte to its end.
//!
//! ```text
//!   ┌──────────────▶ reading ◀── answers written ──────────────────────┐
//!   │   whole frame ─┴─▶ no `id`: runs in its turn; nothing begins before it is answered
//!   │                └─▶ `id`:    runs beside the others (at most `in_flight`) ─┤
//!   │                └─▶ subscription: items, and items, and an end ────────────┘
//!   │          ├─ end of stream at a boundary ─▶ what was sent is answered ─▶ Closed
//!   │          ├─ end of stream inside a frame ▶ …                         ─▶ Truncated
//!   │          ├─ frame over the limit ─▶ … ─▶ error frame ─▶ TooLarge
//!   │          ├─ half a frame for too long ─▶ error frame ─▶ TimedOut
//!   │          ├─ idle for too long, or does not read its answers ─▶ TimedOut
//!   │          ├─ broken ─▶ Failed: methods that run are dropped
//!   │          └─ told to stop ─▶ subscriptions are ended, what runs is answered ─▶ Stopped { stream, unread }
//!   └── a new server process may go on from `Stopped`: it is a request boundary
//! ```
//! Nothing here grows with what a peer sends: while its requests or its unread answers are at their limit nothing more is
//! read (beyond [`READ_AHEAD`], by which a peer's going away is noticed), and its own socket slows it down.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use baton_wire::json_frame::{Decoder, TooLarge, code};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::driver::{Driver, Outcome};
use crate::{Limits, Router, RpcError};

/// Bytes taken by one read. One such buffer serves all connections of a thread, so an idle connection has none.
const READ_BYTES: usize = 64 << 10;

/// Bytes that are read while requests that were sent before them still run.
pub(crate) const READ_AHEAD: usize = READ_BYTES;

/// After an error that ends the connection: how long, and for how many bytes, the peer's sending is still read. Closing
/// a TCP socket with unread bytes resets it, and the reset would overtake the error frame.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// How a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamEnd<S> {
    /// The peer ended it at a frame boundary: the ordinary end.
    Closed,
    /// The peer ended it inside a frame.
    Truncated,
    /// The peer announced a frame over the limit; it was told so.
    TooLarge(TooLarge),
    /// The peer was idle, left a frame unfinished or did not read its answers for too long.
    TimedOut,
    /// The connection broke.
    Failed(io::Error),
    /// Told to stop, at a request boundary: every request that was begun is answered. Whoever serves `stream` next
    /// starts with the bytes of `unread`, see [`serve_stream_until`].
    Stopped {
        /// The connection.
        stream: S,
        /// Bytes of later requests that were already taken from it.
        unread: Vec<u8>,
    },
}

/// Serves one connection until it ends.
pub async fn serve_stream<S>(stream: S, router: Router, limits: Limits) -> StreamEnd<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    serve_stream_until(stream, Vec::new(), router, limits, std::future::pending()).await
}

/// Serves one connection until it ends or, once `stop` is ready, until the next request boundary. `unread` is what an
/// earlier server of the same connection had read and not served (empty for a new one).
pub async fn serve_stream_until<S>(
    stream: S,
    unread: Vec<u8>,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) -> StreamEnd<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let _open = router.stats.connection();
    let mut driver = Driver::new(stream, unread, &router, &limits);
    let mut stop = pin!(stop);
    let outcome = poll_fn(|cx| driver.poll(cx, stop.as_mut())).await;
    // What still runs has lost its caller.
    let (mut stream, unread) = driver.into_parts();
    match outcome {
        Outcome::Closed => StreamEnd::Closed,
        Outcome::Truncated => StreamEnd::Truncated,
        Outcome::Failed(error) => StreamEnd::Failed(error),
        Outcome::TimedOut => StreamEnd::TimedOut,
        Outcome::Stopped => StreamEnd::Stopped { stream, unread },
        Outcome::TooLarge(error) => {
            router.stats.error(code::TOO_LARGE);
            say_and_close(&mut stream, &limits, RpcError::new(code::TOO_LARGE, error.to_string())).await;
            StreamEnd::TooLarge(error)
        }
        Outcome::HalfFrame => {
            router.stats.error(code::TIMEOUT);
            let message = format!("a frame stayed unfinished for {} s", limits.half_frame.as_secs_f32());
            say_and_close(&mut stream, &limits, RpcError::new(code::TIMEOUT, message)).await;
            StreamEnd::TimedOut
        }
    }
}

/// One read, through the thread's buffer, into the decoder; 0 at the end of the stream.
pub(crate) fn poll_read_into<S: AsyncRead + Unpin>(
    stream: &mut S,
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
        decoder.push(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
}

/// Sends a last error and closes in such a way that the peer can read it.
pub(crate) async fn say_and_close<S>(stream: &mut S, limits: &Limits, error: RpcError)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let say = async {
        stream.write_all(&error.to_frame(None)).await?;
        stream.shutdown().await
    };
    if !matches!(timeout(limits.write, say).await, Ok(Ok(()))) {
        return;
    }
    let mut left = LINGER_BYTES;
    let _ = timeout(LINGER, async {
        while left > 0 {
            match discard(stream).await {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => break,
            }
        }
    })
    .await;
}

async fn discard<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<usize> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
            Poll::Ready(Ok(buf.filled().len()))
        })
    })
    .await
}
