//! What a service is given: its name, its place, its peers, and the order to end.

use std::future::Future;
use std::time::{Duration, Instant};

use aits_orders::RunDir;
use baton_client::{Client, ConnectError, ConnectOptions, Inbox};
use baton_rpc::{Limits, Router, Server};
use tokio::sync::watch;

use crate::ServiceError;

/// How long a refused attach is tried again, and how often.
const REFUSED_PATIENCE: Duration = Duration::from_secs(2);
const REFUSED_PACE: Duration = Duration::from_millis(20);
/// How long requests under way may take at shutdown. Long polls are cut off: their callers ask again.
const DRAIN: Duration = Duration::from_millis(200);

/// What [`run_service`](crate::run_service) hands to the work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceContext {
    /// The service's name, which is also the name of its socket.
    pub name: String,
    /// Where the sockets of the system are.
    pub run: RunDir,
    stopped: watch::Receiver<bool>,
}

impl ServiceContext {
    /// A context of one's own making, for tests and for programs that are no services. `stopped` becomes `true` (or its
    /// sender goes) when the service shall end.
    pub fn new(name: impl Into<String>, run: RunDir, stopped: watch::Receiver<bool>) -> Self {
        Self { name: name.into(), run, stopped }
    }

    /// Resolves at SIGTERM or SIGINT. May be called any number of times.
    pub fn shutdown(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.stopped.clone();
        async move {
            // A sender that is gone ends the service too.
            let _sender_alive = stopped.wait_for(|stop| *stop).await;
        }
    }

    /// Whether the order to end has come.
    pub fn is_shutting_down(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }

    /// Joins the pool at `rmmt.sock`; waits for the daemon as long as `options` say. A refusal is tried again too, but
    /// not for long: the inbox of a predecessor that was killed a moment ago is free as soon as the daemon has reaped it.
    /// Blocks: call it at the start.
    ///
    /// # Errors
    /// The daemon did not answer in time, or refused.
    pub fn pool(&self, options: ConnectOptions) -> Result<(Client, Inbox), ServiceError> {
        let uri = self.run.uri("rmmt");
        let refused_until = Instant::now() + REFUSED_PATIENCE;
        loop {
            match Client::connect(&uri, options.clone()) {
                Err(ConnectError::Refused { .. })
                    if Instant::now() < refused_until && !self.is_shutting_down() =>
                {
                    std::thread::sleep(REFUSED_PACE);
                }
                result => return Ok(result?),
            }
        }
    }

    /// A client of another service's socket. Connects at the first call, and again after a failure.
    pub fn rpc(&self, service: &str) -> baton_rpc::Client {
        baton_rpc::Client::new(self.run.uri(service))
    }

    /// Serves the methods at `<name>.sock` until shutdown, then takes the socket away.
    ///
    /// # Errors
    /// The socket cannot be bound (somebody else listens there), or accepting fails for good.
    pub async fn serve(&self, router: Router) -> Result<(), ServiceError> {
        let mut limits = Limits::default();
        limits.drain = DRAIN;
        let server = Server::bind(&self.run.uri(&self.name)).await?.with_limits(limits);
        tracing::info!("{} answers at {}", self.name, self.run.uri(&self.name));
        Ok(server.serve(router, self.shutdown()).await?)
    }
}
