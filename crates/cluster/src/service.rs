//! What a worker does with the connections it is given.

use std::net::SocketAddr;

use baton_address::Stream;
use tokio::sync::watch;

/// Number of a connection, unique within one cluster's life: counted by the master from 0; where the workers accept by
/// themselves, the upper 32 bits are the worker's process id and the lower ones count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Who is at the other end, as the master saw at `accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process of this host; `baton_fdpass::peer_credentials` of the stream says which.
    Unix,
}

/// A connection that now belongs to this worker. Dropping it closes it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// The socket; TCP has `TCP_NODELAY` set.
    pub stream: Stream,
    /// The other end.
    pub peer: Peer,
    /// Which listener it came in by, in the order of [`Builder::listen`](crate::Builder::listen).
    pub listener: usize,
    /// Where requests are counted, if the protocol has any; see [`Load`](crate::Load).
    pub load: crate::Load,
    /// Tells when to finish.
    pub draining: Draining,
}

/// Becomes ready when the cluster shuts down: finish the request under way, begin no other, close. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Draining(pub(crate) watch::Receiver<bool>);

impl Draining {
    /// Waits for it. Safe to drop and call again.
    pub async fn wait(mut self) {
        // The sender is gone only when the worker is: that is also a reason to finish.
        let _ = self.0.wait_for(|draining| *draining).await;
    }

    /// True once it is time to finish.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }
}

/// Serves connections of one protocol. One value serves all connections of a worker, many at the same time.
pub trait Service: Send + Sync + 'static {
    /// Serves one connection to its end. A panic ends this connection only.
    fn serve(&self, connection: Connection) -> impl Future<Output = ()> + Send;
}

impl<F, Fut> Service for F
where
    F: Fn(Connection) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    fn serve(&self, connection: Connection) -> impl Future<Output = ()> + Send {
        self(connection)
    }
}
