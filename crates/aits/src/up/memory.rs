//! Which memory there is: the same as before, whoever of its processes was killed, or another one.
//!
//! ```text
//!            connected, number heard          end of stream
//!   nobody ──────────────────────────▶ known ──────────────▶ nobody
//! ```
//!
//! The memory has two processes that replace each other, of which only one is our child, so neither the end of a
//! process nor a socket that answers says whether the pool is still the one that everybody is attached to. Its number
//! does. Whatever the order in which its processes are killed, the next daemon that answers names its pool; if that is
//! another one, everybody begins anew with it.

use std::io;
use std::path::Path;
use std::time::Duration;

use baton_wire::attach::{Answer, HEADER_LEN, Header, Kind, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::keeper::Orders;

/// How often a socket that is awaited is tried.
const TRY_PACE: Duration = Duration::from_millis(10);

/// Tells `orders` which pool answers at `socket`, for ever.
pub(super) async fn watch(socket: impl AsRef<Path>, orders: Orders) {
    loop {
        if let Ok((number, mut stream)) = ask(socket.as_ref()).await {
            orders.memory_is(Some(number));
            // Nothing comes unasked: this is its end (also that of a connection that was silent for too long).
            let _ended = stream.read(&mut [0]).await;
            orders.memory_is(None);
        } else {
            tokio::time::sleep(TRY_PACE).await;
        }
    }
}

/// The number of the pool, and the connection over which it was told.
async fn ask(socket: &Path) -> io::Result<(u64, UnixStream)> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&Request::Pool.encode(1).map_err(io::Error::other)?).await?;
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; Header::decode(&head, Kind::Answer).map_err(io::Error::other)?.body_len];
    stream.read_exact(&mut body).await?;
    match Answer::decode(&body).map_err(io::Error::other)? {
        Answer::Pool(pool) => Ok((pool.pool_id, stream)),
        other => Err(io::Error::other(format!("the memory daemon answers {other:?}"))),
    }
}
