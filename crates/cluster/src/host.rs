//! The connections of a worker: each is a task, counted from its first moment to its last.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use baton_address::Stream;
use tokio::task::JoinSet;

use crate::acceptor::Place;
use crate::load::Load;
use crate::message::{Give, Word};
use crate::{Connection, ConnectionId, Draining, Service};

#[derive(Debug)]
pub(crate) struct Host<S> {
    service: S,
    load: Load,
    draining: Draining,
    /// Ended connections that the master wants to hear about.
    closed: Mutex<Vec<ConnectionId>>,
}

impl<S: Service> Host<S> {
    pub fn new(service: S, load: Load, draining: Draining) -> Host<S> {
        Host { service, load, draining, closed: Mutex::new(Vec::new()) }
    }

    /// Begins to serve a connection. `place` is given back when it ends.
    pub fn take(
        self: &Arc<Self>,
        connections: &mut JoinSet<()>,
        give: &Give,
        socket: OwnedFd,
        place: Option<Place>,
    ) {
        self.load.connection_taken();
        let open = Open { host: Arc::clone(self), tell: give.tell.then_some(give.id), _place: place };
        let (id, peer, listener) = (give.id, give.peer, usize::from(give.listener));
        let stream = Stream::from_fd(socket);
        connections.spawn(async move {
            // Dropped when the service has ended, well or badly.
            let open = open;
            let host = &open.host;
            match stream {
                Ok(stream) => {
                    let (load, draining) = (host.load.clone(), host.draining.clone());
                    host.service.serve(Connection { id, stream, peer, listener, load, draining }).await;
                }
                // The socket is of no use, to this process or to any other.
                Err(error) => tracing::warn!(%error, "a connection is of no use and closed"),
            }
        });
    }

    /// What the master is to hear now that connections have ended.
    pub fn news(&self) -> Vec<Word> {
        let mut news = Vec::new();
        let closed = std::mem::take(&mut *self.closed.lock().unwrap_or_else(PoisonError::into_inner));
        if !closed.is_empty() {
            news.push(Word::Closed(closed));
        }
        if self.load.take_wanted() {
            news.push(Word::Room);
        }
        news
    }
}

/// An open connection, as far as it is counted.
struct Open<S: Service> {
    host: Arc<Host<S>>,
    tell: Option<ConnectionId>,
    _place: Option<Place>,
}

impl<S: Service> Drop for Open<S> {
    fn drop(&mut self) {
        self.host.load.connection_closed();
        if let Some(id) = self.tell {
            self.host.closed.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
    }
}
