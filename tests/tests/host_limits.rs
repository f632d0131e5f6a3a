//! A host that is too small, and members that attack the memory: sentences instead of kills, and never a SIGBUS.
//!
//! Some of it needs the right to make control groups or mount namespaces (root, mostly). Without it a test says so on
//! stderr and checks what it can.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use baton_client::{Client, ConnectOptions, Inbox, Observer};
use baton_tests::{program, raw, signal, wait_until};
use baton_wire::attach::Access;
use rustix::fs::{FallocateFlags, SealFlags};
use rustix::process::Signal;

const WATCHDOG: Duration = Duration::from_secs(60);

/// A group with a memory limit and a group below it, without one; removed when dropped.
struct Groups {
    limited: PathBuf,
    inner: PathBuf,
    usage: &'static str,
}

impl Groups {
    /// `None` if this process may not make them here.
    fn with_limit(bytes: u64, name: &str) -> Option<Self> {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let (top, limit, usage) = if version_1.join("memory.limit_in_bytes").exists() {
            (version_1, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
            (Path::new("/sys/fs/cgroup"), "memory.max", "memory.current")
        };
        let limited = top.join(format!("baton-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&limited).ok()?;
        let groups = Self { inner: limited.join("inner"), limited, usage };
        std::fs::create_dir(&groups.inner).ok()?;
        std::fs::write(groups.limited.join(limit), bytes.to_string()).ok()?;
        Some(groups)
    }

    /// A command that enters the inner group before it becomes `baton`.
    fn baton(&self) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.inner)
            .arg(program("baton"));
        command
    }

    fn used(&self) -> u64 {
        let text = std::fs::read_to_string(self.limited.join(self.usage)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        // A group empties a moment after its last process has ended.
        while std::fs::remove_dir(&self.inner).is_err() && self.inner.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = std::fs::remove_dir(&self.limited);
    }
}

struct Daemon {
    child: Child,
    uri: String,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start(mut command: Command, size: &str) -> Self {
        command.arg("rmmt");
        Self::start_as(command, size)
    }

    /// The command says `rmmt` already.
    fn start_as(mut command: Command, size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uri = format!("un://{}", dir.path().join("rmmt.sock").display());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        command.args(["--listen", &uri, "--size", size, "--max-block", "1MiB"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let daemon = Self { child, uri, dir };
        if let Err(error) = Observer::connect(&daemon.uri, WATCHDOG) {
            panic!("{error}\n{}", daemon.log());
        }
        daemon
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn member(&self, name: &str) -> (Client, Inbox) {
        Client::connect(&self.uri, ConnectOptions::new(name).inbox(name).timeout(WATCHDOG)).unwrap()
    }

    fn end(mut self) -> String {
        signal(self.child.id(), Signal::TERM);
        let status = wait_until("the daemon ends", WATCHDOG, || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}\n{}", self.log());
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            signal(self.child.id(), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn refused(mut command: Command, size: &str) -> (Output, String) {
    command.arg("rmmt");
    refused_with(command, &["--size", size])
}

fn refused_with(mut command: Command, options: &[&str]) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("un://{}", dir.path().join("rmmt.sock").display());
    let output = command.args(["--listen", &uri]).args(options).stdin(Stdio::null()).output().unwrap();
    let sentence = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.signal(), None, "killed instead of refused: {sentence}");
    assert_eq!(output.status.code(), Some(78), "{sentence}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a refused start leaves nothing");
    (output, sentence)
}

#[test]
fn an_ancestors_limit_is_a_sentence_and_not_a_kill() {
    let Some(groups) = Groups::with_limit(64 << 20, "small") else {
        eprintln!("no right to make control groups here: only the machine's own limit is tried");
        let (_, sentence) = refused(Command::new(program("baton")), "900GiB");
        assert!(sentence.contains("are needed") && sentence.contains("are available"), "{sentence}");
        return;
    };
    let (_, sentence) = refused(groups.baton(), "512MiB");
    eprintln!("{sentence}");
    assert!(sentence.contains("512 MiB (536870912 bytes)"), "what is needed: {sentence}");
    assert!(sentence.contains("available, limited by the memory limit of control group"), "{sentence}");
    let limited = groups.limited.display().to_string();
    assert!(sentence.contains(&limited) && !sentence.contains("/inner"), "the ancestor is named: {sentence}");
    let available = sentence.split_once("needed, ").unwrap().1;
    assert!(available.contains(" MiB (") || available.starts_with("0 bytes"), "what there is: {sentence}");

    // What fits, works there, every page of it, and is counted there.
    let daemon = Daemon::start(groups.baton(), "16MiB");
    let ((one, _inbox), (_two, mut received)) = (daemon.member("one"), daemon.member("two"));
    let way = one.sender("two").unwrap();
    for serial in 0..64u8 {
        let mut block = one.alloc(1 << 20).unwrap();
        block.fill(serial);
        way.send(block.freeze()).unwrap();
        let delivery = received.recv(Some(WATCHDOG)).unwrap().unwrap();
        assert!(delivery.block.iter().all(|byte| *byte == serial));
    }
    assert!(groups.used() >= 16 << 20, "the pool's pages are reserved in the group: {}", groups.used());
    drop((one, way, received));
    daemon.end();
}

/// Anonymous pool: whatever a member tries with what it was given, nobody gets a SIGBUS (which would be the end of this
/// very process, since it maps the pool like everybody).
#[test]
fn a_member_cannot_take_the_memory_away() {
    let daemon = Daemon::start(Command::new(program("baton")), "8MiB");
    let ((one, _inbox), (_two, mut received)) = (daemon.member("one"), daemon.member("two"));
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", "attacker", "--nocapture"]).env("BATON_TEST_ATTACK", daemon.dir.path());
    let output = other.stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && told.contains("ATTACKED"), "{told}\n{:?}", output.status);
    let way = one.sender("two").unwrap();
    // More than the pool has, so that every block is used again.
    for serial in 0..40u8 {
        let mut block = one.alloc(1 << 20).unwrap();
        block.fill(serial);
        way.send(block.freeze()).unwrap();
        let delivery = received.recv(Some(WATCHDOG)).unwrap().unwrap();
        assert!(delivery.block.iter().all(|byte| *byte == serial));
    }
    assert!(one.audit().unwrap().ok);
    drop((one, way, received));
    daemon.end();
}

/// `baton` where /dev/shm is a small file system of its own. `None` without the right to make one.
fn on_a_small_dev_shm() -> Option<Command> {
    let prepare = "mount --make-rprivate / && mount -t tmpfs -o size=64m baton-test /dev/shm";
    let inside = |rest: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{prepare} && {rest}")]);
        command
    };
    let tried = inside("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = inside("exec \"$0\" \"$@\"");
    command.arg(program("baton"));
    Some(command)
}

/// Named pool on a /dev/shm of 64 MiB: too large is a sentence; what fits stays usable to the last page when others have
/// filled the rest, since its pages are reserved. (A missing page would be a SIGBUS for this very process.)
#[test]
fn a_named_pool_never_runs_out_of_pages() {
    let name = format!("/baton-test-small-{}", std::process::id());
    let Some(mut command) = on_a_small_dev_shm() else {
        eprintln!("no right to make a mount namespace here: only this machine's own /dev/shm is tried");
        let mut command = Command::new(program("baton"));
        command.args(["rmmt", "--shm-name", &name]);
        let (_, sentence) = refused_with(command, &["--size", "900GiB"]);
        assert!(sentence.contains("are needed") && sentence.contains("are available"), "{sentence}");
        return;
    };
    let mut too_large = on_a_small_dev_shm().unwrap();
    too_large.args(["rmmt", "--shm-name", &name]);
    let (_, sentence) = refused_with(too_large, &["--size", "128MiB"]);
    eprintln!("{sentence}");
    assert!(sentence.contains("128 MiB (134217728 bytes) of named shared memory are needed"), "{sentence}");
    assert!(sentence.contains("64 MiB (67108864 bytes) are available in /dev/shm"), "{sentence}");

    command.args(["rmmt", "--shm-name", &name]);
    let daemon = Daemon::start_as(command, "48MiB");
    let ((one, _inbox), (_two, mut received)) = (daemon.member("one"), daemon.member("two"));
    let dev_shm = PathBuf::from(format!("/proc/{}/root/dev/shm", daemon.child.id()));
    assert!(dev_shm.join(&name[1..]).exists() && !Path::new("/dev/shm").join(&name[1..]).exists());
    let filler = std::fs::File::create(dev_shm.join("filler")).unwrap();
    let error = std::io::copy(&mut std::io::repeat(1), &mut { filler }).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    let way = one.sender("two").unwrap();
    let mut held = Vec::new();
    while let Ok(mut block) = one.alloc(1 << 20) {
        block.fill(held.len() as u8);
        way.send(block.freeze()).unwrap();
        held.push(received.recv(Some(WATCHDOG)).unwrap().unwrap());
    }
    assert!(held.len() >= 40, "nearly every page of the pool was written: {}", held.len());
    for (serial, delivery) in held.iter().enumerate() {
        assert!(delivery.block.iter().all(|byte| *byte == serial as u8));
    }
    drop((held, one, way, received));
    let log = daemon.end();
    assert!(log.contains("could truncate it"), "the price of a name is said: {log}");
}

/// Not a test: the process that attacks.
#[test]
fn attacker() {
    let Some(dir) = std::env::var_os("BATON_TEST_ATTACK") else { return };
    let socket = Path::new(&dir).join("rmmt.sock");
    let writer = raw::attach(&socket, "writer", Access::ReadWrite).unwrap();
    let reader = raw::attach(&socket, "reader", Access::ReadOnly).unwrap();
    for fd in [writer.metadata.as_fd(), writer.payload.as_fd(), reader.payload.as_fd()] {
        let size = u64::try_from(rustix::fs::fstat(fd).unwrap().st_size).unwrap();
        for len in [0, 4096, size - 1, size + 1, size * 2] {
            assert!(rustix::fs::ftruncate(fd, len).is_err(), "the size changed to {len}");
        }
        let grow = rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, size + 4096);
        assert!(grow.is_err(), "grown");
        for seals in [SealFlags::WRITE, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
            assert!(rustix::fs::fcntl_add_seals(fd, seals).is_err(), "a seal more would lock others out");
        }
        assert_eq!(u64::try_from(rustix::fs::fstat(fd).unwrap().st_size).unwrap(), size);
    }
    // A reader cannot even write.
    assert!(rustix::io::pwrite(&reader.payload, b"x", 0).is_err());
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let size = u64::try_from(rustix::fs::fstat(&writer.payload).unwrap().st_size).unwrap();
    assert!(rustix::fs::fallocate(&reader.payload, hole, 0, size).is_err(), "a reader punched a hole");
    // A writer can throw the bytes away, as it can overwrite them: zeros are read then, and pages come back when they
    // are touched. It is no SIGBUS for anybody.
    rustix::fs::fallocate(&writer.payload, hole, 0, size).unwrap();
    println!("ATTACKED");
}
