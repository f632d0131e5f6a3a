//! Who is a member: admission, names, hang-up, death.
//!
//! The truth about who holds what is in the pool's metadata, which survives the daemon. What only the daemon knows about
//! an endpoint lies beside its event descriptor at the keeper, as a [`Note`]. Order of an admission, and what a daemon
//! killed between two steps leaves:
//!
//! | step | killed after it |
//! |---|---|
//! | 1. `pool.admit` | an endpoint without a deposit: its member never got an answer; it is closed at adoption and reaped when its process ends |
//! | 2. deposit event descriptor and note | the member retries with the same token and gets this endpoint |
//! | 3. answer | – |
//!
//! An admission that cannot be answered (no descriptors left, or the asker gave up) is undone at once.

mod adoption;
mod clients;
mod departure;
mod lending;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use baton_keeper::Deposit;
use baton_killpoint::step;
use baton_pool::{Admission, AdmitError, BlockId, EndpointId, EndpointKind, EndpointRef, Pool};
use baton_wire::attach::{Access, Attach, ErrorCode, Failure, Name};
use prometheus_client::metrics::histogram::Histogram;
use rustix::event::EventfdFlags;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use crate::admission::Grant;
use crate::chest::Chest;
use crate::watch::{Process, ProcessError, monotonic_now};

/// Limits of the classes in which reaps are counted: a small pool takes microseconds, one with millions of blocks
/// milliseconds.
const REAP_SECONDS: [f64; 9] = [5e-5, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2];

/// What the kernel says about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) grant: Grant,
}

/// What the daemon knows about an endpoint beyond the pool's own record; kept at the keeper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    uid: u32,
    read_only: bool,
    token: u64,
    standing: Standing,
    /// When it was admitted: nanoseconds of the host's monotonic clock.
    #[serde(default)]
    born: u64,
}

/// How an endpoint stands with the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    /// A member, connected or (after a restart of the daemon) silent.
    Present,
    /// Hung up without a word: its process may still write to what it holds and even allocate, until it dies.
    HungUp,
    /// Said bye: it will never allocate again, so it is taken back as soon as it holds nothing.
    Left,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) endpoint: EndpointRef,
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) inbox: Option<String>,
    pub(crate) note: Note,
    /// Number of the session that speaks for it; `None` while silent or after a hang-up.
    pub(crate) session: Option<u64>,
    wake: OwnedFd,
    process: Rc<Process>,
    watcher: Option<AbortHandle>,
}

impl Entry {
    pub(crate) fn uid(&self) -> u32 {
        self.note.uid
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.note.read_only
    }
}

/// Why an endpoint is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its process is dead.
    Died,
    /// It said bye.
    Left,
    /// Its admission was never answered.
    Unfinished,
    /// The last connection of a classic client ended.
    Ended,
}

/// All members.
pub(crate) struct Registry {
    pool: Pool,
    pub(crate) chest: Chest,
    entries: BTreeMap<EndpointId, Entry>,
    /// The daemon's own endpoint, once it has one.
    own: Option<EndpointRef>,
    /// Blocks that tools look into now.
    lent: Vec<(EndpointRef, BlockId)>,
    /// Processes that died as members, since this daemon was started.
    deaths: Cell<u64>,
    /// How long it took to take back what somebody held.
    pub(crate) reaps: Histogram,
}

/// The registry as sessions and watchers share it: one thread, so a `RefCell` does.
pub(crate) type Shared = Rc<RefCell<Registry>>;

/// An admitted member: who it is now, and its event descriptor.
pub(crate) struct Admitted {
    pub(crate) endpoint: EndpointRef,
    pub(crate) wake: OwnedFd,
}

impl Registry {
    pub(crate) fn new(pool: Pool, chest: Chest) -> Self {
        let (entries, lent) = (BTreeMap::new(), Vec::new());
        let reaps = Histogram::new(REAP_SECONDS);
        Self { pool, chest, entries, own: None, lent, deaths: Cell::new(0), reaps }
    }

    /// Duplicates of what a keeper holds under keys that are `wanted`.
    pub(crate) fn deposits(&self, wanted: impl Fn(&str) -> bool) -> std::io::Result<Vec<Deposit>> {
        let mut all = self.chest.duplicates(&wanted)?;
        for entry in self.entries.values() {
            let key = deposit_key(entry.endpoint);
            if wanted(&key) {
                let note = serde_json::to_vec(&entry.note)?;
                all.push(crate::chest::duplicate(&key, &note, &entry.wake)?);
            }
        }
        Ok(all)
    }

    /// Tells the keeper that this daemon serves.
    pub(crate) fn ready(&self) {
        self.chest.tell(baton_keeper::Ward::ready);
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How many members died since this daemon was started.
    pub(crate) fn deaths(&self) -> u64 {
        self.deaths.get()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) fn entry(&self, id: EndpointId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// The process behind an endpoint.
    pub(crate) fn process(&self, endpoint: EndpointRef) -> Option<Rc<Process>> {
        self.entry(endpoint.id).filter(|e| e.endpoint == endpoint).map(|e| Rc::clone(&e.process))
    }

    /// Makes `peer` a member.
    pub(crate) fn admit(
        shared: &Shared,
        peer: Peer,
        ask: &Attach,
        session: u64,
        socket: impl AsFd,
    ) -> Result<Admitted, Failure> {
        let internal = |what: &str, error: &dyn std::fmt::Display| {
            tracing::error!("rmmt: admitting pid={} name={}: {what}: {error}", peer.pid, ask.name);
            Failure::new(ErrorCode::Internal, format!("the memory daemon could not admit you ({what})"))
        };
        if ask.access == Access::ReadWrite && !peer.grant.writes {
            return Err(Failure::new(
                ErrorCode::Denied,
                format!("user {} may attach as a reader only; attach read-only", peer.uid),
            ));
        }
        if let Some(again) = shared.borrow_mut().retried(peer, ask, session) {
            return again.map_err(|error| internal("event descriptor", &error));
        }
        let process = Process::of_peer(socket, peer.pid, ask.start_time).map_err(|error| match error {
            ProcessError::Ended { .. } => Failure::new(
                ErrorCode::NotYou,
                format!(
                    "pid {} is not the process that said hello (did it end, or fork after connecting?)",
                    peer.pid
                ),
            ),
            ProcessError::Io { .. } => internal("pidfd", &error),
        })?;
        let endpoint = {
            let mut registry = shared.borrow_mut();
            if let Some(inbox) = &ask.inbox {
                registry.free_name(inbox)?;
            }
            step!(AdmitFollowed);
            let endpoint = registry.pool_admit(peer, ask)?;
            step!(AdmitInPool);
            let note = Note {
                uid: peer.uid,
                read_only: ask.access == Access::ReadOnly,
                token: ask.token,
                standing: Standing::Present,
                born: monotonic_now(),
            };
            let wake = match registry.event_descriptor(endpoint, &note) {
                Ok(wake) => wake,
                Err(error) => {
                    registry.take_back(endpoint, peer.pid, ask.name.as_str(), Cause::Unfinished);
                    return Err(internal("event descriptor", &error));
                }
            };
            step!(AdmitDeposited);
            let entry = Entry {
                endpoint,
                pid: peer.pid,
                name: ask.name.to_string(),
                inbox: ask.inbox.as_ref().map(Name::to_string),
                note,
                session: Some(session),
                wake,
                process: Rc::new(process),
                watcher: None,
            };
            registry.entries.insert(endpoint.id, entry);
            endpoint
        };
        watch(shared, endpoint);
        step!(AdmitEntered);
        let duplicate = shared.borrow().entry(endpoint.id).map(|entry| entry.wake.try_clone());
        match duplicate {
            Some(Ok(wake)) => Ok(Admitted { endpoint, wake }),
            Some(Err(error)) => {
                shared.borrow_mut().undo(endpoint);
                Err(internal("event descriptor", &error))
            }
            None => Err(internal("registry", &"the endpoint is gone")),
        }
    }

    /// The endpoint that an earlier, unanswered try of the same request made.
    fn retried(&mut self, peer: Peer, ask: &Attach, session: u64) -> Option<std::io::Result<Admitted>> {
        let entry = self.entries.values_mut().find(|e| {
            e.pid == peer.pid
                && e.note.token == ask.token
                && e.session.is_none()
                && e.note.standing == Standing::Present
        })?;
        let endpoint = entry.endpoint;
        Some(entry.wake.try_clone().map(|wake| {
            entry.session = Some(session);
            Admitted { endpoint, wake }
        }))
    }

    fn pool_admit(&self, peer: Peer, ask: &Attach) -> Result<EndpointRef, Failure> {
        let admission = Admission {
            pid: peer.pid,
            start_time: ask.start_time,
            name: ask.name.to_string(),
            inbox: ask.inbox.as_ref().map(Name::to_string),
            kind: EndpointKind::Attached,
            quota_bytes: peer.grant.quota,
        };
        self.pool.admit(&admission).map_err(|error: AdmitError| {
            tracing::warn!("rmmt: pid={} name={} cannot be admitted: {error}", peer.pid, ask.name);
            Failure::new(ErrorCode::Busy, error.to_string())
        })
    }

    fn event_descriptor(
        &self,
        endpoint: EndpointRef,
        note: &Note,
    ) -> Result<OwnedFd, Box<dyn std::error::Error>> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        self.deposit(endpoint, note, wake.as_fd())?;
        Ok(wake)
    }

    fn deposit(
        &self,
        endpoint: EndpointRef,
        note: &Note,
        wake: BorrowedFd<'_>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        Ok(self.chest.deposit(&deposit_key(endpoint), &serde_json::to_vec(note)?, wake)?)
    }

    /// Makes sure that no living process has `inbox`.
    fn free_name(&mut self, inbox: &Name) -> Result<(), Failure> {
        let Some(holder) = self.entries.values().find(|e| e.inbox.as_deref() == Some(inbox.as_str())) else {
            return Ok(());
        };
        let (endpoint, pid) = (holder.endpoint, holder.pid);
        if holder.process.has_ended() {
            self.reap(endpoint, Cause::Died); // its successor was faster than the watcher
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::InboxTaken,
            format!("process {pid} ({}) receives at inbox `{inbox}` already", holder.name),
        ))
    }

    /// Whether `session` may speak for the endpoint again.
    pub(crate) fn resume(
        &mut self,
        peer: Peer,
        endpoint: EndpointRef,
        token: u64,
        session: u64,
    ) -> Result<(), Failure> {
        let entry = self.entries.get_mut(&endpoint.id).filter(|e| {
            // A hung-up endpoint has no inbox to come back to: it attaches again.
            e.endpoint == endpoint
                && e.pid == peer.pid
                && e.note.token == token
                && e.note.standing == Standing::Present
        });
        match entry {
            Some(entry) => {
                entry.session = Some(session);
                step!(ResumeEntered);
                Ok(())
            }
            None => Err(Failure::new(
                ErrorCode::UnknownEndpoint,
                "this endpoint is not in the pool (any more); connect again".to_owned(),
            )),
        }
    }

    /// The reader of `inbox`, with its event descriptor.
    pub(crate) fn open_inbox(&mut self, inbox: &Name) -> Result<Admitted, Failure> {
        let not_found =
            || Failure::new(ErrorCode::NotFound, format!("nobody receives at inbox `{inbox}` now"));
        let entry = self
            .entries
            .values()
            .find(|e| e.inbox.as_deref() == Some(inbox.as_str()))
            .ok_or_else(not_found)?;
        let endpoint = entry.endpoint;
        if entry.process.has_ended() {
            self.reap(endpoint, Cause::Died);
            return Err(not_found());
        }
        step!(OpenFound);
        let wake = entry.wake.try_clone().map_err(|error| {
            tracing::error!("rmmt: inbox {inbox} cannot be opened: {error}");
            Failure::new(ErrorCode::Internal, "the memory daemon has too many open files")
        })?;
        Ok(Admitted { endpoint, wake })
    }

    pub(crate) fn wake(&self, sleepers: &[EndpointId]) {
        for entry in sleepers.iter().filter_map(|id| self.entries.get(id)) {
            // A full counter (EAGAIN) wakes as well.
            let _ = rustix::io::write(&entry.wake, &1u64.to_ne_bytes());
        }
    }
}

/// Starts the task that reaps the endpoint when its process ends.
fn watch(shared: &Shared, endpoint: EndpointRef) {
    let Some(process) = shared.borrow().entry(endpoint.id).map(|e| Rc::clone(&e.process)) else { return };
    let registry = Rc::clone(shared);
    let task = tokio::task::spawn_local(async move {
        process.ended().await;
        registry.borrow_mut().reap(endpoint, Cause::Died);
    });
    if let Some(entry) = shared.borrow_mut().entries.get_mut(&endpoint.id) {
        entry.watcher = Some(task.abort_handle());
    }
}

fn deposit_key(endpoint: EndpointRef) -> String {
    format!("event/{}/{}", endpoint.id, endpoint.incarnation)
}
