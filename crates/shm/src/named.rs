//! Shared memory with a name, for peers that take no descriptors.
//!
//! ```text
//!   name free ─▶ create (O_EXCL, 0600) ─▶ lock ─▶ still ours under that name? ─▶ reserve every page
//!   name taken ─▶ a plain file of ours, not locked ─▶ remove it, start over
//!                 locked: somebody lives who uses it;  somebody else's file, a link, a directory: left alone
//! ```
//!
//! The lock is a `flock` on an open file of its own, not on the one that is handed to peers: it ends with those who keep
//! the name, whoever still has the memory mapped.
//!
//! What a name costs: seals do not work on such a file. A process of the same user can truncate it, and then whoever
//! touches the pages that are gone is killed by SIGBUS. A shortage of memory cannot do that: all pages are reserved.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::memfd::{CreateError, Size, check, kernel, reserve};

/// Where names live.
const DIR: &str = "/dev/shm";

/// How often the start is tried again because somebody else removed or made the file meanwhile.
const TRIES: u32 = 16;

/// Why there is no named memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedError {
    /// No name.
    #[error("{0:?} is no name for shared memory: write /NAME, at most 255 bytes, without a second slash")]
    BadName(String),
    /// Somebody who lives keeps this name.
    #[error("the shared memory {0} is in use by another memory daemon: stop it, or choose another name")]
    InUse(String),
    /// Something lies there that is not ours to remove.
    #[error("{path} is there already and is {what}: it is left alone, choose another name")]
    Foreign {
        /// Where.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The file system of names is too small.
    #[error(
        "{} of named shared memory are needed, {} are available in /dev/shm: make the pool smaller, or enlarge it with \
         `mount -o remount,size=…  /dev/shm`",
        Size(*needed),
        Size(*available)
    )]
    Full {
        /// Bytes needed.
        needed: u64,
        /// Bytes free there.
        available: u64,
    },
    /// As for memory without a name.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// A new named memory.
#[derive(Debug)]
pub struct Named {
    /// The memory, readable and writable.
    pub memory: OwnedFd,
    /// Keeps the name taken for as long as it, or a duplicate of it, is open.
    pub lock: OwnedFd,
    /// Whether something that a dead owner had left there was removed.
    pub replaced: bool,
}

/// Creates shared memory of `len` bytes (whole pages) that `shm_open(name)` finds: mode 0600, zeroed, every page
/// reserved. What a dead owner of the same user left under that name is removed.
///
/// # Errors
/// [`NamedError`]; nothing is left behind then.
pub fn create_named(name: &str, len: u64) -> Result<Named, NamedError> {
    let path = path_of(name)?;
    let needed = check(len)?;
    let mut replaced = false;
    for _ in 0..TRIES {
        match create_at(&path) {
            Ok(Some((memory, lock))) => {
                let reserved = room_for(&path, needed).and_then(|()| Ok(reserve(&memory, needed)?));
                if let Err(error) = reserved {
                    let _ = rustix::fs::unlink(&path); // just made by us, and locked
                    return Err(error);
                }
                return Ok(Named { memory, lock, replaced });
            }
            Ok(None) => {}
            Err(Errno::EXIST) => replaced |= remove_left_over(name, &path)?,
            Err(errno) => return Err(kernel("open")(errno).into()),
        }
    }
    Err(NamedError::InUse(name.to_owned()))
}

/// Removes the name; the memory stays as long as somebody has it open or mapped. For the owner of the lock.
///
/// # Errors
/// The kernel's error. A name that is gone already is none.
pub fn remove_named(name: &str) -> io::Result<()> {
    let path = path_of(name).map_err(io::Error::other)?;
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn path_of(name: &str) -> Result<String, NamedError> {
    let rest = name.strip_prefix('/').unwrap_or_default();
    let bad =
        rest.is_empty() || rest.len() > 254 || rest.contains(['/', '\0']) || rest == "." || rest == "..";
    if bad { Err(NamedError::BadName(name.to_owned())) } else { Ok(format!("{DIR}{name}")) }
}

/// `None` if somebody was faster between two steps.
fn create_at(path: &str) -> Result<Option<(OwnedFd, OwnedFd)>, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let memory = rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
    rustix::fs::fchmod(&memory, mode)?; // whatever the umask took
    let lock = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(lock) => lock,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None), // taken for a left-over, about to be removed
        Err(errno) => return Err(errno),
    }
    let same = is_under(path, &lock)? && same_file(&rustix::fs::fstat(&memory)?, &rustix::fs::fstat(&lock)?);
    Ok(same.then_some((memory, lock)))
}

/// Whether it was removed; false if it went by itself.
fn remove_left_over(name: &str, path: &str) -> Result<bool, NamedError> {
    let foreign = |what| NamedError::Foreign { path: path.to_owned(), what };
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::LOOP) => return Err(foreign("a symbolic link")),
        Err(Errno::ISDIR) => return Err(foreign("a directory")),
        Err(Errno::ACCESS | Errno::PERM) => return Err(foreign("not ours")),
        Err(errno) => return Err(kernel("open")(errno).into()),
    };
    let stat = rustix::fs::fstat(&file).map_err(kernel("fstat"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(foreign("no plain file"));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(foreign("somebody else's"));
    }
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(NamedError::InUse(name.to_owned())),
        Err(errno) => return Err(kernel("flock")(errno).into()),
    }
    // Under our lock nobody else removes this very file; if the name is another's by now, look again.
    if !is_under(path, &file).map_err(kernel("stat"))? {
        return Ok(false);
    }
    rustix::fs::unlink(path).map_err(kernel("unlink"))?;
    Ok(true)
}

fn is_under(path: &str, file: impl AsFd) -> Result<bool, Errno> {
    let ours = rustix::fs::fstat(file)?;
    match rustix::fs::lstat(path) {
        Ok(named) => Ok(same_file(&named, &ours)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// The file system of names has a limit of its own, often half of the memory, in containers 64 MiB.
fn room_for(path: &str, needed: u64) -> Result<(), NamedError> {
    let stat = rustix::fs::statvfs(path).map_err(kernel("statvfs"))?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    // A file system without a limit says 0 blocks.
    if stat.f_blocks != 0 && needed > available {
        return Err(NamedError::Full { needed, available });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn unique(what: &str) -> String {
        format!("/baton-test-{}-{what}", std::process::id())
    }

    #[test]
    fn a_name_is_taken_until_its_owner_is_gone_and_then_replaced() {
        let name = unique("taken");
        let first = create_named(&name, 8192).unwrap();
        assert!(!first.replaced);
        let path = format!("{DIR}{name}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 8192);
        assert!(matches!(create_named(&name, 4096), Err(NamedError::InUse(_))));
        let Named { memory, lock, .. } = first;
        let _still_mapped_somewhere = memory;
        drop(lock);
        let second = create_named(&name, 4096).unwrap();
        assert!(second.replaced);
        remove_named(&name).unwrap();
        remove_named(&name).unwrap();
        assert!(!std::fs::exists(path).unwrap());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let name = unique("link");
        let path = format!("{DIR}{name}");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let error = create_named(&name, 4096).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = create_named(&name, 4096).unwrap_err().to_string();
        assert!(error.contains("a directory"), "{error}");
        std::fs::remove_dir(&path).unwrap();
    }

    #[test]
    fn names_and_sizes_are_checked_and_nothing_is_left() {
        for name in ["", "/", "x", "/a/b", "/..", "/.", "/a\0b", &format!("/{}", "x".repeat(300))] {
            assert!(matches!(create_named(name, 4096), Err(NamedError::BadName(_))), "{name:?}");
        }
        let name = unique("large");
        assert!(create_named(&name, 1 << 60).is_err());
        assert!(!std::fs::exists(format!("{DIR}{name}")).unwrap());
    }
}
