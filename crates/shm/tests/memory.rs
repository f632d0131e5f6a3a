//! What the kernel promises about our memory, asked of the real kernel.

use baton_shm::{Access, CreateError, Mapping, ValidateError, create_sealed, reopen_read_only, validate};
use rustix::fs::{Mode, OFlags, SealFlags};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const MIB: u64 = 1 << 20;

#[test]
fn created_memory_is_reserved_sealed_and_private() {
    let fd = create_sealed("test", 3 * MIB + 1).unwrap();
    validate(&fd, 3 * MIB + 4096).unwrap();
    let seals = rustix::fs::fcntl_get_seals(&fd).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
    assert!(rustix::fs::ftruncate(&fd, 4096).is_err(), "cannot shrink");
    assert!(rustix::fs::ftruncate(&fd, 8 * MIB).is_err(), "cannot grow");
    assert!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE).is_err(), "cannot be sealed further");
    let flags = rustix::io::fcntl_getfd(&fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let meta = File::from(fd).metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    assert!(meta.blocks() * 512 >= 3 * MIB + 4096);
}

#[test]
fn a_host_that_is_too_small_is_told_in_a_sentence() {
    let error = create_sealed("huge", 1 << 50).unwrap_err();
    let CreateError::TooLarge { needed, available, .. } = &error else { panic!("{error}") };
    assert!(*needed == 1 << 50 && *available < 1 << 50);
    let text = error.to_string();
    assert!(text.contains(&needed.to_string()) && text.contains(&available.to_string()), "{text}");
    assert!(text.starts_with("1048576 GiB (") && text.contains(" are available, limited by "), "{text}");
    assert!(matches!(create_sealed("max", u64::MAX), Err(CreateError::TooLarge { .. })));
    assert!(matches!(create_sealed("none", 0), Err(CreateError::Empty)));
}

#[test]
fn two_mappings_see_the_same_bytes() {
    let fd = create_sealed("two", MIB).unwrap();
    let a = Arc::new(Mapping::new(&fd, MIB as usize, Access::ReadWrite).unwrap());
    let b = Arc::new(Mapping::new(&fd, MIB as usize, Access::ReadWrite).unwrap());
    let (x, y) = (a.slice::<AtomicU64>(4096, 8).unwrap(), b.slice::<AtomicU64>(4096, 8).unwrap());
    x[7].store(42, Ordering::SeqCst);
    assert_eq!(y[7].load(Ordering::SeqCst), 42);
    drop((a, b, x));
    assert_eq!(y[7].load(Ordering::SeqCst), 42, "the slice keeps its mapping alive");
}

#[test]
fn pieces_outside_are_refused() {
    let fd = create_sealed("edge", 8192).unwrap();
    let m = Arc::new(Mapping::new(&fd, 8192, Access::ReadWrite).unwrap());
    assert!(m.range(0, 8192).is_ok() && m.range(8192, 0).is_ok());
    assert!(m.range(8192, 1).is_err() && m.range(usize::MAX, 1).is_err() && m.range(1, usize::MAX).is_err());
    assert!(m.slice::<AtomicU64>(8184, 1).is_ok());
    assert!(m.slice::<AtomicU64>(8184, 2).is_err());
    assert!(m.slice::<AtomicU64>(4, 1).is_err(), "not aligned");
    assert!(m.slice::<AtomicU64>(0, usize::MAX / 4).is_err(), "size overflows");
    assert!(m.slice::<AtomicU32>(4, 1).is_ok());
}

#[test]
fn readers_cannot_write() {
    let fd = create_sealed("ro", MIB).unwrap();
    let reader = reopen_read_only(fd.as_fd()).unwrap();
    validate(&reader, MIB).unwrap();
    assert!(Mapping::new(&reader, MIB as usize, Access::ReadWrite).is_err());
    let m = Arc::new(Mapping::new(&reader, MIB as usize, Access::ReadOnly).unwrap());
    assert_eq!(m.access(), Access::ReadOnly);
    assert!(m.slice::<AtomicU64>(0, 1).is_err(), "atomics need a writable mapping");
    let line = std::fs::read_to_string("/proc/self/maps").unwrap();
    let start = format!("{:x}-", m.range(0, 1).unwrap().addr());
    let line = line.lines().find(|l| l.starts_with(&start)).unwrap();
    assert!(line.contains("r--s"), "page protection itself forbids it: {line}");
    // The documented limit: a process of the same user gets around it.
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    assert!(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).is_ok());
}

#[test]
fn a_descriptor_from_a_peer_is_examined() {
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(validate(&file, 0), Err(ValidateError::NoMemfd(_) | ValidateError::NotSealed)));
    let (pipe, _w) = rustix::pipe::pipe().unwrap();
    assert!(matches!(validate(&pipe, 4096), Err(ValidateError::NoMemfd(_))));
    let fd = create_sealed("size", 8192).unwrap();
    assert!(matches!(validate(&fd, 4096), Err(ValidateError::Size { expected: 4096, found: 8192 })));
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let future = rustix::fs::memfd_create("f", flags).unwrap();
    rustix::fs::ftruncate(&future, 4096).unwrap();
    rustix::fs::fallocate(&future, rustix::fs::FallocateFlags::empty(), 0, 4096).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&future, seals).unwrap();
    assert!(matches!(validate(&future, 4096), Err(ValidateError::NotWritable)));
}

#[test]
fn populated_pages_do_not_fault() {
    let fd = create_sealed("warm", 8 * MIB).unwrap();
    let m = Arc::new(Mapping::new(&fd, 8 * MIB as usize, Access::ReadWrite).unwrap());
    m.populate(0..usize::MAX).unwrap();
    let words = m.slice::<AtomicU64>(0, MIB as usize).unwrap();
    let faults = || {
        // field 10 of proc_pid_stat(5), after the name in parentheses: minor faults of this thread
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let rest = stat.rsplit_once(')').unwrap().1.to_owned();
        rest.split_whitespace().nth(7).unwrap().parse::<u64>().unwrap()
    };
    faults();
    let before = faults();
    for page in 0..2048 {
        words[page * 512].store(1, Ordering::Relaxed);
    }
    let during = faults() - before;
    assert!(during < 100, "{during} page faults while touching 2048 populated pages");
}

#[test]
fn a_forked_child_does_not_inherit_the_mapping() {
    let fd = create_sealed("nofork", MIB).unwrap();
    let m = Mapping::new(&fd, MIB as usize, Access::ReadWrite).unwrap();
    let start = format!("{:x}-", m.range(0, 1).unwrap().addr());
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let entry = smaps.split_once(&start).unwrap().1;
    let flags = entry.lines().find(|l| l.starts_with("VmFlags:")).unwrap();
    assert!(flags.split(' ').any(|f| f == "dc"), "VM_DONTCOPY is set: {flags}");
}

#[test]
fn a_copy_can_be_taken_of_any_piece_also_by_readers() {
    let fd = create_sealed("copy", 8192).unwrap();
    let bytes: Vec<u8> = (0..8192u32).map(|i| (i * 7) as u8).collect();
    rustix::io::pwrite(&fd, &bytes, 0).unwrap();
    let reader = reopen_read_only(fd.as_fd()).unwrap();
    for m in [
        Mapping::new(&fd, 8192, Access::ReadWrite).unwrap(),
        Mapping::new(&reader, 8192, Access::ReadOnly).unwrap(),
    ] {
        for (offset, size) in [(0, 8192), (0, 0), (8, 1), (4096, 4095), (8184, 8), (64, 15)] {
            assert_eq!(m.copy_out(offset, size).unwrap(), bytes[offset..offset + size], "{offset} {size}");
        }
        for (offset, size) in [(1, 8), (8184, 9), (8200, 0), (usize::MAX, 1), (8, usize::MAX)] {
            assert!(m.copy_out(offset, size).is_err(), "{offset} {size}");
        }
    }
}
