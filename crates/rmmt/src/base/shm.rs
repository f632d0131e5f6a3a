//! The name of a named pool: taken at creation, kept over the daemon's deaths by the keeper, removed at a clean end.

use std::os::fd::OwnedFd;

use baton_keeper::{Deposit, WardError};
use baton_pool::{Geometry, Pool, PoolConfig, PoolFds};

use super::BaseError;
use crate::chest::Chest;

/// Deposited before the pool itself: a daemon killed between the two leaves a name that its successor finds taken, until
/// it has given the deposit back.
pub(super) const NAME: &str = "shm-name";

/// A name in /dev/shm that is ours.
#[derive(Debug)]
pub(crate) struct Shm {
    pub(crate) name: String,
    /// Holds the lock on it.
    lock: OwnedFd,
}

impl Shm {
    /// Creates the pool under this name.
    pub(super) fn create(
        name: &str,
        config: &PoolConfig,
        chest: &mut Chest,
    ) -> Result<(Pool, PoolFds, Self), BaseError> {
        let bytes = Geometry::plan(config).map_err(baton_pool::CreateError::from)?.payload_bytes();
        let made = baton_shm::create_named(name, bytes)?;
        let shm = Self { name: name.to_owned(), lock: made.lock };
        let created = chest
            .put(NAME, name.as_bytes(), &shm.lock)
            .map_err(BaseError::from)
            .and_then(|()| Ok(Pool::create_over(config, made.memory)?));
        let (pool, fds) = created.inspect_err(|_| shm.remove())?;
        if made.replaced {
            tracing::warn!("rmmt: /dev/shm{name} was left by a daemon that was killed; it is replaced");
        }
        tracing::info!("rmmt: the pool is /dev/shm{name}; who may write to it could truncate it");
        Ok((pool, fds, shm))
    }

    /// The name that the daemon before had.
    pub(super) fn adopt(deposit: Deposit, chest: &mut Chest) -> Result<Self, BaseError> {
        chest.own(NAME, &deposit.note, &deposit.fd).map_err(WardError::from)?;
        let name = String::from_utf8_lossy(&deposit.note).into_owned();
        tracing::info!("rmmt: the pool /dev/shm{name} of the daemon before is taken over");
        Ok(Self { name, lock: deposit.fd })
    }

    /// At a clean end.
    pub(crate) fn remove(&self) {
        if let Err(error) = baton_shm::remove_named(&self.name) {
            tracing::warn!("rmmt: /dev/shm{} cannot be removed: {error} (lock {:?})", self.name, self.lock);
        }
    }
}
