//! Descriptors really arrive, in order, owned; nothing leaks on any path.

use baton_fdpass::{
    MAX_FDS, PairKind, RecvError, SendError, peer_credentials, recv, send, send_all, socket_pair,
};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

/// The tests here count this process' descriptors, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn file_with(text: &str) -> File {
    let mut f = tempfile::tempfile().unwrap();
    f.write_all(text.as_bytes()).unwrap();
    f
}

fn text_of(fd: OwnedFd) -> String {
    let mut f = File::from(fd);
    let mut s = String::new();
    f.seek(SeekFrom::Start(0)).unwrap();
    f.read_to_string(&mut s).unwrap();
    s
}

#[test]
fn several_arrive_in_order_and_close_on_exec() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::Stream).unwrap();
    let files: Vec<File> = (0..5).map(|i| file_with(&format!("file {i}"))).collect();
    let fds: Vec<BorrowedFd> = files.iter().map(|f| f.as_fd()).collect();
    assert_eq!(send(&a, b"hello", &fds).unwrap(), 5);
    let mut buf = [0; 16];
    let got = recv(&b, &mut buf, 5).unwrap();
    assert_eq!(&buf[..got.len], b"hello");
    assert!(!got.truncated && !got.bytes_cut);
    assert_eq!(got.fds.len(), 5);
    for (i, fd) in got.fds.into_iter().enumerate() {
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(text_of(fd), format!("file {i}"));
    }
}

#[test]
fn the_most_the_kernel_takes() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::Stream).unwrap();
    let f = file_with("x");
    let before = open_fds();
    send_all(&a, b"!", &vec![f.as_fd(); MAX_FDS]).unwrap();
    let mut buf = [0; 1];
    let got = recv(&b, &mut buf, MAX_FDS).unwrap();
    assert_eq!((got.len, got.fds.len(), got.truncated), (1, MAX_FDS, false));
    drop(got);
    assert_eq!(open_fds(), before);
    let error = send(&a, b"!", &vec![f.as_fd(); MAX_FDS + 1]).unwrap_err();
    assert!(matches!(error, SendError::TooManyFds { count: 254 }), "{error}");
}

#[test]
fn more_than_asked_for_is_reported_and_closed() {
    let _turn = turn();
    let f = file_with("x");
    for max in [0, 1, 2, 3, 4, 7, 8, 100] {
        let (a, b) = socket_pair(PairKind::Stream).unwrap();
        let before = open_fds();
        send(&a, b"!", &vec![f.as_fd(); max + 4]).unwrap();
        let mut buf = [0; 1];
        let got = recv(&b, &mut buf, max).unwrap();
        assert_eq!((got.len, got.fds.len(), got.truncated), (1, max, true));
        drop(got);
        assert_eq!(open_fds(), before, "a descriptor that nobody asked for stayed open");
    }
}

#[test]
fn bytes_without_descriptors_and_end_of_stream() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::Stream).unwrap();
    send_all(&a, b"plain", &[]).unwrap();
    let mut buf = [0; 3];
    let got = recv(&b, &mut buf, 4).unwrap();
    assert_eq!((got.len, got.fds.len()), (3, 0));
    let got = recv(&b, &mut buf, 4).unwrap();
    assert_eq!((&buf[..got.len], got.fds.len()), (&b"in"[..], 0));
    drop(a);
    assert_eq!(recv(&b, &mut buf, 4).unwrap().len, 0);
}

#[test]
fn descriptors_come_with_the_first_byte_of_their_send() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::Stream).unwrap();
    let f = file_with("second");
    send_all(&a, b"aa", &[]).unwrap();
    send_all(&a, b"bb", &[f.as_fd()]).unwrap();
    send_all(&a, b"cc", &[f.as_fd()]).unwrap();
    let mut seen = Vec::new();
    let mut buf = [0; 64];
    while seen.len() < 6 {
        let got = recv(&b, &mut buf, 4).unwrap();
        let starts_at = seen.len();
        seen.extend_from_slice(&buf[..got.len]);
        if !got.fds.is_empty() {
            assert_eq!(got.fds.len(), 1, "two sends with descriptors never arrive glued together");
            assert!(seen[starts_at..].contains(&b'b') || seen[starts_at..].contains(&b'c'));
        }
    }
    assert_eq!(seen, b"aabbcc");
}

#[test]
fn a_packet_longer_than_the_buffer_is_reported() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::SeqPacket).unwrap();
    send(&a, b"0123456789", &[]).unwrap();
    send(&a, b"next", &[]).unwrap();
    let mut buf = [0; 4];
    let got = recv(&b, &mut buf, 0).unwrap();
    assert_eq!((&buf[..got.len], got.bytes_cut), (&b"0123"[..], true));
    let got = recv(&b, &mut buf, 0).unwrap();
    assert_eq!((&buf[..got.len], got.bytes_cut), (&b"next"[..], false));
}

#[test]
fn misuse_is_refused_with_a_sentence() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::Stream).unwrap();
    let f = file_with("x");
    assert!(matches!(send(&a, b"", &[f.as_fd()]), Err(SendError::NoBytes)));
    assert!(matches!(recv(&b, &mut [], 1), Err(RecvError::NoBuffer)));
    drop(b);
    let error = send(&a, b"x", &[f.as_fd()]).unwrap_err();
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::BrokenPipe, "and no SIGPIPE");
}

#[test]
fn a_large_message_goes_out_whole_and_its_descriptors_once() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::Stream).unwrap();
    rustix::io::ioctl_fionbio(&a, true).unwrap();
    let f = file_with("big");
    let sent = vec![7u8; 3 << 20];
    let reader = std::thread::spawn(move || {
        let (mut bytes, mut fds) = (Vec::new(), 0);
        let mut buf = vec![0; 100_000];
        loop {
            let got = recv(&b, &mut buf, 4).unwrap();
            if got.len == 0 {
                return (bytes, fds);
            }
            bytes.extend_from_slice(&buf[..got.len]);
            fds += got.fds.len();
        }
    });
    send_all(&a, &sent, &[f.as_fd()]).unwrap();
    drop(a);
    let (bytes, fds) = reader.join().unwrap();
    assert!(bytes == sent && fds == 1);
}

#[test]
fn non_blocking_sockets_say_so() {
    let _turn = turn();
    let (a, b) = socket_pair(PairKind::Stream).unwrap();
    rustix::io::ioctl_fionbio(&a, true).unwrap();
    rustix::io::ioctl_fionbio(&b, true).unwrap();
    let error = recv(&b, &mut [0; 8], 1).unwrap_err();
    assert!(error.would_block());
    let chunk = vec![0; 4096];
    let error = loop {
        if let Err(e) = send(&a, &chunk, &[]) {
            break e;
        }
    };
    assert!(error.would_block());
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn the_kernel_says_who_the_peer_is() {
    let _turn = turn();
    let (a, _b) = socket_pair(PairKind::Stream).unwrap();
    let peer = peer_credentials(&a).unwrap();
    assert_eq!(peer.pid as u32, std::process::id());
    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    let dir = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
    let client = std::os::unix::net::UnixStream::connect(dir.path().join("s")).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert_eq!(peer_credentials(&server).unwrap().pid as u32, std::process::id());
    assert_eq!(peer_credentials(&client).unwrap(), peer_credentials(&server).unwrap());
    assert!(peer_credentials(tempfile::tempfile().unwrap()).is_err());
}
