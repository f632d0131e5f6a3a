//! What the daemon stands on: the lock, the pool's two memory files, the listening socket. Made, or adopted from the
//! keeper.
//!
//! ```text
//!   deposits under the keeper:  lock, metadata, payload, listener      all there ─▶ adopt
//!                               anything less (killed while starting)           ─▶ keep the lock, make the rest anew
//! ```
//!
//! The lock is a `flock` on `PATH.lock`. It belongs to the open file, of which the keeper holds a duplicate, so it
//! outlives a killed daemon: nobody else can start on this path between two lives of ours.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_address::{Address, BindError, Socket};
use baton_keeper::{Deposit, Ward, WardError};
use baton_pool::{Pool, PoolConfig, PoolFds};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::Args;

/// Everything the daemon serves from.
pub(crate) struct Base {
    pub(crate) pool: Pool,
    pub(crate) fds: PoolFds,
    /// The payload, opened again without the right to write.
    pub(crate) payload_read_only: OwnedFd,
    pub(crate) listener: UnixListener,
    pub(crate) files: Files,
    /// How many daemons served this pool before: 0 if it is new.
    pub(crate) lives: u32,
}

/// The two files on disk, and the lock.
pub(crate) struct Files {
    socket: PathBuf,
    lock: PathBuf,
    lock_file: OwnedFd,
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    #[error("--listen {given}: {reason}")]
    Address { given: String, reason: String },
    #[error("another memory daemon runs at {0}; stop it, or choose another path with --listen")]
    Locked(PathBuf),
    #[error("cannot lock {path}: {source}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Bind(#[from] BindError),
    #[error("{0}")]
    Create(#[from] baton_pool::CreateError),
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
        matches!(self, Self::Address { .. } | Self::Create(_) | Self::Bind(_) | Self::Lock { .. })
    }
}

pub(crate) const LOCK: &str = "lock";
pub(crate) const METADATA: &str = "metadata";
pub(crate) const PAYLOAD: &str = "payload";
pub(crate) const LISTENER: &str = "listener";

/// The path of `un://PATH`.
pub(crate) fn socket_path(uri: &str) -> Result<PathBuf, BaseError> {
    let error = |reason: String| BaseError::Address { given: uri.to_owned(), reason };
    match uri.parse::<Address>().map_err(|e| error(e.to_string()))? {
        Address::Unix { path } => Ok(path),
        Address::Tcp { .. } => Err(error("members attach over a Unix socket; write un://PATH".to_owned())),
    }
}

impl Base {
    /// Takes over what `deposits` hold, or starts anew. Deposits that are not ours stay in the list.
    pub(crate) fn lay(
        args: &Args,
        ward: Option<&Ward>,
        deposits: &mut Vec<Deposit>,
    ) -> Result<Self, BaseError> {
        let path = socket_path(&args.listen)?;
        let mut take = |key: &str| {
            let at = deposits.iter().position(|d| d.key == key)?;
            Some(deposits.swap_remove(at))
        };
        let (lock, metadata, payload, listener) = (take(LOCK), take(METADATA), take(PAYLOAD), take(LISTENER));

        let files = Files::lock(&path, lock.map(|d| d.fd), ward)?;
        let memory = memory(args, ward, metadata.zip(payload));
        let laid = memory.and_then(|memory| {
            let payload_read_only = reopen_read_only(&memory.fds.payload).map_err(BaseError::Readers)?;
            Ok((memory, payload_read_only, listen(path, ward, listener)?))
        });
        // A refused start leaves nothing behind; the lock itself is still held while its file goes.
        let (Memory { pool, fds, lives }, payload_read_only, listener) =
            laid.inspect_err(|_| remove(&files.lock))?;
        Ok(Self { pool, fds, payload_read_only, listener, files, lives })
    }
}

struct Memory {
    pool: Pool,
    fds: PoolFds,
    lives: u32,
}

fn memory(args: &Args, ward: Option<&Ward>, held: Option<(Deposit, Deposit)>) -> Result<Memory, BaseError> {
    match held {
        Some((metadata, payload)) => {
            let before = <[u8; 4]>::try_from(payload.note.as_slice()).map_or(0, u32::from_le_bytes);
            let lives = before.saturating_add(1);
            let fds = PoolFds { metadata: metadata.fd, payload: payload.fd };
            let pool = Pool::open(&fds.metadata, &fds.payload)?;
            deposit(ward, PAYLOAD, &lives.to_le_bytes(), &fds.payload)?;
            Ok(Memory { pool, fds, lives })
        }
        None => {
            let (pool, fds) = Pool::create(&config(args))?;
            deposit(ward, METADATA, &[], &fds.metadata)?;
            deposit(ward, PAYLOAD, &0u32.to_le_bytes(), &fds.payload)?;
            Ok(Memory { pool, fds, lives: 0 })
        }
    }
}

fn listen(path: PathBuf, ward: Option<&Ward>, held: Option<Deposit>) -> Result<UnixListener, BaseError> {
    if let Some(held) = held {
        return Ok(UnixListener::from(held.fd));
    }
    let listener = bind(path)?;
    deposit(ward, LISTENER, &[], &listener)?;
    Ok(listener)
}

fn config(args: &Args) -> PoolConfig {
    PoolConfig {
        payload_bytes: args.size,
        largest_block: args.max_block,
        endpoints: args.members_max,
        inbox_slots: args.inbox_len,
        ..PoolConfig::default()
    }
}

fn deposit(ward: Option<&Ward>, key: &str, note: &[u8], fd: impl AsFd) -> Result<(), WardError> {
    ward.map_or(Ok(()), |ward| ward.deposit(key, note, fd.as_fd()))
}

fn bind(path: PathBuf) -> Result<UnixListener, BaseError> {
    let address = Address::Unix { path };
    let (socket, guard) = address.bind()?.into_parts();
    // The guard would remove the file when this process unwinds, but then the keeper still has the socket and the next
    // daemon serves it. The file goes with `Files::remove`, at a clean end only.
    std::mem::forget(guard);
    match socket {
        Socket::Unix(listener) => Ok(listener),
        Socket::Tcp(_) => Err(BaseError::Address {
            given: address.to_string(),
            reason: "members attach over a Unix socket".to_owned(),
        }),
    }
}

fn reopen_read_only(payload: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(payload));
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

impl Files {
    fn lock(socket: &Path, held: Option<OwnedFd>, ward: Option<&Ward>) -> Result<Self, BaseError> {
        let mut lock = socket.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let lock_file = match held {
            Some(held) => held,
            None => {
                let taken = take_lock(&lock)?;
                deposit(ward, LOCK, &[], &taken)?;
                taken
            }
        };
        Ok(Self { socket: socket.to_owned(), lock, lock_file })
    }

    /// Removes both files, at a clean end. The lock is held until the very end of the process, and its file is removed
    /// while it is held: whoever opened it before finds another file (or none) under the name and looks again.
    pub(crate) fn remove(&self) {
        remove(&self.socket);
        remove(&self.lock);
        tracing::debug!("rmmt: lock {:?} goes with this process", self.lock_file);
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("rmmt: {} cannot be removed: {error}", path.display());
    }
}

fn take_lock(path: &Path) -> Result<OwnedFd, BaseError> {
    let failed = |source| BaseError::Lock { path: path.to_owned(), source };
    loop {
        let file: File = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)
            .map_err(failed)?;
        match try_lock(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(BaseError::Locked(path.with_extension(""))),
            Err(errno) => return Err(failed(errno.into())),
        }
        // Somebody who ended cleanly may have removed the name between our open and our lock.
        let ours = file.metadata().map_err(failed)?;
        match std::fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => return Ok(file.into()),
            _ => {}
        }
    }
}

/// How often a taken lock is tried again, and how far apart.
const LOCK_TRIES: u32 = 20;
const LOCK_PACE: Duration = Duration::from_millis(25);

/// Takes the lock, or says `WOULDBLOCK` once it has been taken for half a second. A shorter time proves nothing: a
/// `flock` goes when the *last* copy of its descriptor goes, and a child that its holder forked has copies of them all
/// until it calls `exec`.
fn try_lock(file: &File) -> Result<(), Errno> {
    let attempt = || rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    for _ in 1..LOCK_TRIES {
        match attempt() {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PACE),
            done => return done,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rmmt.sock.lock");
        let first = take_lock(&path).unwrap();
        let error = take_lock(&path).unwrap_err().to_string();
        assert!(error.contains("another memory daemon runs at") && error.contains("rmmt.sock;"), "{error}");
        // A duplicate, as the keeper has one, keeps the lock.
        let duplicate = first.try_clone().unwrap();
        drop(first);
        assert!(take_lock(&path).is_err());
        drop(duplicate);
        take_lock(&path).unwrap();
    }

    #[test]
    fn only_unix_sockets() {
        assert_eq!(socket_path("un:///tmp/x.sock").unwrap(), Path::new("/tmp/x.sock"));
        for uri in ["ip://127.0.0.1:1", "/tmp/x.sock", "un://"] {
            let error = socket_path(uri).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("--listen"), "{error}");
        }
    }
}
