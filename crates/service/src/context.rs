//! What a service is given: its name, its place, its peers, and the order to end.

use std::future::Future;
use std::path::Path;

use aits_orders::RunDir;
use baton_client::{Client, ConnectOptions, Inbox};
use baton_rpc::{Router, Server};
use tokio::sync::watch;

use crate::ServiceError;

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

    /// Joins the pool at `rmmt.sock`; waits for the daemon as long as `options` say. Blocks: call it at the start.
    ///
    /// # Errors
    /// The daemon did not answer in time, or refused.
    pub fn pool(&self, options: ConnectOptions) -> Result<(Client, Inbox), ServiceError> {
        Ok(Client::connect(&self.run.uri("rmmt"), options)?)
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
        let path = self.run.socket(&self.name);
        remove_if_stale(&path).await?;
        let server = Server::bind(&self.run.uri(&self.name)).await?;
        tracing::info!("{} answers at {}", self.name, self.run.uri(&self.name));
        let result = server.serve(router, self.shutdown()).await;
        // Gone already if the server tidies up itself.
        let _maybe_gone = std::fs::remove_file(&path);
        Ok(result?)
    }
}

/// A socket file that nobody listens at is what a killed predecessor left.
async fn remove_if_stale(path: &Path) -> Result<(), ServiceError> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(ServiceError::failed(format!(
            "somebody already listens at {}; end it or choose another --run directory",
            path.display()
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Ok(std::fs::remove_file(path)?)
        }
        Err(_) => Ok(()), // not there, or something that `bind` will complain about
    }
}
