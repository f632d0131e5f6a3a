//! The run directory: one system at a time, nothing left afterwards.
//!
//! A lock on a file in it says that a supervisor lives; the kernel lets go of it whatever happens. So a directory with
//! the file but without the lock is what a killed supervisor left, and is cleaned.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aits_orders::RunDir;
use aits_service::ServiceError;
use rustix::fs::{FlockOperation, flock};

const LOCK: &str = "up.lock";
/// What a system leaves in its directory when it is killed.
const OURS: [&str; 6] = [".sock", ".lock", ".sock.tmp", ".db", ".db-wal", ".db-shm"];
/// Longest path of a Unix socket, without the final zero byte.
const SOCKET_PATH_MAX: usize = 107;
/// The longest name of a socket.
const LONGEST: &str = "preview-worker";

/// A directory that this supervisor owns until [`Place::leave`].
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    lock: File,
}

impl Place {
    /// Makes the directory (mode 0700), or takes over what a killed supervisor left.
    ///
    /// # Errors
    /// A sentence: a system runs there, the directory holds something else or belongs to somebody else, or the path is
    /// too long for a socket.
    pub(super) fn take(run: &RunDir) -> Result<Self, ServiceError> {
        let dir = run.path();
        let longest = run.socket(LONGEST);
        if longest.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ServiceError::config(format!(
                "the run directory {} has too long a path for sockets (the limit is {} bytes); name a shorter one with --run",
                dir.display(),
                SOCKET_PATH_MAX - LONGEST.len() - ".sock/".len(),
            )));
        }
        let refused = |why: String| {
            ServiceError::config(format!(
                "the run directory {} {why}; name another with --run",
                dir.display()
            ))
        };
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).map_err(|error| refused(format!("cannot be made ({error})")))?;
        }
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check_existing(dir, &refused)?,
            Err(error) => return Err(refused(format!("cannot be made ({error})"))),
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(LOCK))
            .map_err(|error| refused(format!("cannot be locked ({error})")))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _unknown = lock.read_to_string(&mut pid);
            return Err(refused(format!("is in use by a system that runs already (pid {})", pid.trim())));
        }
        clean(dir);
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { dir: dir.to_owned(), lock })
    }

    /// Takes everything away.
    pub(super) fn leave(self) {
        clean(&self.dir);
        let _gone = std::fs::remove_file(self.dir.join(LOCK));
        // Stays if somebody put something else there.
        let _not_empty = std::fs::remove_dir(&self.dir);
        drop(self.lock);
    }
}

/// A directory that is there already must be ours: made by us or empty.
fn check_existing(dir: &Path, refused: &dyn Fn(String) -> ServiceError) -> Result<(), ServiceError> {
    let found = std::fs::symlink_metadata(dir)?;
    if !found.is_dir() {
        return Err(refused("is no directory".into()));
    }
    let (uid, mode) = (rustix::process::getuid().as_raw(), found.mode() & 0o777);
    if found.uid() != uid {
        return Err(refused(format!("belongs to user {}", found.uid())));
    }
    if mode & 0o022 != 0 {
        return Err(refused(format!("can be written by other users (mode {mode:o})")));
    }
    let empty = std::fs::read_dir(dir)?.next().is_none();
    if !empty && !dir.join(LOCK).exists() {
        return Err(refused("holds files that are not of this program".into()));
    }
    Ok(())
}

/// Removes what a system leaves, except the lock.
fn clean(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name != LOCK && OURS.iter().any(|end| name.ends_with(end)) {
            let _gone = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_once_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let run = RunDir::new(home.path().join("a/run"));
        let place = Place::take(&run).unwrap();
        assert_eq!(run.path().metadata().unwrap().mode() & 0o777, 0o700);
        let second = Place::take(&run).unwrap_err();
        assert!(second.message().contains(&format!("pid {}", std::process::id())), "{second}");
        std::fs::write(run.socket("vas"), "").unwrap();
        place.leave();
        assert!(!run.path().exists());
    }

    #[test]
    fn what_a_killed_supervisor_left_is_cleaned() {
        let home = tempfile::tempdir().unwrap();
        let run = RunDir::new(home.path().join("run"));
        let place = Place::take(&run).unwrap();
        std::fs::write(run.socket("vas"), "").unwrap();
        std::fs::write(run.path().join("tasks.db-wal"), "").unwrap();
        drop(place); // as a kill: the lock goes, the files stay
        let place = Place::take(&run).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(run.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [LOCK]);
        place.leave();
    }

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("thesis.db"), "years of work").unwrap();
        let refused = Place::take(&RunDir::new(home.path())).unwrap_err();
        assert!(refused.message().contains("not of this program"), "{refused}");
        assert!(home.path().join("thesis.db").exists());
    }

    #[test]
    fn a_path_too_long_for_sockets_is_a_sentence() {
        let run = RunDir::new(format!("/tmp/{}", "x".repeat(100)));
        assert!(Place::take(&run).unwrap_err().message().contains("shorter"));
    }
}
