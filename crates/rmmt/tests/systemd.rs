//! This test plays systemd: it is told of readiness, stores descriptors, kills everything, and starts again with them.

mod stage;

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use stage::{Daemon, until};

/// What was said and stored.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    store: BTreeMap<String, OwnedFd>,
}

/// Listens at the notification socket for ever.
fn listen(socket: UnixDatagram) -> Arc<Mutex<Heard>> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let shared = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(received) = baton_fdpass::recv(&socket, &mut buffer, 1) {
            let text = String::from_utf8_lossy(&buffer[..received.len]).into_owned();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).map(str::to_owned);
            let mut heard = shared.lock().unwrap();
            if let Some(name) = name {
                if lines.iter().any(|line| line == "FDSTOREREMOVE=1") {
                    heard.store.remove(&name);
                } else if let Some(fd) = received.fds.into_iter().next() {
                    heard.store.insert(name, fd);
                }
            }
            heard.lines.extend(lines);
        }
    });
    heard
}

fn said(heard: &Mutex<Heard>, what: &str) {
    until(what, || heard.lock().unwrap().lines.iter().any(|line| line == what).then_some(()));
}

/// The command with these descriptors from number 3 on, as systemd starts it. A shell does what needs unsafe code here.
fn with_descriptors(command: &Command, store: &BTreeMap<String, OwnedFd>) -> Command {
    let mut script = String::new();
    for (number, fd) in store.values().enumerate() {
        let high = fcntl_dupfd_cloexec(fd, 100).unwrap();
        fcntl_setfd(&high, FdFlags::empty()).unwrap();
        script += &format!("exec {}<&{high} {high}<&-; ", number + 3, high = high.as_raw_fd());
        std::mem::forget(high); // until the shell has been started; this process ends soon after
    }
    script += r#"LISTEN_PID=$$ exec "$0" "$@""#;
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    let names: Vec<_> = store.keys().map(String::as_str).collect();
    shell.env("LISTEN_FDS", store.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    shell
}

#[test]
fn ready_stored_killed_altogether_and_nobody_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let notify = dir.path().join("notify");
    let heard = listen(UnixDatagram::bind(&notify).unwrap());
    let tell = |mut command: Command| {
        command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "300000");
        command
    };
    let place = tempfile::tempdir().unwrap();
    let daemon = Daemon::at(place, "", tell);
    said(&heard, "READY=1");
    said(&heard, "WATCHDOG=1");
    let mut member = daemon.puppet("member", "member.in");
    member.ask("hold 5 100000");
    until("the member's descriptor", || {
        heard.lock().unwrap().store.keys().any(|name| name.starts_with("event/")).then_some(())
    });

    // As at the end of a service's control group: everything at once. The member belongs to another one.
    let place = daemon.kill_all();
    let (store, before) = {
        let mut heard = heard.lock().unwrap();
        (std::mem::take(&mut heard.store), heard.lines.len())
    };
    let stored: Vec<_> = store.keys().map(|name| name.split('.').next().unwrap()).collect();
    assert!(
        stored.len() >= 5
            && ["lock", "metadata", "payload", "listener/0"].iter().all(|key| stored.contains(key)),
        "{stored:?}"
    );
    let mut daemon = Daemon::at(place, "", |command| with_descriptors(&tell(command), &store));
    drop(store);
    daemon.logged(&["systemd kept", "descriptors of the life before"]);
    daemon.logged(&["adopted the pool of the daemon before, with 1 living members"]);
    let members = daemon.observer().members().unwrap();
    assert_eq!((members[0].name.as_str(), members[0].blocks_held), ("member", 5));
    assert_eq!(member.ask("drop"), "dropped");
    assert_eq!(member.ask("audit"), "true", "it speaks with the new daemon");
    daemon.assert_balanced();
    assert_eq!(daemon.stop().code(), Some(0));
    said(&heard, "STOPPING=1");
    assert!(heard.lock().unwrap().lines[before..].iter().any(|line| line == "READY=1"));
}
