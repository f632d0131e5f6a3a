//! One connection, from its first byte to its end.
//!
//! ```text
//!              ┌────────────── answer written ──────────────┐
//!              ▼                                            │
//!   ┌──▶ waiting for a frame ──whole frame──▶ method runs ──┘
//!   │          ├─ end of stream at a boundary ─▶ Closed          ├─ peer does not read ─▶ TimedOut
//!   │          ├─ end of stream inside a frame ▶ Truncated       └─ peer went away ─────▶ Failed
//!   │          ├─ frame over the limit ─▶ error frame ─▶ TooLarge
//!   │          ├─ idle, half a frame ───▶ TimedOut
//!   │          └─ told to stop ─────────▶ Stopped { stream, unread }
//!   └── a new server process may go on from `Stopped`: it is a request boundary
//! ```
//! Requests that arrive while a method runs stay in the kernel's buffer (and in one read of at most 64 KiB): a peer that
//! sends faster than it is answered is slowed down by its own socket.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use baton_wire::json_frame::{Decoder, TooLarge, code};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Limits, Router, RpcError};

/// Bytes taken by one read. One such buffer serves all connections of a thread, so an idle connection has none.
const READ_BYTES: usize = 64 << 10;

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
    mut stream: S,
    unread: Vec<u8>,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) -> StreamEnd<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut decoder = Decoder::new(limits.frame_bytes);
    decoder.push(&unread);
    drop(unread);
    let mut stop = pin!(stop.fuse());
    // When the frame that is on its way was first seen.
    let mut begun: Option<Instant> = None;
    loop {
        if (&mut stop).now_or_never().is_some() {
            return StreamEnd::Stopped { stream, unread: decoder.into_unread() };
        }
        match decoder.next_body() {
            Ok(Some(body)) => {
                begun = None;
                let frame = router.answer(body, &limits).await;
                match timeout(limits.write, stream.write_all(&frame)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => return StreamEnd::Failed(error),
                    Err(_elapsed) => return StreamEnd::TimedOut,
                }
            }
            Err(error) => {
                say_and_close(&mut stream, &limits, RpcError::new(code::TOO_LARGE, error.to_string())).await;
                return StreamEnd::TooLarge(error);
            }
            Ok(None) => {}
        }
        let deadline = if decoder.is_at_boundary() {
            Instant::now() + limits.idle
        } else {
            *begun.get_or_insert_with(Instant::now) + limits.half_frame
        };
        tokio::select! {
            biased;
            () = &mut stop => return StreamEnd::Stopped { stream, unread: decoder.into_unread() },
            read = timeout_at(deadline, read_into(&mut stream, &mut decoder)) => match read {
                Ok(Ok(0)) if decoder.is_at_boundary() => return StreamEnd::Closed,
                Ok(Ok(0)) => return StreamEnd::Truncated,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return StreamEnd::Failed(error),
                Err(_elapsed) => {
                    if !decoder.is_at_boundary() {
                        let message = format!("a frame stayed unfinished for {} s", limits.half_frame.as_secs_f32());
                        say_and_close(&mut stream, &limits, RpcError::new(code::TIMEOUT, message)).await;
                    }
                    return StreamEnd::TimedOut;
                }
            },
        }
    }
}

/// One read, through the thread's buffer, into the decoder; 0 at the end of the stream.
async fn read_into<S: AsyncRead + Unpin>(stream: &mut S, decoder: &mut Decoder) -> io::Result<usize> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
            decoder.push(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        })
    })
    .await
}

/// Sends a last error and closes in such a way that the peer can read it.
pub(crate) async fn say_and_close<S>(stream: &mut S, limits: &Limits, error: RpcError)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let say = async {
        stream.write_all(&error.to_frame()).await?;
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
