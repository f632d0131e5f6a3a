//! A keeper without descriptors, and processes whose number is another's by now.

mod stage;

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use baton_client::{Client, ConnectOptions, Inbox};
use baton_fdpass as fdpass;
use baton_wire::attach::{Access, Answer, Attach, HEADER_LEN, Request};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use stage::{Daemon, WATCHDOG, kill, until};

/// The next descriptor that a process would get.
fn next_number(pid: u32) -> u64 {
    (0..).find(|number| !std::fs::exists(format!("/proc/{pid}/fd/{number}")).unwrap()).unwrap()
}

/// Bounds the numbers of descriptors that a process of ours can still get.
fn limit(pid: u32, most: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum; // nobody here has changed it
    let limit = Rlimit { current: most.or(maximum), maximum };
    prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, limit).unwrap();
}

#[test]
fn what_a_keeper_without_descriptors_cannot_hold_is_given_to_it_until_it_can() {
    let daemon = Daemon::start();
    let keeper = daemon.keeper_pid();
    limit(keeper, Some(next_number(keeper)));
    let mut members: Vec<(Client, Inbox)> = Vec::new();
    // A few numbers below the limit may still be free.
    let line = until("the keeper to be out of descriptors", || {
        let number = members.len();
        assert!(number < 100, "{number} members and still room");
        members.push(daemon.member(ConnectOptions::new(format!("m{number}")).inbox(format!("in{number}"))));
        daemon.log().lines().find(|line| line.contains("the keeper cannot hold `event/")).map(str::to_owned)
    });
    let key = line.split('`').nth(1).unwrap().to_owned();
    // It is a member like any other meanwhile, and is spoken of once, however often it is tried.
    let (client, inbox) = members.last_mut().unwrap();
    client
        .sender(&format!("in{}", client.members().unwrap().len() - 1))
        .unwrap()
        .send(client.alloc(64).unwrap().freeze())
        .unwrap();
    assert!(inbox.recv(Some(WATCHDOG)).unwrap().is_some());
    limit(keeper, None);
    daemon.logged(&[&format!("the keeper holds `{key}` now")]);
    daemon.logged(&[&format!("keeper: `{key}` is held after all")]);
    let told =
        daemon.log().lines().filter(|line| line.contains("cannot hold") && line.contains(&key)).count();
    assert_eq!(told, 1);
    // Out of descriptors again, but the daemon can be started anew, and nothing was lost.
    limit(keeper, Some(next_number(keeper)));
    daemon.kill_and_wait();
    let log = daemon.log();
    assert!(!log.contains("its way to the daemon is lost") && !log.contains("trying again in"), "{log}");
    for (number, (client, inbox)) in members.iter_mut().enumerate() {
        let sender = client.sender(&format!("in{number}")).unwrap();
        sender.send(client.alloc(64).unwrap().freeze()).unwrap();
        assert!(inbox.recv(Some(WATCHDOG)).unwrap().is_some());
    }
    limit(keeper, None);
    daemon.assert_balanced();
}

/// Connects to the daemon, gives the connection to whoever started this, and ends.
fn lend_a_connection(daemon: &Daemon) -> (UnixStream, u32) {
    let (ours, theirs) = fdpass::socket_pair(fdpass::PairKind::Stream).unwrap();
    let mut child = stage::myself("lender", &daemon.uri(), "").stdin(Stdio::from(theirs)).spawn().unwrap();
    let pid = child.id();
    let mut byte = [0];
    let received = fdpass::recv(&ours, &mut byte, 1).unwrap();
    let stream = UnixStream::from(received.fds.into_iter().next().expect("a connection"));
    child.wait().unwrap();
    (stream, pid)
}

/// A process with this number, if this test may choose numbers and nobody takes it first.
fn somebody_with(pid: u32) -> Option<Child> {
    for _ in 0..300 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        if child.id() == pid {
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}

fn start_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

fn attach(mut stream: UnixStream, start_time: u64) -> String {
    let request = Request::Attach(Attach {
        name: "borrowed".parse().unwrap(),
        inbox: None,
        access: Access::ReadWrite,
        start_time,
        token: 1,
    });
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.write_all(&request.encode(1).unwrap()).unwrap();
    let mut bytes = vec![0; 64 << 10];
    let received = fdpass::recv(stream.as_fd(), &mut bytes, 3).unwrap();
    match Answer::decode(&bytes[HEADER_LEN..received.len]).unwrap() {
        Answer::Error(failure) => failure.code.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn nobody_attaches_as_a_process_that_has_ended_even_if_its_number_is_anothers() {
    let daemon = Daemon::start();
    let (stream, _) = lend_a_connection(&daemon);
    assert_eq!(attach(stream, 1), "not_you");
    let (stream, pid) = lend_a_connection(&daemon);
    let Some(mut other) = somebody_with(pid) else {
        eprintln!("numbers of processes cannot be chosen here: only tried with one that nobody has");
        return;
    };
    // Its start time is public. Followed by its number, this connection would be that process'.
    let answer = attach(stream, start_time(pid));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(answer, "not_you");
    assert!(daemon.guests().is_empty());
    kill(daemon.pid(), Signal::CONT); // it lives
}
