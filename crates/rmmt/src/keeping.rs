//! The daemon looks after its keeper: the other half of "any single process may be killed".
//!
//! ```text
//!   kept by the one that started us ──it ends──▶ a stand-in, started here ──it ends──▶ another stand-in
//!            ▲                                          │
//!            └── a supervised rmmt asks for the role ◀──┘   (a stand-in is dismissed; a real keeper is not pushed out)
//! ```
//!
//! Every keeper is given everything again. Changes that happen meanwhile go to the new one already, and what it is given
//! twice is the same. The one before is dismissed when the new one says that it has dealt with all of it, not before: a
//! program that ends at once, or is none, never becomes the only one.
//!
//! # What goes wrong
//! * **The keeper cannot hold something** (it has no descriptor left): it says so; the log tells, `unkept_descriptors` in
//!   the metrics counts, and it is given to the keeper again every [`AGAIN`] until it is held.
//! * **SIGHUP to the keeper, but the program's file cannot serve**: it is asked to check these settings first, then has to
//!   become a stand-in. If one of the two fails, the keeper is told to stay, and the log says why.
//! * **The keeper is gone and no other can be started**: tried again after growing pauses; members notice nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use baton_keeper::{Deposit, Heard, Ward, WardError};
use baton_wire::attach::{ErrorCode, Failure};
use tokio::sync::Notify;

use crate::registry::{Peer, Shared};
use crate::role::{self, Which};
use crate::watch::async_fd;

/// Rest between two tries to start a keeper.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a new keeper may take to deal with everything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries to give the keeper what it could not hold.
const AGAIN: Duration = Duration::from_millis(250);

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
    /// Keys of what the keeper could not hold.
    unkept: RefCell<BTreeSet<String>>,
}

/// Why a keeper does not keep.
#[derive(Debug, thiserror::Error)]
enum HandError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Ward(WardError),
    #[error("it ended before it held everything")]
    Ended,
    #[error("it does not say within {} s that it holds everything", PATIENCE.as_secs())]
    Silent,
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<WardError> for HandError {
    fn from(error: WardError) -> Self {
        match error {
            WardError::NoKeeper => Self::Ended,
            error => Self::Ward(error),
        }
    }
}

impl Keeping {
    pub(crate) fn new() -> Self {
        Self {
            stand_in: Cell::new(role::keeper_is_stand_in()),
            changing: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            started: Cell::new(0),
            asked: RefCell::new(None),
            unkept: RefCell::default(),
        }
    }

    /// How many descriptors would be lost with this daemon.
    pub(crate) fn unkept(&self) -> usize {
        self.unkept.borrow().len()
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
            let has_unkept = self.unkept() > 0;
            let heard = tokio::select! {
                heard = hear(&ward) => heard,
                () = tokio::time::sleep(AGAIN), if has_unkept => {
                    self.deposit_again(registry, &ward).await;
                    continue;
                }
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
                Heard::Refused(key) => self.refused(key),
                Heard::Held(key) => {
                    if self.unkept.borrow_mut().remove(&key) {
                        tracing::info!("rmmt: the keeper holds `{key}` now");
                    }
                }
                Heard::Complete => {} // of the keeper that started this daemon
                Heard::Gone => {
                    tracing::warn!("rmmt: the keeper has ended; starting another one");
                    pause = if begin.elapsed() >= SETTLED { Duration::ZERO } else { pause };
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                    self.start(registry, Which::Same).await;
                }
                Heard::Replace => {
                    if !self.replace(registry).await {
                        registry.borrow().chest.tell(Ward::stay);
                    }
                }
            }
        }
    }

    fn refused(&self, key: String) {
        if self.unkept.borrow_mut().insert(key.clone()) {
            tracing::error!(
                "rmmt: the keeper cannot hold `{key}`: it would be lost if this daemon were killed; raise the limit of open \
                 files (it is tried again until then)"
            );
        }
    }

    /// Gives the keeper once more what it could not hold.
    async fn deposit_again(&self, registry: &Shared, ward: &Arc<Ward>) {
        let lacking = registry.borrow().deposits(|key| self.unkept.borrow().contains(key));
        let lacking = match lacking {
            Ok(lacking) => lacking,
            Err(error) => return tracing::debug!("rmmt: nothing can be given to the keeper now: {error}"),
        };
        // Whose key is not there any more has ended meanwhile.
        self.unkept.borrow_mut().retain(|key| lacking.iter().any(|deposit| deposit.key == *key));
        if let Err(error) = give(ward, lacking).await {
            tracing::debug!("rmmt: the keeper was not given what it lacks: {error}");
        }
    }

    /// Another keeper, of the program's file as it is now. False if there is none, and the one before stays.
    async fn replace(&self, registry: &Shared) -> bool {
        match role::check_file().await {
            Ok(_) => self.start(registry, Which::File).await,
            Err((path, error)) => {
                tracing::error!(
                    "rmmt: {} cannot take over, so this program goes on: {error}",
                    path.display()
                );
                false
            }
        }
    }

    /// A keeper of our own. False if there is none.
    async fn start(&self, registry: &Shared, which: Which) -> bool {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!("rmmt: no keeper can be started: {error}");
            false
        };
        let (ward, theirs) = match Ward::pair() {
            Ok(pair) => pair,
            Err(error) => return failed(&error),
        };
        let mut command = match role::stand_in(theirs, which) {
            Ok(command) => tokio::process::Command::from(command),
            Err(error) => return failed(&error),
        };
        match command.spawn() {
            Ok(mut child) => {
                drop(command); // and with it our copy of its end
                let pid = child.id().unwrap_or(0);
                // Waited for, so that nothing of it stays when it ends.
                tokio::task::spawn_local(async move { child.wait().await });
                self.started.set(self.started.get() + 1);
                let kept = self.hand_to(registry, Arc::new(ward)).await;
                if kept {
                    tracing::info!("rmmt: pid={pid} keeps the pool's descriptors now");
                    self.stand_in.set(true);
                }
                kept
            }
            Err(error) => failed(&error),
        }
    }

    /// Gives everything to another keeper and dismisses the one before. If that fails, the one before stays.
    async fn hand_to(&self, registry: &Shared, ward: Arc<Ward>) -> bool {
        let _one_at_a_time = self.changing.lock().await;
        let before = registry.borrow_mut().chest.change_ward(Some(Arc::clone(&ward)));
        self.unkept.borrow_mut().clear(); // it is given everything
        match self.keeps_all(registry, &ward).await {
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
                    if let Err(error) = give_all(registry, &before).await {
                        tracing::error!("rmmt: the keeper could not be given everything: {error}");
                    }
                }
                false
            }
        }
    }

    /// Gives it everything, until it says that it has dealt with that.
    async fn keeps_all(&self, registry: &Shared, ward: &Arc<Ward>) -> Result<(), HandError> {
        give_all(registry, ward).await?;
        let complete = async {
            loop {
                match hear(ward).await {
                    Heard::Complete => return Ok(()),
                    Heard::Refused(key) => self.refused(key),
                    Heard::Gone => return Err(HandError::Ended),
                    // Another wish can wait until this keeper is one.
                    Heard::Held(_) | Heard::Replace | Heard::Retire => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, complete).await.map_err(|_| HandError::Silent)?
    }
}

async fn give_all(registry: &Shared, ward: &Arc<Ward>) -> Result<(), HandError> {
    let all = registry.borrow().deposits(|_| true)?;
    give(ward, all).await?;
    Ok(ward.ready()?)
}

async fn give(ward: &Arc<Ward>, deposits: Vec<Deposit>) -> Result<(), HandError> {
    let ward = Arc::clone(ward);
    // More than fits a socket waits for a process that only starts: not on the thread that serves.
    let given = tokio::task::spawn_blocking(move || {
        deposits.iter().try_for_each(|it| ward.deposit(&it.key, &it.note, it.fd.as_fd()))
    });
    Ok(given.await??)
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
