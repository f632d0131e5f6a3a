//! What holds whatever the pool is made of and however a client comes: the same behaviour over anonymous and named pools,
//! on threads and in runtimes, over Unix sockets and TCP.

mod stage;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use baton_client::{Block, Client, ConnectOptions, Delivery, Inbox, SendFailure, Sender, WhenFull};
use stage::classic::Classic;
use stage::{Daemon, Puppet, WATCHDOG};

/// A pid that nobody on this machine has.
const A: i32 = 4_194_301;

type Start = fn() -> Daemon;
type Enter = fn(&Daemon) -> Classic;

/// Both with inboxes of four messages.
const POOLS: [(&str, Start); 2] = [("anonymous", Daemon::start), ("named", Daemon::classic)];

/// In the one runtime of this program: an inbox belongs to the runtime in which it was first waited at.
fn run<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    });
    RUNTIME.block_on(work)
}

/// How a send and a receive are made: on a thread, or in a runtime.
struct Way {
    name: &'static str,
    send: fn(&Sender, Block, WhenFull) -> Result<u32, SendFailure>,
    recv: fn(&mut Inbox) -> Delivery,
}

const WAYS: [Way; 2] = [
    Way {
        name: "sync",
        send: |sender, block, when| sender.send_with(block, when).map(|s| s.replaced).map_err(|e| e.reason),
        recv: |inbox| inbox.recv(Some(WATCHDOG)).unwrap().expect("a message"),
    },
    Way {
        name: "async",
        send: |sender, block, when| {
            run(sender.send_async(block, when)).map(|s| s.replaced).map_err(|e| e.reason)
        },
        recv: |inbox| {
            run(async { tokio::time::timeout(WATCHDOG, inbox.recv_async()).await })
                .expect("a message")
                .unwrap()
        },
    },
];

/// How a classic client comes, and as whom.
const DOORS: [(&str, Enter); 2] = [("un", Classic::un), ("ip", |daemon| Classic::ip(daemon, A))];

fn numbered(client: &Client, n: u8) -> Block {
    let mut block = client.alloc(1).unwrap();
    block[0] = n;
    block.freeze()
}

fn numbers(inbox: &mut Inbox) -> Vec<u8> {
    std::iter::from_fn(|| inbox.try_recv().unwrap()).map(|delivery| delivery.block[0]).collect()
}

#[test]
fn a_full_inbox_refuses_waits_or_drops_the_oldest() {
    for (pool, start) in POOLS {
        let daemon = start();
        for Way { name, send, recv } in WAYS {
            let way = format!("{pool}, {name}");
            let (client, mut inbox) = daemon.member(ConnectOptions::new("slow").inbox(name));
            let sender = client.sender(name).unwrap();
            for n in 0..4 {
                assert_eq!(send(&sender, numbered(&client, n), WhenFull::Refuse), Ok(0), "{way}");
            }
            let refused = send(&sender, numbered(&client, 4), WhenFull::Refuse);
            assert_eq!(refused, Err(SendFailure::Full), "{way}");
            let late = send(&sender, numbered(&client, 4), WhenFull::Wait(Duration::from_millis(20)));
            assert_eq!(late, Err(SendFailure::Full), "{way}");
            assert_eq!(send(&sender, numbered(&client, 5), WhenFull::DropOldest), Ok(1), "{way}");
            let waiting = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| send(&sender, numbered(&client, 6), WhenFull::Wait(WATCHDOG)));
                let first = recv(&mut inbox);
                assert!([1, 5].contains(&first.block[0]), "{way}: the oldest was dropped");
                waiting.join().unwrap()
            });
            assert_eq!(waiting, Ok(0), "{way}: one receive makes room for one");
            assert_eq!(numbers(&mut inbox).len(), 4, "{way}");
        }
        daemon.assert_balanced();
    }
}

#[test]
fn a_receiver_that_sleeps_is_woken_by_either_kind_of_sender() {
    for (pool, start) in POOLS {
        let daemon = start();
        for Way { name, recv, .. } in WAYS {
            for Way { name: other, send, .. } in WAYS {
                let inbox_name = format!("{name}.{other}");
                let (client, mut inbox) = daemon.member(ConnectOptions::new("sleeps").inbox(&inbox_name));
                let sender = client.sender(&inbox_name).unwrap();
                std::thread::scope(|scope| {
                    let reader =
                        scope.spawn(|| (0..20).map(|_| recv(&mut inbox).block[0]).collect::<Vec<_>>());
                    for n in 0..20 {
                        assert_eq!(send(&sender, numbered(&client, n), WhenFull::Wait(WATCHDOG)), Ok(0));
                    }
                    assert_eq!(reader.join().unwrap(), (0..20).collect::<Vec<u8>>(), "{pool}, {inbox_name}");
                });
            }
        }
        daemon.assert_balanced();
    }
}

#[test]
fn what_a_member_sent_to_a_classic_client_cannot_be_overwritten_by_it() {
    let daemon = Daemon::classic();
    let (client, _inbox) = daemon.member(ConnectOptions::new("member"));
    for (door, enter) in DOORS {
        let mut receiver = enter(&daemon);
        let to = receiver.pid.cast_unsigned();
        // Small ones go into the sender's own magazine when nobody else has them: there they would be used again at once.
        for len in [64, 5000] {
            let mut block = client.alloc(len).unwrap();
            block.fill(7);
            let block = block.freeze();
            let id = block.id();
            let transfer = client.send_to_pid(to, vec![block]).unwrap();
            for _ in 0..200 {
                let mut next = client.alloc(len).unwrap();
                assert_ne!(next.id(), id, "{door}: it is the receiver's");
                next.fill(0xff);
            }
            receiver.recv(transfer.bid, 1, std::process::id().cast_signed()).unwrap();
            assert_eq!(receiver.bytes(transfer.nodes[0], len), vec![7; len], "{door}");
            receiver.free(transfer.nodes[0]).unwrap();
        }
        daemon.assert_balanced();
    }
}

#[test]
fn a_members_full_inbox_refuses_a_classic_client_over_either_door() {
    let daemon = Daemon::classic();
    // A process of its own: over un:// this one is the classic client.
    let mut member = daemon.puppet("member", "member.in");
    for (door, enter) in DOORS {
        let mut sender = enter(&daemon);
        let node = sender.alloc(5000).unwrap();
        let to = member.pid().cast_signed();
        for _ in 0..4 {
            // A block waits in an inbox once: each is another one.
            let node = sender.alloc(64).unwrap();
            sender.pre_send(&[node], to).unwrap();
            sender.free(node).unwrap();
        }
        let (status, sentence) = sender.pre_send(&[node], to).unwrap_err();
        assert!(status == -1 && sentence.contains("no room"), "{door}: {sentence}");
        for _ in 0..4 {
            assert!(member.ask("recv").starts_with("block"), "{door}");
        }
        assert_eq!(member.ask("drop"), "dropped");
        sender.free(node).unwrap();
    }
    daemon.assert_balanced();
}

/// A member as another user, with a copy of this program that that user can run.
fn stranger(daemon: &Daemon, options: &str) -> Puppet {
    let program = daemon.dir().join("member");
    if !program.exists() {
        let this = std::env::current_exe().unwrap();
        assert!(Command::new("cp").arg(this).arg(&program).status().unwrap().success());
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let own = stage::myself("member", &daemon.uri(), options);
    let mut command = Command::new(program);
    command.args(own.get_args()).envs(own.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.current_dir("/").uid(NOBODY).gid(NOBODY);
    let mut puppet = Puppet::start(&mut command);
    assert_eq!(puppet.answer(), "attached");
    puppet
}

const NOBODY: u32 = 65534;

#[test]
fn a_named_pool_is_closed_to_another_user_but_its_members_get_it_from_the_daemon() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root, so nobody else can be played here; see `the_pool_is_for_its_user_only`");
        return;
    }
    for access in ["read", "write"] {
        let rule = format!("size = \"16MiB\"\n[[admit]]\nuid = {NOBODY}\naccess = \"{access}\"\n");
        let daemon = Daemon::configured(&rule);
        for (path, mode) in [(daemon.dir(), 0o755), (&daemon.socket(), 0o666)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        // Its file is none of that user's business ...
        let name = Classic::un(&daemon).hello.name;
        let mut look = Command::new("cat");
        look.arg(format!("/dev/shm{name}")).stdout(std::process::Stdio::null()).uid(NOBODY).gid(NOBODY);
        assert!(!look.status().unwrap().success(), "anybody can open {name}");
        // ... but a member has what the rule gives it.
        let options = if access == "read" { "nobody read-only nobody.in" } else { "nobody nobody.in" };
        let mut member = stranger(&daemon, options);
        assert_eq!(member.ask("mapping"), if access == "read" { "r--s" } else { "rw-s" });
        let mut ours = daemon.puppet("ours", "ours.in");
        ours.ask("hold 1 100000");
        assert_eq!(ours.ask("send nobody.in"), "sent 0");
        let got = member.ask("recv");
        assert!(got.ends_with("good"), "{got}");
        assert_eq!(member.ask("send ours.in"), "sent 0");
        let back = ours.ask("recv");
        assert!(back.ends_with("good"), "{back}");
        let allocated = member.ask("alloc 64");
        assert_eq!(allocated == "allocated", access == "write", "{allocated}");
        daemon.assert_balanced();
    }
}
