//! What happens in a cluster, for logs and for whoever watches.

/// Something worth a line in the log. `slot` counts from 0 and names the place that a worker fills; its successors
/// have the same slot and another pid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A worker process was started; it is setting itself up.
    WorkerStarted {
        /// Its place.
        slot: usize,
        /// Its process.
        pid: u32,
        /// How many were started in this place before it: 0 for the first, above for a replacement.
        generation: u32,
    },
    /// A worker takes connections from now on.
    WorkerReady {
        /// Its place.
        slot: usize,
        /// Its process.
        pid: u32,
    },
    /// A worker's process ended.
    WorkerDied {
        /// Its place.
        slot: usize,
        /// Its process.
        pid: u32,
        /// How: `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
        /// Connections that it had not taken yet; they are passed on.
        passed_on: usize,
    },
    /// A worker did not take a connection for too long and is being ended.
    WorkerStuck {
        /// Its place.
        slot: usize,
        /// Its process.
        pid: u32,
    },
    /// A worker could not be started; it will be tried again.
    SpawnFailed {
        /// Its place.
        slot: usize,
        /// What the system said.
        error: String,
    },
    /// An address has as many connections open as it may ([`Builder::per_address_max`](crate::Builder::per_address_max));
    /// further ones are closed. At most one such event a second, whatever the address.
    AddressRefused {
        /// The last one refused.
        address: std::net::IpAddr,
        /// Connections refused since the last event.
        refused: u64,
    },
    /// Every worker that could take a connection has as many as it may
    /// ([`Builder::connections_max`](crate::Builder::connections_max)). At most one such event a second.
    AllFull {
        /// Connections that wait in the master; further ones wait in the kernel's queue.
        pending: usize,
    },
    /// Accepting rests for a moment. At most one such event a second from each listener.
    AcceptPaused {
        /// Which listener, in the order of [`Builder::listen`](crate::Builder::listen).
        listener: usize,
        /// What the system said.
        error: String,
    },
}

impl Event {
    pub(crate) fn log(&self) {
        match self {
            Event::WorkerStarted { slot, pid, generation } => {
                tracing::info!(slot, pid, generation, "worker started");
            }
            Event::WorkerReady { slot, pid } => tracing::info!(slot, pid, "worker ready"),
            Event::WorkerDied { slot, pid, status, passed_on } => {
                tracing::warn!(slot, pid, status, passed_on, "worker died");
            }
            Event::WorkerStuck { slot, pid } => tracing::warn!(slot, pid, "worker stuck, ending it"),
            Event::SpawnFailed { slot, error } => tracing::error!(slot, error, "worker could not be started"),
            Event::AddressRefused { address, refused } => {
                tracing::warn!(%address, refused, "too many connections from one address; further ones are closed");
            }
            Event::AllFull { pending } => {
                tracing::warn!(pending, "every worker has as many connections as it may; further ones wait");
            }
            Event::AcceptPaused { listener, error } => {
                tracing::warn!(listener, error, "cannot accept for now");
            }
        }
    }
}
