//! The daemon looks after its keeper: the other half of "any single process may be killed".
//!
//! ```text
//!   kept by the one that started us ──it ends──▶ a stand-in, started here ──it ends──▶ another stand-in
//!            ▲                                          │
//!            └── a supervised rmmt asks for the role ◀──┘   (a stand-in is dismissed; a real keeper is not pushed out)
//! ```
//!
//! Every keeper is given everything again. Changes that happen meanwhile go to the new one already, and what it is given
//! twice is the same.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use baton_keeper::{Heard, Ward};
use baton_wire::attach::{ErrorCode, Failure};
use tokio::sync::Notify;

use crate::registry::{Peer, Shared};
use crate::role;
use crate::watch::async_fd;

/// Rest between two tries to start a keeper.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a keeper serves before its end counts as the first one again.
const SETTLED: Duration = Duration::from_secs(5);

/// Who keeps, and the word that it has changed.
pub(crate) struct Keeping {
    /// The keeper is one that this daemon (or one before it) started for want of another.
    stand_in: Cell<bool>,
    /// One change of keepers at a time.
    changing: tokio::sync::Mutex<()>,
    changed: Notify,
    /// Keepers started by this daemon.
    pub(crate) started: Cell<u64>,
    asked: RefCell<Option<Arc<Ward>>>,
}

impl Keeping {
    pub(crate) fn new() -> Self {
        Self {
            stand_in: Cell::new(role::keeper_is_stand_in()),
            changing: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            started: Cell::new(0),
            asked: RefCell::new(None),
        }
    }

    /// A supervised rmmt wants to keep: the descriptor to answer with. Its deposits follow.
    pub(crate) fn asked(&self, registry: &Shared, peer: Peer) -> Result<OwnedFd, Failure> {
        if peer.uid != rustix::process::geteuid().as_raw() && peer.uid != 0 {
            let text = "only a process of the daemon's own user can keep its descriptors";
            return Err(Failure::new(ErrorCode::Denied, text));
        }
        let Some(ward) = registry.borrow().chest.ward().cloned() else {
            return Err(Failure::new(ErrorCode::Busy, "another memory daemon runs here, without a keeper"));
        };
        if !self.stand_in.get() && !ward.is_gone() {
            return Err(Failure::new(
                ErrorCode::Busy,
                "another memory daemon runs here, and its keeper lives",
            ));
        }
        let (ward, theirs) = Ward::pair().map_err(|error| {
            tracing::error!("rmmt: pid={} wants to keep: {error}", peer.pid);
            Failure::new(ErrorCode::Internal, "the memory daemon has too many open files")
        })?;
        tracing::info!("rmmt: pid={} becomes the keeper", peer.pid);
        *self.asked.borrow_mut() = Some(Arc::new(ward));
        self.changed.notify_one();
        Ok(theirs)
    }

    /// Looks after the keeper until it wants the daemon to retire.
    pub(crate) async fn look_after(&self, registry: &Shared) {
        let mut pause = Duration::ZERO;
        loop {
            let ward = registry.borrow().chest.ward().cloned();
            let Some(ward) = ward else { return std::future::pending().await };
            let begin = tokio::time::Instant::now();
            let heard = tokio::select! {
                heard = hear(&ward) => heard,
                () = self.changed.notified() => {
                    let asked = self.asked.borrow_mut().take();
                    if let Some(ward) = asked
                        && self.hand_to(registry, ward).await
                    {
                        self.stand_in.set(false);
                    }
                    continue;
                }
            };
            match heard {
                Heard::Retire => return,
                Heard::Refused(key) => tracing::error!(
                    "rmmt: the keeper cannot hold `{key}`: it would be lost if this daemon were killed; raise the limit of \
                     open files"
                ),
                Heard::Gone | Heard::Replace => {
                    if heard == Heard::Gone {
                        tracing::warn!("rmmt: the keeper has ended; starting another one");
                    }
                    pause = if begin.elapsed() >= SETTLED { Duration::ZERO } else { pause };
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                    self.start(registry).await;
                }
            }
        }
    }

    /// A keeper of our own.
    async fn start(&self, registry: &Shared) {
        let (ward, theirs) = match Ward::pair() {
            Ok(pair) => pair,
            Err(error) => return tracing::error!("rmmt: no keeper can be started: {error}"),
        };
        let mut command = match role::stand_in(theirs) {
            Ok(command) => tokio::process::Command::from(command),
            Err(error) => return tracing::error!("rmmt: no keeper can be started: {error}"),
        };
        match command.spawn() {
            Ok(mut child) => {
                drop(command); // and with it our copy of its end
                tracing::info!("rmmt: pid={} keeps the pool's descriptors now", child.id().unwrap_or(0));
                // Waited for, so that nothing of it stays when it ends.
                tokio::task::spawn_local(async move { child.wait().await });
                self.started.set(self.started.get() + 1);
                if self.hand_to(registry, Arc::new(ward)).await {
                    self.stand_in.set(true);
                }
            }
            Err(error) => tracing::error!("rmmt: no keeper can be started: {error}"),
        }
    }

    /// Gives everything to another keeper and dismisses the one before. If that fails, the one before stays.
    async fn hand_to(&self, registry: &Shared, ward: Arc<Ward>) -> bool {
        let _one_at_a_time = self.changing.lock().await;
        let before = registry.borrow_mut().chest.change_ward(Some(Arc::clone(&ward)));
        match deposit_all(registry, &ward).await {
            Ok(()) => {
                if let Some(before) = before {
                    let _gone_already = before.dismiss();
                }
                true
            }
            Err(error) => {
                tracing::error!("rmmt: the new keeper could not be given everything: {error}");
                if let Some(before) = before.filter(|before| !before.is_gone()) {
                    registry.borrow_mut().chest.change_ward(Some(Arc::clone(&before)));
                    if let Err(error) = deposit_all(registry, &before).await {
                        tracing::error!("rmmt: the keeper could not be given everything: {error}");
                    }
                }
                false
            }
        }
    }
}

async fn deposit_all(
    registry: &Shared,
    ward: &Arc<Ward>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let all = registry.borrow().everything()?;
    let ward = Arc::clone(ward);
    // More than fits a socket waits for a process that only starts: not on the thread that serves.
    let deposited = tokio::task::spawn_blocking(move || {
        for deposit in &all {
            ward.deposit(&deposit.key, &deposit.note, std::os::fd::AsFd::as_fd(&deposit.fd))?;
        }
        ward.ready()
    });
    Ok(deposited.await??)
}

/// The next word of the keeper. Nothing is lost if this is given up.
async fn hear(ward: &Ward) -> Heard {
    let ears = ward.ears().and_then(async_fd);
    let ears = match ears {
        Ok(ears) => ears,
        Err(error) => {
            tracing::error!("rmmt: the keeper cannot be heard: {error}");
            return std::future::pending().await;
        }
    };
    loop {
        if let Some(heard) = Heard::read(ears.get_ref()) {
            return heard;
        }
        match ears.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_runtime_ends) => return std::future::pending().await,
        }
        // Between the look and the clearing something may have come, for which no new event is promised: look again.
        if let Some(heard) = Heard::read(ears.get_ref()) {
            return heard;
        }
    }
}
