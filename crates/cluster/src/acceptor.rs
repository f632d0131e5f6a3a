//! A worker that accepts by itself, under the policies that leave the choice to the kernel.
//!
//! The listening sockets came with the first message; the master holds them too, so that nothing that waits in their
//! queues is lost with this process. A worker at its limit does not accept: connections wait in the queue, or another
//! worker takes them.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::addresses::{AddressKey, Addresses};
use crate::door::{ACCEPT_REST, Sparingly, concerns_one_connection};
use crate::message::{Give, Hello};
use crate::{ConnectionId, Peer};

#[derive(Debug)]
pub(crate) struct Acceptor {
    /// Only their readiness is used, and that is the same for every kind of socket.
    listeners: Vec<UnixDatagram>,
    addresses: Arc<Mutex<Addresses>>,
    next_id: u64,
    rest_until: Option<tokio::time::Instant>,
    paused_said: Sparingly,
    refused_said: Sparingly,
}

/// What came of it.
pub(crate) enum Accepted {
    /// Not a connection to be served.
    Nothing,
    Connection(Give, OwnedFd, Option<Place>),
}

/// A connection's place under the limit of its address, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Mutex<Addresses>>,
    key: AddressKey,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).release(self.key);
    }
}

impl Acceptor {
    pub fn new(listeners: Vec<OwnedFd>, hello: &Hello) -> io::Result<Acceptor> {
        let register = |fd: OwnedFd| UnixDatagram::from_std(fd.into());
        Ok(Acceptor {
            listeners: listeners.into_iter().map(register).collect::<io::Result<_>>()?,
            addresses: Arc::new(Mutex::new(Addresses::new(hello.per_address_max, hello.count_loopback))),
            next_id: u64::from(std::process::id()) << 32,
            rest_until: None,
            paused_said: Sparingly::default(),
            refused_said: Sparingly::default(),
        })
    }

    /// The next connection; never, if the master accepts. Nothing is lost when the future is dropped.
    pub async fn accept(&mut self) -> Accepted {
        // A moment, not a length of time: this future is dropped whenever something else happens.
        if let Some(until) = self.rest_until {
            tokio::time::sleep_until(until).await;
            self.rest_until = None;
        }
        let (listener, accepted) = self.next().await;
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !Errno::from_io_error(&error).is_some_and(concerns_one_connection) {
                    self.rest_until = Some(tokio::time::Instant::now() + ACCEPT_REST);
                    if self.paused_said.count(Instant::now()).is_some() {
                        tracing::warn!(listener, %error, "cannot accept for now");
                    }
                }
                return Accepted::Nothing;
            }
        };
        let place = match self.admit(peer) {
            Ok(place) => place,
            Err(()) => return Accepted::Nothing,
        };
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let give = Give { id, listener: u16::try_from(listener).unwrap_or(u16::MAX), peer, tell: false };
        Accepted::Connection(give, socket, place)
    }

    fn admit(&mut self, peer: Peer) -> Result<Option<Place>, ()> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = addresses.key(peer) else { return Ok(None) };
        if addresses.admit(key) {
            return Ok(Some(Place { addresses: Arc::clone(&self.addresses), key }));
        }
        if let Some(refused) = self.refused_said.count(Instant::now()) {
            tracing::warn!(?peer, refused, "too many connections from one address; further ones are closed");
        }
        Err(())
    }

    async fn next(&self) -> (usize, io::Result<(OwnedFd, Peer)>) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        poll_fn(|context| {
            for (index, listener) in self.listeners.iter().enumerate() {
                while let Poll::Ready(ready) = listener.poll_recv_ready(context) {
                    let accept = || Ok(acceptfrom_with(listener, flags)?);
                    match ready.and_then(|()| listener.try_io(Interest::READABLE, accept)) {
                        Ok((socket, peer)) => {
                            let peer = peer.and_then(|peer| peer.try_into().ok());
                            return Poll::Ready((index, Ok((socket, peer.map_or(Peer::Unix, Peer::Tcp)))));
                        }
                        // Somebody else was quicker: looks again, and is then woken by the next one.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Poll::Ready((index, Err(error))),
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}
