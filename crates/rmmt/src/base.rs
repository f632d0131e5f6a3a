//! What the daemon stands on: the lock, the pool's two memory files, the listening sockets. Made, or adopted from the
//! keeper.
//!
//! ```text
//!   deposits under the keeper:  lock, metadata, payload, listener/…   all there ─▶ adopt
//!                               anything less (killed while starting)          ─▶ keep the lock, make the rest anew
//! ```

mod files;
mod listeners;
mod shm;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use baton_address::BindError;
use baton_keeper::{Deposit, WardError};
use baton_killpoint::step;
use baton_pool::{Pool, PoolConfig, PoolFds};
use rustix::fs::{Mode, OFlags};

use crate::Args;
use crate::chest::Chest;
use crate::watch::monotonic_now;
pub(crate) use files::Files;
pub(crate) use listeners::{Listeners, Places};
pub(crate) use shm::Shm;

/// Everything the daemon serves from.
pub(crate) struct Base {
    pub(crate) pool: Pool,
    pub(crate) fds: PoolFds,
    /// The payload, opened again without the right to write.
    pub(crate) payload_read_only: OwnedFd,
    pub(crate) listeners: Listeners,
    pub(crate) files: Files,
    /// The pool's name, if it has one.
    pub(crate) shm: Option<Shm>,
    /// How many daemons served this pool before: 0 if it is new.
    pub(crate) lives: u32,
    /// When the pool was made: nanoseconds of the host's monotonic clock, which tell it from every other one here.
    pub(crate) id: u64,
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    #[error("--listen {given}: {reason}")]
    Address { given: String, reason: String },
    #[error("--metrics {given}: {reason}")]
    Metrics { given: String, reason: String },
    #[error("another memory daemon runs at {0}; stop it, or choose another path with --listen")]
    Locked(PathBuf),
    #[error("cannot lock {path}: {source}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Bind(#[from] BindError),
    #[error("--listen {given}: the socket of the daemon before is of no use: {source}")]
    Listener { given: String, source: io::Error },
    #[error("{0}")]
    Create(#[from] baton_pool::CreateError),
    #[error("{0}")]
    Name(#[from] baton_shm::NamedError),
    #[error("the pool of the daemon before cannot be taken over: {0}")]
    Adopt(#[from] baton_pool::OpenError),
    #[error("the pool's memory cannot be opened for readers: {0}")]
    Readers(#[source] io::Error),
    #[error("{0}")]
    Keeper(#[from] WardError),
}

impl BaseError {
    /// Whether another command line would help.
    pub(crate) fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Address { .. }
                | Self::Metrics { .. }
                | Self::Create(_)
                | Self::Name(_)
                | Self::Bind(_)
                | Self::Lock { .. }
        )
    }
}

pub(crate) const LOCK: &str = "lock";
pub(crate) const METADATA: &str = "metadata";
pub(crate) const PAYLOAD: &str = "payload";
/// The socket of `--metrics`; the note as below.
pub(crate) const METRICS: &str = "metrics";
/// Followed by the listener's number; the note is the address as it was given.
pub(crate) const LISTENER: &str = "listener/";

impl Base {
    /// Takes over what `deposits` hold, or starts anew. Deposits that are not ours stay in the list.
    pub(crate) fn lay(
        args: &Args,
        chest: &mut Chest,
        deposits: &mut Vec<Deposit>,
    ) -> Result<Self, BaseError> {
        let places = Places::parse(args)?;
        let mut take = |key: &str| {
            let at = deposits.iter().position(|d| d.key == key)?;
            Some(deposits.swap_remove(at))
        };
        let (lock, metadata, payload) = (take(LOCK), take(METADATA), take(PAYLOAD));
        let name = take(shm::NAME);
        let held = deposits.extract_if(.., |d| d.key == METRICS || d.key.starts_with(LISTENER)).collect();

        let files = Files::lock(&places, lock.map(|d| d.fd), chest)?;
        let memory = memory(args, chest, metadata.zip(payload), name);
        let laid = memory.and_then(|memory| {
            let laid = reopen_read_only(&memory.fds.payload)
                .map_err(BaseError::Readers)
                .and_then(|payload_read_only| Ok((payload_read_only, places.listen(chest, held)?)));
            let (payload_read_only, listeners) =
                laid.inspect_err(|_| memory.shm.iter().for_each(Shm::remove))?;
            Ok((memory, payload_read_only, listeners))
        });
        // A refused start leaves nothing behind; the lock itself is still held while its file goes.
        let (Memory { pool, fds, lives, id, shm }, payload_read_only, listeners) =
            laid.inspect_err(|_| files.remove_lock())?;
        Ok(Self { pool, fds, payload_read_only, listeners, files, shm, lives, id })
    }
}

struct Memory {
    pool: Pool,
    fds: PoolFds,
    lives: u32,
    id: u64,
    shm: Option<Shm>,
}

fn memory(
    args: &Args,
    chest: &mut Chest,
    held: Option<(Deposit, Deposit)>,
    name: Option<Deposit>,
) -> Result<Memory, BaseError> {
    match held {
        Some((metadata, payload)) => {
            let before = <[u8; 4]>::try_from(payload.note.as_slice()).map_or(0, u32::from_le_bytes);
            let lives = before.saturating_add(1);
            let id = <[u8; 8]>::try_from(metadata.note.as_slice()).map_or(0, u64::from_le_bytes);
            let fds = PoolFds { metadata: metadata.fd, payload: payload.fd };
            let pool = Pool::open(&fds.metadata, &fds.payload)?;
            step!(AdoptOpened);
            chest.own(METADATA, &metadata.note, &fds.metadata).map_err(WardError::from)?;
            chest.put(PAYLOAD, &lives.to_le_bytes(), &fds.payload)?;
            let shm = name.map(|name| Shm::adopt(name, chest)).transpose()?;
            Ok(Memory { pool, fds, lives, id, shm })
        }
        None => {
            if let Some(half_made) = name {
                drop(half_made); // its lock would be in our own way
                chest.withdraw(shm::NAME);
            }
            let (pool, fds, shm) = match &args.shm_name {
                Some(name) => {
                    let (pool, fds, shm) = Shm::create(name, &config(args), chest)?;
                    (pool, fds, Some(shm))
                }
                None => {
                    let (pool, fds) = Pool::create(&config(args))?;
                    (pool, fds, None)
                }
            };
            step!(StartPoolCreated);
            let id = monotonic_now();
            chest.put(METADATA, &id.to_le_bytes(), &fds.metadata)?;
            step!(StartMetadataDeposited);
            chest.put(PAYLOAD, &0u32.to_le_bytes(), &fds.payload)?;
            step!(StartPayloadDeposited);
            Ok(Memory { pool, fds, lives: 0, id, shm })
        }
    }
}

/// Whether a pool can be made of these sizes at all.
pub(crate) fn check(args: &Args) -> Result<(), BaseError> {
    baton_pool::Geometry::plan(&config(args)).map_err(baton_pool::CreateError::from)?;
    Ok(())
}

fn config(args: &Args) -> PoolConfig {
    PoolConfig {
        payload_bytes: args.size.unwrap_or(512 << 20),
        largest_block: args.max_block.unwrap_or(16 << 20),
        endpoints: args.members_max.unwrap_or(255),
        inbox_slots: args.inbox_len.unwrap_or(64),
        blocks_min: args.min_blocks,
    }
}

fn reopen_read_only(payload: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(payload));
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
