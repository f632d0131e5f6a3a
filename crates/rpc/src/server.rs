//! A server in one process: accepts, and serves each connection in a task of its own.

use std::io;
use std::time::Duration;

use baton_address::{Address, AsyncListener, BindError, Stream};
use baton_wire::json_frame::code;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::connection::say_and_close;
use crate::{Limits, Router, RpcError, StreamEnd, serve_stream_until};

/// How long accepting rests when the process has no descriptor or memory left for another connection. The connections
/// wait in the kernel's queue meanwhile; without a rest the loop would spin on the same error.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Connections that may be in the course of being told [`code::BUSY`] at the same time; further ones are just closed.
const REFUSALS: usize = 64;

/// A bound server, not accepting yet.
#[derive(Debug)]
pub struct Server {
    listener: AsyncListener,
    limits: Limits,
}

/// Why a server stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket itself is broken.
    #[error("cannot accept at {address} any more: {source}")]
    Accept {
        /// Where.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
}

impl Server {
    /// Binds and listens at `ip://HOST:PORT` (port 0: any) or `un://PATH` (mode 0600; the socket file of a killed server
    /// is replaced, that of a living one is not).
    ///
    /// # Errors
    /// [`BindError`], whose sentence says what to do.
    pub async fn bind(uri: &str) -> Result<Server, BindError> {
        let address: Address = uri.parse()?;
        let listener = address.bind()?;
        let listener = AsyncListener::new(listener).map_err(|source| BindError::Io { address, source })?;
        Ok(Server { listener, limits: Limits::default() })
    }

    /// Replaces the default limits.
    pub fn with_limits(self, limits: Limits) -> Server {
        Server { limits, ..self }
    }

    /// The address in use, with the port that the kernel chose.
    pub fn local_uri(&self) -> String {
        self.listener.local().to_string()
    }

    /// Serves until `shutdown` is ready; then accepts no more, lets requests under way finish for [`Limits::drain`],
    /// and removes the socket file.
    ///
    /// # Errors
    /// [`ServeError`] if the listening socket breaks. No connection and no lack of descriptors ends the server.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Server { listener, limits } = self;
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut refusals = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        let result = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break Ok(()),
                Some(_) = connections.join_next() => {}
                Some(_) = refusals.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(stream) if connections.len() < limits.connections => {
                        connections.spawn(connection(stream, router.clone(), limits.clone(), stopped.clone()));
                    }
                    Ok(stream) if refusals.len() < REFUSALS => {
                        refusals.spawn(refuse(stream, limits.clone()));
                    }
                    Ok(_) => {}
                    Err(error) => match classify(&error) {
                        Trouble::Connection => {}
                        Trouble::Shortage => {
                            tracing::warn!(%error, at = %listener.local(), "cannot accept for now");
                            tokio::time::sleep(ACCEPT_REST).await;
                        }
                        Trouble::Listener => {
                            break Err(ServeError::Accept { address: listener.local().clone(), source: error });
                        }
                    },
                },
            }
        };
        drop(listener);
        stop.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.drain, drained).await.is_err() {
            tracing::info!(connections = connections.len(), "requests cut off at shutdown");
        }
        connections.shutdown().await;
        result
    }
}

async fn connection(stream: Stream, router: Router, limits: Limits, mut stopped: watch::Receiver<bool>) {
    let stop = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    match serve_stream_until(stream, Vec::new(), router, limits, stop).await {
        StreamEnd::Closed | StreamEnd::Stopped { .. } => {}
        end => tracing::debug!(?end, "a connection ended early"),
    }
}

async fn refuse(mut stream: Stream, limits: Limits) {
    let message = format!("{} connections are open, which is the limit; try again later", limits.connections);
    say_and_close(&mut stream, &limits, RpcError::new(code::BUSY, message)).await;
}

enum Trouble {
    /// Of the connection that was about to be accepted: the next one is not affected.
    Connection,
    /// Of this process or host: passes when something is given back.
    Shortage,
    /// Of the listening socket.
    Listener,
}

fn classify(error: &io::Error) -> Trouble {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Trouble::Shortage,
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT) => {
            Trouble::Listener
        }
        _ => Trouble::Connection,
    }
}
