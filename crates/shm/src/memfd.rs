//! Anonymous shared memory whose size never changes and whose pages all exist.

use crate::host::{HostError, HostMemory, LimitedBy};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Left for the rest of the machine (or control group), in bytes.
const LEAVE_FREE: u64 = 32 << 20;

/// Pages are reserved in steps of this many bytes; the host is looked at before each.
const STEP: u64 = 256 << 20;

/// The seals that a pool needs: nobody may change the size, nobody may take the seals off.
const SIZE_IS_FIXED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Why there is no shared memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Nothing to create.
    #[error("shared memory of 0 bytes was asked for: ask for at least one page")]
    Empty,
    /// The host would have to kill for it.
    #[error(
        "{} of shared memory are needed, {} are available, limited by {limited_by}: make the pool smaller, raise the \
         limit or free memory",
        Size(*needed),
        Size(*available)
    )]
    TooLarge {
        /// Bytes needed (what was asked for, in whole pages).
        needed: u64,
        /// Bytes that can be taken safely now.
        available: u64,
        /// What sets that bound.
        limited_by: LimitedBy,
    },
    /// `RLIMIT_FSIZE` would turn the reservation into a SIGXFSZ.
    #[error(
        "{} of shared memory are needed, the limit on file size (ulimit -f) of this process is {}: raise it",
        Size(*needed),
        Size(*limit)
    )]
    FileSizeLimit {
        /// Bytes needed.
        needed: u64,
        /// The soft limit in bytes.
        limit: u64,
    },
    /// How much memory there is could not be found out.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A system call failed.
    #[error("cannot create shared memory: {call} failed: {source}")]
    Kernel {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Bytes as people give them on a command line, with the exact number beside it.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let unit = [(30, "GiB"), (20, "MiB"), (10, "KiB")].into_iter().find(|(shift, _)| bytes >= 1 << shift);
        let Some((shift, unit)) = unit else { return write!(f, "{bytes} bytes") };
        // Tenths, rounded down: what is said to be available is there.
        let (whole, tenth) = (bytes >> shift, ((bytes & ((1 << shift) - 1)) * 10) >> shift);
        match tenth {
            0 => write!(f, "{whole} {unit} ({bytes} bytes)"),
            _ => write!(f, "{whole}.{tenth} {unit} ({bytes} bytes)"),
        }
    }
}

pub(crate) fn kernel(call: &'static str) -> impl Fn(Errno) -> CreateError {
    move |errno| CreateError::Kernel { call, source: errno.into() }
}

/// Creates anonymous shared memory of `len` bytes (rounded up to whole pages): zeroed, every page reserved, size
/// sealed, mode 0600, close-on-exec. `name` is shown in `/proc/PID/maps` as `/memfd:name`, nothing more.
///
/// # Errors
/// [`CreateError`]; nothing is left reserved then.
pub fn create_sealed(name: &str, len: u64) -> Result<OwnedFd, CreateError> {
    #[cfg(miri)]
    return crate::interpreted::create(len);
    let needed = check(len)?;
    let fd = memfd(name)?;
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(kernel("fchmod"))?;
    reserve(&fd, needed)?;
    rustix::fs::fcntl_add_seals(&fd, SIZE_IS_FIXED).map_err(kernel("fcntl(F_ADD_SEALS)"))?;
    Ok(fd)
}

/// The same without any page: each comes into being when it is touched, and where there is no room for it then, that is a
/// SIGBUS. For tests of sizes that no test machine has.
///
/// # Errors
/// [`CreateError::Kernel`].
#[doc(hidden)]
pub fn create_sparse(name: &str, len: u64) -> Result<OwnedFd, CreateError> {
    let fd = memfd(name)?;
    rustix::fs::ftruncate(&fd, len).map_err(kernel("ftruncate"))?;
    rustix::fs::fcntl_add_seals(&fd, SIZE_IS_FIXED).map_err(kernel("fcntl(F_ADD_SEALS)"))?;
    Ok(fd)
}

/// `len` in whole pages, if this host can give that much now.
pub(crate) fn check(len: u64) -> Result<u64, CreateError> {
    if len == 0 {
        return Err(CreateError::Empty);
    }
    let page = rustix::param::page_size() as u64;
    let needed = len.div_ceil(page).saturating_mul(page);
    let room = room_now()?;
    if needed > room.available {
        return Err(CreateError::TooLarge { needed, available: room.available, limited_by: room.limited_by });
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Fsize).current
        && needed > limit
    {
        return Err(CreateError::FileSizeLimit { needed, limit });
    }
    Ok(needed)
}

/// Sizes a new file and makes all its pages exist.
pub(crate) fn reserve(fd: &OwnedFd, needed: u64) -> Result<(), CreateError> {
    rustix::fs::ftruncate(fd, needed).map_err(kernel("ftruncate"))?;
    let mut done = 0;
    while done < needed {
        let step = STEP.min(needed - done);
        let room = room_now()?;
        if step > room.available {
            let available = room.available.saturating_add(done);
            return Err(CreateError::TooLarge { needed, available, limited_by: room.limited_by });
        }
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), done, step) {
            Ok(()) => done += step,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(kernel("fallocate")(errno)),
        }
    }
    Ok(())
}

fn room_now() -> Result<HostMemory, HostError> {
    let mut room = HostMemory::now()?;
    room.available = room.available.saturating_sub(LEAVE_FREE);
    Ok(room)
}

/// With the seal that forbids to run it as a program, where the kernel knows that seal (6.3); Debian 12's 6.1 does
/// not and says `EINVAL`.
fn memfd(name: &str) -> Result<OwnedFd, CreateError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_before_6_3(name),
        other => other.map_err(kernel("memfd_create")),
    }
}

fn memfd_before_6_3(name: &str) -> Result<OwnedFd, CreateError> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(kernel("memfd_create"))
}

/// Opens the same memory again for reading only. A mapping made from the result cannot be made writable, which stops
/// bugs in every reader, and malice in readers of another user: a process of the *same* user can open it writable
/// again through `/proc`.
///
/// # Errors
/// The kernel's error; `/proc` must be mounted.
pub fn reopen_read_only(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// What is wrong with a descriptor that a peer called shared memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValidateError {
    /// No memfd, or one that was made without sealing.
    #[error("the descriptor is no memfd that can be sealed: {0}")]
    NoMemfd(#[source] std::io::Error),
    /// Its size could change under a mapping, which would be a SIGBUS.
    #[error(
        "the memfd is not sealed against changes of its size (it needs F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL)"
    )]
    NotSealed,
    /// Nobody can write to it, or a restarted writer could not map it again.
    #[error(
        "the memfd is sealed against writing (F_SEAL_WRITE or F_SEAL_FUTURE_WRITE): a pool cannot live in it"
    )]
    NotWritable,
    /// Size differs from what was announced.
    #[error("the memfd has {found} bytes, {expected} were announced")]
    Size {
        /// Bytes announced.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Some pages do not exist yet; touching them could fail.
    #[error("only {reserved} of the memfd's {size} bytes are reserved")]
    NotReserved {
        /// Bytes that exist.
        reserved: u64,
        /// Bytes it should have.
        size: u64,
    },
    /// A system call failed.
    #[error("cannot examine the memfd: {0}")]
    Kernel(#[source] std::io::Error),
}

/// Checks that `fd` is a sealed, fully reserved memfd of `expected` bytes (as returned by [`create_sealed`]: whole
/// pages), so that a mapping of it can never fault.
///
/// # Errors
/// [`ValidateError`] says what is wrong.
pub fn validate(fd: impl AsFd, expected: u64) -> Result<(), ValidateError> {
    #[cfg(miri)]
    return crate::interpreted::validate(fd, expected);
    let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|e| ValidateError::NoMemfd(e.into()))?;
    if !seals.contains(SIZE_IS_FIXED) {
        return Err(ValidateError::NotSealed);
    }
    if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Err(ValidateError::NotWritable);
    }
    let stat = rustix::fs::fstat(&fd).map_err(|e| ValidateError::Kernel(e.into()))?;
    let found = u64::try_from(stat.st_size).unwrap_or(0);
    if found != expected || found == 0 {
        return Err(ValidateError::Size { expected, found });
    }
    let reserved = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if reserved < found {
        return Err(ValidateError::NotReserved { reserved, size: found });
    }
    Ok(())
}

/// How large the memory behind a descriptor is, in bytes.
///
/// # Errors
/// The kernel's error.
pub fn size(fd: impl AsFd) -> std::io::Result<u64> {
    #[cfg(miri)]
    return crate::interpreted::size(fd);
    Ok(u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0))
}

/// Whether a descriptor allows a writable mapping.
///
/// # Errors
/// The kernel's error.
pub fn is_writable(fd: impl AsFd) -> std::io::Result<bool> {
    let flags = if cfg!(miri) { OFlags::RDWR } else { rustix::fs::fcntl_getfl(fd)? };
    Ok(flags & OFlags::RWMODE == OFlags::RDWR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_are_typed_and_exactly() {
        for (bytes, text) in [
            (966_367_641_600, "900 GiB (966367641600 bytes)"),
            ((3 << 29) + 5, "1.5 GiB (1610612741 bytes)"),
            (u64::MAX, "17179869183.9 GiB (18446744073709551615 bytes)"),
            (64 << 20, "64 MiB (67108864 bytes)"),
            (1000, "1000 bytes"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_way_for_older_kernels_makes_the_same_memory() {
        let fd = memfd_before_6_3("old").unwrap();
        rustix::fs::ftruncate(&fd, 8192).unwrap();
        assert!(matches!(validate(&fd, 8192), Err(ValidateError::NotSealed)));
        rustix::fs::fcntl_add_seals(&fd, SIZE_IS_FIXED).unwrap();
        let error = validate(&fd, 8192).unwrap_err();
        assert!(matches!(error, ValidateError::NotReserved { reserved: 0, size: 8192 }), "{error}");
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, 8192).unwrap();
        validate(&fd, 8192).unwrap();
    }
}
