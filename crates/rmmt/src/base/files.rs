//! The daemon's files on disk, and the lock: one daemon at a time.
//!
//! The lock is a `flock` on `PATH.lock`, beside the first Unix socket. It belongs to the open file, of which the keeper
//! holds a duplicate, so it outlives a killed daemon: nobody else can start on this path between two lives of ours.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_keeper::WardError;
use baton_killpoint::step;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::{BaseError, LOCK, Places};
use crate::chest::Chest;

/// The sockets' files, and the lock.
pub(crate) struct Files {
    sockets: Vec<PathBuf>,
    lock: PathBuf,
    lock_file: OwnedFd,
}

impl Files {
    pub(super) fn lock(places: &Places, held: Option<OwnedFd>, chest: &mut Chest) -> Result<Self, BaseError> {
        let lock = lock_path(places.first_socket());
        let lock_file = match held {
            Some(held) => {
                chest.own(LOCK, &[], &held).map_err(WardError::from)?;
                held
            }
            None => {
                let taken = take_lock(&lock)?;
                step!(StartLocked);
                chest.put(LOCK, &[], &taken)?;
                step!(StartLockDeposited);
                taken
            }
        };
        Ok(Self { sockets: places.sockets().map(Path::to_owned).collect(), lock, lock_file })
    }

    /// Removes the files, at a clean end. The lock is held until the very end of the process, and its file is removed
    /// while it is held: whoever opened it before finds another file (or none) under the name and looks again.
    pub(crate) fn remove(&self) {
        for socket in &self.sockets {
            remove(socket);
        }
        self.remove_lock();
        tracing::debug!("rmmt: lock {:?} goes with this process", self.lock_file);
    }

    pub(super) fn remove_lock(&self) {
        remove(&self.lock);
    }
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut lock = socket.as_os_str().to_owned();
    lock.push(".lock");
    PathBuf::from(lock)
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
}
