//! A client that is dropped leaves nothing in its process: no descriptor, no mapping. Alone in its program, since others
//! would open and map things meanwhile.

mod stage;

use baton_client::ConnectOptions;
use stage::{Daemon, until};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("baton-")).count()
}

#[test]
fn many_clients_come_and_go_without_a_trace() {
    let rounds = if std::env::var_os("BATON_FULL").is_some() { 1000 } else { 100 };
    let daemon = Daemon::start();
    let before = descriptors();
    let mut outlives = None;
    for n in 0..rounds {
        let options = ConnectOptions::new("brief").inbox("brief.in");
        let (client, mut inbox) = daemon.member(if n % 7 == 6 { options.read_only() } else { options });
        if n % 7 != 6 {
            let block = client.alloc(100).unwrap().freeze();
            drop(block.clone());
            client.sender("brief.in").unwrap().send(block).unwrap();
            let got = inbox.try_recv().unwrap().unwrap().block;
            outlives = (n % 2 == 0).then_some(got); // some blocks live longer than the client they came from
        }
    }
    assert!(mappings() > 0 || outlives.is_none());
    drop(outlives);
    // A thread that was still warming up the last one's pages keeps them for a moment.
    until("the last mapping to go", || (mappings() == 0).then_some(()));
    assert_eq!(descriptors(), before);
    daemon.assert_balanced();
}
