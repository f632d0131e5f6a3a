//! Setting up a cluster, and the handle on the running one.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_address::{Address, BindError};
use rustix::event::EventfdFlags;
use tokio::sync::{oneshot, watch};

use crate::info::{ClusterInfo, Counts, SlotInfo, WorkerInfo};
use crate::load::LoadPage;
use crate::master::Master;
use crate::process::Recipe;
use crate::{Event, Policy, descriptors};

/// Settings of a cluster; [`Cluster::builder`] makes one with the defaults.
pub struct Builder {
    uris: Vec<String>,
    pub(crate) workers: usize,
    pub(crate) policy: Policy,
    pub(crate) spread_max: u32,
    pub(crate) connections_max: u32,
    pub(crate) per_address_max: u32,
    pub(crate) count_loopback: bool,
    pub(crate) recipe: Recipe,
    pub(crate) unread_max: usize,
    pub(crate) pending_max: usize,
    pub(crate) stuck_after: Duration,
    pub(crate) ready_within: Duration,
    pub(crate) grace: Duration,
    pub(crate) on_event: Box<dyn Fn(&Event) + Send>,
}

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened at.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No address was given.
    #[error("a cluster needs an address to listen at")]
    NoAddress,
    /// Not one worker came up.
    #[error("none of {wanted} workers started ({reason}); their own output says why")]
    NoWorkers {
        /// How many were asked for.
        wanted: usize,
        /// What the last of them died of.
        reason: String,
    },
    /// The system refused something the master itself needs.
    #[error("the cluster's master cannot start: {0}")]
    Io(#[from] std::io::Error),
}

impl Builder {
    /// Listens at `ip://HOST:PORT` or `un://PATH`. May be called several times; a connection says which it came in by.
    pub fn listen(mut self, uri: impl Into<String>) -> Self {
        self.uris.push(uri.into());
        self
    }

    /// How many workers. Default: one per core.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How connections are spread. Default [`Policy::RoundRobin`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Round robin only: by how many the numbers of given connections may differ. With more than 1, a worker that was
    /// given a connection in the last millisecond, and is therefore awake, is given the next ones too, which saves
    /// wake-ups; what it has got beyond its turn it waits out. Default 1: strictly in turn.
    pub fn spread_max(mut self, connections: u32) -> Self {
        self.spread_max = connections.max(1);
        self
    }

    /// Connections that a worker may have open. When all workers have so many, further ones wait, first in the master
    /// ([`Builder::pending_max`]), then in the kernel's queue. Default 16,384.
    pub fn connections_max(mut self, connections: u32) -> Self {
        self.connections_max = connections.max(1);
        self
    }

    /// Connections that one address (an IPv4 address or an IPv6 /64) may have open; further ones are closed at once,
    /// counted, and reported by [`Event::AddressRefused`]. Unix sockets have no address; loopback addresses count only
    /// with [`Builder::count_loopback`]. Where the workers accept by themselves ([`Policy::ReusePort`],
    /// [`Policy::Shared`]) each of them counts on its own. `u32::MAX` turns it off. Default 1,024.
    pub fn per_address_max(mut self, connections: u32) -> Self {
        self.per_address_max = connections.max(1);
        self
    }

    /// Whether loopback addresses count as well. Default no: a proxy on this host speaks for all of its clients.
    pub fn count_loopback(mut self, count: bool) -> Self {
        self.count_loopback = count;
        self
    }

    /// The arguments that make this binary a worker (it then calls [`Worker::attach`](crate::Worker::attach)).
    pub fn worker_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.recipe.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Another binary for the workers. Default: the running one, even if its file was replaced meanwhile.
    pub fn worker_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.recipe.program = program.into();
        self
    }

    /// Connections that a worker may have been sent and not taken. Default 64, which its channel always has room for.
    pub fn unread_max(mut self, connections: usize) -> Self {
        self.unread_max = connections.max(1);
        self
    }

    /// Accepted connections that may wait for a worker; when so many wait, further ones stay in the kernel's queue.
    /// Default 256.
    pub fn pending_max(mut self, connections: usize) -> Self {
        self.pending_max = connections.max(1);
        self
    }

    /// A worker that leaves a connection untaken for so long is killed and replaced. Default 10 s.
    pub fn stuck_after(mut self, time: Duration) -> Self {
        self.stuck_after = time;
        self
    }

    /// How long [`Builder::start`] waits for workers that are still setting themselves up. Default 10 s.
    pub fn ready_within(mut self, time: Duration) -> Self {
        self.ready_within = time;
        self
    }

    /// At shutdown, how long workers may take to finish before they are killed. Default 1.5 s.
    pub fn grace(mut self, time: Duration) -> Self {
        self.grace = time;
        self
    }

    /// Called for each [`Event`], on the master's thread: be quick. Events are logged in any case.
    pub fn on_event(mut self, f: impl Fn(&Event) + Send + 'static) -> Self {
        self.on_event = Box::new(f);
        self
    }

    /// Binds, starts the workers and waits until each is ready or has failed. Accepts from then on.
    ///
    /// # Errors
    /// [`StartError`]. That some workers failed is none, as long as one is ready: they are tried again.
    pub async fn start(self) -> Result<Cluster, StartError> {
        if self.uris.is_empty() {
            return Err(StartError::NoAddress);
        }
        descriptors::raise_limit();
        let mut doors = Vec::new();
        for uri in &self.uris {
            let address = uri.parse::<Address>().map_err(BindError::from)?;
            // A Unix socket has no group of listeners: its one queue is shared.
            let group = self.policy == Policy::ReusePort && matches!(address, Address::Tcp { .. });
            doors.push(if group { address.bind_group(self.workers.max(1))? } else { vec![address.bind()?] });
        }
        let uris = doors.iter().flat_map(|door| door.first()).map(|door| door.local().to_string()).collect();
        let shared = Arc::new(Shared {
            wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(std::io::Error::from)?,
            order: Mutex::new(Order::Run),
            slots: Mutex::new(vec![None; self.workers]),
            counts: Counts::default(),
            page: LoadPage::new(self.workers)?,
            policy: self.policy,
            since: Instant::now(),
        });
        let (started, outcome) = oneshot::channel();
        let (over, ended) = watch::channel(false);
        let master = Master::new(self, doors, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("cluster-master".to_owned()).spawn(move || {
            master.run(started);
            over.send_replace(true);
        })?;
        // From here on, dropping the handle (or this future) ends the thread and the workers.
        let cluster = Cluster { uris, shared, ended, thread: Some(thread) };
        match outcome.await {
            Ok(Ok(())) => Ok(cluster),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Io(std::io::Error::other("its thread ended"))),
        }
    }
}

/// What the master is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Run,
    Drain,
    Kill,
}

/// What the master's thread and the handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub wake: OwnedFd,
    pub order: Mutex<Order>,
    pub slots: Mutex<Vec<Option<SlotInfo>>>,
    pub counts: Counts,
    pub page: LoadPage,
    pub policy: Policy,
    pub since: Instant,
}

impl Shared {
    fn give_order(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
        // Full only if it was never read: then the master is about to wake anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// A running cluster. Dropping it kills the workers at once; [`Cluster::shutdown`] lets them finish.
#[derive(Debug)]
pub struct Cluster {
    uris: Vec<String>,
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Cluster {
    /// Settings with their defaults.
    pub fn builder() -> Builder {
        Builder {
            uris: Vec::new(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            policy: Policy::default(),
            spread_max: 1,
            connections_max: 16_384,
            per_address_max: 1024,
            count_loopback: false,
            // Not `current_exe()`: that names a file which an upgrade may have replaced.
            recipe: Recipe { program: PathBuf::from("/proc/self/exe"), args: Vec::new() },
            unread_max: 64,
            pending_max: 256,
            stuck_after: Duration::from_secs(10),
            ready_within: Duration::from_secs(10),
            grace: Duration::from_millis(1500),
            on_event: Box::new(|_| {}),
        }
    }

    /// The address of the first listener, with the port that the kernel chose.
    pub fn local_uri(&self) -> &str {
        self.uris.first().map_or("", String::as_str)
    }

    /// The addresses of all listeners.
    pub fn local_uris(&self) -> &[String] {
        &self.uris
    }

    /// The workers that run at this moment.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.shared.workers()
    }

    /// The cluster as a whole, with its workers.
    pub fn info(&self) -> ClusterInfo {
        self.shared.info()
    }

    /// Their processes.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.workers().iter().map(|worker| worker.pid).collect()
    }

    /// Runs until `shutdown` is ready, then shuts down.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.shutdown().await;
    }

    /// Accepts no more, lets the workers finish within the grace time, kills the rest, and returns when all have ended.
    pub async fn shutdown(mut self) {
        self.shared.give_order(Order::Drain);
        let _ = self.ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !*self.ended.borrow() {
            self.shared.give_order(Order::Kill);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
