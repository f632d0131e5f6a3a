//! A master that accepts connections and passes the sockets to worker processes.
//!
//! ```text
//!                             ┌─ SCM_RIGHTS ─▶ worker 0 ─▶ Service (any protocol, many connections at once)
//!   client ─▶ kernel queue ─▶ master
//!              (accepts, chooses)      └─────▶ worker 1 …
//!                             ◀─ ready, taken, refused ─┘
//!                             ◀─ a page of memory: how much each has to do
//! ```
//!
//! Connections are handed out from one place, so every worker gets its share of them; with one accept queue shared
//! by all workers the kernel keeps waking the same ones. The master reads no byte of any client. A worker is a process of
//! its own, started anew from the same binary (never forked from a running one), and a crash takes down its own
//! connections only.
//!
//! # Use
//! The same binary is master and worker; an argument of your choice tells it which:
//!
//! ```no_run
//! use baton_cluster::{Cluster, Connection, Worker};
//! # async fn main_() -> Result<(), Box<dyn std::error::Error>> {
//! if std::env::args().any(|arg| arg == "--worker") {
//!     let worker = Worker::attach()?;
//!     // The process' own set-up goes here, asynchronous or not: the master sends nothing before `serve`.
//!     worker.serve(|connection: Connection| async move {
//!         let _ = connection; // `connection.stream` reads and writes; `connection.peer` is who
//!     }).await?;
//! } else {
//!     let cluster = Cluster::builder().listen("ip://127.0.0.1:8080").workers(4).worker_args(["--worker"]).start().await?;
//!     println!("listening at {}", cluster.local_uri());
//!     cluster.run_until(async { let _ = tokio::signal::ctrl_c().await; }).await;
//! }
//! # Ok(()) }
//! ```
//! `examples/echo.rs` is complete. A service that keeps state implements [`Service`] instead of giving a closure.
//!
//! # Who answers for a connection
//! ```text
//!   accepted ─▶ pending ─▶ sent to a worker, duplicate kept ──taken──▶ the worker's (the duplicate is closed)
//!                  ▲                    │
//!                  └── refused, or the worker died first ──┘
//! ```
//! The master keeps its own copy until the worker says that it has taken the connection, and a worker says so before it
//! reads from it. So what sits unread in the channel of a dying worker is passed on, and is never served twice.
//!
//! # What goes wrong
//! | what | then |
//! |---|---|
//! | a worker dies | replaced; at once, or after a growing rest if it keeps dying; what it had not taken is passed on |
//! | a worker is stopped or stuck | gets no more than [`Builder::unread_max`] connections; ended after [`Builder::stuck_after`] |
//! | a worker has no descriptor left | it names the connections that did not arrive, another one gets them |
//! | all workers are full, busy or dead | up to [`Builder::pending_max`] connections wait here, further ones in the kernel's queue |
//! | an address has too many connections | further ones are closed and counted ([`Builder::per_address_max`]) |
//! | the master has no descriptor left | accepting rests for 100 ms; nothing spins, nothing ends; workers can still be started |
//! | some workers do not start | a smaller cluster that works, and further attempts |
//! | no worker starts | [`StartError::NoWorkers`] |
//! | the master dies | the workers die with it (parent-death signal) |
//!
//! # Who gets a connection
//! [`Policy`] says: in turn (the default), to the worker with the fewest connections or the least load; or the kernel
//! decides and the master accepts nothing. In a burst up to 16 connections travel in one message.
//!
//! The limit of open descriptors of master and workers is raised to what the system allows.
//!
//! The master is one thread with an `epoll` loop, apart from the caller's runtime: a busy runtime cannot delay accepting,
//! and the parent-death signal follows the thread that started the workers.

#![forbid(unsafe_code)]

mod acceptor;
mod addresses;
mod builder;
mod descriptors;
mod door;
mod event;
mod host;
mod info;
mod load;
mod master;
mod message;
mod policy;
mod process;
mod service;
mod watch;
mod worker;

pub use baton_address::{Address, BindError, Stream};
pub use builder::{Builder, Cluster, StartError};
pub use event::Event;
pub use info::{ClusterInfo, WorkerInfo};
pub use load::Load;
pub use policy::{Policy, UnknownPolicy};
pub use service::{Connection, ConnectionId, Draining, Peer, Service};
pub use worker::{AttachError, Worker, WorkerError};
